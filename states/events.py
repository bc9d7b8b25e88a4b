"""What may happen in the world, declared: when, what it changes, and which machine learns of it.

What cannot happen is impossible because an event's ``when`` says so. What must come about at last may rely on some
kinds of events, and not on others:

- a *request* comes from the application, or not at all;
- an *answer* comes at last, when nothing is wrong;
- a *fault* may come at any time, and stops when nothing is wrong any more;
- what comes *soon* is scheduled by the client itself, for the loop's next turn;
- a *delay* is over at last: a state's time after which the next thing is due;
- a *limit* is over when an answer does not come in time.

Delays and limits are the timeouts of states, which may expire while the state lasts. They need not be declared again.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from .check import Check, Running
from .connection import Connecting, State
from .effects import ends_waiting, stores, waits_no_longer
from .outbox import Outbox
from .renewal import Renewal
from .world import Changes, Condition, Files, Lane, Line, Publish, World

Kind = Literal["request", "answer", "fault", "soon", "delay", "limit"]


@dataclass(frozen=True, eq=False)
class Event:
    """Something that may happen.

    Attributes:
        kind: what may be relied on: see above.
        words: what it is, in words.
        learns: the machine that learns of it, and the trigger that it pulls there; empty: it only changes the world.
        when: when it may happen.
        then: what it changes, before the trigger is pulled; a request for which there is no row changes nothing.
        assumes: what guards answer when it happens so.
    """

    kind: Kind
    words: str
    learns: str
    when: Condition
    then: Changes | Callable[[World], Changes] = field(default_factory=dict)
    assumes: Mapping[str, bool] = field(default_factory=dict)

    @functools.cached_property
    def machine(self) -> str:
        """The machine that learns of it."""
        return self.learns.partition(".")[0]

    @functools.cached_property
    def trigger(self) -> str:
        """The trigger that it pulls."""
        return self.learns.partition(".")[2]


def _always(_now: World) -> bool:
    return True


def _calls(now: World) -> bool:
    return now.called and now.connection is Connecting.CALLING


def _calls_again(now: World) -> bool:
    return now.called and now.renewal is Renewal.CALLING


def _is_opening(now: World) -> bool:
    return now.link is Line.OPENING


def _is_up(now: World) -> bool:
    return now.link is Line.OPEN


def _is_heard(now: World) -> bool:
    return now.link in {Line.OPEN, Line.CLOSING}


def _is_opening_channel(now: World) -> bool:
    return _is_up(now) and now.channel is Line.OPENING


def _has_channel(now: World) -> bool:
    return _is_up(now) and now.channel is Line.OPEN


def _may_lose_channel(now: World) -> bool:
    return _is_opening_channel(now) or _has_channel(now)


def _is_stopped_flow(now: World) -> bool:
    return _has_channel(now) and now.blocks


def _has_expired(now: World) -> bool:
    return _has_channel(now) and now.expires


def _is_on_wire(now: World) -> bool:
    return now.channel is Line.OPEN and now.publish in {Publish.SENT, Publish.ANSWERED, Publish.KEPT}


def _opens_files(now: World) -> bool:
    return now.files is Files.OPEN and now.outbox in {Outbox.OPENING, Outbox.FULL, Outbox.FAILING}


def _reopens_files(now: World) -> bool:
    return now.files is Files.REOPENING and now.outbox in {Outbox.OPENING, Outbox.FULL, Outbox.FAILING}


def _has_closed_files(now: World) -> bool:
    return now.given and now.files is Files.NONE


def _looks_again(now: World) -> bool:
    return now.files is not Files.NONE and now.outbox not in {Outbox.OPENING, Outbox.FULL, Outbox.FAILING}


def _has_backlog(now: World) -> bool:
    return now.holds and now.outbox in {Outbox.HOLDING, Outbox.FULL}


def _sends_stored(now: World) -> bool:
    return _has_backlog(now) and now.files is Files.OPEN and now.wanted and now.could_send


def _is_sent_off(now: World) -> bool:
    return not now.holds and now.outbox in {Outbox.HOLDING, Outbox.FULL}


def _may_begin_backlog(now: World) -> bool:
    return now.files is Files.OPEN and now.outbox in {Outbox.CLEAR, Outbox.FAILING}


def _stores_first(now: World) -> bool:
    return now.outcome == "is stored" and not now.holds and now.outbox is not Outbox.CLEAR


def _may_ask(now: World) -> bool:
    return now.sends and now.could_send and now.check in {Check.NONE, Check.IDLE, Check.LEAVING, Check.UNAVAILABLE}


def _lane(*lanes: Lane) -> Condition:
    return lambda now: _is_up(now) and now.lane in lanes


def _publishes(now: World) -> bool:
    return now.publish is Publish.NONE and now.outcome in _PUBLISHED


_PUBLISHED: Final = {"goes out": Publish.SENT, "waits": Publish.WAITING}
_CUT: Final = {"channel": Line.LOST}
_LOST: Final = {"link": Line.LOST, "channel": Line.LOST, "blocks": False}
_GIVEN: Final = {"called": False, "expires": True}
_GIVEN_FOR_GOOD: Final = {"called": False, "expires": False}
_SAME_USER: Final = {"sendable": True}
_OTHER_USER: Final = {"sendable": False}

#: The application, and what it is asked for.
_APPLICATION: Final = (
    Event("request", "the application connects", "connection.connect", _always, {"wanted": True}),
    Event("request", "the application closes", "connection.close", _always, {"wanted": False}),
    Event(
        "request",
        "the application shuts down",
        "connection.stop",
        lambda now: now.connection not in {State.READY, State.BLOCKED},
        {"wanted": False},
    ),
    Event(
        "request",
        "shutting down may take no longer",
        "connection.close_expired",
        _always,
    ),
    Event("request", "a message is published", "", _publishes, lambda now: {"publish": _PUBLISHED[now.outcome]}),
    Event(
        "limit",
        "the publish may wait no longer",
        "",
        lambda now: now.publish is Publish.WAITING,
        ends_waiting,
    ),
    Event(
        "limit",
        "the confirm may take no longer",
        "",
        lambda now: now.publish is Publish.SENT,
        waits_no_longer,
    ),
    Event("answer", "the function returns a URL", "connection.address_given", _calls, _GIVEN_FOR_GOOD),
    Event("answer", "the function returns credentials that expire", "connection.address_given", _calls, _GIVEN),
    Event("fault", "the function raises", "connection.connection_failed", _calls, {"called": False}),
    Event("answer", "`setup` returns", "connection.setup_done", lambda now: now.setup, {"setup": False}),
    Event("fault", "`setup` raises", "connection.connection_failed", lambda now: now.setup, {"setup": False}),
    Event(
        "answer", "the function returns a new password", "renewal.credentials_given", _calls_again, _GIVEN, _SAME_USER
    ),
    Event(
        "answer",
        "the function returns a password that does not expire",
        "renewal.credentials_given",
        _calls_again,
        _GIVEN_FOR_GOOD,
        _SAME_USER,
    ),
    Event(
        "answer", "the function returns another user", "renewal.credentials_given", _calls_again, _GIVEN, _OTHER_USER
    ),
    Event(
        "answer",
        "the function returns another user, whose password does not expire",
        "renewal.credentials_given",
        _calls_again,
        _GIVEN_FOR_GOOD,
        _OTHER_USER,
    ),
    Event("fault", "the function raises, called again", "renewal.renewal_failed", _calls_again, {"called": False}),
)

#: RabbitMQ and the network, on the connection and the channel to publish on.
_RABBITMQ: Final = (
    Event(
        "answer", "RabbitMQ accepts the connection", "connection.connection_opened", _is_opening, {"link": Line.OPEN}
    ),
    Event("fault", "the node is not reached", "connection.connection_failed", _is_opening, {"link": Line.LOST}),
    Event(
        "fault",
        "RabbitMQ refuses the login",
        "connection.connection_failed",
        _is_opening,
        {"link": Line.LOST},
        {"retries_node": False},
    ),
    Event("fault", "the connection is lost", "connection.connection_closed", _is_up, _LOST),
    Event(
        "answer",
        "RabbitMQ answers that the connection is closed",
        "connection.connection_closed",
        lambda now: now.link is Line.CLOSING,
        _LOST,
    ),
    Event("fault", "RabbitMQ blocks publishing", "connection.connection_blocked", _is_heard, {"blocks": True}),
    Event("answer", "RabbitMQ blocks no longer", "connection.connection_unblocked", _is_heard, {"blocks": False}),
    Event("request", "of two reasons to block, one is left", "connection.connection_unblocked", _is_stopped_flow),
    Event(
        "answer",
        "RabbitMQ opens the channel",
        "connection.channel_opened",
        _is_opening_channel,
        {"channel": Line.OPEN},
    ),
    Event("fault", "the channel cannot be opened", "connection.connection_failed", _is_opening_channel, _CUT),
    Event(
        "fault",
        "RabbitMQ closes the channel",
        "connection.channel_closed",
        _may_lose_channel,
        _CUT,
        {"expired": False},
    ),
    Event(
        "fault",
        "RabbitMQ closes the channel, whose flow it had stopped",
        "connection.channel_closed",
        _is_stopped_flow,
        {**_CUT, "blocks": False},
        {"expired": False},
    ),
    Event(
        "fault",
        "RabbitMQ closes the channel, as the credentials have expired",
        "connection.channel_closed",
        _has_expired,
        _CUT,
        {"expired": True},
    ),
    Event(
        "fault",
        "RabbitMQ refuses an exchange, as the credentials have expired",
        "connection.access_expired",
        _has_expired,
    ),
    Event(
        "limit",
        "RabbitMQ has nacked for long, and nothing is unconfirmed",
        "connection.nacks_lasted",
        lambda now: _has_channel(now) and now.sends and now.wanted and now.publish is Publish.NONE,
    ),
    Event(
        "answer",
        "RabbitMQ answers that the channel is closed",
        "connection.channel_closed",
        lambda now: _is_up(now) and now.channel is Line.CLOSING,
        _CUT,
        {"expired": False},
    ),
    Event("answer", "RabbitMQ confirms the message", "", _is_on_wire, {"publish": Publish.NONE}),
    Event(
        "soon",
        "nothing waits, and all is confirmed",
        "connection.drained",
        lambda now: now.drains and now.publish is Publish.NONE,
        {"drains": False},
    ),
    Event(
        "answer",
        "RabbitMQ accepts the new password",
        "renewal.secret_accepted",
        lambda now: now.secret and _is_up(now),
        {"secret": False},
    ),
    Event(
        "answer",
        "RabbitMQ accepts the new password before it closes the connection",
        "renewal.secret_accepted",
        lambda now: now.secret and now.link is Line.CLOSING,
        {"secret": False},
    ),
)

#: The disk, and what is stored on it.
_DISK: Final = (
    Event(
        "answer",
        "the files are open, and hold messages",
        "outbox.files_opened",
        _opens_files,
        {"holds": True, "pends": False},
    ),
    Event(
        "answer",
        "the files are open, and hold none",
        "outbox.files_opened",
        _opens_files,
        # What was kept meanwhile is written.
        lambda now: {"holds": now.pends, "pends": False},
    ),
    Event(
        "answer",
        "the files had not been closed yet, and hold messages",
        "outbox.files_opened",
        _reopens_files,
        {"files": Files.OPEN, "holds": True, "pends": False},
    ),
    Event(
        "answer",
        "the files had not been closed yet, and hold none",
        "outbox.files_opened",
        _reopens_files,
        lambda now: {"files": Files.OPEN, "holds": now.pends, "pends": False},
    ),
    Event("answer", "the files were looked at again", "outbox.files_opened", _looks_again),
    Event(
        "fault",
        "the disk fails",
        "outbox.disk_failed",
        lambda now: now.files is Files.OPEN,
        lambda now: {"holds": now.holds or now.pends, "pends": False},
    ),
    Event(
        "fault",
        "the disk fails, and with it what was to be written",
        "outbox.disk_failed",
        lambda now: now.files is Files.OPEN and now.pends,
        {"pends": False},
    ),
    Event(
        "fault",
        "the disk does not answer",
        "outbox.disk_failed",
        lambda now: now.files in {Files.CLOSING, Files.REOPENING} or now.pends,
        # What was to be written is given up.
        {"pends": False},
    ),
    Event(
        "fault",
        "the disk failed to write what was stored last",
        "outbox.disk_failed",
        lambda now: now.files is Files.REOPENING and now.holds,
        {"holds": False, "pends": False},
    ),
    Event(
        "fault",
        "what is to be written has no room",
        "outbox.disk_failed",
        lambda now: now.files is Files.REOPENING and now.pends,
    ),
    Event(
        "fault",
        "the disk can be read, but not written",
        "outbox.disk_failed",
        lambda now: now.files is Files.OPEN and now.outbox is Outbox.OPENING,
        {"holds": True, "pends": False},
    ),
    Event(
        "request",
        "a message is stored, or a stored one that was sent is lost",
        "outbox.backlog_began",
        _may_begin_backlog,
        {"holds": True},
    ),
    Event("request", "another message is stored", "", _stores_first, stores),
    Event("answer", "the last stored message is sent", "", _sends_stored, {"holds": False}),
    Event(
        "request",
        "what is stored is dropped by hand",
        "",
        lambda now: _has_backlog(now) and now.files is Files.OPEN and not _sends_stored(now),
        {"holds": False},
    ),
    Event("soon", "no stored message is left to send", "outbox.backlog_ended", _is_sent_off),
    Event("request", "none was left to send, and another is stored", "outbox.backlog_ended", _has_backlog),
    Event(
        "answer",
        "the files are closed",
        "outbox.files_closed",
        lambda now: now.files is Files.CLOSING,
        {"files": Files.NONE},
    ),
    Event(
        "fault",
        "the disk failed when the files were closed",
        "outbox.disk_failed",
        _has_closed_files,
    ),
    Event(
        "request",
        "the files were closed and opened, and closed again",
        "outbox.files_closed",
        _has_closed_files,
    ),
    Event(
        "request",
        "shutting down may wait for the disk no longer",
        "outbox.files_closed",
        lambda now: now.outbox is Outbox.FINISHING,
    ),
    Event(
        "answer",
        "the files are closed, and opened again",
        "outbox.files_closed",
        lambda now: now.files is Files.REOPENING,
        {"files": Files.OPEN},
    ),
)

#: The channel for checks.
_CHECKS: Final = (
    Event("request", "an exchange is used for the first time", "check.check_requested", _may_ask, {"asked": True}),
    Event(
        "answer",
        "RabbitMQ opens the channel for checks",
        "check.channel_opened",
        _lane(Lane.OPENING),
        {"lane": Lane.OPEN},
    ),
    Event(
        "soon",
        "pika has no number left for another channel",
        "check.channel_missing",
        lambda now: now.lane is Lane.MISSING,
        {"lane": Lane.NONE},
    ),
    Event(
        "fault",
        "RabbitMQ allows no second channel",
        "check.channels_denied",
        _lane(Lane.OPENING),
        {"lane": Lane.NONE},
    ),
    Event(
        "answer",
        "RabbitMQ selects transactions",
        "check.transactions_selected",
        _lane(Lane.SELECTING),
        {"lane": Lane.OPEN},
    ),
    Event(
        "fault",
        "RabbitMQ knows no transactions",
        "check.transactions_denied",
        _lane(Lane.SELECTING),
        {"lane": Lane.NONE},
    ),
    Event(
        "answer",
        "RabbitMQ accepts the empty message",
        "check.message_accepted",
        _lane(Lane.CHECKING),
        {"lane": Lane.OPEN},
    ),
    Event(
        "fault",
        "RabbitMQ closes the channel for checks",
        "check.channel_closed",
        _lane(Lane.OPENING, Lane.OPEN, Lane.SELECTING, Lane.CHECKING),
        {"lane": Lane.NONE},
    ),
    Event(
        "answer",
        "the earlier channel for checks is closed",
        "check.old_channel_closed",
        lambda now: now.old,
        {"old": False},
    ),
    Event(
        "fault",
        "the earlier channel for checks was closed, and then the connection was lost",
        "check.old_channel_closed",
        lambda now: now.check is Check.NONE and not now.has("connected"),
    ),
    Event(
        "soon",
        "there is no earlier channel for checks",
        "check.old_channel_closed",
        lambda now: now.check in {Check.LEAVING, Running.WAITING} and not now.old,
    ),
)

EVENTS: Final = (*_APPLICATION, *_RABBITMQ, *_DISK, *_CHECKS)
