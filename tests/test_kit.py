"""The test kit: a broker in memory that does what its users call for, and leaves nothing."""

import asyncio
import re
import socket
import threading
import time
import unittest
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
from pika import BasicProperties, spec
from tornado.testing import AsyncHTTPTestCase
from tornado.web import Application

from sprockets_amqp import (
    STORED,
    Client,
    ExchangeRefused,
    MessageNacked,
    MessageReturned,
    NotReadyError,
    OutcomeUnknown,
    State,
)
from sprockets_amqp.testing import AMQPTestCase, Broker, VirtualHost
from sprockets_amqp.testing.peer import knows
from sprockets_amqp.testing.routing import Routing
from sprockets_amqp.wire import network
from tests.support.line import Line
from tools.kit_methods import methods

URL = "amqp://rabbit.example.com"


def publish(
    broker: Broker, client: Client, exchange: str = "amq.topic", routing_key: str = "key", **options: Any
) -> Any:
    """Publish; returns what the publish ended with, None or the class of the error."""

    async def end() -> Any:
        try:
            return await client.publish(exchange, routing_key, b"body", {"message_id": "m"}, **options)
        except Exception as error:
            return type(error)

    return broker.run(end())


@pytest.fixture
def client(amqp_broker: Broker) -> Client:
    """A client of the broker's, which is connected when it is first used."""
    return Client(URL, reconnect_delay=1, on_return_callback=lambda *_: None)


# What was published


def test_what_was_published_is_kept(amqp_broker: Broker, client: Client) -> None:
    """Exchange, routing key, body, properties, in order, and what was confirmed."""
    amqp_broker.queue_declare("q")
    amqp_broker.queue_bind("q", "amq.topic", "key")
    for number in range(3):
        amqp_broker.run(asyncio.wait_for(client.publish("amq.topic", "key", bytes([number]), {"type": "t"}), 1))
    assert [message.body for message in amqp_broker.messages("q")] == [b"\0", b"\1", b"\2"]
    assert {(message.exchange, message.routing_key, message.properties.type) for message in amqp_broker.published} == {
        ("amq.topic", "key", "t")
    }
    assert [message.confirmed for message in amqp_broker.published] == [True] * 3
    assert client.counters.confirmed == 3


def test_a_body_of_many_frames_arrives_whole(amqp_broker: Broker, client: Client) -> None:
    """As large as it was."""
    body = bytes(range(256)) * 4096
    amqp_broker.run(asyncio.wait_for(client.publish("amq.topic", "key", body), 1))
    assert amqp_broker.published[0].body == body


@pytest.mark.parametrize(
    ("address", "served", "others"),
    [
        (None, [("anywhere", 5672), ("::1", 1)], []),
        ("one", [("one", 5672), ("one", 5673)], [("two", 5672)]),
        ("one:5673", [("one", 5673)], [("one", 5672), ("two", 5673)]),
        ("[::1]:5673", [("::1", 5673)], [("::1", 5672)]),
        ("[::1]", [("::1", 5672)], [("one", 5672)]),
    ],
)
def test_a_broker_takes_the_place_of_its_node(
    address: str | None, served: list[tuple[str, int]], others: list[tuple[str, int]]
) -> None:
    """Of every node, or of one host, or of one of its ports; another broker may take the place of the rest."""
    with Broker() as rest, Broker(address) as broker:
        assert [network.other_network(*node) for node in served] == [broker] * len(served)
        assert [network.other_network(*node) for node in others] == [rest] * len(others)
    assert [network.other_network(*node) for node in served + others] == [None] * len(served + others)


@pytest.mark.parametrize("address", ["", "amqp://one", "one/vhost", "guest@one", "one:x", "one:70000", "one two"])
def test_what_is_no_address_is_refused(address: str) -> None:
    """With what it has to be, and what it was."""
    with pytest.raises(ValueError, match=f"address must be a host or host:port, not {re.escape(repr(address))}"):
        Broker(address)


