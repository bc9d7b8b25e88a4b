"""Which exchanges RabbitMQ takes messages for.

A publish to an exchange that does not exist (404), or that the user may not write to (403), closes the channel under
every other message in flight. So the first use of an exchange on a connection is tried on a channel of its own: an
empty message is published there in a transaction that is rolled back (https://www.rabbitmq.com/docs/semantics#tx).
RabbitMQ checks the exchange, the permissions and the user id when it receives the message, and delivers nothing.
"""

import logging
from collections.abc import Callable
from typing import Final

from pika import BasicProperties
from pika.channel import Channel
from pika.connection import Connection
from pika.exceptions import AMQPError, NoFreeChannels

from .errors import reply
from .message import Message

LOGGER = logging.getLogger(__name__)

#: RabbitMQ's reply code when a user's max-channels is reached, which closes the connection (AMQP 0-9-1, NOT_ALLOWED).
NOT_ALLOWED: Final = 530

#: Called with None when RabbitMQ takes such messages, else with its reply code and text.
Answer = Callable[[tuple[int, str] | None], None]


class Exchanges:
    """What one connection knows of its exchanges; one question at a time. Unchecked, it takes all for granted."""

    def __init__(self, connection: Connection, *, unchecked: bool = False) -> None:
        self._connection = connection
        self._unchecked = unchecked
        self._channel: Channel | None = None
        self._opening = False
        #: By exchange and user_id.
        self._known: set[tuple[str, str | None]] = {("", None)}
        self._asked: Message | None = None
        self._on_answer: Answer | None = None

    def knows(self, message: Message) -> bool:
        """Tell whether RabbitMQ took a message like this before: to its exchange, in the name of its user id."""
        return (message.exchange, message.user_id) in self._known or self._unchecked

    def denied_by(self, cause: BaseException | None) -> bool:
        """Tell whether the connection was closed because RabbitMQ allows no channel for questions on it."""
        return self._opening and getattr(cause, "reply_code", 0) == NOT_ALLOWED

    def forget(self) -> None:
        """Know nothing any more: RabbitMQ closed the publishing channel, so something has changed."""
        self._known = {("", None)}
        if self._asked is not None:
            # Nobody waits for this answer any more, and none of it must be taken for the answer to the next question.
            self._asked = self._on_answer = None
            self._close_channel()

    def ask(self, message: Message, on_answer: Answer) -> None:
        """Ask RabbitMQ whether it would take the message. No answer comes when the connection is lost meanwhile."""
        self._asked, self._on_answer = message, on_answer
        if self._channel is not None and self._channel.is_open:
            self._try_message(self._channel)
            return
        try:
            channel = self._connection.channel(on_open_callback=self._select_transactions)
        except NoFreeChannels:
            LOGGER.warning("RabbitMQ allows no second channel: exchange %r is used unchecked", message.exchange)
            self._answer(message, None)
        else:
            channel.add_on_close_callback(self._on_channel_closed)
            self._channel = channel
            self._opening = True

    def _select_transactions(self, channel: Channel) -> None:
        self._opening = False
        channel.tx_select(callback=lambda _frame: self._try_message(channel))

    def _try_message(self, channel: Channel) -> None:
        message = self._asked
        if message is None or channel is not self._channel:
            return
        properties = BasicProperties(user_id=message.user_id)
        try:
            channel.basic_publish(message.exchange, message.routing_key, b"", properties)
            channel.tx_rollback(callback=lambda _frame: self._answer(message, None))
        except AMQPError as error:
            LOGGER.debug("asking about exchange %r: %r", message.exchange, error)

    def _close_channel(self) -> None:
        channel, self._channel = self._channel, None
        self._opening = False
        if channel is None:
            return
        try:
            channel.close()
        except AMQPError as error:
            LOGGER.debug("closing %s: %r", channel, error)

    def _on_channel_closed(self, channel: Channel, error: Exception) -> None:
        if channel is self._channel:
            self._channel = None
            if self._connection.is_open and self._asked is not None:
                self._answer(self._asked, reply(error))

    def _answer(self, message: Message, refusal: tuple[int, str] | None) -> None:
        if message is not self._asked or self._on_answer is None:
            # The question was given up with the publishing channel.
            return
        on_answer = self._on_answer
        self._asked = self._on_answer = None
        if refusal is None:
            self._known.add((message.exchange, message.user_id))
        on_answer(refusal)
