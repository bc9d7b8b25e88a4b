"""The proxy and the scripted broker of the tests do what they are told, byte for byte."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pika
import pytest
from pamqp import commands
from pika.adapters.asyncio_connection import AsyncioConnection

from tests.support.proxy import Proxy
from tests.support.scripted import ScriptedBroker
from tests.support.waiting import LIMIT, until

if TYPE_CHECKING:
    from pika.channel import Channel
    from pika.connection import Connection


class Echo:
    """A server that sends back what it gets, and notes how its connections end."""

    def __init__(self) -> None:
        self.endings: asyncio.Queue[str] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            self.endings.put_nowait("eof")
        except ConnectionResetError:
            self.endings.put_nowait("reset")
        finally:
            writer.close()


class Line:
    """A client's connection to an Echo by way of a Proxy."""

    def __init__(self, proxy: Proxy, echo: Echo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.echo = echo
        self.reader = reader
        self.writer = writer

    async def says(self, data: bytes, *, hears: bytes) -> None:
        """Send something and wait until that much of it has come back."""
        self.writer.write(data)
        assert await asyncio.wait_for(self.reader.readexactly(len(hears)), LIMIT) == hears


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    """A connection to an echoing server by way of a proxy."""
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        line = Line(proxy, echo, reader, writer)
        await line.says(b"hello", hears=b"hello")
        yield line
        writer.transport.abort()
    server.close()
    await server.wait_closed()


async def test_the_proxy_resets_both_ends(line: Line) -> None:
    """After reset() the client and the server both see a connection reset."""
    line.proxy.reset()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(line.reader.read(), LIMIT)
    assert await asyncio.wait_for(line.echo.endings.get(), LIMIT) == "reset"


async def test_the_proxy_ends_the_stream_in_order(line: Line) -> None:
    """After eof() the client reads an end of stream, and the server does when the client closes."""
    line.proxy.eof()
    assert await asyncio.wait_for(line.reader.read(), LIMIT) == b""
    line.writer.close()
    assert await asyncio.wait_for(line.echo.endings.get(), LIMIT) == "eof"


async def test_the_proxy_passes_on_that_a_client_is_gone(line: Line) -> None:
    """A client that aborts does not leave its connection to the server open."""
    line.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    line.writer.transport.abort()
    assert await asyncio.wait_for(line.echo.endings.get(), LIMIT) == "reset"
    assert line.proxy.open == 0


async def test_the_proxy_swallows_what_it_is_told_to(line: Line) -> None:
    """pass_only() lets that many bytes through, then none; heal() lets the rest through, without what was lost."""
    line.proxy.pass_only(to_client=3)
    await line.says(b"abcdef", hears=b"abc")
    line.proxy.black_hole()
    line.writer.write(b"lost")
    await line.writer.drain()
    await until(lambda: line.proxy.swallowed == len(b"deflost"))
    line.proxy.heal()
    await line.says(b"after", hears=b"after")


async def test_the_proxy_holds_back_while_it_is_paused(line: Line) -> None:
    """While it is paused the client can't send more than the buffers on the way hold, and nothing of it is lost."""
    line.proxy.pause()
    data = os.urandom(32 << 20)
    line.writer.write(data)
    drained = asyncio.ensure_future(line.writer.drain())
    heard = asyncio.ensure_future(line.reader.readexactly(len(data)))
    for _ in range(1000):
        await asyncio.sleep(0)
    assert line.proxy.passed == len(b"hellohello")
    assert not drained.done()
    line.proxy.heal()
    assert await asyncio.wait_for(heard, LIMIT) == data
    await drained


async def test_the_proxy_delays_in_order(line: Line) -> None:
    """What is delayed comes in the order in which it was sent."""
    line.proxy.delay = 0.05
    for number in range(5):
        line.writer.write(bytes([number]))
        await asyncio.sleep(0)
    await line.says(b"end", hears=bytes(range(5)) + b"end")


async def connect(broker: ScriptedBroker) -> Opened:
    """Open a connection and a channel in confirm mode with pika's own asyncio adapter."""
    opened = Opened(broker.url())
    await asyncio.wait_for(opened.ready, LIMIT)
    return opened


class Opened:
    """A connection of pika's and what it was told."""

    def __init__(self, url: str) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.events: asyncio.Queue[tuple[str, object]] = asyncio.Queue()
        self.connection = AsyncioConnection(
            pika.URLParameters(url),
            on_open_callback=self._opened,
            on_open_error_callback=lambda _, error: self._note("failed", error),
            on_close_callback=lambda _, error: self._note("closed", error),
        )

    def _note(self, what: str, about: object) -> None:
        self.events.put_nowait((what, about))

    def _opened(self, connection: Connection) -> None:
        self.channel = connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Channel) -> None:
        channel.confirm_delivery(
            lambda confirmed: self._note(confirmed.method.NAME, confirmed.method.delivery_tag),
            callback=lambda _: self.ready.set_result(None),
        )
        channel.add_on_return_callback(lambda *returned: self._note("Basic.Return", returned[3]))

    async def event(self) -> tuple[str, object]:
        """Wait for the next thing that pika was told."""
        return await asyncio.wait_for(self.events.get(), LIMIT)


