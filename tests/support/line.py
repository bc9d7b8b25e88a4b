"""A connection to RabbitMQ, or to the broker in memory, on which pika's calls are made one after the other."""

import asyncio
import functools
from typing import Any, Final, Self

import pika
from pika import spec
from pika.channel import Channel
from tornado.ioloop import IOLoop

from sprockets_amqp.wire.connection import Connection
from sprockets_amqp.wire.network import other_network
from sprockets_amqp.wire.tcp import INTERNET

#: Seconds that an answer may take.
LIMIT: Final = 20.0


class Line:
    """A connection with one channel, which is opened anew when it was closed; says in words what became of a call."""

    def __init__(self, url: str) -> None:
        self._parameters = pika.URLParameters(url)
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._answer: asyncio.Future[str] = asyncio.Future()
        #: What came with the answer.
        self.told: Any = None
        self._returned = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection, and return when it is closed."""
        if self._connection is not None and not self._connection.is_closed:
            self._answer = asyncio.Future()
            self._connection.close()
            await self._answered()

    async def open(self) -> str:
        """Connect, unless there is a connection; return "open", or what the broker says."""
        if self._connection is not None and self._connection.is_open:
            return "open"
        self._answer, self._channel = asyncio.Future(), None
        parameters = self._parameters
        self._connection = Connection(
            parameters,
            on_open_callback=lambda _: self._tell("open"),
            on_open_error_callback=lambda _, error: self._tell(said(error.__cause__ or error)),
            on_close_callback=lambda _, error: self._tell(said(error)),
            on_back_pressure=lambda _: None,
            on_hold=lambda *_: None,
            io_loop=IOLoop.current(),
            network=other_network(parameters.host, parameters.port) or INTERNET,
        )
        return await self._answered()

    async def call(self, verb: str, **arguments: Any) -> str:
        """Make a call of pika's channel; return "ok", or what the broker says."""
        if (failed := await self._open_channel()) is not None:
            return failed
        self._answer = asyncio.Future()
        getattr(self._channel, verb)(**arguments, callback=self._take)
        return await self._answered()

    async def publish(self, exchange: str, routing_key: str, body: bytes, properties: dict[str, Any]) -> str:
        """Publish a message, and return what becomes of it."""
        if (failed := await self._open_channel()) is not None:
            return failed
        assert self._channel is not None
        self._answer, self._returned = asyncio.Future(), ""
        its = pika.BasicProperties(**{"delivery_mode": 2, **properties})
        self._channel.basic_publish(exchange, routing_key, body, its, mandatory=True)
        return await self._answered() + self._returned

    async def send(self, method: Any) -> str:
        """Send a method that nobody answers with what pika expects; return what the broker says."""
        assert await self._open_channel() is None
        assert self._connection is not None and self._channel is not None
        self._answer = asyncio.Future()
        sender: Any = self._connection
        sender._send_method(self._channel.channel_number, method)
        return await self._answered()

    async def get(self, queue: str) -> tuple[Any, Any, bytes] | None:
        """Get a message out of a queue."""
        assert await self._open_channel() is None
        assert self._channel is not None
        got: asyncio.Future[tuple[Any, Any, bytes] | None] = asyncio.Future()
        empty = functools.partial(_set, got, None)
        self._channel.add_callback(lambda _: empty(), [spec.Basic.GetEmpty])
        self._channel.basic_get(queue, lambda _, *message: _set(got, message), auto_ack=True)
        return await asyncio.wait_for(got, LIMIT)

    async def _open_channel(self) -> str | None:
        if (opened := await self.open()) != "open":
            return opened
        assert self._connection is not None
        if self._channel is None:
            self._answer = asyncio.Future()
            self._channel = channel = self._connection.channel(on_open_callback=lambda _: self._tell("open"))
            channel.add_on_close_callback(self._on_closed)
            channel.add_on_return_callback(self._on_return)
            await self._answered()
            self._answer = asyncio.Future()
            channel.confirm_delivery(self._on_confirm, callback=self._take)
            await self._answered()
        return None

    def _on_closed(self, channel: Channel, error: Any) -> None:
        if channel is self._channel:
            self._channel = None
            if not isinstance(error, pika.exceptions.ConnectionClosed | pika.exceptions.ChannelClosedByClient):
                self._tell(said(error))

    def _on_confirm(self, frame: Any) -> None:
        self._tell("acked" if isinstance(frame.method, spec.Basic.Ack) else "nacked")

    def _on_return(self, _channel: Channel, method: Any, *_: object) -> None:
        self._returned = f" after {method.reply_code} {method.reply_text}"

    def _take(self, frame: Any) -> None:
        self.told = frame.method
        self._tell("ok")

    def _tell(self, words: str) -> None:
        _set(self._answer, words)

    async def _answered(self) -> str:
        try:
            return await asyncio.wait_for(self._answer, LIMIT)
        except TimeoutError:
            return "no answer"


def _set(future: "asyncio.Future[Any]", value: Any) -> None:
    if not future.done():
        future.set_result(value)


def said(error: Any) -> str:
    """Return what a broker said when it closed a channel or a connection."""
    code, text = getattr(error, "reply_code", None), getattr(error, "reply_text", "")
    if code is None:
        return f"{type(error).__name__}: {error}"
    kind = "connection" if isinstance(error, pika.exceptions.ConnectionClosed) else "channel"
    return f"{kind} closed: {code} {text}"
