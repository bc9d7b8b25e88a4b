"""What the broker in memory holds, for whom, and for how long."""

import socket
from collections.abc import Callable
from typing import Any, Final

import pytest
from pika.exceptions import ChannelClosedByBroker

from sprockets_amqp import Client, ExchangeRefused, MessageNacked, OutcomeUnknown, Topology, outbox_insert
from sprockets_amqp.connection.topology import SetupFunction
from sprockets_amqp.testing import Broker, VirtualHost

URL: Final = "amqp://rabbit.example.com"
DEAD: Final = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}


def publish(broker: Broker, client: Client, queue: str, body: bytes = b"", **properties: Any) -> object:
    """Publish a message to a queue; return the class of the error that it ends with, or None."""

    async def end() -> object:
        try:
            return await client.publish("", queue, body, properties)
        except Exception as error:
            return type(error)

    return broker.run(end())


def bodies(host: VirtualHost, queue: str) -> list[bytes]:
    """Return what is in a queue."""
    return [message.body for message in host.messages(queue)]


def declaring(**arguments: Any) -> SetupFunction:
    """Return a setup that declares the queue q."""

    async def setup(topology: Topology) -> None:
        await topology.queue_declare("q", **arguments)

    return setup


# What a test has declared


def test_the_application_may_declare_with_any_properties_what_a_test_has_declared(amqp_broker: Broker) -> None:
    """The test need not repeat them; from then on they are what the application has said."""
    amqp_broker.queue_declare("q", max_length=1)
    client = Client(URL, setup=declaring(durable=True, arguments={"x-max-length": 5}))
    assert [publish(amqp_broker, client, "q") for _ in range(2)] == [None, MessageNacked]
    other = Client(URL, setup=declaring(durable=True), timeout=1)
    assert publish(amqp_broker, other, "q") is not None
    assert "inequivalent arg 'x-max-length' for queue 'q'" in other.condition


def test_bad_arguments_are_refused_of_what_a_test_has_declared(amqp_broker: Broker) -> None:
    """As if it were new."""
    amqp_broker.queue_declare("q")
    client = Client(URL, setup=declaring(arguments={"x-overflow": "funny"}))
    amqp_broker.advance(1)
    assert "invalid arg 'x-overflow' for queue 'q' in vhost '/': invalid_overflow" in client.condition


def test_arguments_that_a_test_gives_count(amqp_broker: Broker) -> None:
    """For what the broker does, and for what the application declares."""
    amqp_broker.queue_declare("dead")
    amqp_broker.queue_declare("q", arguments={**DEAD, "x-max-length": 1})
    amqp_broker.exchange_declare("e", "fanout", {"alternate-exchange": "amq.fanout"})
    client = Client(URL, setup=declaring(durable=True))
    amqp_broker.advance(1)
    assert "inequivalent arg 'x-dead-letter-exchange' for queue 'q'" in client.condition
    client = Client(URL)
    assert [publish(amqp_broker, client, "q", b"%d" % number) for number in range(3)] == [None] * 3
    assert (bodies(amqp_broker, "q"), bodies(amqp_broker, "dead")) == ([b"2"], [b"0", b"1"])
    (first, _) = amqp_broker.messages("dead")
    deaths: Any = (first.properties.headers or {})["x-death"]
    assert (deaths[0]["queue"], deaths[0]["reason"], first.queues, first.client) == ("q", "maxlen", ("dead",), "amqp")
    with pytest.raises(ValueError, match="invalid arg 'x-max-length' for queue 'r'"):
        amqp_broker.queue_declare("r", arguments={"x-max-length": -1})


def test_a_queue_is_emptied_and_room_is_made(amqp_broker: Broker) -> None:
    """A purged queue takes messages again."""
    amqp_broker.queue_declare("q", max_length=1)
    client = Client(URL)
    assert [publish(amqp_broker, client, "q") for _ in range(2)] == [None, MessageNacked]
    amqp_broker.queue_purge("q")
    assert (publish(amqp_broker, client, "q"), len(amqp_broker.messages("q"))) == (None, 1)
    with pytest.raises(ValueError, match="no queue 'nothing'"):
        amqp_broker.queue_purge("nothing")


# How long


def test_messages_expire_with_the_time_of_the_broker(amqp_broker: Broker) -> None:
    """Days take no time; one that expires behind another is dead when that goes, and nobody gets it."""
    amqp_broker.queue_declare("dead")
    amqp_broker.queue_declare("q", arguments={**DEAD, "x-message-ttl": 86_400_000})
    client = Client(URL)
    assert publish(amqp_broker, client, "q", b"1") is publish(amqp_broker, client, "q", b"2", expiration="1000") is None
    amqp_broker.advance(86_000)
    assert (bodies(amqp_broker, "q"), bodies(amqp_broker, "dead")) == ([b"1"], [])
    amqp_broker.advance(500)
    assert (bodies(amqp_broker, "q"), bodies(amqp_broker, "dead")) == ([], [b"1", b"2"])
    (_, second) = amqp_broker.messages("dead")
    deaths: Any = (second.properties.headers or {})["x-death"]
    assert (deaths[0]["original-expiration"], second.properties.expiration) == ("1000", None)


