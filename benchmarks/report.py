"""The tables: Markdown whose columns line up, so that a terminal shows them as well."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.cases import DEFAULTS, HANDLER, HEADERS, HEADLINE, LONE, Case, Measure
from benchmarks.peers import BARE, BASELINE, LIBRABBITMQ, OURS, PEERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Results

_ABSENT = "-"
_AT_MOST = "at most 0.40 (0.33 on Python 3.14)"

#: What this project's client is held against: what is compared, on which case, with which peer, and the goal.
_GOALS: tuple[tuple[str, Case, str, Measure, str], ...] = (
    ("processor time per confirmed message, over pika by hand", HEADLINE, BASELINE, "cpu", _AT_MOST),
    ("the same with headers", HEADERS, BASELINE, "cpu", _ABSENT),
    ("the same with the client's defaults alone", DEFAULTS, BASELINE, "cpu", _ABSENT),
    ("the same, over pika by hand without any properties", DEFAULTS, BARE, "cpu", _ABSENT),
    ("messages per second, over librabbitmq in C", HEADLINE, LIBRABBITMQ, "rate", "at least 0.9"),
    ("one at a time: latency p50, over pika by hand", LONE, BASELINE, "p50", "at most 1.0"),
)


def render(results: Results) -> str:
    """Return the whole report; what was not measured is left out."""
    cases = sorted(results.cases("pipelined", "one at a time"), key=lambda case: (case.tls, case.size, case.window))
    sections = [
        ("Against the goals", goals(results)),
        ("Processor time per confirmed message: µs (over pika by hand)", _grid(results, cases, "cpu", "{:,.1f}")),
        ("Confirmed messages per second (over pika by hand)", _grid(results, cases, "rate", "{:,.0f}")),
        ("One at a time: latency of a confirmed publish", _latencies(results)),
        ("In a Tornado handler: processor time of the server per request", _handlers(results)),
        ("Where", "".join(f"- {name}: {value}\n" for name, value in results.machine.items())),
    ]
    return "\n".join(f"## {heading}\n\n{section}" for heading, section in sections if section)


def summary(results: Results) -> str:
    """Return the README's table, of the clients that a user would choose from, and where it was measured."""
    peers = (OURS, BASELINE, "aiormq", "aio-pika")
    alone = ("", "", "")
    rows = (
        (
            f"processor time per confirmed message ({HEADLINE.title})",
            *(_number(results.median(HEADLINE, peer, "cpu"), "{:.1f} µs") for peer in peers),
        ),
        (
            "the same, over pika by hand, in turn",
            *(_number(results.ratio(HEADLINE, peer, BASELINE, "cpu"), "{:.2f}") for peer in peers),
        ),
        (
            "the same with headers",
            *(_number(results.ratio(HEADERS, peer, BASELINE, "cpu"), "{:.2f}") for peer in peers),
        ),
        (
            "messages per second, over librabbitmq in C",
            _number(results.ratio(HEADLINE, OURS, LIBRABBITMQ, "rate"), "{:.2f}"),
            *alone,
        ),
        (
            "one at a time: latency p50",
            *(_number(results.median(LONE, peer, "p50"), "{:.2f} ms", 1e3) for peer in peers),
        ),
        (
            "what a publish adds to a Tornado request",
            *(_number(results.median(HANDLER, peer, "adds"), "{:.0f} µs") for peer in peers),
        ),
    )
    where = "Medians; {when}, RabbitMQ {RabbitMQ}, {processor}; {system}.".format(**results.machine)
    return f"{table(('', OURS, 'pika by hand', *peers[2:]), rows)}\n{where}\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with every column but the first set to the right; nothing for no rows."""
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "".join(_aligned(cells, widths) for cells in (header, rule, *rows))


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return f"| {' | '.join((cells[0].ljust(widths[0]), *rest))} |\n"


def goals(results: Results) -> str:
    """Return the ratios that this project's client is held against, the median and the range of each."""
    rows = [
        (what, goal, *_spread(ratios))
        for what, case, baseline, measure, goal in _GOALS
        if (ratios := results.ratios(case, OURS, baseline, measure))
    ]
    if added := results.values(HANDLER, OURS, "added"):
        rows.append(
            ("processor time a handler's publish adds, over the empty request", "at most 0.20", *_spread(added))
        )
    rows += [(check.what, check.goal, check.value, "") for check in results.checks]
    return table(("", "goal", "median", "all rounds"), rows)


def _grid(results: Results, cases: Sequence[Case], measure: Measure, form: str) -> str:
    peers = [peer for peer in PEERS if any((case, peer) in results.rounds for case in cases)]
    rows = [(case.title, *(_cell(results, case, peer, measure, form) for peer in peers)) for case in cases]
    return table(("", *peers), rows)


def _cell(results: Results, case: Case, peer: str, measure: Measure, form: str) -> str:
    value, ratios = results.median(case, peer, measure), results.ratios(case, peer, BASELINE, measure)
    ratio = f" ({statistics.median(ratios):.2f})" if ratios and peer != BASELINE else ""
    return _number(value, form) + ratio


def _latencies(results: Results) -> str:
    rows = [
        (
            f"{peer}, {'TLS' if case.tls else 'plain'}",
            *(_number(results.median(case, peer, measure), "{:.2f} ms", 1e3) for measure in ("p50", "p99")),
            _number(results.ratio(case, peer, BASELINE, "p50"), "{:.2f}"),
        )
        for case in results.cases("one at a time")
        for peer in results.peers(case)
    ]
    return table(("", "p50", "p99", "p50 over pika"), rows)


def _handlers(results: Results) -> str:
    columns: tuple[Measure, ...] = ("empty_cpu", "cpu", "adds")
    rows = [
        (
            peer,
            *(_number(results.median(case, peer, measure), "{:.0f} µs") for measure in columns),
            _number(results.median(case, peer, "added"), "{:.2f}"),
        )
        for case in results.cases("handler")
        for peer in results.peers(case)
    ]
    return table(("", "empty", "publishing", "adds", "adds over empty"), rows)


def _spread(values: Sequence[float]) -> tuple[str, str]:
    return f"{statistics.median(values):.2f}", f"{min(values):.2f} to {max(values):.2f}"


def _number(value: float | None, form: str, scale: float = 1) -> str:
    return _ABSENT if value is None else form.format(value * scale)
