"""Every way in which a publish can end: its observers are told it once, with its error and its times."""

import asyncio
import tempfile
from collections.abc import Callable
from typing import Final

import pytest

from sprockets_amqp import Outcome, errors
from sprockets_amqp.observers import OUTCOMES
from tests.support.memory import Broker, in_memory
from tests.support.observing import Seen

broker = in_memory
Future = asyncio.Future[None]

# Every outcome


def confirmed(broker: Broker, seen: Seen) -> Future:
    """RabbitMQ acks it."""
    client = broker.ready()
    seen.of(client)
    future = client.publish("", "q", b"12345")
    broker.open().peer.confirm_all()
    return future


def unroutable(broker: Broker, seen: Seen) -> Future:
    """It is returned, and that is no failure."""
    broker.unroutable.add("nowhere")
    client = broker.ready(on_return_callback=lambda *_: None)
    seen.of(client)
    future = client.publish("", "nowhere", b"")
    broker.open().peer.confirm_all()
    return future


def handed_over(broker: Broker, seen: Seen) -> Future:
    """No confirms are asked for."""
    client = broker.ready(enable_confirmations=False)
    seen.of(client)
    return client.publish("", "q", b"12345")


def invalid(broker: Broker, seen: Seen) -> Future:
    """A property is unknown."""
    client = broker.ready()
    seen.of(client)
    return client.publish("", "q", b"", {"colour": "red"})


def no_properties(broker: Broker, seen: Seen) -> Future:
    """Properties that are no dict."""
    client = broker.ready()
    seen.of(client)
    return client.publish("", "q", b"", 5)  # type: ignore[arg-type]


def bad_option(broker: Broker, seen: Seen) -> Future:
    """A timeout that is no number."""
    client = broker.ready()
    seen.of(client)
    return client.publish("", "q", b"", timeout="soon")  # type: ignore[arg-type]


def too_large(broker: Broker, seen: Seen) -> Future:
    """It has more octets than RabbitMQ takes."""
    client = broker.ready(max_message_size=10)
    seen.of(client)
    return client.publish("", "q", b"x" * 11)


def too_large_in_its_turn(broker: Broker, seen: Seen) -> Future:
    """It waited in line before that was known."""
    client = broker.client(max_message_size=10)
    seen.of(client)
    future = client.publish("", "q", b"x" * 11)
    broker.open()
    return future


def not_to_wait(broker: Broker, seen: Seen) -> Future:
    """It may not wait, and the client is not ready."""
    client = broker.client()
    seen.of(client)
    return client.publish("", "q", b"", timeout=0)


def waited_in_vain(broker: Broker, seen: Seen) -> Future:
    """It waited for as long as it may."""
    client = broker.client()
    seen.of(client)
    future = client.publish("", "q", b"", timeout=2)
    broker.clock.advance(3)
    return future


def persistent(broker: Broker, seen: Seen) -> Future:
    """The outage lasts longer than the client's timeout."""
    client = broker.client(timeout=3)
    broker.clock.advance(1)
    seen.of(client)
    future = client.publish("", "q", b"", timeout=100)
    broker.clock.advance(5)
    return future


def line_is_full(broker: Broker, seen: Seen) -> Future:
    """As many wait as may."""
    client = broker.client(max_waiting=1)
    client.publish("", "q", b"").add_done_callback(Future.exception)
    seen.of(client)
    return client.publish("", "q", b"")


def line_is_full_of_octets(broker: Broker, seen: Seen) -> Future:
    """As many octets wait as may."""
    client = broker.client(max_waiting_size=10)
    client.publish("", "q", b"").add_done_callback(Future.exception)
    seen.of(client)
    return client.publish("", "q", b"")


def window_is_full(broker: Broker, seen: Seen) -> Future:
    """As many are unconfirmed as may, for as long as it may wait."""
    client = broker.ready(max_unconfirmed=1)
    client.publish("", "q", b"").add_done_callback(Future.exception)
    seen.of(client)
    future = client.publish("", "q", b"", timeout=1)
    broker.clock.advance(2)
    return future


def unanswered(broker: Broker, seen: Seen) -> Future:
    """RabbitMQ does not say whether it takes messages for the exchange."""
    broker.unanswered.add("silent")
    client = broker.ready()
    seen.of(client)
    future = client.publish("silent", "q", b"", timeout=0)
    broker.open().clock.advance(6)
    return future


