"""The life of the connection to RabbitMQ, declared.

Rule 1: everything that decides what may happen to the connection is declared in this folder. A trigger without a row
for a state does nothing in that state. To change behaviour, change the declaration: the model, the tables and the
pictures follow.

This file declares the connection. The other machines follow it: `outage.py` declares the outage, `renewal.py` the
renewal of an open connection's credentials, `outbox.py` the outbox, `check.py` the exchange check. They see only the
marks of its states:

- ``sends``: messages that wait go out; they were accepted, even if new publishes are refused.
- ``outage``: publishing is impossible, and the client is trying to make it possible.
- ``connected``: the connection is open.
- ``logged_in``: it is meant to stay open.
- ``has_channel``: there is a channel to publish on.
- ``at_rest``: the client was not started, or was stopped on request.

Some things are deliberately not declared, because they do not decide what may happen to the connection:

- the publisher's flow control (`delivery/publisher.py`): the window of unconfirmed messages, the line of waiting ones,
  one exchange check at a time, one suspect at a time, which destinations are nacked and since when. It changes with
  every message.
- why RabbitMQ is blocking, an alarm or channel.flow: facts from the wire, which `connection/link.py` keeps; the guard
  ``blocking`` reads.
- which node is next, after what delay, how often one is tried and when a round begins: arithmetic
  (`connection/attempts.py`), which the timeouts and the guards ``calls`` and ``retries_node`` use.
- which of a node's addresses is tried: each attempt begins behind the one at which the last one failed
  (`connection/link.py`).
- which exchanges RabbitMQ accepts messages for, and which check may have cost a connection: memory, with limits
  (`delivery/exchanges.py`).
- when the outbox looks for files that other clients left: every minute while it is open, in any state
  (`outbox/model.py`). Files that it finds pull a trigger like any other event.
- `Client.shutdown` waiting for requests in flight: the connection's state does not change while it waits.
- a subclass's `connect()` that raises or does not connect: it is called again after the delay (`Lifecycle`).
"""

import enum
from collections.abc import Mapping
from typing import Final

from .vocabulary import Action, Declared, Delay, Ignore, Limit, Machine, Name, Row


class State(enum.IntEnum):
    """The documented states of the connection; existing code compares their values."""

    IDLE = 1
    CONNECTING = 2
    READY = 3
    BLOCKED = 4
    CLOSING = 5
    CLOSED = 6


class Connecting(Name):
    """How far connecting has got."""

    CALLING = "calling the function"
    OPENING_CONNECTION = "opening the connection"
    RETRYING_NODE = "retrying the node"
    SETTING_UP = "setting up"
    OPENING_CHANNEL = "opening the channel"
    CLOSING_CHANNEL = "closing the channel"
    RETRYING_CHANNEL = "retrying the channel"


class Closing(Name):
    """How far closing has got."""

    DRAINING = "draining"
    PAUSED = "paused"
    CONFIRMING = "confirming"
    CLOSING_CONNECTION = "closing the connection"


class Closed(Name):
    """Whether a closed connection will be reopened."""

    RETRYING = "retrying"
    STOPPED = "stopped"


#: The type of the model's state: a substate, if the state has any.
Substate = State | Connecting | Closing | Closed

#: The names that existing code shows.
DESCRIPTIONS: Final = {state: state.name.capitalize() for state in State}

_S = State
_DRAINS: Final = (Closing.DRAINING, Closing.PAUSED, Closing.CONFIRMING)

# Actions of several states
_DRAIN: Final = Action("drain", "waits until nothing waits and nothing is unconfirmed")
_DROP_CHANNEL: Final = Action("drop_channel", "drops the channel and settles unconfirmed messages")
_GIVE_UP_WAITING: Final = Action("give_up_waiting", "ends waiting messages, or stores them")
_SEND_WAITING: Final = Action("send_waiting", "sends waiting messages, in order")
_HALF_TIME: Final = Limit("half_time", "half of the time for closing", "half_time_over")

