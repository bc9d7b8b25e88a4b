"""How it stops: what shutdown() waits for, and for how long; against a broker in memory."""

import json
import threading

import pytest

from sprockets_amqp import OutcomeUnknown, State
from tests.support.memory import Broker, in_memory, outcome
from tests.support.request import Request, gated

broker = in_memory

#: What shutdown() is given, and what it keeps of that for confirmations and closing.
LIMITS = [(0.2, 0.1), (1, 0.5), (3, 1.5), (4, 2), (10, 2)]


@pytest.mark.parametrize(("timeout", "ends"), [(1, 0.4), (10, 7.9)])
def test_a_request_that_ends_in_time_has_its_event_confirmed(broker: Broker, timeout: float, ends: float) -> None:
    """Until it does the client is ready; then shutdown() goes on at once, be its limit far away."""
    application, client, gate = gated(broker)
    request = Request(broker, application)
    stopping = broker.clock.loop.create_task(client.shutdown(timeout))
    broker.clock.advance(ends)
    assert (client.ready, client.stopping, stopping.done()) == (True, True, False)
    gate.set()
    broker.clock.turn()
    assert (client.unconfirmed, request.status) == (1, None)
    broker.clock.advance(0.05)
    broker.peer.confirm_all()
    broker.open()
    assert (request.status, request.body) == (200, b"published")
    assert (client.closed, client.stopping, stopping.done(), client.counters.confirmed) == (True, False, True, 1)


@pytest.mark.parametrize(("timeout", "kept"), LIMITS)
def test_a_request_that_never_ends_leaves_time_for_confirmations(broker: Broker, timeout: float, kept: float) -> None:
    """Two seconds, or half of a short limit, are kept for them and for closing; what comes in then counts."""
    application, client, gate = gated(broker)
    request = Request(broker, application)
    future = client.publish("", "q", b"")
    stopping = broker.clock.loop.create_task(client.shutdown(timeout))
    broker.clock.advance(timeout - kept - 0.01)
    assert client.ready
    broker.clock.advance(0.02)
    assert client.closing
    broker.clock.advance(kept * 0.8)
    assert (client.closing, future.done()) == (True, False)
    broker.peer.confirm_all()
    broker.open()
    assert (client.closed, outcome(future), client.counters.confirmed) == (True, None, 1)
    assert [change.trigger for change in client.history][-2:] == ["close", "connection_closed"]
    # What it refuses may still be answered.
    assert not stopping.done()
    broker.clock.advance(kept * 0.2)
    assert stopping.done()
    gate.set()
    broker.clock.turn()
    assert (request.status, json.loads(request.body)["error"]) == (503, "NotReadyError")


@pytest.mark.parametrize(("timeout", "kept"), LIMITS)
def test_shutdown_keeps_to_its_limit_whatever_never_ends(broker: Broker, timeout: float, kept: float) -> None:
    """A request, a confirmation, the broker's answer to closing: at the limit it is closed, and every publish ended."""
    application, client, gate = gated(broker)
    Request(broker, application)
    future = client.publish("", "q", b"")
    stopping = broker.clock.loop.create_task(client.shutdown(timeout))
    broker.clock.advance(timeout - 0.02)
    assert (client.closing, future.done(), stopping.done()) == (True, False, False)
    broker.clock.advance(0.04)
    assert (client.closed, outcome(future), stopping.done()) == (True, OutcomeUnknown, True)
    gate.set()
    broker.clock.turn()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_request_that_is_gone_holds_up_nothing(broker: Broker, elsewhere: bool) -> None:
    """Its handler was collected, in whichever thread: shutdown() goes on at once."""
    client = broker.ready()
    handlers = [type("Handler", (), {})()]
    client.in_flight.add(handlers[0])
    stopping = broker.clock.loop.create_task(client.shutdown(10))
    broker.clock.advance(1)
    assert client.ready
    if elsewhere:
        thread = threading.Thread(target=handlers.clear)
        thread.start()
        thread.join()
    else:
        handlers.clear()
    broker.open()
    assert (client.closed, stopping.done()) == (True, True)


