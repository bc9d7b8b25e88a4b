"""The rows of the table, in both versions: each message is one blob in the second, and was ten columns in the first.

Files of version 1.1 of this package are read and emptied; they are written for those who go back to it.
"""

import json
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

from sprockets_amqp.outbox.store import Record, checksum, pack, unpack

VERSION: Final = 2
#: The definitions of the table.
TABLES: Final = {
    1: """\
CREATE TABLE messages (
    number INTEGER PRIMARY KEY, stored_at REAL NOT NULL, message_id TEXT NOT NULL, exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL, user_id TEXT, copies TEXT NOT NULL, method BLOB NOT NULL, properties BLOB NOT NULL,
    body BLOB NOT NULL, checksum INTEGER NOT NULL, refusals INTEGER NOT NULL DEFAULT 0, set_aside TEXT
)""",
    VERSION: """\
CREATE TABLE messages (
    number INTEGER PRIMARY KEY, message BLOB NOT NULL, checksum INTEGER NOT NULL,
    refusals INTEGER NOT NULL DEFAULT 0, set_aside TEXT
)""",
}
#: What of a message counts towards the limit, besides what each does.
SIZES: Final = {1: "length(body) + length(properties) + length(method)", VERSION: "length(message) - 14"}

_pack_place: Final = struct.Struct(">qd?").pack


def insert(version: int) -> tuple[str, str]:
    """Return the statement that stores rows, and what stands in it for each."""
    return "INSERT OR REPLACE INTO messages VALUES {}", f"({', '.join('?' * COLUMNS[version])})"


def _read_1(found: tuple[Any, ...]) -> Record:
    number, stored_at, *words, user_id, copies, method, properties, body, summed, refusals, set_aside = found
    message, is_whole = b"", False
    try:
        message = pack(stored_at, method, properties, body)
        sent = zlib.crc32(b"".join((b"\0".join((*words, user_id or b"", copies)), method, properties, body)))
        # Later versions of 1.1 sum up more.
        is_whole = summed in {sent, zlib.crc32(_pack_place(number, stored_at, user_id is None), sent)}
    except (TypeError, struct.error):
        pass
    return Record(number, message, checksum(number, message) if is_whole else -1, refusals, _decoded(set_aside))


def values_1(record: Record) -> tuple[Any, ...]:
    """Return a record's values in the first version. Raises ValueError if it is no longer what was stored."""
    stored_at, message = unpack(record.message)
    copies = json.dumps(message.copies)
    names = (message.message_id or "", message.exchange, message.routing_key)
    words = "\0".join((*names, message.user_id or "", copies)).encode(errors="surrogatepass")
    octets = message.method, message.properties, message.body
    summed = zlib.crc32(b"".join((words, *octets)))
    return (
        record.number,
        stored_at,
        *names,
        message.user_id,
        copies,
        *octets,
        summed,
        record.refusals,
        record.set_aside,
    )


def _read(found: tuple[Any, ...]) -> Record:
    *values, set_aside = found
    return Record._make((*values, _decoded(set_aside)))


def _decoded(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        # It is no longer what was stored.
        return value


#: Makes a record of what SQLite has found, where texts are octets; a disk may have changed anything of it.
READERS: Final[dict[int, Callable[[tuple[Any, ...]], Record]]] = {1: _read_1, VERSION: _read}
COLUMNS: Final = {1: 13, VERSION: len(Record._fields)}