CONNECTION: Final = Machine(
    "connection",
    initial=State.IDLE,
    states=(
        Declared(
            State.IDLE,
            "Not started yet: the loop is not running, or `connect()` has not been called.",
            publish="waits",
            marks=("at_rest",),
            happy=Connecting.OPENING_CONNECTION,
        ),
        Declared(
            State.CONNECTING,
            "A connection, or a channel on an open connection, is being opened.",
            substates=(
                Declared(
                    Connecting.CALLING,
                    "The function given as `url` is being called for the URL; skipped if `url` is a string.",
                    on_enter=(Action("call_for_address", "calls the function for the address"),),
                    on_exit=(Action("stop_call", "cancels the call"),),
                    timeout=Limit("call_limit", "the time the function may take", "connection_failed"),
                    publish="waits",
                    marks=("outage",),
                ),
                Declared(
                    Connecting.OPENING_CONNECTION,
                    "A connection to one node is being opened, up to the end of the AMQP handshake.",
                    on_enter=(Action("open_connection", "opens a connection to the next node"),),
                    timeout=Limit("attempt_limit", "the time that an attempt may take", "connection_failed"),
                    publish="waits",
                    marks=("outage",),
                    happy=Connecting.OPENING_CHANNEL,
                ),
                Declared(
                    Connecting.RETRYING_NODE,
                    "The node could not be reached; trying the same one again is scheduled.",
                    on_enter=(Action("drop_attempt", "drops the connection that could not be opened"),),
                    timeout=Delay("node_delay", "the delay between attempts on one node", "node_due"),
                    publish="waits",
                    marks=("outage",),
                ),
                Declared(
                    Connecting.SETTING_UP,
                    "The connection is open; `setup` declares exchanges, queues and bindings. Skipped without `setup`.",
                    on_enter=(Action("set_up", "runs `setup`"),),
                    on_exit=(Action("stop_setup", "cancels `setup`"),),
                    timeout=Limit("setup_limit", "the time `setup` may take", "connection_failed"),
                    publish="waits",
                    marks=("outage", "connected", "logged_in"),
                ),
                Declared(
                    Connecting.OPENING_CHANNEL,
                    "The connection is open; a channel is being opened and put into confirm mode.",
                    on_enter=(Action("open_channel", "opens a channel"),),
                    timeout=Limit("channel_limit", "the time that a channel may take", "connection_failed"),
                    publish="waits",
                    marks=("outage", "connected", "logged_in"),
                    happy=State.READY,
                ),
                Declared(
                    Connecting.CLOSING_CHANNEL,
                    "RabbitMQ has nacked for too long, perhaps because of this channel, which is being closed.",
                    on_enter=(Action("close_channel", "closes the channel"),),
                    timeout=Limit("channel_answer_limit", "the time RabbitMQ has to answer", "connection_failed"),
                    publish="waits",
                    marks=("outage", "connected", "logged_in"),
                ),
                Declared(
                    Connecting.RETRYING_CHANNEL,
                    "The channel is closed; the connection is open, and opening another channel is scheduled.",
                    on_enter=(_DROP_CHANNEL,),
                    timeout=Delay("channel_delay", "the back-off between channels", "channel_due"),
                    publish="waits",
                    marks=("outage", "connected", "logged_in"),
                ),
            ),
        ),
        Declared(
            State.READY,
            "The channel is open and, if publisher confirms are enabled, in confirm mode.",
            on_enter=(Action("tell_ready", "logs that it is ready"), _SEND_WAITING),
            publish="goes out",
            marks=("sends", "connected", "logged_in", "has_channel"),
        ),
        Declared(
            State.BLOCKED,
            "RabbitMQ sent `connection.blocked` (it is short of memory or disk space) or stopped the channel's flow.",
            publish="waits",
            marks=("outage", "connected", "logged_in", "has_channel"),
        ),
        Declared(
            State.CLOSING,
            "Closing on request: waiting messages go out, unconfirmed ones are awaited, then the connection is closed.",
            timeout=Limit("closing_limit", "the time left for closing", "close_expired"),
            substates=(
                Declared(
                    Closing.DRAINING,
                    "Waiting messages go out, and unconfirmed ones are awaited.",
                    on_enter=(_SEND_WAITING, _DRAIN),
                    timeout=_HALF_TIME,
                    publish="is refused",
                    marks=("sends", "connected", "has_channel"),
                ),
                Declared(
                    Closing.PAUSED,
                    "RabbitMQ is blocking publishing: what waits may still go out if that ends in time.",
                    on_enter=(_DRAIN,),
                    timeout=_HALF_TIME,
                    publish="is refused",
                    marks=("connected", "has_channel"),
                ),
                Declared(
                    Closing.CONFIRMING,
                    "What still waited after half of the time is in the outbox; unconfirmed messages are awaited.",
                    on_enter=(_GIVE_UP_WAITING, _DRAIN),
                    publish="is refused",
                    marks=("connected", "has_channel"),
                ),
                Declared(
                    Closing.CLOSING_CONNECTION,
                    "RabbitMQ has been asked to close the connection.",
                    on_enter=(_GIVE_UP_WAITING, Action("close_connection", "asks RabbitMQ to close the connection")),
                    timeout=Limit("answer_limit", "the time RabbitMQ has to answer", "close_expired"),
                    publish="is refused",
                    marks=("connected",),
                ),
            ),
        ),
        Declared(
            State.CLOSED,
            "There is no connection. Unless it was closed on request, the next attempt is scheduled.",
            on_enter=(Action("drop_connection", "drops the connection and settles unconfirmed messages"),),
            substates=(
                Declared(
                    Closed.RETRYING,
                    "The connection was lost or could not be opened; the next attempt is scheduled.",
                    timeout=Delay("attempt_delay", "the back-off between attempts", "connect"),
                    publish="waits",
                    marks=("outage",),
                ),
                Declared(
                    Closed.STOPPED,
                    "Closed on request; `connect()` opens it again.",
                    on_enter=(_GIVE_UP_WAITING,),
                    on_exit=(Action("forget_reason", "forgets why it was closed"),),
                    publish="is refused",
                    marks=("at_rest",),
                ),
            ),
        ),
    ),
    rows=(
        # Up: the address, a connection, setup, a channel. RabbitMQ may be blocking from the start.
        Row("connect", (_S.IDLE, _S.CLOSED), Connecting.CALLING, conditions="calls"),
        Row("connect", (_S.IDLE, _S.CLOSED), Connecting.OPENING_CONNECTION),
        Row("address_given", (Connecting.CALLING,), Connecting.OPENING_CONNECTION),
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
        # A channel may have missed that another node leads a quorum queue, and nack all messages to it.
        Row("nacks_lasted", (_S.READY,), Connecting.CLOSING_CHANNEL),
        Row("channel_closed", (Connecting.CLOSING_CHANNEL,), Connecting.OPENING_CHANNEL, before=_DROP_CHANNEL),
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
        Row("channel_closed", _DRAINS, Closing.CLOSING_CONNECTION, before=_DROP_CHANNEL),
        Row("close_expired", (_S.CLOSING,), Closed.STOPPED),
        Row("connection_closed", (_S.CLOSING,), Closed.STOPPED),
        Row("stop", (_S.IDLE, _S.CONNECTING, Closed.RETRYING), Closed.STOPPED),
    ),
    ignores=(
        Ignore(("connect",), (_S.CONNECTING, _S.READY, _S.BLOCKED, _S.CLOSING), "the caller gets ConnectionStateError"),
        Ignore(("close",), (_S.IDLE, _S.CONNECTING, _S.CLOSING, _S.CLOSED), "the caller gets ConnectionStateError"),
        Ignore(("stop",), (_S.CLOSING, Closed.STOPPED), "it is closing already, or closed"),
        Ignore(("close_expired",), (_S.IDLE, _S.CONNECTING, _S.READY, _S.BLOCKED, _S.CLOSED), "it was closed in time"),
        Ignore(
            ("connection_blocked", "connection_unblocked"),
            (_S.CONNECTING, Closing.CONFIRMING, Closing.CLOSING_CONNECTION),
            "nothing goes out here; `blocking` is asked before anything does",
        ),
        Ignore(("access_expired",), _DRAINS, "the connection is being closed already"),
        Ignore(("connection_blocked",), (_S.BLOCKED, Closing.PAUSED), "it is one reason more"),
        Ignore(("connection_unblocked",), (_S.READY, Closing.DRAINING), "nothing was blocked"),
        Ignore(("connection_unblocked",), (_S.BLOCKED, Closing.PAUSED), "another reason is left"),
        Ignore(
            ("half_time_over",), (Closing.DRAINING, Closing.PAUSED), "without an outbox, it may go out till the end"
        ),
    ),
)

#: Maps each substate, and each documented state itself, to the documented state.
DOCUMENTED: Final[Mapping[enum.Enum, State]] = {state: State[outer.name] for state, outer in CONNECTION.outer.items()}
