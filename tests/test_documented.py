"""What version 3.0's own tests were about, state by state and call by call, against a broker in memory."""

import logging
import time
from typing import Any, Final

import pytest
from pika import frame, spec

from sprockets_amqp import Client, ConnectionStateError, MessageNacked, MessageReturned, NotReadyError, OutcomeUnknown
from tests.support.memory import Broker, in_memory, outcome
from tests.test_lifecycle import in_state

broker = in_memory

#: How far a client is brought, and the documented state that it is in then.
STATES: Final = {
    "idle": "idle",
    "connecting": "connecting",
    "opening": "connecting",
    "ready": "ready",
    "blocked": "blocked",
    "closing": "closing",
    "closed": "closed",
    "waiting": "closed",
}
PROPERTIES: Final = ("idle", "connecting", "ready", "blocked", "closing", "closed")


# States


@pytest.mark.parametrize("state", STATES)
def test_one_property_at_a_time_is_true(broker: Broker, state: str) -> None:
    """It is the state's, the number and the description say the same, and ready and blocked are closable."""
    client = in_state(broker, state)
    name = STATES[state]
    assert {each: getattr(client, each) for each in PROPERTIES} == {each: each == name for each in PROPERTIES}
    assert client.state == getattr(client, f"STATE_{name.upper()}")
    assert client.state_description == client.STATE_DESC[client.state] == name.capitalize()
    assert client.closable is (name in {"ready", "blocked"})


@pytest.mark.parametrize("state", ["connecting", "opening", "ready", "blocked", "closing"])
def test_connect_raises_in_the_wrong_state(broker: Broker, state: str) -> None:
    """It names the state and changes nothing."""
    client = in_state(broker, state)
    before, connection, peers = client.state, client.connection, len(broker.peers)
    with pytest.raises(ConnectionStateError, match=f"connection is {client.state_description}") as caught:
        client.connect()
    assert caught.value.args == (client.state_description,)
    assert (client.state, client.connection, len(broker.peers)) == (before, connection, peers)


@pytest.mark.parametrize("state", [state for state in STATES if state != "ready"])
def test_a_publish_that_may_not_wait_fails_where_the_client_is_not_ready(broker: Broker, state: str) -> None:
    """At once, with the state in its sentence, and the message is not sent later."""
    client = in_state(broker, state)
    refused = client.publish("", "q", b"", {"message_id": "m1"}, timeout=0)
    assert outcome(refused) is NotReadyError
    assert str(refused.exception()).startswith(f"connection is {client.state_description}")
    assert "message m1 was not sent" in str(refused.exception())
    broker.open()
    assert "m1" not in broker.messages


@pytest.mark.parametrize(("scheme", "port"), [("amqp", 5672), ("amqps", 5671)])
def test_the_parameters_are_those_of_the_url(broker: Broker, scheme: str, port: int) -> None:
    """Host, port, vhost and credentials, and TLS where the scheme asks for it."""
    parameters: Any = broker.client(f"{scheme}://test:secret@test-host/test").parameters
    assert (parameters.host, parameters.port, parameters.virtual_host) == ("test-host", port, "test")
    assert (parameters.credentials.username, parameters.credentials.password) == ("test", "secret")
    assert (parameters.ssl_options is not None) is (scheme == "amqps")


# Callbacks


class Callbacks:
    """Keeps what the callbacks of one client are called with, in order."""

    def __init__(self, broker: Broker) -> None:
        self.called: list[tuple[Any, ...]] = []
        self.client = broker.ready(
            on_ready_callback=lambda *arguments: self.called.append(("ready", *arguments)),
            on_unavailable_callback=lambda *arguments: self.called.append(("unavailable", *arguments)),
            on_return_callback=lambda *arguments: self.called.append(("return", *arguments)),
        )


def end(broker: Broker, client: Client, how: str) -> None:
    """End the client's readiness in one of the ways that there are."""
    if how == "alarm":
        client.on_connection_blocked(frame.Method(0, spec.Connection.Blocked("low on memory")))
    elif how == "flow":
        client.on_channel_flow(spec.Channel.Flow(active=False))
    elif how == "channel":
        broker.peer.close_channel()
        broker.peer.deliver()
    elif how == "connection":
        broker.peer.say(0, spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0))
        broker.peer.deliver()
    elif how == "line":
        broker.peer.lose()
    else:
        client.close()


@pytest.mark.parametrize("how", ["alarm", "flow", "channel", "connection", "line", "close"])
def test_the_callbacks_are_called_once_each_time_with_the_client(broker: Broker, how: str) -> None:
    """on_ready when it is ready, and on_unavailable when it no longer is, whatever ended it."""
    callbacks = Callbacks(broker)
    client = callbacks.client
    assert callbacks.called == [("ready", client)]
    end(broker, client, how)
    broker.clock.turn()
    assert callbacks.called == [("ready", client), ("unavailable", client)]


@pytest.mark.parametrize("how", ["alarm", "flow", "channel", "connection", "line", "close"])
def test_no_callback_is_needed(broker: Broker, how: str) -> None:
    """The client does the same without."""
    client = broker.ready()
    end(broker, client, how)
    broker.clock.turn()
    assert not client.ready
    assert client.recovers is (how != "close")


