"""Exchanges, queues and bindings: what RabbitMQ refuses of them, in its words, and which queues a message goes to.

tests/test_kit_scenarios.py holds all of it against RabbitMQ.

https://www.rabbitmq.com/docs/exchanges, https://www.rabbitmq.com/docs/queues#property-equivalence
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, get_args

from pika.spec import ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED

ExchangeType = Literal["direct", "fanout", "topic", "headers"]
TYPES: Final = get_args(ExchangeType)
#: What RabbitMQ has of its own; names that begin with the prefix are its own, too.
OWN: Final[dict[str, ExchangeType]] = {
    "": "direct",
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.topic": "topic",
    "amq.headers": "headers",
    "amq.match": "headers",
}
PREFIX: Final = "amq."
VHOST: Final = "in vhost '/'"
ALTERNATE: Final = "alternate-exchange"
#: What `x-match` may be, and whether all of the other arguments have to match.
MATCHES: Final = {"all": True, "any": False, "all-with-x": True, "any-with-x": False}


class Refused(ValueError):
    """RabbitMQ closes the channel over a call."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


@dataclasses.dataclass
class Exchange:
    """An exchange.

    Attributes:
        kind: its type.
        declared: its other properties; None: they are not known, because a test has declared it without them.
        arguments: its arguments that RabbitMQ knows.
    """

    name: str
    kind: ExchangeType
    declared: dict[str, bool] | None = None
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Return whether it has a property: `internal`, `auto_delete`, `durable`."""
        return self.declared is not None and self.declared[name]


@dataclasses.dataclass(frozen=True)
class Binding:
    """A binding of a queue, or of another exchange, to an exchange."""

    source: str
    destination: str
    routing_key: str = ""
    to_queue: bool = True
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


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
        usual = {"durable": True, "auto_delete": False, "internal": False}
        self.exchanges = {name: Exchange(name, kind, dict(usual)) for name, kind in OWN.items()}
        self.exchanges["amq.rabbitmq.trace"] = Exchange("amq.rabbitmq.trace", "topic", {**usual, "internal": True})
        self.queues: dict[str, Queue] = {}
        self._bindings: list[Binding] = []

    # Exchanges

    def check_exchange(self, name: str) -> Exchange:
        """Return an exchange; raises Refused if there is none."""
        _check_default(name)
        if name not in self.exchanges:
            raise Refused(NOT_FOUND, f"NOT_FOUND - no exchange '{name}' {VHOST}")
        return self.exchanges[name]

    def declare_exchange(
        self,
        name: str,
        kind: str = "direct",
        declared: dict[str, bool] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Declare an exchange, or see whether it was declared in the same way."""
        if kind not in TYPES:
            # Before version 4, RabbitMQ closes the connection (503).
            raise Refused(PRECONDITION_FAILED, f"PRECONDITION_FAILED - unknown exchange type '{kind}'")
        _check_default(name)
        known = {key: value for key, value in (arguments or {}).items() if key == ALTERNATE}
        exchange = self.exchanges.get(name)
        if exchange is None:
            _check_name("exchange", name)
            if known and not isinstance(known[ALTERNATE], str):
                what = f"invalid type '{type_name(known[ALTERNATE])}' for arg '{ALTERNATE}' in exchange '{name}'"
                raise Refused(PRECONDITION_FAILED, f"PRECONDITION_FAILED - {what} {VHOST}")
            self.exchanges[name] = Exchange(name, kind, declared, known)  # type: ignore[arg-type] # it is one of them
            return
        where = f"exchange '{name}'"
        _check_same("type", where, f"'{kind}'", f"'{exchange.kind}'")
        if declared is None:
            return
        if exchange.declared is None:
            exchange.declared, exchange.arguments = declared, known
        for key in ("durable", "auto_delete", "internal"):
            _check_same(key, where, *(f"'{str(each[key]).lower()}'" for each in (declared, exchange.declared)))
        _check_same_arguments(where, known, exchange.arguments)

    def delete_exchange(self, name: str, *, if_unused: bool = False) -> None:
        """Delete an exchange and its bindings; a missing one is ignored."""
        _check_default(name)
        if name.startswith(PREFIX):
            what = f"deletion of system exchange '{name}' {VHOST} not allowed"
            raise Refused(ACCESS_REFUSED, f"ACCESS_REFUSED - {what}")
        if if_unused and any(each.source == name for each in self._bindings):
            raise Refused(PRECONDITION_FAILED, f"PRECONDITION_FAILED - exchange '{name}' {VHOST} in use")
        self.exchanges.pop(name, None)
        self._remove(
            [each for each in self._bindings if each.source == name or (each.destination == name and not each.to_queue)]
        )

    # Queues

    def check_queue(self, name: str) -> Queue:
        """Return a queue; raises Refused if there is none."""
        if name not in self.queues:
            raise Refused(NOT_FOUND, f"NOT_FOUND - no queue '{name}' {VHOST}")
        return self.queues[name]

    def declare_queue(self, name: str, max_length: int | None = None) -> Queue:
        """Declare a queue; an existing one stays as it is."""
        if name not in self.queues:
            _check_name("queue", name)
        return self.queues.setdefault(name, Queue(name, max_length))

    def delete_queue(self, name: str) -> None:
        """Delete a queue and its bindings; a missing one is ignored."""
        self.queues.pop(name, None)
        self._remove([each for each in self._bindings if each.to_queue and each.destination == name])

    # Bindings

    def bind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Bind a queue to an exchange."""
        source = self.check_exchange(exchange)
        self.check_queue(queue)
        self._bind(source, Binding(exchange, queue, routing_key, arguments=dict(arguments or {})))

    def bind_exchange(
        self, destination: str, source: str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Bind an exchange to another."""
        found = self.check_exchange(source)
        self.check_exchange(destination)
        self._bind(found, Binding(source, destination, routing_key, to_queue=False, arguments=dict(arguments or {})))

    def unbind(self, binding: Binding) -> None:
        """Remove a binding; a missing one is ignored."""
        _check_default(binding.source)
        self._remove([each for each in self._bindings if each == binding])

    def _bind(self, source: Exchange, binding: Binding) -> None:
        how = binding.arguments.get("x-match", "all")
        if source.kind == "headers" and not (isinstance(how, str) and how in MATCHES):
            allowed = "expected all, any, all-with-x, or any-with-x"
            what = (
                f'Invalid x-match field value <<"{how}">>; {allowed}'
                if isinstance(how, str)
                else f"Invalid x-match field type {type_name(how)} (value {how}); expected longstr"
            )
            raise Refused(PRECONDITION_FAILED, f"PRECONDITION_FAILED - {what}")
        if binding not in self._bindings:
            self._bindings.append(binding)

    def _remove(self, bindings: list[Binding]) -> None:
        """Remove bindings, and the exchanges that were to go with the last of them."""
        self._bindings = [each for each in self._bindings if each not in bindings]
        for name in {each.source for each in bindings} - {each.source for each in self._bindings}:
            exchange = self.exchanges.get(name)
            if exchange is not None and exchange.has("auto_delete"):
                self.delete_exchange(name)

    # Messages

    def route(
        self, exchange: str, routing_keys: Iterable[str], headers: Mapping[str, Any] | None = None
    ) -> list[Queue]:
        """Return the queues that a message to an existing exchange goes to, each once."""
        keys = list(routing_keys)
        if not exchange:
            return [self.queues[key] for key in dict.fromkeys(keys) if key in self.queues]
        names: dict[str, None] = {}
        reached = [exchange]
        for each in reached:
            kind = self.exchanges[each].kind
            matching = [its for its in self._of(each) if _matches(kind, its, keys, headers or {})]
            names |= dict.fromkeys(its.destination for its in matching if its.to_queue)
            others = [its.destination for its in matching if not its.to_queue]
            if not matching and (alternate := self.exchanges[each].arguments.get(ALTERNATE)) in self.exchanges:
                others.append(alternate)
            reached += [other for other in dict.fromkeys(others) if other not in reached]
        return [self.queues[name] for name in names]

    def _of(self, source: str) -> list[Binding]:
        return sorted((each for each in self._bindings if each.source == source), key=lambda its: its.destination)


