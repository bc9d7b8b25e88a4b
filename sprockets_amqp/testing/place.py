"""The place of a broker in memory: it is reached instead of RabbitMQ while it is installed, and may have a loop."""

import asyncio
import sys
import time
import weakref
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from sprockets_amqp.client import Client
from sprockets_amqp.outbox.store import STAND_INS
from sprockets_amqp.runtime import running_loop
from sprockets_amqp.wire import network

from .clock import Clock
from .database import Database

T = TypeVar("T")

#: Seconds that a client may take to shut down at the end of a test.
SHUTDOWN_LIMIT: Final = 0.1


class Place(network.Substitute):
    """The base of `Broker` that takes RabbitMQ's place, and runs code on a loop of its own.

    Attributes:
        database: takes the place of PostgreSQL: see `Database`.
    """

    def __init__(self) -> None:
        self.database = Database()
        self._clock: Clock | None = None
        #: Where its time comes from (None: the machine), what to add to that, and the time that it has told.
        self._timed_by: Clock | None = None
        self._offset = self._told = 0.0
        self._loop_before: asyncio.AbstractEventLoop | None = None
        #: The clients that existed before it was installed.
        self._others: weakref.WeakSet[Client] = weakref.WeakSet()

    # While installed, it takes the place of RabbitMQ

    def install(self) -> Self:
        """Make every client's connections to this broker from now on, until `uninstall`."""
        self._others = weakref.WeakSet(Client.bound())
        if self not in _installed:
            if _installed:
                # Brokers are nodes, and there is one PostgreSQL beside them.
                self.database = _installed[-1].database
            _installed.append(self)
            STAND_INS.append(self.database.store)
        network.use(self)
        return self

    def uninstall(self) -> None:
        """Make connections to the latest broker that is still installed or, if there is none, to RabbitMQ."""
        network.leave(self)
        if self in _installed:
            _installed.remove(self)
            STAND_INS.remove(self.database.store)

    def __enter__(self) -> Self:
        return self.install()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # A loop whose time the broker controls

    @property
    def clock(self) -> Clock:
        """The loop of tests that are not coroutines, with its time.

        Raises:
            RuntimeError: the test runs on its own loop, whose time cannot be moved.
        """
        clock = self._present_clock()
        if clock is None:
            raise RuntimeError("the test runs on its own loop: await what it waits for, with short limits")
        return clock

    def _present_clock(self) -> Clock | None:
        """Return its clock, or that of the latest broker that is installed beside it and has one."""
        clocks = [self._clock, *(broker._clock for broker in reversed(_installed))]  # noqa: SLF001 - of its own class
        return next((clock for clock in clocks if clock is not None), None)

    def _time(self) -> float:
        """Return the time by which messages expire: that of the loop, without jumps when it gets another one."""
        # Once a test has ended, its time stands still.
        clock = self._present_clock() or self._timed_by
        now = clock.now if clock is not None else time.monotonic()
        if clock is not self._timed_by:
            self._timed_by, self._offset = clock, self._told - now
        self._told = now + self._offset
        return self._told

    def own_loop(self) -> Self:
        """Give the broker a loop, which is the current one until `close`."""
        self._clock = Clock()
        self._loop_before = _current_loop()
        # Exceptions that escape from callbacks are logged, as on any loop.
        self._clock.loop.set_exception_handler(None)
        asyncio.set_event_loop(self._clock.loop)
        return self

    def close(self) -> None:
        """Shut down the clients that were made since `install`, on each loop that can run; then `uninstall`.

        The broker's own loop is closed, if it has one.
        """
        clock, self._clock = self._clock, None
        try:
            if clock is not None:
                for client in Client.bound(clock.loop):
                    clock.run(client.shutdown(SHUTDOWN_LIMIT))
                    self._others.add(client)
            self._shut_down_what_is_left()
        finally:
            try:
                if clock is not None:
                    # The rest runs once more, while this broker is still the one that it reaches.
                    clock.close()
                    self._give_back(clock.loop)
            finally:
                self.uninstall()

    def _shut_down_what_is_left(self) -> None:
        """Shut down clients that a coroutine left: its loop goes on with other tests, where they would use RabbitMQ."""
        for client in Client.bound() if self in _installed else ():
            loop = client.io_loop.asyncio_loop  # type: ignore[attr-defined]
            free = running_loop() is None and not loop.is_running() and not loop.is_closed()
            if free and client not in self._others:
                # The loop of another broker waits for nothing unless that broker has its time move.
                clocks = [broker._clock for broker in _installed if broker._clock is not None]  # noqa: SLF001
                run = next((clock.run for clock in clocks if clock.loop is loop), loop.run_until_complete)
                run(client.shutdown(SHUTDOWN_LIMIT))

    def _give_back(self, loop: asyncio.AbstractEventLoop) -> None:
        """Restore the previous current loop, or leave that to a later broker whose loop is the current one."""
        for broker in _installed:
            if broker._loop_before is loop:  # noqa: SLF001 - of its own class
                broker._loop_before = self._loop_before  # noqa: SLF001
        if _current_loop() is loop:
            asyncio.set_event_loop(self._loop_before)

    def run(self, coroutine: Coroutine[Any, Any, T], seconds: float = 1000) -> T:
        """Run a coroutine to its end on the broker's loop; instead of waiting, time moves.

        Raises:
            TimeoutError: it did not end within ``seconds`` of the loop's time.
        """
        try:
            clock = self.clock
        except RuntimeError:
            coroutine.close()
            raise
        return clock.run(coroutine, seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass on the broker's loop, and everything that is due happen."""
        self.clock.advance(seconds)

    def fetch(self, application: Application, path: str, **request: Any) -> HTTPResponse:
        """Serve the application on the broker's loop, and return its response to one request, whatever the status.

        ``request`` is `tornado.httpclient.HTTPRequest`'s; without a time limit of its own it has none.
        """
        return self.run(self._fetch(application, path, request))

    async def _fetch(self, application: Application, path: str, request: dict[str, Any]) -> HTTPResponse:
        (listening,) = bind_sockets(0, "127.0.0.1")
        server, client = HTTPServer(application), AsyncHTTPClient(force_instance=True)
        server.add_socket(listening)
        try:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}{path}"
            return await client.fetch(url, raise_error=False, **{"connect_timeout": 0, "request_timeout": 0, **request})
        finally:
            client.close()
            server.stop()
            await server.close_all_connections()


def _current_loop() -> asyncio.AbstractEventLoop | None:
    if sys.version_info >= (3, 14):
        try:
            return asyncio.get_event_loop()
        except RuntimeError:
            return None
    # Any other way of asking makes asyncio create one if there is none, or warn.
    local = getattr(asyncio.get_event_loop_policy(), "_local", None)
    return getattr(local, "_loop", None)


#: The installed brokers, the latest last.
_installed: Final[list[Place]] = []
