"""The history of a run, and a checker that knows nothing of the client: what was said of a message, and what came of it.

A run records what its application did and was told, what was seen on the wire, if it was seen, when the process was
killed, and what was in the queues at the end. `check` reads that once, from the beginning to the end.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from sprockets_amqp import MessageNacked, MessageReturned, OutcomeUnknown

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

#: What a publish may end with: the first two are promises, the next two say that RabbitMQ does not have it.
CONFIRMED: Final = "confirmed"
STORED: Final = "stored"
UNSENT: Final = "not sent"
RETURNED: Final = "returned"
NACKED: Final = "nacked"
UNKNOWN: Final = "unknown"
CANCELLED: Final = "cancelled"


@dataclasses.dataclass(slots=True)
class Fate:
    """What has happened to a message so far.

    Attributes:
        lane: messages of one lane keep their order.
        place: which publish of its lane it was.
        settled: how many of the lane had been promised before it was published.
        life: in which of the process's lives it was published.
        outcome: what its publish ended with.
        sent: how often it was on the wire.
        acked_in: in which life RabbitMQ's ack for it has arrived.
        carried: whether a later life has sent it.
        nacked: whether a queue has refused it: it is tried again later, and others go first.
        aside: whether the outbox has set it aside.
        left: whether the outbox has it at the end.
        delivered: how often it was delivered.
    """

    lane: str
    place: int
    settled: int
    life: int
    outcome: str = ""
    sent: int = 0
    acked_in: int = -1
    carried: bool = False
    nacked: bool = False
    aside: bool = False
    left: bool = False
    delivered: int = 0


@dataclasses.dataclass(slots=True)
class Lane:
    """What has happened in a lane: how much was published, what was promised, in order, and what has come."""

    published: int = 0
    promised: list[Fate] = dataclasses.field(default_factory=list)
    #: How many of the promised ones have all come.
    come: int = 0
    #: The place of the message that was sent for the first time last, and of the one sent last on this connection.
    last: int = -1
    on_connection: int = -1


class History:
    """What happens, in order: each call records one event, as a word and a message's name."""

    def __init__(self, *, wire: bool = False) -> None:
        #: Whether what is on the wire is recorded as well.
        self.wire = wire
        #: Whether messages have to keep their order: a disk that fails, or has several files, may keep one for longer.
        self.ordered = True
        self.events: list[tuple[str, str, str]] = []

    def published(self, name: str, lane: str = "") -> None:
        """A message is published; messages of one lane keep their order."""
        self.events.append(("published", name, lane))

    def ended(self, name: str, outcome: str) -> None:
        """Its publish has ended."""
        self.events.append(("ended", name, outcome))

    def sent(self, name: str) -> None:
        """It left for RabbitMQ."""
        self.events.append(("sent", name, ""))

    def connected(self) -> None:
        """A connection is open: what was lost on the last one is sent again, in order."""
        self.events.append(("connected", "", ""))

    def acked(self, name: str) -> None:
        """RabbitMQ's ack has arrived."""
        self.events.append(("acked", name, ""))

    def nacked(self, name: str) -> None:
        """RabbitMQ's nack has arrived."""
        self.events.append(("nacked", name, ""))

    def left(self, name: str, aside: str = "") -> None:
        """It was found in the outbox at the end; ``aside``: "aside" if it is no longer sent."""
        self.events.append(("left", name, aside))

    def killed(self) -> None:
        """The process was killed; what had not ended never will."""
        self.events.append(("killed", "", ""))

    def delivered(self, name: str) -> None:
        """It was in the queue at the end, behind those before."""
        self.events.append(("delivered", name, ""))


def outcome_of(future: asyncio.Future[Any]) -> str:
    """Return what a publish has ended with, in the words of a history."""
    error = None if future.cancelled() else future.exception()
    if future.cancelled() or error is None:
        return CANCELLED if future.cancelled() else str(future.result() or CONFIRMED)
    said = {MessageNacked: NACKED, MessageReturned: RETURNED, OutcomeUnknown: UNKNOWN}
    return said.get(type(error), UNSENT)


def check(history: History) -> list[str]:
    """Return what does not hold. The time that it takes is proportional to the number of events."""
    return list(_Check(history).problems())


