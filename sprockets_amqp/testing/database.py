"""A database in memory, in place of PostgreSQL: outboxes in it, and transactions that store messages."""

import asyncio
import itertools
import re
import weakref
from collections.abc import Callable, Collection, Generator, Mapping
from types import TracebackType
from typing import Any, Final, Self

from sprockets_amqp.delivery.message import Message
from sprockets_amqp.names import DEFAULT_NAME
from sprockets_amqp.outbox.ledger import Key
from sprockets_amqp.outbox.memory import MemoryStore
from sprockets_amqp.outbox.postgres.table import COMMON, TABLE
from sprockets_amqp.outbox.store import GRACE, OWN, SPOILT, Changes, Record, Totals, checksum, unpack

#: What `outbox_insert` makes, for each library.
_INSERT: Final = re.compile(rf"INSERT INTO {TABLE} .* VALUES \('(\w+)', .*", re.DOTALL)  # noqa: S608


class Database:
    """Takes the place of every database that clients are given as their ``outbox`` while its broker is installed.

    >>> database = Database()
    >>> with database.transaction() as transaction:
    ...     _ = transaction.execute(*outbox_insert("events", "order.created", b"a book").psycopg)
    >>> [message.body for message in database.stored()]
    [b'a book']
    """

    def __init__(self) -> None:
        self.is_up = True
        #: What is in each box, by name and number, and who owns it.
        self.boxes: dict[tuple[str, int], dict[int, Record]] = {}
        self.owners: dict[tuple[str, int], DatabaseStore] = {}
        self.numbers = itertools.count(1)
        self._stores: weakref.WeakSet[DatabaseStore] = weakref.WeakSet()

    def store(self, _url: str, name: str) -> "DatabaseStore":
        """Return what a client of a name keeps its messages in."""
        store = DatabaseStore(self, name)
        self._stores.add(store)
        return store

    def transaction(self) -> "Transaction":
        """Begin a transaction, as a context: it commits at the end, and is rolled back if an exception is raised."""
        return Transaction(self)

    def commit(self, stored: list[tuple[str, bytes, int]]) -> None:
        """Store what a transaction has stored, and tell the clients."""
        for name, message, summed in stored:
            number = next(self.numbers)
            is_whole = summed == checksum(COMMON, message)
            record = Record(number, message, checksum(number, message) if is_whole else -1)
            self.boxes.setdefault((name, COMMON), {})[number] = record
        self.tell()

    def stored(self, name: str = DEFAULT_NAME) -> list[Message]:
        """Return the messages that are stored for the clients of a name and not confirmed, in order, box by box."""
        found = [self.boxes[box] for box in sorted(self.boxes) if box[0] == name]
        return [unpack(box[number].message)[1] for box in found for number in sorted(box)]

    def stop(self) -> None:
        """Be away: nothing can be stored or read until `start`."""
        self.is_up = False
        self.owners.clear()
        self.tell(lost=True)

    def check(self) -> None:
        """Raise ConnectionError while it is away."""
        if not self.is_up:
            raise ConnectionError("PostgreSQL: the database in memory was stopped")

    def start(self) -> None:
        """Be there again, with all that was stored."""
        self.is_up = True

    def tell(self, *, lost: bool = False) -> None:
        """Tell the clients that something was stored or left, or that they have lost their sessions."""
        for store in list(self._stores):
            store.tell(lost=lost)


class Transaction:
    """Stores messages at its end. What executes the statements of `outbox_insert` may be given it as a connection."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stored: list[tuple[str, bytes, int]] = []

    def execute(self, statement: Any, *parameters: Any) -> "Executed":
        """Execute a statement of `outbox_insert`, for whichever library; the result may be awaited, too.

        Raises:
            ValueError: it is another statement.
        """
        match = _INSERT.fullmatch(str(statement))
        if match is None:
            raise ValueError(f"a database in memory knows the statements of outbox_insert alone, not {statement!s:.80}")
        given = parameters[0] if len(parameters) == 1 else parameters
        message, summed = given.values() if isinstance(given, Mapping) else given
        self._stored.append((match[1], message, summed))
        return Executed()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._database.check()
            self._database.commit(self._stored)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


class Executed:
    """What there is to await of a statement: nothing."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


