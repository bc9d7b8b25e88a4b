"""What becomes of a publish: its line, its limits and its end; against a broker in memory."""

import asyncio

import pytest
from pika import spec
from pika.exceptions import ChannelClosedByBroker, StreamLostError

from sprockets_amqp import ExchangeRefused, InvalidMessage, NotReadyError, OutcomeUnknown
from sprockets_amqp.client import Client
from sprockets_amqp.states import Closing, State
from tests.support.memory import Broker, in_memory, outcome

broker = in_memory


def published(client: Client, count: int, exchange: str = "") -> "list[asyncio.Future[None]]":
    """Publish a few messages."""
    return [client.publish(exchange, "q", b"") for _ in range(count)]


def on_the_wire(broker: Broker) -> int:
    """How many messages the broker has and did not confirm."""
    return sum(len(tags) for tags in broker.peer.unconfirmed.values())


# The line


@pytest.mark.parametrize("why", ["not ready", "full window"])
def test_a_publish_waits_for_as_long_as_it_was_told(broker: Broker, why: str) -> None:
    """Its own timeout counts, not the client's, whether it waits for ready or for room among the unconfirmed."""
    client = broker.client(timeout=30) if why == "not ready" else broker.ready(timeout=30, max_unconfirmed=1)
    if why == "full window":
        client.publish("", "q", b"").add_done_callback(lambda ended: ended.exception())
    broker.clock.turn()
    future = client.publish("", "q", b"", timeout=2)
    broker.clock.advance(1.9)
    assert (future.done(), client.waiting) == (False, 1)
    broker.clock.advance(0.2)
    assert (outcome(future), client.waiting) == (NotReadyError, 0)
    says = "connection is Connecting" if why == "not ready" else "unconfirmed messages has reached max_unconfirmed (1)"
    assert says in str(future.exception())


def test_a_cancelled_publish_leaves_the_line_at_once(broker: Broker) -> None:
    """It makes room for another under max_waiting, and is never sent."""
    client = broker.client(max_waiting=2)
    first, second = published(client, 2)
    assert outcome(client.publish("", "q", b"")) is NotReadyError
    first.cancel()
    broker.clock.turn(1)
    assert (client.waiting, client.counters.waiting) == (1, 1)
    third = client.publish("", "q", b"")
    assert client.waiting == 2
    assert outcome(client.publish("", "q", b"")) is NotReadyError
    broker.open().peer.confirm_all()
    assert (outcome(second), outcome(third), len(broker.messages)) == (None, None, 2)


def test_what_waits_goes_out_when_the_alarm_ends(broker: Broker) -> None:
    """connection.unblocked sends it, in the order of the calls."""
    client = broker.ready()
    broker.peer.say(0, spec.Connection.Blocked("low on memory"))
    broker.peer.deliver()
    futures = [client.publish("", "q", b"", {"message_id": f"m{number}"}) for number in range(3)]
    broker.clock.advance(5)
    assert (client.waiting, broker.messages) == (3, [])
    broker.peer.say(0, spec.Connection.Unblocked())
    broker.peer.deliver()
    broker.clock.turn()
    assert (client.waiting, broker.messages) == (0, ["m0", "m1", "m2"])
    broker.peer.confirm_all()
    assert [outcome(future) for future in futures] == [None] * 3


def test_the_counters_are_a_copy_that_knows_what_is_under_way(broker: Broker) -> None:
    """They tell how many wait and are unconfirmed now, and do not change in the hand of who asked."""
    client = broker.ready(max_unconfirmed=2)
    futures = published(client, 5)
    broker.clock.turn()
    counters = client.counters
    assert (counters.unconfirmed, counters.waiting, counters.published) == (2, 3, 2)
    assert (client.unconfirmed, client.waiting) == (2, 3)
    while not all(future.done() for future in futures):
        broker.peer.confirm_all()
        broker.clock.turn()
    assert (counters.unconfirmed, counters.waiting, counters.confirmed) == (2, 3, 0)
    counters.confirmed = 99
    assert (client.counters.unconfirmed, client.counters.waiting, client.counters.confirmed) == (0, 0, 5)


# New exchanges


def test_a_publish_that_may_not_wait_still_waits_for_the_word_on_its_exchange(broker: Broker) -> None:
    """With timeout=0 a ready client sends it when RabbitMQ answered, 4.9 seconds later if need be."""
    client = broker.ready()
    future = client.publish("events", "q", b"", timeout=0)
    broker.clock.advance(4.9)
    assert (future.done(), client.waiting) == (False, 1)
    broker.open().peer.confirm_all()
    assert outcome(future) is None


