"""What happens in each substate and in an outage, against a broker in memory."""

import asyncio
import tempfile
from typing import Any

import pytest
from pika import spec

from sprockets_amqp import STORED, NotReadyError, OutcomeUnknown
from sprockets_amqp.client import Client
from sprockets_amqp.states import Closed, Closing, Connecting, State, Substate
from tests.support.memory import Broker, in_memory, outcome

broker = in_memory


async def never(*_: object) -> str:
    """Answer nothing, and end at no time."""
    await asyncio.get_running_loop().create_future()
    return ""


#: The substates of an outage, and settings with which each lasts longer than the outage may.
OUTAGES: dict[Substate, dict[str, Any]] = {
    Connecting.CALLING: {"timeout": 3, "url": never},
    Connecting.OPENING_CONNECTION: {"timeout": 3},
    Connecting.RETRYING_NODE: {"timeout": 3, "connection_attempts": 3, "url": "amqp://broker/?retry_delay=60"},
    Connecting.SETTING_UP: {"timeout": 3, "setup": never},
    Connecting.OPENING_CHANNEL: {"timeout": 3},
    # RabbitMQ has two seconds.
    Connecting.CLOSING_CHANNEL: {"timeout": 1},
    # The second time that a channel did not last, the next one is opened after at least 0.05 s.
    Connecting.RETRYING_CHANNEL: {"timeout": 0.04},
    State.BLOCKED: {"timeout": 3},
    Closed.RETRYING: {"timeout": 3, "reconnect_delay": 60, "max_reconnect_delay": 60},
}


def enter(broker: Broker, substate: Substate, **settings: Any) -> Client:
    """Bring a client into a substate."""
    if isinstance(substate, Connecting) and substate not in {Connecting.CLOSING_CHANNEL, Connecting.RETRYING_CHANNEL}:
        client = broker.client(**settings)
        begin_to_connect(broker, client, substate)
    else:
        client = broker.ready(**settings)
    if substate is Connecting.CLOSING_CHANNEL:
        client._runtime.gate.replace_channel("RabbitMQ has nacked 3 messages in a row")
        broker.clock.turn()
    elif substate is Connecting.RETRYING_CHANNEL:
        for _ in range(2):
            broker.open().peer.close_channel(code=406, text="PRECONDITION_FAILED")
            broker.peer.deliver()
    elif substate is State.BLOCKED:
        broker.peer.say(0, spec.Connection.Blocked("low on memory"))
        broker.peer.deliver()
    elif substate is Closed.RETRYING:
        broker.peer.lose()
    elif isinstance(substate, Closing):
        begin_to_close(broker, client, substate)
    assert client.substate is substate
    return client


def begin_to_connect(broker: Broker, client: Client, substate: Connecting) -> None:
    """Connect, up to a substate."""
    broker.clock.turn()
    if substate is Connecting.RETRYING_NODE:
        broker.peer.refuse()
    if substate in {Connecting.OPENING_CHANNEL, Connecting.SETTING_UP}:
        broker.peer.accept()
        while client.substate is not substate:
            broker.peer.deliver(1)
            broker.clock.turn()


def begin_to_close(broker: Broker, client: Client, substate: Closing) -> None:
    """Close a client that is ready, up to a substate."""
    client.publish("", "q", b"unconfirmed").add_done_callback(lambda ended: ended.exception())
    broker.clock.turn()
    if substate is Closing.PAUSED:
        broker.peer.stall(stalled=True)
        broker.peer.deliver()
    client.close()
    if substate is Closing.CLOSING_CONNECTION:
        broker.peer.confirm_all()
        broker.clock.turn()
    if substate is Closing.CONFIRMING:
        broker.clock.advance(5.1)