class _Check:
    def __init__(self, history: History) -> None:
        self._history = history
        self._fates: dict[str, Fate] = {}
        self._lanes: dict[str, Lane] = {}
        self._life = 0

    def problems(self) -> Iterator[str]:
        for what, name, detail in self._history.events:
            if what == "killed":
                self._life += 1
            elif what == "connected":
                for lane in self._lanes.values():
                    lane.on_connection = -1
            elif what == "published":
                yield from self._publish(name, detail)
            elif name not in self._fates:
                yield f"{name} was {what}, and was never published"
            else:
                yield from getattr(self, f"_see_{what}")(name, self._fates[name], detail)
        for name, fate in self._fates.items():
            yield from self._see_end(name, fate)

    def _publish(self, name: str, lane: str) -> Iterator[str]:
        if name in self._fates:
            yield f"{name} was published twice: no name may be used again"
        its = self._lanes.setdefault(lane, Lane())
        self._fates[name] = Fate(lane, its.published, len(its.promised), self._life)
        its.published += 1

    def _see_ended(self, name: str, fate: Fate, outcome: str) -> Iterator[str]:
        if fate.outcome:
            yield f"{name} ended twice: {fate.outcome}, and then {outcome}"
        if fate.life != self._life:
            yield f"{name} ended as {outcome} after its process was killed"
        fate.outcome = outcome
        if outcome in {CONFIRMED, STORED}:
            self._lanes[fate.lane].promised.append(fate)
        if self._history.wire:
            if outcome == CONFIRMED and fate.acked_in != self._life:
                yield f"{name} ended as confirmed, and was not"
            if outcome == UNSENT and fate.sent:
                yield f"{name} ended as not sent, and was sent"

    def _see_sent(self, name: str, fate: Fate, _detail: str) -> Iterator[str]:
        fate.sent += 1
        lane = self._lanes[fate.lane]
        # What RabbitMQ refused while it was being written may still be on the disk when the process is killed.
        fate.carried = fate.life != self._life
        if fate.outcome in {UNSENT, RETURNED, NACKED} and not fate.carried:
            yield f"{name} was sent after it had ended as {fate.outcome}"
        if fate.acked_in == self._life and fate.outcome != UNKNOWN:
            # A disk that did not answer in time may have one whose publish has ended as unknown.
            yield f"{name} was sent again, although RabbitMQ had confirmed it"
        if fate.sent == 1 and fate.outcome not in {UNKNOWN, CANCELLED}:
            # What is sent although its end is not known may be late: a disk has kept it for too long.
            if fate.place < lane.last and self._history.ordered:
                yield f"{name} was sent after a message that was published later"
            lane.last = max(lane.last, fate.place)
        if fate.place < lane.on_connection and not fate.nacked and fate.outcome != UNKNOWN and self._history.ordered:
            yield f"{name} was sent on a connection after a message that was published later"
        lane.on_connection = max(lane.on_connection, fate.place)

    def _see_acked(self, _name: str, fate: Fate, _detail: str) -> Iterator[str]:
        fate.acked_in = self._life
        yield from ()

    def _see_nacked(self, _name: str, fate: Fate, _detail: str) -> Iterator[str]:
        fate.nacked = True
        yield from ()

    def _see_left(self, name: str, fate: Fate, aside: str) -> Iterator[str]:
        fate.left, fate.aside = True, bool(aside)
        if fate.life == self._life and (fate.outcome == UNSENT or (aside and fate.outcome == CONFIRMED)):
            yield f"{name} is left in the outbox, and had ended as {fate.outcome}"

    def _see_delivered(self, name: str, fate: Fate, _detail: str) -> Iterator[str]:
        fate.delivered += 1
        if fate.outcome in {UNSENT, RETURNED} and not fate.carried:
            yield f"{name} was delivered, and had ended as {fate.outcome}"
        lane = self._lanes[fate.lane]
        while lane.come < len(lane.promised) and (_has_come(its := lane.promised[lane.come]) or its.nacked):
            lane.come += 1
        if fate.delivered == 1 and lane.come < fate.settled and self._history.ordered:
            yield f"{name} was delivered before a message that was promised before {name} was published"

    def _see_end(self, name: str, fate: Fate) -> Iterator[str]:
        if not fate.outcome and fate.life == self._life:
            yield f"{name} never ended"
        if fate.outcome in {CONFIRMED, STORED} and not (fate.delivered or fate.left):
            yield f"{name} ended as {fate.outcome}, and is lost"


def _has_come(fate: Fate) -> bool:
    return bool(fate.delivered or fate.aside)
