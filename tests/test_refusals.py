"""What RabbitMQ alone can refuse is bounded in what it harms; against a broker in memory."""

import asyncio
from pathlib import Path
from typing import Any, Final, cast

import pytest
from pika import spec

from sprockets_amqp import Client, ExchangeRefused, InvalidMessage, MessageReturned, OutcomeUnknown, State
from sprockets_amqp.delivery import exchanges
from sprockets_amqp.delivery.message import Message
from sprockets_amqp.testing.rules import Published, Refused
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


DEFAULT_REFUSED: Final = "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'guest'"


def test_the_default_exchange_is_asked_about_once_it_was_refused(broker: Broker) -> None:
    """A user may be denied amq.default: that closes the channel once, and is asked about from then on."""
    client = using(broker, "events")
    flight = client.publish("", "q", b"")
    broker.peer.close_channel(1, 403, DEFAULT_REFUSED)
    assert settled(broker, flight) == [OutcomeUnknown]
    broker.missing.add("")
    assert settled(broker, client.publish("", "q", b""), client.publish("events", "q", b"")) == [ExchangeRefused, None]


def test_an_exchange_whose_name_reads_like_the_default_ones_does_not_have_that_asked_about(broker: Broker) -> None:
    """RabbitMQ's text is compared as a whole, in which the name is quoted."""
    client = using(broker, "events")
    flight = client.publish("", "q", b"")
    name = "amq.default' in vhost '/' refused"
    text = f"ACCESS_REFUSED - access to exchange '{name}' in vhost '/' refused for user 'guest'"
    broker.peer.close_channel(1, 403, text)
    assert settled(broker, flight) == [OutcomeUnknown]
    assert not waits(broker, client, "", "q")


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


def test_beside_messages_in_flight_a_question_is_asked_again_alone(broker: Broker) -> None:
    """Any of them may have been what the connection was lost over; the second time nothing else is in flight."""
    broker.costly = {"costly"}
    client = using(broker)
    bad = client.publish("costly", "q", b"", timeout=60)
    flight = client.publish("", "q", b"")
    broker.open()
    assert settled(broker, flight) == [OutcomeUnknown]
    waits = client.publish("", "q", b"", {"message_id": "waits"}, timeout=60)
    broker.clock.advance(2)
    broker.open()
    assert (broker.sent["waits"], bad.done()) == (0, True)
    broker.clock.advance(4)
    assert settled(broker, bad, waits) == [ExchangeRefused, None]
    assert len(broker.peers) == 3


def picky(broker: Broker, seen: list[Any]) -> None:
    """Have RabbitMQ fail over messages to one exchange that lack a header, as some types of exchanges do."""
    patched, judge = cast("Any", broker), broker.judge

    def judge_headers(message: Published) -> None:
        headers = message.properties.headers or {}
        if message.exchange == "picky":
            seen.append(headers)
            if "kind" not in headers:
                raise Refused(541, "INTERNAL_ERROR", connection=True)
        judge(message)

    patched.judge = judge_headers


def test_an_exchange_that_needs_a_header_is_checked_with_it_in_the_end(broker: Broker) -> None:
    """The check without headers costs one connection; with them RabbitMQ accepts, and the messages go out."""
    seen: list[Any] = []
    picky(broker, seen)
    client = using(broker, "events")
    good = {"headers": {"kind": "order", "n": 1}}
    first, second = (client.publish("picky", "q", b"", good, timeout=60) for _ in range(2))
    assert settled(broker, first, second) == [None] * 2
    assert (len(broker.peers), seen[0]) == (2, {"x-recent-history-no-store": True})
    assert seen[1] == {"kind": "order", "n": 1, "x-recent-history-no-store": True}
    assert seen[2:] == [good["headers"]] * 2


def test_a_message_without_the_header_refuses_no_message_that_has_it(broker: Broker) -> None:
    """The first check with headers costs a connection, too; those with other headers are checked by themselves."""
    picky(broker, [])
    client = using(broker, "events")
    bad = client.publish("picky", "q", b"", {"headers": {"other": 1}}, timeout=60)
    good = client.publish("picky", "q", b"", {"headers": {"kind": "order"}}, timeout=60)
    for _ in range(8):
        broker.open().peer.confirm_all()
        broker.clock.advance(1)
    assert settled(broker, bad, good) == [ExchangeRefused, None]
    assert len(broker.peers) == 3


