"""Observers: they see each publish before it is encoded, and later its end, and cannot harm it.

Ends are reported in a later turn of the loop, never from within a transition or a pika callback.
"""

import asyncio
import collections
import contextvars
import dataclasses
import enum
import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

from .bounded_log import BoundedLog, named
from .errors import (
    AMQPException,
    ExchangeRefused,
    InvalidMessage,
    MessageNacked,
    MessageReturned,
    NotReadyError,
    OutcomeUnknown,
)
from .text import function_name

LOGGER = logging.getLogger(__name__)


class Outcome(enum.StrEnum):
    """What became of a publish."""

    #: RabbitMQ confirmed it; an unroutable message as well, without ``fail_on_return``.
    CONFIRMED = "confirmed"
    #: Handed to the transport, without ``enable_confirmations``: whether RabbitMQ has it is unknown.
    SENT = "sent"
    #: `InvalidMessage`.
    INVALID = "invalid"
    #: `NotReadyError`.
    NOT_READY = "not_ready"
    #: `ExchangeRefused`.
    REFUSED = "refused"
    #: `MessageReturned`.
    RETURNED = "returned"
    #: `MessageNacked`.
    NACKED = "nacked"
    #: `OutcomeUnknown`.
    UNKNOWN = "unknown"
    #: It is on disk, in the outbox, and is sent later: `Delivery` reports that.
    STORED = "stored"
    #: The caller cancelled the future; the message may have been sent before.
    CANCELLED = "cancelled"


#: The outcome for each error.
OUTCOMES: Final[Mapping[type[AMQPException], Outcome]] = {
    InvalidMessage: Outcome.INVALID,
    NotReadyError: Outcome.NOT_READY,
    ExchangeRefused: Outcome.REFUSED,
    MessageReturned: Outcome.RETURNED,
    MessageNacked: Outcome.NACKED,
    OutcomeUnknown: Outcome.UNKNOWN,
}
#: The outcomes that come from RabbitMQ.
ANSWERED: Final = frozenset({Outcome.CONFIRMED, Outcome.RETURNED, Outcome.NACKED})