def test_what_is_dead_expires_where_it_was_put(amqp_broker: Broker) -> None:
    """From the time at which it died, however late the test looks."""
    amqp_broker.queue_declare("last")
    later = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "last", "x-message-ttl": 1000}
    amqp_broker.queue_declare("dead", arguments=later)
    amqp_broker.queue_declare("q", arguments={**DEAD, "x-message-ttl": 1000})
    client = Client(URL)
    assert publish(amqp_broker, client, "q", b"1") is None
    amqp_broker.advance(1.5)
    assert [bodies(amqp_broker, name) for name in ("q", "dead", "last")] == [[], [b"1"], []]
    amqp_broker.advance(600)
    assert [bodies(amqp_broker, name) for name in ("q", "dead", "last")] == [[], [], [b"1"]]


def test_a_queue_that_nobody_uses_goes(amqp_broker: Broker) -> None:
    """To declare it again is to use it."""
    amqp_broker.queue_declare("q", arguments={"x-expires": 1000})
    amqp_broker.advance(0.9)
    amqp_broker.queue_declare("q")
    amqp_broker.advance(0.9)
    assert bodies(amqp_broker, "q") == []
    amqp_broker.advance(0.2)
    with pytest.raises(KeyError, match="'q' does not exist"):
        amqp_broker.messages("q")


def test_a_broker_that_stops_loses_what_is_transient(amqp_broker: Broker) -> None:
    """Queues, exchanges, and messages, unless they are in a quorum queue."""

    async def setup(topology: Topology) -> None:
        await topology.exchange_declare("brief")
        await topology.queue_declare("brief")
        await topology.queue_declare("kept", durable=True)
        await topology.queue_declare("quorum", durable=True, arguments={"x-queue-type": "quorum"})
        await topology.queue_bind("kept", "brief", "key")

    declared = Client(URL, setup=setup)
    for queue in ("brief", "kept", "quorum"):
        for mode in (1, 2):
            assert publish(amqp_broker, declared, queue, b"%d" % mode, delivery_mode=mode) is None
    amqp_broker.run(declared.shutdown())
    amqp_broker.stop()
    amqp_broker.start()
    assert (bodies(amqp_broker, "kept"), bodies(amqp_broker, "quorum")) == ([b"2"], [b"1", b"2"])
    with pytest.raises(KeyError, match="'brief' does not exist"):
        amqp_broker.messages("brief")
    with pytest.raises(ValueError, match="no exchange 'brief'"):
        amqp_broker.queue_bind("kept", "brief")


def test_an_exclusive_queue_goes_with_its_client(amqp_broker: Broker) -> None:
    """However the connection ends; setup declares it anew on the next one."""
    client = Client(URL, setup=declaring(exclusive=True))
    for end in (amqp_broker.cut, amqp_broker.close_connections, amqp_broker.close_channel):
        assert publish(amqp_broker, client, "q") is None
        kept = bodies(amqp_broker, "q")
        end()
        amqp_broker.advance(10)
        assert bodies(amqp_broker, "q") == (kept if end == amqp_broker.close_channel else [])
    amqp_broker.run(client.shutdown())
    with pytest.raises(KeyError, match="'q' does not exist"):
        amqp_broker.messages("q")


def test_what_is_due_happens_before_what_comes_later(amqp_broker: Broker) -> None:
    """An exchange that is deleted after an hour has had the letters of that hour."""
    ends: list[tuple[str, Callable[[], None]]] = [
        ("first", lambda: amqp_broker.exchange_delete("first")),
        ("second", lambda: amqp_broker.queue_delete("q")),
    ]
    for name, gone in ends:
        amqp_broker.exchange_declare(name, "fanout")
        amqp_broker.queue_declare("dead")
        amqp_broker.queue_bind("dead", name)
        amqp_broker.queue_declare("q", arguments={"x-dead-letter-exchange": name, "x-message-ttl": 1000})
        assert publish(amqp_broker, Client(URL), "q") is None
        amqp_broker.advance(3600)
        gone()
        assert len(amqp_broker.messages("dead")) == 1
        amqp_broker.queue_delete("dead")
        amqp_broker.queue_delete("q")


