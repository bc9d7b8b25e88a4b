"""What RabbitMQ says, the kit says in the same words: the same calls on both, one after the other."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker

from sprockets_amqp import Client, Topology
from sprockets_amqp.testing import Broker
from tests.support.consume import on_channel
from tools.rabbitmq import Node, version

#: A verb of pika's channel, or "publish", and its arguments; names that RabbitMQ does not own get a prefix.
Call = tuple[str, dict[str, Any]]
NAMES: Final = ("exchange", "queue", "source", "destination")


def call(verb: str, **arguments: Any) -> Call:
    """A call."""
    return verb, arguments


def exchange(name: str = "e", kind: str = "direct", **properties: Any) -> Call:
    """Declare an exchange."""
    return call("exchange_declare", exchange=name, exchange_type=kind, **properties)


def queue(name: str = "q", **properties: Any) -> Call:
    """Declare a queue."""
    return call("queue_declare", queue=name, **properties)


def bind(name: str = "q", to: str = "e", key: str = "k", **arguments: Any) -> Call:
    """Bind a queue."""
    return call("queue_bind", queue=name, exchange=to, routing_key=key, **arguments)


def publish(to: str = "e", key: str = "k", **properties: Any) -> Call:
    """Publish a message."""
    return call("publish", exchange=to, routing_key=key, properties=properties)


def by_headers(how: Any, *headers: dict[str, Any], **wanted: Any) -> list[Call]:
    """Publish messages with these headers to an exchange with a binding."""
    arguments = wanted if how is None else {"x-match": how, **wanted}
    bound = bind(to="amq.headers", key="", arguments=arguments)
    unbound = call("queue_unbind", queue="q", exchange="amq.headers", routing_key="", arguments=arguments)
    return [queue(), bound, *(publish("amq.headers", "", headers=each) for each in headers), unbound]


ALTERNATE: Final = {"alternate-exchange": "amq.fanout"}

SCENARIOS: Final[dict[str, list[Call]]] = {
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
        *(call("queue_delete", queue="q"), call("exchange_delete", exchange="e", if_unused=True)),
    ],
    "goes with its last binding": [
        *(exchange(auto_delete=True), queue(), bind(), bind(key="l")),
        call("queue_unbind", queue="q", exchange="e", routing_key="k"),
        exchange(passive=True),
        call("queue_unbind", queue="q", exchange="e", routing_key="l"),
        exchange(passive=True),
    ],
    "goes with its last queue": [
        *(exchange(auto_delete=True), queue(), bind(), call("queue_delete", queue="q"), exchange(passive=True)),
    ],
    "goes with the last exchange behind it": [
        *(exchange(auto_delete=True), exchange("f"), call("exchange_bind", destination="f", source="e")),
        *(call("exchange_delete", exchange="f"), exchange(passive=True)),
    ],
    "bound to nothing": [queue(), bind(to="nothing"), bind("nothing"), bind("nothing", "nowhere"), bind(to="")],
    "exchanges bound to nothing": [
        exchange(),
        call("exchange_bind", destination="nothing", source="e"),
        call("exchange_bind", destination="e", source="nothing"),
        call("exchange_bind", destination="", source="e"),
        call("exchange_bind", destination="e", source=""),
    ],
    "unbound": [
        *(exchange(), queue(), bind(), publish()),
        call("queue_unbind", queue="q", exchange="e", routing_key="other"),
        call("queue_unbind", queue="nothing", exchange="e", routing_key="k"),
        call("queue_unbind", queue="q", exchange="nothing", routing_key="k"),
        call("queue_unbind", queue="q", exchange="", routing_key="q"),
    ],
    "exchanges unbound": [
        *(exchange(), exchange("f"), queue(), bind(to="f"), call("exchange_bind", destination="f", source="e")),
        call("exchange_unbind", destination="nothing", source="e"),
        call("exchange_bind", destination="f", source="e", routing_key="k"),
        call("exchange_unbind", destination="f", source="e", routing_key="k"),
        publish(),
    ],
    "internal": [exchange(internal=True), publish(), exchange("f", "fanout"), publish("f")],
    "internal, behind another": [
        *(exchange("f", internal=True), queue(), bind(to="f"), exchange()),
        *(call("exchange_bind", destination="f", source="e", routing_key="k"), publish()),
    ],
    "RabbitMQ's own internal one": [publish("amq.rabbitmq.trace")],
    "an alternate exchange": [
        *(exchange("f", "fanout"), queue(), bind(to="f"), queue("r"), bind("r")),
        *(exchange(arguments={"alternate-exchange": "f"}), bind("r"), publish(), publish(key="other")),
    ],
    "an alternate exchange that is not there": [exchange(arguments={"alternate-exchange": "nothing"}), publish()],
    "alternate exchanges in a circle": [
        exchange(arguments={"alternate-exchange": "f"}),
        exchange("f", arguments={"alternate-exchange": "e"}),
        publish(),
    ],
    "an alternate exchange, beside an exchange that is bound": [
        *(exchange("f", "fanout"), queue(), bind(to="f"), exchange("g")),
        *(exchange(arguments={"alternate-exchange": "f"}), publish()),
        *(call("exchange_bind", destination="g", source="e", routing_key="k"), publish()),
    ],
    "all headers": by_headers("all", {"a": 1}, {"a": 1, "b": "x"}, {"a": "1", "b": "x"}, {"c": 1}, a=1, b="x"),
    "all headers, by default": by_headers(None, {"a": 1}, {"a": 1, "b": "x", "c": 2}, a=1, b="x"),
    "any header": by_headers("any", {"a": 1}, {"a": 2}, {"b": "x"}, {}, a=1, b="x"),
    "a header of any value": by_headers("any", {"a": 1}, {"a": None}, {"b": 1}, a=None),
    "headers of a size": by_headers("all", {"a": 2**40}, {"a": 1}, a=2**40),
    "no headers": [*by_headers("all", {"a": 1}, {}), *by_headers("any", {"a": 1}, {})],
    "headers with x-": [
        *by_headers("all", {"x-a": 1}, {"x-a": 2}, **{"x-a": 1}),
        *by_headers("any-with-x", {"x-a": 2}, {"x-a": 1}, **{"x-a": 1}),
    ],
    "headers in another way": [queue(), *by_headers("some"), *by_headers(5)],
    "a foreign user": [queue(), publish("", "q", user_id="guest"), publish("", "q", user_id="somebody")],
    "a reserved queue": [queue("amq.mine"), queue("amq.mine", passive=True)],
    "a passive queue": [queue(passive=True), queue(), queue(passive=True)],
}


#: What RabbitMQ 4 says, as the kit does, where earlier versions say something else, and what they say.
SINCE_4: Final = {
    "exchange_declare: 406 PRECONDITION_FAILED - unknown exchange type 'funny'": (
        "(503) COMMAND_INVALID - unknown exchange type 'funny'"
    ),
}


class Seen:
    """What is seen on one side."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.said: list[str] = []
        self.queues: set[str] = set()

    def own(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return arguments with the names of this scenario."""
        own: dict[str, Any] = {name: self.named(value) if name in NAMES else value for name, value in arguments.items()}
        given: dict[str, Any] = arguments.get("arguments") or {}
        if isinstance(given.get("alternate-exchange"), str):
            own["arguments"] = {**given, "alternate-exchange": self.named(given["alternate-exchange"])}
        if own.get("exchange") == "" and "routing_key" in own:
            own["routing_key"] = self.named(own["routing_key"])
        return own

    def named(self, name: str) -> str:
        """Return the name that a name has in this scenario."""
        return name if name.startswith("amq.") or not name else f"{self._prefix}-{name}"

    async def declare(self, topology: Topology, calls: Iterable[Call]) -> None:
        """Make calls, and note what is said."""
        for verb, arguments in calls:
            own = self.own(arguments)
            if verb == "queue_declare":
                self.queues.add(own["queue"])
            try:
                await topology._call(getattr(Channel, verb), **own)
            except ChannelClosedByBroker as error:
                self.said.append(f"{verb}: {error.reply_code} {error.reply_text}")
            else:
                self.said.append(f"{verb}: ok")

    async def publish(self, client: Client, arguments: dict[str, Any]) -> None:
        """Publish, and note what it ends with."""
        own = self.own(arguments)
        try:
            await client.publish(own["exchange"], own["routing_key"], b"", own["properties"], timeout=20)
        except Exception as error:
            code, text = getattr(error, "reply_code", ""), getattr(error, "reply_text", "")
            self.said.append(f"publish: {type(error).__name__} {code} {text} {error.__cause__ or ''}".strip())
        else:
            self.said.append("publish: confirmed")


async def perform(url: str, prefix: str, calls: list[Call]) -> Seen:
    """Make the calls of a scenario, those between two publishes in one setup."""
    seen, left = Seen(prefix), list(calls)
    while left:
        until = next((number for number, (verb, _) in enumerate(left) if verb == "publish"), len(left))
        declarations, left = left[:until], left[until:]
        async with declared(url, seen, declarations) as client:
            while client is not None and left and left[0][0] == "publish":
                await seen.publish(client, left.pop(0)[1])
            if client is None:
                left = []
    return seen


@asynccontextmanager
async def declared(url: str, seen: Seen, calls: list[Call]) -> AsyncIterator[Client | None]:
    """A client whose setup has made the calls; None: RabbitMQ has closed the connection over one of them."""
    done = asyncio.get_running_loop().create_future()

    async def setup(topology: Topology) -> None:
        # Once, also if the client connects again.
        if not done.done():
            try:
                await seen.declare(topology, calls)
            except asyncio.CancelledError:
                # The connection was closed.
                done.set_result(False)
                raise
            done.set_result(True)

    async with Client(url, setup=setup, fail_on_return=True, reconnect_delay=0.05, connection_attempts=1) as client:
        if await asyncio.wait_for(done, 20):
            yield client
        else:
            seen.said.append(str(client.reason))
            yield None


@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_kit_says_what_rabbitmq_says(name: str, broker: Node) -> None:
    """To each call, and each queue has as many messages."""
    prefix = f"s{list(SCENARIOS).index(name)}"
    real = await perform(broker.url, prefix, SCENARIOS[name])

    def count(channel: Any) -> dict[str, int]:
        counted = {}
        for each in sorted(seen for seen in real.queues if not seen.startswith("amq.")):
            counted[each] = channel.queue_declare(each).method.message_count
            channel.queue_delete(each)
        for call_ in SCENARIOS[name]:
            if call_[0] == "exchange_declare" and not call_[1]["exchange"].startswith("amq.") and call_[1]["exchange"]:
                channel.exchange_delete(real.named(call_[1]["exchange"]))
        return counted

    counted = await on_channel(broker.url, count)
    with Broker() as unreal:
        kit = await perform("amqp://guest:guest@kit", prefix, SCENARIOS[name])
        said = [SINCE_4.get(words, words) for words in kit.said] if version() < (4,) else kit.said
        assert said == real.said
        for each in counted:
            unreal.queue_declare(each)
        assert {each: len(unreal.messages(each)) for each in counted} == counted