def lossless(broker: Broker, client: Client, *bad: dict[str, Any]) -> int:
    """Publish such messages to the picky exchange, each beside another; return how many connections that cost."""
    before = len(broker.peers)
    for headers in bad:
        refused = client.publish("picky", "q", b"", {"headers": headers}, timeout=60)
        client.publish("", "q", b"", timeout=60).add_done_callback(lambda ended: ended.exception())
        for _ in range(6):
            broker.open().peer.confirm_all()
            broker.clock.advance(1)
        assert settled(broker, refused) == [ExchangeRefused]
    return len(broker.peers) - before


def test_ever_new_headers_cost_no_more_connections(broker: Broker) -> None:
    """A stranger may choose them, and tracing adds its own: after a few, the exchange is not checked for a while."""
    picky(broker, [])
    client = using(broker, "events")
    first = lossless(broker, client, {"traceparent": "0"}, {"traceparent": "1"}, {"n1": 1}, {"n2": 2})
    assert first <= 6
    assert lossless(broker, client, *({f"name{number}": number} for number in range(5))) == 0


def test_what_was_accepted_with_a_header_says_nothing_about_messages_without_it(broker: Broker) -> None:
    """They are checked by themselves, and those with the header go out as before."""
    picky(broker, [])
    client = using(broker, "events")
    good = {"headers": {"kind": "order"}}
    assert settled(broker, client.publish("picky", "q", b"", good, timeout=60)) == [None]
    assert lossless(broker, client, *({"other": number} for number in range(4))) <= 2
    peers = len(broker.peers)
    assert settled(broker, client.publish("picky", "q", b"", good, timeout=60)) == [None]
    assert len(broker.peers) == peers


def test_what_needs_headers_is_checked_without_them_in_the_end(broker: Broker) -> None:
    """Five minutes after RabbitMQ accepted it, on the next channel: the exchange may be another one by then."""
    seen: list[Any] = []
    picky(broker, seen)
    client = using(broker, "events")
    good = {"headers": {"kind": "order"}}
    assert settled(broker, client.publish("picky", "q", b"", good, timeout=60)) == [None]
    broker.clock.advance(301)
    broker.peer.lose()
    broker.clock.advance(2)
    broker.open()
    seen.clear()
    future = client.publish("picky", "q", b"", good, timeout=60)
    for _ in range(6):
        broker.open().peer.confirm_all()
        broker.clock.advance(1)
    assert settled(broker, future) == [None]
    assert seen[0] == {"x-recent-history-no-store": True}


def test_no_check_has_the_headers_of_its_message_from_the_start(broker: Broker) -> None:
    """Some types of exchanges act on them at once: one that drops duplicates would drop the message."""
    seen: list[Any] = []
    patched, judge = cast("Any", broker), broker.judge
    patched.judge = lambda message: (seen.append(message.properties.headers or {}), judge(message))[1]
    client = broker.ready()
    assert settled(broker, client.publish("events", "q", b"", {"headers": {"x-deduplication-header": "1"}})) == [None]
    assert seen == [{"x-recent-history-no-store": True}, {"x-deduplication-header": "1"}]


def test_a_check_that_happens_to_be_open_is_not_blamed(broker: Broker) -> None:
    """Another message costs the connection, again and again: the exchange is checked first, alone, and accepted."""
    client = using(broker)
    for number in range(4):
        broker.costly = {"poison"}
        good = client.publish(f"good{number}", "q", b"", timeout=60)
        broker.clock.turn()
        client.publish("", "q", b"").add_done_callback(lambda ended: ended.exception())
        broker.clock.turn()
        broker.peer.say(0, spec.Connection.Close(541, "INTERNAL_ERROR", 0, 0))
        broker.peer.outbox.insert(0, broker.peer.outbox.pop())
        broker.peer.deliver()
        assert not good.done()
        broker.clock.advance(4)
        assert settled(broker, good) == [None]
    assert client.ready


