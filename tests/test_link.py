"""The link hands pika's events on as they are, against a broker in memory."""

import gc
import weakref
from typing import Any

import pytest
from pika import frame, spec
from pika.exceptions import AMQPHeartbeatTimeout, ChannelClosedByBroker, ConnectionClosedByBroker, StreamLostError

from sprockets_amqp import Client, OutcomeUnknown
from sprockets_amqp.testing.peer import Peer
from tests.support.memory import Broker, in_memory

broker = in_memory


def lose(broker: Broker, how: str) -> None:
    """Cost the client its channel or connection."""
    peer = broker.peer
    if how == "channel closed":
        peer.close_channel(code=406, text="PRECONDITION_FAILED")
    elif how == "connection closed":
        peer.say(0, spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0))
    elif how == "heartbeat missed":
        # As pika's HeartbeatChecker ends a connection.
        peer.connection._terminate_stream(AMQPHeartbeatTimeout("No activity or too many missed heartbeats"))
    else:
        peer.lose()
    peer.deliver()
    broker.clock.turn()


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("channel closed", ChannelClosedByBroker),
        ("connection closed", ConnectionClosedByBroker),
        ("heartbeat missed", AMQPHeartbeatTimeout),
        ("line cut", StreamLostError),
    ],
)
def test_the_cause_of_a_loss_is_the_exception_that_pika_raised(broker: Broker, how: str, kind: type) -> None:
    """A publish whose outcome is unknown chains it, although the documented event has only its code and text."""
    client = broker.ready()
    sent = client.publish("", "q", b"")
    broker.clock.turn()
    lose(broker, how)
    error = sent.exception()
    assert isinstance(error, OutcomeUnknown)
    assert type(error.__cause__) is kind


def test_an_event_with_other_words_is_taken_at_its_word(broker: Broker) -> None:
    """Who overrides an event may pass on another code and text: they are the cause then."""

    class Rewording(Client):
        def on_connection_closed(self, connection: Any, reply_code: int, reply_text: str) -> None:
            super().on_connection_closed(connection, reply_code + 1, "in other words")

    client = Rewording("amqp://broker", io_loop=broker.clock.io_loop)
    broker.clients.append(client)
    broker.open()
    sent = client.publish("", "q", b"")
    broker.clock.turn()
    lose(broker, "connection closed")
    cause: Any = sent.exception().__cause__  # type: ignore[union-attr]
    assert (cause.reply_code, cause.reply_text) == (321, "in other words")


@pytest.mark.parametrize("event", ["on_connection_open", "on_channel_open", "on_connection_blocked", "on_basic_return"])
def test_an_event_that_is_replaced_on_the_client_is_called(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    """Each is looked up when it happens, so that patching a client takes effect."""
    client = broker.client()
    told: list[str] = []
    original = getattr(client, event)
    monkeypatch.setattr(client, event, lambda *args: [told.append(event), original(*args)])
    broker.unroutable.add("nowhere")
    broker.open()
    client.publish("", "nowhere", b"")
    broker.clock.turn()
    broker.peer.say(0, spec.Connection.Blocked("low on memory"))
    broker.peer.confirm_all()
    assert told == [event]
    assert client.blocked


def test_an_alarm_that_was_raised_while_connecting_is_the_reason_to_be_blocked(broker: Broker) -> None:
    """RabbitMQ may block before the channel is open; its words are told with the change."""
    client = broker.client()
    broker.clock.turn()
    broker.peer.accept()
    while not broker.peer.open_channels:
        broker.peer.deliver(1)
        broker.clock.turn()
    broker.peer.say(0, spec.Connection.Blocked("low on disk"))
    broker.open()
    assert (client.blocked, client.history[-1].reason) == (True, "low on disk")
    assert client.condition == "connection is Blocked (low on disk)"
    broker.peer.say(0, spec.Connection.Unblocked())
    broker.peer.deliver()
    assert (client.ready, client.condition) == (True, "connection is Ready")


def test_what_an_old_connection_says_of_blocking_is_nobodys(broker: Broker) -> None:
    """A connection that was dropped does not block the next."""
    client = broker.ready()
    old: Any = broker.peer.connection
    broker.peer.lose()
    broker.clock.advance(1)
    broker.open()
    old.callbacks.process(0, spec.Connection.Blocked, old, frame.Method(0, spec.Connection.Blocked("late")))
    assert client.ready


def test_the_trouble_that_is_left_is_the_one_that_is_named(broker: Broker) -> None:
    """Blocked for two reasons, of which one goes: the sentence is about the other."""
    client = broker.ready()
    broker.peer.say(1, spec.Channel.Flow(active=False))
    broker.peer.deliver()
    assert client.condition == "connection is Blocked (channel.flow)"
    broker.peer.say(0, spec.Connection.Blocked("low on memory"))
    broker.peer.say(1, spec.Channel.Flow(active=True))
    broker.peer.deliver()
    assert client.condition == "connection is Blocked (low on memory)"


def test_each_channel_flow_is_acknowledged(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """pika sends no channel.flow-ok of its own."""
    told: list[bool] = []
    monkeypatch.setattr(Peer, "_on_channel_flowok", lambda _peer, _number, ok: told.append(ok.active), raising=False)
    broker.ready()
    for active in (False, True):
        broker.peer.say(1, spec.Channel.Flow(active))
        broker.peer.deliver()
        broker.clock.turn()
    assert told == [False, True]


def test_a_connection_that_was_lost_is_not_kept(broker: Broker) -> None:
    """What pika had of it can go."""
    client = broker.ready()
    gone = weakref.ref(client.connection)
    broker.peer.lose()
    broker.clock.advance(1)
    broker.peers.clear()
    gc.collect()
    assert gone() is None
    broker.clients.clear()
    broker.clock.run(client.shutdown(0))