def test_an_end_of_the_test_is_no_jump_in_time() -> None:
    """What has not expired by then never does; and a loop that comes later goes on from the time before it."""
    broker = Broker()
    broker.queue_declare("brief", arguments={"x-expires": 60_000})
    with broker.own_loop().install():
        broker.queue_declare("q", arguments={"x-message-ttl": 60_000})
        assert publish(broker, Client(URL), "q") is None
        broker.advance(50)
        assert (len(broker.messages("q")), broker.messages("brief")) == (1, [])
        broker.advance(9)
    assert (len(broker.messages("q")), broker.messages("brief")) == (1, [])


def test_brokers_beside_one_another_have_one_time_and_one_database(amqp_broker: Broker) -> None:
    """They are nodes, which the test stops, and lets time pass at, by any of them."""
    with Broker("one.example.com") as one:
        client = Client("amqp://one.example.com", outbox="postgresql://anywhere/shop")
        one.queue_declare("q", arguments={"x-message-ttl": 30_000})
        assert publish(one, client, "q", delivery_mode=2) is None
        one.stop()
        assert not client.ready
        one.start()
        amqp_broker.advance(29)
        assert bodies(one, "q") == [b""]
        one.advance(2)
        assert bodies(one, "q") == []

        async def store() -> None:
            async with one.database.transaction() as transaction:
                await transaction.execute(*outbox_insert("", "q", b"stored").psycopg)

        one.run(store())
        amqp_broker.advance(5)
        assert bodies(one, "q") == [b"stored"]
        assert one.database is amqp_broker.database


def test_an_hour_of_outage_is_no_hour_without_use(amqp_broker: Broker) -> None:
    """What nobody uses is kept for its time again when the broker has started; a durable exchange stays, too."""

    async def setup(topology: Topology) -> None:
        await topology.exchange_declare("e", durable=True, auto_delete=True)
        await topology.queue_declare("brief")
        await topology.queue_bind("brief", "e", "key")
        await topology.queue_declare("q", durable=True, arguments={"x-expires": 60_000})

    client = Client(URL, setup=setup)
    amqp_broker.advance(1)
    amqp_broker.run(client.shutdown())
    amqp_broker.stop()
    amqp_broker.advance(3600)
    amqp_broker.start()
    amqp_broker.queue_bind("q", "e")
    amqp_broker.advance(59)
    assert bodies(amqp_broker, "q") == []
    amqp_broker.advance(2)
    with pytest.raises(KeyError):
        amqp_broker.messages("q")


def test_confirms_of_a_closed_channel_are_never_told_on_the_next(amqp_broker: Broker) -> None:
    """Which has the same number, and counts from 1 again."""
    amqp_broker.queue_declare("full", max_length=0)
    amqp_broker.queue_declare("q")
    client = Client(URL)
    amqp_broker.advance(1)
    amqp_broker.swallow_confirms()
    first = client.publish("", "full", b"")
    amqp_broker.advance(1)
    amqp_broker.close_channel()
    amqp_broker.advance(5)
    second = client.publish("", "q", b"")
    amqp_broker.advance(1)
    amqp_broker.release_confirms()
    amqp_broker.advance(1)
    assert isinstance(first.exception(), OutcomeUnknown)
    assert second.exception() is None


def test_what_is_refused_changes_nothing(amqp_broker: Broker) -> None:
    """What a test has declared is as open as before."""
    amqp_broker.exchange_declare("e", arguments={"alternate-exchange": "other"})
    given: list[dict[str, Any]] = [{"durable": True}, {"arguments": {"alternate-exchange": "other"}}]
    answers: list[str] = []

    async def setup(topology: Topology) -> None:
        for arguments in given:
            try:
                await topology.exchange_declare("e", **arguments)
            except ChannelClosedByBroker as error:
                answers.append(error.reply_text)
            else:
                answers.append("ok")

    client = Client(URL, setup=setup)
    amqp_broker.advance(1)
    assert client.ready
    assert ("inequivalent arg 'alternate-exchange'" in answers[0], answers[1:]) == (True, ["ok"])


def test_a_limit_counts_on_what_exists(amqp_broker: Broker) -> None:
    """And has to be one; a queue without a name gets one, which the test is told."""
    client = Client(URL)
    assert amqp_broker.queue_declare("q") == amqp_broker.queue_declare("q", 1) == "q"
    assert [publish(amqp_broker, client, "q") for _ in range(2)] == [None, MessageNacked]
    for bad in (-1, {"x-max-length": 1}, "5"):
        with pytest.raises(ValueError, match="max_length must be a number of messages, not"):
            amqp_broker.queue_declare("r", bad)  # type: ignore[arg-type]
    name = amqp_broker.queue_declare("")
    assert name.startswith("amq.gen-") and publish(amqp_broker, client, name) is None
    assert len(amqp_broker.messages(name)) == 1


# For whom


