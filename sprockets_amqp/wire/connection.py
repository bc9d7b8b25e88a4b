"""The pika connection that the lifecycle opens: AMQP by pika, over a transport that is given to it.

`pika.connection.Connection` speaks AMQP and knows no socket; the methods that it wants of an adapter are here. All that
one turn of the loop sends leaves in one write, incoming data is cut into frames before pika reads it, and Basic.Ack and
Basic.Nack are read here, past pika's general decoder and callback manager. The bytes on the wire are those that pika
would send.

The internals of pika that it uses are listed in `pika_insides.py`.
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import pika.connection
from pika import frame, spec
from pika.connection import Parameters
from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    ConnectionClosedByBroker,
    InvalidFrameError,
    StreamLostError,
)
from tornado.ioloop import IOLoop

from sprockets_amqp.bounded_log import named
from sprockets_amqp.names import DEFAULT_NAME
from sprockets_amqp.text import shown

from .addresses import Address, Unreachable
from .failed import AttemptFailed, plainly
from .network import LOGIN, TCP, VHOST, Network, SocketAddress, Transport

LOGGER = logging.getLogger(__name__)

#: Octets that the transport is given at a time: before Python 3.12, asyncio moves all that it holds at each write.
WRITE_SIZE: Final = 1024 * 1024
#: Octets waiting for the socket that count as back pressure.
BACK_PRESSURE_MARK: Final = 4 * 1024 * 1024
#: Pieces of frames that count as back pressure; a small message has seven.
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
_CONFIRM_SIZE: Final = 21
#: Type, channel and size of a frame; class and method of a method frame, or weight and body size of a content header.
_unpack_frame: Final = struct.Struct(">BHI").unpack_from
_unpack_method: Final = struct.Struct(">HH").unpack_from
_unpack_body_size: Final = struct.Struct(">4xQ").unpack_from
_FRAME_START: Final = 7
#: The octets of a frame around what it holds.
_AROUND: Final = 8
_FRAME_TYPES: Final = frozenset({spec.FRAME_METHOD, spec.FRAME_HEADER, spec.FRAME_BODY, spec.FRAME_HEARTBEAT})
_RETURN: Final = (60, 50)
_CONFIRM_METHODS: Final = {80: spec.Basic.Ack, 120: spec.Basic.Nack}


class Connection(pika.connection.Connection):
    """pika's connection, over a transport that a network opens.

    The callbacks are pika's (https://pika.readthedocs.io/en/stable/modules/connection.html): if it cannot be opened,
    on_open_error_callback is called with an `AttemptFailed`. on_back_pressure is called with the connection when more
    than 4 MiB wait for the socket, and again only after all of it has gone. on_hold is called with the connection and
    True while pika handles an event, and for good once it drops the stream: what is published then may meet a channel
    or connection that has been closed. on_step is called with each step of connecting that is done, and what it found.

    Attributes:
        ioloop: the Tornado loop that it runs on.
        client_name: the name of its client, for the log.
        reached: the address that was tried last, or None.
    """

    # pika's, but missing from its stubs.
    _body_max_length: int
    bytes_received: int

    def __init__(
        self,
        parameters: Parameters,
        on_open_callback: Callable[[Any], None],
        on_open_error_callback: Callable[[Any, AttemptFailed], None],
        on_close_callback: Callable[[Any, BaseException], None],
        on_back_pressure: Callable[[object], None],
        on_hold: Callable[["Connection", bool], None],
        io_loop: IOLoop,
        network: Network,
        *,
        behind: SocketAddress | None = None,
        on_step: Callable[[str, str], object] | None = None,
        client_name: str = DEFAULT_NAME,
    ) -> None:
        self.ioloop = io_loop
        self.client_name = client_name
        self.reached: SocketAddress | None = None
        self._loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop  # type: ignore[attr-defined]
        self._call_soon = self._loop.call_soon
        self._network = network
        self._behind = behind
        self._on_step = on_step
        self._on_open_error = on_open_error_callback
        #: How far connecting has got, and at which address.
        self._step = self._address = ""
        #: The addresses that were tried, and why those that failed did.
        self._accepting: dict[SocketAddress, BaseException | None] = {}
        self._transport: Transport | None = None
        #: What this turn of the loop sends; octets in all of it, approximately.
        self._pieces: list[bytes | memoryview] = []
        self._size = 0
        self._is_flush_due = False
        #: What the socket has not been given yet, because it has not taken what it was given; and its octets.
        self._backlog: deque[bytes | memoryview] = deque()
        self._backlog_size = 0
        self._paused = False
        self._when_sent: Callable[[], object] | None = None
        #: The beginning of a frame that is not complete.
        self._rest = b""
        #: The largest body that was published; whether a return of a message has begun; whether nothing more is read.
        self._largest = 0
        self._returning = False
        self._broken = False
        self.use_channel(0, None)
        self._on_back_pressure = on_back_pressure
        self._on_hold = on_hold
        #: How many of pika's event handlers are running, one within another; whether the stream is being dropped; and
        #: how it ended, if that was not the client's doing.
        self._handlers = 0
        self._ending = False
        self._said: ConnectionClosedByBroker | StreamLostError | None = None
        self._lost = asyncio.Event()
        self._under_pressure = False
        super().__init__(parameters, on_open_callback, self._tell_open_error, on_close_callback)

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closing" if self.is_closing else "closed" if self.is_closed else self._step
        return f"<Connection {shown(self.params.host)}:{self.params.port} {state}>"

    @property
    def socket(self) -> "socket.socket | None":
        """The socket, to set options on or to ask for its peer and, with TLS, its certificate; None if there is none.

        Do not send or receive on it: the loop does.
        """
        return self._transport.socket if self._transport is not None else None

    @property
    def unsent(self) -> int:
        """How many octets wait for the socket, approximately."""
        waiting = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return waiting + self._backlog_size + self._size

    @property
    def congested(self) -> bool:
        """Whether too much is waiting for the socket: confirms limit it, but not every client uses them."""
        return self.unsent > BACK_PRESSURE_MARK or len(self._pieces) + len(self._backlog) > MAX_PIECES

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
        if size > self._largest:  # noqa: PLR1730 - max() would cost several times as much
            self._largest = size
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

    def call_when_sent(self, callback: Callable[[], object]) -> None:
        """Call back once, when the socket has taken everything; never if the connection is lost before."""
        self._when_sent = callback
        self._flush_soon()

    def abort(self) -> None:
        """Drop the connection now, without waiting for the broker; pika's callbacks may come later."""
        self._on_confirm = self._when_sent = None
        self._forget_unsent()
        if not self.is_closed:
            self._terminate_stream(AMQPConnectionError("dropped by the client"))

    def abandon(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """In a forked child, close its descriptors; nothing is sent, and the parent's connection goes on.

        ``loop`` is the inherited loop, if it has a selector of the child's own: it forgets them.
        """
        self._on_confirm = self._when_sent = None
        self._forget_unsent()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abandon(loop)
        else:
            self._opening.abandon(loop)

    async def wait_closed(self) -> None:
        """Return when every socket is closed."""
        await self._lost.wait()

    # What pika wants of an adapter

    def _adapter_connect_stream(self) -> None:
        self._opening = self._network.reach(self.params, self, self._loop, self._behind)

    def _adapter_disconnect_stream(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        else:
            self._opening.abort()

    def _adapter_emit_data(self, data: bytes) -> None:
        self._flush_soon()
        self._pieces.append(data)
        self._size += len(data)

    def _adapter_call_later(self, delay: float, callback: Callable[[], object]) -> object:
        def call() -> None:
            with self._held():
                callback()

        return self._loop.call_later(delay, call)

    def _adapter_remove_timeout(self, timeout_id: Any) -> None:
        timeout_id.cancel()

    def _adapter_add_callback_threadsafe(self, callback: Callable[..., object]) -> None:
        self._loop.call_soon_threadsafe(callback)

    def _terminate_stream(self, error: Exception | None) -> None:
        self._ending = True
        if isinstance(error, ConnectionClosedByBroker):
            self._said = error
        self._on_hold(self, True)
        super()._terminate_stream(error)  # type: ignore[misc]

    # What the network tells while it opens the transport

    def enter(self, step: str, address: str = "", found: str = "") -> None:
        """Take note of the next step of connecting; ``found`` says for people what the one before has found."""
        before, self._step = self._step, step
        self._address = address or self._address
        if before and self._on_step is not None:
            self._on_step(before, found)

    def at(self, address: SocketAddress, error: BaseException | None = None) -> None:
        """Take note of the address that is tried, or why it does not accept the connection."""
        if error is None:
            self.reached = address
        self._accepting[address] = error

    def failed(self, error: Exception) -> None:
        """Called when the transport could not be opened."""
        self._end(error)

    def connected(self, transport: Transport, found: str = "") -> None:
        """Called when the transport is open: AMQP's handshake begins."""
        if self._ending:
            # It was stopped in the meantime.
            transport.abort()
            return
        self._transport = transport
        if self._step != LOGIN:
            self.enter(LOGIN, found=found)
        with self._caught():
            self._on_stream_connected()  # type: ignore[attr-defined]

    def failure(self, cause: BaseException) -> AttemptFailed:
        """Return the error that says at which step connecting fails, and why."""
        host, port = self.params.host, self.params.port
        if self._step == TCP and isinstance(cause, TimeoutError) and self._accepting:
            cause = Unreachable([(Address(0, each), error or cause) for each, error in self._accepting.items()])
        return AttemptFailed(self._present_step, host, port, self._address, cause, self._said)

    @property
    def _present_step(self) -> str:
        opens_vhost = self._transport is not None and self.connection_state == self.CONNECTION_TUNE
        return VHOST if opens_vhost else self._step

    def _tell_open_error(self, _connection: object, error: BaseException) -> None:
        self._on_open_error(self, self.failure(error))

    # What leaves

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        pieces, size, self._pieces, self._size = self._pieces, self._size, [], 0
        transport = self._transport
        if transport is None or self._ending:
            return
        if pieces and size <= WRITE_SIZE and not self._paused and not self._backlog:
            transport.write(b"".join(pieces))
        elif pieces:
            self._backlog.extend(pieces)
            self._backlog_size += size
            self._hand_over(transport)
        if self._paused:
            self._watch_pressure()
        elif self._when_sent is not None or self._under_pressure:
            self._tell_sent()

    def _hand_over(self, transport: Transport) -> None:
        """Give the transport about WRITE_SIZE octets at a time, for as long as the socket takes them at once."""
        backlog = self._backlog
        while backlog and not self._paused:
            pieces: list[bytes | memoryview] = []
            size = 0
            while backlog and size < WRITE_SIZE:
                piece = backlog.popleft()
                if len(piece) > WRITE_SIZE:
                    view = memoryview(piece)
                    piece = view[:WRITE_SIZE]
                    backlog.appendleft(view[WRITE_SIZE:])
                pieces.append(piece)
                size += len(piece)
            self._backlog_size = max(0, self._backlog_size - size) if backlog else 0
            transport.write(b"".join(pieces))

    def pause_writing(self) -> None:
        """Called when the socket does not take more for now."""
        self._paused = True

    def resume_writing(self) -> None:
        """Called when the socket has taken everything."""
        self._paused = False
        if self._transport is not None:
            self._hand_over(self._transport)
            if not self._paused:
                self._tell_sent()

    def _tell_sent(self) -> None:
        # Until all of it has gone, it counts as the same pressure, however much waits in between.
        self._under_pressure = False
        callback, self._when_sent = self._when_sent, None
        if callback is not None:
            callback()

    def _watch_pressure(self) -> None:
        if self.congested and not self._under_pressure:
            self._under_pressure = True
            self._on_back_pressure(self)

    def _forget_unsent(self) -> None:
        self._pieces, self._size = [], 0
        self._backlog.clear()
        self._backlog_size = 0

    # What arrives

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

    @contextlib.contextmanager
    def _caught(self) -> Iterator[None]:
        """Hold back as well, and drop the stream if pika or a callback raises: the loop would only log it."""
        try:
            with self._held():
                yield
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        # Where the next frame begins is not known any more.
        self._broken = True
        if not isinstance(error, AMQPError):
            named(LOGGER, self.client_name).exception("the connection is dropped, because handling a frame raised")
        if not self._ending:
            self._terminate_stream(error)

    def received(self, data: bytes) -> None:
        """Called with what the peer has sent: pass on what is complete, and keep the rest."""
        if self._broken:
            return
        if self._rest:
            data, self._rest = self._rest + data, b""
        start = 0
        if self._on_confirm is not None:
            try:
                start = self._take_confirms(data, start, self._on_confirm)
            except Exception as error:
                self._give_up(error)
                return
            # Whoever waited for these confirms goes on in the next turn; what they publish then leaves in that turn.
            self._flush_soon()
        if start < len(data):
            with self._caught():
                start = self._take_frames(data, start)
            self._rest = data[start:]

    def _take_frames(self, data: bytes, start: int) -> int:
        """Pass frames to pika, one at a time, and return where the first incomplete one starts.

        Raises:
            InvalidFrameError: a frame, or the body of a returned message, is larger than can be.
        """
        while len(data) - start >= _FRAME_START:
            if data[start : start + 4] == b"AMQP":
                # The protocol header of a server that speaks another version: pika knows what that means.
                end = start + 8
            else:
                frame_type, channel_number, size = _unpack_frame(data, start)
                if frame_type not in _FRAME_TYPES:
                    raise InvalidFrameError(f"this is not AMQP: {data[start : start + 40]!r}")
                whole, limit = size + _AROUND, self.params.frame_max
                if whole > limit:
                    raise InvalidFrameError(f"RabbitMQ announced a frame of {whole} octets, above frame_max ({limit})")
                end = start + whole
                if channel_number == self._channel_number:
                    self._check_returned(frame_type, data, start + _FRAME_START)
            if end > len(data):
                break
            self._take_frame(data[start:end])
            start = end
            if self._on_confirm is not None:
                start = self._take_confirms(data, start, self._on_confirm)
        return start

    def _take_frame(self, data: bytes) -> None:
        try:
            _, decoded = frame.decode_frame(data)
        except AMQPError:
            raise
        except Exception as error:
            # struct.error, KeyError, UnicodeDecodeError ...
            raise InvalidFrameError(f"a frame cannot be decoded: {error!r}") from error
        self.bytes_received += len(data)
        if decoded is not None:
            self._process_frame(decoded)  # type: ignore[attr-defined]

    def _check_returned(self, frame_type: int, data: bytes, start: int) -> None:
        if frame_type == spec.FRAME_METHOD and len(data) >= start + 4:
            self._returning = self._returning or _unpack_method(data, start) == _RETURN
        elif frame_type == spec.FRAME_HEADER and len(data) >= start + 12:
            # Nothing else comes on this channel, unless the application has asked for it.
            limit, self._returning = self._largest if self._returning else BODY_LIMIT, False
            (size,) = _unpack_body_size(data, start)
            if size > limit:
                raise InvalidFrameError(
                    f"RabbitMQ announced a returned body of {size} octets, larger than any published ({limit})"
                )

    def _take_confirms(self, data: bytes, start: int, on_confirm: Callable[[frame.Method[Any]], None]) -> int:
        """Read the confirms that begin there; return where they end."""
        end = len(data) - (len(data) - start) % _CONFIRM_SIZE
        if end == start:
            return start
        channel_number, expected = self._channel_number, self._confirm_start
        first = start
        whole = data if start == 0 and end == len(data) else memoryview(data)[start:end]
        for frame_start, method_id, delivery_tag, bits, frame_end in _unpack_confirms(whole):
            if frame_start != expected or frame_end != 0xCE or method_id not in _CONFIRM_METHODS:
                break
            start += _CONFIRM_SIZE
            method = _CONFIRM_METHODS[method_id](delivery_tag, bool(bits & 1))
            on_confirm(frame.Method(channel_number, method))
        self.bytes_received += start - first
        return start

    def hung_up(self) -> None:
        """Called when the peer has closed its end."""
        if not self._ending:
            self._said = StreamLostError("the other side closed the connection")
            self._ending = True
            self._on_hold(self, True)

    def lost(self, error: Exception | None) -> None:
        """Called when the transport is gone: pika tells the callbacks."""
        if not self._ending and self._transport is None:
            self._end(ConnectionAbortedError("the application has cancelled the task that connects"))
            return
        if not self._ending:
            why = plainly(error) if error is not None else "the application has closed it"
            self._said = StreamLostError(f"the connection was lost: {why}")
            self._said.__cause__ = error
        self._end(self._said if isinstance(self._said, StreamLostError) else None)

    def _end(self, error: Exception | None) -> None:
        if self._lost.is_set():
            return
        self._lost.set()
        # pika forgets how far the handshake has got.
        self._step = self._present_step
        self._ending = True
        self._transport = None
        try:
            with self._held():
                self._on_stream_terminated(error)  # type: ignore[attr-defined]
        except Exception:
            named(LOGGER, self.client_name).exception("a callback raised when the connection ended")