def stopped(broker: Broker, seen: Seen) -> Future:
    """The client was closed on request."""
    client = broker.ready()
    client.close()
    broker.open()
    seen.of(client)
    return client.publish("", "q", b"")


def closed_meanwhile(broker: Broker, seen: Seen) -> Future:
    """It waits while the client is closed on request."""
    client = broker.ready(max_unconfirmed=1)
    client.publish("", "q", b"").add_done_callback(Future.exception)
    seen.of(client)
    future = client.publish("", "q", b"")
    broker.clock.turn()
    client.close()
    broker.open()
    return future


def within_setup(broker: Broker, seen: Seen) -> Future:
    """Nothing is published before setup has ended."""
    futures: list[Future] = []

    async def setup(_topology: object) -> None:
        futures.append(client.publish("", "q", b""))

    client = broker.client(setup=setup)
    seen.of(client)
    broker.open()
    return futures[0]


def exchange_refused(broker: Broker, seen: Seen) -> Future:
    """There is no such exchange."""
    client = broker.ready()
    seen.of(client)
    future = client.publish("missing", "q", b"")
    broker.open()
    return future


def returned(broker: Broker, seen: Seen) -> Future:
    """No queue takes it, and that is a failure."""
    broker.unroutable.add("nowhere")
    client = broker.ready(fail_on_return=True, on_return_callback=lambda *_: None)
    seen.of(client)
    future = client.publish("", "nowhere", b"")
    broker.open().peer.confirm_all()
    return future


def nacked(broker: Broker, seen: Seen) -> Future:
    """A queue refuses it."""
    client = broker.ready()
    seen.of(client)
    future = client.publish("", "q", b"")
    broker.open()
    broker.peer.confirm(1, channel=broker.peer.publishing.copy().pop(), nack=True)
    broker.peer.deliver()
    return future


def lost(broker: Broker, seen: Seen) -> Future:
    """The connection is lost before it is confirmed."""
    client = broker.ready()
    seen.of(client)
    future = client.publish("", "q", b"")
    broker.clock.turn()
    broker.peer.lose()
    return future


def unconfirmed(broker: Broker, seen: Seen) -> Future:
    """No confirmation comes in time; it comes after all, and tells nobody."""
    client = broker.ready(confirm_timeout=3)
    seen.of(client)
    future = client.publish("", "q", b"")
    broker.clock.advance(4)
    broker.peer.confirm_all()
    return future


def republished_in_vain(broker: Broker, seen: Seen) -> Future:
    """It was sent, the connection lost, and not made again in time."""
    client = broker.ready(republish_unconfirmed=True, timeout=3)
    seen.of(client)
    future = client.publish("", "q", b"")
    broker.clock.turn()
    broker.peer.lose()
    broker.clock.advance(5)
    return future


def refused_when_republished(broker: Broker, seen: Seen) -> Future:
    """It was sent, the connection lost, and the exchange is gone on the next."""
    client = broker.ready(republish_unconfirmed=True)
    seen.of(client)
    future = client.publish("events", "q", b"")
    broker.open()
    broker.missing.add("events")
    broker.peer.lose()
    broker.clock.advance(1)
    broker.open()
    return future


def cancelled_in_line(broker: Broker, seen: Seen) -> Future:
    """Its caller cancels it while it waits."""
    client = broker.client()
    seen.of(client)
    future = client.publish("", "q", b"")
    broker.clock.turn()
    future.cancel()
    return future


def cancelled_on_the_wire(broker: Broker, seen: Seen) -> Future:
    """Its caller cancels it when it was sent; that it is confirmed later is told to nobody."""
    client = broker.ready()
    seen.of(client)
    future = client.publish("", "q", b"")
    broker.clock.turn()
    future.cancel()
    broker.clock.turn()
    broker.peer.confirm_all()
    return future


Scenario = Callable[[Broker, Seen], Future]
#: Every way to end, and the number of times that it is sent on that way.
#: Removed when the tests have ended.
FOLDER = tempfile.TemporaryDirectory()


def stored(broker: Broker, seen: Seen) -> Future:
    """RabbitMQ is not there, and the disk is."""
    client = broker.client(timeout=0, outbox=FOLDER.name)
    seen.of(client)
    broker.clock.turn()
    return client.publish("", "q", b"body")


