"""The outbox: the model of the machine that `states/outbox.py` declares, and the record of what is stored.

A publish that would end as not sent, or as lost, comes here from the one end of all publishes. Stored messages are read
back when RabbitMQ accepts messages again, and go the way of every message; their ends come here, too. The loop never
waits for the disk: one batch after another runs in a thread, and what comes in the meantime is in the next batch.
"""

import asyncio
import dataclasses
import logging
from typing import TYPE_CHECKING, Final

from transitions import EventData

from sprockets_amqp.bounded_log import BoundedLog, named
from sprockets_amqp.delivery.flight import blames
from sprockets_amqp.delivery.message import Message
from sprockets_amqp.delivery.publisher import Publisher
from sprockets_amqp.delivery.surroundings import Gate, Keeper
from sprockets_amqp.errors import AMQPException, ExchangeRefused, MessageNacked, NotReadyError, OutcomeUnknown
from sprockets_amqp.model import Model, Timeout, Trigger
from sprockets_amqp.observers import OUTCOMES, Delivery, Observers, Outcome
from sprockets_amqp.settings import Settings
from sprockets_amqp.states import OUTBOX, Outbox
from sprockets_amqp.text import shown
from sprockets_amqp.wire.replies import describe

from .record import DISK_LIMIT, OVERHEAD, OWN, Batch, Done, Key, Record, message_of, record_of

if TYPE_CHECKING:
    from .disk import Disk

LOGGER = logging.getLogger("sprockets_amqp.outbox")

#: Seconds that opening may take, even if the disk is still busy with something else.
OPEN_LIMIT: Final = 10.0
#: Seconds of `shutdown()` that are reserved for the disk; it takes what the rest leaves, up to the limit of a batch.
FINISH_LIMIT: Final = 1.0
#: Seconds before a failed disk is tried again.
RETRY_DELAY: Final = 1.0
#: Seconds between two searches for files that other clients left.
LOOK_INTERVAL: Final = 60.0
#: How many messages are read at once, and up to how many octets; as many in line are enough.
LOAD: Final = 500
LOAD_SIZE: Final = 4 * 1024**2
#: How many nacked messages may wait for another try at a time, and the longest wait in seconds.
MAX_DEFERRED: Final = 1000
MAX_DEFERRAL: Final = 60.0
#: Seconds for which messages have to have been stored for it to be logged that all of them were delivered.
NOTICED: Final = 1.0
#: Comes before the reason in errors.
SILENT: Final = "the outbox cannot store it"


@dataclasses.dataclass(slots=True)
class Entry:
    """A message that is being written.

    Attributes:
        error: what its publish ends with if it cannot be stored; None: it was waiting, or is stored behind others.
        deadline: until when it may wait, in the loop's time.
    """

    message: Message
    error: AMQPException | None
    deadline: float


