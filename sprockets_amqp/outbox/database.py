"""A database of the outbox: the table, opening it, and what its errors mean.

"On disk" means: in SQLite's write-ahead log, which was flushed (``synchronous=FULL``,
https://www.sqlite.org/pragma.html#pragma_synchronous) before a commit returns. Nothing here is called on the loop.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: The suffixes of files that SQLite keeps beside a database.
COMPANIONS: Final = ("-wal", "-shm")
#: A file that SQLite would play back into a database; an outbox has none, so this is somebody else's.
JOURNAL: Final = "-journal"
#: In the database's header, to recognise an outbox: "spAM" in octets, and the version of the table.
APPLICATION_ID: Final = 0x7370414D
VERSION: Final = 1
#: Seconds to wait for another writer: the command line is one.
BUSY_LIMIT: Final = 5.0
CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

TABLE: Final = """\
CREATE TABLE messages (
    number INTEGER PRIMARY KEY, stored_at REAL NOT NULL, message_id TEXT NOT NULL, exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL, user_id TEXT, copies TEXT NOT NULL, method BLOB NOT NULL, properties BLOB NOT NULL,
    body BLOB NOT NULL, checksum INTEGER NOT NULL, refusals INTEGER NOT NULL DEFAULT 0, set_aside TEXT
)"""
INSERT: Final = "INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


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


def connect(path: Path, *, create: bool = True) -> sqlite3.Connection:
    """Open a database, creating it if it is not there; raises Foreign if it is no outbox."""
    if create and not path.exists():
        # What applications publish is private.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    database = open_database(path)
    try:
        prepare(path, database)
    except BaseException as error:
        database.close()
        # SQLite's error quotes octets that it could not understand, or says that it knows no such format.
        if isinstance(error, UnicodeDecodeError) or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:
            raise corrupt("the table's definition cannot be read") from None
        raise
    return database


def open_database(path: Path) -> sqlite3.Connection:
    """Open a database as it is."""
    address = f"{path.absolute().as_uri()}?mode=rw"
    database = sqlite3.connect(address, uri=True, timeout=BUSY_LIMIT, isolation_level=None, check_same_thread=False)
    # Of what a disk has changed, some cannot be decoded.
    database.text_factory = bytes
    return database


def prepare(path: Path, database: sqlite3.Connection) -> None:
    """Create the table, or see whether it is the one of this version."""
    execute = database.execute
    execute("PRAGMA synchronous=FULL")
    found, version = (execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    schema = [
        bytes(text or b"").decode(errors="replace") for (text,) in execute("SELECT sql FROM sqlite_master LIMIT 2")
    ]
    if not schema and (found, version) in {(0, 0), (APPLICATION_ID, VERSION)}:
        execute("PRAGMA journal_mode=WAL")
        execute(f"PRAGMA application_id={APPLICATION_ID}")
        execute(f"PRAGMA user_version={VERSION}")
        execute(TABLE)
    elif found == APPLICATION_ID and version > VERSION:
        raise ValueError(f"{path} is of a later version ({version}): move it elsewhere, or upgrade sprockets_amqp")
    elif found != APPLICATION_ID or schema != [TABLE]:
        # A view in the table's place could run for ever, and a trigger do anything.
        raise Foreign(f"{path} is not an outbox: move it elsewhere, or upgrade sprockets_amqp")
    else:
        execute("PRAGMA journal_mode=WAL")
        # What cannot be read is found now, while it can be repaired.
        execute("SELECT max(number) FROM messages").fetchone()


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


def unlink(path: Path) -> None:
    """Delete a database and what SQLite keeps beside it."""
    for each in (path, *(Path(f"{path}{companion}") for companion in (*COMPANIONS, JOURNAL))):
        each.unlink(missing_ok=True)
