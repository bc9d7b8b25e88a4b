"""What was measured: kept round by round, compared in turn, read from and written to JSON, one measurement a line."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.cases import Case, Measure, Round
from benchmarks.peers import PEERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: What was measured of something at one number, by name, in seconds and octets.
Grown = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """One small measured fact about this project's client alone."""

    what: str
    goal: str
    value: str


@dataclass
class Results:
    """Every round of every case and peer on one system, and how what was measured grows."""

    machine: dict[str, str] = field(default_factory=dict)
    rounds: dict[tuple[Case, str], list[Round]] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    #: Where and when growth was measured, which takes longer than all else: another day, perhaps.
    growth_machine: dict[str, str] = field(default_factory=dict)
    #: By kind and number.
    growth: dict[tuple[str, int], list[Grown]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The versions by which rows of tables are named."""
        return "Python {Python}, RabbitMQ {RabbitMQ}".format(**(self.machine or self.growth_machine))

    def add(self, case: Case, peer: str, measured: Round) -> None:
        """Keep one more round."""
        self.rounds.setdefault((case, peer), []).append(measured)

    def cases(self, *workloads: str) -> list[Case]:
        """Return the measured cases of these workloads, in the order they were measured."""
        return [case for case in dict.fromkeys(case for case, _ in self.rounds) if case.workload in workloads]

    def peers(self, case: Case) -> list[str]:
        """Return the peers that were measured on ``case``, in the usual order."""
        return [peer for peer in PEERS if (case, peer) in self.rounds]

    def values(self, case: Case, peer: str, measure: Measure) -> list[float]:
        """Return ``measure`` of each round."""
        return [value for each in self.rounds.get((case, peer), ()) if (value := each.get(measure)) is not None]

    def median(self, case: Case, peer: str, measure: Measure) -> float | None:
        """Return the median of ``measure`` over the rounds."""
        values = self.values(case, peer, measure)
        return statistics.median(values) if values else None

    def ratios(self, case: Case, peer: str, baseline: str | None, measure: Measure) -> list[float]:
        """Return ``measure`` of ``peer`` over that of ``baseline`` in the same round, for each round; None: over 1."""
        if baseline is None:
            return self.values(case, peer, measure)
        pairs = zip(self.rounds.get((case, peer), ()), self.rounds.get((case, baseline), ()), strict=False)
        values = [(mine.get(measure), theirs.get(measure)) for mine, theirs in pairs]
        return [mine / theirs for mine, theirs in values if mine is not None and theirs]

    def ratio(self, case: Case, peer: str, baseline: str | None, measure: Measure) -> float | None:
        """Return the median of `ratios`."""
        ratios = self.ratios(case, peer, baseline, measure)
        return statistics.median(ratios) if ratios else None

    def numbers(self, kind: str) -> list[int]:
        """Return the numbers at which a kind of growth was measured."""
        return sorted(number for each, number in self.growth if each == kind)

    def grown(self, kind: str, number: int, *names: str) -> float | None:
        """Return the median over the rounds of the sum of what is named, None where it was not measured."""
        values = [
            sum(each[name] for name in names)
            for each in self.growth.get((kind, number), ())
            if all(name in each for name in names)
        ]
        return statistics.median(values) if values else None


#: The results of each system, by its name, such as debian-12.
Record = dict[str, Results]


def read(path: Path) -> Record:
    """Read what `write` wrote; nothing, where nothing was written."""
    record: Record = {}
    for line in json.loads(path.read_text()) if path.exists() else []:
        _take(record.setdefault(line["system"], Results()), line)
    return record


def write(record: Record, path: Path) -> None:
    """Write everything as JSON, one measurement a line, numbers to four digits."""
    lines = [json.dumps(line) for system, results in record.items() for line in _lines(system, results)]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def _lines(system: str, results: Results) -> Iterator[dict[str, Any]]:
    if results.machine:
        yield {"system": system, "machine": results.machine}
    for (case, peer), rounds in results.rounds.items():
        yield {"system": system, "peer": peer, "case": asdict(case), "rounds": [_shortened(each) for each in rounds]}
    for check in results.checks:
        yield {"system": system, "check": asdict(check)}
    if results.growth_machine:
        yield {"system": system, "growth_machine": results.growth_machine}
    for (kind, number), grown in results.growth.items():
        yield {"system": system, "growth": kind, "number": number, "rounds": [_rounded(each) for each in grown]}


def _take(results: Results, line: dict[str, Any]) -> None:
    if "machine" in line:
        results.machine = line["machine"]
    elif "peer" in line:
        case = Case(**line["case"])
        results.rounds[case, line["peer"]] = [Round(case.messages, **each) for each in line["rounds"]]
    elif "check" in line:
        results.checks.append(Check(**line["check"]))
    elif "growth_machine" in line:
        results.growth_machine = line["growth_machine"]
    else:
        results.growth[line["growth"], line["number"]] = line["rounds"]


def _shortened(measured: Round) -> dict[str, float]:
    fields = {name: value for name, value in asdict(measured).items() if value is not None}
    # The case says it.
    del fields["messages"]
    return _rounded(fields)


def _rounded(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in fields.items()}
