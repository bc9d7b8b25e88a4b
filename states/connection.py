"""The life of the connection to RabbitMQ, declared.

Rule 1: everything that decides what may happen to the connection is declared in this folder. A trigger without a row
for a state does nothing in that state. To change behaviour, change the declaration: the model, the tables and the
pictures follow.

This file declares the connection; `outage.py` the outage, and what becomes of a publish in each state; `renewal.py` the
renewal of an open connection's credentials; `outbox.py` the outbox, and how it changes what becomes of a publish. Some
things are deliberately not declared, because they do not decide what may happen to the connection:

- the publisher's flow control (`delivery/publisher.py`): the window of unconfirmed messages, the line of waiting ones,
  one question about an exchange at a time, one suspect at a time. It changes with every message.
- why RabbitMQ is blocking, an alarm or channel.flow: facts from the wire, which `link.py` keeps and the guard
  ``blocking`` reads.
- which node is next, after what delay, how often one is tried and when a round begins: arithmetic (`attempts.py`),
  which the timeouts and the guards ``asks`` and ``retries_node`` use.
- which of a node's addresses is tried: each attempt begins behind the one at which the last one failed (`link.py`).
- whether RabbitMQ lets the user ask about exchanges: learned once, and kept with what is known about them
  (`delivery/exchanges.py`).
- when the outbox looks for files that other clients left: every minute while it is open, in any state (the package's
  `outbox.py`). Files that it finds pull a trigger like any other event.
- `Client.shutdown` waiting for requests in flight: the connection's state does not change while it waits.
- a subclass's `connect()` that raises or does not connect: it is called again after the delay (`Lifecycle`).
"""

import enum
from typing import Final

from .vocabulary import Declared, Row


class State(enum.IntEnum):
    """The documented states of the connection; existing code compares their values."""

    IDLE = 1
    CONNECTING = 2
    READY = 3
    BLOCKED = 4
    CLOSING = 5
    CLOSED = 6


class Connecting(enum.Enum):
    """How far connecting has got."""

    ASKING = "asking for the address"
    OPENING_CONNECTION = "opening the connection"
    RETRYING_NODE = "retrying the node"
    SETTING_UP = "setting up"
    OPENING_CHANNEL = "opening the channel"
    RETRYING_CHANNEL = "retrying the channel"


class Closing(enum.Enum):
    """How far closing has got."""

    DRAINING = "draining"
    PAUSED = "paused"
    CONFIRMING = "confirming"
    CLOSING_CONNECTION = "closing the connection"


class Closed(enum.Enum):
    """Whether a closed connection will be reopened."""

    RETRYING = "retrying"
    STOPPED = "stopped"


#: The type of the model's state: a substate, if the state has any.
Substate = State | Connecting | Closing | Closed

#: The names that existing code shows to people.
DESCRIPTIONS: Final = {state: state.name.capitalize() for state in State}

STATES: Final = (
    Declared(State.IDLE, "Not started yet: the loop is not running, or `connect()` has not been called."),
    Declared(
        State.CONNECTING,
        "A connection, or a channel on an open connection, is being opened.",
        substates=(
            Declared(
                Connecting.ASKING,
                "The function given as `url` is being called for the URL; skipped if `url` is a string.",
                on_enter=("ask_for_address",),
                on_exit=("stop_asking",),
                timeout="ask_limit",
                on_timeout="connection_failed",
            ),
            Declared(
                Connecting.OPENING_CONNECTION,
                "A connection to one node is being opened, up to the end of the AMQP handshake.",
                on_enter=("open_connection",),
                timeout="attempt_limit",
                on_timeout="connection_failed",
            ),
            Declared(
                Connecting.RETRYING_NODE,
                "The node could not be reached; trying the same one again is scheduled.",
                on_enter=("drop_attempt",),
                timeout="node_delay",
                on_timeout="node_due",
            ),
            Declared(
                Connecting.SETTING_UP,
                "The connection is open; `setup` declares exchanges, queues and bindings. Skipped without `setup`.",
                on_enter=("set_up",),
                on_exit=("stop_setup",),
                timeout="setup_limit",
                on_timeout="connection_failed",
            ),
            Declared(
                Connecting.OPENING_CHANNEL,
                "The connection is open; a channel is being opened and put into confirm mode.",
                on_enter=("open_channel",),
                timeout="channel_limit",
                on_timeout="connection_failed",
            ),
            Declared(
                Connecting.RETRYING_CHANNEL,
                "RabbitMQ closed the channel; the connection is open, and opening another channel is scheduled.",
                on_enter=("drop_channel",),
                timeout="channel_delay",
                on_timeout="channel_due",
            ),
        ),
    ),
    Declared(
        State.READY,
        "The channel is open and, if publisher confirms are enabled, in confirm mode.",
        on_enter=("send_waiting",),
    ),
    Declared(
        State.BLOCKED,
        "RabbitMQ sent `connection.blocked` (it is short of memory or disk space) or stopped the channel's flow.",
    ),
    Declared(
        State.CLOSING,
        "Closing on request: waiting messages go out, unconfirmed ones are awaited, then the connection is closed.",
        timeout="closing_limit",
        on_timeout="close_expired",
        substates=(
            Declared(
                Closing.DRAINING,
                "Waiting messages go out, and unconfirmed ones are awaited.",
                on_enter=("send_waiting", "drain"),
                timeout="half_time",
                on_timeout="half_time_over",
            ),
            Declared(
                Closing.PAUSED,
                "RabbitMQ is blocking publishing: what waits may still go out if that ends in time.",
                on_enter=("drain",),
                timeout="half_time",
                on_timeout="half_time_over",
            ),
            Declared(
                Closing.CONFIRMING,
                "What still waited after half of the time is in the outbox; unconfirmed messages are awaited.",
                on_enter=("refuse_waiting", "drain"),
            ),
            Declared(
                Closing.CLOSING_CONNECTION,
                "RabbitMQ has been asked to close the connection.",
                on_enter=("refuse_waiting", "close_connection"),
                timeout="answer_limit",
                on_timeout="close_expired",
            ),
        ),
    ),
    Declared(
        State.CLOSED,
        "There is no connection. Unless it was closed on request, the next attempt is scheduled.",
        on_enter=("drop_connection",),
        substates=(
            Declared(
                Closed.RETRYING,
                "The connection was lost or could not be opened; the next attempt is scheduled.",
                timeout="attempt_delay",
                on_timeout="connect",
            ),
            Declared(
                Closed.STOPPED,
                "Closed on request; `connect()` opens it again.",
                on_enter=("refuse_waiting",),
            ),
        ),
    ),
)

