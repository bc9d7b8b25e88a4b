"""All of it: explore what the declaration allows, and judge it."""

import time
from collections.abc import Iterable
from typing import Final, NamedTuple

from sprockets_amqp.states import LEDGER, MACHINES, Machine
from sprockets_amqp.states.properties import ALWAYS, LEADS_TO, PACED, Always, LeadsTo, Paced
from sprockets_amqp.states.stored import PLACED, Placed

from .explore import Graph, explore
from .judge import Finding, found_at, found_at_last
from .ledger import found_in_ledger
from .reaction import Reactions

#: Everything that is to be shown.
PROPERTIES: Final[tuple[Always | LeadsTo | Paced | Placed, ...]] = (*ALWAYS, *LEADS_TO, *PACED, *PLACED)


class Proof(NamedTuple):
    """What was explored, and what does not hold.

    Attributes:
        graph: all worlds and steps.
        findings: what does not hold, each once, with the shortest way to it.
        seconds: how long it took.
    """

    graph: Graph
    findings: list[Finding]
    seconds: float

    @property
    def states(self) -> int:
        """How many combinations of the machines' states can be reached."""
        names = list(self.graph.reactions.machines)
        return len({tuple(getattr(world, name) for name in names) for world in self.graph.worlds})

    @property
    def summary(self) -> str:
        """What was done, in two lines."""
        graph = self.graph
        words = {each.words for each in PROPERTIES}
        broken = [each for each in self.findings if each.words in words]
        others = len(self.findings) - len(broken)
        more = f", and {others} more {'thing is' if others == 1 else 'things are'} wrong" if others else ""
        hold = f"{len(PROPERTIES) - len(broken)} of {len(PROPERTIES)} properties hold"
        return (
            f"{len(graph.reactions.machines)} machines: {self.states:,} states together, {len(graph.worlds):,} with "
            f"the world around them, {graph.steps:,} steps\n"
            f"{hold}{more}; explored and proved in {self.seconds:.1f} s"
        )


def prove(machines: Iterable[Machine] = MACHINES, ledger: Machine = LEDGER) -> Proof:
    """Explore all that can happen to the machines, and judge each property; and what holds of a stored message."""
    begun = time.perf_counter()
    findings: dict[str, Finding] = {}

    def visit(graph: Graph, number: int) -> bool:
        for finding in found_at(graph, number):
            findings.setdefault(finding.words, finding)
        return True

    graph = explore(Reactions(machines), visit=visit)
    for finding in (*found_at_last(graph), *found_in_ledger(ledger)):
        findings.setdefault(finding.words, finding)
    return Proof(graph, list(findings.values()), time.perf_counter() - begun)
