"""Exchanges, queues and bindings, and which queues a message goes to: RabbitMQ's routing, and nothing else of it.

Exchanges that route by headers are refused.

https://www.rabbitmq.com/tutorials/amqp-concepts#exchanges
"""

from collections.abc import Iterable
from typing import Final, Literal, get_args

ExchangeType = Literal["direct", "fanout", "topic"]
TYPES: Final = get_args(ExchangeType)
#: RabbitMQ's own exchanges that route by headers, which is not supported here.
BY_HEADERS: Final = {"amq.headers", "amq.match"}


class Queue:
    """A queue, with the messages that were routed to it.

    Attributes:
        full: whether it takes no more messages, and RabbitMQ nacks those routed to it (``x-overflow: reject-publish``).
    """

    def __init__(self, name: str, max_length: int | None = None) -> None:
        self.name = name
        self.full = False
        self.size = 0
        self._max_length = max_length

    @property
    def takes(self) -> bool:
        """Whether there is room for one more message."""
        return not self.full and (self._max_length is None or self.size < self._max_length)


class Routing:
    """What was declared and bound. The exchange "" routes to the queue with the routing key's name."""

    def __init__(self) -> None:
        self.exchanges: dict[str, ExchangeType] = {
            "": "direct",
            "amq.direct": "direct",
            "amq.fanout": "fanout",
            "amq.topic": "topic",
        }
        self.queues: dict[str, Queue] = {}
        #: Exchange, queue, and the binding's routing key.
        self._bindings: set[tuple[str, str, str]] = set()
        #: Source, destination, and the binding's routing key.
        self._between: set[tuple[str, str, str]] = set()

    def declare_exchange(self, name: str, exchange_type: ExchangeType = "direct") -> None:
        """Declare an exchange. Raises ValueError if it exists with another type, or the type is not supported here."""
        if name in BY_HEADERS:
            raise ValueError(by_headers(name))
        if exchange_type not in TYPES:
            raise ValueError(f"exchange {name!r} cannot be of type {exchange_type!r}: use {', '.join(TYPES)}")
        if self.exchanges.setdefault(name, exchange_type) != exchange_type:
            raise ValueError(f"exchange {name!r} is of type {self.exchanges[name]!r}, not {exchange_type!r}")

    def delete_exchange(self, name: str) -> None:
        """Delete an exchange and its bindings; a missing one is ignored."""
        self.exchanges.pop(name, None)
        self._bindings = {binding for binding in self._bindings if binding[0] != name}
        self._between = {binding for binding in self._between if name not in binding[:2]}

    def declare_queue(self, name: str, max_length: int | None = None) -> Queue:
        """Declare a queue; an existing one stays as it is."""
        return self.queues.setdefault(name, Queue(name, max_length))

    def delete_queue(self, name: str) -> None:
        """Delete a queue and its bindings; a missing one is ignored."""
        self.queues.pop(name, None)
        self._bindings = {binding for binding in self._bindings if binding[1] != name}

    def bind(self, queue: str, exchange: str, routing_key: str = "") -> None:
        """Bind a queue to an exchange. Raises ValueError if one of them does not exist."""
        if queue not in self.queues:
            raise ValueError(f"queue {queue!r} does not exist: declare it first")
        if exchange in BY_HEADERS:
            raise ValueError(by_headers(exchange))
        if exchange not in self.exchanges or not exchange:
            raise ValueError(f"exchange {exchange!r} cannot be bound to: declare it first")
        self._bindings.add((exchange, queue, routing_key))

    def bind_exchange(self, destination: str, source: str, routing_key: str = "") -> None:
        """Bind an exchange to another. Raises ValueError if one of them does not exist."""
        for name in (destination, source):
            if name in BY_HEADERS:
                raise ValueError(by_headers(name))
            if name not in self.exchanges or not name:
                raise ValueError(f"exchange {name!r} cannot be bound: declare it first")
        self._between.add((source, destination, routing_key))

    def route(self, exchange: str, routing_keys: Iterable[str]) -> list[Queue]:
        """Return the queues that a message to an existing exchange goes to, each once."""
        keys = list(routing_keys)
        if not exchange:
            names = dict.fromkeys(key for key in keys if key in self.queues)
        else:
            names = dict.fromkeys(
                queue for source in self._reached(exchange, keys) for queue in self._bound(self._bindings, source, keys)
            )
        return [self.queues[name] for name in names]

    def _reached(self, exchange: str, keys: list[str]) -> list[str]:
        """Return the exchange, and those that get its messages through bindings between exchanges."""
        reached = [exchange]
        for each in reached:
            reached += [other for other in self._bound(self._between, each, keys) if other not in reached]
        return reached

    def _bound(self, bindings: set[tuple[str, str, str]], source: str, keys: list[str]) -> list[str]:
        kind = self.exchanges[source]
        matching = (
            name
            for bound_to, name, pattern in sorted(bindings)
            if bound_to == source and any(_matches(kind, pattern, key) for key in keys)
        )
        return list(dict.fromkeys(matching))


def by_headers(exchange: str) -> str:
    """Say why the exchange does not exist."""
    return f"the broker in memory has no headers exchanges, and no exchange {exchange!r}: use {', '.join(TYPES)}"


def _matches(kind: ExchangeType, pattern: str, routing_key: str) -> bool:
    if kind == "fanout":
        return True
    if kind == "direct":
        return pattern == routing_key
    return _match_words(_words(pattern), _words(routing_key))


def _words(text: str) -> list[str]:
    return text.split(".") if text else []


def _match_words(pattern: list[str], words: list[str]) -> bool:
    """Match a topic's words: * stands for one, # for any number."""
    if not pattern:
        return not words
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return any(_match_words(rest, words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and first in {"*", words[0]} and _match_words(rest, words[1:])
