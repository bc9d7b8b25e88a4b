"""What RabbitMQ would close a channel or connection over, although AMQP 0-9-1 can encode it.

RabbitMQ's own checks on a publish, in their order, from ``rabbit_channel``, ``rabbit_basic`` and ``mc_amqpl`` of 3.10,
4.0 and 4.3, with the reply code of the close, and how this client deals with them:

=====================================================  ====  ==========================================================
a publish that                                         code  is handled
=====================================================  ====  ==========================================================
is larger than ``max_message_size``                    406   here: `Link.body_limit`; a lower limit of the operator's is
                                                             learnt from the first refusal, for that connection
goes to an exchange that the user may not write to     403   checked before (`check`), once for each exchange; "" is
                                                             asked about once it was refused
goes to an exchange that does not exist                404   asked before, once for each exchange
goes to an internal exchange                           403   asked before, once for each exchange
has a topic that the user may not write to, as         403   bounded: where it happened, RabbitMQ is asked about each
routing key or (from 4.0) in CC or BCC                       routing key of that exchange from then on
has a ``user_id`` of another user                      406   asked before, once for each exchange and user id
has an ``expiration`` that is not a number, or         406   refused here: `encoding`
negative, or above 2^32 - 1
has ``amq.rabbitmq.reply-to`` as ``reply_to``          406   refused here: there is no consumer on the client's channel
has a header CC or BCC that is not an array            406   refused here, as is an array with anything but str, which
                                                             RabbitMQ drops silently
goes through exchange "" to a direct reply-to queue    541   refused here: the client cannot know whether it still
that it cannot decode, or of a node that is gone,            exists; only 4.3 returns such a message
by routing key, CC or BCC
has an ``x-death`` that RabbitMQ never wrote           -     refused here: dead-lettering it ends the queue's process
                                                             (seen on 3.10.8), which nacks messages on their way there
has an ``x-stream-filter-value`` that is no short      541   refused here, though it is harmless to queues that are no
str, and goes to a stream (seen on 4.3.6)                    stream
has an ``x-amqp-1.0-…`` header or the ``type``         541   refused here: RabbitMQ decodes them as AMQP 1.0. A classic
amqp-1.0, and goes to a stream (seen on 4.3.6)               queue that dead-letters to a stream ends over them
has an ``x-basic-…`` header, and goes to a stream      -     refused here: RabbitMQ makes properties of them, over which
(seen on 3.10.8 and 4.3.6)                                   it closes the connection of whoever reads that message
has an id of ``urn:uuid:`` and 36 octets that are no   541   refused here, though 4.3.6 takes it
UUID, and goes to a stream (read in 3.13 to 4.3.5)
has so many routes in CC and BCC that routing them     -     bounded: the settings max_routes and max_routes_size
takes seconds
has a `decimal.Decimal` as header, and goes to a       541   refused here, though it is harmless to other queues: what
stream (seen on 3.10.8; 4.0 reads alike)                     is bound to an exchange is not known here
has ``immediate``                                      540   not offered
has properties or headers that it cannot parse         541   refused here: `encoding`
has headers of many levels                             -     refused here: pika, too, decodes them level by level when
                                                             RabbitMQ returns the message
has a header larger than a frame                       501   refused here: `Link.header_limit`
has a ``delivery_mode`` other than 1 or 2, or a        -     refused here, for the sake of consumers
``priority`` above 255
is refused in more than 255 octets of words, because   541   bounded: a question that cost the connection is not asked
of a long name that is not ASCII (from 4.3)                  again for a while (`exchanges`)
=====================================================  ====  ==========================================================

Plugins may check more. Whatever else closes a channel, at most the messages in flight are lost.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sprockets_amqp.errors import InvalidMessage
from sprockets_amqp.settings import Settings

#: The pseudo queue of RabbitMQ's direct reply-to; followed by a full stop, it begins the name of a consumer's queue.
REPLY_QUEUE: Final = "amq.rabbitmq.reply-to"
_ABOUT_REPLY_QUEUES: Final = "names a direct reply-to queue, over which RabbitMQ may close the connection"
#: The headers from which RabbitMQ takes further routing keys.
ROUTING_HEADERS: Final = ("CC", "BCC")
Copies = tuple[tuple[str, tuple[str, ...]], ...]
#: pika encodes a key that is bytes like a str.
_ROUTING_KEYS: Final[tuple[str | bytes, ...]] = (*ROUTING_HEADERS, *(name.encode() for name in ROUTING_HEADERS))
_DEATHS: Final = ("x-death", b"x-death")
_FILTERS: Final = ("x-stream-filter-value", b"x-stream-filter-value")
_READ: Final = frozenset((*_ROUTING_KEYS, *_DEATHS, *_FILTERS))
#: How the names of headers begin that RabbitMQ writes when it converts a message between protocols, and reads again.
_CONVERTED: Final = (b"x-amqp-1.0-", b"x-basic-")
#: The type with which RabbitMQ marks a body that is encoded as in AMQP 1.0.
_AMQP_1: Final = "amqp-1.0"
URN: Final = "urn:uuid:"
_UUID: Final = re.compile(r"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_UUID_SIZE: Final = 45
#: Octets of the value by which streams filter.
FILTER_LIMIT: Final = 4096
#: What RabbitMQ itself writes into each entry of x-death: it relies on these types when it dead-letters a message.
_DEATH_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "count": int,
    "exchange": str,
    "queue": str,
    "reason": str,
    "routing-keys": list,
    "original-expiration": str,
    "time": (int, datetime),
}
#: How many levels headers may have: consumers often decode them by recursion.
LEVEL_LIMIT: Final = 100
#: Most headers hold only these types.
_HARMLESS: Final = frozenset((str, int, bool, float, bytes, type(None)))


def check_reply_to(value: object) -> None:
    """Raise InvalidMessage for the pseudo queue: RabbitMQ requires a consumer of it on the publish's channel."""
    if value == REPLY_QUEUE:
        raise InvalidMessage(
            "reply_to", f"cannot be {REPLY_QUEUE}: direct reply-to needs a consumer on the client's own channel"
        )


