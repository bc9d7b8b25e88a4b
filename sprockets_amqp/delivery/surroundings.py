"""Whom the publisher asks: the lifecycle, whether a message may go out, and the outbox, whether one is kept."""

from typing import Protocol

from sprockets_amqp.errors import AMQPException

from .message import Message


class Gate(Protocol):
    """What the publisher asks the lifecycle."""

    @property
    def publishable(self) -> bool:
        """Whether a message may go out now."""

    @property
    def goes_out(self) -> bool:
        """Whether what is published now goes out at once."""

    @property
    def awaitable(self) -> bool:
        """Whether what is published now goes out, or may wait for that."""

    @property
    def publish_outcome(self) -> str:
        """What becomes of what is published now."""

    @property
    def condition(self) -> str:
        """In which state the connection is, and why, for people."""


class Keeper:
    """What the publisher asks the outbox, and tells it; this is what there is without one."""

    @property
    def in_line(self) -> int:
        """How many stored messages are in the publisher's line."""
        return 0

    def takes(self, message: Message, error: AMQPException, *, on_wire: bool = False) -> bool:  # noqa: ARG002
        """Tell whether a message is stored that would end with this error; RabbitMQ may confirm one on the wire yet."""
        return False

    def store(self, message: Message, deadline: float) -> str:  # noqa: ARG002
        """Store a message that comes behind others that are stored; returns why it can't be."""
        return "there is no outbox"

    def on_sent(self, _message: Message) -> None:
        """Called when a stored message has gone out."""

    def on_end(self, message: Message, error: AMQPException | None) -> None:
        """Called when a stored message was confirmed, or with the error that it would end with."""

    def fill_line(self) -> None:
        """Put what is being stored in line, where it is the next that may be sent."""

    def load_more(self) -> None:
        """Read more of what is stored, where it may be sent."""

    def unload(self) -> None:
        """Forget the stored messages that are in line: they are read again when the connection is."""
