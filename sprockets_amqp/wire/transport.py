"""The pika connection that the lifecycle opens: fewer, larger writes, and a direct path for confirms.

pika writes each frame of a message with a system call of its own, asks a socket that it has read whether there is more,
and takes each confirm through its general decoder and callback manager. This module sends everything from one turn of
the loop in one write, reads once a turn, and takes Basic.Ack and Basic.Nack as they arrive. Everything else is pika's.
The bytes on the wire are those that pika would send.

The internals of pika that it uses are listed in `pika_insides.py`.
"""

import asyncio
import contextlib
import functools
import logging
import socket
import struct
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

from pika import exceptions, frame, spec
from pika.adapters.tornado_connection import TornadoConnection
from pika.adapters.utils.nbio_interface import AbstractIOReference
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter
from pika.connection import Parameters
from tornado.ioloop import IOLoop

from sprockets_amqp.bounded_log import named
from sprockets_amqp.forks import close_copy
from sprockets_amqp.names import DEFAULT_NAME
from sprockets_amqp.text import shown

LOGGER = logging.getLogger(__name__)

#: Octets of one write: a larger one costs a copy each time the socket takes only a part.
WRITE_SIZE: Final = 1024 * 1024
#: Octets that are read at a time.
READ_SIZE: Final = 16 * 1024
#: Octets waiting for the socket that count as back pressure.
BACK_PRESSURE_MARK: Final = 4 * 1024 * 1024
#: Pieces of frames in one turn of the loop that count as back pressure; a small message has seven.
MAX_PIECES: Final = 70_000

#: The largest default of max_message_size in any version of RabbitMQ, in octets.
BODY_LIMIT: Final = 128 * 1024**2
#: Characters of a version that are read.
VERSION_LIMIT: Final = 40

FRAME_END: Final = b"\xce"
#: Class basic (60) and weight of a content header.
_CLASS: Final = 60 << 16
#: Type and channel of a frame, followed by its size; in a content header, by class, weight and body size as well; in a
#: body frame they follow the end of the frame before (AMQP 0-9-1, sections 4.2.3 and 4.2.6).
_pack_header_start: Final = struct.Struct(">3sIIQ").pack
_pack_body_start: Final = struct.Struct(">4sI").pack
#: Type, channel, size and class; method id, delivery tag, bits and frame end of Basic.Ack and Basic.Nack.
_unpack_confirms: Final = struct.Struct(">9sHQBB").iter_unpack
_START_SIZE: Final = 9
_CONFIRM_SIZE: Final = 21
_CONFIRM_METHODS: Final = {80: spec.Basic.Ack, 120: spec.Basic.Nack}


