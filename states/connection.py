"""The life of the connection to RabbitMQ, declared.

Rule 1: everything that decides what may happen to the connection stands in this folder. A trigger that has no row for
a state does nothing in that state. To change behaviour, change the declaration: the model that it drives, the tables
and the pictures follow it.

This file declares the machine of the connection; `outage.py` the machine of an outage, and what a publish does in the
states of both; `renewal.py` the machine that renews the credentials of an open connection; `outbox.py` the machine of
the outbox, and what it makes of a publish. Deliberately not declared, because none of it says what may happen to the
connection:

- the publisher's flow control: the window of unconfirmed messages, the line, one question about an exchange at a time,
  suspects one at a time (`delivery/publisher.py`). It changes with every message.
- for which causes RabbitMQ blocks, by alarm or by flow: facts about the wire, which `link.py` keeps and the guard
  ``blocking`` asks.
- which node comes next, after what delay, and with which one a round begins: arithmetic (`attempts.py`), which the
  timeouts and the guard ``asks`` ask.
- whether RabbitMQ lets the user ask about exchanges: learned once, and kept with what is known of them
  (`delivery/exchanges.py`).
- when the outbox looks for files that other clients left: every minute while it is open, in whatever state (`outbox.py`
  of the package). What it finds is a trigger like any other.
- `Client.shutdown` waiting for requests in flight: the connection stays what it is meanwhile.
- a subclass's `connect()` that raises or does not connect: it is called again after the delay (`Lifecycle`).
"""

import enum
from typing import Final

from .vocabulary import Declared, Row


class State(enum.IntEnum):
    """Where the connection is in its life; the values are those that existing code compares."""

    IDLE = 1
    CONNECTING = 2
    READY = 3
    BLOCKED = 4
    CLOSING = 5
    CLOSED = 6


class Connecting(enum.Enum):
    """How far connecting has come."""

    ASKING = "asking for the address"
    OPENING_CONNECTION = "opening the connection"
    SETTING_UP = "setting up"
    OPENING_CHANNEL = "opening the channel"
    RETRYING_CHANNEL = "retrying the channel"


class Closing(enum.Enum):
    """How far closing has come."""

    DRAINING = "draining"
    CLOSING_CONNECTION = "closing the connection"


class Closed(enum.Enum):
    """Whether a closed connection comes back by itself."""

    RETRYING = "retrying"
    STOPPED = "stopped"


#: What the model's state is: a substate, where the state has some.
Substate = State | Connecting | Closing | Closed

#: What existing code shows to people.
DESCRIPTIONS: Final = {state: state.name.capitalize() for state in State}

STATES: Final = (
    Declared(State.IDLE, "Nothing was started yet: the loop does not run, or `connect()` was not called."),
    Declared(
        State.CONNECTING,
        "A connection, or on an open connection a channel, is being opened.",
        substates=(
            Declared(
                Connecting.ASKING,
                "The function given as `url` is asked for the URL; skipped where `url` is one.",
                on_enter=("ask_for_address",),
                on_exit=("stop_asking",),
                timeout="ask_limit",
                on_timeout="connection_failed",
            ),
            Declared(
                Connecting.OPENING_CONNECTION,
                "A node is being reached, up to the end of RabbitMQ's handshake.",
                on_enter=("open_connection",),
                timeout="attempt_limit",
                on_timeout="connection_failed",
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
                "The connection is open; a channel is being opened and put in confirm mode.",
                on_enter=("open_channel",),
                timeout="attempt_limit",
                on_timeout="connection_failed",
            ),
            Declared(
                Connecting.RETRYING_CHANNEL,
                "RabbitMQ closed the channel; the connection is open, and the next channel is scheduled.",
                on_enter=("drop_channel",),
                timeout="channel_delay",
                on_timeout="channel_due",
            ),
        ),
    ),
    Declared(
        State.READY,
        "The channel is open and, where publisher confirms are used, in confirm mode.",
        on_enter=("send_waiting",),
    ),
    Declared(
        State.BLOCKED,
        "RabbitMQ sent `connection.blocked` (it is short of memory or disk) or stopped the channel's flow.",
    ),
    Declared(
        State.CLOSING,
        "Closing on request: confirmations still come in, then the connection is closed.",
        on_enter=("refuse_waiting",),
        timeout="closing_limit",
        on_timeout="close_expired",
        substates=(
            Declared(
                Closing.DRAINING,
                "Waiting for what is unconfirmed.",
                on_enter=("drain",),
            ),
            Declared(
                Closing.CLOSING_CONNECTION,
                "RabbitMQ was asked to close the connection.",
                on_enter=("close_connection",),
                timeout="answer_limit",
                on_timeout="close_expired",
            ),
        ),
    ),
    Declared(
        State.CLOSED,
        "No connection. Unless it was closed on request, the next attempt is scheduled.",
        on_enter=("drop_connection",),
        substates=(
            Declared(
                Closed.RETRYING,
                "The connection was lost or not made; the next attempt is scheduled.",
                timeout="attempt_delay",
                on_timeout="connect",
            ),
            Declared(
                Closed.STOPPED,
                "Closed on request, until `connect()`.",
                on_enter=("refuse_waiting",),
            ),
        ),
    ),
)

