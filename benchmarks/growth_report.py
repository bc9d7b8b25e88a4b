"""The tables of growth, and what they come to: in one row and one sentence for each kind."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.kinds import KINDS, MEMORY, Column, Kind
from benchmarks.tables import number, table

if TYPE_CHECKING:
    from benchmarks.results import Grown, Record, Results

#: How much more one may cost where there are 100 times as many, to be called linear: the processor's caches hold
#: less of what they need.
LINEAR = 1.5


def sections(results: Results) -> list[tuple[str, str]]:
    """Return the sections of one system, each a heading and its text; none where growth was not measured."""
    if not results.growth:
        return []
    where = "".join(f"- {name}: {value}\n" for name, value in results.growth_machine.items())
    kinds = [(f"### {kind.what.capitalize()}", _kind(results, kind)) for kind in KINDS if results.numbers(kind.name)]
    return [(f"## Growth, {results.name}", where), *kinds, ("### Memory", memory(results))]


def summary(record: Record) -> str:
    """Return one row for each kind and system."""
    rows = [
        (
            kind.what,
            results.name,
            *(f"{numbers[at]:,}" for at in (0, -1)),
            " to ".join(_cell(results, kind, numbers[at], kind.columns[0]) for at in (0, -1)),
            number(results.grown(kind.name, numbers[-1], "gc"), "{:.1f} µs", 1e6),
            f"{growth(results, kind):.2f}",
            verdict(results, kind),
        )
        for kind in KINDS
        for results in record.values()
        if len(numbers := results.numbers(kind.name)) > 1
    ]
    memories = "".join(f"\n{results.name}: {text}" for results in record.values() if (text := memory(results)))
    return (
        table(
            ("what grows", "on", "from", "to", "one takes", "of it Python's collector", "at 100 times as many", ""),
            rows,
        )
        + memories
    )


def growth(results: Results, kind: Kind) -> float:
    """Return what one costs among the most over what it costs among a hundredth, or how long all take over these."""
    few, most = _compared(results, kind)
    return _known(results.grown(kind.name, most, kind.cost)) / _known(results.grown(kind.name, few, kind.cost))


def verdict(results: Results, kind: Kind) -> str:
    """Say how it grows: linear where each costs about the same, however many there are."""
    few, most = _compared(results, kind)
    if kind.together:
        return "better than linear" if growth(results, kind) < most / few / LINEAR else "linear"
    return "linear" if growth(results, kind) <= LINEAR else "more than linear"


def _compared(results: Results, kind: Kind) -> tuple[int, int]:
    """Return the most, and before it a hundredth of that: where there are few, other things decide."""
    *fewer, most = results.numbers(kind.name)
    return max(each for each in fewer if each * 100 <= most), most


def memory(results: Results) -> str:
    """Say how much the process has grown in an hour or less, and by how much for each message."""
    return "".join(
        _memory(minutes, each) for minutes in results.numbers(MEMORY) for each in results.growth[MEMORY, minutes]
    )


def slope(samples: list[tuple[float, float]]) -> float:
    """Return by how many octets a second memory grows, by the samples after the first fifth: it fills its caches."""
    settled = samples[len(samples) // 5 :]
    return statistics.linear_regression(*zip(*settled, strict=True)).slope


def _memory(minutes: int, measured: Grown) -> str:
    samples = measured["samples"]
    messages = measured["confirmed"] + measured["failed"]
    settled, end = samples[len(samples) // 5], samples[-1]
    return (
        f"{messages:,} messages in {minutes} minutes, {measured['confirmed']:,} of them confirmed; the connection was "
        f"closed {measured['closed']} times. {settled[1] / 2**20:.1f} MiB after {settled[0] / 60:.0f} minutes, "
        f"{end[1] / 2**20:.1f} MiB after {end[0] / 60:.0f}; by the line through all samples in between "
        f"{slope(samples) * 3600 / 1024:+,.0f} KiB an hour, "
        f"{slope(samples) * minutes * 60 / messages:+.3f} octets a message.\n"
    )


def _kind(results: Results, kind: Kind) -> str:
    rows = [
        (
            f"{each:,}",
            *(_cell(results, kind, each, column) for column in kind.columns),
        )
        for each in results.numbers(kind.name)
    ]
    return f"{table(('', *(title for title, *_ in kind.columns)), rows)}\n{_sentence(results, kind)} {kind.note}\n"


def _cell(results: Results, kind: Kind, at: int, column: Column) -> str:
    _, names, form, scale = column
    return number(results.grown(kind.name, at, *names), form, scale)


def _sentence(results: Results, kind: Kind) -> str:
    if len(results.numbers(kind.name)) < 2:
        return ""
    few, most = _compared(results, kind)
    times = f"{verdict(results, kind).capitalize()}: {most:,} take {growth(results, kind):.2f} times"
    return f"{times} as long as {few:,}." if kind.together else f"{times} as much for each as {few:,}."


def _known(value: float | None) -> float:
    assert value is not None
    return value