def test_a_message_tells_who_has_published_it(amqp_broker: Broker) -> None:
    """Client, user and virtual host."""
    amqp_broker.queue_declare("q")
    orders = amqp_broker.vhost("orders")
    orders.queue_declare("q")
    first, second = Client(URL), Client("amqp://keeper:secret@rabbit.example.com/orders", name="audit")
    assert publish(amqp_broker, first, "q") is publish(amqp_broker, second, "q", user_id="keeper") is None
    told = [(message.client, message.user, message.vhost) for message in amqp_broker.published]
    assert told == [("amqp", "guest", "/"), ("audit", "keeper", "orders")]


def test_virtual_hosts_share_nothing(amqp_broker: Broker) -> None:
    """Neither queues nor permissions; one that nobody has made is refused in RabbitMQ's words."""
    orders = amqp_broker.vhost("orders")
    orders.queue_declare("q")
    orders.set_permissions(write="^$")
    assert bodies(amqp_broker.vhost("orders"), "q") == []
    with pytest.raises(KeyError, match="'q' does not exist"):
        amqp_broker.messages("q")
    amqp_broker.queue_declare("q")
    client = Client(URL + "/orders")
    amqp_broker.advance(1)
    with pytest.raises(ExchangeRefused, match=r"write access to exchange 'amq.topic' in vhost 'orders'"):
        amqp_broker.run(client.publish("amq.topic", "q", b""))  # type: ignore[arg-type] # it can be awaited
    assert publish(amqp_broker, Client(URL), "q") is None
    nowhere = Client(URL + "/nowhere", timeout=1)
    assert publish(amqp_broker, nowhere, "q") is not None
    assert "(530) NOT_ALLOWED - vhost nowhere not found" in nowhere.condition


def test_permissions_are_those_of_rabbitmqctl(amqp_broker: Broker) -> None:
    """By patterns, for topics, too; a bad one is told at once."""

    async def setup(topology: Topology) -> None:
        await topology.queue_declare("q", durable=True)

    amqp_broker.set_permissions(configure="^audit")
    client = Client(URL, setup=setup)
    amqp_broker.advance(1)
    words = "(403) ACCESS_REFUSED - configure access to queue 'q' in vhost '/' refused for user 'guest'"
    assert words in client.condition
    amqp_broker.set_permissions()
    amqp_broker.set_topic_permissions("amq.topic", write="^user[.]")

    async def refusal() -> str:
        await client.publish("amq.topic", "user.created", b"", mandatory=False)
        with pytest.raises(OutcomeUnknown) as refused:
            await client.publish("amq.topic", "order.created", b"", mandatory=False)
        return str(refused.value)

    assert "write access to topic 'order.created' in exchange 'amq.topic'" in amqp_broker.run(refusal())
    with pytest.raises(ValueError, match=r"'\[' is no regular expression: unterminated"):
        amqp_broker.set_permissions(read="[")


def test_each_broker_is_slow_full_and_blocked_by_itself(amqp_broker: Broker) -> None:
    """The others know nothing of it."""
    with Broker("one.example.com") as one, Broker("two.example.com") as two:
        first, second = (
            Client(f"amqp://{name}.example.com", io_loop=amqp_broker.clock.io_loop) for name in ("one", "two")
        )
        for broker in (one, two):
            broker.queue_declare("q")
        amqp_broker.advance(1)
        one.block()
        one.delay = 5.0
        waits = first.publish("", "q", b"1")
        assert publish(amqp_broker, second, "q", b"2") is None
        two.block()
        one.unblock()
        amqp_broker.advance(1)
        assert (waits.done(), bodies(one, "q"), bodies(two, "q")) == (False, [b"1"], [b"2"])
        amqp_broker.advance(5)
        assert waits.done()


def test_there_is_a_socket_where_an_application_asks_for_one(amqp_broker: Broker) -> None:
    """To set its options, or to tell where it is connected to; it is closed with the connection."""
    client = Client(URL)
    amqp_broker.queue_declare("q")
    assert publish(amqp_broker, client, "q") is None
    assert client.connection is not None
    found = client.connection.socket
    assert found is not None and client.connection.socket is found
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert (found.getpeername(), found.getsockname()) == (("127.0.0.1", 5672), ("127.0.0.1", 0))
    amqp_broker.run(client.shutdown())
    assert found.fileno() == -1


def test_names_with_line_breaks_are_refused_before_rabbitmq_changes_them(amqp_broker: Broker) -> None:
    """RabbitMQ answers with another name, for which nobody waits."""
    failed: list[str] = []

    async def setup(topology: Topology) -> None:
        for name in ("a\nb", "a\r"):
            for declare in (topology.queue_declare, topology.exchange_declare):
                try:
                    await declare(name)
                except ValueError as error:
                    failed.append(str(error))

    client = Client(URL, setup=setup)
    amqp_broker.advance(1)
    assert client.ready
    assert failed[0] == r"a name must not contain line breaks, which RabbitMQ removes: a\nb"
    assert len(failed) == 4
