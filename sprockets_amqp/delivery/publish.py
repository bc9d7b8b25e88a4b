"""A publish: a message on its way to one end."""

import asyncio
import itertools
from typing import Any, Final, Protocol

from sprockets_amqp.errors import FOR_HANDLERS, AMQPException, ExchangeRefused, NotReadyError, OutcomeUnknown

from .message import Message

#: What a publish ends with: None, or `STORED`. Existing code has ``Future[None]``, which is right without an outbox.
Result = Any
#: The result of a publish that is on disk, in the outbox: it is sent when RabbitMQ accepts messages again.
STORED: Final = "stored"

#: Publishes are numbered in their order, in the whole process.
_numbers: Final = itertools.count(1)


class Kept(Protocol):
    """What is told of a publish whose message is kept elsewhere, and comes again if it is lost.

    Attributes:
        caller: the publish that waits until it is kept; None: none does.
    """

    caller: "Publish | None"

    def on_sent(self) -> None:
        """Called when it was handed to the transport."""

    def on_end(self, publish: "Publish", error: AMQPException | None, *, on_wire: bool) -> None:
        """Called when it was confirmed, or with what it would end with; ``on_wire``: it may be confirmed yet."""


class Publish:
    """One call of ``publish()``, or one reading of a kept message: the message, and how far it has got.

    Attributes:
        message: what goes on the wire.
        future: done when nobody waits for it any more.
        number: its place among all publishes.
        kept: what is told of its end, in place of the caller.
        timer: limits how long it waits in line.
        sent_at: the loop's time at which it was handed to the transport; 0 until then.
        blamed: how often RabbitMQ closed the channel while this was unconfirmed.
        returned: reply code and text of RabbitMQ's basic.return.
    """

    __slots__ = ("blamed", "future", "kept", "message", "number", "returned", "sent_at", "timer")

    def __init__(self, message: Message, future: "asyncio.Future[Result]", kept: Kept | None = None) -> None:
        self.message = message
        self.future = future
        self.number = next(_numbers)
        self.kept = kept
        self.timer: asyncio.TimerHandle | None = None
        self.sent_at = 0.0
        self.blamed = 0
        self.returned: tuple[int, str] | None = None

    def renumber(self) -> None:
        """Take the last place among all publishes: the present one may be taken on the disk."""
        self.number = next(_numbers)

    @property
    def waits(self) -> bool:
        """Whether its caller waits for its end."""
        return self.kept is None and not self.future.done()

    def refused(self, reply_code: int, reply_text: str) -> AMQPException:
        """Return the error for an exchange that RabbitMQ refuses; what was sent before may be in a queue."""
        if not self.sent_at:
            return ExchangeRefused(reply_code, reply_text)
        said = f"({reply_code}) {reply_text}"
        return OutcomeUnknown(f"it was sent, and the connection was lost; then RabbitMQ refused the exchange: {said}")

    def given_up(self, why: str) -> AMQPException:
        """Return the error for a publish that may not wait any longer."""
        if self.sent_at:
            return OutcomeUnknown(f"it was sent, and the connection was lost; then {why}")
        return NotReadyError(f"{why}; message {self.message.message_id} was not sent{FOR_HANDLERS}")

    def __repr__(self) -> str:
        return f"<Publish {self.number} of {self.message!r}>"