@pytest.mark.parametrize("substate", OUTAGES)
def test_in_an_outage_a_publish_waits_until_the_outage_is_persistent(broker: Broker, substate: Substate) -> None:
    """Then everybody who waits is refused, everybody who comes, too, and it is told once."""
    told: list[Client] = []
    client = enter(broker, substate, **OUTAGES[substate], on_persistent_failure_callback=told.append)
    timeout = client.settings.timeout
    broker.clock.advance(timeout / 4)
    waits = client.publish("", "q", b"", timeout=100)
    assert (client.publish_outcome, waits.done(), client.waiting) == ("waits", False, 1)
    broker.clock.advance(timeout)
    assert (client.substate, client.recovers) == (substate, True)
    assert (client.publish_outcome, outcome(waits)) == ("is refused", NotReadyError)
    assert outcome(client.publish("", "q", b"", timeout=100)) is NotReadyError
    assert told == [client]


@pytest.mark.parametrize("stores", [True, False])
def test_what_was_sent_into_an_alarm_holds_up_its_caller_no_longer_than_what_waits(
    broker: Broker, stores: bool
) -> None:
    """RabbitMQ may keep the confirm back for hours: in a persistent outage nobody waits for it, but it counts."""
    with tempfile.TemporaryDirectory() as path:
        client = broker.ready(timeout=3, **({"outbox": path} if stores else {}))
        sent = client.publish("", "q", b"", {"message_id": "m1"})
        broker.clock.turn()
        broker.peer.stall(stalled=True)
        broker.peer.deliver()
        waits = client.publish("", "q", b"", {"message_id": "m2"}, timeout=100)
        broker.clock.advance(2.9)
        assert (sent.done(), waits.done()) == (False, False)
        broker.clock.advance(0.2)
        if stores:
            assert (sent.result(), waits.result()) == (STORED, STORED)
        else:
            assert (outcome(sent), outcome(waits)) == (OutcomeUnknown, NotReadyError)
            assert "it was sent, and then connection is Blocked (low on memory)" in str(sent.exception())
        assert client.unconfirmed == 1
        # The alarm is over.
        broker.peer.stall(stalled=False)
        for _ in range(3):
            broker.open().peer.confirm_all()
        broker.clock.turn()
        assert (client.counters.confirmed, client.counters.stored) == ((2, 0) if stores else (1, 0))
        assert broker.messages == (["m1", "m2"] if stores else ["m1"])


@pytest.mark.parametrize("substate", [Closing.DRAINING, Closing.PAUSED, Closing.CLOSING_CONNECTION])
def test_closing_is_no_outage(broker: Broker, substate: Substate) -> None:
    """However long it takes, nobody is told of a failure, and a publish is refused from the first moment."""
    told: list[Client] = []
    client = enter(broker, substate, timeout=1, on_persistent_failure_callback=told.append)
    broker.clock.advance(1.5)
    assert client.substate is substate
    assert outcome(client.publish("", "q", b"", timeout=100)) is NotReadyError
    broker.clock.advance(20)
    assert (client.substate, told) == (Closed.STOPPED, [])


def test_an_outage_ends_with_its_cause(broker: Broker) -> None:
    """A second outage is counted from its own beginning."""
    told: list[Client] = []
    client = broker.ready(timeout=3, on_persistent_failure_callback=told.append)
    for _ in range(3):
        broker.peer.say(0, spec.Connection.Blocked("low on memory"))
        broker.peer.deliver()
        broker.clock.advance(2)
        assert client.blocked
        broker.peer.say(0, spec.Connection.Unblocked())
        broker.peer.deliver()
        broker.clock.advance(0.5)
    assert told == []


def test_losing_the_channel_while_draining_ends_the_draining(broker: Broker) -> None:
    """What was unconfirmed is unknown at once, and the connection is closed without waiting any longer."""
    client = broker.ready()
    sent = client.publish("", "q", b"")
    broker.clock.turn()
    client.close()
    broker.clock.advance(1)
    broker.peer.close_channel(code=406, text="PRECONDITION_FAILED")
    broker.peer.deliver()
    assert (client.substate, outcome(sent)) == (Closing.CLOSING_CONNECTION, OutcomeUnknown)
    assert "406" in str(sent.exception())
    broker.open()
    assert (client.substate, broker.peer.said_goodbye) == (Closed.STOPPED, True)