def test_a_suspect_that_is_not_answered_about_holds_nobody_up(broker: Broker) -> None:
    """After the limit of a check it is no suspect any more, and the others go out."""
    broker.costly = {"costly"}
    client = using(broker)
    slow = client.publish("costly", "q", b"", timeout=60)
    slow.add_done_callback(lambda ended: ended.exception())
    flight = client.publish("", "q", b"")
    broker.open()
    assert settled(broker, flight) == [OutcomeUnknown]
    broker.costly.clear()
    broker.unanswered.add("costly")
    broker.clock.advance(2)
    waits = client.publish("", "q", b"", timeout=60)
    broker.open()
    assert not waits.done()
    broker.clock.advance(5.1)
    assert settled(broker, waits) == [None]
    assert not slow.done()


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
    """With republish_unconfirmed it ends with its outcome unknown; one among others is sent once more, alone."""
    client = broker.ready(republish_unconfirmed=True, timeout=60)
    assert settled(broker, client.publish("events", "q", b"")) == [None]
    broker.costly = {"events"}
    bad = client.publish("events", "q", b"", {"message_id": "bad"})
    broker.open()
    assert settled(broker, bad) == [OutcomeUnknown]
    assert (broker.sent["bad"], "541" in str(bad.exception())) == (1, True)
    broker.clock.advance(2)
    broker.costly.clear()
    assert settled(broker, client.publish("events", "q", b"")) == [None]
    broker.costly = {"events"}
    good, bad = client.publish("", "q", b""), client.publish("events", "q", b"", {"message_id": "bad again"})
    for _ in range(4):
        broker.open()
        broker.clock.advance(2)
        broker.costly.clear() if broker.sent["bad again"] == 2 else None
        broker.every(lambda peer: peer.confirm_all())
    assert settled(broker, good, bad) == [None, OutcomeUnknown]
    assert broker.sent["bad again"] <= 2


@pytest.mark.parametrize("code", [320, 530])
def test_a_connection_that_is_closed_for_another_reason_gives_no_message_up(broker: Broker, code: int) -> None:
    """An operator's request, or a limit: the message that was alone in flight is sent again."""
    client = broker.ready(republish_unconfirmed=True, timeout=60)
    sent = client.publish("", "q", b"")
    broker.clock.turn()
    broker.peer.close_connection(code, "bye")
    broker.peer.deliver()
    broker.clock.advance(2)
    assert settled(broker, sent) == [None]


def test_a_stored_message_alone_that_cost_the_connection_is_set_aside(broker: Broker, tmp_path: Path) -> None:
    """With RabbitMQ's text; the next stored ones are delivered."""
    client = broker.client(outbox=tmp_path, timeout=0, max_unconfirmed=1)
    broker.clock.turn()
    for exchange in ("events", "", ""):
        client.publish(exchange, "q", b"").add_done_callback(lambda ended: ended.exception())
    broker.clock.advance(1)
    assert client.counters.stored == 3
    broker.open()
    broker.peer.close_connection(541, "INTERNAL_ERROR")
    broker.peer.deliver()
    for _ in range(8):
        broker.clock.advance(1)
        broker.open()
        broker.every(lambda peer: peer.confirm_all())
    assert (client.counters.set_aside, client.counters.stored) == (1, 0)


