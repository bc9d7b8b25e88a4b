"""What belongs to one event loop in one process: a client has one at a time, and a forked child abandons it."""

import asyncio
import dataclasses
import functools
import logging
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self

from tornado.ioloop import IOLoop

from .bounded_log import named
from .connection.address import Address
from .connection.events import Events
from .connection.gate import Gate
from .connection.lifecycle import Lifecycle
from .connection.link import Link
from .connection.outage import OutageModel
from .connection.renewal import RenewalModel
from .connection.topology import Setup, SetupFunction
from .delivery.check import CheckModel
from .delivery.counters import Counters
from .delivery.exchanges import Exchanges
from .delivery.publisher import Publisher
from .hooks import Hooks
from .inflight import InFlight
from .names import check_name
from .observers import Observers
from .outbox.model import OutboxModel
from .settings import Settings
from .wire.forks import after_fork, forget_current_loop, part_from_parent

if TYPE_CHECKING:
    from .delivery.publish import Result
    from .recording.recorder import Put, Recorder
    from .recording.ring import Ring

LOGGER = logging.getLogger("sprockets_amqp.bound")

#: Returns None if no loop runs in this thread and process; documented, like get_running_loop(), which raises.
running_loop: Final = asyncio._get_running_loop  # noqa: SLF001


class Runtime:
    """The parts that work together, on one loop.

    Attributes:
        loop: the loop.
        ran: whether the loop has run since this was made; until then, another loop may run the application instead.
        thread: the thread that it was made in.
        link: the connection and channel.
        gate: what becomes of a publish.
        publisher: accepts and sends messages.
        check: checks exchanges.
        outbox: stores messages.
        renewal: renews credentials.
        lifecycle: the connection's life.
        in_flight: the requests that handlers with `PublishingMixin` are answering.
        machines: the models of all machines.
    """

    def __init__(
        self,
        settings: Settings,
        setup: SetupFunction | None,
        events: Events,
        connect: Callable[[], object],
        hooks: Hooks,
        on_persistent_failure: Callable[[], object],
        observers: Observers,
        name: str,
        io_loop: IOLoop,
    ) -> None:
        self.loop = loop = io_loop.asyncio_loop  # type: ignore[attr-defined]
        self.thread = threading.get_ident()
        self.ran = loop.is_running()
        hooks.bind(loop)
        observers.bind(loop)
        tell = functools.partial(hooks.call_later_in_order, on_persistent_failure)
        self.link = link = Link(
            events,
            io_loop,
            confirm=settings.enable_confirmations,
            max_message_size=settings.max_message_size,
            name=name,
        )
        address = Address(settings, loop)
        self.gate = gate = Gate()
        self.check = check = CheckModel(link, loop, name)
        exchanges = Exchanges(check, link, loop, name)
        self.publisher = publisher = Publisher(gate, link, exchanges, settings, loop, name)
        self.outbox = outbox = OutboxModel(gate, publisher, observers, settings, loop, name)
        self.renewal = renewal = RenewalModel(address, link, exchanges.doubt, settings.max_reconnect_delay, loop, name)
        outage = OutageModel(gate, publisher, settings.timeout, tell, loop, name)
        self.lifecycle = lifecycle = Lifecycle(
            address,
            link,
            Setup(setup, loop, name),
            publisher,
            outage,
            outbox,
            renewal,
            connect,
            hooks.announce,
            loop,
            name,
        )
        gate.watch(lifecycle, outage, outbox)
        lifecycle.lead(outage, renewal, outbox, check)
        self.in_flight = InFlight()
        self.machines = (lifecycle, outage, renewal, outbox, check)
        self._recorders: list[Recorder] = []
        #: What is written; None: nothing.
        self._ring = _ring_in(settings, name)
        if self._ring is not None:
            self.record(self._ring.put)

    def record(self, put: "Put", interval: float | None = None) -> None:
        """Have each trigger put there from now on, and at intervals of so many seconds the counters; 0: at the end."""
        from .recording.recorder import INTERVAL, Recorder  # noqa: PLC0415 - loaded only if it is needed

        recorder = Recorder(put, lambda: self.counters, self.loop, INTERVAL if interval is None else interval)
        recorder.watch(*self.machines)
        self._recorders.append(recorder)

    @property
    def counters(self) -> Counters:
        """A copy of the message counters."""
        return dataclasses.replace(
            self.publisher.counters,
            reconnects=max(0, self.link.opened - 1),
            unconfirmed=self.publisher.unconfirmed,
            waiting=self.publisher.waiting,
            stored=self.outbox.stored,
            set_aside=self.outbox.set_aside,
        )

    def on_wire(self) -> "set[asyncio.Future[Result]]":
        """Return the futures of the publishes that are sent and not confirmed, also while they are being stored."""
        sent = self.publisher.flight.entries.values()
        callers = [publish.kept.caller for publish in sent if publish.kept is not None]
        return {publish.future for publish in (*sent, *callers) if publish is not None}

    def start(self) -> None:
        """Connect at once, or when the loop starts; until then the client is idle."""
        # The loop may run in another thread than this one.
        self.loop.call_soon_threadsafe(self._note_run)
        for recorder in self._recorders:
            recorder.start()
        self.lifecycle.start()

    def rest(self) -> None:
        """The client was shut down: nothing is left behind."""
        for recorder in self._recorders:
            recorder.rest()

    def abandon(self) -> None:
        """In a forked child, leave everything to the parent process: this object no longer does anything."""
        self.lifecycle.call_all_off()
        has_parted = part_from_parent(self.loop)
        self.outbox.abandon()
        for recorder in self._recorders:
            recorder.stop()
        if self._ring is not None:
            self._ring.abandon()
        self.link.abandon(self.loop if has_parted else None)

    def _note_run(self) -> None:
        self.ran = True