def check_address(exchange: str, routing_key: str) -> None:
    """Raise InvalidMessage for a routing key that the default exchange takes for a direct reply-to queue."""
    if not exchange and _is_reply_queue(routing_key):
        raise InvalidMessage("routing_key", _ABOUT_REPLY_QUEUES)


def check_type(value: object) -> None:
    """Raise InvalidMessage for a type that makes RabbitMQ decode the body."""
    if value == _AMQP_1:
        raise InvalidMessage("type", f"cannot be {_AMQP_1}: RabbitMQ would decode the body as AMQP 1.0")


def check_id(name: str, value: str) -> None:
    """Raise InvalidMessage for an id after urn:uuid: that RabbitMQ takes for a UUID, and is none."""
    if len(value.encode(errors="replace")) == _UUID_SIZE and not _UUID.fullmatch(value):
        raise InvalidMessage(name, f"must have a UUID after urn:uuid:, not {value!r}")


def check_names(headers: Mapping[Any, object]) -> None:
    """Raise InvalidMessage for headers that RabbitMQ itself reads, if it could not read their values."""
    if _READ.isdisjoint(headers):
        return
    for name in _ROUTING_KEYS:
        if name in headers:
            _check_routes(_text(name), headers[name])
    for name in _DEATHS:
        if name in headers:
            _check_deaths(headers[name])
    for name in _FILTERS:
        if name in headers:
            _check_filter(headers[name])


