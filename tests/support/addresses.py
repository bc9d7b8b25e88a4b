"""Several addresses of one name on this machine, each with something else behind it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import pytest

NAME = "rabbit.test"


class Addresses:
    """The addresses 127.0.0.2, 127.0.0.3 ... of `NAME`, in order, all with one port.

    `async with Addresses(monkeypatch, port) as name:`, and then a call for each address.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
        self.port = port
        #: What the name stands for now, and how often it was looked up.
        self.listed: list[str] = []
        self.looked_up = 0
        #: The addresses at which a connection was accepted, in order; how many connections are open.
        self.accepted: list[str] = []
        self.open = 0
        self._cleaning = contextlib.AsyncExitStack()
        look_up = socket.getaddrinfo

        def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
            if host != NAME:
                return look_up(host, *args, **kwargs)
            self.looked_up += 1
            family = {True: socket.AF_INET6, False: socket.AF_INET}
            return [
                (family[":" in address], socket.SOCK_STREAM, 6, "", (address, port) + (0, 0) * (":" in address))
                for address in self.listed
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._cleaning.aclose()

    def url(self, query: str = "", scheme: str = "amqp") -> str:
        """Return the URL of the name."""
        return f"{scheme}://guest:guest@{NAME}:{self.port}/%2f" + (f"?{query}" if query else "")

    def refuses(self, address: str = "") -> Self:
        """Add an address at which nothing listens."""
        self._add(address)
        return self

    def black_hole(self) -> Self:
        """Add an address at which a connection is neither accepted nor refused: nobody takes what has come."""
        address = self._add()
        listening = socket.create_server((address, self.port), backlog=0)
        self._cleaning.callback(listening.close)
        for _ in range(2):
            waiting = socket.socket()
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect((address, self.port))
            self._cleaning.callback(waiting.close)
        return self

    async def accepts(self, *, hangs_up: bool = False, to: int | None = None) -> Self:
        """Add an address that accepts connections: it stays silent, hangs up, or passes everything on to a port."""
        address = self._add()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.accepted.append(address)
            self.open += 1
            try:
                if to is not None:
                    their_reader, their_writer = await asyncio.open_connection("127.0.0.1", to)
                    await asyncio.gather(_pass_on(reader, their_writer), _pass_on(their_reader, writer))
                elif not hangs_up:
                    while await reader.read(1 << 16):
                        pass
            except (OSError, asyncio.CancelledError):
                pass
            finally:
                self.open -= 1
                writer.close()

        server = await asyncio.start_server(serve, address, self.port)
        self._cleaning.callback(server.close)
        return self

    def _add(self, address: str = "") -> str:
        address = address or f"127.0.0.{2 + len(self.listed)}"
        self.listed.append(address)
        return address


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
