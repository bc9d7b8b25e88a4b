"""The stock of the outbox: it keeps messages that would be lost, and gives them to the publisher again.

If nothing is ahead of it, a message is sent while it is being written: otherwise the outbox would be the line for as
long as more is published than the disk writes at once.
"""

import asyncio
import logging
from typing import Final, Protocol

from sprockets_amqp.bounded_log import BoundedLog
from sprockets_amqp.delivery.flight import blames
from sprockets_amqp.delivery.message import Message
from sprockets_amqp.delivery.publish import STORED, Publish
from sprockets_amqp.delivery.publisher import Publisher
from sprockets_amqp.delivery.surroundings import Gate, Keeper
from sprockets_amqp.errors import AMQPException, ExchangeRefused, MessageNacked, NotReadyError, OutcomeUnknown
from sprockets_amqp.observers import Observers
from sprockets_amqp.settings import Settings
from sprockets_amqp.states import Place
from sprockets_amqp.text import shown
from sprockets_amqp.wire.replies import describe

from .entry import Entry
from .ledger import Key, Ledger
from .store import OVERHEAD, OWN, Changes, Record, Unsure, unpack
from .writer import Batch, Done, Writer

#: How many messages are read at once, and up to how many octets; as many in line are enough.
LOAD: Final = 500
LOAD_SIZE: Final = 4 * 1024**2
#: How many nacked messages may wait for another try at a time, and the longest wait in seconds.
MAX_DEFERRED: Final = 1000
MAX_DEFERRAL: Final = 60.0
#: Comes before the reason in errors.
SILENT: Final = "the outbox cannot store it"
#: Comes after the reason, where nobody knows whether it was stored.
LATER: Final = "it may be stored, and delivered later"
#: Stands for a message that cannot be read.
NOTHING: Final = Message("", "", None, None, (), b"", b"", b"")


class Watcher(Protocol):
    """What the stock tells the outbox, and asks it."""

    @property
    def takes_messages(self) -> bool:
        """Whether a publish that ends badly is stored."""

    def note_backlog(self) -> None:
        """Called when a message has yet to be sent."""

    def note_stock(self) -> None:
        """Called when messages have gone."""

    @property
    def trouble(self) -> str:
        """Why nothing can be stored; empty if it can."""

    def fail(self, kind: str, reason: str) -> str:
        """Called when nothing can be stored; returns what to tell."""


