"""The declaration as diagrams and tables need it: its rows bundled into arrows, its names in words.

A state is a documented one or a substate, wherever nothing else is said.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from sprockets_amqp.states import (
    DESCRIPTIONS,
    DOCUMENTED,
    PUBLISH_OUTCOMES,
    STATES,
    TRANSITIONS,
    Connecting,
    Declared,
    Outage,
    Row,
    State,
)

#: What the declared actions do, for people; tests/test_diagrams.py holds the names equal to the declaration's.
PHRASES: Final = {
    "ask_again": "asks the function again",
    "ask_for_address": "asks the function for the address",
    "close_files": "writes what was to be stored, and closes the files",
    "close_connection": "asks RabbitMQ to close the connection",
    "drain": "waits for what is unconfirmed",
    "drop_channel": "lets go of the channel and settles what was unconfirmed",
    "drop_connection": "lets go of the connection and settles what was unconfirmed",
    "give_up_writing": "ends what was not written in time",
    "open_channel": "opens a channel",
    "open_connection": "opens a connection to the node whose turn it is",
    "open_files": "opens the files, and counts what they hold",
    "refuse_waiting": "refuses what waits",
    "send_waiting": "sends what waits, in order",
    "send_secret": "sends RabbitMQ the new password",
    "set_up": "runs `setup`",
    "store_waiting": "stores what waits",
    "stop_asking": "cancels the question",
    "stop_setup": "cancels `setup`",
    "tell_failure": "tells of the failure",
    "tell_other_user": "says that the connection keeps its user",
    "tell_persistent_failure": "tells of the persistent failure",
}

#: How long the declared timeouts are, for people; held equal like the actions.
TIMES: Final = {
    "answer_limit": "the time that RabbitMQ has to answer",
    "ask_limit": "the time that the function has to answer",
    "attempt_delay": "the back-off between attempts",
    "attempt_limit": "the time that pika may take for one node",
    "channel_delay": "the back-off between channels",
    "closing_limit": "the time that is left for closing",
    "open_limit": "the time that opening may take",
    "finish_limit": "the last second of a client, which is kept for the disk",
    "patience": "the setting `timeout`",
    "renewal_delay": "two thirds of the time for which the credentials are valid; after a failure, a back-off",
    "retry_delay": "the delay before a disk that failed is tried again",
    "setup_limit": "the time that `setup` may take",
}

#: The way to ready that everybody hopes for.
HAPPY: Final[frozenset[tuple[enum.Enum, enum.Enum]]] = frozenset(
    {
        (State.IDLE, Connecting.OPENING_CONNECTION),
        (Connecting.OPENING_CONNECTION, Connecting.OPENING_CHANNEL),
        (Connecting.OPENING_CHANNEL, State.READY),
    }
)

#: Stands before a trigger that a timer pulls, too.
TIMER: Final = "◷"


@dataclass(frozen=True)
class Arrow:
    """All rows that lead from one state to another; each trigger stands with its guard, or with an empty one."""

    source: enum.Enum
    dest: enum.Enum
    triggers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Name the arrow in documents: ``arrow-idle-connecting-opening-the-connection``."""
        return f"arrow-{slug(self.source)}-{slug(self.dest)}"

    @property
    def happy(self) -> bool:
        """Whether it is on the way to ready that everybody hopes for."""
        return (self.source, self.dest) in HAPPY

    @property
    def lines(self) -> list[str]:
        """Write one trigger a line; a guard stands, in brackets, below the triggers that it guards."""
        guards = sorted(dict.fromkeys(guard for _, guard in self.triggers), reverse=True)
        return [line for guard in guards for line in self._guarded(guard)]

    def _guarded(self, guard: str) -> Iterator[str]:
        timed = timers(self.source)
        for trigger, its_guard in self.triggers:
            if its_guard == guard:
                yield f"{TIMER} {trigger}" if trigger in timed else trigger
        if guard:
            yield f"[{guard}]"


def arrows() -> list[Arrow]:
    """Bundle the rows by source and dest, in the order of the declaration."""
    found: dict[tuple[enum.Enum, enum.Enum], Arrow] = {}
    for row in TRANSITIONS:
        for source in row.source:
            arrow = found.setdefault((source, row.dest), Arrow(source, row.dest))
            arrow.triggers.append((row.trigger, guard(row)))
    return list(found.values())


def states() -> dict[enum.Enum, Declared]:
    """Return what is declared of each documented state, each followed by its substates."""
    return {each.state: each for declared in STATES for each in (declared, *declared.substates)}


def substates(state: enum.Enum) -> list[enum.Enum]:
    """List the substates of a documented state; others have none."""
    found = states().get(state)
    return [each.state for each in found.substates] if found else []


def timers(state: enum.Enum) -> set[str]:
    """Name the triggers that a timer may pull while the connection is in the state."""
    around = {state, DOCUMENTED.get(state, state), *substates(state)}
    return {each.on_timeout for known, each in states().items() if known in around and each.timeout}


def guard(row: Row) -> str:
    """Say when the row applies: ``if blocking``, ``unless blocking``, or nothing where it always does."""
    if row.conditions:
        return f"if {row.conditions}"
    return f"unless {row.unless}" if row.unless else ""


def name(state: enum.Enum) -> str:
    """Name a documented state as properties of the client do; others have words of their own."""
    return state.name.lower() if isinstance(state, State) else str(state.value)


def label(state: enum.Enum) -> str:
    """Name a state as existing code shows it to people."""
    return DESCRIPTIONS[state] if isinstance(state, State) else name(state)


def substate_name(state: enum.Enum) -> str:
    """Name the substate; the empty string for a documented state."""
    return "" if isinstance(state, State) else name(state)


def full_name(state: enum.Enum) -> str:
    """Name the state and, in brackets, the substate: ``closed (retrying)``."""
    documented = DOCUMENTED.get(state, state)
    return name(state) if state is documented else f"{name(documented)} ({name(state)})"


def slug(state: enum.Enum) -> str:
    """Name the state in identifiers: ``closed-retrying``."""
    return full_name(state).replace(" (", "-").replace(" ", "-").rstrip(")")


def outcome(state: enum.Enum) -> str:
    """Say what usually becomes of a publish in the state, and in each of its substates."""
    found = [PUBLISH_OUTCOMES[each] for each in (substates(state) or [state]) if each in PUBLISH_OUTCOMES]
    return " or ".join(dict.fromkeys(outcomes[Outage.CALM] for outcomes in found))
