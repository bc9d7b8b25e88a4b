"""What goes over a real socket: at once, in one write a turn, and all of it, however slow the other end."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pika
import pytest
from pika import frame, spec
from tornado.ioloop import IOLoop

from sprockets_amqp import Client, State
from sprockets_amqp.connection.events import Events
from sprockets_amqp.connection.link import Link
from sprockets_amqp.delivery.encoding import encode_method
from sprockets_amqp.wire.sending import BACK_PRESSURE_MARK, WRITE_SIZE
from sprockets_amqp.wire.stream import READ_SIZE, Stream
from tests.support.certificates import Authority
from tests.support.scripted import ScriptedBroker
from tests.support.waiting import until
from tests.support.wire import Unconnected, encoded, shake_hands
from tools.rabbitmq import Node


@pytest.fixture
async def line() -> Any:
    """Our connection on one end of a socket pair, the other end, and what was told of back pressure."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    told: list[object] = []
    connection: Any = Unconnected(IOLoop.current(), told.append)
    loop = asyncio.get_running_loop()
    stream = Stream(connection, near, loop)
    await loop.create_connection(lambda: stream, sock=near)
    shake_hands(connection)
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


async def test_with_tls_the_socket_can_be_asked_for_the_certificate(tmp_path: Path) -> None:
    """As pika's could; before anything is connected there is no socket, and afterwards there is none."""
    authority = Authority(tmp_path)
    async with ScriptedBroker(context=authority.server_context()) as broker:
        await check_certificate(broker.port, authority)


async def check_certificate(port: int, authority: Authority) -> None:
    """Connect, and ask."""
    link = Link(Events(), IOLoop.current())
    parameters = pika.URLParameters(f"amqps://localhost:{port}")
    parameters.ssl_options = pika.SSLOptions(authority.context(), "localhost")
    link.open_connection(parameters)
    connection = link.connection
    assert connection is not None and connection.socket is None
    await until(lambda: connection.socket is not None)
    sock: Any = connection.socket
    assert issubclass(type(sock), socket.socket) and sock.getpeername() == ("127.0.0.1", port)
    assert ("DNS", "localhost") in sock.getpeercert()["subjectAltName"]
    assert sock.version() == "TLSv1.3" and sock.cipher() is not None
    assert isinstance(sock.getpeercert(binary_form=True), bytes)
    link.drop_connection()
    await connection.wait_closed()
    assert connection.socket is None


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
    monkeypatch.setattr(connection._transport, "write", lambda data: writes.append(len(data)))
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
    while connection.unsent:
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
    filled = fill(connection.socket)
    filled -= len(far.recv(room)) if room else 0
    assert connection.unsent == 0
    bodies = [bytes([number]) * 100_000 for number in range(1, 4)]
    for body in bodies:
        connection.publish(encode_method("", "q", mandatory=True), encoded({}), body)
        await asyncio.sleep(0)
        assert connection.unsent > 0
        # Room for the next one, which has to let the rest of this one go first.
        filled -= len(far.recv(min(filled, 1 << 14)))
    while filled:
        filled -= len(await asyncio.get_running_loop().sock_recv(far, filled))
    assert await arrived(far, 300_000) == b"".join(bodies)


async def test_what_waits_for_the_socket_is_told_when_it_has_taken_everything(line: Any) -> None:
    """Once, after the last octet; at once if nothing waits."""
    connection, far, _ = line
    sent: list[int] = []
    connection.call_when_sent(lambda: sent.append(connection.unsent))
    await asyncio.sleep(0)
    assert sent == [0]
    connection.publish(encode_method("", "q", mandatory=True), encoded({}), bytes(3 * WRITE_SIZE))
    connection.call_when_sent(lambda: sent.append(connection.unsent))
    await asyncio.sleep(0)
    assert (sent, connection.unsent > 0) == ([0], True)
    assert await _drain(connection, far) > 3 * WRITE_SIZE
    assert sent == [0, 0]


async def test_the_transport_is_given_a_mebibyte_at_a_time(line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that no frame limits, too: before Python 3.12, asyncio moves all that it holds with each write."""
    connection, far, _ = line
    write, writes = connection._transport.write, []

    def counting(data: bytes) -> None:
        writes.append(len(data))
        write(data)

    monkeypatch.setattr(connection._transport, "write", counting)
    bodies = [bytes([number]) * (700_000 * number) for number in range(1, 5)]
    for body in bodies:
        connection.publish(encode_method("", "q", mandatory=True), encoded({}), body)
    connection._adapter_emit_data(bytes(3 * WRITE_SIZE))
    size = sum(map(len, bodies)) + 3 * WRITE_SIZE
    assert await _drain(connection, far) > size
    assert max(writes) <= 2 * WRITE_SIZE
    assert len(writes) >= size // (2 * WRITE_SIZE)


def acks(first: int, last: int) -> bytes:
    """Confirm each of these delivery tags on channel 1."""
    return b"".join(frame.Method(1, spec.Basic.Ack(tag)).marshal() for tag in range(first, last + 1))


async def test_many_confirms_come_in_several_turns(line: Any) -> None:
    """No more than a buffer holds at a time, and none is lost."""
    connection, far, _ = line
    tags: asyncio.Queue[int] = asyncio.Queue()
    connection.use_channel(1, lambda confirm: tags.put_nowait(confirm.method.delivery_tag))
    reads: list[int] = []
    received = connection.received
    connection.received = lambda data: [reads.append(len(data)), received(data)]
    far.send(acks(1, 100))
    assert [await tags.get() for _ in range(100)] == [*range(1, 101)]
    assert reads == [len(acks(1, 100))]
    reads.clear()
    await asyncio.get_running_loop().sock_sendall(far, acks(101, 9000))
    assert [await tags.get() for _ in range(8900)] == [*range(101, 9001)]
    assert max(reads) <= READ_SIZE
    assert sum(reads) == len(acks(101, 9000))


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
    """wait_closed() returns when the socket is closed."""
    connection, far, _ = line
    far.close()
    await connection.wait_closed()
    assert connection.is_closed
    assert connection._transport is None