def test_several_brokers_are_stopped_each_by_itself(amqp_broker: Broker) -> None:
    """Also within a test that has a loop of the broker's own; a client of several nodes goes on to the next."""
    with Broker("one") as one, Broker("two") as two:
        client = Client("amqp://one,two", republish_unconfirmed=True)
        amqp_broker.run(client.wait_for(State.READY))
        for _ in range(4):
            used, other = (one, two) if one.connections else (two, one)
            used.stop()
            amqp_broker.run(asyncio.wait_for(client.publish("amq.topic", "key", b"", mandatory=False), 100))
            assert (len(used.connections), len(other.connections)) == (0, 1)
            used.start()
        assert (len(one.published), len(two.published)) == (2, 2)
        assert amqp_broker.peers == []


def test_it_is_not_there_without_being_asked_for() -> None:
    """Other tests get the real connection."""
    with Broker() as broker:
        assert network.other_network("anywhere", 5672) is broker
    assert network.other_network("anywhere", 5672) is None


# Exchanges, queues and bindings


@pytest.mark.parametrize(
    ("pattern", "routing_key", "matches"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("#", "", True),
        ("*", "", False),
        ("", "", True),
        ("#.c", "a.b.c", True),
        ("#.b.#", "a.b.c", True),
        ("*.b.#", "a.c.b", False),
        ("*", "a", True),
        ("a..b", "a..b", True),
        ("a.*.b", "a..b", True),
    ],
)
def test_topics_match_as_rabbitmqs_do(pattern: str, routing_key: str, matches: bool) -> None:
    """* stands for a word, # for any number of them."""
    routing = Routing()
    host = VirtualHost(routing)
    host.queue_declare("q")
    host.queue_bind("q", "amq.topic", pattern)
    assert bool(routing.route("amq.topic", [routing_key])) is matches


def test_exchanges_that_are_bound_pass_messages_on() -> None:
    """By the routing key of each binding on the way, in circles, too; a deleted one is on no way."""
    routing = Routing()
    host = VirtualHost(routing)
    host.queue_declare("all")
    for name in ("first", "second"):
        host.exchange_declare(name, "topic")
    host.exchange_bind("second", "first", "user.#")
    host.exchange_bind("first", "second", "#")
    host.queue_bind("all", "second", "#.created")
    for key, names in (("user.created", ["all"]), ("user.deleted", []), ("order.created", [])):
        assert [queue.name for queue in routing.route("first", [key])] == names
    with pytest.raises(ValueError, match="NOT_FOUND - no exchange 'third' in vhost '/'"):
        host.exchange_bind("third", "first")
    host.exchange_delete("second")
    host.exchange_declare("second", "topic")
    assert routing.route("first", ["user.created"]) == []


