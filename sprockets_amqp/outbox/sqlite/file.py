"""One file of the outbox: a SQLite database, and everything that is done to it."""

import contextlib
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from sprockets_amqp.outbox.store import OVERHEAD, Record, Totals

from .database import (
    COMPANIONS,
    Foreign,
    connect,
    corrupt,
    execute_in_chunks,
    is_corrupt,
    open_database,
    transaction,
    unlink,
)
from .lock import check_own, check_regular, lock_path, take_lock
from .rows import READERS, SIZES, insert
from .salvage import is_almost_ours, salvage

SUFFIX: Final = ".outbox"
#: Octets from which on an empty file is replaced by a new one.
LARGE: Final = 1024**2


class OutboxFile:
    """An open file, and everything that is done to it.

    Raises:
        sqlite3.Error: the disk or the file has failed.
        ValueError: the file is an outbox of a later version, or something else, or not the process's own.
    """

    def __init__(self, path: Path, lock: int | None = None, *, create: bool = True) -> None:
        check_regular(path)
        self.path = path
        self._lock = lock
        self._database, self.version = connect(path, create=create)
        self._status = path.stat()

    @classmethod
    def take(cls, path: Path) -> "OutboxFile":
        """Open the file as the one client that sends its messages; raises Locked if another client has it."""
        check_own(path)
        lock = take_lock(path)
        try:
            try:
                return cls(path, lock)
            except (sqlite3.DatabaseError, Foreign) as error:
                if not (is_almost_ours(path) if isinstance(error, Foreign) else is_corrupt(error)):
                    raise
                salvage(path, error)
                return cls(path, lock)
        except BaseException:
            os.close(lock)
            raise

    def repair(self, error: BaseException) -> None:
        """Put the damaged file aside, and continue with what can be read from it."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()
        try:
            salvage(self.path, error)
            self._database, self.version = connect(self.path)
            self._status = self.path.stat()
        except BaseException:
            # The disk is full, perhaps: it is tried again when the damage is next met.
            self._database = open_database(self.path)
            raise

    # Reading

    @property
    def last_number(self) -> int:
        """The highest number in use; 0 if there is none."""
        return int(self._database.execute("SELECT coalesce(max(number), 0) FROM messages").fetchone()[0])

    @property
    def is_in_place(self) -> bool:
        """Whether the file and its lock are still where they were opened, rather than moved, deleted or replaced."""
        try:
            is_there = os.path.samestat(self._status, self.path.stat())
            return is_there and (
                self._lock is None or os.path.samestat(os.fstat(self._lock), lock_path(self.path).stat())
            )
        except FileNotFoundError:
            return False

    @property
    def is_empty(self) -> bool:
        """Whether the file holds no messages, set aside or not."""
        return self._database.execute("SELECT 1 FROM messages").fetchone() is None

    @property
    def is_large(self) -> bool:
        """Whether it takes so much of the disk that replacing it is worthwhile when it is empty."""
        return self.path.stat().st_size > LARGE

    def numbers(self) -> set[int]:
        """Return the numbers of all messages, set aside or not."""
        return {number for (number,) in self._database.execute("SELECT number FROM messages")}

    def set_aside(self) -> list[int]:
        """Return the numbers of messages that were set aside."""
        statement = "SELECT number FROM messages WHERE set_aside IS NOT NULL ORDER BY number"
        return [number for (number,) in self._database.execute(statement)]

    def totals(self) -> Totals:
        """Count the messages in the file."""
        to_send, size, aside = self._database.execute(
            f"SELECT count(*) - count(set_aside), total({SIZES[self.version]} + ?), count(set_aside) FROM messages",  # noqa: S608
            (OVERHEAD,),
        ).fetchone()
        first = next(self.rows("set_aside IS NULL"), None)
        return Totals(to_send, int(size), first and first.stored_at, aside)

    def load(self, limit: int, size: int, without: Collection[int] = ()) -> list[Record]:
        """Return the first messages to be sent, up to ``limit`` of them and about ``size`` octets."""
        found: list[Record] = []
        numbers = self._database.execute(
            "SELECT number FROM messages WHERE set_aside IS NULL ORDER BY number LIMIT ?", (len(without) + 1,)
        )
        first = next((number for (number,) in numbers if number not in without), None)
        if first is None:
            return found
        last = first - 1
        for row in self.rows("set_aside IS NULL AND number >= ?", first):
            if len(found) == limit or size <= 0:
                break
            if row.number <= last:
                raise corrupt("messages are out of order")
            last = row.number
            if row.number not in without:
                found.append(row)
                size -= row.size
        return found

    def rows(self, where: str = "true", *values: object) -> Iterator[Record]:
        """Iterate over the messages that meet a condition, in order; conditions come only from this package."""
        statement = f"SELECT * FROM messages WHERE {where} ORDER BY number"  # noqa: S608 - see above
        return map(READERS[self.version], self._database.execute(statement, values))

    # Writing

    def write(
        self,
        puts: Iterable[tuple[object, ...]] = (),
        deletes: Iterable[int] = (),
        suspects: Iterable[int] = (),
        set_asides: Iterable[tuple[str, int]] = (),
    ) -> None:
        """Do all of it, or nothing; when this returns, it is on disk."""
        with transaction(self._database):
            many = self._database.executemany
            execute_in_chunks(self._database, *insert(self.version), puts)
            many("UPDATE messages SET refusals = refusals + 1 WHERE number = ?", [(each,) for each in suspects])
            many("UPDATE messages SET set_aside = ? WHERE number = ?", set_asides)
            execute_in_chunks(self._database, "DELETE FROM messages WHERE number IN ({})", "?", ((n,) for n in deletes))

    def try_out(self) -> None:
        """Check that something can be written: a full or read-only disk can still be read."""
        with transaction(self._database):
            self._database.execute(f"PRAGMA user_version={self.version}")

    def retry(self, number: int) -> bool:
        """Let a message that was set aside be sent again; return whether there was one."""
        return self._change(
            "UPDATE messages SET set_aside = NULL, refusals = 0 WHERE number = ? AND set_aside IS NOT NULL", number
        )

    def drop(self, number: int) -> bool:
        """Delete a message; return whether there was one."""
        return self._change("DELETE FROM messages WHERE number = ?", number)

    def _change(self, statement: str, number: int) -> bool:
        with transaction(self._database):
            return self._database.execute(statement, (number,)).rowcount > 0

    # The end

    def close(self, *, delete: bool = False) -> None:
        """Close the file, so that another client can take it; delete it if nothing in it is to be kept."""
        # What is there instead of it now is somebody else's.
        delete = delete and self.is_in_place
        with contextlib.suppress(sqlite3.Error):
            self._database.close()
        if delete:
            unlink(self.path)
            lock_path(self.path).unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def leave_database(self) -> None:
        """Close the database with everything in it, so that nothing is beside it, and keep the lock."""
        busy, *_ = self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise ValueError("another program is reading it: try again later")
        self._database.close()
        for companion in COMPANIONS:
            Path(f"{self.path}{companion}").unlink(missing_ok=True)

    def abandon(self) -> None:
        """In a forked child, leave the file to the parent process: nothing is done to it here, not even closing.

        SQLite's connections must not be used in a forked child (https://www.sqlite.org/howtocorrupt.html), and another
        thread of the parent may have held this one's mutex: closing it could hang. So it is never released.
        """
        import ctypes  # noqa: PLC0415 - few processes fork while they run

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._database))
        if self._lock is not None:
            # The lock is shared with the parent, and held until both have closed it.
            os.close(self._lock)
            self._lock = None