@pytest.mark.parametrize(("timeout", "ends"), [(0, 5), (2, 5), (8, 8)])
def test_no_word_on_an_exchange_ends_in_not_ready(broker: Broker, timeout: float, ends: float) -> None:
    """It is waited for as long as the publish may wait, and for 5 seconds at least; then others go on."""
    broker.unanswered.add("silent")
    client = broker.ready()
    known = client.publish("events", "q", b"")
    broker.open().peer.confirm_all()
    assert outcome(known) is None
    future = client.publish("silent", "q", b"", timeout=timeout)
    broker.open()
    broker.clock.advance(ends - 0.1)
    assert not future.done()
    broker.clock.advance(0.2)
    assert outcome(future) is NotReadyError
    assert client.ready
    others = [client.publish(exchange, "q", b"") for exchange in ("", "events")]
    broker.open().peer.confirm_all()
    assert [outcome(other) for other in others] == [None, None]


def test_a_question_that_is_never_answered_holds_up_nobody_for_good(broker: Broker) -> None:
    """Once it is given up those behind it in line go out, and other new exchanges are asked about."""
    broker.unanswered.add("silent")
    client = broker.ready()
    asked = client.publish("silent", "q", b"", timeout=0)
    behind = [client.publish(exchange, "q", b"", timeout=30) for exchange in ("", "events")]
    broker.open()
    broker.clock.advance(6)
    assert outcome(asked) is NotReadyError
    assert "RabbitMQ has not answered whether it accepts messages for exchange 'silent'" in str(asked.exception())
    broker.open().peer.confirm_all()
    assert [future.done() for future in behind] == [True, False]
    # The channel that the question was asked on does not get closed; the next one gives it up after a limit of its own.
    broker.clock.advance(5)
    broker.open().peer.confirm_all()
    assert [outcome(future) for future in behind] == [None, None]


# Limits


def test_the_largest_message_goes_out_and_a_larger_one_is_refused(broker: Broker) -> None:
    """max_message_size holds to the octet; nothing of what is larger is sent, and the next is confirmed."""
    client = broker.ready(max_message_size=10)
    largest = client.publish("", "q", b"x" * 10, {"message_id": "largest"})
    larger = client.publish("", "q", b"x" * 11, {"message_id": "larger"})
    after = client.publish("", "q", b"", {"message_id": "after"})
    broker.open()
    assert outcome(larger) is InvalidMessage
    assert "body has 11 bytes, more than the 10" in str(larger.exception())
    assert (broker.messages, client.counters.published, client.unconfirmed) == (["largest", "after"], 2, 2)
    broker.peer.confirm_all()
    assert (outcome(largest), outcome(after)) == (None, None)


def test_a_message_that_is_too_large_is_refused_when_its_turn_comes(broker: Broker) -> None:
    """What waited for ready is held against the limit as well."""
    client = broker.client(max_message_size=10)
    larger, fits = client.publish("", "q", b"x" * 11), client.publish("", "q", b"x" * 10)
    broker.open().peer.confirm_all()
    assert (outcome(larger), outcome(fits), len(broker.messages)) == (InvalidMessage, None, 1)


def test_without_confirmations_a_slow_line_holds_messages_back(broker: Broker) -> None:
    """More than 4 MiB behind the socket, they wait in line, and go out when it has taken them."""
    broker.tune = spec.Connection.Tune(5, 131072, 0)
    client = broker.ready(enable_confirmations=False)
    broker.peer.slow_down(slow=True)
    large = client.publish("", "q", bytes(5 * 1024**2), {"message_id": "large"})
    broker.clock.turn()
    assert outcome(large) is None
    held = [client.publish("", "q", b"", {"message_id": f"m{number}"}) for number in range(3)]
    broker.clock.advance(1)
    assert (client.waiting, [future.done() for future in held]) == (3, [False] * 3)
    broker.peer.slow_down(slow=False)
    broker.clock.advance(0.1)
    assert (client.waiting, [outcome(future) for future in held]) == (0, [None] * 3)
    assert client.counters.published == 4
    assert client.counters.waiting == 0


@pytest.mark.parametrize(("count", "size", "at_once"), [(10, 1024**2, 4), (10_500, 1, 10_001)], ids=["large", "many"])
def test_without_confirmations_one_turn_of_the_loop_is_not_given_everything(
    broker: Broker, count: int, size: int, at_once: int
) -> None:
    """The socket takes what it is given only when the turn is over; until then, what is too much waits in line."""
    broker.tune = spec.Connection.Tune(5, 131072, 0)
    client = broker.ready(enable_confirmations=False)
    futures = [client.publish("", "q", bytes(size)) for _ in range(count)]
    assert (sum(each.done() for each in futures), client.waiting) == (at_once, count - at_once)
    for _ in range(3):
        broker.clock.turn()
    assert ({outcome(each) for each in futures}, client.waiting, len(broker.messages)) == ({None}, 0, count)


