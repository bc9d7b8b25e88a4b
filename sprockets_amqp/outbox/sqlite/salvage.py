"""A damaged file of the outbox: what can be read from it continues in a new one, and it is kept under another name."""

import contextlib
import itertools
import logging
import os
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from sprockets_amqp.outbox.store import Record

from .database import BUSY_LIMIT, connect, create, execute_in_chunks, transaction, unlink
from .rows import COLUMNS, READERS, TABLES, VERSION, insert

LOGGER = logging.getLogger("sprockets_amqp.outbox.salvage")

#: How many messages are written at once to the file that replaces a damaged one.
BATCH: Final = 1000
BATCH_SIZE: Final = 8 * 1024**2
#: How many consecutive numbers are tried after one that cannot be read.
STEPS: Final = 10_000
#: Where a database's header says that it has a write-ahead log, and of how many pages it is
#: (https://www.sqlite.org/fileformat.html#the_database_header).
_FORMATS: Final = slice(18, 20)
_WITH_LOG: Final = b"\x02\x02"
_PAGES: Final = slice(28, 32)
#: What else of the header changes with every transaction, or SQLite's version; and how many other octets may differ
#: in a file that a disk has damaged.
_CHANGING: Final = frozenset((*range(24, 48), *range(92, 100)))
FEW: Final = 8


def salvage(path: Path, error: BaseException) -> None:
    """Put a damaged file aside under another name, and keep what can be read from it in a new one of its name."""
    fresh = path.with_name(f"{path.name}.new")
    unlink(fresh)
    database, _ = connect(fresh)
    try:
        with _first_page_repaired(path):
            kept = _copy(path, database)
        # Another SQLite may divide files differently.
        kept = kept or _copy(path, database)
    finally:
        database.close()
    aside = next(each for number in itertools.count(1) if not (each := _damaged(path, number)).exists())
    if Path(f"{path}-wal").exists():
        Path(f"{path}-wal").rename(f"{aside}-wal")
    Path(f"{path}-shm").unlink(missing_ok=True)
    try:
        # At no time is there no file of this name, unless the file system knows no hard links.
        os.link(path, aside)
    except OSError:
        path.rename(aside)
    fresh.replace(path)
    LOGGER.error("outbox %s was damaged (%s): it is now %s; %d messages were read from it", path, error, aside, kept)


def _copy(path: Path, database: sqlite3.Connection) -> int:
    """Copy what can be read, and return how many messages that are."""
    kept = 0
    readable = (row for row in _readable(path) if row.intact)
    for rows in batches(readable):
        with transaction(database):
            execute_in_chunks(database, *insert(VERSION), rows)
        kept += len(rows)
    return kept


def batches(rows: Iterable[Record]) -> Iterator[list[Record]]:
    """Divide rows into lists that are not too large for memory."""
    batch: list[Record] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += row.size
        if len(batch) == BATCH or size > BATCH_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@contextlib.contextmanager
def _first_page_repaired(path: Path) -> Iterator[None]:
    """Meanwhile give a file the first page of a new one, which holds the table's definition, and no messages."""
    page, _ = _likeliest_page(path)
    with path.open("r+b", buffering=0) as file:
        was = file.read(len(page))
        page[_PAGES] = struct.pack(">I", path.stat().st_size // len(page))
        file.seek(0)
        file.write(page)
        try:
            yield
        finally:
            file.seek(0)
            file.write(was)
            if len(was) < len(page):
                file.truncate()


def is_almost_ours(path: Path) -> bool:
    """Return whether a file's first page differs from an outbox's in a few octets, as if a disk had changed them."""
    page, differ = _likeliest_page(path)
    return path.stat().st_size >= len(page) and differ <= FEW


def _likeliest_page(path: Path) -> tuple[bytearray, int]:
    """Return the first page of the version that a file is most likely of, and how many octets of its own differ."""

    def differ(page: bytearray) -> int:
        octets = enumerate(zip(page, found, strict=False))
        return sum(ours != its and place not in _CHANGING for place, (ours, its) in octets)

    pages = [_first_page(version) for version in sorted(TABLES, reverse=True)]
    with path.open("rb") as file:
        found = file.read(len(pages[0]))
    page = min(pages, key=differ)
    return page, differ(page)


def _first_page(version: int) -> bytearray:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as new:
        create(new, version)
        page = bytearray(new.serialize())[: new.execute("PRAGMA page_size").fetchone()[0]]
    page[_FORMATS] = _WITH_LOG
    return page


def _damaged(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.damaged-{number}")


def _readable(path: Path) -> Iterator[Record]:
    """Iterate over what can be read: from the start, skipping what cannot, and from the end."""
    versions = {columns: version for version, columns in COLUMNS.items()}
    return (READERS[versions[len(found)]](found) for found in _found(path) if len(found) in versions)


def _found(path: Path) -> Iterator[tuple[Any, ...]]:
    database = sqlite3.connect(path, timeout=BUSY_LIMIT, isolation_level=None)
    database.text_factory = bytes
    try:
        # A truncated file is read as far as it goes (https://www.sqlite.org/pragma.html#pragma_writable_schema).
        with contextlib.suppress(sqlite3.DatabaseError):
            database.execute("PRAGMA writable_schema=ON")
        number, failures = -(2**62), 0
        while failures < STEPS:
            try:
                for found in database.execute("SELECT * FROM messages WHERE number > ? ORDER BY number", (number,)):
                    number, failures = found[0], 0
                    yield found
                break
            except (sqlite3.DatabaseError, UnicodeDecodeError, OverflowError):
                number, failures = max(number, 0) + 1, failures + 1
        with contextlib.suppress(sqlite3.DatabaseError, UnicodeDecodeError, OverflowError):
            yield from database.execute("SELECT * FROM messages WHERE number > ? ORDER BY number DESC", (number,))
    finally:
        database.close()
