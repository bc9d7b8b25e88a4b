"""Bytes that no broker sends, on a real socket."""

import asyncio
import contextlib
import itertools
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pika import frame, spec

from sprockets_amqp import AMQPException, Client, State
from tests.support import leaks


def _greeting() -> list[bytes]:
    """What a broker says until a channel is in confirm mode."""
    capabilities = {"publisher_confirms": True, "basic.nack": True, "connection.blocked": True}
    methods = [
        (0, spec.Connection.Start(0, 9, {"capabilities": capabilities}, "PLAIN", "en_US")),
        (0, spec.Connection.Tune(10, 8192, 0)),
        (0, spec.Connection.OpenOk()),
        (1, spec.Channel.OpenOk()),
        (1, spec.Confirm.SelectOk()),
    ]
    return [frame.Method(number, method).marshal() for number, method in methods]


GREETING = _greeting()
#: Frames that are whole, in any order; and those that are not.
WHOLE = st.sampled_from(
    [
        *GREETING,
        frame.Heartbeat().marshal(),
        *[
            frame.Method(number, method).marshal()
            for number in (0, 1, 2, 9)
            for method in (
                spec.Basic.Ack(1, multiple=False),
                spec.Basic.Nack(0, multiple=True),
                spec.Basic.Return(312, "NO_ROUTE", "", "q"),
                spec.Channel.Flow(active=False),
                spec.Channel.Close(404, "NOT_FOUND", 60, 40),
                spec.Channel.CloseOk(),
                spec.Connection.Blocked("low"),
                spec.Connection.Unblocked(),
                spec.Connection.Close(320, "bye", 0, 0),
                spec.Connection.CloseOk(),
                spec.Tx.SelectOk(),
            )
        ],
        frame.Header(1, 3, spec.BasicProperties(message_id="m")).marshal(),
        frame.Body(1, b"abc").marshal(),
    ]
)
MALFORMED = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"AMQP\x00\x00\x09\x01",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            frame.Method(1, spec.Channel.OpenOk()).marshal()[:-1] + b"\x00",
            struct.pack(">BHI", 1, 0, 4) + struct.pack(">HH", 10, 999) + b"\xce",
            struct.pack(">BHI", 1, 1, 0) + b"\xce",
            struct.pack(">BHI", 7, 1, 1) + b"x\xce",
            struct.pack(">BHI", 1, 1, 2**31) + b"\x00\x3c",
            struct.pack(">BHI", 1, 0, 12) + struct.pack(">HHBB", 10, 10, 0, 9) + b"\xff\xff\xff\xff\x00\x00\xce",
        ]
    ),
)


async def _talk(stream: bytes, places: list[int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    cuts = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    # The client may have had enough of it at any moment, and reset the line.
    with contextlib.suppress(OSError):
        for start, end in itertools.pairwise(cuts):
            writer.write(stream[start:end])
            await writer.drain()
            await asyncio.sleep(0)
        writer.write_eof()
        while await reader.read(1 << 16):
            pass
    writer.close()


async def _fuzz(stream: bytes, places: list[int]) -> None:
    escaped: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: escaped.append(context))
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _talk(stream, places, reader, writer)
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Client(f"amqp://127.0.0.1:{port}", reconnect_delay=100, timeout=100, connection_attempts=1)
    changes = client.changes()
    future = client.publish("", "q", b"body")
    async with asyncio.timeout(20):
        # The end of the stream ends every connection, whatever came before it.
        while (await anext(changes)).dest is not State.CLOSED:
            pass
        await client.shutdown(1)
        await ended.wait()
    server.close()
    assert escaped == []
    assert future.exception() is None or isinstance(future.exception(), AMQPException)
    assert (client.unconfirmed, client.waiting, client.closed) == (0, 0, True)
    assert leaks.timers() == []


@settings(max_examples=settings().max_examples, deadline=None)
@given(
    greeted=st.integers(0, len(GREETING)),
    parts=st.lists(WHOLE | WHOLE | MALFORMED, max_size=8),
    places=st.lists(st.integers(0, 500), max_size=6),
)
def test_bytes_that_no_broker_sends_end_in_closed(greeted: int, parts: list[bytes], places: list[int]) -> None:
    """Torn, malformed and out of order, on a real socket: the connection ends, the publish ends, nothing is left."""
    asyncio.run(_fuzz(b"".join([*GREETING[:greeted], *parts]), places))