class OutboxModel(Model, Keeper):
    """The model, and where each stored message is: being written, on disk, in memory, or waiting for another try.

    If nothing is ahead of it, a message is sent while it is being written: otherwise the outbox would be the line for
    as long as more is published than the disk writes at once.
    """

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
    #: Only if there is an outbox.
    _disk: "Disk"

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
        self._observers = observers
        self._settings = settings
        if settings.outbox is not None:
            self._disk = self._open_disk(settings.outbox, name)
            publisher.keeper = self
        self._logger = named(LOGGER, name)
        self._log = BoundedLog(self._logger, loop.time)
        self._writing: dict[Key, Entry] = {}
        #: Those of them that are neither in memory, to be sent, nor on the wire; and the octets of all being written.
        self._behind: dict[Key, Entry] = {}
        self._writing_size = 0
        #: How many messages to be sent are on disk and not in memory.
        self._backlog = 0
        #: Messages in line or on the wire that are on disk or being written.
        self._loaded: dict[Key, Message] = {}
        #: How many of those have not been sent yet.
        self._to_send = 0
        #: Nacked messages that have to wait, and how often each was nacked.
        self._deferred: dict[Key, asyncio.TimerHandle] = {}
        self._nacks: dict[Key, int] = {}
        self._size = 0
        self._set_aside = 0
        #: Since when messages have been stored, in the loop's time, and how many of them were delivered since then.
        self._since = 0.0
        self._delivered = 0
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
        return self._settings.outbox is not None

    @property
    def holds(self) -> bool:
        """Whether stored messages are waiting to be sent."""
        return bool(self._backlog or self._to_send or self._behind)

    @property
    def ending(self) -> bool:
        """Whether the client is closing, or closed: what is stored now is for the next one to send."""
        return not self._gate.recovers

    @property
    def in_line(self) -> int:
        """How many stored messages are in the publisher's line."""
        return self._to_send

    @property
    def stored(self) -> int:
        """How many stored messages are to be sent or confirmed."""
        return self._backlog + len(self._loaded) + len(self._deferred) + len(self._behind)

    @property
    def _is_empty(self) -> bool:
        # While everything waits for the files to be opened, their contents are unknown.
        return not self.stored and self.made("goes out") != "waits"

    @property
    def set_aside(self) -> int:
        """How many messages were set aside: they are no longer sent."""
        return self._set_aside

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
        """Return when the client has stopped and everything is written, or when that is given up after ``timeout``."""
        if "finishing" in self.declared.marks:
            future = self._loop.create_future()
            self._when_closed.append(future)
            await asyncio.wait([future], timeout=max(0.0, timeout))
            self.feed(self.files_closed)

    def abandon(self) -> None:
        """In a forked child, leave everything to the parent process."""
        if self.given:
            self._disk.abandon()

    # Called by the publisher, before a message is stored

    def takes(self, message: Message, error: AMQPException, *, on_wire: bool = False) -> bool:
        """Store a message that would end with an error, unless it is about the message; return whether it is stored."""
        is_fate = _is_fate(message, error)
        return is_fate and self.takes_messages and not self._store(Entry(message, error, 0.0), on_wire=on_wire)

    def store(self, message: Message, deadline: float) -> str:
        """Store a message behind others that are stored; return why it cannot be, or the empty string."""
        settings = self._settings
        if len(self._behind) >= settings.max_waiting or self._writing_size > settings.max_waiting_size:
            return f"{len(self._behind)} messages are being stored already (max_waiting, max_waiting_size)"
        problem = self._store(Entry(message, None, deadline))
        if not self._backlog and self._gate.sends_stored:
            self._publisher.send_waiting()
        return problem

    def _store(self, entry: Entry, *, on_wire: bool = False) -> str:
        message, limit = entry.message, self._settings.outbox_limit
        size = message.size + OVERHEAD
        if self._size + size > limit:
            return self._fail("outbox_limit", f"it takes {self._size} octets, and may take {limit} (outbox_limit)")
        self._note_first()
        key = message.key = OWN, message.number
        self._writing[key] = entry
        self._size += size
        self._writing_size += size
        if entry.error is not None and blames(entry.error.__cause__):
            message.blamed += 1
        self._disk.next.puts[message.number] = record_of(message)
        if on_wire:
            self._loaded[key] = message
        else:
            self._behind[key] = entry
            self._note_backlog()
        self._disk.submit()
        return ""

    def _note_first(self) -> None:
        if not self.stored:
            self._since, self._delivered = self._loop.time(), 0

    def _store_line(self) -> None:
        for message, deadline in self._publisher.take_waiting():
            problem = self._store(Entry(message, None, deadline))
            if problem:
                self._publisher.give_up(message, problem, storable=False)

    def _note_backlog(self) -> None:
        if self.knows("backlog_began"):
            self.feed(self.backlog_began)

    # Called by the publisher, for messages that are stored

    def on_sent(self, _message: Message) -> None:
        """Record that a stored message is on the wire."""
        self._to_send -= 1
        self._see_end_of_backlog()

    def on_end(self, message: Message, error: AMQPException | None) -> None:
        """Delete a message that was confirmed, set it aside if RabbitMQ refuses it, or keep it to be sent again."""
        key = message.key
        assert key is not None
        if self._forget(key, message):
            if error is not None and _is_fate(message, error):
                self._keep(key, message, error)
            elif error is None or self._is_told(key, error):
                self._delete(key, message, error)
            elif isinstance(error, MessageNacked):
                self._defer(key)
            else:
                self._refuse(key, message, error)
            self._see_end_of_backlog()
            self.load_more()

    def unload(self) -> None:
        """Forget messages in memory that were not sent: lost ones come first."""
        self._disk.forget_load()
        for key, message in list(self._loaded.items()):
            if not message.sent_at:
                self._forget(key, message)
                self._keep(key, message)

    def _is_told(self, key: Key, error: AMQPException) -> bool:
        """Return whether RabbitMQ's answer ends the publish: it came before the disk's."""
        entry = self._writing.get(key)
        # A message that was sent before may be in a queue, whatever became of the exchange.
        return entry is not None and not (isinstance(error, ExchangeRefused) and entry.message.sent_at)

    def _forget(self, key: Key, message: Message) -> bool:
        """Forget a message in memory; return whether it was there."""
        if self._loaded.pop(key, None) is None:
            return False
        if not message.sent_at:
            self._to_send -= 1
        if not self._is_original(key, message):
            self._publisher.drop(message)
        return True

    def _is_original(self, key: Key, message: Message) -> bool:
        """Return whether this message, rather than a copy, holds the future of the publish."""
        return key in self._writing and self._writing[key].message is message

    def _delete(self, key: Key, message: Message, error: AMQPException | None = None) -> None:
        self._nacks.pop(key, None)
        self._size = max(0, self._size - message.size - OVERHEAD)
        if key in self._writing:
            # RabbitMQ answered before the disk did.
            original = self._take_entry(key).message
            original.key = None
            self._publisher.end(original, error)
        else:
            self._delivered += 1
            self._report(message, None)
        if key[0] != OWN or self._disk.next.puts.pop(key[1], None) is None:
            self._disk.next.deletes.add(key)
        self._disk.submit()
        self._tell_empty()

    def _keep(self, key: Key, message: Message | None = None, error: AMQPException | None = None) -> None:
        """Keep a message that is no longer in memory to be sent again, with what became of it there."""
        entry, blamed = self._writing.get(key), error is not None and blames(error.__cause__)
        if entry is None or message is None:
            self._backlog += 1
        else:
            self._behind[key] = entry
            entry.message.blamed += blamed
            if message.sent_at or not (entry.error or entry.message.sent_at):
                entry.error = error
            entry.message.sent_at = message.sent_at or entry.message.sent_at
        if blamed:
            self._disk.next.suspects.append(key)
        self._note_backlog()
        self._disk.submit()

    def _defer(self, key: Key) -> None:
        tries = self._nacks[key] = self._nacks.get(key, 0) + 1
        self._deferred[key] = self._loop.call_later(min(MAX_DEFERRAL, 2.0 ** min(tries - 1, 10)), self._retry, key)

    def _retry(self, key: Key) -> None:
        del self._deferred[key]
        self._keep(key)
        self.load_more()

    def _report(self, message: Message, error: AMQPException | None) -> None:
        if self._observers:
            self._observers.deliver(
                Delivery(
                    outcome=Outcome.CONFIRMED if error is None else OUTCOMES[type(error)],
                    error=error,
                    exchange=message.exchange,
                    routing_key=message.routing_key,
                    message_id=message.message_id,
                    size=len(message.body),
                    seconds_to_confirm=self._loop.time() - message.sent_at if error is None else None,
                )
            )

    def _refuse(self, key: Key, message: Message, error: AMQPException) -> None:
        error.about(message.message_id, message.exchange, message.routing_key)
        cause = error.__cause__
        words = describe(cause) if cause is not None and blames(cause) else shown(error)
        self._set_aside += 1
        self._disk.next.set_asides[key] = words
        self._nacks.pop(key, None)
        self._log.log(logging.ERROR, "message %s is set aside in the outbox: %s", shown(message.message_id), words)
        self._report(message, error)
        self._disk.submit()
        self._tell_empty()

    # Sending stored messages

    def fill_line(self) -> None:
        """Put messages that are being written in line, if nothing is ahead of them and they may be sent."""
        room = LOAD - self._to_send
        if self._behind and room > 0 and not self._backlog and self._gate.sends_stored:
            # Lost messages have come back behind later ones.
            for key in sorted(self._behind)[:room]:
                entry = self._behind[key]
                if not entry.message.future.done():
                    del self._behind[key]
                    self._to_send += 1
                    copy = self._loaded[key] = entry.message.copy(self._loop.create_future())
                    self._publisher.enter_stored(copy)

    def load_more(self) -> None:
        """Read more stored messages, if they may be sent and too few are in line."""
        wanted = self._backlog and self._to_send < LOAD and len(self._deferred) < MAX_DEFERRED
        disk = self._disk
        if wanted and self._gate.sends_stored and not disk.loading:
            disk.next.load, disk.next.loaded = (LOAD, LOAD_SIZE), frozenset((*self._loaded, *self._deferred))
            disk.submit()

    def _enter(self, rows: list[tuple[Key, Record]]) -> None:
        for key, row in rows:
            known = (self._loaded, self._deferred, self._writing, self._disk.next.deletes, self._disk.next.set_asides)
            if not any(key in each for each in known) and self._gate.sends_stored and self._backlog:
                self._backlog -= 1
                self._to_send += 1
                message = self._loaded[key] = message_of(key, row, self._loop)
                self._publisher.enter_stored(message)

    def _see_end_of_backlog(self) -> None:
        if not self.holds and self.knows("backlog_ended"):
            self.schedule(self.state, 0, self.backlog_ended)

    def _tell_empty(self) -> None:
        if not self._is_empty:
            return
        if self._delivered and self._loop.time() - self._since >= NOTICED:
            # A warning: those who saw in the log that messages are stored should see the end of it.
            self._log.log(
                logging.WARNING,
                "outbox %s: all %d stored messages were delivered, after %.1f s",
                self._settings.outbox,
                self._delivered,
                self._loop.time() - self._since,
            )
        self._delivered = 0
        self._end_waits(0)

    def _end_waits(self, left: int) -> None:
        for future in self._when_empty:
            if not future.done():
                future.set_result(left)
        self._when_empty.clear()

    # The disk

    def _open_disk(self, path: str, name: str) -> "Disk":
        # SQLite is loaded only if it is needed.
        from .disk import Disk  # noqa: PLC0415

        return Disk(path, name, self._loop, self._on_done, self._on_silence)

    def _on_silence(self, problem: str) -> None:
        """End messages that are being written: they should wait no longer."""
        self._fail(problem, problem)
        self._loop.call_soon(self._end_writing)

    def _on_done(self, batch: Batch, done: Done) -> None:
        if done.problem is not None:
            problem = f"{type(done.problem).__name__}: {done.problem}"
            self._fail(problem, problem)
        elif batch.puts:
            self._note_recovery(self._told & {"outbox_limit"})
        for number in batch.puts:
            key = OWN, number
            if key in self._writing:
                self._note_written(key) if done.written else self._note_failure(key)
        self._note_read(batch, done)
        if batch.close:
            self.feed(self.files_closed)
        elif batch.look and done.problem is None:
            self.feed(self.files_opened)
        if self.holds:
            # Another client may have left messages, or the command line asked for a retry.
            self._note_backlog()
        self._see_end_of_backlog()
        self._tell_empty()
        self._go_on(batch, done)

    def _go_on(self, batch: Batch, done: Done) -> None:
        if self._is_empty:
            works = batch.look and done.problem is None
            self._note_recovery(set() if works else self._told - {"outbox_limit"})
        if self._behind or self._to_send:
            self._publisher.send_waiting()
        if done.problem is None or done.rows or batch.load is None:
            # Otherwise nothing can be read either, until the disk is tried again.
            self.load_more()

    def _note_recovery(self, left: set[str]) -> None:
        """Forget the troubles that are over, and log it if none is left."""
        if self._told and not left:
            self._logger.warning("outbox %s: messages can be stored again", self._settings.outbox)
        self._told = left

    def _take_entry(self, key: Key) -> Entry:
        entry = self._writing.pop(key)
        self._behind.pop(key, None)
        self._writing_size -= entry.message.size + OVERHEAD
        return entry

    def _note_written(self, key: Key) -> None:
        message, behind, loaded = self._writing[key].message, key in self._behind, self._loaded.get(key)
        was_sent = message.sent_at or not (behind or (loaded is not None and not loaded.sent_at))
        if message.future.cancelled() and not was_sent:
            # The publish was cancelled.
            if loaded is not None:
                self._forget(key, loaded)
            self._delete(key, message)
            return
        self._take_entry(key)
        self._backlog += behind
        if not message.future.done():
            self._publisher.end_stored(message)

    def _note_failure(self, key: Key) -> None:
        entry = self._give_back(key)
        if entry is not None:
            # Later, once it is known that nothing can be stored.
            self._loop.call_soon(self._end_unstored, entry)

    def _give_back(self, key: Key) -> Entry | None:
        """Give up a message that could not be stored; return it, unless a copy of it is on the wire."""
        loaded, entry = self._loaded.get(key), self._writing[key]
        is_on_wire = loaded is not None and loaded.sent_at and loaded is not entry.message
        if loaded is not None:
            self._loaded.pop(key) if is_on_wire else self._forget(key, loaded)
        self._take_entry(key)
        self._size = max(0, self._size - entry.message.size - OVERHEAD)
        entry.message.key = None
        if loaded is not None and is_on_wire:
            self._publisher.carry_on(entry.message, loaded)
            return None
        return entry

    def _end_unstored(self, entry: Entry) -> None:
        if entry.error is not None:
            self._publisher.end(entry.message, entry.error)
        else:
            why = self._trouble or "the client was stopped first"
            self._publisher.wait_again(entry.message, entry.deadline, f"{SILENT}: {why}")

    def _note_read(self, batch: Batch, done: Done) -> None:
        if done.totals is not None:
            self._note_first()
            gone = self._disk.next.deletes | self._disk.next.set_asides.keys()
            there = {*self._loaded, *self._deferred, *gone} - self._writing.keys()
            self._backlog = max(0, done.totals.messages - len(there))
            self._size = done.totals.size + self._writing_size
            self._set_aside = done.totals.set_aside + len(self._disk.next.set_asides)
        if batch.load is None:
            return
        if done.problem is None and not done.rows:
            # There were fewer messages than expected: count them again.
            self._backlog = 0
            self._disk.next.look = True
        self._enter(done.rows)

    def _fail(self, kind: str, reason: str) -> str:
        self._trouble = reason
        if kind not in self._told:
            self._told.add(kind)
            self._logger.error("outbox %s: nothing can be stored: %s", self._settings.outbox, shown(reason))
        # A change of state must not come within another, nor be called off by one that comes first.
        self._loop.call_soon(self.feed, self.disk_failed, reason)
        return f"{SILENT}: {shown(reason)}"

    def _end_writing(self) -> None:
        """End messages that are being written; those already handed to the disk may still be stored."""
        given = self._disk.given
        self._disk.next.puts.clear()
        for entry in [entry for key in list(self._writing) if (entry := self._give_back(key)) is not None]:
            if entry.message.number in given:
                entry.error = OutcomeUnknown("the disk did not answer in time; it may be stored, and delivered later")
            self._end_unstored(entry)
        self._see_end_of_backlog()

    def _look(self) -> None:
        self._look_timer = self._loop.call_later(LOOK_INTERVAL, self._look)
        self._disk.next.look = True
        self._disk.submit()

    def _stop_looking(self) -> None:
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None

    # Called by the declared transitions

    def open_files(self, _event: EventData) -> None:
        """Open the files, and count the messages in them."""
        self._disk.next.close = False
        self._left = 0
        self._stop_looking()
        self._look()

    def tell_found(self, _event: EventData) -> None:
        """Log what an earlier process has left, if it left anything."""
        found = self._backlog
        if found:
            self._logger.warning(
                "outbox %s: %d messages to send, stored before the start", self._settings.outbox, found
            )

    def open_limit(self, _event: EventData) -> Timeout:
        """Return how long opening may take."""
        return OPEN_LIMIT, f"it has not been opened within {OPEN_LIMIT:g} s"

    def send_waiting(self, _event: EventData) -> None:
        """Send waiting messages, in order."""
        self._publisher.send_waiting()
        self._tell_empty()

    def store_waiting(self, _event: EventData) -> None:
        """Store waiting messages behind those that are stored."""
        self._store_line()

    def refuse_waiting(self, _event: EventData) -> None:
        """Refuse waiting messages: they belong behind stored ones, where nothing can be stored."""
        for message, _ in self._publisher.take_waiting():
            self._publisher.give_up(message, f"{SILENT}: {self._trouble}")

    def retry_delay(self, _event: EventData) -> Timeout:
        """Return the delay before the disk is tried again."""
        return RETRY_DELAY, ""

    def close_files(self, _event: EventData) -> None:
        """Finish pending writes, and close the files."""
        self._stop_looking()
        for timer in self._deferred.values():
            timer.cancel()
        self._backlog += len(self._deferred)
        self._deferred.clear()
        self._disk.next.close = True
        self._disk.submit()

    def finish_limit(self, _event: EventData) -> Timeout:
        """Return how long a stopped client may write."""
        return DISK_LIMIT, ""

    def give_up_writing(self, _event: EventData) -> None:
        """End messages that were not written in time, and forget what the files held."""
        self._end_writing()
        self._left = self.stored
        self._backlog = self._to_send = self._size = self._set_aside = 0
        self._loaded.clear()
        self._deferred.clear()
        self._nacks.clear()
        for future in self._when_closed:
            if not future.done():
                future.set_result(None)
        self._when_closed.clear()
        self._end_waits(self._left)


def _is_fate(message: Message, error: AMQPException) -> bool:
    """Return whether an error is about the connection rather than about the message itself."""
    return isinstance(error, (NotReadyError, OutcomeUnknown)) and not blames(error.__cause__, message)
