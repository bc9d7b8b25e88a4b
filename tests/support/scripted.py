"""A broker that does what a test says: it speaks AMQP 0-9-1 well enough to be connected to, and anything after that."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from pamqp import body, commands, exceptions, frame, header

Frame = frame.FrameTypes
F = TypeVar("F", bound=Frame)
#: What a broker sends back for a frame: one frame, nothing, or whatever a function of that frame returns.
Answer = Frame | None | Callable[[Any], Frame | None]

#: What RabbitMQ says that it can do, as far as publishers care.
CAPABILITIES: dict[str, Any] = {
    "publisher_confirms": True,
    "basic.nack": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
    "consumer_cancel_notify": True,
    "exchange_exchange_bindings": True,
}
SERVER_PROPERTIES: dict[str, Any] = {"product": "scripted", "version": "1.0", "capabilities": CAPABILITIES}


@dataclass(frozen=True, slots=True)
class Published:
    """A message as it arrived; the first one on a channel has delivery tag 1."""

    channel: int
    tag: int
    exchange: str
    routing_key: str
    mandatory: bool
    properties: commands.Basic.Properties
    body: bytes


class ScriptedBroker:
    """Listens on 127.0.0.1; each connection is a Peer, which `await broker.peer()` gives out in order.

    `answers` maps the name of a frame to what is sent back for it; set one to None for silence, or add another.
    """

    def __init__(
        self,
        *,
        server_properties: dict[str, Any] | None = None,
        tune: commands.Connection.Tune | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._context = context
        properties = SERVER_PROPERTIES if server_properties is None else server_properties
        self.answers: dict[str, Answer] = {
            "ProtocolHeader": commands.Connection.Start(server_properties=properties),
            "Connection.StartOk": tune or commands.Connection.Tune(channel_max=2047, frame_max=131072, heartbeat=0),
            "Connection.Open": commands.Connection.OpenOk(),
            "Connection.Close": commands.Connection.CloseOk(),
            "Channel.Open": commands.Channel.OpenOk(),
            "Channel.Close": commands.Channel.CloseOk(),
            "Confirm.Select": commands.Confirm.SelectOk(),
            "Exchange.Declare": commands.Exchange.DeclareOk(),
            "Queue.Declare": lambda declare: commands.Queue.DeclareOk(declare.queue, 0, 0),
        }
        self.port = 0
        self._server: asyncio.Server | None = None
        self._arrivals: asyncio.Queue[Peer] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def url(self, query: str = "") -> str:
        """Return a URL of this broker, whose vhost and credentials do not matter."""
        scheme = "amqp" if self._context is None else "amqps"
        return f"{scheme}://guest:guest@127.0.0.1:{self.port}/%2f" + (f"?{query}" if query else "")

    async def peer(self) -> Peer:
        """Wait for the next connection, from its first byte on."""
        return await self._arrivals.get()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(writer, self.answers)
        self._arrivals.put_nowait(peer)
        try:
            await peer.serve(reader)
        except (OSError, asyncio.CancelledError):
            # A handler that is left cancelled is logged as an error.
            pass
        finally:
            peer.abort()
            self._tasks.discard(task)


class Peer:
    """One connection of a client: what it sent, and the means to send it anything."""

    def __init__(self, writer: asyncio.StreamWriter, answers: dict[str, Answer]) -> None:
        #: Every frame received, with its channel, in order.
        self.frames: list[tuple[int, Frame]] = []
        self.published: list[Published] = []
        #: Set when the client has ended the connection, or abort() has.
        self.ended = asyncio.Event()
        self._writer = writer
        self._answers = answers
        self._news = asyncio.Condition()
        self._methods: dict[int, tuple[commands.Basic.Publish, header.ContentHeader, bytes]] = {}

    def pause(self) -> None:
        """Read nothing until resume()."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def resume(self) -> None:
        """Read again."""
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Read frames, record and answer them, until the client closes its end."""
        buffered = b""
        while data := await reader.read(65536):
            buffered += data
            while (parsed := _unmarshal(buffered)) is not None:
                consumed, channel, received = parsed
                buffered = buffered[consumed:]
                await self._take(channel, received)

    async def received(self, kind: type[F], count: int = 1) -> F:
        """Wait until `count` frames of this kind were received in all; return the last of them."""
        async with self._news:
            await self._news.wait_for(lambda: len(self._of(kind)) >= count)
        return self._of(kind)[count - 1]

    async def messages(self, count: int = 1) -> list[Published]:
        """Wait until `count` messages were published in all; return them."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.published) >= count)
        return self.published[:count]

    def send(self, *frames: Frame, channel: int = 1) -> None:
        """Send frames in one write."""
        self.send_bytes(b"".join(frame.marshal(each, channel) for each in frames))

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    async def dribble(self, *frames: Frame, channel: int = 1) -> None:
        """Send frames byte by byte, each in a write of its own."""
        for byte in b"".join(frame.marshal(each, channel) for each in frames):
            self.send_bytes(bytes([byte]))
            await self._writer.drain()
            await asyncio.sleep(0)

    def ack(self, tag: int, *, multiple: bool = False, channel: int = 1) -> None:
        """Confirm a message, or all up to it."""
        self.send(commands.Basic.Ack(tag, multiple), channel=channel)

    def nack(self, tag: int, *, multiple: bool = False, channel: int = 1) -> None:
        """Nack a message, or all up to it."""
        self.send(commands.Basic.Nack(tag, multiple, requeue=False), channel=channel)

    def give_back(self, message: Published, reply_code: int = 312, reply_text: str = "NO_ROUTE") -> None:
        """Return a message as unroutable; RabbitMQ acks it after that, and so should the test."""
        method = commands.Basic.Return(reply_code, reply_text, message.exchange, message.routing_key)
        content = header.ContentHeader(0, len(message.body), message.properties)
        bodies = [body.ContentBody(message.body)] if message.body else []
        self.send(method, content, *bodies, channel=message.channel)

    def abort(self) -> None:
        """Drop the connection."""
        self._writer.transport.abort()
        self.ended.set()

    def _of(self, kind: type[F]) -> list[F]:
        return [received for _, received in self.frames if isinstance(received, kind)]

    async def _take(self, channel: int, received: Frame) -> None:
        async with self._news:
            self.frames.append((channel, received))
            self._collect(channel, received)
            self._news.notify_all()
        answer = self._answers.get(received.name)
        answer = answer(received) if callable(answer) else answer
        if answer is not None:
            # AMQP 0-9-1, section 4.2.3: what concerns the connection has channel 0.
            about_connection = getattr(answer, "name", "").startswith("Connection.")
            self.send(answer, channel=0 if about_connection else channel)

    def _collect(self, channel: int, received: Frame) -> None:
        """Put a message together from its frames: method, header, and bodies until the header's size is reached."""
        if isinstance(received, commands.Basic.Publish):
            self._methods[channel] = (received, header.ContentHeader(), b"")
        elif isinstance(received, header.ContentHeader):
            self._add(channel, received, b"")
        elif isinstance(received, body.ContentBody):
            self._add(channel, self._methods[channel][1], received.value)

    def _add(self, channel: int, content: header.ContentHeader, value: bytes) -> None:
        method, _, before = self._methods[channel]
        self._methods[channel] = (method, content, before + value)
        if len(before + value) == content.body_size:
            tag = 1 + sum(message.channel == channel for message in self.published)
            self.published.append(
                Published(
                    channel,
                    tag,
                    method.exchange,
                    method.routing_key,
                    method.mandatory,
                    content.properties,
                    before + value,
                )
            )


def _unmarshal(data: bytes) -> tuple[int, int, Frame] | None:
    """Return the first whole frame, None where there is not enough of it yet."""
    if len(data) < 7 or (data[:4] != b"AMQP" and len(data) < int.from_bytes(data[3:7], "big") + 8):
        return None
    try:
        return frame.unmarshal(data)
    except exceptions.UnmarshalingException as error:
        msg = f"the client sent no AMQP: {data[:40]!r}"
        raise AssertionError(msg) from error