def check_converted(headers: Mapping[Any, object]) -> None:
    """Raise InvalidMessage for headers that RabbitMQ writes itself, when it converts a message."""
    for name in headers:
        octets = name if isinstance(name, bytes) else str.encode(name)
        if octets.startswith(_CONVERTED):
            raise InvalidMessage("headers", f"have {octets.decode(errors='replace')}, which RabbitMQ writes itself")


def _check_routes(name: str, routes: object) -> None:
    if not isinstance(routes, list) or not all(isinstance(route, str) for route in routes):
        raise InvalidMessage("headers", f"must have a list of str as {name}, not {_kind(routes)}")
    if any(map(_is_reply_queue, routes)):
        raise InvalidMessage("headers", f"have a {name} that {_ABOUT_REPLY_QUEUES}")


def _check_deaths(deaths: object) -> None:
    """Refuse an x-death that RabbitMQ did not write, because dead-lettering would fail over it."""
    if isinstance(deaths, list) and not all(isinstance(death, dict) and _is_death(death) for death in deaths):
        raise InvalidMessage("headers", "must have a list of dict as x-death, each with an int as count")


def _is_death(death: Mapping[Any, object]) -> bool:
    for name, value in death.items():
        expected = _DEATH_TYPES.get(_text(name) if isinstance(name, bytes) else name)
        # A bool is an int in Python, and none in AMQP.
        if expected is None:
            continue
        if isinstance(value, bool) or not isinstance(value, expected):
            return False
        if isinstance(value, list) and not all(isinstance(each, str) for each in value):
            return False
    return True


def _check_filter(value: object) -> None:
    """Refuse what a stream cannot filter by: RabbitMQ 4.3 closes the connection over it."""
    if not isinstance(value, str) or len(value.encode(errors="replace")) > FILTER_LIMIT or "\0" in value:
        raise InvalidMessage(
            "headers", f"must have a str of at most {FILTER_LIMIT} octets without NUL as x-stream-filter-value"
        )


def check_values(table: Mapping[Any, object] | list[object], level: int = 1) -> None:
    """Raise InvalidMessage for headers of too many levels, or a Decimal: a stream that gets one ends the connection."""
    if level > LEVEL_LIMIT:
        raise InvalidMessage("headers", f"have more than {LEVEL_LIMIT} levels: send the structure as JSON in the body")
    values = table if isinstance(table, list) else table.values()
    if _HARMLESS.issuperset(map(type, values)):
        return
    for value in values:
        if isinstance(value, (dict, list)):
            check_values(value, level + 1)
        elif isinstance(value, Decimal):
            raise InvalidMessage(
                "headers",
                "hold a Decimal, over which RabbitMQ closes the connection if a stream is bound: send a str instead",
            )


def copies(headers: Mapping[Any, Any]) -> Copies:
    """Return the further routing keys in headers that have been checked: each header's name, and what it lists."""
    if _READ.isdisjoint(headers):
        return ()
    return tuple((_text(name), tuple(headers[name])) for name in _ROUTING_KEYS if name in headers)


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode()


def _is_reply_queue(routing_key: str) -> bool:
    return routing_key.startswith(f"{REPLY_QUEUE}.")


def _kind(value: object) -> str:
    if not isinstance(value, list):
        return type(value).__name__
    return f"a list with {next(type(each).__name__ for each in value if not isinstance(each, str))}"


def check_copies(copies: Copies, settings: Settings) -> InvalidMessage | None:
    """Return what is wrong with the routes in CC and BCC: too many keep RabbitMQ busy for seconds."""
    routes = [route for _, its_routes in copies for route in its_routes]
    size = sum(len(route.encode()) for route in routes)
    if len(routes) > settings.max_routes:
        problem = f"have {len(routes)} routes in CC and BCC, more than {settings.max_routes} (max_routes)"
    elif size > settings.max_routes_size:
        limit = settings.max_routes_size
        problem = f"have {size} octets of routes in CC and BCC, more than {limit} (max_routes_size)"
    else:
        return None
    return InvalidMessage("headers", problem)
