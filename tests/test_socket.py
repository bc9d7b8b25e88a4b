"""What goes over a real socket: at once, in one write a turn, and all of it, however slow the other end."""

import asyncio
import inspect
import socket
import ssl
from typing import Any

import pytest
from pika import frame, spec
from pika.adapters import base_connection
from pika.adapters.utils import io_services_utils
from tornado.ioloop import IOLoop

from sprockets_amqp import Client, State
from sprockets_amqp.delivery.encoding import encode_method
from sprockets_amqp.wire.transport import BACK_PRESSURE_MARK, READ_SIZE
from tests.support.wire import Unconnected, encoded, open_connection
from tools.rabbitmq import Node


@pytest.fixture
async def line() -> Any:
    """Our connection on one end of a socket pair, the other end, and what was told of back pressure."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    told: list[object] = []
    connection: Any = Unconnected(IOLoop.current(), told.append)
    shim = base_connection._StreamingProtocolShim(connection)
    transport = io_services_utils._AsyncPlaintextTransport(near, shim, connection._nbio)
    open_connection(connection, transport)
    await asyncio.sleep(0)
    far.recv(1 << 16)
    yield connection, far, told
    connection.abort()
    await connection.wait_closed()
    far.close()


async def test_the_connection_has_its_socket_while_there_is_one(broker: Node) -> None:
    """Applications set options on it, and ask it for its peer."""
    client = Client(broker.url)
    await client.wait_for(State.READY, 30)
    connection: Any = client.connection
    assert connection.socket.getpeername() == ("127.0.0.1", broker.port)
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    await client.shutdown()
    assert connection.socket is None


async def test_with_tls_the_socket_is_the_one_that_encrypts() -> None:
    """So that its certificate can be asked for, too; before anything is connected there is none."""
    near, far = socket.socketpair()
    near.setblocking(False)
    connection: Any = Unconnected(IOLoop.current())
    sockets = [connection.socket]
    context = ssl.create_default_context()
    secure = context.wrap_socket(near, do_handshake_on_connect=False, server_hostname="localhost")
    shim = base_connection._StreamingProtocolShim(connection)
    connection._proto_connection_made(io_services_utils._AsyncSSLTransport(secure, shim, connection._nbio))
    sockets.append(connection.socket)
    connection.abort()
    await connection.wait_closed()
    assert [*sockets, connection.socket] == [None, secure, None]
    far.close()


async def test_a_lone_publish_leaves_in_the_same_turn(line: Any) -> None:
    """One step of the loop after publish(), and before it looks at any socket, the message has left."""
    connection, far, _ = line
    connection.publish(encode_method("", "q", mandatory=True), encoded({}), b"alone")
    await asyncio.sleep(0)
    assert far.recv(1 << 16).endswith(b"alone\xce")


async def test_one_turn_is_one_write(line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a turn publishes leaves in one write, and the next turn's in another."""
    connection, _, _ = line
    writes: list[int] = []
    monkeypatch.setattr(connection, "_send_now", lambda data: [len(data), writes.append(len(data))][0])
    for _ in range(2):
        for _ in range(100):
            connection.publish(encode_method("", "q", mandatory=True), encoded({}), b"x")
        await asyncio.sleep(0)
    assert len(writes) == 2
    assert writes[0] == writes[1]


async def _drain(connection: Any, far: socket.socket) -> int:
    """Read all that was sent; returns how many octets."""
    loop = asyncio.get_running_loop()
    read = 0
    while connection._transport.get_write_buffer_size() or connection._pieces:
        read += len(await loop.sock_recv(far, 1 << 20))
    while True:
        try:
            read += len(far.recv(1 << 20))
        except BlockingIOError:
            return read