def type_name(value: object) -> str:
    """Return RabbitMQ's name for the type of a value in a table, as pika encodes it."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "signedint" if -(2**31) <= value < 2**31 else "long"
    return {dict: "table", list: "array", type(None): "void"}.get(type(value), "longstr")


def _check_same_arguments(where: str, received: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Raise Refused if arguments that RabbitMQ knows are not those of the declaration before."""
    for name in sorted({*received, *current}):
        if (name in received, received.get(name)) == (name in current, current.get(name)):
            continue
        if name in received and name in current:
            _check_same(name, where, f"'{received[name]}'", f"'{current[name]}'")
        told = [
            f"the value '{each[name]}' of type '{type_name(each[name])}'" if name in each else "none"
            for each in (received, current)
        ]
        _check_same(name, where, *told)


def _check_same(name: str, where: str, received: str, current: str) -> None:
    if received != current:
        what = f"inequivalent arg '{name}' for {where} {VHOST}: received {received} but current is {current}"
        raise Refused(PRECONDITION_FAILED, f"PRECONDITION_FAILED - {what}")


def _check_default(name: str) -> None:
    if not name:
        raise Refused(ACCESS_REFUSED, "ACCESS_REFUSED - operation not permitted on the default exchange")


def _check_name(kind: str, name: str) -> None:
    if name.startswith(PREFIX):
        raise Refused(ACCESS_REFUSED, f"ACCESS_REFUSED - {kind} name '{name}' contains reserved prefix 'amq.*'")


def _matches(kind: ExchangeType, binding: Binding, routing_keys: list[str], headers: Mapping[str, Any]) -> bool:
    if kind == "fanout":
        return True
    if kind == "headers":
        return _match_headers(dict(binding.arguments), headers)
    if kind == "direct":
        return binding.routing_key in routing_keys
    return any(_match_words(_words(binding.routing_key), _words(key)) for key in routing_keys)


def _match_headers(wanted: dict[str, Any], headers: Mapping[str, Any]) -> bool:
    """Match headers (https://www.rabbitmq.com/tutorials/amqp-concepts#exchange-headers)."""
    how = wanted.pop("x-match", "all")
    if not how.endswith("-with-x"):
        wanted = {name: value for name, value in wanted.items() if not name.startswith("x-")}
    matching = [
        name in headers and (value is None or (headers[name] == value and type_name(headers[name]) == type_name(value)))
        for name, value in wanted.items()
    ]
    return all(matching) if MATCHES[how] else any(matching)


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