def test_shutdown_waits_until_the_answer_was_sent(broker: Broker) -> None:
    """A peer that reads slowly still gets its answer: until then its request is in flight."""
    application, client, gate = gated(broker)
    request = Request(broker, application, slow=True)
    gate.set()
    broker.clock.turn()
    broker.peer.confirm_all()
    broker.clock.turn()
    assert (request.status, len(client.in_flight)) == (200, 1)
    stopping = broker.clock.loop.create_task(client.shutdown(10))
    broker.clock.advance(5)
    broker.open()
    assert (client.ready, stopping.done()) == (True, False)
    request.flush()
    broker.open()
    assert (client.closed, stopping.done(), len(client.in_flight)) == (True, True, 0)


def test_shutdown_waits_until_what_is_unconfirmed_was_confirmed(broker: Broker) -> None:
    """Closing does not begin before the last confirmation, and shutdown() returns when it is done."""
    client = broker.ready()
    futures = [client.publish("", "q", b"") for _ in range(3)]
    broker.clock.turn()
    stopping = broker.clock.loop.create_task(client.shutdown(10))
    for tag in (1, 2, 3):
        broker.clock.advance(2)
        broker.open()
        assert (client.closing, stopping.done(), [future.done() for future in futures].count(True)) == (
            True,
            False,
            tag - 1,
        )
        broker.peer.confirm(tag)
    broker.open()
    assert (client.closed, stopping.done(), [outcome(future) for future in futures]) == (True, True, [None] * 3)


@pytest.mark.parametrize("answers", [True, False], ids=["closed in order", "dropped"])
def test_shutdown_returns_when_the_socket_is_closed(broker: Broker, answers: bool) -> None:
    """Whether RabbitMQ answers connection.close or is dropped at the limit, nothing of the connection is left then."""
    broker.clings = True
    client = broker.ready()
    stopping = broker.clock.loop.create_task(client.shutdown(1))
    if answers:
        broker.open()
    else:
        broker.clock.advance(1.1)
        assert client.closed
    assert (broker.peer.aborted, stopping.done()) == (True, False)
    broker.clock.advance(0.5)
    assert not stopping.done()
    broker.peer.drop_later(None)
    broker.clock.turn()
    assert (client.closed, stopping.done()) == (True, True)


@pytest.mark.parametrize("state", ["idle", "connecting", "ready", "waiting"])
def test_a_second_shutdown_announces_nothing(broker: Broker, state: str) -> None:
    """It returns at once, and neither subscribers nor the history hear of it."""
    client = broker.client()
    if state != "idle":
        broker.clock.turn()
    if state == "ready":
        broker.open()
    elif state == "waiting":
        broker.peer.refuse()
    broker.shut_down()
    told, history, since = broker.watch(client), client.history, client.state_since
    assert history[-1].dest is State.CLOSED
    before = broker.clock.now
    broker.shut_down()
    broker.clock.advance(5)
    assert (told, client.history, client.state_since) == ([], history, since)
    assert broker.clock.now - before <= 5.1


def test_shutdowns_at_the_same_time_announce_each_change_once(broker: Broker) -> None:
    """Whoever asks, and with whatever limit, it closes once; each returns when it is closed."""
    client = broker.ready()
    future = client.publish("", "q", b"")
    told = broker.watch(client)
    tasks = [broker.clock.loop.create_task(client.shutdown(timeout)) for timeout in (8, 5, 8)]
    broker.clock.advance(1)
    assert [task.done() for task in tasks] == [False] * 3
    broker.peer.confirm_all()
    broker.open()
    assert [task.done() for task in tasks] == [True] * 3
    assert (outcome(future), client.closed) == (None, True)
    changes = [("READY", "close", "CLOSING"), ("CLOSING", "connection_closed", "CLOSED")]
    assert told == changes
    assert [(change.source.name, change.trigger, change.dest.name) for change in client.history[-2:]] == changes
    assert len(client.history) == 4
