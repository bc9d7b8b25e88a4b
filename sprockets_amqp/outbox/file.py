"""One file of the outbox: a SQLite database, and the lock that says who owns it.

"On disk" means: in SQLite's write-ahead log, which was flushed (``synchronous=FULL``,
https://www.sqlite.org/pragma.html#pragma_synchronous) before a commit returns. Nothing here is called on the loop.
"""

import contextlib
import fcntl
import itertools
import logging
import os
import sqlite3
import stat
import struct
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from .row import OVERHEAD, Row, Totals

LOGGER = logging.getLogger(__name__)

SUFFIX: Final = ".outbox"
#: The suffixes of files that SQLite keeps beside a database.
COMPANIONS: Final = ("-wal", "-shm")
#: A file that SQLite would play back into a database; an outbox has none, so this is somebody else's.
JOURNAL: Final = "-journal"
#: In the database's header, to recognise an outbox: "spAM" in octets, and the version of the table.
APPLICATION_ID: Final = 0x7370414D
VERSION: Final = 1
#: Seconds to wait for another writer: the command line is one.
BUSY_LIMIT: Final = 5.0
#: Octets from which on an empty file is replaced by a new one.
LARGE: Final = 1024**2
#: How many messages are written at once to the file that replaces a damaged one.
BATCH: Final = 1000
BATCH_SIZE: Final = 8 * 1024**2
#: No time is later than this, in seconds since 1970: the year 9999.
LAST_TIME: Final = 253_370_764_800
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
CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_TABLE: Final = """\
CREATE TABLE messages (
    number INTEGER PRIMARY KEY, stored_at REAL NOT NULL, message_id TEXT NOT NULL, exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL, user_id TEXT, copies TEXT NOT NULL, method BLOB NOT NULL, properties BLOB NOT NULL,
    body BLOB NOT NULL, checksum INTEGER NOT NULL, refusals INTEGER NOT NULL DEFAULT 0, set_aside TEXT
)"""
_INSERT: Final = "INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Foreign(ValueError):
    """A file is no outbox."""


class Locked(Exception):
    """A file belongs to another running client."""


