"""The life of the connection to RabbitMQ, declared.

Rule 1: everything that decides what may happen when stands in this file. A trigger that has no row for a state does
nothing in that state. `Lifecycle` in `sprockets_amqp/lifecycle.py` is the model that these rows drive: guards and
callbacks are names of its methods.

To change behaviour, change the rows: the README's table and the diagrams are generated from them.
"""

import enum
from typing import Final, Literal, NotRequired, TypedDict


class State(enum.IntEnum):
    """Where the connection is in its life; the values are those that existing code compares."""

    #: Nothing was started yet: the loop does not run, or `connect()` was not called.
    IDLE = 1
    #: A connection, or on an open connection a channel, is being opened.
    CONNECTING = 2
    #: The channel is open and, where publisher confirms are used, in confirm mode.
    READY = 3
    #: RabbitMQ sent ``connection.blocked`` (it is short of memory or disk) or stopped the channel's flow.
    BLOCKED = 4
    #: Closing on request: confirmations still come in, then the connection is closed.
    CLOSING = 5
    #: No connection. Unless it was closed on request, the next attempt is scheduled.
    CLOSED = 6


#: What existing code shows to people.
DESCRIPTIONS: Final = {state: state.name.capitalize() for state in State}

#: What becomes of a publish: it goes out, waits for a better state, or is refused.
PublishOutcome = Literal["goes out", "waits", "is refused"]

#: States in which a message may go to the broker.
PUBLISHABLE: Final = frozenset({State.READY})
#: States in which `close()` closes an open connection.
CLOSABLE: Final = frozenset({State.READY, State.BLOCKED})
#: States in which a publish is refused, unless an attempt to connect is scheduled (see `Lifecycle.recovers`).
REFUSED: Final = frozenset({State.CLOSING, State.CLOSED})

#: What a state means for a publish, for people: closed refuses only when no attempt to connect is scheduled.
PUBLISH_OUTCOMES: Final[dict[State, PublishOutcome]] = {
    State.IDLE: "waits",
    State.CONNECTING: "waits",
    State.READY: "goes out",
    State.BLOCKED: "waits",
    State.CLOSING: "is refused",
    State.CLOSED: "waits",
}


class Row(TypedDict):
    """One transition, in the words of the `transitions` package; ``dest: None`` stays in the state."""

    trigger: str
    source: list[State]
    dest: State | None
    #: Called before a guard looks.
    prepare: NotRequired[str]
    #: Guards: the row applies when the model says so (`conditions`) or does not (`unless`).
    conditions: NotRequired[str]
    unless: NotRequired[str]
    #: Called in the old state, and in the new one.
    before: NotRequired[str | list[str]]
    after: NotRequired[str | list[str]]


_S = State