def test_without_confirmations_close_waits_for_the_socket(broker: Broker) -> None:
    """As with confirms, what was published before goes out first."""
    client = broker.ready(enable_confirmations=False)
    broker.peer.slow_down(slow=True)
    future = client.publish("", "q", b"", {"message_id": "last"})
    client.close()
    broker.clock.advance(5)
    assert (outcome(future), client.substate, broker.messages) == (None, Closing.DRAINING, [])
    broker.peer.slow_down(slow=False)
    broker.clock.advance(0.1)
    broker.open()
    assert (client.state, broker.messages) == (State.CLOSED, ["last"])


def test_without_confirmations_close_does_not_wait_for_a_connection_that_is_lost(broker: Broker) -> None:
    """What it had not taken is gone with it."""
    client = broker.ready(enable_confirmations=False)
    broker.peer.slow_down(slow=True)
    client.publish("", "q", b"")
    client.close()
    broker.clock.advance(1)
    broker.peer.lose()
    broker.clock.advance(1)
    assert (client.state, broker.clock.timers()) == (State.CLOSED, [])


# Confirms


def test_a_late_confirmation_makes_room(broker: Broker) -> None:
    """After confirm_timeout the message still counts against max_unconfirmed, until RabbitMQ's word on it comes."""
    client = broker.ready(confirm_timeout=3, max_unconfirmed=1)
    late = client.publish("", "q", b"")
    follows = client.publish("", "q", b"", {"message_id": "follows"}, timeout=30)
    broker.clock.advance(4)
    assert (outcome(late), client.unconfirmed, client.waiting) == (OutcomeUnknown, 1, 1)
    broker.peer.confirm_all()
    broker.clock.turn()
    assert (client.unconfirmed, client.waiting, broker.messages[1:]) == (1, 0, ["follows"])
    broker.peer.confirm_all()
    assert (outcome(follows), client.unconfirmed) == (None, 0)


def test_once_the_suspects_are_settled_messages_go_out_together_again(broker: Broker) -> None:
    """RabbitMQ closed the channel over one of three: each is sent alone, and those that follow as the limits let it."""
    client = broker.ready(republish_unconfirmed=True, max_unconfirmed=10)
    suspects = published(client, 3)
    broker.clock.turn()
    assert on_the_wire(broker) == 3
    broker.peer.close_channel(code=406, text="PRECONDITION_FAILED")
    broker.open()
    others = published(client, 5)
    for settled in range(3):
        broker.clock.turn()
        assert (on_the_wire(broker), client.waiting) == (1, 7 - settled)
        broker.peer.confirm_all()
    assert [outcome(future) for future in suspects] == [None] * 3
    broker.clock.turn()
    assert (on_the_wire(broker), client.waiting) == (5, 0)
    broker.peer.confirm_all()
    assert [outcome(future) for future in others] == [None] * 5


def test_a_suspect_that_is_refused_alone_lets_the_others_go_out_together(broker: Broker) -> None:
    """It ends with its outcome unknown, those in its company are confirmed, and the limits are what they were."""
    client = broker.ready(republish_unconfirmed=True, max_unconfirmed=10)
    culprit, innocent = published(client, 2)
    for _ in range(2):
        broker.clock.turn()
        broker.peer.close_channel(code=406, text="PRECONDITION_FAILED")
        broker.open()
        broker.clock.advance(1)
        broker.open()
    assert (outcome(culprit), on_the_wire(broker)) == (OutcomeUnknown, 1)
    broker.peer.confirm_all()
    assert outcome(innocent) is None
    published(client, 4)
    broker.open()
    assert on_the_wire(broker) == 4
    broker.peer.confirm_all()


# What it says


def test_a_lost_connection_is_the_cause_of_what_is_unknown(broker: Broker) -> None:
    """The exception chains what happened, and repeats it in its sentence; the same for a channel."""
    client = broker.ready()
    (future,) = published(client, 1)
    broker.clock.turn()
    broker.peer.close_channel(code=406, text="PRECONDITION_FAILED - no")
    broker.open()
    error = future.exception()
    assert isinstance(error, OutcomeUnknown)
    assert isinstance(error.__cause__, ChannelClosedByBroker)
    assert (error.__cause__.reply_code, error.__cause__.reply_text) == (406, "PRECONDITION_FAILED - no")
    assert "may have arrived: (406) PRECONDITION_FAILED - no" in str(error)
    (future,) = published(client, 1)
    broker.clock.turn()
    broker.peer.lose(ConnectionResetError(104, "Connection reset by peer"))
    error = future.exception()
    assert isinstance(error, OutcomeUnknown)
    assert isinstance(error.__cause__, StreamLostError)
    assert "the connection was lost: Connection reset by peer" in str(error.__cause__)
    assert "the connection was lost: Connection reset by peer" in str(error)


