"""The outage, and what becomes of a publish, declared over the states of the connection.

An outage lasts while publishing is impossible and the client is trying to make it possible. Once it has lasted longer
than the setting ``timeout`` it is persistent, and publishes no longer wait.
"""

import enum
from typing import Final, Literal

from .connection import Closed, Closing, Connecting, State, Substate
from .vocabulary import Declared, Row


class Outage(enum.Enum):
    """Whether there is an outage, and whether it is persistent."""

    CALM = "calm"
    COUNTING = "counting"
    PERSISTENT = "persistent"


OUTAGE_STATES: Final = (
    Declared(Outage.CALM, "Publishing is possible, or no connection is wanted."),
    Declared(
        Outage.COUNTING,
        "Publishing is impossible, but has not been for longer than `timeout`.",
        timeout="patience",
        on_timeout="outage_lasted",
    ),
    Declared(
        Outage.PERSISTENT,
        "Publishing has been impossible for longer than `timeout`.",
        on_enter=("tell_persistent_failure", "refuse_waiting", "give_up_unconfirmed"),
    ),
)

#: The states of the connection that make an outage: entering them pulls ``outage_began``, leaving them
#: ``outage_ended``.
OUT: Final = frozenset({*Connecting, State.BLOCKED, Closed.RETRYING})

OUTAGE_TRANSITIONS: Final = (
    Row("outage_began", (Outage.CALM,), Outage.COUNTING),
    Row("outage_lasted", (Outage.COUNTING,), Outage.PERSISTENT),
    Row("outage_ended", (Outage.COUNTING, Outage.PERSISTENT), Outage.CALM),
)

#: What becomes of a publish: it goes out, waits for a better state, is refused, or is stored in the outbox.
PublishOutcome = Literal["goes out", "waits", "is refused", "is stored"]


def _outcomes(usual: PublishOutcome, persistent: PublishOutcome) -> dict[Outage, PublishOutcome]:
    return {Outage.CALM: usual, Outage.COUNTING: usual, Outage.PERSISTENT: persistent}


#: What becomes of a publish in each state, usually and in a persistent outage. An outbox may change it: `outbox.py`.
PUBLISH_OUTCOMES: Final[dict[Substate, dict[Outage, PublishOutcome]]] = {
    State.IDLE: _outcomes("waits", "waits"),
    Connecting.ASKING: _outcomes("waits", "is refused"),
    Connecting.OPENING_CONNECTION: _outcomes("waits", "is refused"),
    Connecting.RETRYING_NODE: _outcomes("waits", "is refused"),
    Connecting.SETTING_UP: _outcomes("waits", "is refused"),
    Connecting.OPENING_CHANNEL: _outcomes("waits", "is refused"),
    Connecting.RETRYING_CHANNEL: _outcomes("waits", "is refused"),
    State.READY: _outcomes("goes out", "goes out"),
    State.BLOCKED: _outcomes("waits", "is refused"),
    Closing.DRAINING: _outcomes("is refused", "is refused"),
    Closing.PAUSED: _outcomes("is refused", "is refused"),
    Closing.CONFIRMING: _outcomes("is refused", "is refused"),
    Closing.CLOSING_CONNECTION: _outcomes("is refused", "is refused"),
    Closed.RETRYING: _outcomes("waits", "is refused"),
    Closed.STOPPED: _outcomes("is refused", "is refused"),
}

#: The states in which what waits goes out: it was accepted, even if new publishes are refused.
SENDING: Final[frozenset[Substate]] = frozenset({State.READY, Closing.DRAINING})
