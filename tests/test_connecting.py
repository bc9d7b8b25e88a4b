"""How it connects: to which node and when, as whom, and on which channels; against a broker in memory."""

import itertools
import logging
import time
from typing import Any
from urllib.parse import quote

import pytest
from pika import spec
from pika.exceptions import AMQPError

from sprockets_amqp.states import Closed, Connecting, State
from tests.support.memory import Broker, in_memory, outcome

broker = in_memory

NODES = {"one", "two", "three"}


def confirm_until_done(broker: Broker, *futures: Any) -> list[object]:
    """Answer and confirm everything; returns what became of the publishes."""
    for _ in range(4):
        broker.open().peer.confirm_all()
        broker.clock.turn()
    return [outcome(future) for future in futures]


# Nodes


def fail_attempt(broker: Broker, how: str) -> None:
    """End the last attempt to connect in one of the ways that there are."""
    peer = broker.peer
    if how == "refused":
        peer.refuse()
    elif how == "silent":
        while peer.connection is broker.clients[0].connection:
            broker.clock.advance(0.5)
    elif how == "cut in the handshake":
        peer.accept()
        peer.deliver()
        peer.lose()
    elif how == "no channel":
        broker.channel_error = AMQPError("no channel")
        peer.accept()
        while peer.connection is broker.clients[0].connection:
            broker.clock.turn(1)
            peer.deliver()
        broker.channel_error = None
    else:
        broker.open()
        assert broker.clients[0].ready
        peer.lose()


FAILURES = ["refused", "silent", "cut in the handshake", "no channel", "lost once ready"]


@pytest.mark.parametrize("how", [*FAILURES, "each in another way"])
def test_every_round_tries_each_node_once(broker: Broker, how: str) -> None:
    """Whatever fails, the next node follows at once; when each was tried there is a delay, and a round begins anew."""
    client = broker.client("amqp://one,two,three", reconnect_delay=100, max_reconnect_delay=100)
    ways = itertools.cycle(FAILURES if how == "each in another way" else [how])
    rounds: list[list[str]] = []
    for _ in range(4):
        broker.clock.turn()
        tried: list[str] = []
        while client.connecting:
            tried.append(broker.peer.connection.params.host)
            fail_attempt(broker, next(ways))
            # No time passes until the next node's turn.
            broker.clock.turn()
        rounds.append(tried)
        broker.clock.advance(49)
        assert (client.closed, client.recovers) == (True, True)
        while client.closed:
            broker.clock.advance(1)
    assert [sorted(tried) for tried in rounds] == [sorted(NODES)] * 4


def test_a_node_that_was_lost_after_long_was_tried(broker: Broker) -> None:
    """The others follow at once, each once, before there is a delay."""
    client = broker.ready("amqp://one,two,three", reconnect_delay=10, max_reconnect_delay=10)
    broker.clock.advance(1000)
    broker.peer.lose()
    for _ in range(2):
        broker.clock.turn()
        assert client.connecting
        broker.peer.refuse()
    broker.clock.advance(1)
    assert {peer.connection.params.host for peer in broker.peers} == NODES
    assert (client.closed, len(broker.peers)) == (True, 3)


@pytest.mark.parametrize(("url", "attempts"), [("amqp://one", 7), ("amqp://one,two,three", 1)])
def test_connection_attempts_are_those_on_a_single_node(broker: Broker, url: str, attempts: int) -> None:
    """A single node is tried as often as the setting says within a round, and each of several once."""
    client = broker.client(url, connection_attempts=7)
    for _ in range(4):
        broker.clock.turn()
        assert client.parameters is not None and client.parameters.connection_attempts == attempts
        assert broker.peer.connection.params.connection_attempts == attempts
        broker.peer.refuse()
        broker.clock.advance(5)
    assert client.connection_attempts == 7


def test_a_single_node_that_is_not_reached_is_tried_again(broker: Broker) -> None:
    """As often as the setting says, retry_delay apart; then there is the delay of a round, and a round begins anew."""
    client = broker.client(connection_attempts=3, reconnect_delay=100, max_reconnect_delay=100)
    for first in (0, 3):
        for number in (1, 2):
            broker.clock.turn()
            assert (len(broker.peers), client.substate) == (first + number, Connecting.OPENING_CONNECTION)
            broker.peer.refuse()
            broker.clock.turn()
            assert (client.substate, client.connection) == (Connecting.RETRYING_NODE, None)
            assert client.condition == "connection is Connecting (TCP to broker:5672 (127.0.0.1): Connection refused)"
            assert client.next_attempt == pytest.approx(time.time() + 2, abs=1)
            broker.clock.advance(1.9)
            assert len(broker.peers) == first + number
            broker.clock.advance(0.2)
        broker.peer.refuse()
        broker.clock.advance(49)
        assert (client.closed, len(broker.peers)) == (True, first + 3)
        while client.closed:
            broker.clock.advance(1)


