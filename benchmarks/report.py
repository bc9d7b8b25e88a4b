"""The tables of what the peers were measured on."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks import growth_report
from benchmarks.cases import DEFAULTS, HANDLER, HEADERS, HEADLINE, LONE, Case, Measure
from benchmarks.messages import MAKERS
from benchmarks.peers import BARE, BASELINE, LIBRABBITMQ, OURS, PEERS
from benchmarks.tables import ABSENT, number, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Record, Results

#: What this project's client is held against: what is compared, on which case, with which peer (None: the measure is a
#: ratio by itself), and the goal.
_GOALS: tuple[tuple[str, Case, Measure, str | None, str], ...] = (
    ("processor time a message, over pika by hand", HEADLINE, "cpu", BASELINE, "at most 0.40, on Python 3.14 0.33"),
    ("the same, with headers as well", HEADERS, "cpu", BASELINE, ABSENT),
    ("the same, without properties", DEFAULTS, "cpu", BASELINE, ABSENT),
    ("the same, pika sending none at all", DEFAULTS, "cpu", BARE, ABSENT),
    ("messages a second, over librabbitmq in C", HEADLINE, "rate", LIBRABBITMQ, "at least 0.9"),
    ("one at a time: latency p50, over pika by hand", LONE, "p50", BASELINE, "at most 1.0"),
    ("processor time that a handler's publish adds, over the empty request", HANDLER, "added", None, "at most 0.20"),
)

#: The rows of the README: what, on which case, over which peer, and how it is written.
_SUMMARY: tuple[tuple[str, Case, Measure, str | None, str], ...] = (
    ("processor time a message", HEADLINE, "cpu", None, "{:.1f} µs"),
    ("the same, over pika by hand", HEADLINE, "cpu", BASELINE, "{:.2f}"),
    ("the same, with headers as well", HEADERS, "cpu", BASELINE, "{:.2f}"),
    ("messages a second, over librabbitmq", HEADLINE, "rate", LIBRABBITMQ, "{:.2f}"),
    ("one at a time: latency p50, over pika by hand", LONE, "p50", BASELINE, "{:.2f}"),
    ("what a publish adds to a Tornado request", HANDLER, "adds", None, "{:.0f} µs"),
    ("the same, over the empty request", HANDLER, "added", None, "{:.2f}"),
)


def render(record: Record) -> str:
    """Return the whole report; what was not measured is left out."""
    sections = [("## Against the goals", goals(record))]
    for system, results in record.items():
        sections += _sections(system, results) if results.machine else []
    for results in record.values():
        sections += growth_report.sections(results)
    return "\n".join(f"{heading}\n\n{section}" for heading, section in sections if section)


def goals(record: Record) -> str:
    """Return the ratios that this project's client is held against, the median and the range of each."""
    rows = [
        (what, results.name, goal, *_spread(values))
        for what, case, measure, baseline, goal in _GOALS
        for results in record.values()
        if (values := results.ratios(case, OURS, baseline, measure))
    ]
    rows += [
        (check.what, results.name, check.goal, check.value, "")
        for results in record.values()
        for check in results.checks
    ]
    return table(("", "on", "goal", "median", "all rounds"), rows)


def summary(record: Record) -> str:
    """Return the README's table, of the clients that a user would choose from, and where it was measured."""
    peers = [peer for peer in PEERS if peer != BARE]
    measured = [results for results in record.values() if results.machine]
    rows = [
        (what, results.name, *(number(results.ratio(case, peer, baseline, measure), form) for peer in peers))
        for what, case, measure, baseline, form in _SUMMARY
        for results in measured
    ]
    where = "".join("\n{}: {when}; {processor}; {system}.\n".format(each.name, **each.machine) for each in measured)
    names = {BASELINE: "pika by hand", LIBRABBITMQ: "librabbitmq (C)"}
    head = (HEADLINE.title, "medians on", *(names.get(peer, peer) for peer in peers))
    return f"{table(head, rows)}{where}"


def _sections(system: str, results: Results) -> list[tuple[str, str]]:
    given = list(MAKERS)
    cases = sorted(
        results.cases("pipelined", "one at a time"),
        key=lambda case: (case.tls, case.size, case.window, given.index(case.given)),
    )
    where = {"recorded as": system, **results.machine}
    return [
        (f"## {results.name}", "".join(f"- {name}: {value}\n" for name, value in where.items())),
        ("### Processor time per confirmed message: µs (over pika by hand)", _grid(results, cases, "cpu", "{:,.1f}")),
        ("### Confirmed messages per second (over pika by hand)", _grid(results, cases, "rate", "{:,.0f}")),
        ("### One at a time: latency of a confirmed publish", _latencies(results)),
        ("### In a Tornado handler: processor time of the server per request", _handlers(results)),
    ]


def _grid(results: Results, cases: Sequence[Case], measure: Measure, form: str) -> str:
    peers = [peer for peer in PEERS if any((case, peer) in results.rounds for case in cases)]
    rows = [(case.title, *(_cell(results, case, peer, measure, form) for peer in peers)) for case in cases]
    return table(("", *peers), rows)


def _cell(results: Results, case: Case, peer: str, measure: Measure, form: str) -> str:
    value, ratios = results.median(case, peer, measure), results.ratios(case, peer, BASELINE, measure)
    ratio = f" ({statistics.median(ratios):.2f})" if ratios and peer != BASELINE else ""
    return number(value, form) + ratio


def _latencies(results: Results) -> str:
    rows = [
        (
            f"{peer}, {'TLS' if case.tls else 'plain'}",
            *(number(results.median(case, peer, measure), "{:.2f} ms", 1e3) for measure in ("p50", "p99")),
            number(results.ratio(case, peer, BASELINE, "p50"), "{:.2f}"),
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
            *(number(results.median(case, peer, measure), "{:.0f} µs") for measure in columns),
            number(results.median(case, peer, "added"), "{:.2f}"),
        )
        for case in results.cases("handler")
        for peer in results.peers(case)
    ]
    return table(("", "empty", "publishing", "adds", "adds over empty"), rows)


def _spread(values: Sequence[float]) -> tuple[str, str]:
    return f"{statistics.median(values):.2f}", f"{min(values):.2f} to {max(values):.2f}"
