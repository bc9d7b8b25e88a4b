"""The errors that a publish can end with, and those that the client raises.

Existing code catches `AMQPException`, `ConnectionStateError`, `NotReadyError` and `PublishingFailure`; the others are
more specific subclasses of these.
"""

from typing import ClassVar, Final, Self

from .text import LIMIT, SENTENCE_LIMIT, quoted, shown

#: What a handler may do about a message that was not sent: the end of the sentence.
FOR_HANDLERS: Final = ": retry, or answer 503"


class AMQPException(Exception):
    """Base class of this package's own errors.

    A subclass of your own may define with ``fmt`` how its arguments are shown, as in sprockets.mixins.amqp:

    >>> class TooLarge(AMQPException):
    ...     fmt = "{} is too large: {} bytes"
    >>> str(TooLarge("the report", 4711))
    'the report is too large: 4711 bytes'

    Attributes:
        fmt: the format of the arguments; this package's errors have their own sentences instead.
        message_id: the message that the error is about, or None.
        exchange: the exchange that the message was published to, or None.
        routing_key: its routing key, or None.
        may_have_arrived: whether RabbitMQ may have received the message, so that sending it again may duplicate it.
    """

    fmt: ClassVar[str] = "AMQP Exception ({}): {}"
    may_have_arrived: ClassVar[bool] = False
    message_id: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    _sentence = ""

    def __str__(self) -> str:
        if self._sentence:
            return self._sentence
        try:
            return self.fmt.format(*(_harmless(arg) for arg in self.args))
        except Exception:
            # The arguments do not fit fmt: an error can be shown whatever it was made with.
            return " ".join(shown(arg, SENTENCE_LIMIT) for arg in self.args) or type(self).__name__

    @property
    def _subject(self) -> str:
        return (
            f"message {shown(self.message_id)} to exchange {quoted(self.exchange, LIMIT)} "
            f"with routing key {quoted(self.routing_key, LIMIT)}"
        )

    def saying(self, sentence: str) -> Self:
        """Show this sentence instead of the formatted arguments; return the error."""
        self._sentence = shown(sentence, SENTENCE_LIMIT)
        return self

    def about(self, message_id: str | None, exchange: str, routing_key: str) -> Self:
        """Name the message that the error is about; return the error."""
        self.message_id = message_id
        self.exchange = exchange
        self.routing_key = routing_key
        return self


class ConnectionStateError(AMQPException):
    """`Client.connect()` or `Client.close()` was called in a state that does not allow it."""

    fmt = "Attempted to close the connection while {}"


class NotReadyError(AMQPException):
    """The message was not sent: the client did not become ready in time, a limit was reached, or it is closing.

    Trying again later cannot duplicate the message. In a handler, answer 503.
    """

    fmt = "Connection is {} when publishing message {}"


class PublishingFailure(AMQPException):
    """The publish was attempted and was not confirmed; the subclass and `may_have_arrived` say what is known."""

    fmt = "Message {} was not routed to its intended destination ({}, {}): {}"


class InvalidMessage(PublishingFailure, ValueError):
    """An argument of the publish cannot be encoded as AMQP 0-9-1, or RabbitMQ would refuse it; nothing was sent.

    Attributes:
        argument: the argument or property at fault.
    """

    def __init__(self, argument: str = "", problem: str = "") -> None:
        super().__init__(argument, problem)
        self.argument = argument

    def __str__(self) -> str:
        return f"{shown(self.argument)} {shown(self.args[1], SENTENCE_LIMIT)}; the message was not sent"


class ExchangeRefused(PublishingFailure):
    """RabbitMQ refused the exchange the first time it was used on this connection; nothing was sent.

    It does not exist (404), or the user may not write to it (403).

    Attributes:
        reply_code: RabbitMQ's code.
        reply_text: RabbitMQ's words.
    """

    def __init__(self, reply_code: int = 0, reply_text: str = "") -> None:
        super().__init__(reply_code, reply_text)
        self.reply_code = reply_code
        self.reply_text = reply_text

    def __str__(self) -> str:
        return (
            f"RabbitMQ refused exchange {quoted(self.exchange, LIMIT)} ({self.reply_code}): {shown(self.reply_text)}; "
            f"message {shown(self.message_id)} was not sent: declare the exchange, or grant write access to it"
        )


class MessageReturned(PublishingFailure):
    """RabbitMQ had no queue for the message and dropped it (``basic.return``); only with `fail_on_return`.

    Attributes:
        reply_code: RabbitMQ's code, 312 for NO_ROUTE.
        reply_text: RabbitMQ's words.
    """

    may_have_arrived = True

    def __init__(self, reply_code: int = 0, reply_text: str = "") -> None:
        super().__init__(reply_code, reply_text)
        self.reply_code = reply_code
        self.reply_text = reply_text

    def __str__(self) -> str:
        return (
            f"{self._subject} was returned "
            f"({self.reply_code}): {shown(self.reply_text)}; bind a queue, or publish without fail_on_return"
        )


class MessageNacked(PublishingFailure):
    """RabbitMQ did not take responsibility for the message (``basic.nack``): a queue is full or could not store it."""

    may_have_arrived = True

    def __str__(self) -> str:
        return f"{self._subject} was nacked: a queue refused it (full, or failing); try again later"


class OutcomeUnknown(PublishingFailure):
    """The connection or channel was lost, or no confirmation came in time: RabbitMQ may or may not have the message.

    The cause, if known, is chained. Sending it again may duplicate the message: use the same message_id.
    """

    may_have_arrived = True

    def __str__(self) -> str:
        what = shown(self.args[0], SENTENCE_LIMIT) if self.args else "no confirmation"
        return f"{self._subject} is unconfirmed and may have arrived: {what}"


def _harmless(arg: object) -> object:
    """Return an argument for ``fmt``: text made safe to show, anything else as it is."""
    return shown(arg, SENTENCE_LIMIT) if isinstance(arg, str) else arg
