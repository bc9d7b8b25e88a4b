"""The exchange check, declared: whether RabbitMQ accepts messages for an exchange, before one is sent.

A publish to an exchange that does not exist, or that the user may not write to, closes the channel under every other
message in flight. So an empty message is published first, on a channel of its own, in a transaction that is rolled back
(https://www.rabbitmq.com/docs/semantics#tx). The channel stays open for the next check, unless RabbitMQ refuses the
message: then it closes the channel, and says why.

The mark of its states: ``on_wire``, RabbitMQ may be handling the empty message.
"""

from typing import Final

from .vocabulary import Action, Declared, Follow, Ignore, Limit, Machine, Name, Row


class Check(Name):
    """What the channel for checks is doing."""

    NONE = "no channel"
    RUNNING = "running"
    IDLE = "idle"
    LEAVING = "leaving"
    UNAVAILABLE = "unavailable"


class Running(Name):
    """How far a check has got."""

    WAITING = "waiting"
    OPENING = "opening"
    SELECTING = "selecting"
    CHECKING = "checking"


_TELL_UNCHECKED: Final = Action("tell_unchecked", "warns that this exchange is used unchecked")
_TELL_UNANSWERED: Final = Action("tell_unanswered", "reports that RabbitMQ did not answer")
_TELL_UNAVAILABLE: Final = Action("tell_unavailable", "warns that exchanges are used unchecked")

CHECK: Final = Machine(
    "check",
    initial=Check.NONE,
    follows=(Follow("has_channel", left="publishing_ended"), Follow("connected", left="connection_ended")),
    states=(
        Declared(Check.NONE, "There is no channel for checks; the next check opens one."),
        Declared(
            Check.RUNNING,
            "An exchange is being checked.",
            on_exit=(Action("forget_message", "forgets the message"),),
            timeout=Limit("check_limit", "the time RabbitMQ has to answer", "check_expired"),
            substates=(
                Declared(
                    Running.WAITING,
                    "The last channel is still being closed: until then it counts towards RabbitMQ's limit.",
                ),
                Declared(
                    Running.OPENING,
                    "A channel is being opened.",
                    on_enter=(Action("open_channel", "opens a channel"),),
                ),
                Declared(
                    Running.SELECTING,
                    "The channel is being put into transaction mode.",
                    on_enter=(Action("select_transactions", "sends tx.select"),),
                ),
                Declared(
                    Running.CHECKING,
                    "An empty message was published and rolled back; RabbitMQ has not answered yet.",
                    on_enter=(Action("send_message", "publishes an empty message and rolls it back"),),
                    marks=("on_wire",),
                ),
            ),
        ),
        Declared(Check.IDLE, "The channel is open, in transaction mode, and ready for the next check."),
        Declared(
            Check.LEAVING,
            "A channel that is not needed any more is being closed.",
            on_enter=(Action("leave_channel", "closes the channel"),),
        ),
        Declared(
            Check.UNAVAILABLE,
            "RabbitMQ allows no second channel, or knows no transactions: exchanges are used unchecked.",
        ),
    ),
    rows=(
        Row("check_requested", (Check.NONE,), Running.OPENING),
        Row("check_requested", (Check.IDLE,), Running.CHECKING),
        Row("check_requested", (Check.LEAVING,), Running.WAITING),
        Row("channel_opened", (Running.OPENING,), Running.SELECTING),
        Row("transactions_selected", (Running.SELECTING,), Running.CHECKING),
        Row(
            "message_accepted",
            (Running.CHECKING,),
            Check.IDLE,
            before=Action("tell_accepted", "reports that RabbitMQ accepts it"),
        ),
        Row(
            "channel_closed",
            (Running.CHECKING,),
            Check.NONE,
            before=Action("tell_refused", "reports why RabbitMQ refuses it"),
        ),
        Row("channel_closed", (Check.IDLE,), Check.NONE),
        # There may be room for one channel less than the user needs, for good or until the last one is closed.
        Row("channel_missing", (Running.OPENING,), Running.WAITING, conditions="leaves_channel"),
        Row("channel_missing", (Running.OPENING,), Check.NONE, before=_TELL_UNCHECKED),
        Row("old_channel_closed", (Running.WAITING,), Running.OPENING),
        Row("old_channel_closed", (Check.LEAVING,), Check.NONE),
        # Nothing was checked that could be refused.
        Row("channel_closed", (Running.OPENING, Running.SELECTING), Check.NONE, before=_TELL_UNCHECKED),
        # RabbitMQ, or a proxy, refuses the channel or transactions. That may cost this connection, but no other.
        Row("channels_denied", (Running.OPENING,), Check.UNAVAILABLE, before=_TELL_UNAVAILABLE),
        Row("transactions_denied", (Running.SELECTING,), Check.UNAVAILABLE, before=_TELL_UNAVAILABLE),
        Row(
            "check_requested",
            (Check.UNAVAILABLE,),
            Check.UNAVAILABLE,
            before=Action("skip_check", "reports that the exchange is used unchecked"),
        ),
        Row(
            "check_expired",
            (Running.OPENING, Running.SELECTING, Running.CHECKING),
            Check.LEAVING,
            before=_TELL_UNANSWERED,
        ),
        # The old channel is not closed in time: the next check does without that.
        Row("check_expired", (Running.WAITING,), Check.NONE, before=_TELL_UNANSWERED),
        # The publishing channel or the connection was lost: nobody waits for this answer any more.
        Row("publishing_ended", (Check.RUNNING,), Check.LEAVING),
        Row("connection_ended", (Check.IDLE, Check.LEAVING), Check.NONE),
    ),
    ignores=(
        Ignore(
            ("old_channel_closed",),
            (Check.NONE, Running.OPENING, Running.SELECTING, Running.CHECKING, Check.IDLE, Check.UNAVAILABLE),
            "no check waits for it",
        ),
    ),
)
