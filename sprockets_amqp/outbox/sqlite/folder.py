"""The folder of an outbox: the files in it that a client of one name may use, and what is done to them.

A client has one file of its own, ``amqp.1.outbox``, and those of clients that are gone. None of this is called on the
loop: `SQLiteStore` has a thread for it.
"""

import contextlib
import itertools
import logging
import os
import re
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from sprockets_amqp.bounded_log import named
from sprockets_amqp.outbox.ledger import Key
from sprockets_amqp.outbox.store import OWN, SPOILT, Changes, Record, Totals, values_of

from .database import create, execute_in_chunks, is_corrupt, is_full, open_database, transaction, unlink
from .file import SUFFIX, OutboxFile
from .lock import Locked, is_locked
from .rows import VERSION, insert, values_1
from .salvage import batches

LOGGER = logging.getLogger("sprockets_amqp.outbox.folder")


class Folder:
    """The files of one client; see `Store` for its methods."""

    def __init__(self, path: str, name: str) -> None:
        self._path = Path(path)
        self._name = name
        self._log = named(LOGGER, name)
        self._files: dict[int, OutboxFile] = {}
        self._ids = itertools.count(OWN + 1)
        #: The highest number in the client's own file when it was opened.
        self._base = 0
        #: Files that could not be taken over.
        self._unusable: set[Path] = set()

    def abandon(self) -> None:
        """In a forked child, leave all files to the parent process."""
        for file in self._files.values():
            file.abandon()
        self._files.clear()

    # Opening and closing

    def open(self) -> None:
        """Take a file of the client's own, and those of its name whose owners are gone."""
        self._take_own()
        self._adopt_all()

    def _take_own(self) -> None:
        """Take a file of the client's own, unless it has one that is still in its place."""
        old = self._files.get(OWN)
        if old is None:
            file = self._take_free(new=False)
            self._files[OWN], self._base = file, file.last_number
        elif not old.is_in_place:
            # No other process would find what is written to it now. Its numbers stay, so the new file has to be empty.
            file = self._take_free(new=True)
            try:
                for chunk in batches(row for row in old.rows() if row.intact):
                    file.write(chunk)
            except BaseException:
                # The disk is full, perhaps: it is tried again each second.
                file.close(delete=True)
                raise
            self._files[OWN] = file
            old.close()
            self._log.error("outbox %s was moved or deleted while in use: all of it is in %s now", old.path, file.path)

    def _take_free(self, *, new: bool) -> OutboxFile:
        number = 0
        while True:
            number += 1
            path = self._path / f"{self._name}.{number}{SUFFIX}"
            if not (new and path.exists()):
                with contextlib.suppress(Locked):
                    try:
                        file = OutboxFile.take(path)
                        if file.version == VERSION:
                            return file
                        # It is taken over like one that another client has left.
                        file.close()
                    except (PermissionError, ValueError) as error:
                        # Somebody else's, unless the folder cannot be used at all.
                        if not os.path.lexists(path):
                            raise
                        self._log_unusable(path, error)

    def _adopt_all(self) -> None:
        mine = {file.path for file in self._files.values()}
        for path in files(self._path, self._name):
            if path not in mine:
                with contextlib.suppress(Locked):
                    self._adopt(path)

    def _adopt(self, path: Path) -> None:
        try:
            file = OutboxFile.take(path)
        except (OSError, sqlite3.Error, ValueError) as error:
            self._log_unusable(path, error)
            return
        self._unusable.discard(path)
        number = next(self._ids)
        self._files[number] = file
        with self._repairing(number):
            totals = file.totals()
        if totals.messages or totals.set_aside:
            self._log.warning("outbox %s was left by a client that is gone: %d messages to send", path, totals.messages)
        else:
            self._files.pop(number).close(delete=True)

    def _log_unusable(self, path: Path, error: Exception) -> None:
        if path not in self._unusable:
            self._unusable.add(path)
            self._log.error("outbox %s cannot be taken over: %s", path, error)

    def close(self, left: Mapping[int, Changes]) -> None:
        """Close all files; delete those in which nothing is left but what ``left`` was to delete."""
        for number, file in self._files.items():
            gone = left[number].deletes if number in left else ()
            try:
                file.close(delete=self._is_delivered(number, [each + self._shift(number) for each in gone]))
            except (sqlite3.Error, OSError):
                file.close()
        self._files.clear()

    # Writing and reading

    def write(self, box: int, changes: Changes) -> None:
        """Write to a file, even if the disk is full of delivered messages: deleting them takes room."""
        if changes.puts:
            self._take_own()
        elif box not in self._files:
            return
        with self._repairing(box):
            try:
                self._write_file(box, changes)
            except sqlite3.OperationalError as error:
                gone = [number + self._shift(box) for number in changes.deletes]
                if not is_full(error) or not self._is_delivered(box, gone):
                    raise
                self._begin_anew(box)
                if box != OWN:
                    return
                self._write_file(OWN, changes)
        with self._repairing(box) as file:
            if changes.deletes and (box != OWN or file.is_large) and file.is_empty:
                self._begin_anew(box)

    def _write_file(self, box: int, changes: Changes) -> None:
        # In a new file, numbers begin elsewhere.
        shift = self._shift(box)
        self._files[box].write(
            values_of(changes.puts, shift),
            [number + shift for number in changes.deletes],
            [number + shift for number in changes.suspects],
            [(words, number + shift) for number, words in changes.set_asides.items()],
        )

    def _is_delivered(self, number: int, gone: list[int]) -> bool:
        """Return whether nothing in a file is to be kept."""
        file = self._files[number]
        return file.is_empty or (bool(gone) and file.numbers() <= set(gone))

    def _begin_anew(self, number: int) -> None:
        """Delete a file in which nothing is to be kept; if it is the client's own, take a new one."""
        self._files.pop(number).close(delete=True)
        if number == OWN:
            self._take_own()

    def totals(self) -> Totals:
        """Count what is in all files."""
        found = []
        for number in list(self._files):
            with self._repairing(number) as file:
                found.append(file.totals())
        return Totals(
            sum(each.messages for each in found),
            sum(each.size for each in found),
            min((each.oldest for each in found if each.oldest is not None), default=None),
            sum(each.set_aside for each in found),
        )

    def try_out(self) -> None:
        """Raise an error if nothing can be written to the client's own file."""
        with self._repairing(OWN) as file:
            file.try_out()

    def read(self, limit: int, size: int, without: Collection[Key]) -> list[tuple[Key, Record]]:
        """Return the first messages to be sent, up to so many and about so many octets."""
        found: list[tuple[Key, Record]] = []
        # Messages that others left are older.
        for number in sorted(self._files, key=lambda each: (each == OWN, each)):
            shift = self._shift(number)
            with self._repairing(number) as file:
                rows = file.load(limit - len(found), size, {key[1] + shift for key in without if key[0] == number})
                intact = [row for row in rows if row.intact]
                found.extend(((number, row.number - shift), row) for row in intact)
                if len(intact) < len(rows):
                    self._set_spoilt_aside(file, [row.number for row in rows if not row.intact])
            size -= sum(row.size for row in intact)
            if len(found) >= limit or size <= 0:
                break
        return found

    def _set_spoilt_aside(self, file: OutboxFile, numbers: list[int]) -> None:
        # While the disk is full, delivering the others makes room.
        with contextlib.suppress(sqlite3.OperationalError):
            file.write(set_asides=[(SPOILT, number) for number in numbers])
            self._log.error("outbox %s: %d messages are %s", file.path, len(numbers), SPOILT)

    # For people

    def names(self) -> list[str]:
        """Return the names of all files, lowest number first."""
        return [path.name for path in files(self._path)]

    def look(self, name: str) -> tuple[Totals, list[int], bool]:
        """Count what is in a file; return what was set aside, and whether a client has it open."""
        with self._looking_at(name) as file:
            return file.totals(), file.set_aside(), is_locked(file.path)

    def find(self, name: str, numbers: Collection[int]) -> list[Record]:
        """Return the messages of these numbers that are there."""
        with self._looking_at(name) as file:
            return [row for number in numbers for row in file.rows("number = ?", number)]

    def retry(self, name: str, numbers: Collection[int]) -> set[int]:
        """Have messages sent that were set aside; return which were."""
        with self._looking_at(name) as file:
            return {number for number in numbers if file.retry(number)}

    def drop(self, name: str, numbers: Collection[int]) -> set[int]:
        """Delete messages; return which were there."""
        with self._looking_at(name) as file:
            return {number for number in numbers if file.drop(number)}

    def downgrade(self, name: str) -> int | None:
        """Write a file in the format of version 1.1; return how many messages are in it, or None if it was in that.

        Raises:
            ValueError: a client has it open, or a message in it is no longer what was stored.
        """
        path = self._path / name
        if not path.exists():
            raise FileNotFoundError(path)
        try:
            file = OutboxFile.take(path)
        except Locked:
            raise ValueError("it is in use: stop its client first") from None
        with contextlib.closing(file):
            return None if file.version == 1 else _downgrade(file)

    @contextlib.contextmanager
    def _looking_at(self, name: str) -> Iterator[OutboxFile]:
        path = self._path / name
        if not path.exists():
            raise FileNotFoundError(path)
        # Nothing is shown while it is being read, or the file could not shrink for as long as a pager waits.
        with contextlib.closing(OutboxFile(path, create=False)) as file:
            yield file

    def _shift(self, number: int) -> int:
        return self._base if number == OWN else 0

    @contextlib.contextmanager
    def _repairing(self, number: int) -> Iterator[OutboxFile]:
        """Yield a file; if it turns out to be damaged, repair it before the error is raised."""
        try:
            yield self._files[number]
        except sqlite3.DatabaseError as error:
            if is_corrupt(error) and number in self._files:
                self._files[number].repair(error)
            raise


def files(folder: Path, name: str | None = None) -> list[Path]:
    """List the outbox files in a folder, lowest number first: those of one client, or all."""
    named = re.compile(rf"{re.escape(name) if name else '[a-z][a-z0-9_]*'}\.(\d+){re.escape(SUFFIX)}")
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := named.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def _downgrade(file: OutboxFile) -> int:
    """Put a file of the first version in the place of another; its owner still has the lock."""
    fresh = file.path.with_name(f"{file.path.name}.new")
    unlink(fresh)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    try:
        count = _write_first_version(fresh, file)
        # SQLite would play the log of the one back into the other.
        file.leave_database()
        fresh.replace(file.path)
    except BaseException:
        unlink(fresh)
        raise
    return count


def _write_first_version(path: Path, file: OutboxFile) -> int:
    count = 0
    with contextlib.closing(open_database(path)) as database:
        create(database, 1)
        for rows in batches(file.rows()):
            if spoilt := [row.number for row in rows if not row.intact]:
                raise ValueError(f"message {spoilt[0]} is {SPOILT}: drop it first")
            with transaction(database):
                execute_in_chunks(database, *insert(1), map(values_1, rows))
            count += len(rows)
    return count
