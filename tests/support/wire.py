"""A connection without a network: the wire is a list of octets, and the broker is what the test feeds."""

from collections.abc import Callable
from typing import Any, Final

import pika
from pika import frame, spec
from pika.adapters.tornado_connection import TornadoConnection
from pika.channel import Channel
from tornado.ioloop import IOLoop

from sprockets_amqp.delivery.encoding import encode_properties
from sprockets_amqp.wire.transport import Connection

FRAME_MAX: Final = 4096
BODY_MAX: Final = FRAME_MAX - 8


def encoded(properties: dict[str, Any]) -> bytes:
    """Return the octets of properties; no id is made."""
    return encode_properties(**{"message_id": None, **properties})[-1]


class Wire:
    """Stands where pika's transport stands, and keeps what is written."""

    def __init__(self) -> None:
        self.data = b""
        self.aborted = False

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.data += data

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def abort(self) -> None:
        """Take note."""
        self.aborted = True

    def taken(self) -> bytes:
        """Return what was written, and forget it."""
        data, self.data = self.data, b""
        return data


def ignore(*_args: object) -> None:
    """Do nothing."""


class Unconnected(Connection):
    """Ours, before anything connects it."""

    def __init__(self, io_loop: IOLoop, on_back_pressure: Callable[[object], None] = ignore) -> None:
        super().__init__(pika.ConnectionParameters(), ignore, ignore, ignore, on_back_pressure, ignore, io_loop)

    def _adapter_connect_stream(self) -> None:
        """Wait for the test to connect it."""


class Plain(TornadoConnection):
    """pika's own, before anything connects it."""

    def __init__(self, io_loop: IOLoop) -> None:
        super().__init__(pika.ConnectionParameters(), ignore, ignore, ignore, custom_ioloop=io_loop)

    def _adapter_connect_stream(self) -> None:
        """Wait for the test to connect it."""


def feed(connection: Any, *frames: Any) -> None:
    """Let frames arrive."""
    connection._proto_data_received(b"".join(each if isinstance(each, bytes) else each.marshal() for each in frames))


def method(channel_number: int, spec_method: Any) -> Any:
    """Make a method frame."""
    return frame.Method(channel_number, spec_method)


def open_connection(connection: Any, transport: Any) -> Any:
    """Take a connection through AMQP's handshake; returns it."""
    connection._proto_connection_made(transport)
    capabilities = {"publisher_confirms": True, "basic.nack": True, "connection.blocked": True}
    feed(connection, method(0, spec.Connection.Start(0, 9, {"capabilities": capabilities}, "PLAIN", "en_US")))
    feed(connection, method(0, spec.Connection.Tune(10, FRAME_MAX, 0)), method(0, spec.Connection.OpenOk()))
    assert connection.is_open
    return connection


def open_channel(connection: Any, number: int, on_confirm: Callable[[Any], None] = ignore) -> Channel:
    """Open a channel in confirm mode."""
    channel: Channel = connection.channel(channel_number=number)
    feed(connection, method(number, spec.Channel.OpenOk()))
    channel.confirm_delivery(on_confirm)
    feed(connection, method(number, spec.Confirm.SelectOk()))
    return channel


def ours(io_loop: IOLoop) -> tuple[Any, Wire]:
    """Make our connection, open, and its wire."""
    wire = Wire()
    connection = open_connection(Unconnected(io_loop), wire)
    connection.use_channel(1, None)
    connection._flush()
    wire.taken()
    return connection, wire


def pikas(io_loop: IOLoop) -> tuple[Any, Wire]:
    """Make pika's connection, open, and its wire."""
    wire = Wire()
    connection = open_connection(Plain(io_loop), wire)
    wire.taken()
    return connection, wire