@pytest.mark.parametrize("bodies", [1, 12])
async def test_back_pressure_is_told_once(line: Any, bodies: int) -> None:
    """More than 4 MiB behind a reader that does not read is told once; when they are gone and more come, again."""
    connection, far, told = line
    body = bytes(3 * BACK_PRESSURE_MARK // bodies)
    for times in (1, 2):
        for _ in range(bodies):
            connection.publish(encode_method("", "q", mandatory=True), encoded({}), body)
            await asyncio.sleep(0)
        assert connection.congested
        assert told == [connection] * times
        assert await _drain(connection, far) > 3 * BACK_PRESSURE_MARK
        assert not connection.congested


async def test_pressure_that_goes_up_and_down_is_one(line: Any) -> None:
    """A reader that takes less than is sent is told of once, however often the mark is passed."""
    connection, far, told = line
    loop = asyncio.get_running_loop()
    for _ in range(4):
        connection.publish(encode_method("", "q", mandatory=True), encoded({}), bytes(BACK_PRESSURE_MARK))
        await asyncio.sleep(0)
        while connection.congested:
            await loop.sock_recv(far, 1 << 20)
    assert told == [connection]
    await _drain(connection, far)


async def arrived(far: socket.socket, size: int) -> bytes:
    """Return the bodies that arrive, as soon as they are so many octets."""
    data, bodies = b"", b""
    while len(bodies) < size:
        data += await asyncio.get_running_loop().sock_recv(far, 50_000)
        consumed, decoded = frame.decode_frame(data)
        while decoded:
            data = data[consumed:]
            bodies += decoded.fragment if isinstance(decoded, frame.Body) else b""
            consumed, decoded = frame.decode_frame(data)
    return bodies


async def test_everything_arrives_through_a_slow_reader(line: Any) -> None:
    """What the socket did not take at once follows in order, and nothing twice."""
    connection, far, _ = line
    bodies = [bytes([number]) * 300_000 for number in range(20)]
    for body in bodies:
        connection.publish(encode_method("", "q", mandatory=True), encoded({}), body)
        await asyncio.sleep(0)
    assert await arrived(far, 6_000_000) == b"".join(bodies)


def fill(near: socket.socket) -> int:
    """Fill a socket to the last octet, as if much had been sent; returns how many octets that took."""
    filled = 0
    for size in (1 << 16, 1 << 8, 1):
        while True:
            try:
                filled += near.send(bytes(size))
            except BlockingIOError:
                break
    return filled


@pytest.mark.parametrize("room", [0, 1 << 12, 1 << 16], ids=["no room", "little room", "more room"])
async def test_a_full_socket_loses_nothing(line: Any, room: int) -> None:
    """It takes nothing or a part of what is sent, with nothing else waiting: the rest follows in order, and once."""
    connection, far, _ = line
    filled = fill(connection._transport._sock)
    filled -= len(far.recv(room))
    assert connection._transport.get_write_buffer_size() == 0
    bodies = [bytes([number]) * 100_000 for number in range(1, 4)]
    for body in bodies:
        connection.publish(encode_method("", "q", mandatory=True), encoded({}), body)
        await asyncio.sleep(0)
        assert connection._transport.get_write_buffer_size() > 0
        # Room for the next one, which has to let the rest of this one go first.
        filled -= len(far.recv(min(filled, 1 << 14)))
    while filled:
        filled -= len(await asyncio.get_running_loop().sock_recv(far, filled))
    assert await arrived(far, 300_000) == b"".join(bodies)


def acks(first: int, last: int) -> bytes:
    """Confirm each of these delivery tags on channel 1."""
    return b"".join(frame.Method(1, spec.Basic.Ack(tag)).marshal() for tag in range(first, last + 1))


async def test_the_socket_is_read_once_each_time_it_has_something(line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few confirms take one system call. Many come in several turns of the loop, and none is lost."""
    connection, far, _ = line
    tags: asyncio.Queue[int] = asyncio.Queue()
    connection.use_channel(1, lambda confirm: tags.put_nowait(confirm.method.delivery_tag))
    read = connection._transport._sigint_safe_recv
    reads: list[int] = []

    def counting(sock: socket.socket, limit: int) -> bytes:
        reads.append(0)
        data: bytes = read(sock, limit)
        reads[-1] = len(data)
        return data

    monkeypatch.setattr(connection._transport, "_sigint_safe_recv", counting)
    far.send(acks(1, 100))
    assert [await tags.get() for _ in range(100)] == [*range(1, 101)]
    assert reads == [len(acks(1, 100))]
    reads.clear()
    await asyncio.get_running_loop().sock_sendall(far, acks(101, 5000))
    assert [await tags.get() for _ in range(4900)] == [*range(101, 5001)]
    assert max(reads) <= READ_SIZE
    assert sum(reads) == len(acks(101, 5000))


async def test_what_waited_for_a_confirm_leaves_in_the_turn_in_which_it_goes_on(line: Any) -> None:
    """A task that publishes when its last message is confirmed need not wait for another turn of the loop."""
    connection, far, _ = line
    confirmed = asyncio.Event()
    seen: asyncio.Future[bytes] = asyncio.Future()
    connection.use_channel(1, lambda _confirm: confirmed.set())

    async def publish_next() -> None:
        await confirmed.wait()
        # This comes before all that is scheduled for the next turn.
        asyncio.get_running_loop().call_soon(lambda: seen.set_result(far.recv(1 << 16)))
        connection.publish(encode_method("", "q", mandatory=True), encoded({}), b"next")

    task = asyncio.create_task(publish_next())
    await asyncio.sleep(0)
    far.send(acks(1, 1))
    assert (await seen).endswith(b"next\xce")
    await task


async def test_the_end_of_the_line_is_awaited(line: Any) -> None:
    """wait_closed() returns when pika let go of the socket."""
    connection, far, _ = line
    far.close()
    await connection.wait_closed()
    assert connection.is_closed
    assert connection._transport is None


async def test_pikas_plain_transport_holds_a_socket(line: Any) -> None:
    """The transport of a plain connection has the socket, a write buffer that can be asked, and abort()."""
    transport = line[0]._transport
    assert type(transport._sock) is socket.socket
    assert transport.get_write_buffer_size() == 0
    assert list(inspect.signature(transport.write).parameters) == ["data"]
    assert callable(transport.abort)
