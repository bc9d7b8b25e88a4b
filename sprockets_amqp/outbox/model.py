"""The outbox: the model of the machine that `states/outbox.py` declares.

A publish that would end as not sent, or as lost, comes here from the one end of all publishes. Stored messages are read
back when RabbitMQ accepts messages again, and go the way of every message; their ends come here, too: see `stock`. The
loop never waits for the disk: see `writer`.
"""

import asyncio
import logging
from typing import Final

from transitions import EventData

from sprockets_amqp.bounded_log import BoundedLog, named
from sprockets_amqp.delivery.publisher import Publisher
from sprockets_amqp.delivery.surroundings import Gate
from sprockets_amqp.model import Model, Timeout, Trigger
from sprockets_amqp.observers import Observers
from sprockets_amqp.settings import Settings
from sprockets_amqp.states import OUTBOX, Outbox, Place
from sprockets_amqp.text import shown
from sprockets_amqp.urls import is_database

from .memory import MemoryStore
from .stock import SILENT, Stock
from .store import STAND_INS, Store
from .writer import DISK_LIMIT, Batch, Done, Writer

LOGGER = logging.getLogger("sprockets_amqp.outbox")

#: Seconds of `shutdown()` that are reserved for the disk; it takes what the rest leaves, up to the limit of a batch.
FINISH_LIMIT: Final = 1.0
#: Seconds before a failed disk is tried again.
RETRY_DELAY: Final = 1.0
#: Seconds between two searches for what other clients have left.
LOOK_INTERVAL: Final = 60.0
#: Seconds for which messages have to have been stored for it to be logged that all of them were delivered.
NOTICED: Final = 1.0