def test_not_ready_names_the_state_and_the_trouble(broker: Broker) -> None:
    """The sentence says in which state the connection is and why, and which message was not sent."""
    client = broker.client()

    def refusal(words: str) -> None:
        future = client.publish("", "q", b"", {"message_id": "m1"}, timeout=0)
        error = future.exception()
        assert isinstance(error, NotReadyError)
        assert str(error) == f"connection is {words}; message m1 was not sent: retry, or answer 503"

    refusal("Idle")
    broker.clock.turn()
    refusal("Connecting")
    broker.peer.refuse()
    refusal("Closed (TCP to broker:5672 (127.0.0.1): Connection refused)")
    broker.clock.advance(1)
    refusal("Connecting (TCP to broker:5672 (127.0.0.1): Connection refused)")
    broker.open().peer.say(0, spec.Connection.Blocked("low on memory"))
    broker.peer.deliver()
    refusal("Blocked (low on memory)")
    broker.peer.say(0, spec.Connection.Unblocked())
    broker.peer.deliver()
    client.close()
    refusal("Closing")
    broker.open()
    refusal("Closed ((200) Normal shutdown)")


def test_the_line_is_bounded_in_octets(broker: Broker) -> None:
    """What does not fit is refused and says why; what leaves makes room, however it leaves; order is kept."""
    client = broker.client(max_waiting_size=1200, timeout=60)
    futures = [client.publish("", "q", bytes(300), {"message_id": f"m{number}"}) for number in range(4)]
    assert [future.done() for future in futures] == [False, False, False, True]
    assert outcome(futures[3]) is NotReadyError
    assert "octets are waiting already (max_waiting_size)" in str(futures[3].exception())
    futures[1].cancel()
    broker.clock.turn()
    fits = client.publish("", "q", bytes(300), {"message_id": "m4"})
    broker.open().peer.confirm_all()
    assert broker.messages == ["m0", "m2", "m4"]
    assert (outcome(fits), client.waiting) == (None, 0)
    broker.peer.lose()
    again = [client.publish("", "q", bytes(300)) for _ in range(4)]
    assert [future.done() for future in again] == [False, False, False, True]
    assert outcome(again[3]) is NotReadyError
    broker.clock.advance(2)
    broker.open().peer.confirm_all()
    assert [outcome(future) for future in again[:3]] == [None] * 3


def test_a_message_larger_than_the_line_waits_alone(broker: Broker) -> None:
    """It is held up by nobody's memory but its own."""
    client = broker.client(max_waiting_size=1000)
    alone = client.publish("", "q", bytes(5000))
    behind = client.publish("", "q", b"")
    assert outcome(behind) is NotReadyError
    broker.open().peer.confirm_all()
    assert outcome(alone) is None


def test_a_body_that_no_rabbitmq_takes_is_refused_before_there_is_one(broker: Broker) -> None:
    """It would be refused when its turn comes; until then it would only take memory."""
    client = broker.client()
    larger = client.publish("", "q", bytes(128 * 1024**2 + 1))
    assert outcome(larger) is InvalidMessage
    assert client.waiting == 0
    small = broker.client(max_message_size=10)
    assert outcome(small.publish("", "q", bytes(11))) is InvalidMessage


def test_what_was_sent_before_its_exchange_was_refused_has_an_unknown_outcome(broker: Broker) -> None:
    """RabbitMQ may have it from the connection that was lost: the refusal on the next one says nothing of that."""
    client = broker.ready(republish_unconfirmed=True)
    sent, waits = (client.publish("events", "q", b"", {"message_id": name}) for name in ("sent", "waits"))
    broker.open()
    assert broker.messages == ["sent", "waits"]
    broker.missing.add("events")
    broker.peer.lose()
    broker.clock.advance(1)
    never_sent = client.publish("events", "q", b"")
    broker.open()
    assert [outcome(each) for each in (sent, waits, never_sent)] == [OutcomeUnknown, OutcomeUnknown, ExchangeRefused]
    assert "refused the exchange: (404) NOT_FOUND" in str(sent.exception())
