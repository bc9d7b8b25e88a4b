"""What RabbitMQ says, the broker in memory says in the same words: the same calls on both, one after the other."""

import asyncio
import os
import random
import re
from collections.abc import Callable
from typing import Any, Final, Protocol

import pytest

from sprockets_amqp.testing import Broker
from tests.support.line import Line
from tools.rabbitmq import Node, version

pytestmark = pytest.mark.xdist_group("kit_scenarios")

#: A verb of pika's channel, or of `Scene`, and its arguments.
Call = tuple[str, dict[str, Any]]
#: Arguments with names, which are the scenario's own, unless they are RabbitMQ's.
NAMES: Final = {"exchange", "queue", "source", "destination"}
ARGUMENTS: Final = {"alternate-exchange", "x-dead-letter-exchange", "x-dead-letter-routing-key"}
#: How many scenarios RabbitMQ sees at the same time.
AT_ONCE: Final = 16


#: How many scripts at random, and of how many calls; CI's are the same in each run.
SCRIPTS: Final = int(os.environ.get("KIT_SCRIPTS", "12"))
CALLS: Final = 80
#: Seconds that a message may take from one queue to another.
DELIVERY_LIMIT: Final = 10.0
#: The queue for messages that have died.
DEAD: Final = "dead"


def call(verb: str, **arguments: Any) -> Call:
    """A call."""
    return verb, arguments


def exchange(name: str = "e", kind: str = "direct", **properties: Any) -> Call:
    """Declare an exchange."""
    return call("exchange_declare", exchange=name, exchange_type=kind, **properties)


def queue(name: str = "q", *, on: str = "one", **properties: Any) -> Call:
    """Declare a queue."""
    return call("queue_declare", queue=name, on=on, **properties)


def typed(kind: str, name: str = "q", **properties: Any) -> Call:
    """Declare a queue of a type."""
    return queue(name, **{"durable": True, "arguments": {"x-queue-type": kind}, **properties})


def limited(name: str = "q", **arguments: Any) -> Call:
    """Declare a queue with arguments, whose names have dashes."""
    return queue(name, arguments={name.replace("_", "-"): value for name, value in arguments.items()})


def dying(name: str = "q", to: str = "", key: str | None = "dead", **arguments: Any) -> Call:
    """Declare a queue from which messages are dead-lettered."""
    keys = {} if key is None else {"x_dead_letter_routing_key": key}
    return limited(name, x_dead_letter_exchange=to, **keys, **arguments)


def bind(name: str = "q", to: str = "e", key: str = "k", **arguments: Any) -> Call:
    """Bind a queue."""
    return call("queue_bind", queue=name, exchange=to, routing_key=key, **arguments)


def unbind(name: str = "q", to: str = "e", key: str = "k", **arguments: Any) -> Call:
    """Unbind a queue."""
    return call("queue_unbind", queue=name, exchange=to, routing_key=key, **arguments)


def chain(destination: str, source: str, key: str = "", verb: str = "exchange_bind") -> Call:
    """Bind an exchange."""
    return call(verb, destination=destination, source=source, routing_key=key)


def publish(to: str = "", key: str = "q", body: bytes = b"", **properties: Any) -> Call:
    """Publish a message, to a queue unless to an exchange."""
    return call("publish", exchange=to, routing_key=key, body=body, properties=properties)


def delete(name: str = "q", **arguments: Any) -> Call:
    """Delete a queue."""
    return call("queue_delete", queue=name, **arguments)


def by_headers(how: Any, *headers: dict[str, Any], **wanted: Any) -> list[Call]:
    """Publish messages with these headers to an exchange with a binding."""
    arguments = wanted if how is None else {"x-match": how, **wanted}
    bound, unbound = (verb(to="h", key="", arguments=arguments) for verb in (bind, unbind))
    published = [publish("h", "", headers=each) for each in headers]
    return [exchange("h", "headers"), queue(), bound, *published, unbound]


def refused(*patterns: str, topics: dict[str, str] | None = None) -> Call:
    """Let the user configure, write to and read what matches patterns, and certain topics of an exchange."""
    return call("permit", patterns=patterns, topics=topics or {})


ALTERNATE: Final = {"alternate-exchange": "amq.fanout"}
WAIT: Final = call("wait")

