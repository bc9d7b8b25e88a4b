"""A message: its default properties, its options, and what goes on the wire."""

import asyncio
import itertools
import time
from collections.abc import Mapping
from typing import Any, Final, Self, TypedDict
from uuid import UUID

from pika.delivery_mode import DeliveryMode
from pika.spec import BasicProperties

from sprockets_amqp.errors import AMQPException, ExchangeRefused, InvalidMessage, OutcomeUnknown
from sprockets_amqp.text import plain, shown

from .encoding import FILLED_IN, encode_body, encode_method, encode_properties, read_properties, unusable
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


#: What a publish ends with: None, or `STORED`. Existing code has ``Future[None]``, which is right without an outbox.
Result = Any
#: The result of a publish that is on disk, in the outbox: it is sent when RabbitMQ accepts messages again.
STORED: Final = "stored"

#: Messages are numbered in the order in which they were published, in the whole process.
_numbers: Final = itertools.count(1)


class Message:
    """One publish: what goes on the wire, the future for its end, and how far it has got.

    Raises:
        TypeError: an option is unknown.
    """

    __slots__ = (
        "blamed",
        "body",
        "copies",
        "exchange",
        "future",
        "invalid",
        "key",
        "message_id",
        "method",
        "number",
        "properties",
        "returned",
        "routing_key",
        "sent_at",
        "timeout",
        "timer",
        "user_id",
    )

    def __init__(
        self,
        future: "asyncio.Future[Result]",
        exchange: str,
        routing_key: str,
        body: bytes | bytearray | memoryview | str,
        properties: Mapping[str, Any] | None,
        app_id: str | None,
        options: Options,
        usual: Options,
    ) -> None:
        self.future = future
        self.number = next(_numbers)
        #: Where the outbox has stored it; None if it has not.
        self.key: tuple[int, int] | None = None
        # Names are remembered, by caches and as exchanges that RabbitMQ accepts.
        self.exchange = exchange = exchange if type(exchange) is str else plain(exchange)
        self.routing_key = routing_key = routing_key if type(routing_key) is str else plain(routing_key)
        #: Why it cannot be sent: an argument, property or option is invalid, or RabbitMQ would refuse it.
        self.invalid: InvalidMessage | None = None
        #: Seconds that it may wait.
        self.timeout: float | None = usual["timeout"]
        #: The loop's time at which it was handed to the transport; 0 until then.
        self.sent_at = 0.0
        #: How often RabbitMQ closed the channel while this was unconfirmed.
        self.blamed = 0
        #: Reply code and text of RabbitMQ's basic.return.
        self.returned: tuple[int, str] | None = None
        self.timer: asyncio.TimerHandle | None = None
        try:
            if type(properties) is not dict and properties is not None:
                properties = read_properties(properties)
            if options:
                usual = checked(options, usual)
                self.timeout = usual["timeout"]
            # Only RabbitMQ can check a user_id (https://www.rabbitmq.com/docs/validated-user-id), and the headers with
            # further routing keys; see `exchanges`.
            self.message_id, self.user_id, self.copies, self.properties = (
                encode_properties(int(time.time()), app_id, usual["persistent"])
                if properties is None
                else encode_properties(int(time.time()), app_id, usual["persistent"], **properties)
            )
            #: Basic.Publish, encoded.
            self.method = encode_method(exchange, routing_key, usual["mandatory"])
            self.body = body if type(body) is bytes else encode_body(body)
        except InvalidMessage as error:
            self._refuse(error, properties)
        except Exception:
            # Values may be of classes that raise anything. What is raised for another reason is a defect of ours.
            address = {"exchange": exchange, "routing_key": routing_key}
            refusal = unusable(properties, **address, body=body)
            if refusal is None:
                raise
            self._refuse(refusal, properties)

    def _refuse(self, refusal: InvalidMessage, properties: object) -> None:
        # Without its traceback and its context, which hold what was given.
        refusal.__context__ = None
        self.invalid = refusal.with_traceback(None)
        given = properties.get("message_id", FILLED_IN) if type(properties) is dict else FILLED_IN
        # Anything that is not an id cannot name the message.
        named = str(given) if isinstance(given, UUID) else plain(given) if isinstance(given, str) else None
        self.message_id = new_message_id() if given is FILLED_IN else named
        self.user_id, self.copies, self.method, self.properties, self.body = None, (), b"", b"", b""

    @classmethod
    def restored(
        cls,
        future: "asyncio.Future[Result]",
        key: tuple[int, int],
        message_id: str,
        address: tuple[str, str, str | None, Copies],
        octets: tuple[bytes, bytes, bytes],
        blamed: int,
    ) -> Self:
        """Make a message from what was stored: it was checked and encoded when it was published."""
        self = cls.__new__(cls)
        self.future, self.key, self.number = future, key, key[1]
        self.message_id = message_id
        self.exchange, self.routing_key, self.user_id, self.copies = address
        self.method, self.properties, self.body = octets
        self.blamed = blamed
        self.invalid = self.returned = self.timeout = self.timer = None
        self.sent_at = 0.0
        return self

    def copy(self, future: "asyncio.Future[Result]") -> "Message":
        """Return a copy, as it is stored, with its own future: its end is not the end of the publish."""
        assert self.key is not None
        address = self.exchange, self.routing_key, self.user_id, self.copies
        octets = self.method, self.properties, self.body
        return self.restored(future, self.key, self.message_id or "", address, octets, self.blamed)

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

    def refused(self, reply_code: int, reply_text: str) -> AMQPException:
        """Return the error for an exchange that RabbitMQ refuses; what was sent before may be in a queue."""
        if not self.sent_at:
            return ExchangeRefused(reply_code, reply_text)
        said = f"({reply_code}) {reply_text}"
        return OutcomeUnknown(f"it was sent, and the connection was lost; then RabbitMQ refused the exchange: {said}")

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