TRANSITIONS: Final[list[Row]] = [
    # Up: a connection, a channel on it, ready. RabbitMQ may be blocking from the first moment.
    {
        "trigger": "connect",
        "source": [_S.IDLE, _S.CLOSED],
        "dest": _S.CONNECTING,
        "before": "_cancel_reconnect",
        "after": ["_watch_outage", "_open_connection"],
    },
    {"trigger": "connection_opened", "source": [_S.CONNECTING], "dest": None, "after": "_open_channel"},
    {
        "trigger": "channel_opened",
        "source": [_S.CONNECTING],
        "dest": _S.BLOCKED,
        "conditions": "blocking",
        "after": "_end_connecting",
    },
    {
        "trigger": "channel_opened",
        "source": [_S.CONNECTING],
        "dest": _S.READY,
        "after": ["_end_connecting", "_end_outage", "_send_waiting"],
    },
    # RabbitMQ asks not to publish, by alarm (connection.blocked) or by channel.flow, and takes it back.
    {
        "trigger": "connection_blocked",
        "source": [_S.READY],
        "dest": _S.BLOCKED,
        "prepare": "_remember_alarm",
        "after": "_watch_outage",
    },
    {
        "trigger": "connection_blocked",
        "source": [_S.CONNECTING, _S.BLOCKED],
        "dest": None,
        "prepare": "_remember_alarm",
    },
    {
        "trigger": "flow_stopped",
        "source": [_S.READY],
        "dest": _S.BLOCKED,
        "prepare": "_remember_flow",
        "after": "_watch_outage",
    },
    {"trigger": "flow_stopped", "source": [_S.CONNECTING, _S.BLOCKED], "dest": None, "prepare": "_remember_flow"},
    {
        "trigger": "connection_unblocked",
        "source": [_S.BLOCKED],
        "dest": _S.READY,
        "prepare": "_forget_alarm",
        "unless": "blocking",
        "after": ["_end_outage", "_send_waiting"],
    },
    {
        "trigger": "connection_unblocked",
        "source": [_S.CONNECTING, _S.BLOCKED],
        "dest": None,
        "prepare": "_forget_alarm",
    },
    {
        "trigger": "flow_resumed",
        "source": [_S.BLOCKED],
        "dest": _S.READY,
        "prepare": "_forget_flow",
        "unless": "blocking",
        "after": ["_end_outage", "_send_waiting"],
    },
    {"trigger": "flow_resumed", "source": [_S.CONNECTING, _S.BLOCKED], "dest": None, "prepare": "_forget_flow"},
    # Losses. A channel is opened again on its connection; a connection, after a delay.
    {
        "trigger": "channel_closed",
        "source": [_S.READY, _S.BLOCKED],
        "dest": _S.CONNECTING,
        "before": "_settle_unconfirmed",
        "after": ["_watch_outage", "_reopen_channel"],
    },
    {
        "trigger": "channel_closed",
        "source": [_S.CONNECTING],
        "dest": None,
        "after": ["_settle_unconfirmed", "_reopen_channel"],
    },
    {"trigger": "channel_closed", "source": [_S.CLOSING], "dest": None, "after": "_settle_unconfirmed"},
    {
        "trigger": "connection_failed",
        "source": [_S.CONNECTING],
        "dest": _S.CLOSED,
        "before": ["_end_connecting", "_drop_connection"],
        "after": "_schedule_reconnect",
    },
    {
        "trigger": "connection_closed",
        "source": [_S.CONNECTING, _S.READY, _S.BLOCKED],
        "dest": _S.CLOSED,
        "before": ["_end_connecting", "_drop_connection", "_settle_unconfirmed"],
        "after": ["_watch_outage", "_schedule_reconnect"],
    },
    {
        "trigger": "failure_persisted",
        "source": [_S.IDLE, _S.CONNECTING, _S.BLOCKED, _S.CLOSED],
        "dest": None,
        "after": ["_remember_failure", "_refuse_waiting"],
    },
    # Down, on request: drain what is unconfirmed, close the connection, both within a limit.
    {
        "trigger": "close",
        "source": [_S.READY, _S.BLOCKED],
        "dest": _S.CLOSING,
        "after": ["_end_outage", "_refuse_waiting", "_drain"],
    },
    {"trigger": "drained", "source": [_S.CLOSING], "dest": None, "after": "_close_connection"},
    {
        "trigger": "close_expired",
        "source": [_S.CLOSING],
        "dest": _S.CLOSED,
        "before": ["_end_closing", "_drop_connection", "_settle_unconfirmed"],
    },
    {
        "trigger": "connection_closed",
        "source": [_S.CLOSING],
        "dest": _S.CLOSED,
        "before": ["_end_closing", "_drop_connection", "_settle_unconfirmed"],
    },
    {
        "trigger": "stop",
        "source": [_S.IDLE, _S.CONNECTING, _S.CLOSED],
        "dest": _S.CLOSED,
        "before": ["_cancel_reconnect", "_end_connecting", "_end_outage", "_drop_connection"],
        "after": "_refuse_waiting",
    },
]
