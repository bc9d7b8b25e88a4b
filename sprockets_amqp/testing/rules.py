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
    """

    exchange: str
    routing_key: str
    body: bytes
    properties: BasicProperties
    mandatory: bool = False
    queues: tuple[str, ...] = ()
    confirmed: bool | None = None

    @property
    def routing_keys(self) -> Iterator[str]:
        """The routing key, and those in the headers CC and BCC (https://www.rabbitmq.com/docs/sender-selected)."""
        yield self.routing_key
        for name in ("CC", "BCC"):
            keys = (self.properties.headers or {}).get(name)
            yield from map(str, keys if isinstance(keys, list) else ())


@dataclass(frozen=True)
class Refusal:
    """Why the broker closes the channel or connection because of what it received."""

    code: int
    text: str
    connection: bool = False


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

    def refuse_login(self) -> Refusal | None:
        """Return why logins are refused, or None."""

    def judge(self, message: Published) -> Refusal | None:
        """Return why a message, or a question about one, is refused, or None."""

    def accept(self, peer: Any, channel_number: int, message: Published) -> None:
        """Accept a message, and have it confirmed if its channel is in confirm mode."""

    def declare(self, method: Any) -> Refusal | None:
        """Declare, delete or bind as the method asks; return why that is refused, or None."""

    def answers(self, exchange: str) -> bool:
        """Return whether questions about the exchange are answered at all."""

    def note_sent(self, message_id: str) -> None:
        """Called when a message was handed to the socket, whether it is read or not."""
