"""The way from the loop to the disk: one batch after another runs in a thread, without being awaited.

What comes in while one runs is in the next, as one transaction.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor

from .folder import Folder
from .record import DISK_LIMIT, Batch, Done


class Disk:
    """The batch that is running in a folder, and the next one.

    Attributes:
        next: what to do next.
    """

    def __init__(
        self,
        path: str,
        name: str,
        loop: asyncio.AbstractEventLoop,
        on_done: Callable[[Batch, Done], object],
        on_silence: Callable[[str], object],
    ) -> None:
        self.next = Batch()
        self._folder = Folder(path, name)
        self._loop = loop
        self._on_done = on_done
        self._on_silence = on_silence
        self._running: Batch | None = None
        self._telling = False
        self._limit: asyncio.TimerHandle | None = None
        self._executor: Executor | None = None

    @property
    def given(self) -> set[int]:
        """The numbers of the messages that are being written: they may be on disk, whatever follows."""
        return set(self._running.puts) if self._running is not None else set()

    @property
    def loading(self) -> bool:
        """Whether messages are being read, or will be next."""
        return self.next.load is not None or (self._running is not None and self._running.load is not None)

    def submit(self) -> None:
        """Run the next batch, unless it is empty or another is running."""
        if self._running is not None or self._telling or self.next.empty:
            return
        batch, self.next = self.next, Batch()
        self._running = batch
        self._limit = self._loop.call_later(
            DISK_LIMIT, self._on_silence, f"the disk has not answered within {DISK_LIMIT:g} s"
        )
        self._start(batch).add_done_callback(self._finish)

    def forget_load(self) -> None:
        """Ignore what is being read."""
        self.next.load = None
        if self._running is not None:
            self._running.load = None

    def abandon(self) -> None:
        """In a forked child, leave everything to the parent process."""
        self._folder.abandon()

    def _start(self, batch: Batch) -> "asyncio.Future[Done]":
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "sprockets_amqp-outbox")
        try:
            return self._loop.run_in_executor(self._executor, self._folder.run, batch)
        except RuntimeError as error:
            # There are no more threads. This executor would still run the batch if it got one later.
            self._executor = None
            failed = self._loop.create_future()
            failed.set_result(Done(problem=error))
            return failed

    def _finish(self, future: "asyncio.Future[Done]") -> None:
        batch, self._running = self._running, None
        assert batch is not None
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        if batch.close and self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None
        # Until everything is reported, what has to be done as a result goes into the next batch.
        self._telling = True
        try:
            self._on_done(batch, future.result())
        finally:
            self._telling = False
        self.submit()