def test_what_is_remembered_is_bounded(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was known longest is forgotten, and asked about again."""
    monkeypatch.setattr(exchanges, "MEMORY_LIMIT", 2)
    client = using(broker, "one", "two", "three")
    assert not waits(broker, client, "three", "q")
    assert waits(broker, client, "one", "q")


# What a stranger's text decides, and what not


def refuses(broker: Broker, *denied: tuple[str, str]) -> None:
    """Have RabbitMQ refuse topics, each an exchange and a routing key, as RabbitMQ words it."""
    patched, judge = cast("Any", broker), broker.judge

    def judge_topics(message: Published) -> None:
        if (message.exchange, message.routing_key) in denied:
            quoted = f"topic '{message.routing_key}' in exchange '{message.exchange}' in vhost '/'"
            raise Refused(403, f"ACCESS_REFUSED - access to {quoted} refused for user 'guest'"[:255])
        judge(message)

    patched.judge = judge_topics


HOSTILE_LIMIT: Final = "PRECONDITION_FAILED - message size 1 is larger than max size 1"


@pytest.mark.parametrize("words", ["message size 1 is larger than max size 1", HOSTILE_LIMIT])
@pytest.mark.parametrize("code", [403, 404, 406])
def test_no_text_of_a_stranger_sets_the_limit_of_bodies(broker: Broker, words: str, code: int) -> None:
    """Quoted in a refusal, as a routing key or the name of an exchange."""
    client = using(broker)
    broker.peer.close_channel(code=code, text=f"SOMETHING - access to topic '{words}' in exchange 'events' refused")
    broker.open()
    assert settled(broker, client.publish("", "q", b"xx")) == [None]
    broker.peer.close_channel(code=403 if code == 406 else code, text=words)
    broker.open()
    assert settled(broker, client.publish("", "q", b"xx")) == [None]


def test_a_refused_topic_refuses_that_topic_alone(broker: Broker) -> None:
    """It is first in line while the client is not ready: the messages behind it, to other topics, are confirmed."""
    refuses(broker, ("events", "denied"))
    client = broker.client(timeout=60)
    broker.clock.turn()
    bad = [client.publish("events", "denied", b"")]
    good = [client.publish("events", f"key{number}", b"") for number in range(20)]
    bad.append(client.publish("events", "denied", b""))
    for _ in range(6):
        broker.open().peer.confirm_all()
    assert settled(broker, *good) == [None] * 20
    assert settled(broker, *bad) == [ExchangeRefused] * 2
    assert closes(client) == 0


def test_a_refused_topic_sets_no_other_stored_message_aside(broker: Broker, tmp_path: Path) -> None:
    """With an outbox, the one is set aside, and the others are delivered."""
    refuses(broker, ("events", "denied"))
    client = broker.client(outbox=tmp_path, timeout=0)
    broker.clock.turn()
    for key in ("denied", *(f"key{number}" for number in range(10))):
        client.publish("events", key, b"")
    broker.clock.advance(1)
    for _ in range(10):
        broker.open()
        broker.every(lambda peer: peer.confirm_all())
    assert (client.counters.set_aside, client.counters.stored, len(broker.messages)) == (1, 0, 10)


@pytest.mark.parametrize(
    "key",
    [
        "x' in exchange 'other' in vhost '/' refused for user 'guest",
        "q' in exchange 'other' in vhost '/' refused for user 'guest'",
        "q' in exchange 'other' in vhost '/' refused for user 'guest', ",
        "'other'",
        "x" * 200,
        "x" * 250,
    ],
)
def test_a_refused_key_that_quotes_another_exchange_has_that_exchange_left_alone(broker: Broker, key: str) -> None:
    """RabbitMQ's text is compared as a whole with the messages that were in flight."""
    refuses(broker, ("events", key))
    client = using(broker, "events", "other")
    bad, good = client.publish("events", key, b""), client.publish("other", "q", b"")
    broker.open()
    assert settled(broker, bad, good) == [OutcomeUnknown] * 2
    assert settled(broker, client.publish("other", "first", b"")) == [None]
    assert not waits(broker, client, "other", "second")
    assert waits(broker, client, "events", "third")


def test_judging_topics_lapses(broker: Broker) -> None:
    """After five minutes the exchange is used as any other, until RabbitMQ refuses a topic of it again."""
    refuses(broker, ("events", "denied"))
    client = using(broker, "events")
    assert settled(broker, client.publish("events", "denied", b"")) == [OutcomeUnknown]
    assert [waits(broker, client, "events", key) for key in ("a", "b", "a")] == [True, True, False]
    broker.clock.advance(300)
    assert [waits(broker, client, "events", key) for key in ("c", "d", "e")] == [True, False, False]
    assert settled(broker, client.publish("events", "denied", b"")) == [OutcomeUnknown]
    assert [waits(broker, client, "events", key) for key in ("f", "g")] == [True, True]


LONG_NAME: Final = "é" * 110


def test_a_long_name_stands_for_no_exchange_of_another_name(broker: Broker) -> None:
    """After one publish to such an exchange, a long routing key or user refuses nobody at an exchange that exists."""
    broker.costly = {LONG_NAME}
    client = using(broker)
    assert settled(broker, client.publish(LONG_NAME, "q", b"")) == [ExchangeRefused]
    broker.clock.advance(2)
    first = client.publish("events", LONG_NAME, b"", timeout=60)
    behind = [client.publish("events", "q", b"", timeout=60) for _ in range(10)]
    assert settled(broker, first, *behind) == [None] * 11
    # Other exchanges with such names are taken for the same, unless RabbitMQ has accepted them.
    peers = len(broker.peers)
    assert settled(broker, client.publish("ä" * 110, "q", b"")) == [ExchangeRefused]
    assert len(broker.peers) == peers


def test_a_long_name_that_was_accepted_stays_so_beside_one_that_was_costly(broker: Broker) -> None:
    """A stranger's name decides nothing about an exchange in use."""
    client = using(broker, "ö" * 110)
    broker.costly = {LONG_NAME}
    assert settled(broker, client.publish(LONG_NAME, "q", b"")) == [ExchangeRefused]
    assert settled(broker, client.publish("ö" * 110, "q", b""), client.publish(LONG_NAME, "q", b"")) == [
        None,
        ExchangeRefused,
    ]


# What is limited


@pytest.mark.parametrize(
    ("routes", "problem"),
    [
        ({"CC": ["a"] * 100}, None),
        ({"CC": ["a"] * 60, "BCC": ["b"] * 41}, "101 routes in CC and BCC, more than 100 (max_routes)"),
        ({"CC": ["x" * 200] * 21}, "4200 octets of routes in CC and BCC, more than 4096 (max_routes_size)"),
        ({"BCC": ["é" * 100] * 21}, "4200 octets of routes"),
    ],
)
def test_a_message_has_a_limited_number_of_routes(broker: Broker, routes: dict[str, Any], problem: str | None) -> None:
    """RabbitMQ looks up each of them; the settings allow more, or fewer."""
    client = broker.ready()
    future = client.publish("", "q", b"", {"headers": routes})
    if problem is None:
        assert settled(broker, future) == [None]
    else:
        assert (outcome(future), problem in str(future.exception())) == (InvalidMessage, True)
        assert settled(
            broker, broker.ready(max_routes=200, max_routes_size=10_000).publish("", "q", b"", {"headers": routes})
        )


def test_octets_on_the_wire_have_a_limit(broker: Broker) -> None:
    """Besides the number of messages; one that is larger than the limit goes out all the same, alone."""
    client = broker.ready(max_unconfirmed_size=1000)
    futures = [client.publish("", "q", bytes(400)) for _ in range(6)]
    broker.clock.turn()
    assert (client.unconfirmed, client.waiting) == (3, 3)
    broker.open().peer.confirm_all()
    broker.clock.turn()
    assert (client.unconfirmed, client.waiting) == (3, 0)
    assert settled(broker, *futures) == [None] * 6
    large = [client.publish("", "q", bytes(5000)) for _ in range(2)]
    broker.clock.turn()
    assert client.unconfirmed == 1
    assert settled(broker, *large) == [None] * 2
    # A lost connection takes them off the wire.
    lost = client.publish("", "q", bytes(5000))
    broker.clock.turn()
    broker.peer.lose()
    assert outcome(lost) is OutcomeUnknown
    broker.clock.advance(2)
    assert settled(broker, client.publish("", "q", b"")) == [None]


def test_what_was_accepted_before_is_checked_first_and_has_room_in_line(broker: Broker) -> None:
    """A stranger publishes to exchanges that do not exist while the client is away."""
    client = broker.ready(max_waiting=100, timeout=60)
    assert settled(broker, client.publish("events", "q", b"")) == [None]
    broker.missing |= {f"none{number}" for number in range(300)}
    broker.peer.lose()
    strangers = [client.publish(f"none{number}", "q", b"") for number in range(300)]
    good = [client.publish("events", "q", b"", {"message_id": f"good{number}"}) for number in range(40)]
    for each in strangers:
        each.add_done_callback(lambda ended: ended.exception())
    assert (client.waiting, any(each.done() for each in good)) == (90, False)
    assert "exchanges that RabbitMQ has not accepted before" in str(strangers[-1].exception())
    broker.clock.advance(2)
    peer = broker.peer
    peer.accept()
    for _ in range(30):
        peer.deliver()
        broker.clock.turn(2)
        if len(broker.messages) > 40:
            break
    assert len(broker.messages) == 41
    assert sum(not each.done() for each in strangers) > 40
    assert settled(broker, *good) == [None] * 40
    settled(broker, *strangers)


def test_a_first_start_gives_all_of_the_line_to_whatever_comes(broker: Broker) -> None:
    """Nothing has been accepted yet: nothing is a stranger."""
    client = broker.client(max_waiting=10, timeout=60)
    broker.clock.turn()
    futures = [client.publish(f"e{number}", "q", b"") for number in range(10)]
    assert client.waiting == 10
    assert settled(broker, *futures) == [None] * 10


# Returned messages


def test_an_expiration_is_sent_as_it_comes_back(broker: Broker) -> None:
    """RabbitMQ returns it without leading zeros: so it is sent."""
    client = broker.ready(fail_on_return=True)
    client.publish("", "q", b"", {"expiration": "007"}).add_done_callback(lambda ended: ended.exception())
    client.publish("", "q", b"", {"expiration": "00"}).add_done_callback(lambda ended: ended.exception())
    broker.open()
    assert [message.properties.expiration for message in broker.published] == ["7", "0"]


def returned(broker: Broker, client: Client, header: str) -> None:
    """Return a message that RabbitMQ has changed: a header of it has another value."""
    client.on_basic_return(
        None,
        spec.Basic.Return(312, "NO_ROUTE", "", "key"),
        spec.BasicProperties(message_id="same", headers={"h": header}),
        b"",
    )


def test_of_messages_that_cannot_be_told_apart_none_is_taken_for_confirmed(broker: Broker) -> None:
    """Each that may have been returned ends so, with the doubt; one that differs in more is confirmed."""
    client = broker.ready(fail_on_return=True, on_return_callback=lambda *_: None)
    same = [client.publish("", "key", b"", {"message_id": "same", "headers": {"h": h}}) for h in ("a", "b", "c")]
    other = client.publish("", "key", b"", {"message_id": "other"})
    broker.clock.turn()
    returned(broker, client, "changed")
    assert settled(broker, *same, other) == [MessageReturned] * 3 + [None]
    assert all("3 messages are alike, and it may have been another one" in str(each.exception()) for each in same)
    alone = client.publish("", "key", b"", {"message_id": "same", "headers": {"h": "a"}})
    broker.clock.turn()
    returned(broker, client, "changed")
    assert settled(broker, alone) == [MessageReturned]
    assert "alike" not in str(alone.exception())


def test_few_messages_are_decoded_for_a_returned_one(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many have the same id, address and body, and however large their headers are."""
    decoded = 0
    has = Message.has

    def count(self: Message, properties: spec.BasicProperties) -> bool:
        nonlocal decoded
        decoded += 1
        return has(self, properties)

    monkeypatch.setattr(Message, "has", count)
    client = broker.ready(fail_on_return=True, on_return_callback=lambda *_: None)
    futures = [client.publish("", "key", b"", {"message_id": "same", "headers": {"h": str(n)}}) for n in range(100)]
    broker.clock.turn()
    returned(broker, client, "changed")
    assert decoded <= 10
    assert settled(broker, *futures) == [MessageReturned] * 100


@pytest.mark.parametrize("stored", [False, True])
def test_a_message_beside_a_question_that_cost_the_connection_is_not_blamed(
    broker: Broker, tmp_path: Path, stored: bool
) -> None:
    """It was alone in flight, but RabbitMQ was reading something else; it is sent again."""
    given: dict[str, Any] = {"outbox": tmp_path} if stored else {"republish_unconfirmed": True}
    client = broker.ready(timeout=60, **given)
    assert settled(broker, client.publish("events", "q", b"")) == [None]
    broker.costly = {"bad"}
    good = client.publish("events", "q", b"", {"message_id": "good"})
    bad = client.publish("bad", "q", b"")
    for _ in range(12):
        broker.open()
        broker.clock.advance(1)
    assert settled(broker, good, bad) == [None, ExchangeRefused]
    assert (broker.sent["good"], client.counters.set_aside) == (2, 0)


def test_a_judged_exchange_delays_no_other(broker: Broker) -> None:
    """However many routing keys a stranger has: each is asked about in its turn, also after a reconnect."""
    client = using(broker, "events")
    broker.peer.lose()
    broker.clock.advance(2)
    assert settled(broker, client.publish("events", "q", b"")) == [None]
    broker.denied = {"denied"}
    denied = client.publish("events", "denied", b"")
    assert settled(broker, denied) == [OutcomeUnknown]
    broker.denied = set()
    for number in range(60):
        client.publish("events", f"first {number}", b"").add_done_callback(lambda ended: ended.exception())
    report = client.publish("reports", "q", b"")
    for number in range(200):
        client.publish("events", f"then {number}", b"", timeout=60).add_done_callback(lambda ended: ended.exception())
        broker.open().peer.confirm_all()
        broker.clock.advance(0.05)
    assert outcome(report) is None


def test_an_exchange_that_was_deleted_holds_no_other_up(broker: Broker) -> None:
    """However many messages to it keep coming: it is asked about first after a loss, but only once."""
    client = using(broker, "deleted")
    broker.missing = {"deleted"}
    client.publish("deleted", "q", b"").add_done_callback(lambda ended: ended.exception())
    broker.open()
    broker.clock.advance(1)
    other: asyncio.Future[None] | None = None
    for number in range(20):
        for _ in range(3):
            client.publish("deleted", "q", b"").add_done_callback(lambda ended: ended.exception())
        other = other or client.publish("other", "q", b"")
        # One answer at a time.
        broker.clock.turn(8)
        broker.peer.deliver()
        broker.peer.confirm_all()
        assert number < 10 or other.done()
    assert other is not None and outcome(other) is None


def test_neither_user_ids_nor_routing_keys_take_the_room_of_known_exchanges(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are strangers like unknown exchanges, and push no exchange out of memory."""
    client = broker.ready(max_waiting=100, timeout=60)
    assert settled(broker, *(client.publish(each, "q", b"") for each in ("orders", "events"))) == [None, None]
    broker.denied = {"denied"}
    assert settled(broker, client.publish("events", "denied", b"")) == [OutcomeUnknown]
    assert settled(broker, client.publish("orders", "q", b"")) == [None]
    monkeypatch.setattr(exchanges, "MEMORY_LIMIT", 10)
    for number in range(20):
        assert settled(broker, client.publish("events", f"key {number}", b"")) == [None]
    assert not waits(broker, client, "orders", "q")
    broker.peer.lose()
    broker.clock.turn()
    for number in range(200):
        strange: dict[str, Any] = {"user_id": f"user {number}"}
        client.publish("orders", "q", b"", strange).add_done_callback(lambda ended: ended.exception())
    good = client.publish("orders", "q", b"")
    assert not good.done()
    broker.clock.advance(2)
    assert settled(broker, good) == [None]


@pytest.mark.parametrize("settings", [{"max_waiting_size": 1000}, {"max_waiting": 1}])
def test_an_empty_line_takes_one_message_of_any_size(broker: Broker, settings: dict[str, Any]) -> None:
    """To an exchange that RabbitMQ has not accepted before, too."""
    client = broker.ready(**settings)
    assert settled(broker, client.publish("known", "q", b"")) == [None]
    assert settled(broker, client.publish("new", "q", b"x" * 1500)) == [None]
