"""What belongs to a message of the outbox while it is in memory."""

import asyncio
from typing import Protocol

from sprockets_amqp.delivery.message import Message
from sprockets_amqp.delivery.publish import Publish
from sprockets_amqp.errors import AMQPException
from sprockets_amqp.observers import OUTCOMES, Delivery, Outcome
from sprockets_amqp.states import Place

from .ledger import Key, Row


class Stocking(Protocol):
    """What is told of what is in line or on the wire."""

    def on_sent(self, entry: "Entry") -> None:
        """Called when it was handed to the transport."""

    def on_end(self, entry: "Entry", copy: Publish, error: AMQPException | None) -> None:
        """Called when it was confirmed, or with what it would end with."""


class Entry(Row):
    """A message in memory.

    Attributes:
        key: its name in the ledger.
        message: the message.
        caller: the publish that ends when it is written; None: that has ended, perhaps in another process.
        error: what that ends with if it cannot be written; None: it waits again.
        deadline: until when it may wait, in the loop's time.
        copy: what is in line or on the wire.
        timer: until it is sent again, if RabbitMQ has nacked it.
    """

    __slots__ = ("caller", "copy", "deadline", "error", "key", "message", "stock", "timer")

    def __init__(
        self,
        stock: "Stocking",
        key: Key,
        message: Message,
        size: int,
        caller: Publish | None = None,
        error: AMQPException | None = None,
        deadline: float = 0.0,
    ) -> None:
        self.size = size
        self.place = Place.ON_DISK if caller is None else Place.NEW
        self.stock = stock
        self.key = key
        self.message = message
        self.caller = caller
        self.error = error
        self.deadline = deadline
        self.copy: Publish | None = None
        self.timer: asyncio.TimerHandle | None = None

    def on_sent(self) -> None:
        """Record that it is on the wire."""
        self.stock.on_sent(self)

    def on_end(self, publish: Publish, error: AMQPException | None, *, on_wire: bool) -> None:
        """Record what became of it there; what is on the wire is waited for."""
        if not on_wire:
            self.stock.on_end(self, publish, error)

    def delivery(self, copy: Publish | None, error: AMQPException | None, now: float) -> Delivery:
        """Return what observers are told: it was confirmed, or set aside with an error."""
        message = self.message
        return Delivery(
            outcome=Outcome.CONFIRMED if error is None else OUTCOMES[type(error)],
            error=error,
            exchange=message.exchange,
            routing_key=message.routing_key,
            message_id=message.message_id,
            size=len(message.body),
            seconds_to_confirm=now - copy.sent_at if copy is not None and error is None else None,
        )
