"""Queues: how they may be declared, which messages they take, and when those go.

https://www.rabbitmq.com/docs/queues, https://www.rabbitmq.com/docs/maxlength, https://www.rabbitmq.com/docs/ttl
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from .equivalence import precondition_failed, type_name
from .rules import Published

DEAD_LETTER_EXCHANGE: Final = "x-dead-letter-exchange"
DEAD_LETTER_KEY: Final = "x-dead-letter-routing-key"
TYPE: Final = "x-queue-type"
CLASSIC: Final = "classic"
REJECT_AND_KEEP: Final = "reject-publish-dlx"
LOCATORS: Final = ("client-local", "balanced", "random", "least-leaders", "min-masters")
#: The longest time in milliseconds that RabbitMQ takes: ten years.
LONGEST: Final = 315_360_000_000


def _whole(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        return f'"expected integer, got {type_name(value)}"'
    return f"{{value_negative,{value}}}" if value < 0 else ""


def check_time(value: Any) -> str:
    """Return what RabbitMQ says of a time in milliseconds that it refuses, or the empty string."""
    return _whole(value) or (f"{{value_too_large,{value}}}" if value > LONGEST else "")


def _of(kind: type, value: Any) -> str:
    return "" if isinstance(value, kind) else f"{{unacceptable_type,{type_name(value)}}}"


def _text(value: Any) -> str:
    return _of(str, value)


def _known(value: Any, known: Collection[Any], words: str) -> str:
    return "" if value in known else words


def _overflow(value: Any) -> str:
    return _text(value) or _known(value, {"drop-head", "reject-publish", REJECT_AND_KEEP}, "invalid_overflow")


#: The arguments of queues, in the order in which RabbitMQ looks at them, and what it says of a bad one, if anything.
_CHECKS: Final[dict[str, Callable[[Any], str]]] = {
    "x-expires": lambda value: "{value_zero,0}" if value == 0 and _whole(value) == "" else check_time(value),
    "x-message-ttl": check_time,
    DEAD_LETTER_EXCHANGE: _text,
    DEAD_LETTER_KEY: _text,
    "x-max-length": _whole,
    "x-max-length-bytes": _whole,
    "x-max-priority": lambda value: _whole(value) or (f"{{max_value_exceeded,{value}}}" if value > 255 else ""),
    "x-overflow": _overflow,
    # RabbitMQ before 4.3 checks it.
    "x-queue-mode": lambda _: "",
    "x-single-active-consumer": lambda value: _of(bool, value),
    TYPE: lambda value: _text(value) or ("" if value in TAKEN else f"\"unsupported queue type '{value}'\""),
    "x-queue-master-locator": lambda _: "",
    "x-queue-version": lambda value: _whole(value) or _known(value, {1, 2}, f"\"unsupported queue version '{value}'\""),
    "x-queue-leader-locator": lambda value: _text(value) or _known(value, LOCATORS, "invalid_queue_locator_arg"),
    "x-max-age": lambda value: _text(value) or ("" if re.fullmatch("[0-9]+[YMDhms]", value) else "invalid_max_age"),
}
_CLASSIC_ALONE: Final = ("x-max-priority", "x-queue-mode", "x-queue-master-locator", "x-queue-version")
_QUORUM_ALONE: Final = (
    *("x-delivery-limit", "x-dead-letter-strategy", "x-quorum-initial-group-size"),
    *("x-max-in-memory-length", "x-max-in-memory-bytes"),
)
_STREAM_ALONE: Final = ("x-max-age", "x-stream-max-segment-size-bytes", "x-initial-cluster-size")
_NO_STREAM: Final = ("x-expires", "x-message-ttl", DEAD_LETTER_EXCHANGE, DEAD_LETTER_KEY, "x-max-length", "x-overflow")
_COMMON: Final = tuple(name for name in _CHECKS if name not in {*_CLASSIC_ALONE, "x-max-age"})
#: What a queue of each type takes and compares.
TAKEN: Final[dict[str, tuple[str, ...]]] = {
    CLASSIC: tuple(name for name in _CHECKS if name != "x-max-age"),
    "quorum": (*_COMMON, *_QUORUM_ALONE),
    "stream": (*(name for name in _COMMON if name not in _NO_STREAM), *_STREAM_ALONE),
}
#: What RabbitMQ calls the types where it refuses something of them.
MODULES: Final = {CLASSIC: "rabbit_classic_queue", "quorum": "rabbit_quorum_queue", "stream": "rabbit_stream_queue"}
_KNOWN: Final = (*_CHECKS, *_QUORUM_ALONE, *_STREAM_ALONE)


def queue_type(arguments: Mapping[str, Any] | None) -> str:
    """Return the type of a queue; one that RabbitMQ does not know is refused by `Queue.check`."""
    return str((arguments or {}).get(TYPE, CLASSIC))


@dataclasses.dataclass
class Held:
    """A message in a queue, when it expires there, if at all, and how important it is."""

    message: Published
    expires: float | None
    priority: int


class Queue:
    """A queue, with the messages in it.

    Attributes:
        declared: its properties, durable and auto_delete; None: a test has declared it without them, and the
            application may declare it with any.
        owner: the connection that it is exclusive to, or None.
        room: for how many messages a test has left room; None: for any number.
        full: whether it nacks all that is routed to it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.declared: dict[str, bool] | None = None
        self.owner: object = None
        self.room: int | None = None
        self.full = False
        self.held: collections.deque[Held] = collections.deque()
        #: The octets of their bodies.
        self._octets = 0
        #: When it is deleted, because nobody uses it.
        self.unused_until: float | None = None
        self._arguments: Mapping[str, Any] | None = None

    @property
    def arguments(self) -> Mapping[str, Any] | None:
        """Its arguments; None: a test has declared it without them."""
        return self._arguments

    def take_on(self, declared: dict[str, bool] | None, arguments: Mapping[str, Any] | None, owner: object) -> None:
        """Have the properties that the application, or a test, declares, where none are known."""
        if declared is not None and self.declared is None:
            self.declared, self.owner = declared, owner
            arguments = arguments or {}
        if arguments is not None and self._arguments is None:
            self._arguments = dict(arguments)

    def use(self, now: float) -> None:
        """Be used: a queue that expires is kept for some time from now on."""
        expires = self._get("x-expires")
        self.unused_until = None if expires is None else now + expires / 1000

    def check(self, where: str) -> None:
        """Raise Refused if RabbitMQ has no such queue."""
        arguments, kind = self._arguments or {}, self.kind
        for name in _KNOWN:
            if name in arguments and name not in TAKEN.get(kind, _KNOWN):
                raise precondition_failed(f"invalid arg '{name}' for {where} of queue type {MODULES[kind]}")
        for name, check in _CHECKS.items():
            words = check(arguments[name]) if name in arguments else ""
            if name == DEAD_LETTER_KEY and name in arguments and DEAD_LETTER_EXCHANGE not in arguments:
                words = words or "routing_key_but_no_dlx_defined"
            if words:
                raise precondition_failed(f"invalid arg '{name}' for {where}: {words}")
        if kind != CLASSIC and self.declared is not None:
            wrong = {
                "non-durable": not self.declared["durable"],
                "exclusive-owner": self.owner is not None,
                "auto-delete": self.declared["auto_delete"],
            }
            for name in (name for name, is_so in wrong.items() if is_so):
                raise precondition_failed(f"invalid property '{name}' for {where}")

    @property
    def transient(self) -> bool:
        """Whether it goes when the broker stops."""
        return self.owner is not None or (self.declared is not None and not self.declared["durable"])

    @property
    def due(self) -> float | None:
        """When its first message expires: those behind it wait for it."""
        return self.held[0].expires if self.held else None

    @property
    def dead_letters(self) -> tuple[str, str | None] | None:
        """The exchange, and the routing key if there is one, of messages that die in it; or None."""
        exchange = self._get(DEAD_LETTER_EXCHANGE)
        return None if exchange is None else (exchange, self._get(DEAD_LETTER_KEY))

    def rejects(self, message: Published) -> bool:
        """Return whether it nacks one more message."""
        if self.full or (self.room is not None and len(self.held) >= self.room):
            return True
        overflow = self._get("x-overflow", "")
        # A quorum queue knows no other way than to drop from the head, or to reject.
        rejects = overflow == "reject-publish" or (overflow == REJECT_AND_KEEP and self.kind == CLASSIC)
        return rejects and self._over(1, len(message.body))

    @property
    def keeps_rejected(self) -> bool:
        """Whether what it rejects is dead-lettered."""
        return bool(self._get("x-overflow") == REJECT_AND_KEEP)

    def put(self, message: Published, now: float) -> list[Published]:
        """Put a message into the queue; return those that are dropped for it, from the head."""
        highest = self._get("x-max-priority", 0)
        held = Held(message, self._expires(message, now), min(message.properties.priority or 0, highest))
        if highest:
            behind = next((n for n, each in enumerate(self.held) if each.priority < held.priority), len(self.held))
            self.held.insert(behind, held)
        else:
            self.held.append(held)
        self._octets += len(message.body)
        dropped = []
        while self.held and self._over(0, 0):
            dropped.append(self._take())
        return dropped

    def expire(self, now: float) -> list[Published]:
        """Remove the messages at the head that have expired, and return them."""
        expired = []
        while self.due is not None and self.due <= now:
            expired.append(self._take())
        return expired

    def purge(self) -> int:
        """Remove all messages; return how many there were."""
        count = len(self.held)
        self.held.clear()
        self._octets = 0
        return count

    def _take(self) -> Published:
        message = self.held.popleft().message
        self._octets -= len(message.body)
        return message

    def ready(self, now: float) -> list[Published]:
        """Return the messages that a consumer would get: those that expire once they are at the head are dropped."""
        return [held.message for held in self.held if held.expires is None or held.expires > now]

    @property
    def count(self) -> int:
        """How many messages RabbitMQ says that there are; it does not count those of a stream."""
        return 0 if self.kind == "stream" else len(self.held)

    @property
    def kind(self) -> str:
        """Its type."""
        return queue_type(self._arguments)

    def restart(self) -> None:
        """Lose what a classic queue loses when the broker stops: messages that are not persistent."""
        if self.kind == CLASSIC:
            kept = [held for held in self.held if held.message.properties.delivery_mode == 2]
            self.held = collections.deque(kept)
            self._octets = sum(len(held.message.body) for held in kept)
        # How long it is unused counts from the start.
        self.unused_until = None

    def _expires(self, message: Published, now: float) -> float | None:
        times = [self._get("x-message-ttl"), message.properties.expiration]
        after = [int(each) / 1000 for each in times if each is not None]
        return now + min(after) if after and self.kind != "stream" else None

    def _over(self, more: int, octets: int) -> bool:
        """Return whether it is too long, with that much more."""
        if self.kind == "stream":
            return False
        length, size = self._get("x-max-length"), self._get("x-max-length-bytes")
        is_long = length is not None and len(self.held) + more > length
        return is_long or (size is not None and self._octets + octets > size)

    def _get(self, name: str, default: Any = None) -> Any:
        return (self._arguments or {}).get(name, default)