class DatabaseStore(MemoryStore):
    """A `Store` in a database in memory: its boxes are some of the database's."""

    medium = "PostgreSQL"

    def __init__(self, database: Database, name: str) -> None:
        super().__init__()
        self._database = database
        self._name = name
        self._ids = itertools.count(OWN + 1)
        #: Which box of the database each of the client's is.
        self._places: dict[int, tuple[str, int]] = {}
        #: When boxes of others may be taken over, in the loop's time.
        self._adopts_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watchers: tuple[Callable[[], object], Callable[[], object]] = bool, bool

    def watch(self, on_news: Callable[[], object], on_loss: Callable[[], object]) -> None:
        """Call these when transactions have committed, and when the database is away."""
        self._watchers = on_news, on_loss

    def tell(self, *, lost: bool) -> None:
        """Tell the client on its loop that there may be something new, or that its session is lost."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._watchers[lost])

    async def open(self) -> None:
        """Own a box, and take over those whose owners are gone: after it was away, each client's own come first."""
        self._database.check()
        self._loop = asyncio.get_running_loop()
        now, owners = self._loop.time(), self._database.owners
        if any(owners.get(place) is not self for place in self._places.values()):
            self._adopts_at = now + GRACE
            places, self._places = self._places, {}
            self.boxes = {}
            for box, place in places.items():
                self._own(box, place)
        if OWN not in self._places:
            self._own(OWN, (self._name, next(self._database.numbers)))
        for place in sorted(self._database.boxes) if now >= self._adopts_at else ():
            if place[0] == self._name and place[1] != COMMON and place not in self._places.values():
                self._own(next(self._ids), place)

    def _own(self, box: int, place: tuple[str, int]) -> bool:
        if self._database.owners.setdefault(place, self) is not self:
            return False
        self._places[box] = place
        self.boxes[box] = self._database.boxes.setdefault(place, {})
        return True

    async def write(self, box: int, changes: Changes) -> None:
        """Change a box."""
        self._database.check()
        if self._owns(box):
            await super().write(box, changes)
        elif changes.puts:
            raise ConnectionError("PostgreSQL: the session has ended")

    def _owns(self, box: int) -> bool:
        return box in self._places and self._database.owners.get(self._places[box]) is self

    async def read(self, limit: int, size: int, without: Collection[Key]) -> list[tuple[Key, Record]]:
        """Return the first messages to be sent: those that others left, the client's own, and then the common ones."""
        self._database.check()
        common = self._name, COMMON
        if common not in self._places.values():
            self._own(next(self._ids), common)
        if not all(map(self._owns, self._places)):
            raise ConnectionError("PostgreSQL: the session has ended")
        found = await super().read(limit, size, without)
        for (box, number), record in found:
            if not record.intact:
                await super().write(box, Changes(set_asides={number: SPOILT}))
        return [(key, record) for key, record in found if record.intact]

    def _turn(self, box: int) -> tuple[bool, bool, int]:
        return self._places[box][1] == COMMON, box == OWN, box

    async def totals(self) -> Totals:
        """Count what is in the client's boxes."""
        self._database.check()
        return await super().totals()

    async def try_out(self) -> None:
        """Raise an error while the database is away."""
        self._database.check()

    async def share(self) -> None:
        """Give up the common box."""
        for box in [box for box, place in self._places.items() if place[1] == COMMON and self._owns(box)]:
            del self._database.owners[self._places.pop(box)], self.boxes[box]

    async def close(self, left: Mapping[int, Changes]) -> None:
        """Give up the boxes."""
        for box, changes in left.items():
            if self._database.is_up and self._owns(box):
                await super().write(box, Changes(deletes=changes.deletes))
        for box, place in self._places.items():
            if self._owns(box):
                del self._database.owners[place]
                if place[1] != COMMON and not self._database.boxes[place]:
                    del self._database.boxes[place]
        self._places.clear()
        self.boxes = {}
        self._loop = None
        self._database.tell()

    def abandon(self) -> None:
        """In a forked child, leave everything to the parent: memory is not shared."""
        self._places.clear()
        self.boxes, self._loop = {}, None

    async def names(self) -> list[str]:
        """Return the names of the boxes in which there is anything."""
        self._database.check()
        return list(self._named())

    async def retry(self, name: str, numbers: Collection[int]) -> set[int]:
        """Have messages sent that were set aside: the clients are told."""
        found = await super().retry(name, numbers)
        self._database.tell()
        return found

    def _box(self, name: str) -> dict[int, Record]:
        self._database.check()
        if name not in self._named():
            raise FileNotFoundError(name)
        return self._database.boxes[self._named()[name]]

    def _is_owned(self, name: str) -> bool:
        return self._named()[name] in self._database.owners

    def _named(self) -> dict[str, tuple[str, int]]:
        return {
            f"{name}.{box}": (name, box) for (name, box), records in sorted(self._database.boxes.items()) if records
        }
