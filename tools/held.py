"""The real client is held to the declaration: `make held`, or `python -m tools.held`.

Paths that are generated from everything that can happen are run on a client over the broker in memory. After each step
the states of all machines, their timers, what becomes of a publish, the publish that is followed, the changes that are
told and the failures that are reported are what the declaration says.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sprockets_amqp.proof import verify
from sprockets_amqp.proof.explore import Graph, explore
from sprockets_amqp.proof.paths import Leg, Map, Way, search
from sprockets_amqp.proof.reaction import Reactions
from sprockets_amqp.states import DOCUMENTED, MACHINES, Outbox
from sprockets_amqp.states.world import Publish, World
from tools import proved
from tools.defects import lasts
from tools.hand import PLACES, Hand

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from sprockets_amqp.delivery.check import Answer
    from sprockets_amqp.proof.explore import Edge
    from sprockets_amqp.states.events import Event

NAMES: Final = tuple(machine.name for machine in MACHINES)


#: What depends on what else the disk was given before, or on what else comes in the same turn of the loop.
NOT_AT_WILL: Final = frozenset(
    {
        "RabbitMQ accepts the new password before it closes the connection",
        "the disk fails, and with it what was to be written",
        "the disk failed to write what was stored last",
        "what is to be written has no room",
        "the disk failed when the files were closed",
        "the earlier channel for checks was closed, and then the connection was lost",
        "the files had not been closed yet, and hold messages",
        "the files had not been closed yet, and hold none",
        "the files were closed and opened, and closed again",
        "shutting down may wait for the disk no longer",
    }
)


class Mismatch(AssertionError):
    """The client did not do what the declaration says."""


def can_be_caused(world: World, edge: Edge) -> bool:
    """Return whether a step can be caused at will: whether what is to be written is written with what else the disk
    does, or after it, cannot.
    """  # noqa: D205
    if edge.step.event.words in NOT_AT_WILL:
        return False
    return not world.pends or (
        world.outbox not in {Outbox.FINISHING, Outbox.OFF} and edge.step.event.learns != "outbox.disk_failed"
    )


class Settings(NamedTuple):
    """What differs between the clients that are driven.

    Attributes:
        sets_up: whether it has a function `setup`.
        given: whether it has an outbox.
        republishes: whether it sends lost messages again; with an outbox it does.
    """

    sets_up: bool
    given: bool
    republishes: bool

    def allow(self, world: World, edge: Edge) -> bool:
        """Return whether a client with these settings can take a step."""
        assumed = dict(edge.step.assumed)
        return (
            can_be_caused(world, edge)
            and assumed.get("sets_up", self.sets_up) is self.sets_up
            and assumed.get("republishes", self.republishes) is self.republishes
        )


def walk(start: Any, wanted: set[Hashable], ways: Callable[[Any], list[Way[Any]]]) -> Iterator[Leg]:
    """Walk to whatever is wanted, always to what is nearest, for as long as something is reached; take it out then."""
    here = start
    while wanted:
        found = next((([*back(), way]) for way, back in search(here, ways) if not wanted.isdisjoint(way[1])), None)
        if found is None:
            return
        for leg, covers, here in found:  # noqa: B007 - where the last leads is where to go on
            wanted.difference_update(covers)
            yield leg


def begins(graph: Graph) -> dict[bool, int]:
    """Return where it begins, without an outbox and with one."""
    return {world.given: number for number, world in enumerate(graph.worlds) if graph.parents[number] is None}


class Held:
    """What is to be walked, and what was.

    A step is known by the states of all machines before it, right after it, and once nothing is due any more; by what
    happens; and by what guards answer. A step of the connection is known by the connection's state.

    Args:
        graph: everything that can happen.
        pairs: whether it is pairs of steps of the connection that are to be walked, rather than steps.
    """

    def __init__(self, graph: Graph, *, pairs: bool = False) -> None:
        self.graph = graph
        self._pairs = pairs
        self._ways: dict[object, list[Way[Any]]] = {}
        self._begins = begins(graph)
        everything = self._ways_of(Map(graph, can_be_caused))
        #: What can be caused from outside.
        self.wanted = {
            each for place in self._places(everything) for _, covers, _ in everything(place) for each in covers
        }
        self.total = len(self.wanted)
        self.rows: set[int] = set()
        self.events: set[Hashable] = set()
        self.steps = 0

    def walk(self, settings: Settings) -> None:
        """Walk everything that a client with these settings can reach, and has not been walked. Raises Mismatch."""
        ways = self._ways_of(Map(self.graph, settings.allow))
        before = -1
        # From some states nothing leads back to others.
        while settings.given in self._begins and self.wanted and before != self.steps:
            before = self.steps
            self._run(settings, walk(self._begin(settings.given), self.wanted, ways))

    def _begin(self, given: bool) -> Any:
        number = self._begins[given]
        return (number, None) if self._pairs else number

    def _places(self, ways: Callable[[Any], list[Way[Any]]]) -> set[Any]:
        found = {self._begin(given) for given in self._begins}
        todo = list(found)
        while todo:
            for _, _, dest in ways(todo.pop()):
                if dest not in found:
                    found.add(dest)
                    todo.append(dest)
        return found

    def _ways_of(self, legs: Map) -> Callable[[Any], list[Way[Any]]]:
        known: dict[Any, list[Way[Any]]] = {}
        make = self._pair_way if self._pairs else self._step_way

        def ways(place: Any) -> list[Way[Any]]:
            found = known.get(place)
            if found is None:
                number = place[0] if self._pairs else place
                found = known[place] = [make(place, leg) for leg in legs.legs(number)]
            return found

        return ways

    def _step_way(self, _place: Any, leg: Leg) -> Way[Any]:
        worlds, step = self.graph.worlds, leg.edge.step
        known = _states(worlds[leg.source]), _happens(leg), _states(step.world), _states(worlds[leg.dest])
        return leg, (known,), leg.dest

    def _pair_way(self, place: Any, leg: Leg) -> Way[Any]:
        last, pairs = place[1], []
        for step in _connection_steps(self.graph.worlds[leg.source], leg):
            pairs.append((last, step))
            last = step
        return leg, pairs, (leg.dest, last)

    def _run(self, settings: Settings, legs: Iterator[Leg]) -> None:
        hand: Hand | None = None
        trail: list[str] = []
        try:
            for leg in legs:
                hand = hand or Hand(**settings._asdict())
                trail.append(str(leg.edge.timer or leg.edge.step.event.words))
                self._take(hand, leg)
        except Exception as error:
            way = "\n".join(f"  {each}" for each in trail[-40:])
            raise Mismatch(
                f"{error!r}, of a client with {settings}, after {len(trail)} steps, at last:\n{way}"
            ) from error
        finally:
            if hand is not None:
                hand.close()

    def _take(self, hand: Hand, leg: Leg) -> None:
        worlds = self.graph.worlds
        before, after = worlds[leg.source], worlds[leg.dest]
        told, failures, answers = len(hand.told), hand.failures, len(hand.answers)
        hand.take(before, leg.edge)
        seen = {
            "states": hand.states(),
            "timers": hand.timers(),
            "a publish": hand.client.publish_outcome,
            "waiting, unconfirmed": (hand.client.waiting, hand.client.unconfirmed),
            "left to send": _holds(hand.runtime.outbox.holds, after),
            "told": hand.told[told:],
            "failures": hand.failures - failures,
            "the publish has ended": hand.publish_ended or after.given,
            "answers to checks": [_kind(each) for each in hand.answers[answers:]],
            "escaped": hand.broker.clock.escaped,
        }
        declared = {
            "states": _states(after),
            "timers": self.graph.reactions.timers(after),
            "a publish": after.outcome,
            "waiting, unconfirmed": PLACES[after.publish],
            "left to send": _holds(after.holds or after.pends, after),
            "told": list(_changes(before, leg)),
            "failures": sum(act == ("outage", "tell_persistent_failure") for each in leg.steps for act in each.acts),
            # With an outbox it ends when the disk has answered.
            "the publish has ended": after.publish not in {Publish.WAITING, Publish.SENT} or after.given,
            "answers to checks": [
                ANSWERS[name]
                for each in leg.steps
                for machine, name in each.acts
                if machine == "check" and name in ANSWERS
            ],
            "escaped": [],
        }
        wrong = [f"{name}: {seen[name]}, and not {declared[name]}" for name in seen if seen[name] != declared[name]]
        if wrong:
            raise Mismatch("; ".join(wrong))
        self.steps += 1
        for step in leg.steps:
            self.rows.update(id(row) for _, row in step.rows)
        event = leg.edge.step.event
        if event.machine:
            self.events.add((event.learns, getattr(before, event.machine)))


def _states(world: World) -> tuple[Hashable, ...]:
    return world.connection, world.outage, world.renewal, world.outbox, world.check


def _happens(leg: Leg) -> Hashable:
    return leg.edge.timer or leg.edge.step.event.words, leg.edge.step.assumed


def _connection_steps(before: World, leg: Leg) -> Iterator[Hashable]:
    source = before.connection
    for step in leg.steps:
        for name, row in step.rows:
            if name == "connection":
                yield source, step.event.words, row.dest
                source = row.dest  # type: ignore[assignment]


#: What is answered by the actions of the check: whether RabbitMQ refuses it, has answered in time, and was asked.
ANSWERS: Final = {
    "tell_accepted": (False, True, True),
    "tell_refused": (True, True, True),
    "tell_unanswered": (False, False, True),
    "tell_unchecked": (False, True, False),
    "tell_unavailable": (False, True, False),
    "skip_check": (False, True, False),
}


def _kind(answer: Answer) -> tuple[bool, bool, bool]:
    return answer.refusal is not None, answer.in_time, answer.checked


def _holds(holds: bool, world: World) -> bool:
    """Return whether stored messages wait, which nobody asks of an outbox that is closed."""
    return holds and world.outbox not in {Outbox.FINISHING, Outbox.OFF}


def _changes(before: World, leg: Leg) -> Iterator[tuple[str, str, str]]:
    source = before.connection
    for step in leg.steps:
        for name, row in step.rows:
            if name == "connection":
                was, now = DOCUMENTED[source], DOCUMENTED[row.dest]
                if was is not now:
                    yield was.name, row.trigger, now.name
                source = row.dest  # type: ignore[assignment]


class Part(NamedTuple):
    """A part of what can happen.

    Attributes:
        words: what it is.
        begins: which of the worlds that it begins in.
        allows: which events happen.
        clients: the clients that are driven through it.
    """

    words: str
    begins: Callable[[World], bool]
    allows: Callable[[Event], bool]
    clients: tuple[Settings, ...]


_WITH_OUTBOX: Final = (Settings(False, True, True), Settings(True, True, True))
_WITHOUT_OUTBOX: Final = (Settings(False, False, False), Settings(True, False, True), Settings(True, False, False))
#: Everything, and the parts that cover each machine together with the connection and the outage.
EVERYTHING: Final = Part("everything", lambda _: True, lambda _: True, (*_WITH_OUTBOX, *_WITHOUT_OUTBOX))
PARTS: Final = (
    Part("without an outbox", lambda world: not world.given, lambda _: True, _WITHOUT_OUTBOX),
    Part(
        "with an outbox, without checks and renewals",
        lambda world: world.given,
        lambda event: lasts(event) and event.machine != "check",
        _WITH_OUTBOX,
    ),
)
#: The parts in which every pair of steps of the connection occurs: the other machines do as little as possible.
PAIRS: Final = (
    Part("the connection", lambda world: not world.given, lambda event: event.machine != "check", _WITHOUT_OUTBOX),
    Part(
        "the connection of a client with an outbox",
        lambda world: world.given,
        lambda event: (
            lasts(event)
            and event.machine != "check"
            and (event.machine != "outbox" or event.kind == "answer")
            and "hold messages" not in event.words
        ),
        _WITH_OUTBOX,
    ),
)


def held(part: Part, *, pairs: bool = False) -> Held:
    """Walk all steps of a part, or all pairs of steps of the connection. Raises Mismatch."""
    walked = Held(explored(part), pairs=pairs)
    for settings in part.clients:
        walked.walk(settings)
    return walked


def explored(part: Part) -> Graph:
    """Explore a part."""
    reactions = Reactions()
    return explore(reactions, [world for world in reactions.beginnings() if part.begins(world)], part.allows)


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="keep the numbers, for the documents")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    begun = time.monotonic()
    walked, pairs = held(EVERYTHING), [held(part, pairs=True) for part in PAIRS]
    seconds = time.monotonic() - begun
    rows = {id(row) for machine in MACHINES for row in machine.rows}
    print(
        f"{walked.total - len(walked.wanted):,} of {walked.total:,} steps that can be caused from outside, "
        f"{len(walked.rows)} of {len(rows)} rows, {len(walked.events)} pairs of a state and an event: "
        f"in {walked.steps:,} steps of a real client, in {seconds:.0f} s"
    )
    left = [*walked.wanted, *(each for part in pairs for each in part.wanted)]
    for each in sorted(map(str, left))[:20]:
        print(f"not walked: {each}")
    numbers = {
        **proved.of_proof(verify.prove()),
        "held": walked.total,
        "walked": walked.steps,
        "pairs": sum(part.total for part in pairs),
    }
    if options.record:
        proved.record(numbers)
    elif numbers != proved.read():
        print(f"the documents say {proved.read()}, and it is {numbers}: python -m tools.held --record")
        return 1
    return 1 if left or rows - walked.rows else 0


if __name__ == "__main__":
    sys.exit(main())