@dataclasses.dataclass(frozen=True, slots=True)
class Publish:
    """A publish at its start, before it is checked and encoded.

    Attributes:
        exchange: as the caller gave it; it may be anything.
        routing_key: the same.
        properties: those that the caller gave, without those filled in; they cannot be changed.
        headers: a copy of the caller's headers. What is added here is sent with the message, and checked with it: a
            value that AMQP cannot encode makes the publish end with `InvalidMessage`.
    """

    exchange: str
    routing_key: str
    properties: Mapping[str, Any]
    headers: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class PublishEnd:
    """The end of a publish.

    Attributes:
        outcome: what became of it.
        error: what its future raised, or None.
        exchange: where it was published to.
        routing_key: with which routing key.
        message_id: the message's id; None if the given one is not a str.
        size: octets of the encoded body; 0 if it could not be encoded.
        sends: how often it was handed to the transport: more than once if it was republished after a loss.
        seconds_in_line: from the call until it was last handed to the transport or, if it never was, until its end.
        seconds_to_confirm: from then until RabbitMQ acked or nacked it; None if RabbitMQ did neither.
        returned: whether RabbitMQ returned it as unroutable, whether or not ``fail_on_return`` makes that an error.
        seconds: from the call until its end.
    """

    outcome: Outcome
    error: AMQPException | None
    exchange: str
    routing_key: str
    message_id: str | None
    size: int
    sends: int
    seconds_in_line: float
    seconds_to_confirm: float | None
    returned: bool = False
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a stored message; its publish ended with `STORED`, in this process or an earlier one.

    Attributes:
        outcome: `Outcome.CONFIRMED`, or that of the error for which it was set aside.
        error: why it was set aside, or None.
        exchange: where it was published to.
        routing_key: with which routing key.
        message_id: the message's id.
        size: octets of the encoded body.
        seconds_to_confirm: from when it was last handed to the transport until RabbitMQ acked it; None if it was set
            aside.
    """

    outcome: Outcome
    error: AMQPException | None
    exchange: str
    routing_key: str
    message_id: str | None
    size: int
    seconds_to_confirm: float | None


OnEnd = Callable[[PublishEnd], object]


class Observer(Protocol):
    """What `Client.observe` takes; it may also have a method ``delivered``, see there."""

    def publishing(self, publish: Publish) -> OnEnd | None:
        """Called in each publish; it must be quick.

        Returns a function to be called once with the publish's end, in the same context (`contextvars`), or None.
        """


class Observation:
    """What `Client.observe` returns; it lasts until `cancel()`."""

    def __init__(
        self,
        observers: "Observers",
        publishing: Callable[[Publish], OnEnd | None],
        delivered: Callable[[Delivery], object] | None,
    ) -> None:
        self._observers = observers
        self.publishing: Final = publishing
        self.delivered: Final = delivered

    def __repr__(self) -> str:
        return f"<Observation by {function_name(self.publishing)}>"

    def cancel(self) -> None:
        """Show it no further publishes; the ends of those that it saw are still reported."""
        if self in self._observers:
            self._observers.remove(self)


class Watch:
    """One publish whose end is observed."""

    __slots__ = ("_context", "_observers", "_on_end", "began", "resends")

    def __init__(self, observers: "Observers", on_end: list[OnEnd]) -> None:
        self._observers = observers
        self._on_end = on_end
        self._context = contextvars.copy_context()
        #: The loop's time at the call.
        self.began = 0.0
        #: How often it was sent again.
        self.resends = 0

    def tell(self, end: PublishEnd) -> None:
        """Report the end, in a later turn of the loop."""
        for on_end in self._on_end:
            self._observers.tell(on_end, end, self._context)


class Observers(list[Observation]):
    """A client's observers, and the ends that have yet to be reported to them."""

    _loop: asyncio.AbstractEventLoop

    def __init__(self, name: str) -> None:
        super().__init__()
        self._pending: collections.deque[tuple[contextvars.Context, Callable[..., object], object]] = (
            collections.deque()
        )
        self._scheduled = False
        self._log = BoundedLog(named(LOGGER, name), time.monotonic)

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Report on this loop from now on, including what a loop that never ran had to report."""
        self._loop = loop
        self._scheduled = False
        self._schedule()

    def abandon(self) -> None:
        """In a forked child, leave pending reports to the parent process."""
        self._pending.clear()
        self._scheduled = False

    def observe(self, observer: Observer) -> Observation:
        """Show each publish to the observer from now on. Raises TypeError if it has no method ``publishing``."""
        publishing, delivered = getattr(observer, "publishing", None), getattr(observer, "delivered", None)
        if not callable(publishing):
            raise TypeError(f"an observer needs a method publishing(publish), which {observer!r:.80} does not have")
        observation = Observation(self, publishing, delivered if callable(delivered) else None)
        self.append(observation)
        return observation

    def begin(
        self, exchange: str, routing_key: str, properties: Mapping[str, Any] | None
    ) -> tuple[Mapping[str, Any] | None, Watch]:
        """Show a publish to every observer; return its properties with their headers, and what waits for its end."""
        accepted = properties is None or isinstance(properties, Mapping)
        given = dict(properties or {}) if accepted else {}
        headers = given.get("headers")
        added = dict(headers) if isinstance(headers, dict) else {}
        publish = Publish(exchange, routing_key, MappingProxyType(given), added)
        on_end = [self._call(observation.publishing, publish) for observation in tuple(self)]
        # Properties or headers that are not a dict are left as they are, for the publish to refuse.
        if accepted and added and (headers is None or isinstance(headers, dict)):
            properties = {**given, "headers": added}
        return properties, Watch(self, [each for each in on_end if each is not None])

    def deliver(self, delivery: Delivery) -> None:
        """Tell every observer that has ``delivered`` what became of a stored message."""
        for observation in self:
            if observation.delivered is not None:
                # Its publish may have ended long ago, perhaps in another process.
                self.tell(observation.delivered, delivery, contextvars.Context())

    def tell(self, callback: Callable[..., object], told: object, context: contextvars.Context) -> None:
        """Call back in a later turn of the loop, or at once if it is closed."""
        self._pending.append((context, callback, told))
        if self._loop.is_closed():
            self._tell_pending()
        else:
            self._schedule()

    def _schedule(self) -> None:
        if self._pending and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._tell_pending)

    def _tell_pending(self) -> None:
        self._scheduled = False
        # What a callback publishes ends in a later turn.
        for _ in range(len(self._pending)):
            context, callback, told = self._pending.popleft()
            context.run(self._call, callback, told)

    def _call(self, callback: Callable[..., Any], argument: object) -> Any:
        try:
            return callback(argument)
        except (Exception, asyncio.CancelledError):
            self._log.log(logging.ERROR, "%s raised; no publish is affected", function_name(callback), exc_info=True)
            return None