#: The documented state of each substate, and of itself.
DOCUMENTED: Final[dict[enum.Enum, State]] = {
    declared.state: State[state.state.name] for state in STATES for declared in (state, *state.substates)
}

_S = State

TRANSITIONS: Final = (
    # Up: the address, a connection, what has to be declared, a channel. RabbitMQ may be blocking from the first moment.
    Row("connect", (_S.IDLE, _S.CLOSED), Connecting.ASKING, conditions="asks"),
    Row("connect", (_S.IDLE, _S.CLOSED), Connecting.OPENING_CONNECTION),
    Row("address_given", (Connecting.ASKING,), Connecting.OPENING_CONNECTION),
    Row("connection_opened", (Connecting.OPENING_CONNECTION,), Connecting.SETTING_UP, conditions="sets_up"),
    Row("connection_opened", (Connecting.OPENING_CONNECTION,), Connecting.OPENING_CHANNEL),
    Row("setup_done", (Connecting.SETTING_UP,), Connecting.OPENING_CHANNEL),
    Row("channel_opened", (Connecting.OPENING_CHANNEL,), _S.BLOCKED, conditions="blocking"),
    Row("channel_opened", (Connecting.OPENING_CHANNEL,), _S.READY),
    # RabbitMQ asks not to publish, by alarm (connection.blocked) or by channel.flow, and takes it back.
    Row("connection_blocked", (_S.READY,), _S.BLOCKED),
    Row("connection_unblocked", (_S.BLOCKED,), _S.READY, unless="blocking"),
    # Losses. A channel is opened again on its connection; a connection, after a delay.
    Row("channel_closed", (Connecting.OPENING_CHANNEL, _S.READY, _S.BLOCKED), Connecting.RETRYING_CHANNEL),
    Row("channel_due", (Connecting.RETRYING_CHANNEL,), Connecting.SETTING_UP, conditions="sets_up"),
    Row("channel_due", (Connecting.RETRYING_CHANNEL,), Connecting.OPENING_CHANNEL),
    Row("connection_failed", (_S.CONNECTING,), Closed.RETRYING),
    Row("connection_closed", (_S.CONNECTING, _S.READY, _S.BLOCKED), Closed.RETRYING),
    # Down, on request: drain what is unconfirmed, close the connection, both within a limit.
    Row("close", (_S.READY, _S.BLOCKED), Closing.DRAINING),
    Row("drained", (Closing.DRAINING,), Closing.CLOSING_CONNECTION),
    Row("channel_closed", (Closing.DRAINING,), Closing.CLOSING_CONNECTION, before="drop_channel"),
    Row("close_expired", (_S.CLOSING,), Closed.STOPPED),
    Row("connection_closed", (_S.CLOSING,), Closed.STOPPED),
    Row("stop", (_S.IDLE, _S.CONNECTING, Closed.RETRYING), Closed.STOPPED),
)
