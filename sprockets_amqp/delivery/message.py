"""A message: its default properties, and what goes on the wire and on the disk."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

from pika.delivery_mode import DeliveryMode
from pika.spec import BasicProperties

from sprockets_amqp.errors import InvalidMessage
from sprockets_amqp.text import plain, shown

from .encoding import (
    FILLED_IN,
    encode_body,
    encode_method,
    encode_properties,
    identify,
    read_method,
    read_properties,
    unusable,
)
from .message_ids import new_message_id
from .options import Options, checked
from .validation import Copies


class Properties(TypedDict, total=False):
    """The properties of a message, for annotations of your own (AMQP 0-9-1, section 1.8.3).

    Those that are missing or None are left out, but for ``message_id``, ``timestamp`` and ``app_id``, which are filled
    in where they are missing.
    """

    content_type: str | None
    content_encoding: str | None
    headers: dict[str, Any] | None
    #: 1, transient, or 2, persistent.
    delivery_mode: int | DeliveryMode | None
    #: From 0 to 255.
    priority: int | None
    correlation_id: str | UUID | None
    reply_to: str | None
    #: Milliseconds.
    expiration: str | None
    message_id: str | UUID | None
    #: Seconds since 1970.
    timestamp: int | None
    type: str | None
    user_id: str | None
    app_id: str | None
    cluster_id: str | None


class Message(NamedTuple):
    """A message as it is sent and stored: checked, encoded, and never changed.

    Attributes:
        exchange: where it is published to.
        routing_key: with which routing key.
        message_id: its id, or None.
        user_id: its user_id, or None; only RabbitMQ can check it (https://www.rabbitmq.com/docs/validated-user-id).
        copies: further routing keys, in its headers.
        method: Basic.Publish, encoded.
        properties: the flags and list of its properties, encoded.
        body: its octets.
    """

    exchange: str
    routing_key: str
    message_id: str | None
    user_id: str | None
    copies: Copies
    method: bytes
    properties: bytes
    body: bytes

    def has(self, properties: BasicProperties) -> bool:
        """Return whether these are its properties, decoded, but for the header BCC: RabbitMQ removes it."""
        own, theirs = dict(vars(BasicProperties().decode(self.properties))), dict(vars(properties))
        for each in (own, theirs):
            each["headers"] = {name: value for name, value in (each["headers"] or {}).items() if name != "BCC"}
        return own == theirs

    def too_large(self, body_limit: int, header_limit: int) -> InvalidMessage:
        """Return the error for a body or properties above a limit, in octets."""
        size = len(self.body)
        if size > body_limit:
            problem = f"has {size} bytes, more than the {body_limit} that RabbitMQ accepts (max_message_size)"
            return InvalidMessage("body", problem)
        size = len(self.properties)
        return InvalidMessage("properties", f"take {size} bytes, more than the {header_limit} that fit in one frame")

    @property
    def headers(self) -> dict[str, Any]:
        """Its headers, decoded."""
        return dict(BasicProperties().decode(self.properties).headers or {})

    @property
    def size(self) -> int:
        """The octets that it takes in memory, besides a fixed part."""
        return len(self.body) + len(self.properties)

    def __repr__(self) -> str:
        return (
            f"<Message {shown(self.message_id)} to {self.exchange!r} with {self.routing_key!r}, {len(self.body)} bytes>"
        )


def encode(
    exchange: str,
    routing_key: str,
    body: bytes | bytearray | memoryview | str,
    properties: Mapping[str, Any] | None,
    app_id: str | None,
    options: Options,
    usual: Options,
) -> tuple[Message, float | None, InvalidMessage | None]:
    """Make a message of what the application gave.

    Returns the message, the seconds that it may wait, and why it cannot be sent, if an argument, property or option is
    invalid or RabbitMQ would refuse it; then the message has no more than its address and id. Raises TypeError if an
    option is unknown.
    """
    # Names are remembered, by caches and as exchanges that RabbitMQ accepts.
    exchange = exchange if type(exchange) is str else plain(exchange)
    routing_key = routing_key if type(routing_key) is str else plain(routing_key)
    try:
        if type(properties) is not dict and properties is not None:
            properties = read_properties(properties)
        if options:
            usual = checked(options, usual)
        message_id, user_id, copies, octets = (
            encode_properties(int(time.time()), app_id, usual["persistent"])
            if properties is None
            else encode_properties(int(time.time()), app_id, usual["persistent"], **properties)
        )
        method = encode_method(exchange, routing_key, usual["mandatory"])
        body = body if type(body) is bytes else encode_body(body)
        parts = exchange, routing_key, message_id, user_id, copies, method, octets, body
        # Its own constructor takes twice as long.
        return tuple.__new__(Message, parts), usual["timeout"], None
    except InvalidMessage as error:
        invalid = error
    except Exception:
        # Values may be of classes that raise anything. What is raised for another reason is a defect of ours.
        refusal = unusable(properties, exchange=exchange, routing_key=routing_key, body=body)
        if refusal is None:
            raise
        invalid = refusal
    # Without its traceback and its context, which hold what was given.
    invalid.__context__ = None
    named = Message(exchange, routing_key, _id_of(properties), None, (), b"", b"", b"")
    return named, usual["timeout"], invalid.with_traceback(None)


def restore(method: bytes, properties: bytes, body: bytes) -> Message:
    """Make a message of what goes on the wire. Raises ValueError or IndexError if it is not that of a message."""
    exchange, routing_key = read_method(method)
    message_id, user_id, copies = identify(properties)
    return Message(exchange, routing_key, message_id, user_id, copies, method, properties, body)


def _id_of(properties: object) -> str | None:
    """Return the id by which an error names a message: anything that is not an id cannot name it."""
    given = properties.get("message_id", FILLED_IN) if type(properties) is dict else FILLED_IN
    if given is FILLED_IN:
        return new_message_id()
    return str(given) if isinstance(given, UUID) else plain(given) if isinstance(given, str) else None
