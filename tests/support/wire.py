"""A connection without a network: the wire is a list of octets, and the broker is what the test feeds."""

from collections.abc import Callable
from typing import Any, Final

import pika
from pika import frame, spec
from pika.channel import Channel
from tornado.ioloop import IOLoop

from sprockets_amqp.delivery.encoding import encode_properties
from sprockets_amqp.wire.connection import Connection

FRAME_MAX: Final = 8192
BODY_MAX: Final = FRAME_MAX - 8


def encoded(properties: dict[str, Any]) -> bytes:
    """Return the octets of properties; no id is made."""
    return encode_properties(**{"message_id": None, **properties})[-1]


class Wire:
    """Stands where the transport stands, and keeps what is written."""

    socket = None

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

    def abandon(self, _loop: object) -> None:
        """Take note."""
        self.aborted = True

    def taken(self) -> bytes:
        """Return what was written, and forget it."""
        data, self.data = self.data, b""
        return data


def ignore(*_args: object) -> None:
    """Do nothing."""


class Nowhere:
    """A network that opens nothing: the test connects what it makes."""

    def reach(self, *_: object) -> "Nowhere":
        """Wait for the test."""
        return self

    def abort(self) -> None:
        """Nothing was begun."""

    def abandon(self, _loop: object) -> None:
        """Nothing was begun."""


class Unconnected(Connection):
    """Ours, before anything connects it."""

    def __init__(self, io_loop: IOLoop, on_back_pressure: Callable[[object], None] = ignore) -> None:
        parameters = pika.ConnectionParameters()
        super().__init__(parameters, ignore, ignore, ignore, on_back_pressure, ignore, io_loop, Nowhere())


class Plain(pika.connection.Connection):
    """pika's own, over a wire that the test gives it."""

    def __init__(self) -> None:
        self.wire = Wire()
        super().__init__(pika.ConnectionParameters(), ignore, ignore, ignore)

    def connected(self, _wire: Wire) -> None:
        """Begin to speak."""
        self._on_stream_connected()  # type: ignore[attr-defined]

    def received(self, data: bytes) -> None:
        """Read."""
        self._on_data_available(data)  # type: ignore[attr-defined]

    def _adapter_emit_data(self, data: bytes) -> None:
        self.wire.write(data)

    def _adapter_connect_stream(self) -> None:
        """Wait for the test to connect it."""

    def _adapter_disconnect_stream(self) -> None:
        """It stays."""

    def _adapter_call_later(self, _delay: float, _callback: Callable[[], object]) -> object:
        """Never."""
        return None

    def _adapter_remove_timeout(self, _timeout_id: object) -> None:
        """There is none."""

    def _adapter_add_callback_threadsafe(self, _callback: Callable[..., object]) -> None:
        """Never."""


def feed(connection: Any, *frames: Any) -> None:
    """Let frames arrive."""
    connection.received(b"".join(each if isinstance(each, bytes) else each.marshal() for each in frames))


def method(channel_number: int, spec_method: Any) -> Any:
    """Make a method frame."""
    return frame.Method(channel_number, spec_method)


def open_connection(connection: Any, transport: Any) -> Any:
    """Take a connection through AMQP's handshake; returns it."""
    connection.connected(transport)
    return shake_hands(connection)


def shake_hands(connection: Any) -> Any:
    """Say what a server says in AMQP's handshake; returns the connection."""
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
    connection._sending._flush()
    wire.taken()
    return connection, wire


def pikas() -> tuple[Any, Wire]:
    """Make pika's connection, open, and its wire."""
    plain = Plain()
    open_connection(plain, plain.wire)
    plain.wire.taken()
    return plain, plain.wire