def test_losing_the_connection_while_draining_ends_it_all(broker: Broker) -> None:
    """What was unconfirmed is unknown, and the client is closed for good."""
    client = broker.ready()
    sent = client.publish("", "q", b"")
    broker.clock.turn()
    client.close()
    broker.peer.lose()
    assert (client.substate, outcome(sent)) == (Closed.STOPPED, OutcomeUnknown)


def test_a_channel_that_is_closed_while_it_is_opened_is_opened_again(broker: Broker) -> None:
    """On the same connection, after a delay."""
    client = enter(broker, Connecting.OPENING_CHANNEL)
    broker.peer.deliver(1)
    broker.clock.turn()
    broker.peer.outbox.clear()
    broker.peer.close_channel(code=504, text="CHANNEL_ERROR")
    broker.peer.deliver()
    assert client.substate is Connecting.RETRYING_CHANNEL
    broker.open()
    assert (client.ready, len(broker.peers)) == (True, 1)


def test_a_connection_that_is_closed_while_the_channel_is_opened_is_a_failed_attempt(broker: Broker) -> None:
    """It is told with its reason at once, not when the attempt's limit has passed."""
    client = enter(broker, Connecting.OPENING_CHANNEL)
    broker.peer.outbox.clear()
    broker.peer.say(0, spec.Connection.Close(530, "NOT_ALLOWED - channel limit", 0, 0))
    broker.peer.deliver()
    broker.clock.turn()
    assert client.substate is Closed.RETRYING
    assert client.history[-1].trigger == "connection_closed"
    assert "530" in client.condition


@pytest.mark.parametrize("substate", [Connecting.OPENING_CONNECTION, Connecting.OPENING_CHANNEL])
def test_a_step_that_never_ends_ends_the_attempt(broker: Broker, substate: Substate) -> None:
    """Each has the limit of an attempt for itself, and the next attempt follows."""
    client = enter(broker, substate, timeout=1000)
    broker.clock.advance(14)
    assert client.substate is substate
    broker.clock.advance(10)
    assert client.history[-1].trigger in {"connection_failed", "connect"}
    reasons: dict[Substate, str] = {
        Connecting.OPENING_CONNECTION: "TCP to broker:5672 (127.0.0.1): no answer within 15 s",
        Connecting.OPENING_CHANNEL: "broker:5672 has not opened a channel within 15 s",
    }
    assert reasons[substate] in [change.reason for change in client.history]
    broker.open()
    assert client.ready


def test_moving_between_substates_is_no_change(broker: Broker) -> None:
    """Subscribers and the history know the documented states only."""
    client = broker.ready()
    told = broker.watch(client)
    broker.peer.close_channel(code=406, text="PRECONDITION_FAILED")
    broker.open()
    client.close()
    broker.open()
    changes = [("READY", "channel_closed", "CONNECTING"), ("CONNECTING", "channel_opened", "READY")]
    closing = [("READY", "close", "CLOSING"), ("CLOSING", "connection_closed", "CLOSED")]
    assert told == changes + closing
    assert [change.trigger for change in client.history[-4:]] == [trigger for _, trigger, _ in told]


def test_stopping_what_is_closed_is_no_change(broker: Broker) -> None:
    """From retrying to stopped the documented state stays, and so does the time since when it is."""
    client = enter(broker, Closed.RETRYING, reconnect_delay=60, max_reconnect_delay=60)
    broker.clock.turn()
    told, since = broker.watch(client), client.state_since
    broker.clock.run(client.shutdown(1))
    assert (client.substate, told, client.state_since) == (Closed.STOPPED, [], since)


def test_a_channel_that_lasted_begins_the_delays_anew_also_when_its_connection_is_lost_next(broker: Broker) -> None:
    """Ready for days, the channel is closed, and the connection is lost while it is opened again."""
    client = broker.client(timeout=10_000)
    for _ in range(5):
        broker.clock.turn()
        broker.peer.refuse()
        broker.clock.advance(5)
    broker.open()
    assert client.ready
    broker.clock.advance(3 * 86400)
    broker.peer.close_channel(code=406, text="PRECONDITION_FAILED")
    broker.peer.deliver()
    broker.peer.lose()
    assert client.substate is Closed.RETRYING
    # The first delay is one second at the most; after the outage of days ago it would be two at the least.
    broker.clock.advance(1)
    assert client.connecting