#: Maps each substate, and each documented state itself, to the documented state.
DOCUMENTED: Final[dict[enum.Enum, State]] = {
    declared.state: State[state.state.name] for state in STATES for declared in (state, *state.substates)
}

_S = State
_DRAINS: Final = (Closing.DRAINING, Closing.PAUSED, Closing.CONFIRMING)

TRANSITIONS: Final = (
    # Up: the address, a connection, setup, a channel. RabbitMQ may be blocking from the start.
    Row("connect", (_S.IDLE, _S.CLOSED), Connecting.ASKING, conditions="asks"),
    Row("connect", (_S.IDLE, _S.CLOSED), Connecting.OPENING_CONNECTION),
    Row("address_given", (Connecting.ASKING,), Connecting.OPENING_CONNECTION),
    Row("connection_opened", (Connecting.OPENING_CONNECTION,), Connecting.SETTING_UP, conditions="sets_up"),
    Row("connection_opened", (Connecting.OPENING_CONNECTION,), Connecting.OPENING_CHANNEL),
    Row("setup_done", (Connecting.SETTING_UP,), Connecting.OPENING_CHANNEL),
    Row("channel_opened", (Connecting.OPENING_CHANNEL,), _S.BLOCKED, conditions="blocking"),
    Row("channel_opened", (Connecting.OPENING_CHANNEL,), _S.READY),
    # RabbitMQ stops publishing with an alarm (connection.blocked) or channel.flow, and later resumes it.
    Row("connection_blocked", (_S.READY,), _S.BLOCKED),
    Row("connection_unblocked", (_S.BLOCKED,), _S.READY, unless="blocking"),
    # Losses. A lost channel is reopened on its connection; a lost connection, after a delay.
    Row("channel_closed", (_S.READY, _S.BLOCKED), Closed.RETRYING, conditions="expired"),
    Row("channel_closed", (Connecting.OPENING_CHANNEL, _S.READY, _S.BLOCKED), Connecting.RETRYING_CHANNEL),
    Row("channel_due", (Connecting.RETRYING_CHANNEL,), Connecting.SETTING_UP, conditions="sets_up"),
    Row("channel_due", (Connecting.RETRYING_CHANNEL,), Connecting.OPENING_CHANNEL),
    Row("connection_failed", (Connecting.OPENING_CONNECTION,), Connecting.RETRYING_NODE, conditions="retries_node"),
    Row("connection_failed", (_S.CONNECTING,), Closed.RETRYING),
    Row("node_due", (Connecting.RETRYING_NODE,), Connecting.OPENING_CONNECTION),
    Row("connection_closed", (_S.CONNECTING, _S.READY, _S.BLOCKED), Closed.RETRYING),
    # RabbitMQ refuses access to everything once the credentials have expired: that says nothing about a message.
    Row("access_expired", (_S.READY, _S.BLOCKED), Closed.RETRYING),
    # Down, on request: send what waits, wait for unconfirmed messages, close the connection, all within a limit.
    Row("close", (_S.READY,), Closing.DRAINING),
    Row("close", (_S.BLOCKED,), Closing.PAUSED),
    Row("connection_blocked", (Closing.DRAINING,), Closing.PAUSED),
    Row("connection_unblocked", (Closing.PAUSED,), Closing.DRAINING, unless="blocking"),
    Row("half_time_over", (Closing.DRAINING, Closing.PAUSED), Closing.CONFIRMING, conditions="stores"),
    Row("drained", _DRAINS, Closing.CLOSING_CONNECTION),
    Row("channel_closed", _DRAINS, Closing.CLOSING_CONNECTION, before="drop_channel"),
    Row("close_expired", (_S.CLOSING,), Closed.STOPPED),
    Row("connection_closed", (_S.CLOSING,), Closed.STOPPED),
    Row("stop", (_S.IDLE, _S.CONNECTING, Closed.RETRYING), Closed.STOPPED),
)