class Connection(TornadoConnection):
    """A TornadoConnection that joins the writes of one loop turn and reads confirms as they arrive.

    The callbacks are pika's (https://pika.readthedocs.io/en/stable/modules/adapters/tornado.html); on_back_pressure is
    called with the connection when more than 4 MiB wait for the socket, and again only after all of it has gone.
    on_hold is called with the connection and True while pika handles an event, and for good once it drops the stream:
    what is published then may meet a channel or connection that has been closed.
    """

    # pika's, but missing from its stubs.
    _transport: Any
    _frame_buffer: bytes
    _body_max_length: int
    bytes_received: int

    def __init__(
        self,
        parameters: Parameters,
        on_open_callback: Callable[[Any], None],
        on_open_error_callback: Callable[[Any, BaseException], None],
        on_close_callback: Callable[[Any, BaseException], None],
        on_back_pressure: Callable[[object], None],
        on_hold: Callable[["Connection", bool], None],
        io_loop: IOLoop,
        client_name: str = DEFAULT_NAME,
    ) -> None:
        self.client_name = client_name
        self._call_soon = io_loop.asyncio_loop.call_soon  # type: ignore[attr-defined]
        self._pieces: list[bytes | memoryview] = []
        #: Octets in all of them, approximately.
        self._size = 0
        self._is_flush_due = False
        self._lost = asyncio.Event()
        self._torn = b""
        self.use_channel(0, None)
        self._on_back_pressure = on_back_pressure
        self._on_hold = on_hold
        #: How many of pika's event handlers are running, one within another; and whether pika is dropping the stream.
        self._handlers = 0
        self._ending = False
        self._under_pressure = False
        self._services = services = _Services(io_loop)
        super().__init__(parameters, on_open_callback, on_open_error_callback, on_close_callback, services)

    @property
    def socket(self) -> "socket.socket | None":
        """The socket (with TLS, an `ssl.SSLSocket`), to set options on or ask for its peer; None if there is none.

        Do not send or receive on it: that is pika's business.
        """
        found: socket.socket | None = getattr(self._transport, "_sock", None)
        return found

    @property
    def unsent(self) -> int:
        """How many octets wait for the socket, approximately."""
        waiting: int = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return waiting + self._size

    @property
    def congested(self) -> bool:
        """Whether too much is waiting for the socket: confirms limit it, but not every client uses them."""
        return self.unsent > BACK_PRESSURE_MARK or len(self._pieces) > MAX_PIECES

    @property
    def body_limit(self) -> int:
        """The default max_message_size of the connected version of RabbitMQ, in octets; operators may change it.

        https://www.rabbitmq.com/docs/configure#config-items: 128 MiB, and 16 MiB since 4.0.
        """
        major = shown((self.server_properties or {}).get("version", ""), VERSION_LIMIT).partition(".")[0]
        return 16 * 1024**2 if major.isdecimal() and int(major) >= 4 else BODY_LIMIT

    @property
    def header_limit(self) -> int:
        """The most octets of properties that fit in one content header frame, as negotiated; they cannot be split."""
        return self._body_max_length - 12

    def use_channel(self, channel_number: int, on_confirm: Callable[[frame.Method[Any]], None] | None) -> None:
        """Publish on this channel from now on, and pass its confirms, if it has any, to the callback as they arrive."""
        self._channel_number = channel_number
        self._on_confirm = on_confirm
        self._method_start = struct.pack(">BH", 1, channel_number)
        self._header_start = struct.pack(">BH", 2, channel_number)
        self._body_start = FRAME_END + struct.pack(">BH", 3, channel_number)
        # Method frames (type 1) of 13 octets and class basic (60) on the channel: Basic.Ack, Basic.Nack, Basic.Reject.
        self._confirm_start = struct.pack(">BHIH", 1, channel_number, 13, 60)

    def publish(self, method: bytes, properties: bytes, body: bytes) -> None:
        """Send a message on the channel in use; it leaves with everything else that this turn of the loop sends.

        ``method`` and ``properties`` are what `encoding.encode_method` and `encoding.encode_properties` return.
        """
        size, header_size = len(body), len(properties) + 12
        pieces = self._pieces
        self._size += header_size + size
        if not self._is_flush_due:
            # Checked here too, to save most messages the call.
            self._flush_soon()
        header_start = _pack_header_start(self._header_start, header_size, _CLASS, size)
        if 0 < size <= self._body_max_length:
            body_start = _pack_body_start(self._body_start, size)
            pieces += (self._method_start, method, header_start, properties, body_start, body, FRAME_END)
            return
        pieces += (self._method_start, method, header_start, properties)
        view = memoryview(body)
        for start in range(0, size, self._body_max_length):
            part = view[start : start + self._body_max_length]
            pieces += (_pack_body_start(self._body_start, len(part)), part)
        pieces.append(FRAME_END)

    def abort(self) -> None:
        """Drop the connection now, without waiting for the broker; pika's callbacks may come later."""
        self._on_confirm = None
        self._pieces, self._size = [], 0
        if self.is_closed:
            return
        try:
            # Not ConnectionOpenAborted: in mid-handshake, that makes an assertion of pika's fail.
            self._terminate_stream(exceptions.AMQPConnectionError("dropped by the client"))
        except Exception as error:
            # pika's layers refuse if one of them is already closing.
            named(LOGGER, self.client_name).debug("aborting %s: %r", self, error)

    def abandon(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """In a forked child, close its descriptors; nothing is sent, and the parent's connection goes on.

        ``loop`` is the inherited loop, if it has a selector of the child's own: it forgets them.
        """
        self._on_confirm = None
        self._pieces, self._size = [], 0
        transport, self._transport = self._transport, None
        sockets = [*self._services.sockets, getattr(transport, "_sock", None)]
        for each in sockets:
            if isinstance(each, socket.socket):
                close_copy(each, loop)

    async def wait_closed(self) -> None:
        """Return when pika has let go of the socket."""
        if self._transport is not None:
            await self._lost.wait()

    def _adapter_emit_data(self, data: bytes) -> None:
        self._flush_soon()
        self._pieces.append(data)
        self._size += len(data)

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        pieces, size, self._pieces, self._size = self._pieces, self._size, [], 0
        if self._transport is None or not pieces:
            return
        # Until all of it has gone, it counts as the same pressure, however much waits in between.
        self._under_pressure = self._under_pressure and self._transport.get_write_buffer_size() > 0
        waits = False
        for data in _joined(pieces, size):
            sent = 0 if waits else self._send_now(data)
            if sent < len(data):
                waits = True
                self._transport.write(data[sent:] if sent else data)
        if waits:
            self._watch_pressure()

    def _send_now(self, data: bytes) -> int:
        """Send what the socket takes now, without asking the loop whether it is ready; return how many octets."""
        sock = getattr(self._transport, "_sock", None)
        if type(sock) is not socket.socket or self._transport.get_write_buffer_size():
            return 0
        try:
            return int(sock.send(data))
        except OSError:
            # It would block, or it is gone: pika finds out which, and reports it.
            return 0

    def _watch_pressure(self) -> None:
        if self.congested and not self._under_pressure:
            self._under_pressure = True
            self._on_back_pressure(self)

    def _proto_connection_made(self, transport: Any) -> None:
        # Otherwise pika reads until the socket would block. With a few confirms, that doubles the cost of reading; with
        # TLS, pika needs it.
        if type(getattr(transport, "_sock", None)) is socket.socket:
            transport._MAX_RECV_BYTES, transport._MAX_CONSUME_BYTES = READ_SIZE, 1  # noqa: SLF001
        super()._proto_connection_made(transport)  # type: ignore[misc]

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Hold back what is published, by the handler of a log record for example, while pika handles an event."""
        self._handlers += 1
        self._on_hold(self, True)
        try:
            yield
        finally:
            self._handlers -= 1
            if not self._handlers and not self._ending:
                self._on_hold(self, False)

    def _adapter_call_later(self, delay: float, callback: Callable[[], object]) -> object:
        def call() -> None:
            with self._held():
                callback()

        return super()._adapter_call_later(delay, call)  # type: ignore[misc]

    def _terminate_stream(self, error: Exception | None) -> None:
        self._ending = True
        self._on_hold(self, True)
        super()._terminate_stream(error)  # type: ignore[misc]

    def _proto_eof_received(self) -> bool:
        self._ending = True
        self._on_hold(self, True)
        return bool(super()._proto_eof_received())  # type: ignore[misc]

    def _proto_connection_lost(self, error: BaseException | None) -> None:
        try:
            with self._held():
                super()._proto_connection_lost(error)  # type: ignore[misc]
        finally:
            self._lost.set()

    def _proto_data_received(self, data: bytes) -> None:
        if self._on_confirm is not None and not self._frame_buffer:
            data = self._take_confirms(self._torn + data, self._on_confirm)
            # An incomplete confirm waits here for its rest, or pika would have to read all that comes after it.
            torn = len(data) < _CONFIRM_SIZE and data[:_START_SIZE] == self._confirm_start[: len(data)]
            self._torn = data if torn else b""
            # Whoever waited for these confirms goes on in the next turn; what they publish then leaves in that turn.
            self._flush_soon()
            if torn:
                return
        if data:
            with self._held():
                super()._proto_data_received(data)  # type: ignore[misc]

    def _take_confirms(self, data: bytes, on_confirm: Callable[[frame.Method[Any]], None]) -> bytes:
        """Read the confirms that data begins with; return the rest, for pika."""
        taken = 0
        channel_number, expected = self._channel_number, self._confirm_start
        whole = memoryview(data)[: len(data) // _CONFIRM_SIZE * _CONFIRM_SIZE]
        for start, method_id, delivery_tag, bits, end in _unpack_confirms(whole):
            if start != expected or end != 0xCE or method_id not in _CONFIRM_METHODS:
                break
            taken += _CONFIRM_SIZE
            method = _CONFIRM_METHODS[method_id](delivery_tag, bool(bits & 1))
            on_confirm(frame.Method(channel_number, method))
        self.bytes_received += taken
        return data[taken:]


def _joined(pieces: list[bytes | memoryview], size: int) -> Iterator[bytes]:
    """Join pieces of about that size together into writes of about WRITE_SIZE, each octet copied once."""
    # Usually it is one write, and looking at each piece would cost more than joining them.
    if size <= WRITE_SIZE:
        yield b"".join(pieces)
        return
    start = size = 0
    for end, piece in enumerate(pieces, 1):
        size += len(piece)
        if size >= WRITE_SIZE:
            yield b"".join(pieces[start:end])
            start, size = end, 0
    if size:
        yield b"".join(pieces[start:])


class _Services(SelectorIOServicesAdapter):
    """pika's view of the loop, with name look-ups that cannot delay the end of the process."""

    def __init__(self, native_loop: Any) -> None:
        super().__init__(native_loop)
        #: The sockets that are connecting, for as long as pika keeps them.
        self.sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def connect_socket(self, sock: socket.socket, *args: Any, **kwargs: Any) -> Any:
        """Connect a socket, as pika asks."""
        self.sockets.add(sock)
        return super().connect_socket(sock, *args, **kwargs)

    def getaddrinfo(
        self,
        host: str | bytes | None,
        port: str | bytes | int | None,
        on_done: Callable[[Any], None],
        family: int = 0,
        socktype: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> AbstractIOReference:
        """Look up a host in a thread of its own; on_done gets the records or the exception, on the loop."""
        return _Lookup(self, (host, port, family, socktype, proto, flags), on_done)


class _Lookup(AbstractIOReference):
    def __init__(self, services: _Services, query: tuple[Any, ...], on_done: Callable[[object], None]) -> None:
        self._services = services
        self._query = query
        self._on_done: Callable[[object], None] | None = on_done
        # pika's own look-up runs in a thread that the interpreter waits for at exit, however long DNS hangs.
        thread = threading.Thread(target=self._resolve, name="sprockets_amqp-getaddrinfo", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # There are no more threads, and pika would never hear of it.
            services.add_callback_threadsafe(functools.partial(self._report, error))

    def cancel(self) -> bool:
        """Forget the look-up; return False if it has already been reported."""
        pending, self._on_done = self._on_done is not None, None
        return pending

    def _resolve(self) -> None:
        result: object
        try:
            result = socket.getaddrinfo(*self._query)
        except Exception as error:
            result = error
        try:
            self._services.add_callback_threadsafe(functools.partial(self._report, result))
        except RuntimeError:
            LOGGER.debug("the loop closed while %s was looked up", self._query[0])

    def _report(self, result: object) -> None:
        callback, self._on_done = self._on_done, None
        if callback is not None:
            callback(result)
