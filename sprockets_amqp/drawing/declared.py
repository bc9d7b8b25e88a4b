"""The declaration as diagrams and tables need it: its rows bundled into arrows, its names in words.

Unless a docstring says otherwise, a state is a documented state or a substate.
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

#: What the declared actions do, for people; tests/test_diagrams.py keeps the names in step with the declaration.
PHRASES: Final = {
    "ask_again": "calls the function again",
    "ask_for_address": "calls the function for the address",
    "close_files": "finishes pending writes and closes the files",
    "close_connection": "asks RabbitMQ to close the connection",
    "drain": "waits until nothing waits and nothing is unconfirmed",
    "drop_attempt": "drops the connection that could not be opened",
    "drop_channel": "drops the channel and settles unconfirmed messages",
    "drop_connection": "drops the connection and settles unconfirmed messages",
    "give_up_unconfirmed": "ends unconfirmed messages, which RabbitMQ may still confirm",
    "give_up_writing": "gives up on messages not written in time",
    "open_channel": "opens a channel",
    "open_connection": "opens a connection to the next node",
    "open_files": "opens the files and counts their messages",
    "refuse_waiting": "refuses waiting messages",
    "send_waiting": "sends waiting messages, in order",
    "send_secret": "sends RabbitMQ the new password",
    "set_up": "runs `setup`",
    "store_waiting": "stores waiting messages",
    "stop_asking": "cancels the call",
    "stop_setup": "cancels `setup`",
    "tell_failure": "logs the failure",
    "tell_found": "logs how many messages it found",
    "tell_other_user": "logs that the connection keeps its user",
    "tell_persistent_failure": "reports the persistent failure",
}

#: How long the declared timeouts are, for people; kept in step like the actions.
TIMES: Final = {
    "answer_limit": "the time RabbitMQ has to answer",
    "ask_limit": "the time the function may take",
    "attempt_delay": "the back-off between attempts",
    "attempt_limit": "the time that an attempt may take",
    "channel_delay": "the back-off between channels",
    "channel_limit": "the time that a channel may take",
    "closing_limit": "the time left for closing",
    "half_time": "half of the time for closing",
    "node_delay": "the delay between attempts on one node",
    "open_limit": "the time opening may take",
    "finish_limit": "what the disk may take for one batch",
    "patience": "the setting `timeout`",
    "renewal_delay": "two thirds of the credentials' validity; after a failure, a back-off",
    "retry_delay": "the delay before a failed disk is tried again",
    "setup_limit": "the time `setup` may take",
}

#: The way to ready when nothing goes wrong.
HAPPY: Final[frozenset[tuple[enum.Enum, enum.Enum]]] = frozenset(
    {
        (State.IDLE, Connecting.OPENING_CONNECTION),
        (Connecting.OPENING_CONNECTION, Connecting.OPENING_CHANNEL),
        (Connecting.OPENING_CHANNEL, State.READY),
    }
)

#: Marks a trigger that a timer may pull.
TIMER: Final = "◷"


@dataclass(frozen=True)
class Arrow:
    """All rows from one state to another: their triggers, each with its guard or an empty string."""

    source: enum.Enum
    dest: enum.Enum
    triggers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Its id in documents: ``arrow-idle-connecting-opening-the-connection``."""
        return f"arrow-{slug(self.source)}-{slug(self.dest)}"

    @property
    def happy(self) -> bool:
        """Whether it is part of the way to ready when nothing goes wrong."""
        return (self.source, self.dest) in HAPPY

    @property
    def lines(self) -> list[str]:
        """Its triggers, one per line; a guard, in brackets, follows the triggers that it guards."""
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
    """Return the declaration of each documented state, each followed by those of its substates."""
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
    """Say when the row applies: ``if blocking``, ``unless blocking``, or the empty string if it always does."""
    if row.conditions:
        return f"if {row.conditions}"
    return f"unless {row.unless}" if row.unless else ""


def name(state: enum.Enum) -> str:
    """Name a documented state as the client's properties do, and a substate by its value."""
    return state.name.lower() if isinstance(state, State) else str(state.value)


def label(state: enum.Enum) -> str:
    """Name a state as existing code shows it to people."""
    return DESCRIPTIONS[state] if isinstance(state, State) else name(state)


def substate_name(state: enum.Enum) -> str:
    """Name a substate; the empty string for a documented state."""
    return "" if isinstance(state, State) else name(state)


def full_name(state: enum.Enum) -> str:
    """Name the state and, in brackets, the substate: ``closed (retrying)``."""
    documented = DOCUMENTED.get(state, state)
    return name(state) if state is documented else f"{name(documented)} ({name(state)})"


def slug(state: enum.Enum) -> str:
    """Name the state in identifiers: ``closed-retrying``."""
    return full_name(state).replace(" (", "-").replace(" ", "-").rstrip(")")


def outcome(state: enum.Enum) -> str:
    """Say what usually becomes of a publish in the state or its substates."""
    found = [PUBLISH_OUTCOMES[each] for each in (substates(state) or [state]) if each in PUBLISH_OUTCOMES]
    return " or ".join(dict.fromkeys(outcomes[Outage.CALM] for outcomes in found))
