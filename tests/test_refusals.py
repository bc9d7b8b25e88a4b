"""What RabbitMQ alone can refuse is bounded in what it harms; against a broker in memory."""

import asyncio

import pytest
from pika import spec

from sprockets_amqp import Client, ExchangeRefused, InvalidMessage, OutcomeUnknown, State
from sprockets_amqp.delivery import exchanges
from tests.support.memory import Broker, in_memory, outcome

broker = in_memory


def settled(broker: Broker, *futures: asyncio.Future[None]) -> list[object]:
    """Let RabbitMQ answer and confirm until all of it ended; return what each ended with."""
    for _ in range(20):
        broker.open().peer.confirm_all()
        broker.clock.advance(0.1)
        if all(future.done() for future in futures):
            return [outcome(future) for future in futures]
    raise AssertionError(futures)


def waits(broker: Broker, client: Client, exchange: str, routing_key: str) -> bool:
    """Tell whether such a publish waits for RabbitMQ's word."""
    future = client.publish(exchange, routing_key, b"")
    waiting = client.waiting
    assert settled(broker, future) == [None]
    return waiting == 1


def using(broker: Broker, *exchanges: str) -> Client:
    """Make a client that is ready, and knows some exchanges."""
    client = broker.ready()
    assert settled(broker, *(client.publish(exchange, "q", b"") for exchange in exchanges)) == [None] * len(exchanges)
    return client


def closes(client: Client) -> int:
    """How often the client left Ready."""
    return sum(change.source is State.READY for change in client.history)


def test_a_refused_topic_closes_the_channel_once(broker: Broker) -> None:
    """From then on RabbitMQ is asked about each routing key of that exchange, and the others go out."""
    broker.denied = {"denied", "forbidden"}
    client = using(broker, "events", "other")
    assert settled(broker, client.publish("events", "denied", b"")) == [OutcomeUnknown]
    for _ in range(3):
        futures = [client.publish("events", key, b"") for key in ("q", "denied", "r", "forbidden", "q")]
        assert settled(broker, *futures) == [None, ExchangeRefused, None, ExchangeRefused, None]
    assert closes(client) == 1


def test_no_other_exchange_is_asked_about_by_routing_key(broker: Broker) -> None:
    """RabbitMQ named the exchange: the first use of another is asked about, and no second routing key of it."""
    broker.denied = {"denied"}
    client = using(broker, "events", "other")
    settled(broker, client.publish("events", "denied", b""))
    settled(broker, client.publish("events", "q", b""), client.publish("other", "q", b""))
    assert not waits(broker, client, "other", "one more")
    assert waits(broker, client, "events", "one more")


def test_a_refusal_without_room_for_the_name_may_be_about_any_exchange(broker: Broker) -> None:
    """A long routing key cuts RabbitMQ's words short: no exchange is trusted with routing keys any more."""
    long = "x" * 255
    broker.denied = {long}
    client = using(broker, "events", "other")
    assert settled(broker, client.publish("events", long, b"")) == [OutcomeUnknown]
    bad = [client.publish(exchange, long, b"") for exchange in ("events", "other")]
    assert settled(broker, *bad) == [ExchangeRefused] * 2
    assert closes(client) == 1


@pytest.mark.parametrize("name", ["CC", b"CC"], ids=["str", "bytes"])
def test_a_refused_copy_is_asked_about_too(broker: Broker, name: str | bytes) -> None:
    """RabbitMQ 4 checks the routing keys in CC and BCC as well: the question has them."""
    broker.denied = {"denied"}
    client = using(broker, "events")
    copied = {"headers": {name: ["denied"]}}
    assert settled(broker, client.publish("events", "q", b"", copied)) == [OutcomeUnknown]
    for _ in range(3):
        futures = client.publish("events", "q", b"", copied), client.publish("events", "q", b"")
        assert settled(broker, *futures) == [ExchangeRefused, None]
    assert closes(client) == 1


def test_the_default_exchange_is_asked_about_once_it_was_refused(broker: Broker) -> None:
    """A user may be denied amq.default: that closes the channel once, and is asked about from then on."""
    client = using(broker, "events")
    flight = client.publish("", "q", b"")
    broker.peer.close_channel(1, 403, "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused")
    assert settled(broker, flight) == [OutcomeUnknown]
    broker.missing.add("")
    assert settled(broker, client.publish("", "q", b""), client.publish("events", "q", b"")) == [ExchangeRefused, None]


def test_a_revoked_permission_has_no_routing_key_asked_about(broker: Broker) -> None:
    """What is refused is the exchange, and it is asked about as before."""
    client = using(broker, "events")
    broker.peer.close_channel(1, 403, "ACCESS_REFUSED - access to exchange 'events' in vhost '/' refused for user 'me'")
    broker.open()
    assert settled(broker, client.publish("events", "q", b"")) == [None]
    assert not waits(broker, client, "events", "r")
    assert not waits(broker, client, "", "r")


