"""What passes between the loop and the disk's thread: messages as they are stored, and what to do with them.

It does not need SQLite, which is loaded only for a client with an outbox.
"""

import asyncio
import dataclasses
import json
import struct
import time
import zlib
from typing import Any, Final, NamedTuple

from sprockets_amqp.delivery.message import Message

#: Octets that a message takes on disk besides its body and properties, approximately.
OVERHEAD: Final = 200
#: Seconds that the disk may take for one batch.
DISK_LIMIT: Final = 10.0
#: A stored message: its file (0 is the client's own), and its number in it.
Key = tuple[int, int]
OWN: Final = 0
#: Most messages have no further routing keys in their headers.
NO_COPIES: Final = "[]"


class Record(NamedTuple):
    """A stored message.

    Attributes:
        number: its place in line.
        stored_at: when it was stored, in seconds since 1970; only for people, because clocks jump.
        copies: the further routing keys in its headers, as JSON.
        method: Basic.Publish, encoded.
        properties: the flags and list of the properties, encoded.
        refusals: how often RabbitMQ closed the channel over it or others.
        set_aside: why it is no longer sent; None: it is to be sent.
    """

    number: int
    stored_at: float
    message_id: str
    exchange: str
    routing_key: str
    user_id: str | None
    copies: str
    method: bytes
    properties: bytes
    body: bytes
    checksum: int
    refusals: int = 0
    set_aside: str | None = None

    @property
    def size(self) -> int:
        """The octets that count towards the limit; what is not of the type that was stored counts as none."""
        values: tuple[Any, ...] = (self.body, self.properties)
        return sum(len(each) for each in values if isinstance(each, bytes)) + OVERHEAD

    @classmethod
    def read(cls, found: tuple[Any, ...]) -> "Record":
        """Make a row of what SQLite has found: its texts are octets here, of which a disk may have changed some."""
        return cls._make([_decoded(value) if index in _TEXTS else value for index, value in enumerate(found)])

    @property
    def intact(self) -> bool:
        """Whether it is what was stored: SQLite does not notice every octet that a disk changes."""
        try:
            is_whole = self.checksum in {checksum(self, self.number), old_checksum(self)}
        except (TypeError, AttributeError, ValueError, struct.error):
            return False
        # The first may change, and the checksum of version 1.1 takes 0 for None in the second.
        refusals: Any = self.refusals
        user_id: Any = self.user_id
        return is_whole and isinstance(refusals, int) and isinstance(user_id, str | None)

    def summed(self, shift: int = 0) -> "Record":
        """Return the row with its checksum, and its number shifted."""
        # Record._replace() takes three times as long, and this is done for each message.
        return Record(self[0] + shift, *self[1:10], checksum(self, self[0] + shift), *self[11:])


#: The columns that are text.
_TEXTS: Final = frozenset(
    Record._fields.index(name) for name in ("message_id", "exchange", "routing_key", "user_id", "copies", "set_aside")
)


def _decoded(value: object) -> object:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        # It is no longer what was stored.
        return value


_pack_place: Final = struct.Struct(">qd?").pack


def checksum(row: Record, number: int) -> int:
    """Compute the checksum of a row with this number: of all columns but those that change while it is stored."""
    place = _pack_place(number, row.stored_at, row.user_id is None)
    return zlib.crc32(place, old_checksum(row))


def old_checksum(row: Record) -> int:
    """Compute the checksum of version 1.1, of everything that is sent."""
    words = "\0".join((row.message_id, row.exchange, row.routing_key, row.user_id or "", row.copies))
    return zlib.crc32(b"".join((words.encode(errors="surrogatepass"), row.method, row.properties, row.body)))


class Totals(NamedTuple):
    """What a file holds.

    Attributes:
        messages: how many are to be sent.
        size: octets of those and of messages that were set aside.
        oldest: when the oldest of them was stored, in seconds since 1970; None if there is none.
        set_aside: how many were set aside.
    """

    messages: int = 0
    size: int = 0
    oldest: float | None = None
    set_aside: int = 0


@dataclasses.dataclass(slots=True)
class Batch:
    """What to do in the folder next; all writes are one transaction for each file.

    Attributes:
        puts: messages to store, by their numbers, which count from the client's start.
        deletes: messages that RabbitMQ has confirmed.
        suspects: messages that RabbitMQ may have closed the channel over.
        set_asides: messages that are no longer sent, and why.
        load: how many to read, and up to how many octets.
        loaded: messages that are in memory already.
        look: whether to open files that are not open, and to count.
        close: whether to close everything afterwards.
    """

    puts: dict[int, Record] = dataclasses.field(default_factory=dict)
    deletes: set[Key] = dataclasses.field(default_factory=set)
    suspects: list[Key] = dataclasses.field(default_factory=list)
    set_asides: dict[Key, str] = dataclasses.field(default_factory=dict)
    load: tuple[int, int] | None = None
    loaded: frozenset[Key] = frozenset()
    look: bool = False
    close: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (
            self.puts or self.deletes or self.suspects or self.set_asides or self.load or self.look or self.close
        )


@dataclasses.dataclass(slots=True)
class Done:
    """What became of a batch.

    Attributes:
        written: whether the messages to store are on disk.
        problem: what failed, or None.
        rows: what was read.
        totals: what all files hold; None if they were not counted.
    """

    written: bool = False
    problem: Exception | None = None
    rows: list[tuple[Key, Record]] = dataclasses.field(default_factory=list)
    totals: Totals | None = None


def record_of(message: Message) -> Record:
    """Return the row for a message."""
    return Record(
        message.number,
        time.time(),
        message.message_id or "",
        message.exchange,
        message.routing_key,
        message.user_id,
        json.dumps(message.copies) if message.copies else NO_COPIES,
        message.method,
        message.properties,
        message.body,
        0,
        message.blamed,
    )


def message_of(key: Key, row: Record, loop: asyncio.AbstractEventLoop) -> Message:
    """Make a message from a row; its publish has ended, or belongs to another process."""
    copies = tuple((name, tuple(keys)) for name, keys in json.loads(row.copies)) if row.copies != NO_COPIES else ()
    return Message.restored(
        loop.create_future(),
        key,
        row.message_id,
        (row.exchange, row.routing_key, row.user_id, copies),
        (row.method, row.properties, row.body),
        row.refusals,
    )