def test_each_type_routes_in_its_way() -> None:
    """Direct by equality, fanout to all, the default exchange to the queue of that name; each queue once."""
    routing = Routing()
    host = VirtualHost(routing)
    for name in ("one", "two"):
        host.queue_declare(name)
        host.queue_bind(name, "amq.direct", "both")
        host.queue_bind(name, "amq.fanout", "whatever")
    host.queue_bind("one", "amq.direct", "first")

    def routed(exchange: str, *keys: str) -> list[str]:
        return sorted(queue.name for queue in routing.route(exchange, keys))

    assert routed("amq.direct", "first") == ["one"]
    assert routed("amq.direct", "both") == routed("amq.direct", "both", "first") == ["one", "two"]
    assert routed("amq.direct", "fi#") == []
    assert routed("amq.fanout", "") == ["one", "two"]
    assert routed("", "two") == ["two"]
    assert routed("", "first") == []
    host.queue_delete("two")
    assert routed("amq.fanout", "") == ["one"]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (lambda broker: broker.exchange_declare("e", "x-random"), "unknown exchange type 'x-random'"),
        (lambda broker: broker.exchange_declare("amq.topic", "fanout"), "received 'fanout' but current is 'topic'"),
        (lambda broker: broker.exchange_declare("amq.mine"), "contains reserved prefix 'amq.\\*'"),
        (lambda broker: broker.exchange_delete("amq.topic"), "deletion of system exchange 'amq.topic'"),
        (lambda broker: broker.queue_bind("nobody", "amq.topic"), "no queue 'nobody'"),
        (lambda broker: broker.queue_bind("q", "nowhere"), "no exchange 'nowhere'"),
        (lambda broker: broker.queue_bind("q", ""), "operation not permitted on the default exchange"),
        (lambda broker: broker.refuse_exchange("e", 500), "404 or 403"),
    ],
)
def test_what_cannot_be_declared_is_told(amqp_broker: Broker, asked: Any, sentence: str) -> None:
    """A test that is mistaken fails where it is."""
    amqp_broker.queue_declare("q")
    with pytest.raises(ValueError, match=sentence):
        asked(amqp_broker)


def test_a_queue_that_was_not_declared_has_no_messages(amqp_broker: Broker) -> None:
    """Rather than none."""
    with pytest.raises(KeyError, match="'q' does not exist"):
        amqp_broker.messages("q")
    with pytest.raises(KeyError, match="'q' does not exist"):
        amqp_broker.fill("q")


def test_unroutable_is_returned(amqp_broker: Broker) -> None:
    """Unless the publish is not mandatory, as with RabbitMQ."""
    strict = Client(URL, fail_on_return=True)
    assert publish(amqp_broker, strict, "amq.direct") is MessageReturned
    assert publish(amqp_broker, strict, "amq.direct", mandatory=False) is None
    assert (strict.counters.returned, [message.queues for message in amqp_broker.published]) == (1, [(), ()])


# Faults


def test_headers_route_by_what_a_binding_asks_for(amqp_broker: Broker, client: Client) -> None:
    """All of it, or any."""
    amqp_broker.queue_declare("urgent")
    amqp_broker.queue_bind("urgent", "amq.headers", arguments={"x-match": "any", "priority": "high", "late": None})
    for headers in ({"priority": "high"}, {"priority": "low"}, {"late": 5}, None):
        client.publish("amq.headers", "", b"", {"headers": headers}, mandatory=False)
        amqp_broker.advance(1)
    assert len(amqp_broker.messages("urgent")) == 2


def test_blind_copies_are_routed_and_seen_by_nobody(amqp_broker: Broker) -> None:
    """RabbitMQ takes the header BCC away, from what is in a queue as from what is returned."""
    returned: list[Any] = []
    client = Client(URL, on_return_callback=lambda *returns: returned.extend(returns))
    amqp_broker.queue_declare("blind")
    sent: dict[str, Any] = {"headers": {"BCC": ["blind"], "x": 1}}

    async def send() -> None:
        await client.publish("", "nobody", b"", sent)
        sent["headers"]["BCC"] = ["nobody either"]
        await client.publish("", "nobody", b"", sent)

    amqp_broker.run(send())
    (message,) = amqp_broker.messages("blind")
    assert (message.properties.headers, message.confirmed) == ({"x": 1}, True)
    assert amqp_broker.published[0].properties.headers == {"BCC": ["blind"], "x": 1}
    assert [each.headers for each in returned if isinstance(each, BasicProperties)] == [{"x": 1}]


def test_stopped_it_refuses_connections_and_started_it_takes_them(amqp_broker: Broker) -> None:
    """No time passes in the test, whatever the client waits for."""
    client = Client(URL, timeout=600)
    assert publish(amqp_broker, client) is None
    amqp_broker.stop()
    began, at = time.monotonic(), amqp_broker.clock.now
    assert publish(amqp_broker, client) is NotReadyError
    assert time.monotonic() - began < 300 < amqp_broker.clock.now - at
    assert "Connection refused" in client.condition
    amqp_broker.start()
    amqp_broker.run(client.wait_for(State.READY))
    assert publish(amqp_broker, client) is None
    assert client.counters.reconnects == 1


