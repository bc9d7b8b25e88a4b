"""All of it: explore what the declaration allows, and judge it."""

import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from sprockets_amqp.states import LEDGER, MACHINES, Machine
from sprockets_amqp.states.events import Event
from sprockets_amqp.states.properties import ALWAYS, LEADS_TO, PACED, PLACED, Always, LeadsTo, Paced, Placed
from sprockets_amqp.states.world import World

from .explore import Graph, explore
from .judge import Finding, found_at, found_at_last, not_reached_at_last, without_pause
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


def first_finding(machines: Iterable[Machine]) -> Finding | None:
    """Return the first thing that does not hold of these machines; None if all does.

    It looks where less can happen first: without an outbox, without checks, without credentials that expire.
    """
    machines = tuple(machines)
    for given, allows in _PARTS:
        reactions = Reactions(machines)
        begins = [world for world in reactions.beginnings() if world.given is given]
        finding, graph = _first(reactions, begins, allows)
        if finding is not None:
            return finding
        claims = [each for claim in LEADS_TO for each in not_reached_at_last(graph, claim)]
        claims += [each for claim in PACED for each in without_pause(graph, claim)]
        # What nothing begins here may begin where more happens.
        finding = next((each for each in claims if each.path or each.cycle), None)
        if finding is not None:
            return finding
    reactions = Reactions(machines)
    finding, graph = _first(reactions, reactions.beginnings(), lambda _: True)
    return finding or next(found_at_last(graph), None)


def _first(reactions: Reactions, begins: list[World], allows: Callable[[Event], bool]) -> tuple[Finding | None, Graph]:
    found: list[Finding] = []

    def visit(graph: Graph, number: int) -> bool:
        found.extend(found_at(graph, number))
        return not found

    graph = explore(reactions, begins, allows, visit)
    return next(iter(found), None), graph


def _lasts(event: Event) -> bool:
    """Return whether nothing expires because of an event."""
    return callable(event.then) or not event.then.get("expires")


def _checks_nothing(event: Event) -> bool:
    return event.machine != "check"


#: Whether there is an outbox, and what happens.
_PARTS: Final[tuple[tuple[bool, Callable[[Event], bool]], ...]] = (
    (False, lambda event: _lasts(event) and _checks_nothing(event)),
    (False, _checks_nothing),
    (False, _lasts),
    (True, lambda event: _lasts(event) and _checks_nothing(event)),
)
