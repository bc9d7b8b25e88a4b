"""What was measured: kept round by round, compared in turn, read from and written to JSON."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.cases import Case, Measure, Round
from benchmarks.peers import PEERS

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Check:
    """One small measured fact about this project's client alone."""

    what: str
    goal: str
    value: str


@dataclass
class Results:
    """Every round of every case and peer, on one machine."""

    machine: dict[str, str]
    rounds: dict[tuple[Case, str], list[Round]] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

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

    def ratios(self, case: Case, peer: str, baseline: str, measure: Measure) -> list[float]:
        """Return ``measure`` of ``peer`` over that of ``baseline`` in the same round, for each round."""
        pairs = zip(self.rounds.get((case, peer), ()), self.rounds.get((case, baseline), ()), strict=False)
        values = [(mine.get(measure), theirs.get(measure)) for mine, theirs in pairs]
        return [mine / theirs for mine, theirs in values if mine is not None and theirs]

    def ratio(self, case: Case, peer: str, baseline: str, measure: Measure) -> float | None:
        """Return the median of ``ratios``."""
        ratios = self.ratios(case, peer, baseline, measure)
        return statistics.median(ratios) if ratios else None

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        document = {
            "machine": self.machine,
            "measurements": [
                {"case": asdict(case), "peer": peer, "rounds": [asdict(each) for each in rounds]}
                for (case, peer), rounds in self.rounds.items()
            ],
            "checks": [asdict(check) for check in self.checks],
        }
        path.write_text(json.dumps(document, indent=1) + "\n")


def read(path: Path) -> Results:
    """Read what ``Results.write`` wrote."""
    document: dict[str, Any] = json.loads(path.read_text())
    rounds = {
        (Case(**measured["case"]), measured["peer"]): [Round(**each) for each in measured["rounds"]]
        for measured in document["measurements"]
    }
    return Results(document["machine"], rounds, [Check(**check) for check in document["checks"]])
