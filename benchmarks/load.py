"""The second process of the handler workload: loads a server over keep-alive connections and reads what it spent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, cast

from benchmarks.cases import Case, Round

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_HOST = "127.0.0.1"
_END_OF_HEADERS = b"\r\n\r\n"


class _Connection(asyncio.Protocol):
    """Sends one request after another until the turns of all connections are used up."""

    _transport: asyncio.WriteTransport

    def __init__(self, path: str, turns: Iterator[int]) -> None:
        self._request = f"POST {path} HTTP/1.1\r\nHost: {_HOST}\r\nContent-Length: 0\r\n\r\n".encode()
        self._turns = turns
        self._answer = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self._answer.endswith(_END_OF_HEADERS):
            return
        if not self._answer.startswith(b"HTTP/1.1 204 "):
            self.done.set_exception(RuntimeError(f"the server answered {self._answer!r}: see its output"))
            return
        self._answer = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed a connection under load"))

    def _next(self) -> None:
        if next(self._turns, None) is not None:
            self._transport.write(self._request)
        else:
            self.done.set_result(None)
            self._transport.close()


async def load(port: int, path: str, requests: int, connections: int) -> None:
    """Have ``connections`` connections send ``requests`` requests to ``path``, each when its last was answered."""
    loop = asyncio.get_running_loop()
    turns = iter(range(requests))
    opened = [
        (await loop.create_connection(lambda: _Connection(path, turns), _HOST, port))[1] for _ in range(connections)
    ]
    await asyncio.gather(*(connection.done for connection in opened))


@contextlib.asynccontextmanager
async def serving(peer: str, url: str, case: Case, environment: dict[str, str]) -> AsyncIterator[int]:
    """Start the server with ``peer`` in it, and give its port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.server", peer, url, str(case.size), case.given,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=os.environ | environment,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def measure(peer: str, url: str, case: Case, environment: dict[str, str]) -> Round:
    """Load the empty handler and the publishing one of the same process in alternate bursts, and compare."""
    bursts = 16
    requests = case.messages // bursts
    spent = {"/empty": (0.0, 0.0), "/publish": (0.0, 0.0)}
    wall = 0.0
    async with serving(peer, url, case, environment) as port:
        for path in spent:
            await load(port, path, case.warm_up, case.window)
        for number in range(bursts):
            # Each is first as often as it is second: a machine that gets slower is no part of the difference.
            for path in spent if number % 2 else reversed(spent):
                user, system = spent[path]
                before, started = _usage(port), time.perf_counter()
                await load(port, path, requests, case.window)
                wall += time.perf_counter() - started if path == "/publish" else 0
                after = _usage(port)
                spent[path] = (user + after["user"] - before["user"], system + after["system"] - before["system"])
    return Round(requests * bursts, wall, *spent["/publish"], empty=sum(spent["/empty"]))


def _usage(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{_HOST}:{port}/usage", timeout=10) as answer:
        usage: dict[str, float] = json.load(answer)
    return usage
