"""The command replay: tell what a recorder has written, in the terminal or as a page."""

import argparse
import bisect
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from datetime import time as clock
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
    traces = load(options.files, lambda problem: print("sprockets-amqp:", problem, file=sys.stderr))
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


def load(files: list[Path], on_damage: Callable[[str], object] | None = None) -> list[Trace]:
    """Read traces. Raises UsageError if there are none, or one is damaged and nobody is told of that."""
    try:
        return read(files, on_damage)
    except NoTraceError as error:
        raise UsageError(str(error)) from None


def _ends(traces: list[Trace]) -> tuple[float, float]:
    times = [at for trace in traces for at, _ in trace.moments()]
    return min(times), max(times)


def _window(options: argparse.Namespace, traces: list[Trace]) -> tuple[float, float]:
    first, last = _ends(traces)
    if options.around is not None:
        if options.since is not None or options.until is not None:
            raise UsageError("--around and --from or --to are both given: use one of them")
        at = _time(options.around, traces)
        return at - AROUND, at + AROUND
    since = first if options.since is None else _time(options.since, traces)
    until = last if options.until is None else _time(options.until, traces)
    if since > until:
        raise UsageError("--from is after --to")
    return since, until


def _time(text: str, traces: list[Trace]) -> float:
    """Return the time in seconds since 1970; of a time without a date, the latest one around which there is a line."""
    try:
        if "-" in text:
            return datetime.fromisoformat(text).timestamp()
        # 3:12 is 03:12.
        time = clock.fromisoformat(text.zfill(len(text) + (text[1:2] == ":")))
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is not a time: give {_TIME}") from None
    times = sorted(at for trace in traces for at, _ in trace.moments())
    days = {datetime.fromtimestamp(at).date() + timedelta(days=more) for at in times for more in (0, 1)}  # noqa: DTZ006
    given = sorted((datetime.combine(day, time).timestamp() for day in days), reverse=True)
    near = (each for each in given if _nearest(times, each) <= AROUND)
    # Between two lines it is meant as well.
    return next(near, next((each for each in given if times[0] <= each <= times[-1]), given[-1]))


def _nearest(times: list[float], at: float) -> float:
    """Return how many seconds there are to the nearest of some times, which are sorted."""
    index = bisect.bisect(times, at)
    return min(abs(each - at) for each in times[max(0, index - 1) : index + 1])
