"""Observers: they see each publish before it is encoded, and are told its end, unable to harm it.

An end is told in a later turn of the loop, never from within a transition or one of pika's callbacks.
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

from .bounded_log import BoundedLog
from .errors import (
    AMQPException,
    ExchangeRefused,
    InvalidMessage,
    MessageNacked,
    MessageReturned,
    NotReadyError,
    OutcomeUnknown,
)

LOGGER = logging.getLogger(__name__)


class Outcome(enum.StrEnum):
    """What became of a publish."""

    #: RabbitMQ confirmed it; an unroutable message as well, without ``fail_on_return``.
    CONFIRMED = "confirmed"
    #: Handed to the transport, without ``enable_confirmations``: whether RabbitMQ has it is not known.
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
    #: It is on the disk, in the outbox, and is sent later: `Delivery` tells of that.
    STORED = "stored"
    #: The caller cancelled the future; the message may have been sent before.
    CANCELLED = "cancelled"


#: The outcome of what ends with an error.
OUTCOMES: Final[Mapping[type[AMQPException], Outcome]] = {
    InvalidMessage: Outcome.INVALID,
    NotReadyError: Outcome.NOT_READY,
    ExchangeRefused: Outcome.REFUSED,
    MessageReturned: Outcome.RETURNED,
    MessageNacked: Outcome.NACKED,
    OutcomeUnknown: Outcome.UNKNOWN,
}
#: The outcomes that are RabbitMQ's word on a message.
ANSWERED: Final = frozenset({Outcome.CONFIRMED, Outcome.RETURNED, Outcome.NACKED})


@dataclasses.dataclass(frozen=True, slots=True)
class Publish:
    """A publish that begins, before it is checked and encoded.

    Attributes:
        exchange: as the caller gave it; it may be anything.
        routing_key: the same.
        properties: those that the caller gave, without what is filled in; they cannot be changed.
        headers: a copy of the caller's headers. What is added here goes out with the message, and is checked with it:
            what AMQP cannot hold makes the publish end with `InvalidMessage`.
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
        message_id: the message's id; None where the one that was given is no str.
        size: octets of the encoded body; 0 where it could not be encoded.
        sends: how often it was handed to the transport: more than once where it was republished after a loss.
        seconds_in_line: from the call until it was handed to the transport, the last time; where it never was, until
            its end.
        seconds_to_confirm: from then until RabbitMQ acked or nacked it; None where RabbitMQ did neither.
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


@dataclasses.dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a stored message: its publish ended with `STORED`, in this process or in one before it.

    Attributes:
        outcome: `Outcome.CONFIRMED`; or that of the error for which it was set aside.
        error: why it was set aside, or None.
        exchange: where it was published to.
        routing_key: with which routing key.
        message_id: the message's id.
        size: octets of the encoded body.
        seconds_to_confirm: from when it was handed to the transport, the last time, until RabbitMQ acked it; None
            where it was set aside.
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
    """What `Client.observe` takes; where it has a method ``delivered`` as well, see `Client.observe`."""

    def publishing(self, publish: Publish) -> OnEnd | None:
        """Called in each publish; it has to be quick.

        Returns what is to be called once with the publish's end, in the same context (`contextvars`), or None.
        """


class Observation:
    """What `Client.observe` returns: it lasts until `cancel()`."""

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
        return f"<Observation by {self.publishing!r}>"

    def cancel(self) -> None:
        """Show it no further publish; it is still told the ends of those that it saw."""
        if self in self._observers:
            self._observers.remove(self)


class Watch:
    """One publish that somebody wants to know the end of."""

    __slots__ = ("_context", "_observers", "_on_end", "began", "resends")

    def __init__(self, observers: "Observers", on_end: list[OnEnd]) -> None:
        self._observers = observers
        self._on_end = on_end
        self._context = contextvars.copy_context()
        #: The loop's time of the call.
        self.began = 0.0
        #: How often it was sent again.
        self.resends = 0

    def tell(self, end: PublishEnd) -> None:
        """Tell the end, in a later turn of the loop."""
        for on_end in self._on_end:
            self._observers.tell(on_end, end, self._context)


class Observers(list[Observation]):
    """A client's observers, and the ends that they are still to be told."""

    _loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self._pending: collections.deque[tuple[contextvars.Context, Callable[..., object], object]] = (
            collections.deque()
        )
        self._scheduled = False
        self._log = BoundedLog(LOGGER, time.monotonic)

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell on this loop from now on, also what a loop that never ran had to tell."""
        self._loop = loop
        self._scheduled = False
        self._schedule()

    def abandon(self) -> None:
        """Leave what is to be told to the parent process, in a forked child."""
        self._pending.clear()
        self._scheduled = False

    def observe(self, observer: Observer) -> Observation:
        """Show each publish to the observer from now on. Raises TypeError where it has no method ``publishing``."""
        publishing, delivered = getattr(observer, "publishing", None), getattr(observer, "delivered", None)
        if not callable(publishing):
            raise TypeError(f"an observer has a method publishing(publish), and {observer!r:.80} has none")
        observation = Observation(self, publishing, delivered if callable(delivered) else None)
        self.append(observation)
        return observation

    def begin(
        self, exchange: str, routing_key: str, properties: Mapping[str, Any] | None
    ) -> tuple[Mapping[str, Any] | None, Watch]:
        """Show a publish to every observer; returns its properties with their headers, and what waits for its end."""
        accepted = properties is None or isinstance(properties, Mapping)
        given = dict(properties or {}) if accepted else {}
        headers = given.get("headers")
        added = dict(headers) if isinstance(headers, dict) else {}
        publish = Publish(exchange, routing_key, MappingProxyType(given), added)
        on_end = [self._call(observation.publishing, publish) for observation in tuple(self)]
        # Properties or headers that are no dict are left as they are: for the publish to refuse.
        if accepted and added and (headers is None or isinstance(headers, dict)):
            properties = {**given, "headers": added}
        return properties, Watch(self, [each for each in on_end if each is not None])

    def deliver(self, delivery: Delivery) -> None:
        """Tell every observer that wants to know what became of a stored message."""
        for observation in self:
            if observation.delivered is not None:
                # Its publish may be long over, and was perhaps another process's.
                self.tell(observation.delivered, delivery, contextvars.Context())

    def tell(self, callback: Callable[..., object], told: object, context: contextvars.Context) -> None:
        """Call back in a later turn of the loop; at once where it has none any more."""
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
        # What is published by one that is told ends in a turn of its own.
        for _ in range(len(self._pending)):
            context, callback, told = self._pending.popleft()
            context.run(self._call, callback, told)

    def _call(self, callback: Callable[..., Any], argument: object) -> Any:
        try:
            return callback(argument)
        except (Exception, asyncio.CancelledError):
            self._log.log(logging.ERROR, "%r raised; no publish is affected", callback, exc_info=True)
            return None
