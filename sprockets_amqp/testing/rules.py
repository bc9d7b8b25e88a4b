"""What passes between a broker in memory and its ends of connections: messages, refusals, and what they ask it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from pika import BasicProperties, spec


@dataclass
class Published:
    """A message that the broker received.

    Attributes:
        queues: the names of the queues that it was routed to, in no particular order; empty if it was unroutable.
        confirmed: True once it was acknowledged, False once it was nacked, None before.
        client: the name of the client that published it.
        vhost: the virtual host that it was published in.
        user: who had logged in.
    """

    exchange: str
    routing_key: str
    body: bytes
    properties: BasicProperties
    mandatory: bool = False
    queues: tuple[str, ...] = ()
    confirmed: bool | None = None
    client: str = ""
    vhost: str = "/"
    user: str = ""

    @property
    def routing_keys(self) -> Iterator[str]:
        """The routing key, and those in the headers CC and BCC (https://www.rabbitmq.com/docs/sender-selected)."""
        yield self.routing_key
        for name in ("CC", "BCC"):
            keys = (self.properties.headers or {}).get(name)
            # RabbitMQ ignores what is no text.
            yield from (key for key in (keys if isinstance(keys, list) else ()) if isinstance(key, str))


class Refused(ValueError):
    """RabbitMQ closes the channel, or the connection, over what a client asks."""

    def __init__(self, code: int, words: str, *, connection: bool = False) -> None:
        super().__init__(words)
        self.code = code
        self.connection = connection


class Rules(Protocol):
    """What a peer asks the broker."""

    #: Whether everything arrives by itself, rather than when it is delivered by hand.
    automatic: bool
    #: Seconds that the broker's frames take to arrive.
    delay: float
    #: Why an alarm is on, or the empty string; with an alarm, connections that publish are blocked.
    alarm: str
    #: Whether a line that the client drops stays until it is cut.
    clings: bool
    tune: spec.Connection.Tune

    def log_in(self) -> None:
        """Called when a client logs in. Raises Refused."""

    def enter(self, vhost: str) -> None:
        """Called when a client opens a virtual host. Raises Refused."""

    def judge(self, message: Published) -> None:
        """Called with a message, or with a question about one. Raises Refused."""

    def accept(self, peer: Any, channel_number: int, message: Published) -> None:
        """Accept a message, and have it confirmed if its channel is in confirm mode."""

    def declare(self, peer: Any, method: Any) -> Any:
        """Declare, delete, bind or purge as the method asks; return the answer. Raises Refused."""

    def answers(self, exchange: str) -> bool:
        """Return whether questions about the exchange are answered at all."""

    def note_sent(self, message_id: str) -> None:
        """Called when a message was handed to the socket, whether it is read or not."""

    def left(self, peer: Any) -> None:
        """Called when the line is gone."""
