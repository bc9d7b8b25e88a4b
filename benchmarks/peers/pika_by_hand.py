"""pika's TornadoConnection with a future for each delivery tag, as a careful developer writes it by hand.

It is the baseline, so it is the least that gives each message its own confirmation: it neither reconnects nor limits.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any

import pika
from pika.adapters.tornado_connection import TornadoConnection
from pika.spec import Basic
from tornado.ioloop import IOLoop

from benchmarks.peers import APP_ID, EXCHANGE, ROUTING_KEY

if TYPE_CHECKING:
    from pika.channel import Channel

    from benchmarks.messages import Properties


class PikaByHand:
    """Futures by delivery tag; a ``multiple`` confirmation counts up from the oldest tag that may be unconfirmed."""

    _connection: TornadoConnection
    _channel: Channel
    _loop: asyncio.AbstractEventLoop
    _closed: asyncio.Future[None]

    def __init__(self) -> None:
        self._unconfirmed: dict[int, asyncio.Future[None]] = {}
        self._last_tag = 0
        self._oldest_tag = 1

    async def open(self, url: str, window: int) -> None:  # noqa: ARG002 - nothing limits it
        """Connect and put a channel in confirm mode."""
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        ready: asyncio.Future[None] = self._loop.create_future()

        def select_confirms(channel: Channel) -> None:
            self._channel = channel
            channel.confirm_delivery(self._on_confirm, callback=lambda _frame: ready.set_result(None))

        self._connection = TornadoConnection(
            pika.URLParameters(url),
            on_open_callback=lambda connection: connection.channel(on_open_callback=select_confirms),
            on_open_error_callback=lambda _connection, error: ready.set_exception(error),
            on_close_callback=lambda _connection, _reason: self._closed.set_result(None),
            custom_ioloop=IOLoop.current(),
        )
        await ready

    def publish(self, body: bytes, properties: Properties | None) -> asyncio.Future[None]:
        """Publish, and return the future of the message's delivery tag."""
        self._channel.basic_publish(EXCHANGE, ROUTING_KEY, body, self._encodable(properties), mandatory=True)
        self._last_tag += 1
        future: asyncio.Future[None] = self._loop.create_future()
        self._unconfirmed[self._last_tag] = future
        return future

    async def close(self) -> None:
        """Close the connection and wait until it is closed."""
        self._connection.close()
        await self._closed

    def _encodable(self, properties: Properties | None) -> pika.BasicProperties | None:
        if properties is not None:
            return pika.BasicProperties(**properties)
        return pika.BasicProperties(message_id=str(uuid.uuid4()), timestamp=int(time.time()), app_id=APP_ID)

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        tag = method.delivery_tag
        if not method.multiple:
            self._settle(tag, method)
            return
        for each in range(self._oldest_tag, tag + 1):
            self._settle(each, method)
        self._oldest_tag = tag + 1

    def _settle(self, tag: int, method: Basic.Ack | Basic.Nack) -> None:
        future = self._unconfirmed.pop(tag, None)
        if future is None or future.done():
            return
        if isinstance(method, Basic.Ack):
            future.set_result(None)
        else:
            future.set_exception(RuntimeError(f"message {tag} was nacked"))


def make() -> PikaByHand:
    """Return the publisher."""
    return PikaByHand()