def test_a_client_whose_loop_never_ran_is_retired_without_a_word(broker: Broker) -> None:
    """What waits is refused with the reason, and nothing is told or connected when the loop runs after all."""
    client = broker.client()
    told = broker.watch(client)
    waits = client.publish("", "q", b"")
    client._runtime.lifecycle.retire("another loop runs the application")
    assert outcome(waits) is NotReadyError
    assert "another loop runs the application" in str(waits.exception())
    broker.clock.advance(10)
    assert (broker.peers, told, client.history) == ([], [], ())


def test_the_client_connects_before_what_the_application_asks_next(broker: Broker) -> None:
    """It was first in line for the loop's first turn."""
    client = broker.client()
    seen: list[Substate] = []
    broker.clock.loop.call_soon(lambda: seen.append(client.substate))
    broker.clock.turn(1)
    assert seen == [Connecting.OPENING_CONNECTION]


def test_the_limit_of_confirmations_holds_after_a_loss(broker: Broker) -> None:
    """On each new channel the clock starts anew."""
    client = broker.ready(confirm_timeout=5)
    client.publish("", "q", b"").add_done_callback(lambda ended: ended.exception())
    broker.clock.turn()
    broker.peer.lose()
    broker.clock.advance(1)
    broker.open()
    slow = client.publish("", "q", b"")
    broker.clock.advance(5.1)
    assert outcome(slow) is OutcomeUnknown


@pytest.mark.parametrize(("code", "together"), [(320, 3), (200, 3), (501, 1)])
def test_only_a_refusal_makes_suspects(broker: Broker, code: int, together: int) -> None:
    """What an operator closed is sent again at once, what RabbitMQ refused one message at a time."""
    client = broker.ready(republish_unconfirmed=True)
    futures = [client.publish("", "q", b"") for _ in range(3)]
    broker.clock.turn()
    broker.peer.say(0, spec.Connection.Close(code, "bye", 0, 0))
    broker.peer.deliver()
    broker.clock.advance(1)
    broker.open()
    assert client.unconfirmed == together
    while client.unconfirmed:
        broker.open().peer.confirm_all()
    assert [outcome(future) for future in futures] == [None] * 3


def test_nothing_is_kept_for_a_republish_that_nobody_waits_for(broker: Broker) -> None:
    """In a persistent outage what is lost is unknown at once."""
    client = broker.ready(republish_unconfirmed=True, timeout=3)
    sent = client.publish("", "q", b"")
    broker.clock.turn()
    broker.peer.say(0, spec.Connection.Blocked("low on memory"))
    broker.peer.deliver()
    broker.clock.advance(4)
    broker.peer.lose()
    assert (outcome(sent), client.waiting) == (OutcomeUnknown, 0)


def test_a_returned_message_that_is_sent_again_ends_as_the_second_time(broker: Broker) -> None:
    """A queue was bound meanwhile."""
    broker.unroutable.add("key")
    client = broker.ready(republish_unconfirmed=True, fail_on_return=True)
    sent = client.publish("", "key", b"")
    broker.clock.turn()
    broker.peer.deliver()
    broker.unroutable.clear()
    broker.peer.lose()
    broker.clock.advance(1)
    broker.open().peer.confirm_all()
    assert outcome(sent) is None


def test_what_is_sent_again_is_counted(broker: Broker) -> None:
    """Each time; what is sent for the first time is not."""
    client = broker.ready(republish_unconfirmed=True)
    for number in range(3):
        client.publish("", "q", b"", {"message_id": str(number)})
    broker.clock.turn()
    for again in (3, 6):
        broker.peer.lose()
        broker.clock.advance(5)
        broker.open()
        assert (client.counters.republished, client.counters.published) == (again, again + 3)
    broker.peer.confirm_all()
    client.publish("", "q", b"")
    broker.open().peer.confirm_all()
    assert (client.counters.republished, client.counters.confirmed) == (6, 4)
