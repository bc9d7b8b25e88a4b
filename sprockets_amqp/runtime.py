"""What belongs to one event loop in one process: a client has one at a time, and a forked child abandons it."""

import threading
from collections.abc import Callable

from tornado.ioloop import IOLoop

from .connection.lifecycle import Lifecycle
from .connection.link import Events, Link
from .connection.topology import Setup, SetupFunction
from .hooks import StateChange
from .inflight import InFlight
from .observers import Observers
from .settings import Settings
from .wire.forks import part_from_parent


class Core:
    """The link to RabbitMQ, the lifecycle that drives it, the publisher on it, and the requests in flight.

    Attributes:
        ran: whether the loop has run since the core was made; until then, another loop may run the application instead.
        thread: the thread that it was made in.
    """

    def __init__(
        self,
        settings: Settings,
        events: Events,
        announce: Callable[[StateChange], object],
        on_persistent_failure: Callable[[], object],
        observers: Observers,
        setup: SetupFunction | None,
        name: str,
        io_loop: IOLoop,
    ) -> None:
        self.loop = io_loop.asyncio_loop  # type: ignore[attr-defined]
        self.thread = threading.get_ident()
        self.ran = self.loop.is_running()
        self.link = Link(
            events,
            io_loop,
            confirm=settings.enable_confirmations,
            max_message_size=settings.max_message_size,
            name=name,
        )
        declares = Setup(setup, self.loop, name)
        self.lifecycle = Lifecycle(
            settings, self.link, events, declares, name, announce, on_persistent_failure, observers, self.loop
        )
        self.publisher = self.lifecycle.publisher
        #: The requests that handlers with `PublishingMixin` are answering.
        self.in_flight = InFlight()

    def start(self) -> None:
        """Connect at once, or when the loop starts; until then the client is idle."""
        # The loop may run in another thread than this one.
        self.loop.call_soon_threadsafe(self._note_run)
        self.lifecycle.start()

    def retire(self, reason: str) -> None:
        """Refuse waiting messages: this core's loop never ran, and another core replaces it."""
        self.lifecycle.retire(reason)

    def abandon(self) -> None:
        """In a forked child, leave everything to the parent process: nothing here acts any more."""
        self.lifecycle.call_all_off()
        has_parted = part_from_parent(self.loop)
        self.lifecycle.outbox.abandon()
        self.link.abandon(self.loop if has_parted else None)

    def _note_run(self) -> None:
        self.ran = True
