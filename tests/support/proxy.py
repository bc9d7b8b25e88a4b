"""A TCP proxy in front of a node, to cut, slow and freeze the line to it."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Literal, Self

#: No time to linger: close() sends a reset instead of an end of stream.
_LINGER = struct.pack("ii", 1, 0)
_CHUNK = 65536

Direction = Literal["to_server", "to_client"]


class Proxy:
    """Passes bytes between clients and a server on 127.0.0.1 until it is told otherwise.

    `async with Proxy(node.port) as proxy:` listens on `proxy.port`. What is set (`delay`, `black_hole()`, …)
    holds for the connections that are open and for those to come; what is done (`reset()`, `eof()`) for the open ones.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        #: Seconds that every piece of data is held back, in each direction.
        self.delay = 0.0
        #: Connections accepted so far, refused ones not among them.
        self.accepted = 0
        #: Bytes passed so far, in both directions.
        self.passed = 0
        #: Bytes that came and were not passed on.
        self.swallowed = 0
        self._left: dict[Direction, int | None] = {"to_server": None, "to_client": None}
        self._reading = asyncio.Event()
        self._reading.set()
        self._server: asyncio.Server | None = None
        self._lines: dict[asyncio.Task[None], _Line] = {}

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def open(self) -> int:
        """How many connections are open now."""
        return len(self._lines)

    def url(self, query: str = "") -> str:
        """Return the URL of the default vhost as guest, by way of the proxy."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2f" + (f"?{query}" if query else "")

    async def listen(self) -> None:
        """Accept connections, again on the same port after refuse()."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Refuse new connections until listen(); those that are open stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def black_hole(self) -> None:
        """Swallow all that comes, both ways, until heal()."""
        self.pass_only(to_server=0, to_client=0)

    def pass_only(self, *, to_server: int | None = None, to_client: int | None = None) -> None:
        """Pass that many bytes more in a direction, then swallow the rest until heal(); None for no limit."""
        self._left = {"to_server": to_server, "to_client": to_client}

    def pause(self) -> None:
        """Stop reading until heal(): what is sent fills the buffers on the way, as to a frozen broker."""
        self._reading.clear()

    def heal(self) -> None:
        """Pass everything again, at once; what was swallowed is lost."""
        self.pass_only()
        self.delay = 0.0
        self._reading.set()

    def reset(self) -> None:
        """Send a TCP reset to both ends of every open connection."""
        for line in self._lines.values():
            line.reset()

    def eof(self) -> None:
        """Send an end of stream to the client of every open connection."""
        for line in self._lines.values():
            line.client.write_eof()

    async def close(self) -> None:
        """Reset what is open and stop listening."""
        self.refuse()
        self.reset()
        tasks = list(self._lines)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            upstream, downstream = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            _abort(writer)
            return
        task = asyncio.current_task()
        assert task is not None
        line = self._lines[task] = _Line(writer, downstream)
        try:
            await asyncio.gather(
                self._pump(line, reader, downstream, "to_server"), self._pump(line, upstream, writer, "to_client")
            )
        except asyncio.CancelledError:
            # By close(): a handler that is left cancelled is logged as an error.
            pass
        finally:
            line.reset()
            del self._lines[task]

    async def _pump(
        self, line: _Line, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: Direction
    ) -> None:
        try:
            while data := await source.read(_CHUNK):
                await self._reading.wait()
                await asyncio.sleep(self.delay)
                allowed = self._allowed(data, direction)
                self.passed += len(allowed)
                self.swallowed += len(data) - len(allowed)
                sink.write(allowed)
                await sink.drain()
            if self._left[direction] is None:
                sink.write_eof()
        except OSError:
            line.reset()

    def _allowed(self, data: bytes, direction: Direction) -> bytes:
        left = self._left[direction]
        if left is None:
            return data
        self._left[direction] = max(0, left - len(data))
        return data[:left]


class _Line:
    """One connection: its two ends."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server

    def reset(self) -> None:
        _abort(self.client)
        _abort(self.server)


def _abort(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    writer.transport.abort()