def test_a_cut_line_leaves_the_outcome_unknown(amqp_broker: Broker, client: Client) -> None:
    """And the client comes back."""
    amqp_broker.run(client.wait_for(State.READY))
    amqp_broker.swallow_confirms()

    async def cut() -> None:
        future = client.publish("amq.topic", "key", b"")
        await asyncio.sleep(1)
        amqp_broker.cut()
        with pytest.raises(OutcomeUnknown):
            await future

    amqp_broker.run(cut())
    amqp_broker.release_confirms()
    assert publish(amqp_broker, client) is None


def test_blocked_what_is_published_waits(amqp_broker: Broker, client: Client) -> None:
    """The first message brings the block about, as with RabbitMQ; all are confirmed when it is over."""
    assert publish(amqp_broker, client) is None
    amqp_broker.block("disk")
    first = client.publish("amq.topic", "key", b"1")
    amqp_broker.run(client.wait_for(State.BLOCKED))
    second = client.publish("amq.topic", "key", b"2")
    amqp_broker.advance(5)
    assert (client.condition, client.unconfirmed, client.waiting) == ("connection is Blocked (disk)", 1, 1)
    assert len(amqp_broker.published) == 1
    amqp_broker.unblock()
    amqp_broker.advance(0)
    assert first.done() and second.done() and client.ready
    assert [message.body for message in amqp_broker.published] == [b"body", b"1", b"2"]


@pytest.mark.parametrize(("code", "text"), [(404, "NOT_FOUND"), (403, "ACCESS_REFUSED")])
def test_an_exchange_is_refused(amqp_broker: Broker, client: Client, code: int, text: str) -> None:
    """With RabbitMQ's code and words; others are not."""
    amqp_broker.exchange_declare("events")
    amqp_broker.refuse_exchange("events", code)

    async def refused() -> None:
        with pytest.raises(ExchangeRefused, match=text) as caught:
            await client.publish("events", "key", b"")
        assert caught.value.reply_code == code

    amqp_broker.run(refused())
    assert publish(amqp_broker, client) is None
    amqp_broker.refuse_exchange("events", 0)
    assert publish(amqp_broker, client, "events") is None


def test_messages_are_nacked(amqp_broker: Broker, client: Client) -> None:
    """The next one or more, and what is routed to a queue that is full."""
    amqp_broker.nack_next(2)
    assert [publish(amqp_broker, client) for _ in range(3)] == [MessageNacked, MessageNacked, None]
    amqp_broker.queue_declare("q", max_length=1)
    assert [publish(amqp_broker, client, "", "q") for _ in range(2)] == [None, MessageNacked]
    amqp_broker.queue_declare("roomy")
    amqp_broker.fill("roomy")
    assert publish(amqp_broker, client, "", "roomy") is MessageNacked
    amqp_broker.fill("roomy", full=False)
    assert publish(amqp_broker, client, "", "roomy") is None


def test_confirms_are_swallowed_and_released(amqp_broker: Broker, client: Client) -> None:
    """A confirmation that is late is none."""
    amqp_broker.run(client.wait_for(State.READY))
    amqp_broker.swallow_confirms()
    assert publish(amqp_broker, client) is OutcomeUnknown
    late = client.publish("amq.topic", "key", b"")
    amqp_broker.advance(1)
    assert not late.done()
    amqp_broker.release_confirms()
    amqp_broker.advance(0)
    assert late.result() is None
    assert publish(amqp_broker, client) is None