def test_a_node_that_stays_silent_is_not_reached(broker: Broker) -> None:
    """Each attempt has its limit, and drops what it has begun; the reason names the step."""
    client = broker.client("amqp://broker/?stack_timeout=4&retry_delay=3", connection_attempts=2)
    broker.clock.advance(3.9)
    assert (client.substate, broker.peer.lost) == (Connecting.OPENING_CONNECTION, False)
    broker.clock.advance(0.2)
    assert (client.substate, broker.peer.lost) == (Connecting.RETRYING_NODE, True)
    assert client.reason == "TCP to broker:5672 (127.0.0.1): no answer within 4 s"
    broker.clock.advance(3)
    assert (client.substate, len(broker.peers)) == (Connecting.OPENING_CONNECTION, 2)
    broker.open()
    assert (client.ready, client.reason) == (True, "")


def test_an_attempt_that_cannot_begin_is_not_repeated_at_once(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TLS file that cannot be read, for example, although the attempt before it did not reach the node."""
    client = broker.client(connection_attempts=3)
    broker.clock.turn()
    broker.peer.refuse()

    def fail() -> None:
        raise AMQPError("no file")

    monkeypatch.setattr(client._runtime.lifecycle.address, "prepare", fail)
    broker.clock.advance(2.1)
    assert (client.substate, client.reason) == (Closed.RETRYING, "AMQPError: no file")
    assert len(broker.peers) == 1


@pytest.mark.parametrize("how", ["refuses the login", "hangs up", "says nothing"])
def test_a_node_that_was_reached_is_not_tried_again_at_once(broker: Broker, how: str) -> None:
    """What it says of the login, or that it hangs up or says nothing, will be the same in two seconds."""
    client = broker.client("amqp://broker/?stack_timeout=4", connection_attempts=3)
    broker.clock.turn()
    broker.peer.accept()
    broker.clock.turn()
    if how == "refuses the login":
        broker.peer.deliver()
        broker.clock.turn()
        broker.peer.outbox.clear()
        broker.peer.close_connection(403, "ACCESS_REFUSED - Login was refused")
        broker.peer.deliver()
        why = "(403) ACCESS_REFUSED - Login was refused"
    elif how == "hangs up":
        broker.peer.connection.hung_up()
        broker.peer.lose()
        why = "the other side closed the connection"
    else:
        broker.clock.advance(4)
        why = "no answer within 4 s"
    broker.clock.turn()
    assert (client.substate, client.reason) == (Closed.RETRYING, f"login at broker:5672 (127.0.0.1): {why}")
    assert len(broker.peers) == 1


# As whom


@pytest.mark.parametrize(
    ("properties", "app_id", "name"),
    [
        ({}, None, "sprockets_amqp"),
        ({}, "my-service/1.0", "my-service/1.0"),
        ({"team": "events"}, "my-service/1.0", "my-service/1.0"),
        ({"team": "events", "connection_name": "mine"}, "my-service/1.0", "mine"),
    ],
)
def test_the_broker_is_told_who_connects(
    broker: Broker, properties: dict[str, str], app_id: str | None, name: str
) -> None:
    """The connection's name is the URL's, or the application's; other client_properties of the URL are kept."""
    query = f"?client_properties={quote(repr(properties))}" if properties else ""
    broker.ready(f"amqp://broker/{query}", default_app_id=app_id)
    told = broker.peer.client_properties
    assert told["connection_name"] == name
    assert told.get("team") == properties.get("team")
    assert told["capabilities"]["connection.blocked"]


# Channels


def test_a_channel_that_is_opened_again_leaves_none_behind(broker: Broker) -> None:
    """After ten losses the broker has the publishing channel and that for questions, and no number was used up."""
    client = broker.ready()
    for number in range(10):
        asked = client.publish(f"events{number}", "q", b"")
        assert confirm_until_done(broker, asked) == [None]
        broker.peer.close_channel(client.channel.channel_number, 406, "PRECONDITION_FAILED")  # type: ignore[union-attr]
        broker.peer.deliver()
        assert client.connecting
        broker.clock.advance(1)
        broker.open()
        assert client.ready
    future = client.publish("events", "q", b"")
    assert confirm_until_done(broker, future) == [None]
    assert len(broker.peer.open_channels) == 2
    assert len(broker.peer.channels) >= 12
    assert max(broker.peer.channels) <= 3
    assert len(broker.peers) == 1


def test_reconnects_are_connections_not_channels(broker: Broker) -> None:
    """counters.reconnects goes up when a connection was made again, not before, and not for a channel."""
    client = broker.ready()
    for reconnects in range(3):
        for _ in range(2):
            broker.peer.close_channel(code=406, text="PRECONDITION_FAILED")
            broker.open()
            broker.clock.advance(1)
            broker.open()
            assert (client.ready, client.counters.reconnects) == (True, reconnects)
        broker.peer.lose()
        broker.clock.advance(1)
        broker.peer.refuse()
        assert client.counters.reconnects == reconnects
        broker.clock.advance(5)
        broker.open()
        assert client.ready
    assert client.counters.reconnects == 3


@pytest.mark.parametrize("who", ["the broker", "the URL"])
def test_one_channel_is_enough(broker: Broker, who: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where no second channel is allowed, exchanges are used unchecked, and a lost channel is opened again."""
    if who == "the broker":
        broker.tune = spec.Connection.Tune(1, 8192, 0)
    client = broker.ready("amqp://broker/?channel_max=1" if who == "the URL" else "amqp://broker")
    futures = [client.publish(exchange, "q", b"", timeout=0) for exchange in ("events", "", "other", "events")]
    assert confirm_until_done(broker, *futures) == [None] * 4
    assert "RabbitMQ allows no second channel: exchange 'events' is used unchecked" in caplog.text
    broker.peer.close_channel(code=406, text="PRECONDITION_FAILED")
    broker.open()
    broker.clock.advance(0.1)
    futures = [client.publish(exchange, "q", b"") for exchange in ("events", "another")]
    assert confirm_until_done(broker, *futures) == [None] * 2
    assert (broker.peer.channels, len(broker.peers)) == ([1, 1], 1)


def test_a_channel_that_pika_refuses_is_a_failed_attempt(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """What it raised is the reason, it is tried again after the delay, and the client is ready when pika has one."""
    caplog.set_level(logging.WARNING, "sprockets_amqp")
    broker.channel_error = AMQPError("channels are out")
    client = broker.client()
    waits = client.publish("", "q", b"")
    for attempts in (1, 2):
        broker.open()
        assert (client.closed, client.recovers, len(broker.peers)) == (True, True, attempts)
        change = client.history[-1]
        assert (change.source, change.trigger) == (State.CONNECTING, "connection_failed")
        assert (change.dest, change.reason) == (State.CLOSED, "AMQPError: channels are out")
        assert client.condition == "connection is Closed (AMQPError: channels are out)"
        assert "AMQPError: channels are out" in caplog.text
        assert client.connection is None
        broker.clock.advance(2)
    broker.channel_error = None
    broker.open()
    assert client.ready
    assert confirm_until_done(broker, waits) == [None]


def test_a_channel_that_pika_refuses_to_open_again_costs_the_connection(broker: Broker) -> None:
    """The same when only the channel was lost: the next connection has one."""
    client = broker.ready()
    broker.channel_error = AMQPError("channels are out")
    broker.peer.close_channel(code=406, text="PRECONDITION_FAILED")
    broker.open()
    assert client.condition == "connection is Closed (AMQPError: channels are out)"
    assert broker.peers[0].aborted
    broker.channel_error = None
    broker.clock.advance(1)
    broker.open()
    assert (client.ready, len(broker.peers)) == (True, 2)


# When


def test_the_state_tells_since_when(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """state_since is when the client was made, while it is idle, and when the last change was from then on."""
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000 + broker.clock.now)
    made = time.time()
    client = broker.client()
    broker.clock.now += 7
    assert (client.idle, client.state_since) == (True, made)

    def happened(cause: Any, state: State) -> None:
        broker.clock.now += 0.25
        changed = time.time()
        cause()
        assert (client.state, client.state_since, client.history[-1].at) == (state, changed, changed)
        broker.clock.now += 0.25
        assert client.state_since == changed

    happened(broker.clock.turn, State.CONNECTING)
    happened(broker.open, State.READY)
    broker.peer.say(0, spec.Connection.Blocked("low"))
    happened(broker.peer.deliver, State.BLOCKED)
    since = client.state_since
    broker.peer.say(1, spec.Channel.Flow(active=False))
    broker.peer.deliver()
    assert client.state_since == since
    broker.peer.say(0, spec.Connection.Unblocked())
    broker.peer.say(1, spec.Channel.Flow(active=True))
    happened(broker.peer.deliver, State.READY)
    happened(broker.peer.lose, State.CLOSED)
    happened(client.connect, State.CONNECTING)
    happened(broker.open, State.READY)
    happened(client.close, State.CLOSING)
    happened(broker.open, State.CLOSED)
