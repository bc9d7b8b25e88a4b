"""Faults that no real RabbitMQ can be made to have: a scripted broker sends what a test says."""

import asyncio
from typing import Any

import pytest
from pamqp import commands

import sprockets_amqp as amqp
from sprockets_amqp import Client, State
from tests.support.scripted import Peer, ScriptedBroker

QUICK: dict[str, Any] = {"reconnect_delay": 0.1, "max_reconnect_delay": 0.2, "timeout": 30, "connection_attempts": 1}
#: The default exchange needs no asking first.
DEFAULT = ""


async def connected(broker: ScriptedBroker, **settings: Any) -> tuple[Client, Peer]:
    """A client that is ready on the broker."""
    client = Client(broker.url("stack_timeout=1"), **{**QUICK, **settings})
    peer = await broker.peer()
    await client.wait_for(State.READY, 10)
    return client, peer


@pytest.mark.fault(23)
async def test_torn_frames() -> None:
    """Frames that arrive byte by byte are read all the same: every message is confirmed or returned."""
    async with ScriptedBroker() as broker:
        client, peer = await connected(broker)
        futures = [client.publish(DEFAULT, "queue", b"") for _ in range(6)]
        await peer.messages(6)
        await peer.dribble(commands.Basic.Ack(2, multiple=True), commands.Basic.Nack(4), commands.Basic.Ack(3))
        await peer.dribble(commands.Basic.Ack(6, multiple=True))
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [type(None)] * 3 + [amqp.MessageNacked] + [type(None)] * 2
        await client.shutdown()


def _frame(kind: int, content: bytes, end: int = 0xCE) -> bytes:
    return bytes([kind, 0, 1]) + len(content).to_bytes(4) + content + bytes([end])


MALFORMED = {
    "a wrong frame end": _frame(1, b"\x00\x3c\x00\x50" + b"\x00" * 9, end=0),
    "an unknown method": _frame(1, b"\x00\x3c\x01\x00"),
    "an unknown frame type": _frame(9, b"\x00\x00\x00\x00"),
    "a bad table": _frame(2, b"\x00\x3c\x00\x00" + b"\x00" * 8 + b"\x20\x00" + b"\x00\x00\x00\x05\x01a?xx"),
    "a method that is cut short": _frame(1, b"\x00\x3c\x00\x50\x00"),
}


@pytest.mark.fault(31)
@pytest.mark.parametrize("what", MALFORMED)
async def test_malformed_frames(what: str) -> None:
    """The connection is dropped, messages in flight end as unknown, and the client reconnects."""
    async with ScriptedBroker() as broker:
        client, peer = await connected(broker)
        future = client.publish(DEFAULT, "queue", b"")
        await peer.messages(1)
        peer.send_bytes(MALFORMED[what])
        with pytest.raises(amqp.OutcomeUnknown):
            await asyncio.wait_for(future, 10)
        await asyncio.wait_for(broker.peer(), 10)
        await client.wait_for(State.READY, 10)
        await client.shutdown()


@pytest.mark.fault(31)
async def test_another_protocol() -> None:
    """A server that speaks another version of AMQP, or none, ends the attempt; the client keeps trying."""

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greetings.pop() if greetings else b"")
        writer.close()

    greetings = [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x01\x00\x00"]
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Client(f"amqp://guest:guest@127.0.0.1:{port}/%2f?stack_timeout=1", **QUICK)
    changes = client.changes()
    failures = 0
    while failures < 3:
        failures += (await asyncio.wait_for(anext(changes), 10)).trigger == "connection_failed"
    assert client.recovers
    await client.shutdown()
    server.close()


@pytest.mark.fault(32)
async def test_channel_flow() -> None:
    """Publishes wait while the flow is stopped; each channel.flow is acknowledged."""
    async with ScriptedBroker() as broker:
        client, peer = await connected(broker)
        peer.send(commands.Channel.Flow(active=False))
        await client.wait_for(State.BLOCKED, 10)
        future = client.publish(DEFAULT, "queue", b"")
        assert client.waiting == 1
        assert (await peer.received(commands.Channel.FlowOk)).active is False
        peer.send(commands.Channel.Flow(active=True))
        await client.wait_for(State.READY, 10)
        assert (await peer.received(commands.Channel.FlowOk, 2)).active is True
        await peer.messages(1)
        peer.ack(1)
        await future
        await client.shutdown()


@pytest.mark.fault(33)
async def test_odd_confirms(caplog: pytest.LogCaptureFixture) -> None:
    """The first ack or nack of a message counts; tags that were never sent are logged, and settle nothing."""
    async with ScriptedBroker() as broker:
        client, peer = await connected(broker)
        futures = [client.publish(DEFAULT, "queue", b"") for _ in range(4)]
        await peer.messages(4)
        peer.ack(0, multiple=True)
        peer.ack(99)
        peer.ack(99, multiple=True)
        peer.nack(2)
        peer.ack(2)
        peer.ack(1)
        peer.nack(1)
        peer.ack(1)
        peer.ack(4, multiple=True)
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [type(None), amqp.MessageNacked, type(None), type(None)]
        assert client.unconfirmed == 0 and client.ready
        assert "delivery tag 99, which was never sent" in caplog.text
        await client.shutdown()


@pytest.mark.fault(34)
async def test_no_publisher_confirms_offered() -> None:
    """The client is closed, with an error that says so; with confirmations disabled it becomes ready."""
    async with ScriptedBroker(server_properties={"product": "old", "capabilities": {}}) as broker:
        client = Client(broker.url(), **QUICK)
        await client.wait_for(State.CLOSED, 10)
        assert "Confirm.Select not Supported" in client.condition
        await client.shutdown()
        plain = Client(broker.url(), enable_confirmations=False, **QUICK)
        await asyncio.wait_for(plain.publish(DEFAULT, "queue", b""), 10)
        await plain.shutdown()