def test_a_lower_size_limit_is_learnt_from_the_first_refusal(broker: Broker) -> None:
    """RabbitMQ says what it takes; on the next connection the operator may have changed it."""
    client = using(broker, "events")
    broker.peer.close_channel(1, 406, "PRECONDITION_FAILED - message size 11 is larger than configured max size 10")
    broker.open()
    futures = client.publish("", "q", b"x" * 11), client.publish("", "q", b"x" * 10)
    assert settled(broker, *futures) == [InvalidMessage, None]
    broker.peer.lose()
    broker.clock.advance(2)
    assert settled(broker, client.publish("", "q", b"x" * 11)) == [None]


# What costs the connection

#: RabbitMQ 4.3 cannot say in 255 octets that it is missing.
LONG = "é" * 110


def test_a_question_that_cost_the_connection_is_not_asked_again(broker: Broker) -> None:
    """Its messages end with RabbitMQ's words, now and later, and all others go out."""
    broker.costly = {LONG}
    client = using(broker, "events")
    bad = [client.publish(LONG, "q", b"") for _ in range(3)]
    assert settled(broker, *bad) == [ExchangeRefused] * 3
    error = bad[0].exception()
    assert isinstance(error, ExchangeRefused)
    assert (error.reply_code, error.reply_text, error.may_have_arrived) == (541, "INTERNAL_ERROR", False)
    for _ in range(3):
        futures = client.publish(LONG, "q", b""), client.publish("events", "q", b"")
        assert settled(broker, *futures) == [ExchangeRefused, None]
    assert len(broker.peers) == 2


def test_one_long_name_that_is_not_ascii_stands_for_all(broker: Broker) -> None:
    """A stranger who takes another such name each time costs one connection; short names are asked about."""
    names = [f"{LONG}{number}" for number in range(5)]
    broker.costly = set(names)
    client = using(broker)
    for name in names:
        futures = client.publish(name, "q", b""), client.publish("é", "q", b"")
        assert settled(broker, *futures) == [ExchangeRefused, None]
    assert len(broker.peers) == 2


def test_beside_messages_in_flight_a_question_is_asked_once_more(broker: Broker) -> None:
    """Any of them may have been what the connection was lost over; the second time it is the question."""
    broker.costly = {"costly"}
    client = using(broker)
    bad = client.publish("costly", "q", b"", timeout=60)
    for _ in range(2):
        assert not bad.done()
        flight = client.publish("", "q", b"")
        broker.open()
        assert settled(broker, flight) == [OutcomeUnknown]
        broker.clock.advance(2)
    assert settled(broker, bad) == [ExchangeRefused]
    assert len(broker.peers) <= 3


def test_a_costly_question_is_asked_again_in_the_end(broker: Broker) -> None:
    """The exchange may have been declared: five minutes later RabbitMQ is asked, and takes it."""
    broker.costly = {"costly"}
    client = using(broker)
    assert settled(broker, client.publish("costly", "q", b"")) == [ExchangeRefused]
    broker.costly.clear()
    assert settled(broker, client.publish("costly", "q", b"")) == [ExchangeRefused]
    broker.clock.advance(300)
    assert settled(broker, client.publish("costly", "q", b"")) == [None]


def test_a_question_that_was_not_yet_asked_cost_nothing(broker: Broker) -> None:
    """The connection is closed while the channel for questions opens: RabbitMQ is asked on the next."""
    client = using(broker)
    future = client.publish("events", "q", b"")
    broker.peer.say(0, spec.Connection.Close(541, "INTERNAL_ERROR", 0, 0))
    broker.peer.outbox.reverse()
    broker.peer.deliver()
    broker.clock.advance(2)
    assert settled(broker, future) == [None]


def test_a_message_alone_that_cost_the_connection_is_not_sent_again(broker: Broker) -> None:
    """With republish_unconfirmed it is sent twice, the second time alone, and ends with its outcome unknown."""
    client = broker.ready(republish_unconfirmed=True, timeout=60)
    assert settled(broker, client.publish("events", "q", b"")) == [None]
    broker.costly = {"events"}
    bad = client.publish("events", "q", b"", {"message_id": "bad"})
    broker.open()
    broker.costly.clear()
    broker.clock.advance(2)
    broker.open()
    assert broker.sent["bad"] == 2
    good = client.publish("", "q", b"")
    broker.peer.say(0, spec.Connection.Close(541, "INTERNAL_ERROR", 0, 0))
    broker.open()
    broker.clock.advance(2)
    assert settled(broker, bad, good) == [OutcomeUnknown, None]
    assert broker.sent["bad"] == 2


def test_what_is_remembered_is_bounded(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was known longest is forgotten, and asked about again."""
    monkeypatch.setattr(exchanges, "MEMORY_LIMIT", 2)
    client = using(broker, "one", "two", "three")
    assert not waits(broker, client, "three", "q")
    assert waits(broker, client, "one", "q")
