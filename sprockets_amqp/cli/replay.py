"""The command replay: tell what a recorder has written, in the terminal or as a page."""

import argparse
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from sprockets_amqp.recording.told import told
from sprockets_amqp.recording.trace import NoTraceError, Trace, read
from sprockets_amqp.web.replay import page

from .command import OK, UsageError

SUMMARY: Final = "tell what a client's recorder has written"
STATUS: Final = "Exit status: 0 it was told, 1 a file cannot be read, 2 bad usage, or not a trace."

#: Seconds on both sides of a time.
AROUND: Final = 60.0
_TIME: Final = "3:12, 03:12:05 (the latest one that is recorded), or 2026-11-30T03:12; local time"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="a recorder's file, or its folder")
    parser.add_argument("--from", dest="since", metavar="TIME", help=f"leave out what was before: {_TIME}")
    parser.add_argument("--to", dest="until", metavar="TIME", help="leave out what was after")
    parser.add_argument("--around", metavar="TIME", help=f"tell the {AROUND:g} seconds before and after")
    parser.add_argument("--all", action="store_true", help="tell every trigger of every machine, the ignored ones too")
    parser.add_argument("--html", metavar="OUT", type=Path, help="write a page that replays it, and needs no network")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    traces = load(options.files)
    since, until = _window(options, traces)
    if options.html is not None:
        options.html.write_text(page(traces, since, until), encoding="utf-8")
        print(f"written: {options.html}")
        return OK
    lines = told(traces, since, until, everything=options.all)
    first = next(lines, None)
    if first is None:
        raise UsageError(f"nothing is recorded then: {_span(traces)}")
    print(first)
    for line in lines:
        print(line)
    return OK


def _span(traces: list[Trace]) -> str:
    first, last = (datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds") for at in _ends(traces))
    return f"what is recorded is from {first} to {last}"


def _ends(traces: list[Trace]) -> tuple[float, float]:
    times = [line.at for trace in traces for line in trace.lines]
    return min(times), max(times)


def load(files: list[Path]) -> list[Trace]:
    """Read traces. Raises UsageError if there are none."""
    try:
        return read(files)
    except NoTraceError as error:
        raise UsageError(str(error)) from None


def _window(options: argparse.Namespace, traces: list[Trace]) -> tuple[float, float]:
    first, last = _ends(traces)
    if options.around is not None:
        if options.since is not None or options.until is not None:
            raise UsageError("--around and --from or --to are both given: use one of them")
        at = _time(options.around, first, last)
        return at - AROUND, at + AROUND
    since = first if options.since is None else _time(options.since, first, last)
    until = last if options.until is None else _time(options.until, first, last)
    if since > until:
        raise UsageError("--from is after --to")
    return since, until


def _time(text: str, first: float, last: float) -> float:
    """Return the time in seconds since 1970; of a time without a date, the latest one that is recorded."""
    try:
        return datetime.fromisoformat(text).timestamp() if "-" in text else _latest(text, first, last)
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is not a time: give {_TIME}") from None


def _latest(text: str, first: float, last: float) -> float:
    time = datetime.strptime(text, "%H:%M:%S" if text.count(":") > 1 else "%H:%M").time()  # noqa: DTZ007 - local time
    end = datetime.fromtimestamp(last)  # noqa: DTZ006 - local time
    latest = datetime.combine(end.date(), time)
    # The minute that was given may have begun before the first line.
    while latest > end and (latest - timedelta(days=1)).timestamp() >= first - AROUND:
        latest -= timedelta(days=1)
    return latest.timestamp()
