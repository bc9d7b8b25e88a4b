"""The way from the loop to the store: one batch after another is carried out, and nothing waits for it.

What comes in while one is being carried out is in the next, as one transaction.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Iterable
from typing import Final

from .ledger import Key
from .store import OWN, Put, Record, Store, Totals

#: Seconds that the store may take for one batch.
DISK_LIMIT: Final = 10.0


@dataclasses.dataclass(slots=True)
class Batch:
    """What the store is to do next.

    Attributes:
        puts: messages to store, by their numbers, which count from the client's start.
        deletes: messages whose publish has ended.
        suspects: messages that RabbitMQ may have closed the channel over.
        set_asides: messages that are no longer sent, and why.
        load: how many to read, and up to how many octets.
        loaded: messages that are in memory already.
        look: whether to take what owners that are gone have left, and to count.
        close: whether to close the store afterwards.
    """

    puts: dict[int, Put] = dataclasses.field(default_factory=dict)
    deletes: set[Key] = dataclasses.field(default_factory=set)
    suspects: list[Key] = dataclasses.field(default_factory=list)
    set_asides: dict[Key, str] = dataclasses.field(default_factory=dict)
    load: tuple[int, int] | None = None
    loaded: frozenset[Key] = frozenset()
    look: bool = False
    close: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (
            self.puts or self.deletes or self.suspects or self.set_asides or self.load or self.look or self.close
        )

    @property
    def boxes(self) -> list[int]:
        """The boxes that it changes, the client's own first: publishes wait for it."""
        changed = {box for box, _ in (*self.deletes, *self.suspects, *self.set_asides)}
        return sorted(changed | {OWN} if self.puts else changed)

    def take(self, box: int) -> "Batch":
        """Take out what changes a box."""
        part = Batch(self.puts if box == OWN else {})
        part.deletes = {key for key in self.deletes if key[0] == box}
        part.suspects = [key for key in self.suspects if key[0] == box]
        part.set_asides = {key: words for key, words in self.set_asides.items() if key[0] == box}
        self.deletes -= part.deletes
        self.suspects = [key for key in self.suspects if key[0] != box]
        self.set_asides = {key: words for key, words in self.set_asides.items() if key[0] != box}
        return part

    def add(self, part: "Batch") -> None:
        """Put back what is to be changed: it is tried again with whatever comes next."""
        self.deletes |= part.deletes
        self.suspects += part.suspects
        self.set_asides |= part.set_asides


@dataclasses.dataclass(slots=True)
class Done:
    """What became of a batch.

    Attributes:
        written: whether the messages to store are on disk.
        problem: what failed, or None.
        rows: what was read.
        totals: what the store holds; None if it was not counted.
        changed: what else was done.
    """

    written: bool = False
    problem: Exception | None = None
    rows: list[tuple[Key, Record]] = dataclasses.field(default_factory=list)
    totals: Totals | None = None
    changed: Batch = dataclasses.field(default_factory=Batch)


async def carry_out(store: Store, batch: Batch) -> Done:
    """Have a store do all that is in a batch; what it could not change stays in it. Raises nothing."""
    done = Done()
    try:
        if batch.look:
            await store.open()
        for box in batch.boxes:
            part = batch.take(box)
            try:
                await store.write(box, part.puts, part.deletes, part.suspects, part.set_asides)
            except BaseException:
                batch.add(part)
                raise
            done.changed.add(part)
            done.written = True
    except Exception as error:
        done.problem = error
    try:
        # A disk that takes nothing more can still be read.
        if batch.load is not None:
            done.rows = await store.read(*batch.load, batch.loaded)
        if batch.look:
            done.totals = await store.totals()
            await store.try_out()
    except Exception as error:
        done.problem = done.problem or error
    if batch.close:
        await store.close(batch.deletes)
    return done


class Writer:
    """The batch that is being carried out, and the next one.

    Attributes:
        next: what to do next.
    """

    def __init__(
        self,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        on_done: Callable[[Batch, Done], object],
        on_silence: Callable[[str], object],
    ) -> None:
        self.next = Batch()
        self._store = store
        self._loop = loop
        self._on_done = on_done
        self._on_silence = on_silence
        #: What the store has failed to do; no publish waits for it.
        self._left = Batch()
        self._running: Batch | None = None
        self._due: asyncio.Handle | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Done] | None = None

    @property
    def given(self) -> Iterable[int]:
        """The numbers of the messages that are being written: they may be on disk, whatever follows."""
        return self._running.puts if self._running is not None else ()

    @property
    def loading(self) -> bool:
        """Whether messages are being read, or will be next."""
        return self.next.load is not None or (self._running is not None and self._running.load is not None)

    def submit(self) -> None:
        """Have the next batch carried out, after what else this turn of the loop has for it, and after another."""
        if self._due is None and self._running is None:
            self._due = self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._due = None
        if self.next.empty:
            return
        batch, self.next = self.next, Batch()
        batch.add(self._left)
        self._left = Batch()
        self._running = batch
        self._limit = self._loop.call_later(
            DISK_LIMIT, self._on_silence, f"the disk has not answered within {DISK_LIMIT:g} s"
        )
        self._task = self._loop.create_task(carry_out(self._store, batch))
        self._task.add_done_callback(self._finish)

    def forget_load(self) -> None:
        """Ignore what is being read."""
        self.next.load = None
        if self._running is not None:
            self._running.load = None

    def abandon(self) -> None:
        """In a forked child, leave everything to the parent process."""
        self._store.abandon()

    def _finish(self, task: "asyncio.Task[Done]") -> None:
        batch, self._running = self._running, None
        assert batch is not None
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        if task.cancelled():
            # The loop is being closed, with everything on it.
            return
        if not batch.close:
            self._left.add(batch)
        self._on_done(batch, task.result())
        self.submit()
