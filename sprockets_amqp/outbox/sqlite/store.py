"""The store in a folder, as the loop sees it: a thread does one thing after another to the files."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

from sprockets_amqp.outbox.ledger import Key
from sprockets_amqp.outbox.store import Changes, Record, Totals

from .folder import Folder

T = TypeVar("T")


class SQLiteStore:
    """A `Store` in a folder."""

    medium = "the disk"

    def __init__(self, path: str, name: str) -> None:
        self._folder = Folder(path, name)
        self._executor: Executor | None = None

    def watch(self, on_news: Callable[[], object], on_loss: Callable[[], object]) -> None:
        """Nobody else stores anything in the files of a client that runs."""

    async def open(self) -> None:
        """Own a file, and take over those whose owners are gone."""
        await self._do(self._folder.open)

    async def write(self, box: int, changes: Changes) -> None:
        """Change one file in one transaction."""
        await self._do(self._folder.write, box, changes)

    async def read(self, limit: int, size: int, without: Collection[Key]) -> list[tuple[Key, Record]]:
        """Return the first messages to be sent."""
        return await self._do(self._folder.read, limit, size, without)

    async def totals(self) -> Totals:
        """Count what is in the files."""
        return await self._do(self._folder.totals)

    async def try_out(self) -> None:
        """Write something to the client's own file."""
        await self._do(self._folder.try_out)

    async def share(self) -> None:
        """A client sends what is in its files itself."""

    async def close(self, left: Mapping[int, Changes]) -> None:
        """Close the files, and end the thread."""
        await self._do(self._folder.close, left)
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None

    async def names(self) -> list[str]:
        """Return the names of the files, of every client."""
        return await self._do(self._folder.names)

    async def look(self, name: str) -> tuple[Totals, list[int], bool]:
        """Count what is in a file; return what was set aside, and whether a client has it open."""
        return await self._do(self._folder.look, name)

    async def find(self, name: str, numbers: Collection[int]) -> list[Record]:
        """Return messages in a file."""
        return await self._do(self._folder.find, name, numbers)

    async def retry(self, name: str, numbers: Collection[int]) -> set[int]:
        """Have messages sent that were set aside."""
        return await self._do(self._folder.retry, name, numbers)

    async def drop(self, name: str, numbers: Collection[int]) -> set[int]:
        """Delete messages."""
        return await self._do(self._folder.drop, name, numbers)

    async def downgrade(self, name: str) -> int | None:
        """Write a file in the format of version 1.1; see `Folder.downgrade`."""
        return await self._do(self._folder.downgrade, name)

    def abandon(self) -> None:
        """In a forked child, leave the files to the parent process."""
        self._folder.abandon()

    async def _do(self, function: Callable[..., T], *arguments: object) -> T:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "sprockets_amqp-outbox")
        try:
            done = asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)
        except RuntimeError:
            # There are no more threads. This executor would still do it if it got one later.
            self._executor = None
            raise
        while not done.done():
            # The thread does it, whoever cancels all tasks meanwhile.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([done])
        return done.result()
