"""The addresses of a name, and the race to the first that accepts a connection (RFC 8305)."""

import asyncio
import contextlib
import functools
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final

from .network import SocketAddress

LOGGER = logging.getLogger(__name__)

#: Seconds after which the next address is tried beside those that have not answered yet (RFC 8305, section 5).
HEAD_START: Final = 0.25


@dataclass(frozen=True)
class Address:
    """An address of a node."""

    family: int
    socket_address: SocketAddress

    @property
    def host(self) -> str:
        """The IP address, for people."""
        return str(self.socket_address[0])


class Unreachable(Exception):
    """None of the addresses accepts connections.

    Attributes:
        failures: why each of them does not, in the order in which they failed.
    """

    def __init__(self, failures: "Failures") -> None:
        super().__init__(failures)
        self.failures = failures


async def look_up(host: str, port: int, loop: asyncio.AbstractEventLoop) -> list[Address]:
    """Look a host up, in a thread that cannot delay the end of the process, however long the name server hangs.

    Raises:
        OSError, UnicodeError: whatever `socket.getaddrinfo` raises.
        RuntimeError: no thread can be started.
    """
    found: asyncio.Future[list[Any]] = loop.create_future()
    threading.Thread(
        target=_look_up, args=(host, port, loop, found), name="sprockets_amqp-getaddrinfo", daemon=True
    ).start()
    return list(dict.fromkeys(Address(record[0], record[4]) for record in await found))


def _look_up(host: str, port: int, loop: asyncio.AbstractEventLoop, found: "asyncio.Future[list[Any]]") -> None:
    tell: Callable[[], object]
    try:
        records = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except Exception as error:
        tell = functools.partial(_set, found.set_exception, found, error)
    else:
        tell = functools.partial(_set, found.set_result, found, records)
    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:
        LOGGER.debug("the loop closed while %s was looked up", host)


def _set(setter: Callable[[Any], object], future: "asyncio.Future[Any]", value: object) -> None:
    if not future.done():
        setter(value)


def starting_behind(addresses: list[Address], last: SocketAddress | None) -> list[Address]:
    """Return the addresses in their order, but beginning with the one behind the last, if that is among them.

    >>> one, two, three = (Address(2, (f"10.0.0.{number}", 5672)) for number in (1, 2, 3))
    >>> [address.host for address in starting_behind([one, two, three], ("10.0.0.1", 5672))]
    ['10.0.0.2', '10.0.0.3', '10.0.0.1']
    """
    start = next((place for place, each in enumerate(addresses, 1) if each.socket_address == last), 0)
    return addresses[start:] + addresses[:start]


#: Addresses, and why each of them does not accept a connection.
Failures = list[tuple[Address, BaseException]]
Connect = Callable[[Address], Coroutine[Any, Any, socket.socket]]


@dataclass(frozen=True)
class Won:
    """The first address that accepted a connection, its socket, and what became of the addresses before it."""

    address: Address
    socket: socket.socket
    failures: Failures


async def race(addresses: Iterable[Address], connect: Connect, loop: asyncio.AbstractEventLoop) -> Won:
    """Connect to the first address that accepts: the next is tried when one fails, and after HEAD_START in any case.

    Raises:
        Unreachable: all of them have failed.
    """
    failures: Failures = []
    running: dict[asyncio.Task[socket.socket], Address] = {}
    untried = deque(addresses)
    try:
        while untried or running:
            if untried:
                address = untried.popleft()
                # Not by the loop's factory: an eager task would run before it is kept here.
                running[asyncio.Task(connect(address), loop=loop)] = address
            head_start = HEAD_START if untried else None
            await asyncio.wait(running, timeout=head_start, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in running if task.done()]:
                error = asyncio.CancelledError() if task.cancelled() else task.exception()
                if error is None:
                    address = running.pop(task)
                    silent = [(each, TimeoutError("no answer yet")) for each in running.values()]
                    return Won(address, task.result(), [*failures, *silent])
                failures.append((running.pop(task), error))
        raise Unreachable(failures)
    finally:
        await _end(running)


async def _end(running: Iterable["asyncio.Task[socket.socket]"]) -> None:
    """Cancel what lost the race, and close what it has connected."""
    for task in running:
        task.cancel()
        task.add_done_callback(_close)
    if running:
        await asyncio.wait(running)


def _close(task: "asyncio.Task[socket.socket]") -> None:
    with contextlib.suppress(asyncio.CancelledError):
        if task.exception() is None:
            task.result().close()