class OutboxFile:
    """An open file, and everything that is done to it.

    Raises:
        sqlite3.Error: the disk or the file has failed.
        ValueError: the file is an outbox of a later version, or something else, or not the process's own.
    """

    def __init__(self, path: Path, lock: int | None = None, *, create: bool = True) -> None:
        _check_regular(path)
        self.path = path
        self._lock = lock
        self._database = _connect(path, create=create)
        self._status = path.stat()

    @classmethod
    def take(cls, path: Path) -> "OutboxFile":
        """Open the file as the one client that sends its messages; raises Locked if another client has it."""
        _check_own(path)
        lock = take_lock(path)
        try:
            try:
                return cls(path, lock)
            except (sqlite3.DatabaseError, Foreign) as error:
                if not (_is_almost_ours(path) if isinstance(error, Foreign) else is_corrupt(error)):
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
            self._database = _connect(self.path)
            self._status = self.path.stat()
        except BaseException:
            # The disk is full, perhaps: it is tried again when the damage is next met.
            self._database = _open(self.path)
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

    def totals(self) -> Totals:
        """Count the messages in the file."""
        to_send, size, oldest, aside = self._database.execute(
            "SELECT count(*) - count(set_aside), total(length(body) + length(properties) + ?), min(stored_at),"
            " count(set_aside) FROM messages",
            (OVERHEAD,),
        ).fetchone()
        # What a disk has changed may be any number.
        is_time = isinstance(oldest, float) and 0 <= oldest < LAST_TIME
        return Totals(to_send, int(size), oldest if is_time else None, aside)

    def load(self, limit: int, size: int, without: Collection[int] = ()) -> list[Row]:
        """Return the first messages to be sent, up to ``limit`` of them and about ``size`` octets."""
        found: list[Row] = []
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
                raise _corrupt("messages are out of order")
            last = row.number
            if row.number not in without:
                found.append(row)
                size -= row.size
        return found

    def rows(self, where: str = "true", *values: object) -> Iterator[Row]:
        """Iterate over the messages that meet a condition, in order; conditions come only from this package."""
        statement = f"SELECT * FROM messages WHERE {where} ORDER BY number"  # noqa: S608 - see above
        return map(Row.read, self._database.execute(statement, values))

    # Writing

    def write(
        self,
        puts: Iterable[Row] = (),
        deletes: Iterable[int] = (),
        suspects: Iterable[int] = (),
        set_asides: Iterable[tuple[str, int]] = (),
    ) -> None:
        """Do all of it, or nothing; when this returns, it is on disk."""
        with self._transaction():
            many = self._database.executemany
            many(_INSERT, puts)
            many("UPDATE messages SET refusals = refusals + 1 WHERE number = ?", [(each,) for each in suspects])
            many("UPDATE messages SET set_aside = ? WHERE number = ?", set_asides)
            many("DELETE FROM messages WHERE number = ?", [(each,) for each in deletes])

    def try_out(self) -> None:
        """Check that something can be written: a full or read-only disk can still be read."""
        with self._transaction():
            self._database.execute(f"PRAGMA user_version={VERSION}")

    def retry(self, number: int) -> bool:
        """Let a message that was set aside be sent again; return whether there was one."""
        return self._change(
            "UPDATE messages SET set_aside = NULL, refusals = 0 WHERE number = ? AND set_aside IS NOT NULL", number
        )

    def drop(self, number: int) -> bool:
        """Delete a message; return whether there was one."""
        return self._change("DELETE FROM messages WHERE number = ?", number)

    def _change(self, statement: str, number: int) -> bool:
        with self._transaction():
            return self._database.execute(statement, (number,)).rowcount > 0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise

    # The end

    def close(self, *, delete: bool = False) -> None:
        """Close the file, so that another client can take it; delete it if nothing in it is to be kept."""
        # What is there instead of it now is somebody else's.
        delete = delete and self.is_in_place
        with contextlib.suppress(sqlite3.Error):
            self._database.close()
        if delete:
            _unlink(self.path)
            lock_path(self.path).unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

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


def lock_path(path: Path) -> Path:
    """Return the path of the lock beside a file."""
    return path.with_name(f"{path.name}.lock")


