"""A message: its default properties, and what goes on the wire."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from .defaults import around_message_id, new_message_id
from .encoding import encode_body, encode_method, encode_properties, unhashable
from .errors import InvalidMessage


class Message:
    """One publish: what goes on the wire, the future that tells its end, and how far it came.

    Raises:
        InvalidMessage: an argument or property cannot be sent, or RabbitMQ would refuse it.
    """

    __slots__ = (
        "body",
        "exchange",
        "future",
        "message_id",
        "method",
        "properties",
        "refusals",
        "returned",
        "routing_key",
        "sent_at",
        "timer",
        "user_id",
    )

    def __init__(
        self,
        future: "asyncio.Future[None]",
        exchange: str,
        routing_key: str,
        body: bytes | str,
        properties: Mapping[str, Any] | None,
        app_id: str | None,
        mandatory: bool,
    ) -> None:
        self.future = future
        self.exchange = exchange
        self.routing_key = routing_key
        self.message_id: str | None = None
        #: Only RabbitMQ can judge it (https://www.rabbitmq.com/docs/validated-user-id); see `exchanges`.
        self.user_id: str | None = None
        try:
            #: The property flags and list of the content header, encoded.
            self.properties: bytes
            if properties is None:
                self.message_id = new_message_id()
                before, after = around_message_id(int(time.time()), app_id)
                self.properties = before + self.message_id.encode() + after
            else:
                filled = _fill(properties, app_id)
                self.message_id = filled["message_id"]
                self.user_id = filled.get("user_id")
                self.properties = encode_properties(filled)
            #: The arguments of Basic.Publish, encoded.
            self.method = encode_method(exchange, routing_key, mandatory)
            self.body = body if type(body) is bytes else encode_body(body)
        except InvalidMessage as error:
            error.about(self.message_id, exchange, routing_key)
            raise
        except TypeError:
            # What was encoded before is looked up, and what is not hashable can't be. Any other is a defect of ours.
            arguments = {"exchange": exchange, "routing_key": routing_key, "mandatory": mandatory}
            refused = unhashable({**(properties or {}), "headers": None, **arguments})
            if refused is None:
                raise
            raise refused.about(self.message_id, exchange, routing_key) from None
        #: The loop's time at which it was handed to the transport; 0 until then.
        self.sent_at = 0.0
        #: How often RabbitMQ closed the channel while this was unconfirmed.
        self.refusals = 0
        #: Reply code and text of RabbitMQ's basic.return.
        self.returned: tuple[int, str] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Message {self.message_id} to {self.exchange!r} with {self.routing_key!r}, {len(self.body)} bytes>"


def _fill(properties: object, app_id: str | None) -> dict[str, Any]:
    if not isinstance(properties, Mapping):
        raise InvalidMessage("properties", f"must be a dict of AMQP properties, not {type(properties).__name__}")
    return {"message_id": new_message_id(), "timestamp": int(time.time()), "app_id": app_id, **properties}
