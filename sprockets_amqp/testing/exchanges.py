"""Exchanges and bindings, and which of them match a message.

https://www.rabbitmq.com/docs/exchanges
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from .equivalence import precondition_failed, type_name, typed

ExchangeType = Literal["direct", "fanout", "topic", "headers"]
TYPES: Final = get_args(ExchangeType)
#: What RabbitMQ has of its own.
OWN: Final[dict[str, ExchangeType]] = {
    "": "direct",
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.topic": "topic",
    "amq.headers": "headers",
    "amq.match": "headers",
    "amq.rabbitmq.trace": "topic",
}
ALTERNATE: Final = "alternate-exchange"
#: What `x-match` may be, and whether all of the other arguments have to match.
MATCHES: Final = {"all": True, "any": False, "all-with-x": True, "any-with-x": False}


@dataclasses.dataclass
class Exchange:
    """An exchange.

    Attributes:
        kind: its type.
        declared: its other properties, durable, auto_delete and internal; None: a test has declared it without them,
            and the application may declare it with any.
        arguments: its arguments, or None, in the same way.
    """

    name: str
    kind: ExchangeType
    declared: dict[str, bool] | None = None
    arguments: Mapping[str, Any] | None = None

    def has(self, name: str) -> bool:
        """Return whether it has a property; what is not known, it has not."""
        return self.declared is not None and self.declared[name]

    @property
    def transient(self) -> bool:
        """Whether it goes when the broker stops."""
        return self.declared is not None and not self.declared["durable"]

    @property
    def alternate(self) -> object:
        """The name of the exchange for what no binding matches, or None."""
        return (self.arguments or {}).get(ALTERNATE)


@dataclasses.dataclass(frozen=True)
class Binding:
    """A binding of a queue, or of another exchange, to an exchange."""

    source: str
    destination: str
    routing_key: str = ""
    to_queue: bool = True
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def is_same(self, other: "Binding") -> bool:
        """Return whether RabbitMQ takes them for one."""
        return dataclasses.replace(self, arguments={}) == dataclasses.replace(other, arguments={}) and typed(
            dict(self.arguments)
        ) == typed(dict(other.arguments))

    def check(self, kind: ExchangeType) -> None:
        """Raise Refused if an exchange of this type cannot match as the binding says."""
        how = self.arguments.get("x-match", "all")
        if kind != "headers" or (isinstance(how, str) and how in MATCHES):
            return
        if isinstance(how, str):
            allowed = "expected all, any, all-with-x, or any-with-x"
            raise precondition_failed(f'Invalid x-match field value <<"{how}">>; {allowed}')
        raise precondition_failed(f"Invalid x-match field type {type_name(how)} (value {how}); expected longstr")

    def matches(self, kind: ExchangeType, routing_keys: list[str], headers: Mapping[str, Any]) -> bool:
        """Return whether a message goes from an exchange of this type to the destination."""
        if kind == "fanout":
            return True
        if kind == "headers":
            return _match_headers(dict(self.arguments), headers)
        if kind == "direct":
            return self.routing_key in routing_keys
        return any(_match_words(_words(self.routing_key), _words(key)) for key in routing_keys)


def _match_headers(wanted: dict[str, Any], headers: Mapping[str, Any]) -> bool:
    """Match headers (https://www.rabbitmq.com/tutorials/amqp-concepts#exchange-headers)."""
    how = wanted.pop("x-match", "all")
    if not how.endswith("-with-x"):
        wanted = {name: value for name, value in wanted.items() if not name.startswith("x-")}
    matching = [
        name in headers and (value is None or typed(headers[name]) == typed(value)) for name, value in wanted.items()
    ]
    return all(matching) if MATCHES[how] else any(matching)


def _words(text: str) -> list[str]:
    return text.split(".") if text else []


def _match_words(pattern: list[str], words: list[str]) -> bool:
    """Match a topic's words: * stands for one, # for any number."""
    # How many words may be matched so far.
    matched = {0}
    for each in pattern:
        if each == "#":
            matched = set(range(min(matched, default=len(words) + 1), len(words) + 1))
        else:
            matched = {count + 1 for count in matched if count < len(words) and each in {"*", words[count]}}
    return len(words) in matched
