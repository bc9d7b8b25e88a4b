"""A database of the outbox: the table, opening it, and what its errors mean.

"On disk" means: in SQLite's write-ahead log, which was flushed (``synchronous=FULL``,
https://www.sqlite.org/pragma.html#pragma_synchronous) before a commit returns. Nothing here is called on the loop.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from .rows import TABLES, VERSION

#: The suffixes of files that SQLite keeps beside a database.
COMPANIONS: Final = ("-wal", "-shm")
#: A file that SQLite would play back into a database; an outbox has none, so this is somebody else's.
JOURNAL: Final = "-journal"
#: In the database's header, to recognise an outbox: "spAM" in octets. The version of the table is beside it.
APPLICATION_ID: Final = 0x7370414D
#: Seconds to wait for another writer: the command line is one.
BUSY_LIMIT: Final = 5.0
#: How many rows are written at a time; SQLite remembers a statement for each.
CHUNKS: Final = (256, 16, 1)
CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Foreign(ValueError):
    """A file is no outbox."""


def is_corrupt(error: BaseException) -> bool:
    """Return whether an error says that a file is no longer what SQLite wrote."""
    return isinstance(error, sqlite3.DatabaseError) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) in CORRUPT


def corrupt(problem: str) -> sqlite3.DatabaseError:
    """Return the error of a file that is no longer what SQLite wrote."""
    error = sqlite3.DatabaseError(problem)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def is_full(error: BaseException) -> bool:
    """Return whether an error says that the disk is full."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL


def connect(path: Path, *, create: bool = True) -> tuple[sqlite3.Connection, int]:
    """Open a database, creating it if it is not there; return its version, too. Raises Foreign if it is no outbox."""
    if create and not path.exists():
        # What applications publish is private.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    database = open_database(path)
    try:
        version = prepare(path, database)
    except BaseException as error:
        database.close()
        # SQLite's error quotes octets that it could not understand, or says that it knows no such format.
        if isinstance(error, UnicodeDecodeError) or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:
            raise corrupt("the table's definition cannot be read") from None
        raise
    return database, version


def open_database(path: Path) -> sqlite3.Connection:
    """Open a database as it is."""
    address = f"{path.absolute().as_uri()}?mode=rw"
    database = sqlite3.connect(address, uri=True, timeout=BUSY_LIMIT, isolation_level=None, check_same_thread=False)
    # Of what a disk has changed, some cannot be decoded.
    database.text_factory = bytes
    return database


def prepare(path: Path, database: sqlite3.Connection) -> int:
    """Create the table, or see which version it is of, and return that."""
    execute = database.execute
    execute("PRAGMA synchronous=FULL")
    found, version = (execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    schema = [
        bytes(text or b"").decode(errors="replace") for (text,) in execute("SELECT sql FROM sqlite_master LIMIT 2")
    ]
    if not schema and found in {0, APPLICATION_ID} and version in {0, *TABLES}:
        create(database, VERSION)
        return VERSION
    if found == APPLICATION_ID and version > VERSION:
        raise ValueError(f"{path} is of a later version ({version}): move it elsewhere, or upgrade sprockets_amqp")
    if found != APPLICATION_ID or schema != [TABLES.get(version)]:
        # A view in the table's place could run for ever, and a trigger do anything.
        raise Foreign(f"{path} is not an outbox: move it elsewhere, or upgrade sprockets_amqp")
    execute("PRAGMA journal_mode=WAL")
    # What cannot be read is found now, while it can be repaired.
    execute("SELECT max(number) FROM messages").fetchone()
    return int(version)


def create(database: sqlite3.Connection, version: int) -> None:
    """Create the table of a version."""
    database.execute("PRAGMA journal_mode=WAL")
    database.execute(f"PRAGMA application_id={APPLICATION_ID}")
    database.execute(f"PRAGMA user_version={version}")
    database.execute(TABLES[version])


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Do all that is done meanwhile, or nothing; when this ends, it is on disk."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


def execute_in_chunks(
    database: sqlite3.Connection, statement: str, each: str, rows: Iterable[Sequence[object]]
) -> None:
    """Execute a statement for many rows at a time: ``{}`` in it becomes what stands for each of them.

    SQLite's module gives up Python's lock at each step, and asks for it again: while the loop is busy, one row at a
    time, as `executemany` does it, can take milliseconds for each.
    """
    left = list(rows)
    for size in CHUNKS:
        while len(left) >= size:
            values = [value for row in left[:size] for value in row]
            database.execute(statement.format(", ".join([each] * size)), values)
            del left[:size]


def unlink(path: Path) -> None:
    """Delete a database and what SQLite keeps beside it."""
    for each in (path, *(Path(f"{path}{companion}") for companion in (*COMPANIONS, JOURNAL))):
        each.unlink(missing_ok=True)
