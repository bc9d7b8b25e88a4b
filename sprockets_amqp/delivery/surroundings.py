"""What the publisher depends on: what lets messages go out, the wire, and who keeps what would be lost."""

from collections.abc import Callable
from typing import Protocol

from sprockets_amqp.errors import AMQPException
from sprockets_amqp.wire.connection import Connection

from .publish import Publish


class Gate(Protocol):
    """What the publisher asks of who lets messages go out."""

    @property
    def sends(self) -> bool:
        """Whether waiting messages go out now."""

    @property
    def sends_new(self) -> bool:
        """Whether a message published now goes out at once."""

    @property
    def accepts(self) -> bool:
        """Whether a message published now goes out, or may wait to."""

    @property
    def sends_stored(self) -> bool:
        """Whether stored messages go out now: not while closing, when only what waits is sent."""

    @property
    def recovers(self) -> bool:
        """Whether the client is ready, or will be by itself."""

    def disowns(self, reply_code: int, reply_text: str) -> bool:
        """Return whether a refusal is about credentials that have expired; the connection is given up then."""

    def replace_channel(self, reason: str) -> None:
        """Have the channel replaced, as nothing is unconfirmed on it."""

    @property
    def in_setup(self) -> bool:
        """Whether the caller is `setup`, which nothing overtakes."""

    @property
    def publish_outcome(self) -> str:
        """What becomes of a publish now."""

    @property
    def condition(self) -> str:
        """The state of the connection and the reason for it, for people."""


class Wire(Protocol):
    """The connection, and the channel to publish on.

    Attributes:
        connection: pika's connection, or None.
        publish: sends a message.
        body_limit: the most octets of a body that RabbitMQ accepts.
        header_limit: the most octets of properties that fit in one frame.
        held: whether what is published has to wait: an event is being handled that may be the end of the channel.
    """

    publish: Callable[[bytes, bytes, bytes], None]
    body_limit: int
    header_limit: int
    held: bool
    connection: Connection | None

    @property
    def unsent(self) -> int:
        """How many octets wait for the socket, approximately."""

    @property
    def congested(self) -> bool:
        """Whether too much is waiting for the socket."""

    @property
    def vhost(self) -> str:
        """The virtual host of the connection."""

    def call_when_sent(self, callback: Callable[[], object]) -> None:
        """Call back once, when the socket has taken everything; never if the connection is lost before."""


class Keeper:
    """Who keeps messages that would be lost, and gives them to the publisher again; without one, it is this."""

    @property
    def in_line(self) -> int:
        """How many kept messages are in the publisher's line."""
        return 0

    def takes(self, publish: Publish, error: AMQPException, *, on_wire: bool) -> bool:  # noqa: ARG002
        """Return whether a publish that would end so is kept instead; one on the wire may still be confirmed."""
        return False

    def keep(self, publish: Publish, deadline: float) -> str:  # noqa: ARG002
        """Keep a publish behind others that are kept; return why it cannot be, or the empty string."""
        return "there is no outbox"

    def refill(self) -> None:
        """Put kept messages in line, if they are the next that may be sent."""

    def unload(self) -> None:
        """Forget the kept messages in line: they come again once there is a connection."""