def test_the_channel_is_closed_and_opened_again(amqp_broker: Broker, client: Client) -> None:
    """The connection stays."""
    amqp_broker.run(client.wait_for(State.READY))
    amqp_broker.close_channel(406, "PRECONDITION_FAILED - bad weather")
    amqp_broker.advance(0)
    assert client.history[-2].reason == "(406) PRECONDITION_FAILED - bad weather"
    assert publish(amqp_broker, client) is None
    assert (len(amqp_broker.peers), client.counters.reconnects) == (1, 0)


def test_what_the_broker_says_is_delayed(amqp_broker: Broker, client: Client) -> None:
    """By so many seconds, in order."""
    amqp_broker.run(client.wait_for(State.READY))
    amqp_broker.delay = 3
    futures = [client.publish("amq.topic", "key", b"") for _ in range(3)]
    amqp_broker.advance(2.9)
    assert [future.done() for future in futures] == [False] * 3
    amqp_broker.delay = 0
    futures.append(client.publish("amq.topic", "key", b""))
    amqp_broker.advance(0.05)
    assert [future.done() for future in futures] == [False] * 4
    amqp_broker.advance(0.1)
    assert [future.done() for future in futures] == [True] * 4


def test_nobody_logs_in_with_a_wrong_password(amqp_broker: Broker, client: Client) -> None:
    """RabbitMQ's own words say why, and the right password is taken when it comes."""
    amqp_broker.refuse_password()
    assert publish(amqp_broker, client, timeout=5) is NotReadyError
    assert "ACCESS_REFUSED - Login was refused" in client.condition
    amqp_broker.refuse_password(refused=False)
    amqp_broker.run(client.wait_for(State.READY))
    assert publish(amqp_broker, client) is None


def test_an_operator_closes_the_connection(amqp_broker: Broker, client: Client) -> None:
    """With the reason that they gave."""
    amqp_broker.run(client.wait_for(State.READY))
    amqp_broker.close_connections("maintenance")
    amqp_broker.advance(0)
    assert "(320) CONNECTION_FORCED - maintenance" in client.condition
    assert publish(amqp_broker, client) is None


def test_heartbeats_are_answered(amqp_broker: Broker) -> None:
    """A client that asks for them is not lost, however much time passes."""
    client = Client(f"{URL}/?heartbeat=10")
    amqp_broker.run(client.wait_for(State.READY))
    amqp_broker.advance(600)
    assert client.ready and client.counters.reconnects == 0


def test_a_client_without_confirms_publishes_too(amqp_broker: Broker) -> None:
    """What it sends is kept, returned, and confirmed to nobody; its channel can be closed."""
    client = Client(URL, enable_confirmations=False, on_return_callback=lambda *_: None)
    assert publish(amqp_broker, client, "", "nowhere") is None
    amqp_broker.advance(0)
    assert [(message.routing_key, message.confirmed) for message in amqp_broker.published] == [("nowhere", None)]
    assert client.counters.returned == 1
    amqp_broker.close_channel()
    assert publish(amqp_broker, client) is None
    assert "PRECONDITION_FAILED" in client.history[-2].reason


def test_what_comes_after_the_brokers_goodbye_is_not_read(amqp_broker: Broker, client: Client) -> None:
    """It was on its way, and its outcome is unknown."""
    assert publish(amqp_broker, client) is None
    amqp_broker.delay = 1
    amqp_broker.stop()
    assert publish(amqp_broker, client) is OutcomeUnknown
    assert len(amqp_broker.published) == 1


def test_heartbeats_are_answered_while_it_blocks(amqp_broker: Broker) -> None:
    """As RabbitMQ does: a blocked connection is not lost."""
    client = Client(f"{URL}/?heartbeat=10", timeout=600, confirm_timeout=600)
    assert publish(amqp_broker, client) is None
    amqp_broker.block()
    waiting = client.publish("amq.topic", "key", b"")
    amqp_broker.advance(300)
    assert client.blocked and not waiting.done() and client.counters.reconnects == 0