def _ring_in(settings: Settings, name: str) -> "Ring | None":
    if settings.recorder is None:
        return None
    from .recording.ring import Ring  # noqa: PLC0415 - it locks files, which not every system can

    return Ring(settings.recorder, name, settings.recorder_size, settings.recorder_files)


class Bound:
    """The base of `Client`: it has a runtime on one loop at a time, and in a forked process another.

    Attributes:
        name: its name among the clients of an application.
        io_loop: the loop that it belongs to.
    """

    #: None in a forked process until the client is used there, and while it is being made.
    _present: Runtime | None = None
    io_loop: IOLoop

    def __init__(self, name: str) -> None:
        self.name = check_name(name)
        #: Whether the loop was given as an argument: then no other takes its place.
        self._io_loop_given = False

    def _make_runtime(self, io_loop: IOLoop) -> Runtime:
        """Assemble the parts for a loop."""
        raise NotImplementedError

    @property
    def is_bound(self) -> bool:
        """Whether it is bound to a loop: not in a forked process, until it is used there."""
        return self._present is not None

    def bind(self) -> None:
        """Bind the client to the running loop if it was made before any ran; handlers and probes call this.

        A client that is already bound, to this loop or another, stays as it is.
        """
        running = running_loop()
        if self._present is None or (running is not None and self._may_move()):
            self._here()

    @property
    def _runtime(self) -> Runtime:
        return self._present or self._bind(IOLoop.current())

    def _begin(self, io_loop: IOLoop | None) -> None:
        """Bind it for the first time, to the given loop or the current one."""
        self._io_loop_given = io_loop is not None
        self._bind(io_loop or IOLoop.current())

    def _bind(self, io_loop: IOLoop) -> Runtime:
        self.io_loop = io_loop
        self._present = runtime = self._make_runtime(io_loop)
        _bound.add(self)
        runtime.start()
        return runtime

    def _here(self) -> Runtime:
        """Return the runtime for the loop that runs, or is going to. Raises RuntimeError on another loop or thread."""
        runtime, running = self._runtime, running_loop()
        if running is runtime.loop:
            return runtime
        is_maker = threading.get_ident() == runtime.thread
        if running is None and is_maker and not runtime.loop.is_running():
            return runtime
        if running is not None and self._may_move():
            waiting = runtime.publisher.waiting
            why = "it was published on an event loop that never ran; the application runs on another"
            runtime.lifecycle.retire(why)
            runtime = self._bind(IOLoop.current())
            named(LOGGER, self.name).warning(
                "the client was made for an event loop that never ran, and moves to the one that is running; messages "
                "published before are refused: %d",
                waiting,
            )
            return runtime
        if running is None or not is_maker:
            raise RuntimeError(
                f"{self!r} runs in another thread: publish with client.publish_threadsafe(...) here, or call "
                "asyncio.run_coroutine_threadsafe(a coroutine that publishes, client.io_loop.asyncio_loop)"
            )
        raise RuntimeError(f"{self!r} belongs to another event loop: call install() while this loop is running")

    def _may_move(self) -> bool:
        return self._present is not None and not self._present.ran and not self._io_loop_given

    def _abandon(self) -> bool:
        """In a forked child, leave everything to the parent; return whether the client was waiting for its loop."""
        runtime, self._present = self._present, None
        if runtime is not None:
            runtime.abandon()
        return runtime is not None and not runtime.ran

    @classmethod
    def bound(cls, loop: asyncio.AbstractEventLoop | None = None) -> list[Self]:
        """Return the clients that are bound to a loop in this process, or to any."""
        clients = [each for each in _bound if isinstance(each, cls)]
        return [each for each in clients if (its := each._present) is not None and loop in {None, its.loop}]  # noqa: SLF001


_bound: Final[weakref.WeakSet[Bound]] = weakref.WeakSet()


def _abandon_all() -> None:
    clients = list(_bound)
    # Clients that were waiting for the loop to start wait for the child's loop.
    waiting = [client for client in clients if client._abandon()]  # noqa: SLF001
    if clients:
        forget_current_loop()
    for client in waiting:
        client.bind()


after_fork(_abandon_all)
