"""TLS over memory BIOs: however its octets come, and whatever goes wrong, the line is told the truth."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sprockets_amqp.wire.stream import TLSSocket, TLSStream
from tests.support.certificates import Authority


class Told:
    """A line that writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.paused = False
        self.lost_by: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connected(self, _transport: object, found: str = "") -> None:
        """Called when it is up."""
        self.said.append(found)

    def received(self, data: bytes) -> None:
        """Called with data."""
        self.said.append(data)

    def hung_up(self) -> None:
        """Called at the end."""
        self.said.append("hung up")

    def pause_writing(self) -> None:
        """Called when nothing more is taken."""
        self.paused = True

    def resume_writing(self) -> None:
        """Called when all was taken."""
        self.paused = False

    def lost(self, error: Exception | None) -> None:
        """Called when it is gone."""
        self.lost_by.set_result(error)


class Pair:
    """Our stream on one end, and a server's TLS on the other, whose octets the test passes on."""

    def __init__(self, authority: Authority, near: socket.socket, far: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        told: Any = Told()
        self.told = told
        self.far = far
        self.stream = TLSStream(
            told, TLSSocket(fileno=near.detach()), loop, authority.context(), "localhost", "verified"
        )
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = authority.server_context().wrap_bio(self.incoming, self.outgoing, server_side=True)

    async def read(self) -> None:
        """Give the server what has come."""
        self.incoming.write(await asyncio.get_running_loop().sock_recv(self.far, 1 << 20))

    async def send(self, pieces: int = 1) -> None:
        """Send what the server has to say, in so many octets at a time."""
        data = self.outgoing.read()
        for start in range(0, len(data), pieces if pieces > 1 else max(1, len(data))):
            self.far.send(data[start : start + (pieces if pieces > 1 else len(data))])
            await asyncio.sleep(0.0001)

    async def shake_hands(self, pieces: int = 1) -> None:
        """Do the server's part of the handshake."""
        done = False
        while not done:
            await self.read()
            try:
                self.server.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            await self.send(pieces)
        while not self.told.said:
            await asyncio.sleep(0)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """A stream that is about to shake hands."""
    near, far = socket.socketpair()
    for each in (near, far):
        each.setblocking(False)
    made = Pair(Authority(tmp_path), near, far)
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: made.stream, sock=made.stream.socket)
    yield made
    transport.abort()
    await asyncio.sleep(0)
    far.close()


@pytest.mark.parametrize("pieces", [1, 2, 7])
async def test_a_handshake_may_come_in_any_pieces(pair: Pair, pieces: int) -> None:
    """And what comes after it; what leaves can be read."""
    await pair.shake_hands(pieces)
    assert pair.told.said == ["TLSv1.3, verified"]
    pair.server.write(b"to the client")
    await pair.send(pieces)
    while len(pair.told.said) < 2:
        await asyncio.sleep(0)
    assert pair.told.said[1:] == [b"to the client"]
    pair.stream.write(b"to the server" * 10_000)
    read = b""
    while len(read) < 130_000:
        await pair.read()
        try:
            while True:
                read += pair.server.read(1 << 20)
        except ssl.SSLWantReadError:
            pass
    assert read == b"to the server" * 10_000


async def test_what_came_before_the_end_counts(pair: Pair) -> None:
    """Data and close_notify in one read: RabbitMQ says why it closes, and closes."""
    await pair.shake_hands()
    pair.server.write(b"why")
    with contextlib.suppress(ssl.SSLWantReadError):
        pair.server.unwrap()
    await pair.send()
    assert await pair.told.lost_by is None
    assert pair.told.said[1:] == [b"why", "hung up"]


async def test_what_came_before_a_broken_record_counts(pair: Pair) -> None:
    """And the line is lost with OpenSSL's error."""
    await pair.shake_hands()
    pair.server.write(b"why")
    good = pair.outgoing.read()
    pair.server.write(b"broken")
    bad = bytearray(pair.outgoing.read())
    bad[-1] ^= 1
    pair.far.send(good + bytes(bad))
    assert isinstance(await pair.told.lost_by, ssl.SSLError)
    assert pair.told.said[1:] == [b"why"]


async def test_the_end_of_the_octets_is_the_end(pair: Pair) -> None:
    """Without close_notify, as RabbitMQ ends when it is killed."""
    await pair.shake_hands()
    pair.far.shutdown(socket.SHUT_WR)
    assert await pair.told.lost_by is None
    assert pair.told.said[1:] == ["hung up"]


async def test_an_end_in_the_handshake_is_no_loss_of_the_line(pair: Pair) -> None:
    """It was never up: the attempt has failed, and says so."""
    await pair.read()
    pair.far.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError, match="the other side closed the connection"):
        await pair.stream.up
    assert (pair.told.said, pair.told.lost_by.done()) == ([], False)


async def test_while_tls_negotiates_anew_nothing_leaves(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is paused, and told to go on when TLS has taken what it held; the order stays."""
    await pair.shake_hands()
    write, calls = pair.stream._tls.write, []

    class Negotiating:
        """OpenSSL while it waits for the peer."""

        def __getattr__(self, name: str) -> Any:
            return getattr(tls, name)

        def write(self, data: bytes) -> int:
            calls.append(len(data))
            if len(calls) < 3:
                raise ssl.SSLWantReadError
            return write(data)

    tls = pair.stream._tls
    monkeypatch.setattr(pair.stream, "_tls", Negotiating())
    pair.stream.write(b"first ")
    assert (pair.told.paused, pair.stream.get_write_buffer_size()) == (True, 6)
    pair.stream.write(b"second")
    assert (pair.told.paused, pair.stream.get_write_buffer_size()) == (True, 12)
    pair.server.write(b"done")
    await pair.send()
    while pair.told.paused:
        await asyncio.sleep(0)
    await pair.read()
    assert (pair.server.read(100), pair.stream.get_write_buffer_size()) == (b"first second", 0)


async def test_if_negotiating_anew_fails_nothing_is_said_to_have_left(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line stays paused until it is lost, with OpenSSL's error."""
    await pair.shake_hands()
    tls = pair.stream._tls
    raised: list[Exception] = [ssl.SSLWantReadError(), ssl.SSLError("no")]

    class Negotiating:
        """OpenSSL, which waits for the peer, and then fails."""

        def __getattr__(self, name: str) -> Any:
            return getattr(tls, name)

        def write(self, _data: bytes) -> int:
            raise raised.pop(0)

    monkeypatch.setattr(pair.stream, "_tls", Negotiating())
    pair.stream.write(b"first")
    pair.server.write(b"done")
    await pair.send()
    assert isinstance(await pair.told.lost_by, ssl.SSLError)
    assert pair.told.paused


async def test_a_handshake_that_cannot_begin_is_a_failed_attempt(tmp_path: Path) -> None:
    """No version of TLS is left, for example: it is told, and nothing escapes to the loop."""
    near, far = socket.socketpair()
    near.setblocking(False)
    loop = asyncio.get_running_loop()
    escaped: list[Any] = []
    loop.set_exception_handler(lambda _loop, context: escaped.append(context))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("PSK")
    told: Any = Told()
    stream = TLSStream(told, TLSSocket(fileno=near.detach()), loop, context, "localhost", "")
    await loop.create_connection(lambda: stream, sock=stream.socket)
    with pytest.raises(ssl.SSLError):
        await stream.up
    await asyncio.sleep(0)
    assert (told.said, escaped, stream.socket) == ([], [], None)
    far.close()
