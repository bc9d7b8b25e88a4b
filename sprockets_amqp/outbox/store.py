"""What an outbox keeps its messages in: a store, which one client at a time owns a box of, and what is in it."""

import dataclasses
import struct
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple, Protocol

from sprockets_amqp.delivery.message import Message, restore

from .ledger import Key

#: The client's own box; the boxes of clients that are gone have higher numbers.
OWN: Final = 0
#: Seconds after a session was lost, or the server started, for which clients take back their own boxes, and take over
#: no others: when a server was restarted, all have lost theirs.
GRACE: Final = 5.0
#: Octets that a message counts for besides its names, properties and body; of them, 14 are in its method.
EACH: Final = 180
OVERHEAD: Final = EACH - 14
#: No time is later than this, in seconds since 1970: the year 9999.
LAST_TIME: Final = 253_370_764_800
#: Why a message is not sent if it is no longer what was stored.
SPOILT: Final = "damaged on the disk"

_head: Final = struct.Struct(">dHI")


#: A message that is to be stored, and how often RabbitMQ closed the channel over it or others.
Put = tuple[Message, int]


class Record(NamedTuple):
    """A stored message.

    Attributes:
        number: its place in line.
        message: when it was stored, and what is sent, as `pack` makes it.
        checksum: of both.
        refusals: how often RabbitMQ closed the channel over it or others.
        set_aside: why it is no longer sent; None: it is to be sent.
    """

    number: int
    message: bytes
    checksum: int
    refusals: int = 0
    set_aside: str | None = None

    @property
    def size(self) -> int:
        """The octets that count towards the limit; what is not of the type that was stored counts as none."""
        message: Any = self.message
        return OVERHEAD + (len(message) - _head.size if isinstance(message, bytes) else 0)

    @property
    def stored_at(self) -> float | None:
        """When it was stored, in seconds since 1970, if that can be told: what a disk has changed may be any number."""
        try:
            seconds, _, _ = _head.unpack_from(self.message)
        except (struct.error, TypeError):
            return None
        return seconds if 0 <= seconds < LAST_TIME else None

    @property
    def intact(self) -> bool:
        """Whether it is what was stored: SQLite does not notice every octet that a disk changes."""
        try:
            is_whole = self.checksum == checksum(self.number, self.message)
        except TypeError:
            return False
        refusals: Any = self.refusals
        return is_whole and isinstance(refusals, int)


class Totals(NamedTuple):
    """What a store, or a box of it, holds.

    Attributes:
        messages: how many are to be sent.
        size: octets of those and of messages that were set aside.
        oldest: when the first of them was stored, in seconds since 1970; None if there is none.
        set_aside: how many were set aside.
    """

    messages: int = 0
    size: int = 0
    oldest: float | None = None
    set_aside: int = 0


@dataclasses.dataclass(slots=True)
class Changes:
    """What is to be changed in a box.

    Attributes:
        puts: messages to store, by their numbers; only in the client's own box.
        deletes: the numbers of messages whose publish has ended.
        suspects: those over which RabbitMQ may have closed the channel.
        set_asides: those that are no longer sent, and why.
    """

    puts: dict[int, Put] = dataclasses.field(default_factory=dict)
    deletes: set[int] = dataclasses.field(default_factory=set)
    suspects: list[int] = dataclasses.field(default_factory=list)
    set_asides: dict[int, str] = dataclasses.field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.puts or self.deletes or self.suspects or self.set_asides)


class Unsure(ConnectionError):
    """What has failed may have been done: nobody is left to ask."""


class Store(Protocol):
    """Where a client keeps messages; it makes one call at a time.

    Every call may raise `OSError`, `ValueError` or an error of the store's own: nothing of it is done then, unless it
    is `Unsure`, and it may be tried again. A call whose task is cancelled goes on to its end: who stops an application
    may cancel all tasks.

    Attributes:
        medium: what it is, for people.
    """

    medium: str

    def watch(self, on_news: Callable[[], object], on_loss: Callable[[], object]) -> None:
        """Have these called, on the loop: others may have stored messages for the client; it has to be opened again."""

    async def open(self) -> None:
        """Own a box, which is locked, and take over those of the client's name whose owners are gone."""

    async def write(self, box: int, changes: Changes) -> None:
        """Make all changes of one box, durably, or none.

        The numbers in the client's own box count from its start. What is stored goes there; that is opened for it.
        """

    async def read(self, limit: int, size: int, without: Collection[Key]) -> list[tuple[Key, Record]]:
        """Return the first messages to be sent, those that others left first: so many, and about so many octets."""

    async def totals(self) -> Totals:
        """Count what is in all boxes."""

    async def try_out(self) -> None:
        """Raise an error if nothing can be stored: a full or read-only disk can still be read."""

    async def share(self) -> None:
        """Give up what other clients may send: this one cannot for now."""

    async def close(self, left: Mapping[int, Changes]) -> None:
        """Give up the boxes; delete those in which nothing is left but what ``left`` was to delete."""

    def abandon(self) -> None:
        """In a forked child, leave everything to the parent process."""

    # For people, who see the boxes of all clients, by name, whoever owns them

    async def names(self) -> list[str]:
        """Return the names of all boxes, in order."""

    async def look(self, name: str) -> tuple[Totals, list[int], bool]:
        """Count what is in a box; return what was set aside, too, and whether the box has an owner.

        Raises FileNotFoundError if there is no such box.
        """

    async def find(self, name: str, numbers: Collection[int]) -> list[Record]:
        """Return the messages of these numbers that are there."""

    async def retry(self, name: str, numbers: Collection[int]) -> set[int]:
        """Have messages sent that were set aside; return which were."""

    async def drop(self, name: str, numbers: Collection[int]) -> set[int]:
        """Delete messages; return which were there."""


#: What makes stores in place of those in PostgreSQL, the latest last; `sprockets_amqp.testing` brings one.
STAND_INS: Final[list[Callable[[str, str], Store]]] = []


def pack(stored_at: float, method: bytes, properties: bytes, body: bytes) -> bytes:
    """Return what is stored of a message: the time, and what goes on the wire."""
    return b"".join((_head.pack(stored_at, len(method), len(properties)), method, properties, body))


def values_of(puts: Mapping[int, Put], shift: int = 0) -> list[tuple[int, bytes, int, int, None]]:
    """Return the values of the records of messages that are being stored, their numbers shifted."""
    now, found = time.time(), []
    for number, (message, blamed) in puts.items():
        octets = pack(now, message.method, message.properties, message.body)
        # A `Record` would take as long as the rest, and this is done for each message.
        found.append((number + shift, octets, checksum(number + shift, octets), blamed, None))
    return found


def unpack(octets: bytes) -> tuple[float, Message]:
    """Return the time at which a message was stored, in seconds since 1970, and the message.

    Raises:
        ValueError: it is no longer what was stored.
    """
    try:
        stored_at, method, properties = _head.unpack_from(octets)
        start = _head.size + method
        end = start + properties
        return stored_at, restore(octets[_head.size : start], octets[start:end], octets[end:])
    except Exception as error:
        # pika raises errors of its own over headers, and Python over too many tables in one another.
        raise ValueError(f"a stored message cannot be read: {error}") from None


def checksum(number: int, message: bytes) -> int:
    """Compute the checksum of a record."""
    return zlib.crc32(message, number & 0xFFFFFFFF)