WAYS: Final[list[tuple[Scenario, Outcome, int]]] = [
    (confirmed, Outcome.CONFIRMED, 1),
    (unroutable, Outcome.CONFIRMED, 1),
    (handed_over, Outcome.SENT, 1),
    (invalid, Outcome.INVALID, 0),
    (no_properties, Outcome.INVALID, 0),
    (bad_option, Outcome.INVALID, 0),
    (too_large, Outcome.INVALID, 0),
    (too_large_in_its_turn, Outcome.INVALID, 0),
    (not_to_wait, Outcome.NOT_READY, 0),
    (waited_in_vain, Outcome.NOT_READY, 0),
    (persistent, Outcome.NOT_READY, 0),
    (line_is_full, Outcome.NOT_READY, 0),
    (line_is_full_of_octets, Outcome.NOT_READY, 0),
    (window_is_full, Outcome.NOT_READY, 0),
    (unanswered, Outcome.NOT_READY, 0),
    (stopped, Outcome.NOT_READY, 0),
    (stored, Outcome.STORED, 0),
    (closed_meanwhile, Outcome.NOT_READY, 0),
    (within_setup, Outcome.NOT_READY, 0),
    (exchange_refused, Outcome.REFUSED, 0),
    (returned, Outcome.RETURNED, 1),
    (nacked, Outcome.NACKED, 1),
    (lost, Outcome.UNKNOWN, 1),
    (unconfirmed, Outcome.UNKNOWN, 1),
    (republished_in_vain, Outcome.UNKNOWN, 1),
    (refused_when_republished, Outcome.UNKNOWN, 1),
    (cancelled_in_line, Outcome.CANCELLED, 0),
    (cancelled_on_the_wire, Outcome.CANCELLED, 1),
]


@pytest.mark.parametrize(("way", "told", "sends"), WAYS, ids=[way.__name__ for way, *_ in WAYS])
def test_each_publish_is_told_once_with_its_end(broker: Broker, way: Scenario, told: Outcome, sends: int) -> None:
    """With the error that its future raises, and the number of times that it was sent."""
    seen = Seen(trace="1")
    future = way(broker, seen)
    broker.clock.turn()
    broker.open().clock.advance(100)
    assert (len(seen.begun), seen.outcomes) == (1, [told])
    (end,) = seen.ends
    assert (end.exchange, end.routing_key) == (seen.begun[0].exchange, seen.begun[0].routing_key)
    assert end.sends == sends
    assert end.error is (None if future.cancelled() else future.exception())
    assert (end.error is None) or OUTCOMES[type(end.error)] is told
    assert end.error is None or end.error.message_id == end.message_id


def test_every_outcome_has_a_way_that_is_tested() -> None:
    """And every error that a publish can end with has an outcome."""
    assert {told for _, told, _ in WAYS} == set(Outcome)
    # Those of other tests are none of ours.
    own = {kind for kind in errors.PublishingFailure.__subclasses__() if kind.__module__ == errors.__name__}
    ends = own | {errors.NotReadyError}
    assert ends == set(OUTCOMES)


@pytest.mark.parametrize(
    ("way", "in_line"), [(waited_in_vain, 2), (lost, 0), (unconfirmed, 0), (handed_over, 0), (invalid, 0)]
)
def test_what_rabbitmq_did_not_answer_has_no_time_to_the_confirm(broker: Broker, way: Scenario, in_line: int) -> None:
    """And was in line until it was sent or, if it never was, until its end."""
    seen = Seen()
    way(broker, seen).add_done_callback(Future.exception)
    broker.clock.turn()
    (end,) = seen.ends
    assert (end.seconds_in_line, end.seconds_to_confirm) == (in_line, None)


def test_only_what_was_returned_is_told_to_be(broker: Broker) -> None:
    """Also where that is no failure: of several alike, the one that RabbitMQ returned."""
    broker.unroutable.add("nowhere")
    for fails in (False, True):
        seen = Seen().of(broker.ready(on_return_callback=lambda *_: None, fail_on_return=fails))
        client = broker.clients[-1]
        for key in ("q", "nowhere", "q"):
            client.publish("", key, b"", {"message_id": key}).add_done_callback(lambda ended: ended.exception())
        broker.open().peer.confirm_all()
        broker.clock.turn()
        assert [end.returned for end in seen.ends] == [False, True, False]
        assert (client.counters.returned, seen.outcomes[1] is Outcome.RETURNED) == (1, fails)