class Stock(Keeper):
    """Where each stored message is, and what is done with it there: see `states/ledger.py`."""

    def __init__(
        self,
        watcher: Watcher,
        gate: Gate,
        publisher: Publisher,
        observers: Observers,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        writer: Writer,
        log: BoundedLog,
    ) -> None:
        self._watcher = watcher
        self._gate = gate
        self._publisher = publisher
        self._observers = observers
        self._settings = settings
        self._loop = loop
        self._log = log
        self.ledger: Ledger[Entry] = Ledger()
        self._writer = writer
        #: How often each message was nacked.
        self._nacks: dict[Key, int] = {}
        #: Since when messages have been stored, in the loop's time, and how many of them were delivered since then.
        self.since = 0.0
        self.delivered = 0
        #: Whether others may have stored messages since it was read: the ledger has not counted them.
        self._has_news = False

    @property
    def in_line(self) -> int:
        """How many of them are in the publisher's line."""
        return self.ledger.count("in_line")

    @property
    def has_others(self) -> bool:
        """Whether messages that others have stored are in memory."""
        return any(box != OWN for box, _ in self.ledger.rows)

    # A message comes

    def takes(self, publish: Publish, error: AMQPException, *, on_wire: bool) -> bool:
        """Store a message that would end with an error, unless it is about the message; return whether it is stored."""
        is_fate = _is_fate(publish, error)
        return is_fate and self._watcher.takes_messages and not self._keep(publish, error, 0.0, on_wire=on_wire)

    def keep(self, publish: Publish, deadline: float) -> str:
        """Store a message behind others that are stored; return why it cannot be, or the empty string."""
        settings, ledger = self._settings, self.ledger
        behind = ledger.at(Place.WRITING)
        if behind >= settings.max_waiting or ledger.octets("writing") > settings.max_waiting_size:
            return f"{behind} messages are being stored already (max_waiting, max_waiting_size)"
        problem = self._keep(publish, None, deadline)
        if not ledger.at(Place.ON_DISK) and self._gate.sends_stored:
            self._publisher.send_waiting()
        return problem

    def keep_line(self) -> None:
        """Store what waits in line behind what is stored."""
        for publish, deadline in self._publisher.line.take():
            problem = self._keep(publish, None, deadline)
            if problem:
                self._publisher.refuse(publish, problem)

    def _keep(self, publish: Publish, error: AMQPException | None, deadline: float, *, on_wire: bool = False) -> str:
        message, limit, taken = publish.message, self._settings.outbox_limit, self.ledger.octets("room")
        size = message.size + len(message.method) + OVERHEAD
        if taken + size > limit:
            return self._watcher.fail("outbox_limit", f"it takes {taken} octets, and may take {limit} (outbox_limit)")
        self._note_first()
        key = OWN, publish.number
        entry = Entry(self, key, message, size, publish, error, deadline)
        if error is not None and blames(error.__cause__):
            publish.blamed += 1
        self.ledger.keep(key, entry, "kept_on_wire" if on_wire else "kept")
        self._writer.next.own.puts[publish.number] = message, publish.blamed
        publish.kept = entry
        if on_wire:
            entry.copy = publish
        else:
            self._watcher.note_backlog()
        self._writer.submit()
        return ""

    def _note_first(self) -> None:
        if not self.ledger.rows and not self.ledger.at(Place.ON_DISK):
            self.since, self.delivered = self._loop.time(), 0

    # It is sent

    def refill(self) -> None:
        """Put messages that are being written in line, if nothing is ahead of them; or read some."""
        ledger = self.ledger
        room = LOAD - ledger.count("in_line")
        if ledger.at(Place.WRITING) and room > 0 and not ledger.at(Place.ON_DISK) and self._gate.sends_stored:
            # Lost messages have come back behind later ones.
            for key in sorted(ledger.keys(Place.WRITING))[:room]:
                entry = ledger.rows[key]
                if entry.caller is not None and not entry.caller.future.done():
                    ledger.move(key, "entered")
                    self._enter(entry, entry.caller.blamed)
        self.load_more()

    def load_more(self) -> None:
        """Read more messages, if they may be sent and too few are in line."""
        ledger = self.ledger
        is_there = ledger.at(Place.ON_DISK) or self._has_news
        wanted = is_there and ledger.at(Place.DEFERRED) < MAX_DEFERRED and self.in_line < LOAD
        if wanted and self._gate.sends_stored and not self._writer.loading:
            batch = self._writer.next
            loaded = [key for key, row in ledger.rows.items() if row.place is not Place.WRITING]
            batch.load, batch.loaded = (LOAD, LOAD_SIZE), frozenset(loaded)
            self._has_news = False
            self._writer.submit()

    def note_news(self) -> None:
        """Read what others may have stored, when it may be sent."""
        self._has_news = True
        self.load_more()

    def _enter(self, entry: Entry, blamed: int) -> None:
        entry.copy = copy = Publish(entry.message, self._loop.create_future(), entry)
        copy.blamed = blamed
        self._publisher.enter(copy)

    def on_sent(self, entry: Entry) -> None:
        """Record that a message is on the wire."""
        self.ledger.move(entry.key, "sent")
        if entry.caller is not None and entry.copy is not None:
            entry.caller.sent_at = entry.copy.sent_at
        if not self.ledger.at(Place.ON_DISK):
            self._watcher.note_stock()
        self.load_more()

    def unload(self) -> None:
        """Forget what is in line: lost messages come first."""
        self._writer.forget_load()
        for key in self.ledger.keys(Place.WRITING_IN_LINE, Place.IN_LINE):
            self._lose(self.ledger.rows[key], was_sent=False)

    # Its end there

    def on_end(self, entry: Entry, copy: Publish, error: AMQPException | None) -> None:
        """Delete a message that was confirmed, set it aside if RabbitMQ refuses it, or keep it to be sent again."""
        row, caller = self.ledger.rows.get(entry.key), entry.caller
        if row is None or copy is not entry.copy:
            # The files were closed, the disk has failed, or it was stored together with another that has ended.
            return
        if error is not None and _is_fate(copy, error):
            self._lose(entry, error, was_sent=bool(copy.sent_at))
        elif error is None or (caller is not None and not (isinstance(error, ExchangeRefused) and caller.sent_at)):
            # What was sent before may be in a queue, whatever became of the exchange.
            self._finish(entry, error)
        elif isinstance(error, MessageNacked):
            self._defer(entry)
        else:
            self._refuse(entry, error)
        self._watcher.note_stock()
        self.load_more()

    def _lose(self, entry: Entry, error: AMQPException | None = None, *, was_sent: bool) -> None:
        """Have a message sent again: it was lost, or waited in line in vain."""
        caller, blamed = entry.caller, error is not None and blames(error.__cause__)
        self._drop(entry)
        self.ledger.move(entry.key, "lost")
        if caller is not None:
            caller.blamed += blamed
            if was_sent or not (entry.error or caller.sent_at):
                entry.error = error
        if blamed:
            box, number = entry.key
            self._writer.next.changes[box].suspects.append(number)
            self._writer.submit()
        self._watcher.note_stock()

    def _finish(self, entry: Entry, error: AMQPException | None = None) -> None:
        """Delete a message, and end its publish, if RabbitMQ has answered before the disk did."""
        key, caller, copy = entry.key, entry.caller, entry.copy
        changes, number = self._writer.next.changes[key[0]], key[1]
        self._drop(entry)
        self._nacks.pop(key, None)
        self.ledger.move(key, "ended")
        if changes.puts.pop(number, None) is not None:
            self.ledger.move(key, "deleted")
        else:
            changes.deletes.add(number)
            self._writer.submit()
        if caller is None:
            self.delivered += 1
            self._report(entry, copy, None)
            # It may be long until a disk that takes nothing has deleted it.
            entry.message = NOTHING
        else:
            entry.caller = None
            caller.returned = copy.returned if copy is not None else None
            self._publisher.tell(caller, error)

    def _defer(self, entry: Entry) -> None:
        key = entry.key
        self._drop(entry)
        self.ledger.move(key, "nacked")
        tries = self._nacks[key] = self._nacks.get(key, 0) + 1
        entry.timer = self._loop.call_later(min(MAX_DEFERRAL, 2.0 ** min(tries - 1, 10)), self._retry, key)

    def _retry(self, key: Key) -> None:
        self.ledger.move(key, "due")
        self._watcher.note_stock()
        self.load_more()

    def _refuse(self, entry: Entry, error: AMQPException) -> None:
        message, copy, cause = entry.message, entry.copy, error.__cause__
        error.about(message.message_id, message.exchange, message.routing_key)
        words = describe(cause) if cause is not None and blames(cause) else shown(error)
        self._drop(entry)
        self._set_aside(entry.key, words)
        self._log.log(logging.ERROR, "message %s is set aside in the outbox: %s", shown(message.message_id), words)
        self._report(entry, copy, error)

    def _set_aside(self, key: Key, words: str) -> None:
        self._nacks.pop(key, None)
        self.ledger.move(key, "refused")
        self._writer.next.changes[key[0]].set_asides[key[1]] = words
        self._writer.submit()

    def _report(self, entry: Entry, copy: Publish | None, error: AMQPException | None) -> None:
        if self._observers:
            self._observers.deliver(entry.delivery(copy, error, self._loop.time()))

    def _drop(self, entry: Entry) -> None:
        """Forget what is in line or on the wire."""
        copy, entry.copy = entry.copy, None
        if copy is not None and copy is not entry.caller:
            self._publisher.drop(copy)

    # The store has answered

    def note_done(self, batch: Batch, done: Done) -> None:
        """Move what was written, deleted, set aside, counted and read."""
        note = self._note_written if OWN in done.changed else self._give_back
        for number in batch.own.puts:
            if (entry := self.ledger.rows.get((OWN, number))) is not None:
                if OWN not in done.changed and isinstance(done.problem, Unsure):
                    entry.error = OutcomeUnknown(f"{shown(done.problem)}; {LATER}")
                note(entry)
        for box, changes in done.changed.items():
            self._note_changed(box, changes)
        if done.totals is not None:
            self._note_first()
            self.ledger.recount(done.totals.messages, done.totals.set_aside, done.totals.size)
        if batch.load is not None:
            if done.problem is None and not done.rows and done.totals is None and self.ledger.at(Place.ON_DISK):
                # There were fewer messages than expected.
                self._writer.next.look = True
            for key, record in done.rows:
                self._note_read(key, record)

    def _note_changed(self, box: int, changes: Changes) -> None:
        for number in changes.deletes:
            if self.ledger.knows((box, number), "deleted"):
                self.ledger.move((box, number), "deleted")
        for number in changes.set_asides:
            self.ledger.forget((box, number))

    def _note_written(self, entry: Entry) -> None:
        key, caller = entry.key, entry.caller
        if caller is not None and caller.future.cancelled() and not caller.sent_at:
            self._finish(entry)
            return
        entry.caller = None
        if self.ledger.knows(key, "written"):
            self.ledger.move(key, "written")
        if caller is not None:
            self._publisher.tell(caller, result=STORED)

    def _note_read(self, key: Key, record: Record) -> None:
        ledger = self.ledger
        if key in ledger.rows or not self._gate.sends_stored:
            return
        if not ledger.at(Place.ON_DISK):
            # Others have stored it, and perhaps more; or somebody has asked for one that was set aside.
            self._note_first()
            ledger.find(record.size)
            self._has_news = True
            self._writer.next.look |= bool(ledger.at(Place.ASIDE))
        try:
            _, message = unpack(record.message)
        except ValueError as error:
            message, problem = NOTHING, str(error)
        else:
            problem = ""
        entry = Entry(self, key, message, record.size)
        ledger.keep(key, entry, "entered")
        if problem:
            self._set_aside(key, problem)
        else:
            self._enter(entry, record.refusals)

    def _give_back(self, entry: Entry) -> None:
        """Give up a message that could not be written; what is on the wire is its publish's own again."""
        key, caller, copy = entry.key, entry.caller, entry.copy
        is_on_wire = entry.place is Place.WRITING_ON_WIRE
        self.ledger.move(key, "unwritten")
        if caller is None:
            return
        caller.kept = None
        if key[1] in self._writer.given:
            caller.renumber()
        if is_on_wire and copy is not None and copy is not caller:
            self._publisher.flight.replace(copy, caller)
            return
        self._drop(entry)
        # Later, once it is known that nothing can be stored.
        self._loop.call_soon(self._end_unstored, caller, entry.error, entry.deadline)

    def _end_unstored(self, caller: Publish, error: AMQPException | None, deadline: float) -> None:
        if error is not None:
            self._publisher.end(caller, error)
        else:
            why = self._watcher.trouble or "the client was stopped first"
            self._publisher.wait_again(caller, deadline, f"{SILENT}: {why}")

    def give_back_all(self) -> None:
        """Give up what is being written; what the store was given already may still be stored."""
        given = self._writer.given
        self._writer.next.own.puts.clear()
        for entry in [entry for entry in self.ledger.rows.values() if entry.caller is not None]:
            if entry.key[1] in given:
                entry.error = OutcomeUnknown(f"{self._writer.medium} did not answer in time; {LATER}")
            self._give_back(entry)

    def stop_waiting(self) -> None:
        """Have no message wait for another try any longer: the next client sends it."""
        for key in self.ledger.keys(Place.DEFERRED):
            if (timer := self.ledger.rows[key].timer) is not None:
                timer.cancel()
            self.ledger.move(key, "due")

    def give_up_changes(self) -> None:
        """Forget what could not be deleted or set aside before the store was closed: it is read again."""
        for key in self.ledger.keys(Place.LEAVING):
            self.ledger.move(key, "deleted")
        for key in self.ledger.keys(Place.ASIDE):
            self.ledger.forget(key)

    def clear(self) -> None:
        """Forget everything: the store is closed."""
        self.ledger.clear()
        self._nacks.clear()


def _is_fate(publish: Publish, error: AMQPException) -> bool:
    """Return whether an error is about the connection rather than about the message itself."""
    return isinstance(error, (NotReadyError, OutcomeUnknown)) and not blames(error.__cause__, publish)