def is_locked(path: Path) -> bool:
    """Return whether a client has a file open; nothing is left behind that could keep one from opening it."""
    try:
        lock = os.open(lock_path(path), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def take_lock(path: Path) -> int:
    """Lock a file for this process; return the lock's descriptor. Raises Locked if another process has it."""
    beside = lock_path(path)
    while True:
        lock = os.open(beside, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its previous owner may have deleted it in the meantime.
            if os.path.samestat(os.fstat(lock), beside.stat()):
                return lock
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(lock)
            raise Locked(path) from None
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _check_regular(path: Path) -> None:
    for each, status in _parts(path):
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{each} is no regular file: move it elsewhere")


def _check_own(path: Path) -> None:
    """Close the files to others, as far as they exist; raise ValueError if others may have written them."""
    _check_regular(path)
    if os.path.lexists(f"{path}{JOURNAL}"):
        raise ValueError(f"there is a {path.name}{JOURNAL}, which no client has made: move it elsewhere")
    for each, status in _parts(path):
        if status.st_uid != os.geteuid():
            raise ValueError(f"{each} belongs to user {status.st_uid}, not to {os.geteuid()}: move it elsewhere")
        if status.st_mode & stat.S_IWOTH:
            mode = stat.S_IMODE(status.st_mode)
            raise ValueError(f"all users may write to {each} (mode {mode:o}): check its content, then chmod 600 it")
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            # A backup was restored, or Kubernetes has opened the volume to a group (fsGroup), as whenever a pod starts.
            each.chmod(0o600)


def _parts(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Iterate over a database, the files beside it and its lock, as far as they exist, without following links."""
    for each in (path, *(Path(f"{path}{companion}") for companion in COMPANIONS), lock_path(path)):
        with contextlib.suppress(FileNotFoundError):
            yield each, each.lstat()


def is_corrupt(error: BaseException) -> bool:
    """Return whether an error says that a file is no longer what SQLite wrote."""
    return isinstance(error, sqlite3.DatabaseError) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) in CORRUPT


def _corrupt(problem: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(problem)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def is_full(error: BaseException) -> bool:
    """Return whether an error says that the disk is full."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL


def _connect(path: Path, *, create: bool = True) -> sqlite3.Connection:
    if create and not path.exists():
        # What applications publish is private.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    database = _open(path)
    try:
        _prepare(path, database)
    except BaseException as error:
        database.close()
        # SQLite's error quotes octets that it could not understand, or says that it knows no such format.
        if isinstance(error, UnicodeDecodeError) or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:
            raise _corrupt("the table's definition cannot be read") from None
        raise
    return database


def _open(path: Path) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode=rw"
    database = sqlite3.connect(address, uri=True, timeout=BUSY_LIMIT, isolation_level=None, check_same_thread=False)
    # Of what a disk has changed, some cannot be decoded.
    database.text_factory = bytes
    return database


def _prepare(path: Path, database: sqlite3.Connection) -> None:
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
        execute(_TABLE)
    elif found == APPLICATION_ID and version > VERSION:
        raise ValueError(f"{path} is of a later version ({version}): move it elsewhere, or upgrade sprockets_amqp")
    elif found != APPLICATION_ID or schema != [_TABLE]:
        # A view in the table's place could run for ever, and a trigger do anything.
        raise Foreign(f"{path} is not an outbox: move it elsewhere, or upgrade sprockets_amqp")
    else:
        execute("PRAGMA journal_mode=WAL")
        # What cannot be read is found now, while it can be repaired.
        execute("SELECT max(number) FROM messages").fetchone()


# A damaged file


def salvage(path: Path, error: BaseException) -> None:
    """Put a damaged file aside under another name, and keep what can be read from it in a new one of its name."""
    fresh = path.with_name(f"{path.name}.new")
    _unlink(fresh)
    file = OutboxFile(fresh)
    try:
        with _first_page_repaired(path):
            kept = _copy(path, file)
        # Another SQLite may divide files differently.
        kept = kept or _copy(path, file)
    finally:
        file.close()
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


def _copy(path: Path, file: OutboxFile) -> int:
    """Copy what can be read, and return how many messages that are."""
    kept = 0
    readable = (row for row in _readable(path) if row.intact)
    for rows in batches(readable):
        file.write(rows)
        kept += len(rows)
    return kept


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Divide rows into lists that are not too large for memory."""
    batch: list[Row] = []
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
    page = _first_page()
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


def _is_almost_ours(path: Path) -> bool:
    """Return whether a file's first page differs from an outbox's in a few octets, as if a disk had changed them."""
    page = _first_page()
    with path.open("rb") as file:
        found = file.read(len(page))
    differ = [place for place, (ours, its) in enumerate(zip(page, found, strict=False)) if ours != its]
    return len(found) == len(page) and sum(place not in _CHANGING for place in differ) <= FEW


def _first_page() -> bytearray:
    with contextlib.closing(sqlite3.connect(":memory:")) as new:
        new.text_factory = bytes
        _prepare(Path(), new)
        page = bytearray(new.serialize())[: new.execute("PRAGMA page_size").fetchone()[0]]
    page[_FORMATS] = _WITH_LOG
    return page


def _damaged(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.damaged-{number}")


def _readable(path: Path) -> Iterator[Row]:
    """Iterate over what can be read: from the start, skipping what cannot, and from the end."""
    return (Row.read(found) for found in _found(path) if len(found) == len(Row._fields))


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


def _unlink(path: Path) -> None:
    for each in (path, *(Path(f"{path}{companion}") for companion in (*COMPANIONS, JOURNAL))):
        each.unlink(missing_ok=True)