def test_what_a_full_queue_refused_is_nacked_when_confirms_are_released(amqp_broker: Broker, client: Client) -> None:
    """Each confirm is the one that was swallowed."""
    amqp_broker.queue_declare("q", max_length=1)
    assert publish(amqp_broker, client, "", "other") is None
    amqp_broker.swallow_confirms()
    futures = [client.publish("", "q", b"") for _ in range(2)]
    amqp_broker.advance(0)
    amqp_broker.release_confirms()
    assert futures[0].result() is None
    assert isinstance(futures[1].exception(), MessageNacked)


def test_a_queue_that_is_deleted_takes_its_messages_along(amqp_broker: Broker, client: Client) -> None:
    """Another one of that name begins empty."""
    amqp_broker.queue_declare("q")
    assert publish(amqp_broker, client, "", "q") is None
    amqp_broker.queue_delete("q")
    amqp_broker.queue_declare("q")
    assert amqp_broker.messages("q") == []


def test_nacked_messages_are_kept_as_what_they_were(amqp_broker: Broker, client: Client) -> None:
    """In no queue, and not confirmed."""
    amqp_broker.nack_next()
    assert publish(amqp_broker, client) is MessageNacked
    assert [(message.queues, message.confirmed) for message in amqp_broker.published] == [((), False)]


# The loop


def test_a_fault_may_come_while_another_loop_runs(amqp_broker: Broker) -> None:
    """The test's own, of asyncio.run()."""

    async def cut() -> None:
        client = Client(URL, reconnect_delay=0.01)
        await client.wait_for(State.READY)
        amqp_broker.cut()
        assert client.closed
        await client.shutdown()

    asyncio.run(cut())


def test_the_current_loop_is_what_it_was() -> None:
    """A test that uses the implicit one goes on with it."""
    before = asyncio.new_event_loop()
    asyncio.set_event_loop(before)
    broker = Broker().install().own_loop()
    assert asyncio.get_event_loop() is broker.clock.loop
    broker.close()
    assert asyncio.get_event_loop() is before
    asyncio.set_event_loop(None)
    before.close()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_brokers_are_closed_in_any_order(order: tuple[int, ...]) -> None:
    """The last that is still installed takes the connections, and has the current loop; in the end all is as before."""
    before = asyncio.new_event_loop()
    asyncio.set_event_loop(before)
    brokers = [Broker().install().own_loop() for _ in range(3)]
    left = list(brokers)
    for each in order:
        brokers[each].close()
        left.remove(brokers[each])
        if left:
            assert asyncio.get_event_loop() is left[-1].clock.loop
            taken = len(left[-1].published)
            assert publish(left[-1], Client(URL)) is None
            assert len(left[-1].published) == taken + 1
    assert asyncio.get_event_loop() is before
    assert network.other_network("anywhere", 5672) is None
    asyncio.set_event_loop(None)
    before.close()


def test_a_client_that_a_coroutine_left_is_shut_down() -> None:
    """The loop may go on with other tests; clients that were there before are none of this test's."""
    loop = asyncio.new_event_loop()

    async def make() -> Client:
        client = Client(URL)
        await client.wait_for(State.READY, 5)
        return client

    with Broker():
        other = loop.run_until_complete(make())
        with Broker():
            left = loop.run_until_complete(make())
        assert (left.state, left.recovers) == (State.CLOSED, False)
        assert other.ready
    assert other.state is State.CLOSED
    loop.close()


def test_other_sockets_are_waited_for_as_long_as_is_asked_for(amqp_broker: Broker) -> None:
    """The loop cannot know when somebody else answers."""
    amqp_broker.clock.grace = 5

    async def ask() -> bytes:
        ours, theirs = socket.socketpair()
        threading.Timer(0.1, theirs.send, [b"late"]).start()
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            return await asyncio.wait_for(reader.read(4), 60)
        finally:
            writer.close()
            theirs.close()

    assert amqp_broker.run(ask()) == b"late"


