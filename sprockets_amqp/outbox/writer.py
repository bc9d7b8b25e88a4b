"""The way from the loop to the store: one batch after another is carried out, and nothing waits for it.

What comes in while one is being carried out is in the next, as one transaction.
"""

import asyncio
import collections
import dataclasses
from collections.abc import Callable, Iterable
from typing import Final

from .ledger import Key
from .store import OWN, Changes, Record, Store, Totals

#: Seconds that the store may take for one batch.
DISK_LIMIT: Final = 10.0
#: Seconds before a batch is carried out again whose task was cancelled.
CANCELLED_DELAY: Final = 0.1


@dataclasses.dataclass(slots=True)
class Batch:
    """What the store is to do next.

    Attributes:
        changes: what to change, by box.
        load: how many messages to read, and up to how many octets.
        loaded: messages that are in memory already.
        look: whether to take what owners that are gone have left, and to count.
        share: whether to give up what other clients may send.
        close: whether to close the store afterwards.
    """

    changes: dict[int, Changes] = dataclasses.field(default_factory=lambda: collections.defaultdict(Changes))
    load: tuple[int, int] | None = None
    loaded: frozenset[Key] = frozenset()
    look: bool = False
    share: bool = False
    close: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (any(self.changes.values()) or self.load or self.look or self.share or self.close)

    @property
    def own(self) -> Changes:
        """What to change in the client's own box."""
        return self.changes[OWN]


@dataclasses.dataclass(slots=True)
class Done:
    """What became of a batch.

    Attributes:
        problem: what failed, or None.
        rows: what was read.
        totals: what the store holds; None if it was not counted.
        changed: what was changed, by box.
    """

    problem: Exception | None = None
    rows: list[tuple[Key, Record]] = dataclasses.field(default_factory=list)
    totals: Totals | None = None
    changed: dict[int, Changes] = dataclasses.field(default_factory=dict)


async def carry_out(store: Store, batch: Batch) -> Done:
    """Have a store do all that is in a batch. Raises nothing."""
    done = Done()
    try:
        if batch.look:
            await store.open()
        # The client's own box comes first: publishes wait for it.
        for box in sorted(box for box, changes in batch.changes.items() if changes):
            await store.write(box, batch.changes[box])
            done.changed[box] = batch.changes[box]
    except Exception as error:
        done.problem = error
    try:
        # A disk that takes nothing more can still be read.
        if batch.load is not None:
            done.rows = await store.read(*batch.load, batch.loaded)
        if batch.share:
            await store.share()
        if batch.look:
            done.totals = await store.totals()
            await store.try_out()
    except Exception as error:
        done.problem = done.problem or error
    if batch.close:
        try:
            await store.close(left(batch, done))
        except Exception as error:
            done.problem = done.problem or error
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
        #: What it writes to, for people.
        self.medium = store.medium
        self._loop = loop
        self._on_done = on_done
        self._on_silence = on_silence
        #: What the store has failed to change, by box: it is tried again with whatever comes next.
        self._left: dict[int, Changes] = {}
        self._running: Batch | None = None
        self._due: asyncio.Handle | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Done] | None = None

    @property
    def given(self) -> Iterable[int]:
        """The numbers of the messages that are being written: they may be on disk, whatever follows."""
        return self._running.own.puts if self._running is not None else ()

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
        for box, changes in self._left.items():
            merge(batch.changes[box], changes)
        self._left = {}
        self._running = batch
        self._limit = self._loop.call_later(DISK_LIMIT, self._tell_silence)
        self._task = self._loop.create_task(carry_out(self._store, batch))
        # A loop may be closed before the disk has answered.
        self._task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001
        self._task.add_done_callback(self._finish)

    def forget_load(self) -> None:
        """Ignore what is being read."""
        self.next.load = None
        if self._running is not None:
            self._running.load = None

    def abandon(self) -> None:
        """In a forked child, leave everything to the parent process."""
        self._store.abandon()

    def _tell_silence(self) -> None:
        # What is given to it meanwhile waits no longer either.
        self._limit = self._loop.call_later(DISK_LIMIT, self._tell_silence)
        self._on_silence(f"{self.medium} has not answered within {DISK_LIMIT:g} s")

    def _finish(self, task: "asyncio.Task[Done]") -> None:
        batch, self._running = self._running, None
        assert batch is not None
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        if task.cancelled():
            # Somebody has cancelled all tasks before this one began.
            self._return(batch)
            return
        if not batch.close:
            self._left = left(batch, task.result())
        self._on_done(batch, task.result())
        self.submit()

    def _return(self, batch: Batch) -> None:
        following, self.next = self.next, batch
        for box, changes in following.changes.items():
            batch.changes[box].puts |= changes.puts
            merge(batch.changes[box], changes)
        batch.load, batch.loaded = following.load, following.loaded
        batch.look |= following.look
        batch.share |= following.share
        batch.close |= following.close
        self._loop.call_later(CANCELLED_DELAY, self.submit)


def left(batch: Batch, done: Done) -> dict[int, Changes]:
    """Return what could not be changed, by box."""
    return {box: changes for box, changes in batch.changes.items() if box not in done.changed}


def merge(changes: Changes, left: Changes) -> None:
    """Add what could not be changed before; publishes have ended whose messages could not be stored."""
    changes.deletes |= left.deletes
    changes.suspects += left.suspects
    changes.set_asides |= left.set_asides
