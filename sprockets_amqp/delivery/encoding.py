"""The AMQP encoding of a publish: Basic.Publish, the properties of the content header, the body.

When RabbitMQ refuses a publish, it closes the channel under every other message in flight. So what can be recognised
here is refused here; `validation` lists RabbitMQ's checks. The rest is encoded byte for byte as pika does (AMQP 0-9-1,
sections 4.2.5 and 4.2.6), and at once: that is faster than pika's general encoder, and takes less memory while a
message waits.
"""

import functools
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

from pika.delivery_mode import DeliveryMode
from pika.spec import BasicProperties

from sprockets_amqp.errors import InvalidMessage
from sprockets_amqp.text import SHORT_STRING_LIMIT, plain, quoted, shown
from sprockets_amqp.wire.pika_insides import encode_value
from sprockets_amqp.wire.sending import FRAME_END

from .message_ids import new_message_id
from .validation import (
    URN,
    Copies,
    check_address,
    check_converted,
    check_id,
    check_names,
    check_reply_to,
    check_type,
    check_values,
    copies,
)

Encoder = Callable[[Any], bytes]

#: RabbitMQ closes the channel over an expiration above 2^32 - 1 milliseconds.
EXPIRATION_LIMIT: Final = 4_294_967_295

#: How many levels of nested headers are named.
NAMED_DEPTH: Final = 5

#: Stands for a message_id that was not given. None leaves the property out.
FILLED_IN: Final = object()

_OCTETS: Final = [bytes((n,)) for n in range(256)]
_pack_size: Final = struct.Struct(">I").pack
_pack_long_string: Final = struct.Struct(">cI").pack
_pack_method: Final = struct.Struct(">HHH").pack
_pack_flags: Final = struct.Struct(">H").pack
_pack_timestamp: Final = struct.Struct(">Q").pack


def encode_properties(
    timestamp: int | None = None,
    app_id: str | None = None,
    persistent: bool = False,
    /,
    *,
    message_id: Any = FILLED_IN,
    headers: Any = None,
    correlation_id: Any = None,
    **others: Any,
) -> tuple[str | None, str | None, Copies, bytes]:
    """Encode properties as the flags and list of a content header; those that are None are left out.

    An id is made where ``message_id`` is missing; ``timestamp``, ``app_id`` and, if it is to be persistent, a
    delivery_mode of 2 are used where ``others`` has none.
    Returns the message_id, the user_id, what `validation.copies` finds in the headers, and the octets.
    """
    if message_id is FILLED_IN:
        message_id = new_message_id()
    else:
        # A class of the application's may override anything, and errors name the message.
        message_id = str(message_id) if isinstance(message_id, UUID) else plain(message_id)
        if isinstance(message_id, str) and message_id.startswith(URN):
            check_id("message_id", message_id)
    has_id_alone = headers is None and correlation_id is None and message_id is not None
    own = _ID_ALONE if has_id_alone else (headers is not None, correlation_id is not None, message_id is not None)
    # What may be of a class of the application's may refer to anything: it is not kept.
    is_plain = not others or _PLAIN.issuperset(map(type, others.values()))
    encode = _encode_others if is_plain else _encode_others.__wrapped__
    user_id, start, middle, end, after = encode(own, timestamp, app_id, persistent, **others)
    if has_id_alone:
        return message_id, user_id, (), start + _encode_short_string("message_id", message_id) + after
    octets = b"".join(
        (
            start,
            b"" if headers is None else _encode_headers(headers),
            middle,
            b"" if correlation_id is None else _encode_id("correlation_id", correlation_id),
            end,
            b"" if message_id is None else _encode_short_string("message_id", message_id),
            after,
        )
    )
    return message_id, user_id, copies(headers) if headers else (), octets


#: The types of values that are remembered.
_PLAIN: Final = frozenset((str, int, bool, type(None), DeliveryMode, UUID))


@functools.lru_cache(maxsize=1024, typed=True)
def _encode_others(
    own: tuple[bool, bool, bool], timestamp: int | None, app_id: str | None, persistent: bool, /, **others: Any
) -> tuple[str | None, bytes, bytes, bytes, bytes]:
    """Return the user_id, and encode what messages have in common: the flags, and the properties around their own.

    ``own`` says which of `_OWN` a message has. Of the four parts, the first precedes them, and each of the others
    follows one; what would follow one that is missing is in the part before.
    """
    for name in others:
        if name not in _ENCODERS:
            raise _unknown(name)
    given = {"timestamp": timestamp, "app_id": app_id, "delivery_mode": 2 if persistent else None, **others}
    has = dict(zip(_OWN, own, strict=True))
    parts, part, flags = [b"", b"", b"", b""], 0, 0
    for index, (name, encode) in enumerate(_ENCODERS.items()):
        if has.get(name):
            part = _OWN.index(name) + 1
        elif name not in has and given.get(name) is not None:
            parts[part] += encode(given[name])
        else:
            continue
        flags |= 1 << (15 - index)
    start, middle, end, after = parts
    return plain(given.get("user_id")), _pack_flags(flags) + start, middle, end, after


