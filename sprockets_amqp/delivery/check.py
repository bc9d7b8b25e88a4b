"""The exchange check: the model of the machine that `states/check.py` declares, on a channel of its own."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from pika import BasicProperties
from pika.channel import Channel
from pika.exceptions import AMQPError, NoFreeChannels
from transitions import EventData

from sprockets_amqp.bounded_log import BoundedLog, named
from sprockets_amqp.model import Model, Timeout, Trigger
from sprockets_amqp.states import CHECK, Check, Running
from sprockets_amqp.wire.replies import NOT_ALLOWED, NOT_IMPLEMENTED, describe, reply

from .message import Message
from .surroundings import Wire

LOGGER = logging.getLogger(__name__)

#: Seconds that RabbitMQ may take to answer; after that the exchange is checked again if that is still needed.
CHECK_LIMIT: Final = 5.0
#: Exchanges of the type x-recent-history keep each message at once, whatever becomes of its transaction, but for those
#: with this header (https://www.rabbitmq.com/docs/3.13/plugins#plugin-list, rabbitmq_recent_history_exchange).
KEEP_NOTHING: Final = {"x-recent-history-no-store": True}


class Answer(NamedTuple):
    """What RabbitMQ said: its refusal, if it refuses the message; whether it answered in time, and could be asked."""

    refusal: tuple[int, str] | None = None
    in_time: bool = True
    checked: bool = True


class CheckModel(Model):
    """The model: one check at a time, answered in a later iteration of the event loop."""

    machine = CHECK
    state: Check | Running
    # Added by the declaration; tests/test_states.py keeps the two in step.
    check_requested: Trigger
    channel_opened: Trigger
    transactions_selected: Trigger
    message_accepted: Trigger
    channel_closed: Trigger
    channel_missing: Trigger
    old_channel_closed: Trigger
    channels_denied: Trigger
    transactions_denied: Trigger
    check_expired: Trigger
    publishing_ended: Trigger
    connection_ended: Trigger

    def __init__(self, wire: Wire, loop: asyncio.AbstractEventLoop, name: str, *, limit: float = CHECK_LIMIT) -> None:
        super().__init__(loop, name)
        self._wire = wire
        self._limit_in_seconds = limit
        self._log = BoundedLog(named(LOGGER, name), loop.time)
        #: The channel for checks, and an earlier one that is being closed.
        self._channel: Channel | None = None
        self._old: Channel | None = None
        #: The message that is checked, its further headers, and what the answer is reported to.
        self._message: Message | None = None
        self._headers: Mapping[str, Any] = {}
        self._on_answer: Callable[[Answer], object] | None = None

    # Queries

    @property
    def on_wire(self) -> bool:
        """Whether RabbitMQ may be handling the empty message: a connection that is lost now may be lost over it."""
        return "on_wire" in self.declared.marks

    @property
    def leaves_channel(self) -> bool:
        """Whether an earlier channel of this connection has not been closed yet."""
        return self._old is not None and self._old.connection is self._wire.connection

    # Verbs

    def check(self, message: Message, headers: Mapping[str, Any], on_answer: Callable[[Answer], object]) -> None:
        """Check whether RabbitMQ accepts such a message: its exchange, permissions (with routing keys) and user id.

        ``on_answer`` is not called if the publishing channel or the connection is lost first.

        Args:
            message: what is to be published; its body is not sent.
            headers: headers that the exchange needs, besides those that hold routing keys.
            on_answer: receives the answer.
        """
        self._message, self._headers, self._on_answer = message, headers, on_answer
        self.feed(self.check_requested)

    def _answer(self, refusal: tuple[int, str] | None = None, *, in_time: bool = True, checked: bool = True) -> None:
        if self._on_answer is not None:
            # Deferred: pika has not yet released the number of a channel that a refusal closed, and the next check
            # needs it.
            self._loop.call_soon(self._on_answer, Answer(refusal, in_time, checked))

    # What is declared

    def check_limit(self, _event: EventData) -> Timeout:
        """Return how long RabbitMQ may take."""
        return self._limit_in_seconds, ""

    def open_channel(self, _event: EventData) -> None:
        """Open a channel."""
        connection = self._wire.connection
        assert connection is not None
        try:
            self._channel = channel = connection.channel(on_open_callback=self._on_channel_open)
        except NoFreeChannels:
            self.schedule(self.state, 0, self.channel_missing)
        except AMQPError as error:
            # The connection is closing, and the check ends with it.
            self._log.log(logging.DEBUG, "checking exchange %r: %r", self._exchange, error)
        else:
            channel.add_on_close_callback(self._on_channel_closed)

    def select_transactions(self, _event: EventData) -> None:
        """Put the channel into transaction mode."""
        assert self._channel is not None
        channel = self._channel
        channel.tx_select(callback=lambda _frame: self._feed(channel, self.transactions_selected))

    def send_message(self, _event: EventData) -> None:
        """Publish an empty message and roll it back."""
        channel, message = self._channel, self._message
        assert channel is not None and message is not None
        headers = {**self._headers, **{name: list(routes) for name, routes in message.copies}, **KEEP_NOTHING}
        properties = BasicProperties(headers=headers, user_id=message.user_id)
        try:
            # Not the channel's own attribute, which instrumentation may have replaced: this is not a message.
            Channel.basic_publish(channel, message.exchange, message.routing_key, b"", properties)
            channel.tx_rollback(callback=lambda _frame: self._feed(channel, self.message_accepted))
        except AMQPError as error:
            self._log.log(logging.DEBUG, "checking exchange %r: %r", message.exchange, error)

    def leave_channel(self, _event: EventData) -> None:
        """Close the channel: until it is closed, it keeps its number and counts towards RabbitMQ's limit."""
        channel, self._channel = self._channel, None
        if channel is not None:
            try:
                channel.close()
            except AMQPError as error:
                self._log.log(logging.DEBUG, "closing %s: %r", channel, error)
            else:
                self._old = channel
        if self._old is None:
            self.schedule(self.state, 0, self.old_channel_closed)

    def tell_accepted(self, _event: EventData) -> None:
        """Report that RabbitMQ accepts the message."""
        self._answer()

    def tell_refused(self, event: EventData) -> None:
        """Report why RabbitMQ refuses the message."""
        self._answer(reply(event.kwargs["cause"]))

    def tell_unanswered(self, _event: EventData) -> None:
        """Report that RabbitMQ did not answer in time."""
        self._answer(in_time=False)

    def tell_unchecked(self, event: EventData) -> None:
        """Warn that this exchange is not checked, and report as if RabbitMQ accepted the message."""
        cause = event.kwargs.get("cause")
        why = f"closed the channel of a check: {describe(cause)}" if cause is not None else "allows no second channel"
        self._log.log(logging.WARNING, "RabbitMQ %s: exchange %r is used unchecked", why, self._exchange)
        self._answer(checked=False)

    def skip_check(self, event: EventData) -> None:
        """Report as if RabbitMQ accepted the message."""
        self._answer(checked=False)
        self.forget_message(event)

    def tell_unavailable(self, event: EventData) -> None:
        """Warn that nothing is checked from now on."""
        self._log.log(
            logging.WARNING,
            "RabbitMQ %s: exchanges are used unchecked",
            "allows this user no second channel"
            if event.event.name == "channels_denied"
            else "has refused a transaction, with which exchanges are checked",
        )
        self._answer(checked=False)

    def forget_message(self, _event: EventData) -> None:
        """Forget the message and who waits for the answer."""
        self._message, self._headers, self._on_answer = None, {}, None

    @property
    def _exchange(self) -> str:
        return self._message.exchange if self._message is not None else ""

    # pika's events

    def _on_channel_open(self, channel: Channel) -> None:
        self._feed(channel, self.channel_opened)

    def _on_channel_closed(self, channel: Channel, error: BaseException) -> None:
        if channel is self._old:
            self._old = None
            # Deferred: pika has not released the channel's number yet.
            self._loop.call_soon(self.feed, self.old_channel_closed)
        elif channel is self._channel:
            self._channel = None
            denied = {NOT_ALLOWED: "channels_denied", NOT_IMPLEMENTED: "transactions_denied"}
            name = denied.get(reply(error)[0], "")
            if self.knows(name):
                self.feed(getattr(self, name), cause=error)
            elif channel.connection.is_open:
                self.feed(self.channel_closed, cause=error)

    def _feed(self, channel: Channel, trigger: Trigger) -> None:
        if channel is self._channel:
            self.feed(trigger)