async def test_the_scripted_broker_confirms_as_the_test_says() -> None:
    """A real client connects, publishes, and gets a return, an ack and a nack, in the order in which they were sent."""
    async with ScriptedBroker() as broker:
        client = await connect(broker)
        peer = await broker.peer()
        for content in (b"one", b"", b"x" * 300_000):
            client.channel.basic_publish("an-exchange", "a-key", content, mandatory=True)
        one, empty, big = await asyncio.wait_for(peer.messages(3), LIMIT)
        assert [(message.tag, len(message.body)) for message in (one, empty, big)] == [(1, 3), (2, 0), (3, 300_000)]
        assert (one.exchange, one.routing_key, one.mandatory, one.body) == ("an-exchange", "a-key", True, b"one")
        peer.nack(2)
        peer.give_back(one)
        peer.ack(3, multiple=True)
        assert await client.event() == ("Basic.Nack", 2)
        assert await client.event() == ("Basic.Return", b"one")
        assert await client.event() == ("Basic.Ack", 3)
        client.connection.close()
        assert (await client.event())[0] == "closed"
        await asyncio.wait_for(peer.ended.wait(), LIMIT)


async def test_the_scripted_broker_sends_byte_by_byte() -> None:
    """A frame that is dribbled arrives whole."""
    async with ScriptedBroker() as broker:
        client = await connect(broker)
        peer = await broker.peer()
        await peer.dribble(commands.Basic.Ack(1), commands.Basic.Ack(2))
        assert [await client.event() for _ in range(2)] == [("Basic.Ack", 1), ("Basic.Ack", 2)]
        peer.abort()
        assert (await client.event())[0] == "closed"


async def test_the_scripted_broker_answers_what_it_is_told_to() -> None:
    """An answer can be changed, to a refusal or to silence, and the client's frames are recorded all the same."""
    async with ScriptedBroker(tune=commands.Connection.Tune(channel_max=7, frame_max=8192, heartbeat=0)) as broker:
        broker.answers["Connection.Open"] = commands.Connection.Close(530, "no such vhost", 10, 40)
        client = Opened(broker.url())
        peer = await broker.peer()
        tuned = await asyncio.wait_for(peer.received(commands.Connection.TuneOk), LIMIT)
        assert (tuned.channel_max, tuned.frame_max) == (7, 8192)
        what, error = await client.event()
        assert what == "failed"
        assert "no such vhost" in repr(error)
        await asyncio.wait_for(peer.ended.wait(), LIMIT)


async def test_the_scripted_broker_sends_rubbish() -> None:
    """Bytes that are no frame reach the client as they are: here one whose last byte is wrong."""
    async with ScriptedBroker() as broker:
        client = await connect(broker)
        (await broker.peer()).send_bytes(b"\x01\x00\x01\x00\x00\x00\x04ABCD\x00")
        what, _ = await client.event()
        assert what == "closed"
