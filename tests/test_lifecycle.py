"""The client's life against a broker in memory: what takes time, or an order that no real broker keeps to."""

import asyncio
import logging
from typing import Any

import pytest
from pika import spec
from pika.exceptions import ConnectionClosedByBroker

from sprockets_amqp import ConnectionStateError, NotReadyError, OutcomeUnknown, State
from sprockets_amqp.client import Client
from sprockets_amqp.connection import link
from tests.support.memory import Broker, in_memory, outcome

broker = in_memory


def test_a_client_is_idle_until_the_loop_runs(broker: Broker) -> None:
    """Before the loop runs nothing connects, and a publish waits."""
    client = broker.client()
    future = client.publish("", "q", b"early")
    assert (client.idle, client.recovers, client.waiting, broker.peers) == (True, True, 1, [])
    told = broker.watch(client)
    broker.open().peer.confirm_all()
    broker.clock.turn()
    assert outcome(future) is None
    assert told == [("IDLE", "connect", "CONNECTING"), ("CONNECTING", "channel_opened", "READY")]


def test_a_loop_that_starts_late_is_no_outage(broker: Broker) -> None:
    """What the application does before its loop runs counts for no failure of RabbitMQ."""
    told: list[Client] = []
    client = broker.client(timeout=1, on_persistent_failure_callback=told.append)
    broker.clock.now += 100
    broker.open()
    assert client.ready
    assert told == []