class OutboxModel(Model):
    """The model: whether messages are kept, and what that changes."""

    machine = OUTBOX
    state: Outbox
    # Added by the declaration; tests/test_states.py keeps the two in step.
    client_started: Trigger
    files_opened: Trigger
    backlog_began: Trigger
    backlog_ended: Trigger
    disk_failed: Trigger
    disk_due: Trigger
    client_stopped: Trigger
    files_closed: Trigger

    def __init__(
        self,
        gate: Gate,
        publisher: Publisher,
        observers: Observers,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        name: str,
    ) -> None:
        super().__init__(loop, name)
        self._gate = gate
        self._publisher = publisher
        self._place = settings.shown_outbox
        self._logger = named(LOGGER, name)
        self._log = BoundedLog(self._logger, loop.time)
        store = store_in(settings, name)
        store.watch(self._on_news, self._on_loss)
        self._writer = Writer(store, loop, self._on_done, self._on_silence)
        self._stock = Stock(self, gate, publisher, observers, settings, loop, self._writer, self._log)
        if self.given:
            publisher.keeper = self._stock
        #: Why nothing could be stored, and which problems were logged since the last success.
        self._trouble = ""
        self._told: set[str] = set()
        self._look_timer: asyncio.TimerHandle | None = None
        self._when_empty: list[asyncio.Future[int]] = []
        #: How many messages were left when the files were closed.
        self._left = 0
        self._when_closed: list[asyncio.Future[None]] = []

    # Queries

    @property
    def given(self) -> bool:
        """Whether there is an outbox."""
        return self._place is not None

    @property
    def holds(self) -> bool:
        """Whether stored messages are waiting to be sent."""
        return self._stock.ledger.count("unsent") > 0

    @property
    def ending(self) -> bool:
        """Whether the client is closing, or closed: what is stored now is for the next one to send."""
        return not self._gate.recovers

    @property
    def stored(self) -> int:
        """How many stored messages are to be sent or confirmed."""
        return self._stock.ledger.count("stored")

    @property
    def set_aside(self) -> int:
        """How many messages were set aside: they are no longer sent."""
        return self._stock.ledger.count("aside")

    @property
    def _is_empty(self) -> bool:
        # While everything waits for the files to be opened, their contents are unknown.
        return not self.stored and self.made("goes out") != "waits"

    @property
    def trouble(self) -> str:
        """Why nothing can be stored; empty if it can."""
        return self._trouble if "troubled" in self.declared.marks else ""

    @property
    def takes_messages(self) -> bool:
        """Whether a publish that ends badly is stored."""
        return self.made("is refused") == "is stored"

    async def emptied(self) -> int:
        """Return when nothing is stored any more, except what was set aside; or how many were left at the end."""
        if self._is_empty:
            return self._left
        future: asyncio.Future[int] = self._loop.create_future()
        self._when_empty.append(future)
        return await future

    async def closed(self, timeout: float) -> None:
        """Return when everything is written, when that is given up after ``timeout``, or when it is started again."""
        if "finishing" in self.declared.marks:
            future = self._loop.create_future()
            self._when_closed.append(future)
            if not (await asyncio.wait([future], timeout=max(0.0, timeout)))[0]:
                self.feed(self.files_closed)

    def abandon(self) -> None:
        """In a forked child, leave everything to the parent process."""
        self._writer.abandon()

    # Called by the stock

    def note_backlog(self) -> None:
        """Begin the backlog, unless it has begun."""
        if self.knows("backlog_began"):
            self.feed(self.backlog_began)

    def note_stock(self) -> None:
        """Begin or end the backlog, and say so if nothing is stored any more."""
        if self.holds:
            self.note_backlog()
            return
        if self.knows("backlog_ended"):
            self.schedule(self.state, 0, self.backlog_ended)
        self._tell_empty()

    def fail(self, kind: str, reason: str) -> str:
        """Note that nothing can be stored, and log it once; return what to tell."""
        self._trouble = reason
        if kind not in self._told:
            self._told.add(kind)
            self._logger.error("outbox %s: nothing can be stored: %s", self._place, shown(reason))
        # A change of state must not come within another, nor be called off by one that comes first.
        self._loop.call_soon(self.feed, self.disk_failed, reason)
        return f"{SILENT}: {shown(reason)}"

    def _tell_empty(self) -> None:
        if not self._is_empty:
            return
        stock, now = self._stock, self._loop.time()
        if stock.delivered and now - stock.since >= NOTICED:
            # A warning: those who saw in the log that messages are stored should see the end of it.
            self._log.log(
                logging.WARNING,
                "outbox %s: all %d stored messages were delivered, after %.1f s",
                self._place,
                stock.delivered,
                now - stock.since,
            )
        stock.delivered = 0
        self._end_waits(0)

    def _end_waits(self, left: int) -> None:
        for future in self._when_empty:
            if not future.done():
                future.set_result(left)
        self._when_empty.clear()

    # Called by the writer

    def _on_silence(self, problem: str) -> None:
        """End messages that are being written: they should wait no longer."""
        # First: what nothing stored is ahead of need not be refused.
        self._loop.call_soon(self._give_back)
        self.fail("away", problem)

    def _give_back(self) -> None:
        self._stock.give_back_all()
        self.note_stock()

    def _on_done(self, batch: Batch, done: Done) -> None:
        if done.problem is not None:
            problem = f"{type(done.problem).__name__}: {done.problem}"
            # What is said of a server that is away changes while it comes back.
            self.fail("away" if isinstance(done.problem, ConnectionError) else problem, problem)
        elif batch.own.puts:
            self._note_recovery(self._told & {"outbox_limit"})
        self._stock.note_done(batch, done)
        if batch.close:
            self._stock.give_up_changes()
            self.feed(self.files_closed)
        elif batch.look and done.problem is None:
            self.feed(self.files_opened)
        if done.rows:
            # What can go out at once makes no backlog.
            self._publisher.send_waiting()
        # Another client may have left messages, or the command line asked for a retry.
        self.note_stock()
        if self._is_empty:
            works = batch.look and done.problem is None
            self._note_recovery(set() if works else self._told - {"outbox_limit"})
        if self.holds:
            self._publisher.send_waiting()
        if done.problem is None or done.rows or batch.load is None:
            # Otherwise nothing can be read either, until the disk is tried again.
            self._stock.load_more()

    # Called by the store

    def _on_news(self) -> None:
        if self._gate.sends_stored:
            self._stock.note_news()
        elif not self._stock.has_others:
            # What is on the wire can still be confirmed, and is deleted then.
            self._writer.next.share = True
            self._writer.submit()

    def _on_loss(self) -> None:
        self._writer.next.look = True
        self._writer.submit()

    def _note_recovery(self, left: set[str]) -> None:
        """Forget the troubles that are over, and log it if none is left."""
        if self._told and not left:
            self._logger.warning("outbox %s: messages can be stored again", self._place)
        self._told = left

    def _look(self) -> None:
        self._look_timer = self._loop.call_later(LOOK_INTERVAL, self._look)
        self._writer.next.look = True
        self._writer.submit()

    def _stop_looking(self) -> None:
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None

    # Called by the declared transitions

    def open_files(self, _event: EventData) -> None:
        """Open the files, and count the messages in them."""
        self._writer.next.close = False
        # Who waits for it to be closed waits no longer: it was started again.
        self._end_closings()
        self._left = 0
        self._stop_looking()
        self._look()

    def tell_found(self, _event: EventData) -> None:
        """Log what an earlier process has left, if it left anything."""
        found = self._stock.ledger.at(Place.ON_DISK)
        if found:
            self._logger.warning("outbox %s: %d messages to send, stored before the start", self._place, found)

    def send_waiting(self, _event: EventData) -> None:
        """Send waiting messages, in order."""
        self._publisher.send_waiting()
        self._tell_empty()

    def store_waiting(self, _event: EventData) -> None:
        """Store waiting messages behind those that are stored."""
        self._stock.keep_line()

    def refuse_waiting(self, _event: EventData) -> None:
        """Refuse waiting messages: they belong behind stored ones, where nothing can be stored."""
        for publish, _ in self._publisher.line.take():
            self._publisher.give_up(publish, f"{SILENT}: {self._trouble}")

    def retry_delay(self, _event: EventData) -> Timeout:
        """Return the delay before the disk is tried again."""
        return RETRY_DELAY, ""

    def close_files(self, _event: EventData) -> None:
        """Finish pending writes, and close the files."""
        self._stop_looking()
        self._stock.stop_waiting()
        self._writer.next.close = True
        self._writer.submit()

    def finish_limit(self, _event: EventData) -> Timeout:
        """Return how long a stopped client may write."""
        return DISK_LIMIT, ""

    def give_up_writing(self, _event: EventData) -> None:
        """End messages that were not written in time, and forget what the files held."""
        self._stock.give_back_all()
        self._left = self.stored
        self._stock.clear()
        self._end_closings()
        self._end_waits(self._left)

    def _end_closings(self) -> None:
        for future in self._when_closed:
            if not future.done():
                future.set_result(None)
        self._when_closed.clear()


def store_in(settings: Settings, name: str) -> Store:
    """Return what keeps the messages of a client of this name; without an outbox, memory, which is never used."""
    # Each is loaded only if it is needed.
    if settings.outbox is None:
        return MemoryStore()
    if is_database(settings.outbox) and STAND_INS:
        return STAND_INS[-1](settings.outbox, name)
    if is_database(settings.outbox):
        from .postgres.store import PostgresStore  # noqa: PLC0415

        return PostgresStore(settings.outbox, name)
    from .sqlite.store import SQLiteStore  # noqa: PLC0415

    return SQLiteStore(settings.outbox, name)
