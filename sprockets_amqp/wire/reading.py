"""What arrives, cut into frames: confirms are read here, past pika's general decoder; the rest is passed to pika."""

import contextlib
import struct
from collections.abc import Callable
from typing import Any, Final

from pika import frame, spec
from pika.exceptions import AMQPError, InvalidFrameError

#: The largest default of max_message_size in any version of RabbitMQ, in octets.
BODY_LIMIT: Final = 128 * 1024**2
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

#: Receives each ack and nack.
OnConfirm = Callable[[frame.Method[Any]], None]


class Reading:
    """What the peer has sent and is not yet complete.

    Args:
        take: passes a decoded frame, and its octets, to pika.
        caught: a context in which pika and callbacks run; what they raise ends the connection.
        give_up: ends the connection over an error.
        flush_soon: has what callbacks publish leave in the next iteration of the event loop.

    Attributes:
        frame_max: the most octets of a frame.
        on_confirm: receives each ack and nack of the channel in use; None: pika does.
        largest: returns the octets of the largest body that was published.
    """

    def __init__(
        self,
        take: Callable[[Any, int], object],
        caught: Callable[[], contextlib.AbstractContextManager[None]],
        give_up: Callable[[Exception], object],
        flush_soon: Callable[[], object],
        largest: Callable[[], int],
        frame_max: Callable[[], int],
    ) -> None:
        self._take = take
        self._caught = caught
        self._give_up = give_up
        self._flush_soon = flush_soon
        self._largest = largest
        self._frame_max = frame_max
        #: The beginning of a frame that is not complete.
        self._rest = b""
        #: Whether a return of a message has begun, and whether nothing more is read.
        self._returning = False
        self._broken = False
        self.use_channel(0, None)

    def use_channel(self, channel_number: int, on_confirm: OnConfirm | None) -> None:
        """Pass the confirms of this channel, if it has any, to the callback as they arrive."""
        self._channel_number = channel_number
        self._on_confirm = on_confirm
        # Method frames (type 1) of 13 octets and class basic (60) on the channel: Basic.Ack, Basic.Nack, Basic.Reject.
        self._confirm_start = struct.pack(">BHIH", 1, channel_number, 13, 60)

    def forget(self) -> None:
        """Report no more confirms: the connection is dropped."""
        self._on_confirm = None

    def stop(self) -> None:
        """Read nothing more: where the next frame begins is not known any more."""
        self._broken = True

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
            # Coroutines that wait for these confirms resume in the next iteration; what they publish leaves then, too.
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
                whole, limit = size + _AROUND, self._frame_max()
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
        self._take(decoded, len(data))

    def _check_returned(self, frame_type: int, data: bytes, start: int) -> None:
        if frame_type == spec.FRAME_METHOD and len(data) >= start + 4:
            self._returning = self._returning or _unpack_method(data, start) == _RETURN
        elif frame_type == spec.FRAME_HEADER and len(data) >= start + 12:
            # Nothing else comes on this channel, unless the application has asked for it.
            limit, self._returning = self._largest() if self._returning else BODY_LIMIT, False
            (size,) = _unpack_body_size(data, start)
            if size > limit:
                raise InvalidFrameError(
                    f"RabbitMQ announced a returned body of {size} octets, larger than any published ({limit})"
                )

    def _take_confirms(self, data: bytes, start: int, on_confirm: OnConfirm) -> int:
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
        self._take(None, start - first)
        return start
