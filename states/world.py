"""The world around the machines, declared: what is so on the wire, on the disk and in the application.

`effects.py` declares what the machines' actions change in it, `events.py` what may happen in it, and `properties.py`
what must hold. The checker (`sprockets_amqp/proof`) explores the product of all machines with this world.

One publish stands for all. What is not told apart here: the nodes and their addresses, the contents of messages, how
many there are, and the times.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from .check import Check, Running
from .connection import Closing, State, Substate
from .outage import Outage
from .outbox import Outbox
from .renewal import Renewal
from .vocabulary import Machine, Name, PublishOutcome


class Line(Name):
    """The connection, or a channel on it, as the wire has it."""

    NONE = "none"
    OPENING = "being opened"
    OPEN = "open"
    CLOSING = "being closed"
    LOST = "lost"


class Lane(Name):
    """The channel for checks, and what was last sent on it."""

    NONE = "none"
    MISSING = "none is left"
    OPENING = "being opened"
    OPEN = "open"
    SELECTING = "tx.select was sent"
    CHECKING = "an empty message was sent"


class Publish(Name):
    """Where the publish is that is followed."""

    NONE = "none"
    WAITING = "waiting"
    SENT = "sent"
    ANSWERED = "sent, and its caller no longer waits"
    KEPT = "sent, and stored"


class Files(Name):
    """What the disk was asked to do."""

    NONE = "nothing"
    OPEN = "to open the files"
    CLOSING = "to close them"
    REOPENING = "to close them, and then to open them"


class World(NamedTuple):
    """The states of all machines, and what is so around them.

    Attributes:
        declared: what is declared about them.
        wanted: whether the application wants to be connected.
        link: the connection.
        channel: the channel to publish on.
        blocks: whether RabbitMQ blocks publishing.
        called: whether the function given as ``url`` is being called.
        setup: whether `setup` is running.
        secret: whether RabbitMQ has yet to accept a new password.
        expires: whether the credentials expire.
        drains: whether the publisher says when nothing waits and nothing is unconfirmed.
        given: whether there is an outbox.
        files: what the disk was asked to do.
        holds: whether the files hold messages that wait to be sent.
        pends: whether messages are kept that will be written once the files are open.
        lane: the channel for checks.
        old: whether an earlier channel for checks is being closed.
        asked: whether somebody waits for the answer to a check.
        publish: the publish that is followed.
    """

    declared: "Facts"
    connection: Substate = State.IDLE
    outage: Outage = Outage.CALM
    renewal: Renewal = Renewal.NONE
    outbox: Outbox = Outbox.OFF
    check: Check | Running = Check.NONE
    wanted: bool = False
    link: Line = Line.NONE
    channel: Line = Line.NONE
    blocks: bool = False
    called: bool = False
    setup: bool = False
    secret: bool = False
    expires: bool = False
    drains: bool = False
    given: bool = False
    files: Files = Files.NONE
    holds: bool = False
    pends: bool = False
    lane: Lane = Lane.NONE
    old: bool = False
    asked: bool = False
    publish: Publish = Publish.NONE

    def has(self, mark: str) -> bool:
        """Return whether the connection's state has the mark."""
        return mark in self.declared.marks[self.connection]

    @property
    def is_troubled(self) -> bool:
        """Whether the outbox's state says that nothing can be stored."""
        return "troubled" in self.declared.marks[self.outbox]

    @property
    def is_checking(self) -> bool:
        """Whether the check's state says that RabbitMQ may be handling its message."""
        return "on_wire" in self.declared.marks[self.check]

    @property
    def outcome(self) -> PublishOutcome:
        """What becomes of a publish now."""
        return self.declared.outcome(self.connection, self.outage, self.outbox)

    @property
    def sends(self) -> bool:
        """Whether what waits goes out now."""
        return self.has("sends") and self.declared.lets(self.outbox)

    @property
    def could_send(self) -> bool:
        """Whether RabbitMQ takes messages on this connection now."""
        return self.channel is Line.OPEN and self.link is Line.OPEN and not self.blocks


class Facts:
    """What the machines declare about states, looked up quickly. The checker gives it the machines that it explores."""

    def __init__(self, machines: Mapping[str, Machine]) -> None:
        self.marks = {
            state: frozenset(each.marks) for machine in machines.values() for state, each in machine.declared.items()
        }
        self._machines = machines
        self._outcomes: dict[tuple[Any, ...], PublishOutcome] = {}

    def outcome(self, *states: Any) -> PublishOutcome:
        """Return what becomes of a publish in these states of the connection, the outage and the outbox."""
        found = self._outcomes.get(states)
        if found is None:
            connection, outage, outbox = (self._machines[name] for name in ("connection", "outage", "outbox"))
            usual = connection.declared[states[0]].publish or "is refused"
            found = self._outcomes[states] = outbox.made(states[2], outage.made(states[1], usual))
        return found

    def lets(self, outbox: Outbox) -> bool:
        """Return whether the outbox lets what waits go out."""
        return self._machines["outbox"].made(outbox, "goes out") != "waits"


def takes(now: World) -> bool:
    """Return whether a publish that would be refused is stored."""
    return now.declared.outcome(Closing.CLOSING_CONNECTION, Outage.CALM, now.outbox) == "is stored"


Condition = Callable[[World], bool]
#: What changes, by the names of the world's parts.
Changes = Mapping[str, object]
#: Among changes: the machine and the trigger that is pulled at once, if there is a row for it.
PULLS: Final = "pulls"
#: Among changes: on which settings of the application they depend, and how.
ASSUMES: Final = "assumes"
