"""Between a client and a RabbitMQ: each frame that RabbitMQ sends arrives when a test lets it."""

import asyncio
import struct
from typing import Any, Final

from pika import spec
from pika.frame import Method

#: What a frame begins with: its type, its channel and the size of its payload; one octet ends it.
HEAD: Final = struct.Struct(">BHL")
#: The protocol header that a client begins with.
PROTOCOL: Final = 8
_CLOSE: Final = struct.pack(">HH", 20, 40)
_CLOSE_OK: Final = struct.pack(">HH", 20, 41)


class Line:
    """One connection through it, with the names of the broker's end in memory.

    Attributes:
        outbox: frames of RabbitMQ's that have not arrived.
        lost: whether the line is gone.
    """

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.outbox: list[bytes] = []
        self.lost = False
        self._client = client
        self._server: asyncio.StreamWriter | None = None
        #: Channels that the test closed in RabbitMQ's place, and of which RabbitMQ has yet to learn.
        self._closed: set[int] = set()
        self._gone = asyncio.Event()

    def deliver(self) -> None:
        """Let all frames arrive."""
        frames, self.outbox = self.outbox, []
        if not self.lost:
            self._client.write(b"".join(frames))

    def close_channel(self, number: int) -> None:
        """Take note that a channel is closed in RabbitMQ's place: the client's answer closes RabbitMQ's end."""
        self._closed.add(number)
        self.outbox = [each for each in self.outbox if channel_of(each) != number]

    def accept(self) -> None:
        """Nothing: RabbitMQ accepts by itself."""

    def lose(self) -> None:
        """Cut the line."""
        self.lost = True
        for writer in (self._client, self._server):
            if writer is not None:
                writer.transport.abort()

    refuse = lose

    async def serve(self, reader: asyncio.StreamReader, port: int) -> None:
        """Pass everything to RabbitMQ, and keep what it answers."""
        upstream, self._server = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(self._ask(reader, self._server), self._keep(upstream))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.lose()

    async def _ask(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        server.write(await reader.readexactly(PROTOCOL))
        while True:
            frame = await _read(reader)
            number = channel_of(frame)
            if number in self._closed and frame[HEAD.size : HEAD.size + 4] == _CLOSE_OK:
                server.write(Method(number, spec.Channel.Close(200, "closed by hand", 0, 0)).marshal())
                # RabbitMQ takes the channel's number again once it has answered.
                await self._gone.wait()
                self._gone.clear()
            else:
                server.write(frame)

    async def _keep(self, upstream: asyncio.StreamReader) -> None:
        while True:
            frame = await _read(upstream)
            number = channel_of(frame)
            if number in self._closed:
                if frame[HEAD.size : HEAD.size + 4] == _CLOSE_OK:
                    self._closed.discard(number)
                    self._gone.set()
            else:
                self.outbox.append(frame)


async def _read(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(HEAD.size)
    _, _, size = HEAD.unpack(head)
    return head + await reader.readexactly(size + 1)


def channel_of(frame: bytes) -> int:
    """Return the channel of a frame."""
    number: int = HEAD.unpack_from(frame)[1]
    return number


def is_close(frame: bytes, number: int) -> bool:
    """Return whether a frame closes a channel."""
    return channel_of(frame) == number and frame[HEAD.size : HEAD.size + 4] == _CLOSE


class Frames:
    """Listens on a port of its own, and passes what comes to a RabbitMQ.

    Attributes:
        port: where it listens.
        lines: the connections, in order.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, target: int) -> None:
        self.lines: list[Line] = []
        self._target = target
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server = loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(writer)
        self.lines.append(line)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await line.serve(reader, self._target)
        except asyncio.CancelledError:
            # At the end: a handler that is left cancelled is logged as an error.
            pass
        finally:
            self._tasks.discard(task)

    def refuse(self) -> None:
        """Refuse connections from now on."""
        self._server.close()

    async def close(self) -> None:
        """Cut everything."""
        self.refuse()
        for line in self.lines:
            line.lose()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