def test_a_turn_runs_what_follows_from_what_is_due(amqp_broker: Broker) -> None:
    """As far as it was asked for, or to its end; what time has to pass for does not happen, and time stands still."""
    loop, now, counted = amqp_broker.clock.loop, amqp_broker.clock.now, [0]

    def count(last: int) -> None:
        counted[0] += 1
        if counted[0] < last:
            loop.call_soon(count, last)

    loop.call_soon(count, 5)
    loop.call_later(0.01, count, 0)
    amqp_broker.clock.turn(3)
    assert counted == [3]
    amqp_broker.clock.turn()
    assert counted == [5]
    amqp_broker.advance(0.01)
    assert (counted, amqp_broker.clock.now) == ([6], now + 0.01)


def test_a_turn_runs_what_follows_from_what_a_socket_brings(amqp_broker: Broker) -> None:
    """The loop seems to have nothing to do, and goes on."""
    loop = amqp_broker.clock.loop
    brought: list[bytes] = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        loop.add_reader(ours, lambda: loop.call_soon(brought.append, ours.recv(5)))
        theirs.send(b"bytes")
        amqp_broker.clock.turn()
        loop.remove_reader(ours)
    assert brought == [b"bytes"]


def test_time_waits_for_threads(amqp_broker: Broker) -> None:
    """What a thread does takes none of the loop's time."""
    released = threading.Event()

    async def work() -> float:
        at = amqp_broker.clock.now
        thread = asyncio.ensure_future(asyncio.to_thread(released.wait))
        asyncio.get_running_loop().call_later(3600, released.set)
        threading.Timer(0.05, released.set).start()
        assert await thread
        return amqp_broker.clock.now - at

    assert amqp_broker.run(work()) < 3600