def test_a_returned_message_is_given_to_its_callback(broker: Broker) -> None:
    """With what RabbitMQ says, the message's properties and its body; it is a success all the same."""
    callbacks = Callbacks(broker)
    broker.unroutable.add("nowhere")
    sent = callbacks.client.publish("", "nowhere", b"body", {"message_id": "m1", "correlation_id": "c1"})
    broker.clock.turn()
    broker.peer.confirm_all()
    broker.clock.turn()
    [(name, method, properties, body)] = callbacks.called[1:]
    assert (name, method.reply_code, method.reply_text) == ("return", 312, "NO_ROUTE")
    assert (method.exchange, method.routing_key) == ("", "nowhere")
    assert (properties.message_id, properties.correlation_id, body) == ("m1", "c1", b"body")
    assert outcome(sent) is None


def test_without_a_callback_a_returned_message_is_logged_as_critical(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """With its ids and where it was published to, and without its body."""
    broker.unroutable.add("nowhere")
    broker.ready().publish("", "nowhere", b"secret", {"message_id": "m1", "correlation_id": "c1"})
    broker.clock.turn()
    broker.peer.confirm_all()
    [text] = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert all(part in text for part in ("m1", "c1", "'nowhere'", "(312) NO_ROUTE"))
    assert "secret" not in text


@pytest.mark.parametrize("fails", [False, True])
def test_of_many_returned_messages_one_a_minute_is_critical(
    broker: Broker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """For each exchange, however many others there are; with fail_on_return, the callers know."""
    monkeypatch.setattr(time, "monotonic", lambda: broker.clock.now)
    broker.unroutable.add("nowhere")
    client = broker.ready(fail_on_return=fails)

    def levels(exchange: str, count: int) -> list[str]:
        caplog.clear()
        futures = [client.publish(exchange, "nowhere", b"") for _ in range(count)]
        for _ in range(8):
            broker.peer.deliver()
            broker.peer.confirm_all()
            broker.clock.turn()
        assert {outcome(future) for future in futures} == {MessageReturned if fails else None}
        return [record.levelname for record in caplog.records if record.getMessage().startswith("message ")]

    assert levels("", 5) == [*(["WARNING"] if fails else ["CRITICAL"]), *["WARNING"] * 4]
    levels("", 30)
    assert levels("amq.direct", 1) == ([] if fails else ["CRITICAL"])
    broker.clock.advance(59)
    assert levels("", 1) == ["WARNING"]
    broker.clock.advance(2)
    assert levels("", 2) == [*(["WARNING"] if fails else ["CRITICAL"]), "WARNING"]


# Confirmations


def published(broker: Broker, count: int) -> tuple[Client, list[Any]]:
    """Publish messages that are not confirmed yet."""
    client = broker.ready()
    futures = [client.publish("", "q", b"") for _ in range(count)]
    for future in futures:
        # What a test leaves unconfirmed ends with the client.
        future.add_done_callback(lambda ended: ended.exception())
    broker.clock.turn()
    assert client.unconfirmed == count
    return client, futures


@pytest.mark.parametrize(("method", "expected"), [(spec.Basic.Ack, None), (spec.Basic.Nack, MessageNacked)])
@pytest.mark.parametrize(("multiple", "settled"), [(False, [2]), (True, [1, 2])])
def test_a_confirmation_settles_what_it_is_about(
    broker: Broker, method: Any, expected: object, multiple: bool, settled: list[int]
) -> None:
    """The message of its tag, or with multiple all up to that; the others stay unconfirmed."""
    client, futures = published(broker, 3)
    client.on_delivery_confirmation(frame.Method(1, method(2, multiple)))
    assert [tag for tag, future in enumerate(futures, 1) if future.done()] == settled
    assert {outcome(futures[tag - 1]) for tag in settled} == {expected}
    assert client.unconfirmed == 3 - len(settled)


@pytest.mark.parametrize("tag", [1, 4])
def test_a_confirmation_of_what_is_not_unconfirmed_settles_nothing(
    broker: Broker, tag: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A second one, or one of a tag that was never sent, which is logged."""
    client, futures = published(broker, 3)
    client.on_delivery_confirmation(frame.Method(1, spec.Basic.Ack(1, multiple=False)))
    client.on_delivery_confirmation(frame.Method(1, spec.Basic.Nack(tag, multiple=False)))
    assert [future.done() for future in futures] == [True, False, False]
    assert outcome(futures[0]) is None
    assert ("delivery tag 4, which was never sent" in caplog.text) is (tag == 4)


def test_tags_begin_anew_with_each_channel(broker: Broker) -> None:
    """What was unconfirmed on the old channel is unknown, and the first confirmation is the first new message's."""
    client, lost = published(broker, 2)
    broker.peer.close_channel(code=406, text="PRECONDITION_FAILED")
    broker.open()
    assert client.ready
    sent = client.publish("", "q", b"")
    broker.open()
    client.on_delivery_confirmation(frame.Method(2, spec.Basic.Ack(1, multiple=True)))
    assert [outcome(future) for future in (*lost, sent)] == [OutcomeUnknown, OutcomeUnknown, None]