def test_an_error_of_one_attempt_does_not_end_the_next(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped and connected again before the error was told, the client goes on connecting."""
    client = broker.client()

    def fail(*_: object, **__: object) -> None:
        raise OSError("no descriptors")

    with monkeypatch.context() as patched:
        patched.setattr(link, "Connection", fail)
        client.connect()
    client._runtime.lifecycle.stop()
    client.connect()
    told = broker.watch(client)
    broker.open()
    assert client.ready
    assert "connection_failed" not in [trigger for _, trigger, _ in told]


def test_the_delays_between_attempts_double_and_are_reset(broker: Broker) -> None:
    """Each attempt that fails makes the next delay longer, up to the limit; once ready for long, it begins anew."""
    client = broker.client()
    delays: list[float] = []
    for _ in range(6):
        broker.clock.turn()
        broker.peer.refuse()
        broker.clock.turn()
        assert (client.closed, client.recovers) == (True, True)
        before = broker.clock.now
        while len(broker.peers) == len(delays) + 1:
            broker.clock.advance(0.05)
        delays.append(broker.clock.now - before)
    assert all(whole / 2 - 0.1 <= delay <= whole + 0.1 for delay, whole in zip(delays, [1, 2, 4, 4, 4, 4], strict=True))
    broker.open()
    assert client.ready
    broker.clock.advance(30)
    broker.peer.lose()
    broker.clock.advance(1)
    assert client.connecting


def test_an_alarm_and_a_stopped_flow_both_have_to_end(broker: Broker) -> None:
    """Blocked for two reasons, the client is ready when both are gone, whichever goes first."""
    client = broker.ready()
    told = broker.watch(client)
    for first in ("alarm", "flow"):
        broker.peer.say(0, spec.Connection.Blocked("low"))
        broker.peer.say(1, spec.Channel.Flow(active=False))
        broker.peer.deliver()
        ends = [(0, spec.Connection.Unblocked()), (1, spec.Channel.Flow(active=True))]
        for number, method in ends if first == "alarm" else reversed(ends):
            assert client.blocked
            broker.peer.say(number, method)
            broker.peer.deliver()
        assert client.ready
    broker.clock.turn()
    assert [dest for _, _, dest in told] == ["BLOCKED", "READY"] * 2


def test_an_alarm_outlives_the_channel_and_a_stopped_flow_does_not(broker: Broker) -> None:
    """A channel that is opened again flows; on a connection that is blocked it is blocked."""
    client = broker.ready()
    broker.peer.say(1, spec.Channel.Flow(active=False))
    broker.peer.close_channel()
    broker.open()
    assert client.ready
    broker.peer.say(0, spec.Connection.Blocked("low"))
    broker.peer.close_channel()
    broker.open()
    broker.clock.advance(1)
    broker.open()
    assert client.blocked
    broker.peer.say(0, spec.Connection.Unblocked())
    broker.peer.deliver()
    assert client.ready


def test_an_alarm_is_forgotten_with_its_connection(broker: Broker) -> None:
    """What blocked the connection that was lost does not block the next."""
    client = broker.ready()
    broker.peer.stall(stalled=True)
    broker.peer.deliver()
    assert client.blocked
    broker.peer.lose()
    broker.clock.advance(1)
    broker.open()
    assert client.ready


@pytest.mark.parametrize("state", ["idle", "connecting", "opening", "ready", "blocked", "waiting", "closed"])
def test_close_closes_only_what_is_closable(broker: Broker, state: str) -> None:
    """close() is a ConnectionStateError unless the client is ready or blocked, and then changes nothing."""
    client = in_state(broker, state)
    before = client.state
    if state in {"ready", "blocked"}:
        client.close()
        assert client.closing
        with pytest.raises(ConnectionStateError):
            client.close()
        broker.clock.advance(3)
        assert client.closed
    else:
        with pytest.raises(ConnectionStateError, match="connection is "):
            client.close()
        assert client.state is before


def in_state(broker: Broker, state: str) -> Client:
    """Bring a client into a state; waiting is closed with an attempt scheduled."""
    if state in {"ready", "blocked", "closed", "closing"}:
        client = broker.ready()
        if state == "blocked":
            broker.peer.stall(stalled=True)
            broker.peer.deliver()
        elif state in {"closed", "closing"}:
            client.publish("", "q", b"unconfirmed").add_done_callback(lambda ended: ended.exception())
            client.close()
            broker.clock.advance(11 if state == "closed" else 1)
        return client
    client = broker.client()
    if state != "idle":
        broker.clock.turn()
    if state == "waiting":
        broker.peer.refuse()
    elif state == "opening":
        broker.peer.accept()
        broker.peer.deliver()
    return client


@pytest.mark.parametrize("state", ["idle", "connecting", "opening", "ready", "blocked", "closing", "waiting", "closed"])
def test_shutdown_ends_from_every_state_within_its_limit(broker: Broker, state: str) -> None:
    """Whatever the broker does or does not do, shutdown() returns in time, and for good."""
    client = in_state(broker, state)
    waits = client.publish("", "q", b"late", timeout=100)
    before = broker.clock.now
    broker.clock.run(client.shutdown(1))
    assert broker.clock.now - before <= 1.1
    assert (client.closed, client.recovers) == (True, False)
    assert outcome(waits) in {NotReadyError, OutcomeUnknown}
    assert broker.clock.timers() == []
    broker.clock.advance(60)
    assert client.closed
    refused = client.publish("", "q", b"later")
    assert outcome(refused) is NotReadyError


@pytest.mark.parametrize("state", ["idle", "waiting", "closed"])
def test_connect_connects_from_idle_and_closed(broker: Broker, state: str) -> None:
    """connect() returns the connection, takes the place of a scheduled attempt, and recovers from then on."""
    client = in_state(broker, state)
    count = len(broker.peers)
    assert client.connect() is broker.peer.connection
    assert (client.connecting, client.recovers) == (True, True)
    broker.clock.advance(5)
    assert len(broker.peers) == count + 1
    broker.open()
    assert client.ready
    with pytest.raises(ConnectionStateError):
        client.connect()


@pytest.mark.parametrize("phase", ["connecting", "opening"])
def test_connecting_has_a_limit_of_its_own(broker: Broker, phase: str) -> None:
    """A connection that never answers is given up, and the next attempt is made."""
    client = in_state(broker, phase)
    told = broker.watch(client)
    broker.clock.advance(60)
    assert ("CONNECTING", "connection_failed", "CLOSED") in told
    broker.open()
    assert client.ready


def test_a_late_event_of_a_connection_that_is_gone_is_nobodys(broker: Broker) -> None:
    """What an old connection says after it was given up does not touch the new one."""
    client = broker.client()
    broker.clock.turn()
    old = broker.peer
    broker.clock.advance(60)
    broker.open()
    assert client.ready
    late: Any = old.connection
    late.callbacks.process(0, late.ON_CONNECTION_CLOSED, late, late, ConnectionClosedByBroker(320, "late"))
    late.callbacks.process(0, late.ON_CONNECTION_ERROR, late, late, ValueError("late"))
    late.callbacks.process(0, late.ON_CONNECTION_OPEN_OK, late, late)
    assert client.ready
    assert client.connection is broker.peer.connection


def test_a_cut_line_that_is_told_as_an_event_is_described_once(broker: Broker) -> None:
    """Whoever calls the documented event with the words of the loss finds them in the condition, and no more."""
    client = broker.ready()
    client.on_connection_closed(client.connection, 0, "StreamLostError: Stream connection lost")  # type: ignore[arg-type]
    assert client.condition == "connection is Closed (StreamLostError: Stream connection lost)"


def test_a_lost_channel_settles_what_is_on_the_wire_and_keeps_what_waits(broker: Broker) -> None:
    """The unconfirmed of a closed channel are unknown, the cause chained; those in line go out on the next."""
    client = broker.ready(max_unconfirmed=1)
    sent, waits = client.publish("", "q", b"1"), client.publish("", "q", b"2")
    broker.clock.turn()
    broker.peer.close_channel(code=406, text="PRECONDITION_FAILED")
    broker.peer.deliver()
    assert outcome(sent) is OutcomeUnknown
    error: Any = sent.exception()
    assert (error.__cause__.reply_code, error.may_have_arrived) == (406, True)
    assert not waits.done()
    broker.open().peer.confirm_all()
    broker.clock.turn()
    assert outcome(waits) is None


def test_close_drains_first(broker: Broker) -> None:
    """The connection is closed when the last confirmation came, and what it confirmed succeeded."""
    client = broker.ready()
    sent = client.publish("", "q", b"1")
    broker.clock.turn()
    client.close()
    refused = client.publish("", "q", b"2")
    broker.clock.advance(5)
    assert (client.closing, sent.done(), outcome(refused)) == (True, False, NotReadyError)
    broker.peer.confirm_all()
    broker.open()
    assert (client.closed, outcome(sent)) == (True, None)
    assert broker.clock.timers() == []


def test_an_outage_persists_once_and_ends_when_ready(broker: Broker) -> None:
    """After timeout seconds everybody who waits is refused, and everybody who comes, until the client is ready."""
    called: list[Client] = []

    async def on_persistent_failure(client: Client) -> None:
        await asyncio.sleep(0)
        called.append(client)

    client = broker.client(timeout=3, on_persistent_failure_callback=on_persistent_failure)
    waits = client.publish("", "q", b"1", timeout=100)
    broker.clock.advance(2.9)
    assert not waits.done()
    broker.clock.advance(60)
    assert (outcome(waits), called) == (NotReadyError, [client])
    assert outcome(client.publish("", "q", b"2")) is NotReadyError
    broker.open()
    assert client.ready
    late = client.publish("", "q", b"3")
    broker.clock.turn()
    broker.peer.confirm_all()
    assert outcome(late) is None
    broker.peer.lose()
    broker.clock.advance(60)
    assert called == [client, client]


def test_the_end_of_trouble_is_logged_with_how_long_it_lasted(broker: Broker) -> None:
    """From the moment at which publishing became impossible, however many attempts were made since."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("sprockets_amqp.lifecycle")
    logger.addHandler(handler)
    try:
        client = broker.ready(reconnect_delay=0.5)
        broker.clock.advance(3)
        broker.peer.lose()
        broker.clock.advance(0.5)
        broker.peer.refuse()
        broker.clock.advance(2)
        broker.open()
    finally:
        logger.removeHandler(handler)
    assert (client.ready, client.reason) == (True, "")
    assert lines[-1] == "ready again after 2.5 s, on broker:5672"


def test_a_client_that_is_asked_to_connect_again_forgets_why_it_was_closed(broker: Broker) -> None:
    """What has nothing to do with this attempt is not its reason."""
    client = broker.ready()
    client.close()
    broker.open()
    assert (client.closed, client.recovers) == (True, False)
    assert "Normal shutdown" in client.reason
    client.connect()
    assert (client.connecting, client.reason) == (True, "")


def test_no_confirmation_in_time_is_unknown_and_a_late_one_is_nobodys(broker: Broker) -> None:
    """confirm_timeout ends the publish; the tag stays in the ledger, so that the next confirmation is its own."""
    client = broker.ready(confirm_timeout=5)
    slow = client.publish("", "q", b"1")
    broker.clock.advance(4)
    quick = client.publish("", "q", b"2")
    broker.clock.advance(1.1)
    assert (outcome(slow), quick.done(), client.unconfirmed) == (OutcomeUnknown, False, 2)
    broker.peer.confirm(1)
    broker.peer.confirm(2)
    broker.peer.deliver()
    assert (outcome(quick), client.unconfirmed, client.counters.failed) == (None, 0, 1)


def test_availability_is_told_each_time_it_changes(broker: Broker) -> None:
    """on_ready and on_unavailable are called with the client, whatever they raise or return."""
    told: list[str] = []

    def on_ready(_client: Client) -> None:
        told.append("ready")
        raise ValueError("mine")

    async def on_unavailable(_client: Client) -> None:
        await asyncio.sleep(0)
        told.append("unavailable")

    broker.ready(on_ready_callback=on_ready, on_unavailable_callback=on_unavailable)
    broker.peer.stall(stalled=True)
    broker.peer.stall(stalled=False)
    broker.peer.deliver()
    broker.clock.turn()
    broker.peer.lose()
    broker.clock.advance(1)
    broker.open()
    assert told == ["ready", "unavailable", "ready", "unavailable", "ready"]


def test_returns_are_told_with_what_was_returned(broker: Broker) -> None:
    """on_return, which may be a coroutine function, gets method, properties and body; the publish succeeds."""
    told: list[Any] = []

    async def on_return(method: Any, properties: Any, body: bytes) -> None:
        await asyncio.sleep(0)
        told.append((method.reply_code, properties.message_id, body))

    broker.unroutable.add("nowhere")
    client = broker.ready(on_return_callback=on_return)
    future = client.publish("", "nowhere", b"body", {"message_id": "m1"})
    broker.clock.turn()
    broker.peer.confirm_all()
    broker.clock.turn()
    assert (outcome(future), told) == (None, [(312, "m1", b"body")])


def test_only_one_line_is_logged_a_round(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """Attempts that fail are a warning each, in one line, without a traceback."""
    caplog.set_level(logging.INFO, "sprockets_amqp")
    broker.client(timeout=1000)
    for _ in range(3):
        broker.clock.advance(5)
        broker.peer.refuse()
    ours = [record for record in caplog.records if record.name.startswith("sprockets_amqp")]
    assert len(ours) == 3
    for record in ours:
        assert record.levelno == logging.WARNING
        assert record.exc_info is None
        assert "Connection refused" in record.getMessage()
        assert "\n" not in record.getMessage()


def test_each_node_is_tried_at_once_before_there_is_a_delay(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several nodes the next is tried at once, and a delay comes when each was tried."""
    client = Client("amqp://one,two,three", io_loop=broker.clock.io_loop, reconnect_delay=10)
    broker.clients.append(client)
    for _ in range(3):
        broker.clock.turn()
        broker.peer.refuse()
    broker.clock.turn()
    assert len(broker.peers) == 3
    assert {peer.connection.params.host for peer in broker.peers} == {"one", "two", "three"}
    broker.clock.advance(10)
    assert len(broker.peers) == 4


def test_wait_for_times_out_with_the_reason(broker: Broker) -> None:
    """The TimeoutError says in which state the client is, and why."""
    client = in_state(broker, "waiting")
    with pytest.raises(TimeoutError, match=r"not READY within 0.2 s: connection is Closed .*Connection refused"):
        broker.clock.run(client.wait_for(State.READY, 0.2))