def test_what_escapes_from_a_callback_is_logged(amqp_broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """As on any loop."""
    amqp_broker.clock.loop.call_soon(lambda: 1 / 0)
    amqp_broker.advance(0)
    assert "ZeroDivisionError" in caplog.text


def test_what_never_happens_is_told(amqp_broker: Broker) -> None:
    """Rather than waited for."""
    with pytest.raises(TimeoutError):
        amqp_broker.run(asyncio.Event().wait(), 5)


async def test_a_coroutine_has_its_own_loop(amqp_broker: Broker) -> None:
    """The broker is there, and the test awaits what it waits for."""
    client = Client(URL)
    assert await client.publish("amq.topic", "key", b"") is None
    with pytest.raises(RuntimeError, match="its own loop"):
        amqp_broker.advance(1)
    with pytest.raises(RuntimeError, match="its own loop"):
        amqp_broker.run(client.wait_for(State.READY))
    await client.shutdown()
    assert [peer.said_goodbye for peer in amqp_broker.peers] == [True]


def test_the_clients_of_a_test_are_shut_down_with_it() -> None:
    """Whatever the test left undone."""
    broker = Broker().install().own_loop()
    client = Client(URL)
    assert publish(broker, client) is None
    broker.swallow_confirms()
    future = client.publish("amq.topic", "key", b"")
    broker.close()
    assert client.closed and not client.recovers
    assert isinstance(future.exception(), OutcomeUnknown)


# Tornado's test case


def test_the_mixin_comes_first() -> None:
    """Behind Tornado's class it would have no say, and the test would use a real RabbitMQ."""
    with pytest.raises(TypeError, match="name AMQPTestCase before AsyncHTTPTestCase"):
        type("Mistaken", (AsyncHTTPTestCase, AMQPTestCase), {})


def test_an_unknown_setting_is_told() -> None:
    """Before anything of the test runs."""

    class Mistaken(AMQPTestCase, AsyncHTTPTestCase):
        amqp_settings: ClassVar[dict[str, Any]] = {"time_out": 1}

        def get_app(self) -> Application:
            """Make an application."""
            return Application()

        def test_nothing(self) -> None:
            """Is not reached."""

    result = unittest.TestResult()
    Mistaken("test_nothing").run(result)
    ((_, traceback),) = result.errors
    assert "amqp_settings has no 'time_out'; the settings are url, timeout" in traceback


def test_time_moves_when_threads_have_answered(amqp_broker: Broker, tmp_path: Path) -> None:
    """Those of `asyncio.to_thread`, and the one that writes the outbox: in real time."""
    client = Client("amqp://anywhere", io_loop=amqp_broker.clock.io_loop, outbox=tmp_path, timeout=0)
    loop = amqp_broker.clock.loop
    began = loop.time()
    slow = loop.create_task(asyncio.to_thread(time.sleep, 0.1))
    amqp_broker.stop()
    amqp_broker.advance(1)
    assert slow.done()
    stored = client.publish("", "q", b"")
    amqp_broker.advance(0)
    assert stored.result() == STORED
    assert loop.time() == began + 1


def test_a_queue_is_bound_by_its_name_unless_told_otherwise(amqp_broker: Broker) -> None:
    """As in a setup, and with pika."""
    amqp_broker.queue_declare("audit")
    amqp_broker.queue_bind("audit", "amq.direct")
    client = Client("amqp://anywhere", io_loop=amqp_broker.clock.io_loop)
    amqp_broker.advance(1)
    client.publish("amq.direct", "audit", b"taken")
    client.publish("amq.direct", "", b"not taken", mandatory=False)
    amqp_broker.advance(1)
    assert [message.body for message in amqp_broker.messages("audit")] == [b"taken"]


#: Arguments without which pika sends no such method.
NEEDED: Final[dict[str, dict[str, Any]]] = {
    "Basic.Cancel": {"consumer_tag": "tag"},
    "Basic.Reject": {"delivery_tag": 1},
    "Connection.SecureOk": {"response": "words"},
}


@pytest.mark.parametrize("name", sorted(name for name in methods() if not knows(name)))
async def test_what_the_broker_does_not_know_is_named(name: str) -> None:
    """Nobody waits for an answer that never comes."""
    method = next(each for each in spec.methods.values() if name == each.NAME)
    with Broker():
        async with Line("amqp://guest:guest@broker/%2f") as line:
            words = f"connection closed: 540 NOT_IMPLEMENTED - the broker in memory does not know {name.lower()}"
            assert await line.send(method(**NEEDED.get(name, {}))) == words


def test_the_methods_of_the_client_are_known() -> None:
    """Those that setup and publishing need."""
    known = {name for name in methods() if knows(name)}
    assert {"Basic.Publish", "Confirm.Select", "Queue.Purge", "Connection.UpdateSecret", "Tx.Rollback"} <= known
    assert {"Basic.Consume", "Basic.Get", "Basic.Qos", "Tx.Commit", "Channel.Flow"}.isdisjoint(known)


def test_a_binding_is_what_it_was_when_it_was_made(amqp_broker: Broker) -> None:
    """What an application changes later changes nothing; a nonsensical way to match is refused."""
    amqp_broker.queue_declare("q")
    arguments: dict[str, Any] = {"x-match": "all", "a": 1}
    amqp_broker.queue_bind("q", "amq.headers", arguments=arguments)
    arguments["a"] = 2
    client = Client("amqp://anywhere", io_loop=amqp_broker.clock.io_loop)
    amqp_broker.advance(1)
    for number in (1, 2):
        client.publish("amq.headers", "", b"%d" % number, {"headers": {"a": number}}, mandatory=False)
    amqp_broker.advance(1)
    assert [message.body for message in amqp_broker.messages("q")] == [b"1"]
    with pytest.raises(ValueError, match="expected longstr"):
        amqp_broker.queue_bind("q", "amq.headers", arguments={"x-match": ["all"]})
