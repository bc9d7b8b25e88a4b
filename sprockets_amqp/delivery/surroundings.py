"""What the publisher depends on: the lifecycle, which lets messages go out, and the outbox, which may keep them."""

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
        """Whether a message published now goes out at once."""

    @property
    def awaitable(self) -> bool:
        """Whether a message published now goes out, or may wait to."""

    @property
    def loads(self) -> bool:
        """Whether stored messages may be read, to be sent: not while closing, when only what waits is sent."""

    @property
    def recovers(self) -> bool:
        """Whether the client is ready, or will be by itself."""

    def disowns(self, reply_code: int, reply_text: str) -> bool:
        """Return whether a refusal is about credentials that have expired; the connection is given up then."""

    @property
    def publish_outcome(self) -> str:
        """What becomes of a publish now."""

    @property
    def condition(self) -> str:
        """The state of the connection and the reason for it, for people."""


class Keeper:
    """What the publisher asks and tells the outbox; without an outbox, it is this."""

    @property
    def in_line(self) -> int:
        """How many stored messages are in the publisher's line."""
        return 0

    def takes(self, message: Message, error: AMQPException, *, on_wire: bool = False) -> bool:  # noqa: ARG002
        """Return whether a message that would end so is stored instead; one on the wire may still be confirmed."""
        return False

    def store(self, message: Message, deadline: float) -> str:  # noqa: ARG002
        """Store a message behind others that are stored; return why it cannot be, or the empty string."""
        return "there is no outbox"

    def on_sent(self, _message: Message) -> None:
        """Called when a stored message has gone out."""

    def on_end(self, message: Message, error: AMQPException | None) -> None:
        """Called when a stored message was confirmed, or with the error that it would end with."""

    def fill_line(self) -> None:
        """Put messages that are being stored in line, if they are the next that may be sent."""

    def load_more(self) -> None:
        """Read more stored messages, if they may be sent."""

    def unload(self) -> None:
        """Forget the stored messages in line: they are read again once there is a connection."""
