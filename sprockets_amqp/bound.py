"""Binds a client to a loop and a process: it has one core at a time, on the running loop."""

import asyncio
import functools
import logging
import threading
import weakref
from typing import Final

from tornado.ioloop import IOLoop

from .bounded_log import named
from .connection.link import Events
from .connection.topology import SetupFunction
from .hooks import Hooks
from .observers import Observers
from .runtime import Core
from .settings import Settings
from .wire.forks import after_fork, forget_current_loop

LOGGER = logging.getLogger(__name__)

#: Returns None if no loop runs in this thread and process; documented, like get_running_loop(), which raises.
running_loop: Final = asyncio._get_running_loop  # noqa: SLF001


class Bound(Events):
    """The base of `Client`, which adds settings and hooks: it is bound to a loop, in a process."""

    settings: Settings
    #: The loop that it belongs to.
    io_loop: IOLoop
    _hooks: Hooks
    #: Its name among the clients of an application.
    name: str
    _observers: Observers
    #: The function that declares exchanges, queues and bindings, if any.
    _setup: SetupFunction | None
    #: Whether the loop was given as an argument: then no other takes its place.
    _io_loop_given: bool
    #: None in a forked process until the client is used there.
    _present: Core | None = None

    def bind(self) -> None:
        """Bind the client to the running loop if it was made before any ran; handlers and probes call this.

        A client that is already bound, to this loop or another, stays as it is.
        """
        running = running_loop()
        if self._present is None or (running is not None and self._may_move()):
            self._here()

    @property
    def _core(self) -> Core:
        return self._present or self._bind(IOLoop.current())

    def _bind(self, io_loop: IOLoop) -> Core:
        self.io_loop = io_loop
        self._hooks.bind(io_loop.asyncio_loop)  # type: ignore[attr-defined]
        self._observers.bind(io_loop.asyncio_loop)  # type: ignore[attr-defined]
        tell = functools.partial(self._hooks.call_later_in_order, self._tell_persistent_failure)
        self._present = core = Core(
            self.settings, self, self._hooks.announce, tell, self._observers, self._setup, self.name, io_loop
        )
        _bound.add(self)
        core.start()
        return core

    def _here(self) -> Core:
        """Return the core for the loop that runs, or is going to run. Raises RuntimeError on another loop or thread."""
        core, running = self._core, running_loop()
        if running is core.loop:
            return core
        is_maker = threading.get_ident() == core.thread
        if running is None and is_maker and not core.loop.is_running():
            return core
        if running is not None and self._may_move():
            waiting = core.publisher.waiting
            core.retire("it was published on an event loop that never ran; the application runs on another")
            core = self._bind(IOLoop.current())
            named(LOGGER, self.name).warning(
                "the client was made for an event loop that never ran, and moves to the one that is running; messages "
                "published before are refused: %d",
                waiting,
            )
            return core
        if running is None or not is_maker:
            raise RuntimeError(
                f"{self!r} runs in another thread: call client.io_loop.add_callback(client.publish, ...), or "
                "asyncio.run_coroutine_threadsafe(a coroutine that publishes, client.io_loop.asyncio_loop)"
            )
        raise RuntimeError(f"{self!r} belongs to another event loop: call install() while this loop is running")

    def _may_move(self) -> bool:
        return self._present is not None and not self._present.ran and not self._io_loop_given

    def _abandon(self) -> bool:
        """In a forked child, leave everything to the parent; return whether the client was waiting for its loop."""
        core, self._present = self._present, None
        if core is not None:
            core.abandon()
        return core is not None and not core.ran

    def _tell_persistent_failure(self) -> None:
        """Called once in each persistent outage."""


_bound: Final[weakref.WeakSet[Bound]] = weakref.WeakSet()


def bound() -> list[Bound]:
    """Return the clients that are bound to any loop in this process."""
    return [each for each in _bound if each._present is not None]  # noqa: SLF001


def bound_to(loop: asyncio.AbstractEventLoop) -> list[Bound]:
    """Return the clients that are bound to a loop in this process."""
    return [each for each in bound() if each._core.loop is loop]  # noqa: SLF001


def _abandon_all() -> None:
    clients = list(_bound)
    # Clients that were waiting for the loop to start wait for the child's loop.
    waiting = [client for client in clients if client._abandon()]  # noqa: SLF001
    if clients:
        forget_current_loop()
    for client in waiting:
        client.bind()


after_fork(_abandon_all)
