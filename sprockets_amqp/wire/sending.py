"""What leaves: all that one iteration of the event loop sends goes out in one write, and no faster than the socket."""

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from pika.spec import FRAME_MAX_SIZE

from .network import Transport

#: Octets that the transport is given at a time: before Python 3.12, asyncio moves all that it holds at each write.
WRITE_SIZE: Final = 1024 * 1024
#: Octets waiting for the socket that count as back pressure.
BACK_PRESSURE_MARK: Final = 4 * 1024 * 1024
#: Pieces of frames that count as back pressure; a small message has seven.
MAX_PIECES: Final = 70_000

FRAME_END: Final = b"\xce"
#: Class basic (60) and weight of a content header.
_CLASS: Final = 60 << 16
#: Type and channel of a frame, followed by its size; in a content header, by class, weight and body size as well; in a
#: body frame they follow the end of the frame before (AMQP 0-9-1, sections 4.2.3 and 4.2.6).
_pack_header_start: Final = struct.Struct(">3sIIQ").pack
_pack_body_start: Final = struct.Struct(">4sI").pack


class Sending:
    """The frames that wait for the socket.

    Attributes:
        transport: takes what leaves; None if there is none.
        largest: the octets of the largest body that was published.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_pressure: Callable[[], object]) -> None:
        self.transport: Transport | None = None
        self.largest = 0
        self._call_soon = loop.call_soon
        self._on_pressure = on_pressure
        #: What this iteration sends; octets in all of it, approximately.
        self._pieces: list[bytes | memoryview] = []
        self._size = 0
        self._is_flush_due = False
        #: What the socket has not been given yet, because it has not taken what it was given; and its octets.
        self._backlog: deque[bytes | memoryview] = deque()
        self._backlog_size = 0
        self._paused = False
        self._under_pressure = False
        self._when_sent: Callable[[], object] | None = None
        self.use_channel(0, FRAME_MAX_SIZE - 8)

    @property
    def unsent(self) -> int:
        """How many octets wait for the socket, approximately."""
        waiting = self.transport.get_write_buffer_size() if self.transport is not None else 0
        return waiting + self._backlog_size + self._size

    @property
    def congested(self) -> bool:
        """Whether too much is waiting for the socket: confirms limit it, but not every client uses them."""
        return self.unsent > BACK_PRESSURE_MARK or len(self._pieces) + len(self._backlog) > MAX_PIECES

    def use_channel(self, channel_number: int, body_limit: int) -> None:
        """Publish on this channel from now on, with at most so many octets of a body in each frame."""
        self._method_start = struct.pack(">BH", 1, channel_number)
        self._header_start = struct.pack(">BH", 2, channel_number)
        self._body_start = FRAME_END + struct.pack(">BH", 3, channel_number)
        self._body_limit = body_limit

    def publish(self, method: bytes, properties: bytes, body: bytes) -> None:
        """Send a message on the channel in use; it leaves with everything else that this iteration sends.

        ``method`` and ``properties`` are what `encoding.encode_method` and `encoding.encode_properties` return.
        """
        size, header_size = len(body), len(properties) + 12
        pieces = self._pieces
        if size > self.largest:  # noqa: PLR1730 - max() would cost several times as much
            self.largest = size
        self._size += header_size + size
        if not self._is_flush_due:
            # Checked here too, to save most messages the call.
            self.flush_soon()
        header_start = _pack_header_start(self._header_start, header_size, _CLASS, size)
        if 0 < size <= self._body_limit:
            body_start = _pack_body_start(self._body_start, size)
            pieces += (self._method_start, method, header_start, properties, body_start, body, FRAME_END)
            return
        pieces += (self._method_start, method, header_start, properties)
        view = memoryview(body)
        for start in range(0, size, self._body_limit):
            part = view[start : start + self._body_limit]
            pieces += (_pack_body_start(self._body_start, len(part)), part)
        pieces.append(FRAME_END)

    def emit(self, data: bytes) -> None:
        """Send what pika has encoded."""
        self.flush_soon()
        self._pieces.append(data)
        self._size += len(data)

    def call_when_sent(self, callback: Callable[[], object]) -> None:
        """Call back once, when the socket has taken everything; never if the connection is lost before."""
        self._when_sent = callback
        self.flush_soon()

    def flush_soon(self) -> None:
        """Write once in the next iteration of the event loop."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self._call_soon(self._flush)

    def forget(self) -> None:
        """Forget everything that has not been sent: the connection is dropped."""
        self._when_sent = None
        self._pieces, self._size = [], 0
        self._backlog.clear()
        self._backlog_size = 0

    def pause(self) -> None:
        """Called when the socket does not take more for now."""
        self._paused = True

    def resume(self) -> None:
        """Called when the socket has taken everything."""
        self._paused = False
        if self.transport is not None:
            self._hand_over(self.transport)
            if not self._paused:
                self._tell_sent()

    def _flush(self) -> None:
        self._is_flush_due = False
        pieces, size, self._pieces, self._size = self._pieces, self._size, [], 0
        transport = self.transport
        if transport is None:
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

    def _tell_sent(self) -> None:
        # Until all of it has gone, it counts as the same pressure, however much waits meanwhile.
        self._under_pressure = False
        callback, self._when_sent = self._when_sent, None
        if callback is not None:
            callback()

    def _watch_pressure(self) -> None:
        if self.congested and not self._under_pressure:
            self._under_pressure = True
            self._on_pressure()