@functools.lru_cache(maxsize=1024)
def encode_method(exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """Encode Basic.Publish as a method frame without its type and channel (sections 1.8.3.7 and 4.2.3).

    It is class 60, method 40, and reserved-1 is 0.
    """
    arguments = b"".join(
        (
            _pack_method(60, 40, 0),
            _encode_short_string("exchange", exchange),
            _encode_short_string("routing_key", routing_key),
            b"\x01" if mandatory else b"\x00",
        )
    )
    check_address(exchange, routing_key)
    return _pack_size(len(arguments)) + arguments + FRAME_END


def encode_body(body: object) -> bytes:
    """Return the body's octets, a str's as UTF-8; of what may change later, a copy."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        try:
            return bytes(body)
        except ValueError as error:
            raise InvalidMessage("body", f"cannot be read: {error}") from None
    if not isinstance(body, str):
        raise InvalidMessage("body", f"must be bytes or str, not {type(body).__name__}: encode it first")
    try:
        return body.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage("body", f"cannot be sent as UTF-8: {error.reason}") from None


def _encode_short_string(name: str, value: object) -> bytes:
    if not isinstance(value, str):
        raise InvalidMessage(name, f"must be a str, not {quoted(value)}")
    try:
        octets = value.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage(name, f"cannot be sent as UTF-8: {error.reason}") from None
    if len(octets) > SHORT_STRING_LIMIT:
        raise InvalidMessage(
            name, f"has {len(octets)} octets, more than AMQP's {SHORT_STRING_LIMIT}: {value[:40]!r}..."
        )
    return _OCTETS[len(octets)] + octets


def _encode_id(name: str, value: object) -> bytes:
    encoded = _encode_short_string(name, str(value) if isinstance(value, UUID) else value)
    if encoded.startswith(URN.encode(), 1):
        check_id(name, str(value))
    return encoded


def _encode_headers(value: object) -> bytes:
    if not isinstance(value, dict):
        raise InvalidMessage("headers", f"must be a dict, not {type(value).__name__}")
    check_names(value)
    encoded = _encode_table(value)
    if encoded is None:
        # Without a cause, because pika quotes the values, which may be secret and of any size.
        raise InvalidMessage("headers", f"hold a value that AMQP cannot encode: {_at_fault(value)}")
    if b"x-" in encoded:
        check_converted(value)
    check_values(value)
    return encoded


def _encode_table(table: dict[Any, Any]) -> bytes | None:
    pieces: list[bytes] = []
    try:
        for name, value in table.items():
            start = _encode_name(name if type(name) is str else plain(name))
            # Most values are str. pika encodes all others.
            if type(value) is str:
                octets = value.encode()
                pieces += (start, _pack_long_string(b"S", len(octets)), octets)
            else:
                pieces.append(start)
                encode_value(pieces, value)
        encoded = b"".join(pieces)
        return _pack_size(len(encoded)) + encoded
    except Exception:
        # pika raises whatever packing raises: it always means a key or value that AMQP tables cannot hold.
        return None


@functools.lru_cache(maxsize=1024)
def _encode_name(name: str | bytes) -> bytes:
    octets = name if isinstance(name, bytes) else name.encode()
    return _OCTETS[len(octets)] + octets


def _at_fault(headers: dict[Any, Any]) -> str:
    """Name the key and type of what cannot be encoded, some levels deep, and never a value."""
    path: list[str] = []
    value: Any = headers
    while isinstance(value, dict) and len(path) < NAMED_DEPTH:
        for key, each in value.items():
            if _encode_table({key: None}) is None:
                return ".".join([*path, f"a key that is {_kind(key)}"])
            if _encode_table({key: each}) is None:
                path.append(shown(repr(key), 80))
                value = each
                break
        else:
            # The table is too large as a whole, or was changed in the meantime.
            break
    return f"{'.'.join(path) or 'all of it'} is {_kind(value)}"


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "a str, too long or with lone surrogates"
    return f"of type {shown(type(value).__name__, 80)}"


def _encode_reply_to(value: object) -> bytes:
    check_reply_to(value)
    return _encode_short_string("reply_to", value)


def _encode_type(value: object) -> bytes:
    check_type(value)
    return _encode_short_string("type", value)


def _encode_delivery_mode(value: object) -> bytes:
    if isinstance(value, DeliveryMode):
        value = value.value
    if value not in (1, 2) or not isinstance(value, int):
        raise InvalidMessage("delivery_mode", f"must be 1 (transient) or 2 (persistent), not {quoted(value)}")
    return _OCTETS[value]


def _encode_priority(value: object) -> bytes:
    if not isinstance(value, int) or not 0 <= value <= 255:
        raise InvalidMessage("priority", f"must be an int from 0 to 255, not {quoted(value)}")
    return _OCTETS[value]


def _encode_expiration(value: object) -> bytes:
    # int() raises for thousands of digits.
    number = int(value) if isinstance(value, str) and _is_short_decimal(value) else -1
    if not 0 <= number <= EXPIRATION_LIMIT:
        raise InvalidMessage(
            "expiration", f"must be a str of milliseconds from '0' to '{EXPIRATION_LIMIT}', not {quoted(value)}"
        )
    # RabbitMQ returns it without leading zeros, and a returned message is recognised by its properties.
    return _encode_short_string("expiration", str(number))


def read_method(octets: bytes) -> tuple[str, str]:
    """Return the exchange and the routing key of a Basic.Publish that `encode_method` has encoded.

    Raises:
        ValueError: it has encoded something else: whatever that is, it must not be sent.
    """
    end = _METHOD_START + 1 + octets[_METHOD_START]
    exchange, routing_key = octets[_METHOD_START + 1 : end].decode(), octets[end + 1 : end + 1 + octets[end]].decode()
    if encode_method(exchange, routing_key, octets[-2] == 1) != octets:
        raise ValueError("it is not a Basic.Publish")
    return exchange, routing_key


def identify(octets: bytes) -> tuple[str | None, str | None, Copies]:
    """Return what `encode_properties` does besides the octets: the message_id, the user_id, and the copies."""
    flags, at = int.from_bytes(octets[:2]), 2
    found: dict[str, Any] = {}
    for bit, name in _BITS:
        if flags & bit:
            size = _SIZES.get(name) or 1 + octets[at]
            if name == "headers":
                size = 4 + int.from_bytes(octets[at : at + 4])
                if b"CC" in octets[at : at + size]:
                    found["copies"] = copies(BasicProperties().decode(octets).headers or {})
            elif name in {"message_id", "user_id"}:
                found[name] = octets[at + 1 : at + size].decode()
            at += size
    if flags & 1 or at != len(octets):
        raise ValueError("its properties are cut off, or more follows them")
    return found.get("message_id"), found.get("user_id"), found.get("copies", ())


def read_properties(properties: object) -> dict[str, Any]:
    """Return what a mapping holds; anything empty, such as a list, holds nothing. Raises InvalidMessage."""
    try:
        if isinstance(properties, Mapping):
            return dict(properties)
        if not properties:
            return {}
    except Exception as error:
        # It is the application's, and may raise anything.
        problem = f"cannot be read: {type(error).__name__}"
    else:
        problem = f"must be a dict of AMQP properties, not {type(properties).__name__}"
    raise InvalidMessage("properties", problem) from None


def unusable(properties: Mapping[Any, Any] | None, **given: object) -> InvalidMessage | None:
    """Return the error about what made a call here raise something else, or None if it was none of this.

    Properties are passed by name, and the caches cannot look up a value that is not hashable.
    """
    for name in properties or ():
        if name not in PROPERTY_NAMES:
            return _unknown(name)
    for name, value in {**(properties or {}), "headers": None, **given}.items():
        try:
            hash(value)
        except Exception:
            return InvalidMessage(name, f"cannot be {quoted(value)}")
    for name, value in {**(properties or {}), **given}.items():
        if type(value) not in _BUILT_IN:
            # Its class may override anything, and raise in it.
            return InvalidMessage(name, "cannot be used: its class raised an error")
    return None


_BUILT_IN: Final = frozenset((str, bytes, bytearray, memoryview, int, float, bool, dict, list, tuple, type(None)))


def _unknown(name: object) -> InvalidMessage:
    return InvalidMessage("properties", f"have no {quoted(name)}; AMQP's are {', '.join(PROPERTY_NAMES)}")


def _is_short_decimal(value: str) -> bool:
    return value.isascii() and value.isdecimal() and len(value) <= SHORT_STRING_LIMIT


def _encode_timestamp(value: object) -> bytes:
    if not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise InvalidMessage("timestamp", f"must be an int of seconds since 1970, not {quoted(value)}")
    return _pack_timestamp(value)


def _short_string(name: str) -> Encoder:
    return functools.partial(_encode_short_string, name)


#: The properties of class basic in the order of section 1.8.3: the first has the highest flag.
_ENCODERS: Final[dict[str, Encoder]] = {
    "content_type": _short_string("content_type"),
    "content_encoding": _short_string("content_encoding"),
    "headers": _encode_headers,
    "delivery_mode": _encode_delivery_mode,
    "priority": _encode_priority,
    "correlation_id": functools.partial(_encode_id, "correlation_id"),
    "reply_to": _encode_reply_to,
    "expiration": _encode_expiration,
    "message_id": functools.partial(_encode_id, "message_id"),
    "timestamp": _encode_timestamp,
    "type": _encode_type,
    "user_id": _short_string("user_id"),
    "app_id": _short_string("app_id"),
    "cluster_id": _short_string("cluster_id"),
}
PROPERTY_NAMES: Final = tuple(_ENCODERS)
#: What messages have of their own, mostly the last alone; the other properties repeat.
_OWN: Final = ("headers", "correlation_id", "message_id")
_ID_ALONE: Final = (False, False, True)
#: The flag of each property, and the octets of those that are no strings.
_BITS: Final = tuple((1 << (15 - index), name) for index, name in enumerate(PROPERTY_NAMES))
_SIZES: Final = {"delivery_mode": 1, "priority": 1, "timestamp": 8, "headers": 4}
#: Where the exchange is in a method frame: after its size, class and method, and reserved-1.
_METHOD_START: Final = 10