SCENARIOS: Final[dict[str, list[Call]]] = {
    # Exchanges
    "declared twice": [exchange(durable=True), exchange(durable=True)],
    "another type": [exchange(), exchange(kind="fanout")],
    "another durability": [exchange(durable=True), exchange()],
    "auto-delete or not": [exchange(), exchange(auto_delete=True)],
    "internal or not": [exchange(), exchange(internal=True)],
    "another argument": [exchange(), exchange(arguments=ALTERNATE)],
    "an argument less": [exchange(arguments=ALTERNATE), exchange()],
    "an argument's other value": [exchange(arguments=ALTERNATE), exchange(arguments={"alternate-exchange": "other"})],
    "an argument that nobody knows": [exchange(), exchange(arguments={"colour": "red"})],
    "an argument of another type": [exchange(arguments={"alternate-exchange": 5})],
    "a reserved name": [exchange("amq.mine")],
    "RabbitMQ's own, as it is": [exchange("amq.topic", "topic", durable=True)],
    "RabbitMQ's own, otherwise": [exchange("amq.topic", "fanout", durable=True)],
    "the default exchange": [exchange("", durable=True), exchange("", passive=True)],
    "an unknown type": [exchange(kind="funny")],
    "no type": [exchange(kind="")],
    "an unknown type of what is there": [exchange(), exchange(kind="funny")],
    "passive": [exchange(), exchange(passive=True), exchange("nothing", passive=True)],
    "passive, of another type": [exchange(), exchange(kind="fanout", passive=True)],
    "deleted": [exchange(), call("exchange_delete", exchange="e"), exchange(passive=True)],
    "deleted, and not there": [call("exchange_delete", exchange="e")],
    "deleted, and RabbitMQ's own": [
        call("exchange_delete", exchange="amq.topic"),
        call("exchange_delete", exchange=""),
    ],
    "deleted if unused": [
        *(exchange(), queue(), bind(), call("exchange_delete", exchange="e", if_unused=True)),
        *(delete(), call("exchange_delete", exchange="e", if_unused=True)),
    ],
    "goes with its last binding": [
        *(exchange(auto_delete=True), queue(), bind(), bind(key="l"), unbind(), exchange(passive=True)),
        *(unbind(key="l"), exchange(passive=True)),
    ],
    "goes with its last queue": [exchange(auto_delete=True), queue(), bind(), delete(), exchange(passive=True)],
    "goes with the last exchange behind it": [
        *(exchange(auto_delete=True), exchange("f"), chain("f", "e")),
        *(call("exchange_delete", exchange="f"), exchange(passive=True)),
    ],
    # Bindings
    "bound to nothing": [queue(), bind(to="nothing"), bind("nothing"), bind("nothing", "nowhere"), bind(to="")],
    "exchanges bound to nothing": [
        *(exchange(), chain("nothing", "e"), chain("e", "nothing"), chain("", "e"), chain("e", "")),
    ],
    "unbound": [
        *(exchange(), queue(), bind(), publish("e", "k"), unbind(key="other"), unbind("nothing")),
        *(unbind(to="nothing"), unbind(to=""), publish("e", "k"), unbind(), publish("e", "k")),
    ],
    "exchanges unbound": [
        *(exchange(), exchange("f"), queue(), bind(to="f"), chain("f", "e", verb="exchange_unbind")),
        *(chain("f", "e", "k"), publish("e", "k"), chain("f", "e", "k", verb="exchange_unbind"), publish("e", "k")),
    ],
    "by the words of a topic": [
        *(exchange("t", "topic"), queue(), bind(to="t", key="a.*.#.z")),
        *(publish("t", key) for key in ("a.z", "a.b.z", "a..z", "a.b.c.z", "a.b.c", "z", "")),
    ],
    "internal": [exchange(internal=True), publish("e"), exchange("f", "fanout"), publish("f")],
    "internal, behind another": [
        *(exchange("f", internal=True), queue(), bind(to="f"), exchange(), chain("f", "e", "k"), publish("e", "k")),
    ],
    "RabbitMQ's own internal one": [publish("amq.rabbitmq.trace")],
    "an alternate exchange": [
        *(exchange("f", "fanout"), queue(), bind(to="f"), queue("r")),
        *(exchange(arguments={"alternate-exchange": "f"}), bind("r"), publish("e", "k"), publish("e", "other")),
    ],
    "an alternate exchange that is not there": [exchange(arguments={"alternate-exchange": "nothing"}), publish("e")],
    "alternate exchanges in a circle": [
        exchange(arguments={"alternate-exchange": "f"}),
        exchange("f", arguments={"alternate-exchange": "e"}),
        publish("e"),
    ],
    "an alternate exchange, beside an exchange that is bound": [
        *(exchange("f", "fanout"), queue(), bind(to="f"), exchange("g")),
        *(exchange(arguments={"alternate-exchange": "f"}), publish("e", "k"), chain("g", "e", "k"), publish("e", "k")),
    ],
    "all headers": by_headers("all", {"a": 1}, {"a": 1, "b": "x"}, {"a": "1", "b": "x"}, {"c": 1}, a=1, b="x"),
    "all headers, by default": by_headers(None, {"a": 1}, {"a": 1, "b": "x", "c": 2}, a=1, b="x"),
    "any header": by_headers("any", {"a": 1}, {"a": 2}, {"b": "x"}, {}, a=1, b="x"),
    "a header of any value": by_headers("any", {"a": 1}, {"a": None}, {"b": 1}, a=None),
    "headers of a size": by_headers("all", {"a": 2**40}, {"a": 1}, a=2**40),
    "no headers": [*by_headers("all", {"a": 1}, {}), *by_headers("any", {"a": 1}, {})],
    "headers of other types": [
        *by_headers("any", {"a": True}, {"a": 1}, {"a": {"b": True}}, a=1),
        *by_headers("all", {"a": {"b": True}}, {"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, a={"b": 1}),
    ],
    "bindings of other types": [
        *(exchange("h", "headers"), queue(), bind(to="h", arguments={"a": 1}), bind(to="h", arguments={"a": True})),
        *(unbind(to="h", arguments={"a": 1}), publish("h", headers={"a": True}), publish("h", headers={"a": 1})),
    ],
    "headers with x-": [
        *by_headers("all", {"x-a": 1}, {"x-a": 2}, **{"x-a": 1}),
        *by_headers("any-with-x", {"x-a": 2}, {"x-a": 1}, **{"x-a": 1}),
    ],
    "headers in another way": [*by_headers("some"), *by_headers(5)],
    # Queues
    "a reserved queue": [queue("amq.mine"), queue("amq.mine", passive=True)],
    "a passive queue": [queue(passive=True), queue(), publish(), queue(passive=True), queue("", passive=True)],
    "a queue declared twice": [queue(), publish(), queue()],
    "a queue of another durability": [queue(durable=True), queue()],
    "a queue that deletes itself or not": [queue(), queue(auto_delete=True), queue(passive=True)],
    "a queue with another argument": [queue(), limited(x_max_length=5), limited(colour="red")],
    "a queue with an argument less": [limited(x_max_length=5), queue()],
    "a queue with an argument's other value": [limited(x_max_length=5), limited(x_max_length=6)],
    "a queue with two other arguments": [
        dying(to="e", x_message_ttl=100000, x_max_length=5),
        *(limited(x_max_length=6, x_message_ttl=1), dying(to="f", x_message_ttl=1), queue(durable=True)),
        limited(x_max_length=-1),
    ],
    "a queue with other texts and truths": [
        *(limited(x_overflow="drop-head"), limited(x_overflow="reject-publish"), queue()),
        *(limited("r", x_single_active_consumer=True), queue("r"), limited("r", x_single_active_consumer=False)),
    ],
    "bad times": [
        *(limited(x_message_ttl=value) for value in (-1, "a", True, [1], 315_360_000_001)),
        *(limited(x_expires=value) for value in (0, -1, "s", 315_360_000_001)),
        limited(x_message_ttl=315_360_000_000),
    ],
    "bad lengths": [
        *(limited(x_max_length=value) for value in (-1, "5", {"a": 1})),
        *(limited(x_max_length_bytes=-1), limited(x_max_priority=-1), limited(x_max_priority=256)),
    ],
    "bad words": [
        *(limited(x_overflow="funny"), limited(x_overflow=5), limited(x_single_active_consumer="a")),
        *(dying(key=5), limited(x_dead_letter_exchange=5), limited(x_dead_letter_exchange=None)),  # type: ignore[arg-type]
        limited(x_dead_letter_routing_key="a"),
    ],
    "bad ways": [
        *(limited(x_queue_version=value) for value in (7, "a", -1)),
        *(typed("stream", arguments={"x-queue-type": "stream", "x-max-age": value}) for value in ("1x", 5)),
    ],
    "several bad arguments": [limited(x_max_length=-1, x_overflow="funny", x_message_ttl=-1, x_expires=0)],
    "what a type of queue does not take": [
        *(limited(x_max_age="1h"), limited(x_delivery_limit=5)),
        *(typed(kind, arguments={"x-queue-type": kind, "x-max-priority": 5}) for kind in ("quorum", "stream")),
        typed("stream", arguments={"x-queue-type": "stream", "x-message-ttl": 5}),
    ],
    "types of queues": [typed("quorum"), queue(durable=True), typed("stream"), typed("classic", "c")],
    "a quorum queue is not deleted if": [
        *(typed("quorum"), delete(if_empty=True), delete(if_unused=True), publish(), queue(durable=True, passive=True)),
        delete(),
    ],
    "nobody counts what is in a stream": [typed("stream"), publish(), delete()],
    "classic, by default": [queue(durable=True), typed("classic"), typed("quorum")],
    "classic, and said so": [typed("classic"), queue(durable=True)],
    "types that nobody knows": [typed("funny"), typed(5)],  # type: ignore[arg-type]
    **{
        f"a {kind} queue of a classic kind": [
            *(typed(kind, durable=False), typed(kind, exclusive=True), typed(kind, auto_delete=True), typed(kind, "")),
        ]
        for kind in ("quorum", "stream")
    },
    "a name by the server": [
        *(call("queue_delete", queue=""), call("queue_purge", queue=""), bind(""), unbind("")),
        *(exchange(), queue(""), bind("", key=""), publish("e"), call("queue_purge", queue=""), delete("")),
    ],
    "the last declared": [queue(), queue("r"), exchange(), bind(""), publish("e", "k"), queue(passive=True), bind("")],
    "exclusive": [
        *(queue(exclusive=True), queue(on="two", exclusive=True), queue(on="two", passive=True)),
        *(bind(to="amq.fanout", on="two"), delete(on="two"), call("queue_purge", queue="q", on="two")),
        *(publish(), queue(passive=True), queue(), queue(exclusive=True, durable=True)),
    ],
    "exclusive, and gone with its connection": [
        *(exchange(auto_delete=True), queue(exclusive=True), bind(), call("close")),
        *(queue(on="two", passive=True), exchange(passive=True)),
    ],
    "shared, and not exclusive": [queue(), queue(exclusive=True), queue(on="two", exclusive=True)],
    "deleted with its messages": [queue(), publish(), publish(), delete(if_empty=True), delete(), delete(), publish()],
    "purged": [queue(), publish(), publish(), call("queue_purge", queue="q"), call("queue_purge", queue="nothing")],
    "unused for some time": [limited(x_expires=200), queue("r"), WAIT, queue(passive=True)],
    # Messages
    "a foreign user": [queue(), *(publish(user_id=name) for name in ("guest", "somebody", ""))],
    "bad expirations": [queue(), *(publish(expiration=each) for each in ("abc", "-1", "1.5", "", "315360000001"))],
    "copies": [
        *(queue(), queue("r"), exchange(), bind(key="one"), bind("r", key="two")),
        publish("e", "one", headers={"CC": ["two"]}),
        publish("e", "none", headers={"CC": ["one"], "BCC": ["two"], "a": 1}),
    ],
    "bad copies": [queue(), *(publish(headers={key: value}) for key in ("CC", "BCC") for value in ("x", 5, None))],
    "copies for numbers": [queue(), publish(headers={"CC": [1, "x"]})],
    "a large message": [publish("amq.direct", body=bytes(16 * 1024**2 + 1))],
    # Limits
    "the oldest is dropped": [limited(x_max_length=2), *(publish(body=b"%d" % n) for n in range(4))],
    "no room at all": [limited(x_max_length=0), publish()],
    "the oldest is dropped for octets": [
        limited(x_max_length_bytes=3),
        *(publish(body=b"1" * n) for n in (5, 2, 1, 0)),
    ],
    "the newest is nacked": [limited(x_max_length=1, x_overflow="reject-publish"), publish(body=b"1"), publish()],
    "the newest is nacked for octets": [
        limited(x_max_length_bytes=3, x_overflow="reject-publish"),
        *(publish(body=b"1" * n) for n in (2, 2, 1, 0)),
    ],
    "one queue nacks, and another takes": [
        *(limited(x_max_length=1, x_overflow="reject-publish"), queue("r"), exchange("f", "fanout")),
        *(bind(to="f"), bind("r", to="f"), publish("f"), publish("f")),
    ],
    "by priority": [limited(x_max_priority=5), *(publish(body=b"%d" % n, priority=n) for n in (1, 3, 2, 9, 7))],
    # Messages that expire and die
    "expired": [limited(x_message_ttl=100), publish(), queue("r"), publish(key="r", expiration="100"), WAIT],
    "expired at once": [limited(x_message_ttl=0), publish(), queue("r"), publish(key="r", expiration="0")],
    "the shorter time": [limited(x_message_ttl=100000), publish(expiration="100"), WAIT],
    "expired behind another": [
        *(queue(), publish(body=b"1"), publish(body=b"2", expiration="50"), WAIT, queue(passive=True)),
    ],
    "dropped and dead": [
        queue("dead"),
        dying(x_max_length=1),
        publish(body=b"1", headers={"a": 1}),
        publish(body=b"2"),
    ],
    "nacked and dead": [
        *(queue("dead"), dying(x_max_length=1, x_overflow="reject-publish-dlx")),
        *(publish(body=b"1"), publish(body=b"2")),
    ],
    "expired and dead": [
        *(queue("dead"), dying(x_message_ttl=50), publish(), dying("r"), publish(key="r", expiration="60"), WAIT),
    ],
    "dead with its own keys": [
        *(exchange("f", "fanout"), queue("dead"), bind("dead", to="f"), dying(to="f", key=None, x_max_length=0)),
        publish(headers={"CC": ["c"], "BCC": ["b"]}, expiration="100000"),
    ],
    "dead with another key": [queue("dead"), dying(x_max_length=0), publish(headers={"CC": ["c"], "BCC": ["b"]})],
    "dead twice": [
        *(queue("dead"), dying("r", x_max_length=0), dying(key="r", x_message_ttl=0), publish()),
    ],
    "dead twice in the same way": [
        *(queue("dead"), dying(key="r", x_message_ttl=20), dying("r", x_message_ttl=30), publish(), WAIT),
    ],
    "dead in a circle": [dying(key="q", x_message_ttl=20), publish(), WAIT],
    "dead in a larger circle": [dying(key="r", x_message_ttl=20), dying("r", key="q", x_max_length=0), publish(), WAIT],
    "dead, and nowhere to go": [dying(to="nothing", x_max_length=0), publish(), dying("r", x_max_length=0), publish()],
    "first dead": [queue("dead"), dying(x_max_length=0), publish(headers={"x-first-death-queue": "mine"})],
    "dead before": [queue("dead"), dying(x_max_length=0), publish(headers={"x-death": [{"queue": "dead"}]})],
    # Permissions
    "configuring": [
        *(refused("-e$", ".*", ".*"), exchange("f"), queue(), exchange("f", passive=True), queue("")),
        *(call("exchange_delete", exchange="f"), delete(), exchange(), exchange("amq.mine")),
    ],
    "writing": [
        *(refused(".*", "-w$", ".*"), exchange(), exchange("w"), queue(), queue("w"), bind(to="w"), chain("e", "w")),
        *(publish("e"), publish(), publish("nothing"), unbind(), bind("w"), exchange("a", arguments=ALTERNATE)),
        *(dying("d"), dying("d2", to="e"), bind("nothing"), publish("w")),
    ],
    "reading": [
        *(refused(".*", ".*", "-r$"), exchange(), queue(), queue("r"), exchange("r"), bind(), bind(to="r")),
        *(chain("r", "e"), exchange("a", arguments=ALTERNATE), dying("d"), call("queue_purge", queue="q")),
        call("queue_purge", queue="r"),
    ],
    "nothing at all": [refused("", "", ""), exchange(), publish("amq.topic")],
    "topics": [
        *(refused(".*", ".*", ".*", topics={"amq.topic": "^a"}), queue(), bind(to="amq.topic", key="b")),
        *(bind(to="amq.topic", key="a"), publish("amq.topic", "b"), publish("amq.topic", "a")),
        *(unbind(to="amq.topic", key="b"), exchange("t", "topic"), publish("t", "b"), publish("amq.direct", "b")),
        publish("amq.topic", "a", headers={"CC": ["copy"]}),
    ],
    # Virtual hosts
    "a virtual host that is not there": [call("enter", vhost="nowhere"), exchange()],
}


def at_random(seed: int) -> list[Call]:
    """Make calls at random, of those that depend on one another; no message dies twice, which takes its time."""
    draw = random.Random(seed)
    choose = draw.choice
    exchanges, queues, keys = ("e", "f", "g", "amq.nothing"), ("q", "r", "s"), ("k", "l.m", "q")
    arguments: dict[str, tuple[Any, ...]] = {
        "x-max-length": (0, 1, 2, "1"),
        "x-max-length-bytes": (3, 5),
        "x-overflow": ("reject-publish", "drop-head", "reject-publish-dlx", "funny"),
        "x-message-ttl": (100000,),
        "x-max-priority": (3,),
    }

    def some_queue() -> Call:
        its = {name: choose(values) for name, values in arguments.items() if draw.random() < 0.25}
        if draw.random() < 0.25:
            its |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD}
        properties = {name: draw.random() < 0.1 for name in ("durable", "auto_delete", "exclusive", "passive")}
        return queue(choose(queues), on=choose(("one", "one", "two")), arguments=its, **properties)

    def some_exchange() -> Call:
        its = {"alternate-exchange": choose(exchanges)} if draw.random() < 0.3 else None
        kind = choose(("direct", "fanout", "topic", "headers"))
        properties = {name: draw.random() < 0.1 for name in ("durable", "auto_delete", "internal", "passive")}
        return exchange(choose(exchanges), kind, arguments=its, **properties)

    def some_message() -> Call:
        headers = {name: value for name, value in (("a", 1), ("BCC", ["q", "l.m"])) if draw.random() < 0.2}
        properties = {"headers": headers, "priority": draw.randrange(5)}
        if draw.random() < 0.1:
            # One that expires behind another would go while the queue is emptied.
            properties["expiration"] = choose(("100000", "x"))
        to = choose(("", "", *exchanges))
        return publish(to, choose(queues if not to else keys), b"1" * draw.randrange(4), **properties)

    def some_binding() -> Call:
        how = {"x-match": choose(("any", "all")), "a": 1} if draw.random() < 0.2 else None
        return choose((bind, bind, bind, unbind))(
            choose(queues), choose(exchanges), choose((*keys, "#")), arguments=how
        )

    def some_chain() -> Call:
        verb = choose(("exchange_bind", "exchange_bind", "exchange_unbind"))
        return chain(choose(exchanges), choose(exchanges), choose((*keys, "#")), verb)

    def some_end() -> Call:
        name = choose(queues)
        ends = [delete(name, if_empty=True), delete(name), call("queue_purge", queue=name)]
        gone = call("exchange_delete", exchange=choose(exchanges), if_unused=draw.random() < 0.5)
        return choose((*ends, gone, call("close", on="two")))

    makers = (some_queue, some_exchange, some_message, some_binding, some_chain, some_end)
    return [queue(DEAD), *(make() for make in draw.choices(makers, (4, 3, 9, 5, 2, 1), k=CALLS))]


SCENARIOS.update({f"at random {seed}": at_random(seed) for seed in range(SCRIPTS)})

#: What RabbitMQ 3 says where RabbitMQ 4, and so the broker in memory, says something else.
BEFORE_4: Final = {
    r"channel closed: 406 PRECONDITION_FAILED - (\w+ exchange type '.*')": (
        r"connection closed: 503 COMMAND_INVALID - \1"
    ),
    r"inequivalent arg 'x-queue-type' (.*) received 'classic' but current is '(\w+)'": (
        r"inequivalent arg 'x-queue-type' \1 received none but current is the value '\2' of type 'longstr'"
    ),
    r"inequivalent arg 'x-queue-type' (.*) received '(\w+)' but current is 'classic'": (
        r"inequivalent arg 'x-queue-type' \1 received the value '\2' of type 'longstr' but current is none"
    ),
    r"channel closed: 406 PRECONDITION_FAILED - message size 16777217 is larger .*": "acked after 312 NO_ROUTE",
    r"channel closed: 403 ACCESS_REFUSED - (?:write )?access to topic 'copy' .*": "acked",
    r", \('x-last-death-\w+', '[^']*'\)": "",
}
#: What it says before 3.12.
BEFORE_3_12: Final = {r"(403 ACCESS_REFUSED -) (configure|write|read) access": r"\1 access"}
#: Where other messages are in the queues of RabbitMQ 3.
OTHERS_BEFORE_4: Final = {
    "topics": "what may not be written to counts for copies, too",
    "dead with another key": "the header CC stays",
    "dead before": "what an application puts into x-death is not believed",
}


class Seen:
    """What is seen on one side."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.contents: dict[str, list[object]] = {}


class Side(Protocol):
    """RabbitMQ, or the broker in memory."""

    async def permit(self, user: str, patterns: tuple[str, ...], topics: dict[str, str]) -> None: ...
    def url(self, user: str, vhost: str) -> str: ...


class Scene:
    """A scenario on one side, with names of its own."""

    def __init__(self, side: Side, number: int) -> None:
        self._side = side
        self._prefix = f"s{number}"
        self._user, self._vhost = "guest", "%2f"
        self._lines: dict[str, Line] = {}
        self.seen = Seen()
        #: The queues that were declared, and on which line.
        self.queues: dict[str, str] = {}
        self.streams: set[str] = set()
        self.exchanges: set[str] = set()

    async def perform(self, calls: list[Call], drain: Callable[["Scene", str], Any]) -> Seen:
        """Make the calls, and look what is in the queues then."""
        try:
            for verb, arguments in calls:
                own = {name: self._own(name, value) for name, value in arguments.items()}
                said = await getattr(self, f"_{verb}", self._call)(verb=verb, **own)
                self.seen.said.append(re.sub(r"amq\.gen-[\w-]+", "amq.gen-NAME", f"{verb}: {said}"))
            # Nobody gets messages out of a stream.
            for name in self.queues.keys() - self.streams:
                if (contents := await drain(self, name)) is not None:
                    self.seen.contents[name] = contents
        finally:
            for line in self._lines.values():
                await line.close()
        return self.seen

    def line(self, name: str = "one") -> Line:
        """Return a connection."""
        if name not in self._lines:
            self._lines[name] = Line(self._side.url(self._user, self._vhost))
        return self._lines[name]

    def _own(self, name: str, value: Any) -> Any:
        if name in NAMES:
            return self._named(value)
        if name == "arguments" and value:
            return {key: self._named(each) if key in ARGUMENTS else each for key, each in value.items()}
        return value

    def _named(self, name: Any) -> Any:
        own = isinstance(name, str) and name and not name.startswith("amq.")
        return f"{self._prefix}-{name}" if own else name

    @property
    def limited(self) -> bool:
        """Whether its user may not do everything."""
        return self._user == self._prefix

    async def _call(self, *, verb: str, on: str = "one", **arguments: Any) -> str:
        said = await self.line(on).call(verb, **arguments)
        if said != "ok":
            return said
        told = self.line(on).told
        if verb == "queue_declare":
            self.queues[told.queue] = on
            if (arguments.get("arguments") or {}).get("x-queue-type") == "stream":
                self.streams.add(told.queue)
        if verb == "exchange_declare" and not arguments.get("passive"):
            self.exchanges.add(arguments["exchange"])
        counts = [getattr(told, name) for name in ("message_count", "consumer_count") if hasattr(told, name)]
        return f"ok {counts}" if counts else "ok"

    async def _publish(self, *, verb: str, exchange: str, routing_key: str, body: bytes, properties: Any) -> str:
        key = routing_key if exchange else self._named(routing_key)
        return await self.line().publish(exchange, key, body, properties)

    async def _close(self, *, verb: str, on: str = "one") -> str:
        await self.line(on).close()
        return "closed"

    async def _wait(self, *, verb: str) -> str:
        await asyncio.sleep(0.4)
        return "later"

    async def _enter(self, *, verb: str, vhost: str) -> str:
        self._vhost = vhost
        return await self.line().open()

    async def _permit(self, *, verb: str, patterns: tuple[str, ...], topics: dict[str, str]) -> str:
        self._user = self._prefix
        await self._side.permit(self._user, patterns, topics)
        return "permitted"


def shown(method: Any, properties: Any, body: bytes) -> object:
    """Return what there is to see of a message in a queue: deaths without their times."""
    headers = {name: its for name, its in (properties.headers or {}).items() if name != "x-death"}
    deaths = [
        {name: int(its) if name == "count" else its for name, its in sorted(death.items()) if name != "time"}
        for death in (properties.headers or {}).get("x-death", [])
    ]
    return method.exchange, method.routing_key, deaths, sorted(headers.items()), properties.expiration, body


class RabbitMQ:
    """A real node."""

    def __init__(self, node: Node, kit: dict[str, Seen]) -> None:
        self._node = node
        #: What the broker in memory has in each queue, for which RabbitMQ may need some time.
        self._wanted = {name: len(found) for seen in kit.values() for name, found in seen.contents.items()}

    def url(self, user: str, vhost: str) -> str:
        """Return the URL of a user."""
        return self._node.url_for(user, vhost=vhost)

    async def permit(self, user: str, patterns: tuple[str, ...], topics: dict[str, str]) -> None:
        """Add a user, or change what one may do."""
        module = "rabbit_auth_backend_internal"
        words = ", ".join(f'<<"{pattern}">>' for pattern in patterns)
        calls = [f'{module}:put_user(#{{name => <<"{user}">>, password => <<"guest">>, tags => <<>>}}, <<"test">>)']
        calls.append(f'{module}:set_permissions(<<"{user}">>, <<"/">>, {words}, <<"test">>)')
        for exchange_, pattern in topics.items():
            its = f'<<"{user}">>, <<"/">>, <<"{exchange_}">>, <<"{pattern}">>, <<"{pattern}">>, <<"test">>'
            calls.append(f"{module}:set_topic_permissions({its})")
        await self._node.ctl("eval", ", ".join(calls) + ".")

    async def perform(self) -> dict[str, Seen]:
        """Perform all scenarios, several at the same time."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def perform_one(number: int, calls: list[Call]) -> Seen:
            async with turns:
                scene = Scene(self, number)
                try:
                    return await scene.perform(calls, self._drain)
                finally:
                    await self._clean(scene)

        scenes = [perform_one(number, calls) for number, calls in enumerate(SCENARIOS.values())]
        return dict(zip(SCENARIOS, await asyncio.gather(*scenes), strict=True))

    async def _drain(self, scene: Scene, name: str) -> list[object] | None:
        # Only the connection that a queue is exclusive to may read it, and some users may not.
        line = Line(self._node.url) if scene.limited else scene.line(scene.queues[name])
        try:
            if not (await line.call("queue_declare", queue=name, passive=True)).startswith("ok"):
                return None
            found: list[object] = []
            late = asyncio.get_running_loop().time() + DELIVERY_LIMIT
            while (got := await line.get(name)) is not None or len(found) < self._wanted.get(name, 0):
                if got is not None:
                    found.append(shown(*got))
                elif asyncio.get_running_loop().time() > late:
                    break
            return found
        finally:
            if scene.limited:
                await line.close()

    async def _clean(self, scene: Scene) -> None:
        async with Line(self._node.url) as line:
            for name in scene.queues:
                await line.call("queue_delete", queue=name)
            for name in scene.exchanges:
                if name and not name.startswith("amq."):
                    await line.call("exchange_delete", exchange=name)


class InMemory:
    """The broker in memory."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def url(self, user: str, vhost: str) -> str:
        """Return the URL of a user."""
        return f"amqp://{user}:guest@kit/{vhost}"

    async def permit(self, _user: str, patterns: tuple[str, ...], topics: dict[str, str]) -> None:
        """Change what users may do."""
        self._broker.set_permissions(*patterns)
        for exchange_, pattern in topics.items():
            self._broker.set_topic_permissions(exchange_, pattern, pattern)

    async def drain(self, _scene: Scene, name: str) -> list[object] | None:
        """Return what is in a queue."""
        try:
            return [shown(each, each.properties, each.body) for each in self._broker.messages(name)]
        except KeyError:
            return None


async def in_memory() -> dict[str, Seen]:
    """Perform all scenarios on a broker in memory of their own."""
    seen = {}
    for number, (name, calls) in enumerate(SCENARIOS.items()):
        with Broker() as broker:
            side = InMemory(broker)
            seen[name] = await Scene(side, number).perform(calls, side.drain)
    return seen


@pytest.fixture(scope="module")
def both(broker: Node) -> tuple[dict[str, Seen], dict[str, Seen]]:
    """What is seen of each scenario in memory, and on RabbitMQ."""
    kit = asyncio.run(in_memory())
    return kit, asyncio.run(RabbitMQ(broker, kit).perform())


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_kit_says_what_rabbitmq_says(name: str, both: tuple[dict[str, Seen], dict[str, Seen]]) -> None:
    """To each call, and each queue has the same messages."""
    kit, real = both[0][name], both[1]
    said, contents, seen = kit.said, in_any_order(kit), real[name]
    if version() < (4,):
        for words, before in {**(BEFORE_3_12 if version() < (3, 12) else {}), **BEFORE_4}.items():
            said = [re.sub(words, before, each) for each in said]
            contents = [[re.sub(words, before, each) for each in found] for found in contents]
        assert (contents == in_any_order(seen)) is (name not in OTHERS_BEFORE_4)
    assert said == seen.said
    assert contents == in_any_order(seen) or version() < (4,)


def in_any_order(seen: Seen) -> list[list[str]]:
    """Return what is in the queues, of which the server may have named some; the dead arrive when they do."""
    contents = {name: list(map(str, found)) for name, found in seen.contents.items()}
    return sorted(sorted(found) if name.endswith(f"-{DEAD}") else found for name, found in contents.items())
