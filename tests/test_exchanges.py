"""Which exchanges RabbitMQ takes messages for, asked on a channel of its own; against a broker in memory."""

from typing import Any, cast

import pytest
from pika import spec

from sprockets_amqp import ExchangeRefused
from sprockets_amqp.delivery.message import Message
from sprockets_amqp.testing.peer import Published, Refusal
from tests.support.memory import Broker, in_memory, outcome

broker = in_memory


def test_the_first_use_of_an_exchange_is_asked_about_and_the_next_is_not(broker: Broker) -> None:
    """The first message waits for the answer, and the next leaves at once."""
    client = broker.ready()
    first = client.publish("events", "q", b"", {"message_id": "m1"})
    assert (client.waiting, broker.messages) == (1, [])
    broker.open()
    assert (client.waiting, broker.messages) == (0, ["m1"])
    client.publish("events", "q", b"", {"message_id": "m2"})
    assert client.waiting == 0
    broker.open().peer.confirm_all()
    assert first.result() is None
    assert broker.messages == ["m1", "m2"]


def test_a_missing_exchange_fails_alone(broker: Broker) -> None:
    """Those to the missing exchange are refused with RabbitMQ's words; others, before and after, are confirmed."""
    client = broker.ready()
    good = [client.publish("", "q", b"")]
    bad = [client.publish("missing", "q", b"") for _ in range(3)]
    good += [client.publish(exchange, "q", b"") for exchange in ("events", "", "other")]
    broker.open().peer.confirm_all()
    assert [future.result() for future in good] == [None] * 4
    for future in bad:
        error = future.exception()
        assert isinstance(error, ExchangeRefused)
        assert (error.reply_code, error.reply_text) == (404, "NOT_FOUND")
    assert client.ready


def test_an_answer_to_an_old_question_answers_no_new_one(broker: Broker) -> None:
    """The channel is lost while RabbitMQ is asked about one exchange: its answer says nothing about another."""
    client = broker.ready()
    asked = client.publish("events", "q", b"")
    for _ in range(4):
        broker.peer.deliver()
        broker.clock.turn()
        if broker.peer.outbox and b"\x00\x5a\x00\x1f" in broker.peer.outbox[-1]:
            break
    else:
        pytest.fail("the question was not asked")
    answer, broker.peer.outbox = broker.peer.outbox, []
    asked.cancel()
    broker.peer.close_channel(1, 406, "PRECONDITION_FAILED")
    broker.peer.deliver()
    assert client.connecting
    bad, good = client.publish("missing", "q", b""), client.publish("", "q", b"")
    while not client.ready:
        broker.peer.deliver(1)
        broker.clock.advance(0.1)
    # Now RabbitMQ is asked about the other, and the channel that answers was slow.
    broker.peer.outbox = answer + broker.peer.outbox
    broker.open().peer.confirm_all()
    broker.open().peer.confirm_all()
    assert isinstance(bad.exception(), ExchangeRefused)
    assert good.result() is None
    assert client.ready


def test_losing_the_channel_while_asking_leaves_no_second_channel_behind(broker: Broker) -> None:
    """The channel for questions is slow to open, and the publishing channel lost meanwhile: one of each is there."""
    client = broker.ready()
    first = client.publish("events", "q", b"")
    broker.clock.turn()
    opened, broker.peer.outbox = broker.peer.outbox, []
    broker.peer.close_channel(1, 406, "PRECONDITION_FAILED")
    for _ in range(6):
        broker.peer.deliver()
        broker.clock.advance(1)
    assert client.ready
    broker.peer.outbox = opened + broker.peer.outbox
    broker.open().peer.confirm_all()
    assert first.result() is None
    assert len(broker.peer.open_channels) == 2


def test_an_old_refusal_refuses_nothing_new(broker: Broker) -> None:
    """The channel is lost while RabbitMQ refuses one exchange: messages to another are not refused for it."""
    client = broker.ready()
    client.publish("events", "q", b"")
    broker.open().peer.confirm_all()
    bad = client.publish("missing", "q", b"")
    broker.clock.turn()
    refusal, broker.peer.outbox = broker.peer.outbox, []
    bad.cancel()
    broker.peer.close_channel(1, 406, "PRECONDITION_FAILED")
    broker.peer.deliver()
    assert client.connecting
    good = client.publish("events", "q", b"")
    while not client.ready:
        broker.peer.deliver(1)
        broker.clock.advance(0.1)
    broker.peer.outbox = refusal + broker.peer.outbox
    broker.open().peer.confirm_all()
    assert good.result() is None


@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_a_question_goes_on_without_the_message_that_asked_it(broker: Broker, how: str) -> None:
    """It is about the exchange: what waits behind for the same one goes out, or is refused, by its answer."""
    client = broker.ready()
    asked = client.publish("events", "q", b"", timeout=0)
    broker.clock.turn()
    answer, broker.peer.outbox = broker.peer.outbox, []
    behind = client.publish("events", "q", b"", timeout=60)
    if how == "cancelled":
        asked.cancel()
    else:
        broker.clock.advance(4.9)
        broker.clock.now += 0.05
    broker.peer.outbox = answer
    broker.open().peer.confirm_all()
    assert behind.result() is None
    assert len(broker.peer.open_channels) == 2


def test_a_question_given_up_leaves_room_for_the_next(broker: Broker) -> None:
    """With room for two channels, a cancelled publish costs no exchange its question, and nobody the channel."""
    broker.tune = spec.Connection.Tune(2, 8192, 0)
    client = broker.ready()
    flight, asked = client.publish("", "q", b""), client.publish("events", "q", b"")
    broker.clock.turn()
    bad = client.publish("missing", "q", b"")
    asked.cancel()
    broker.open().peer.confirm_all()
    assert (outcome(bad), outcome(flight)) == (ExchangeRefused, None)


def test_refused_exchanges_in_a_row_leave_room_for_each_others_question(broker: Broker) -> None:
    """pika holds the number of a channel for a moment after RabbitMQ has closed it."""
    broker.tune = spec.Connection.Tune(2, 8192, 0)
    broker.missing.add("gone")
    client = broker.ready()
    futures = [client.publish(exchange, "q", b"") for exchange in ("missing", "gone", "")]
    broker.open().peer.confirm_all()
    broker.open().peer.confirm_all()
    assert [outcome(future) for future in futures] == [ExchangeRefused, ExchangeRefused, None]


def test_what_was_known_is_asked_anew_on_the_next_channel(broker: Broker) -> None:
    """The exchange may be what the channel was lost over."""
    client = broker.ready()
    client.publish("events", "q", b"")
    broker.open().peer.confirm_all()
    broker.missing.add("events")
    broker.peer.close_channel(1, 404, "NOT_FOUND")
    broker.open()
    futures = [client.publish(exchange, "q", b"") for exchange in ("events", "")]
    broker.open().peer.confirm_all()
    assert [outcome(future) for future in futures] == [ExchangeRefused, None]


def test_a_user_of_one_channel_is_asked_about_no_exchange_any_more(broker: Broker) -> None:
    """RabbitMQ closes the connection over the channel for questions; the next connection does without."""
    client = broker.ready()
    waits = client.publish("events", "q", b"", timeout=60)
    broker.clock.turn()
    broker.peer.outbox.clear()
    broker.peer.say(0, spec.Connection.Close(530, "NOT_ALLOWED - channel limit", 0, 0))
    broker.peer.deliver()
    broker.clock.advance(2)
    broker.open().peer.confirm_all()
    assert (outcome(waits), len(broker.peers), len(broker.peer.open_channels)) == (None, 2, 1)


def test_a_connection_that_is_refused_for_another_reason_says_nothing_about_channels(broker: Broker) -> None:
    """The same code, while the channel for questions is open, is about something else."""
    client = broker.ready()
    client.publish("events", "q", b"")
    broker.open().peer.confirm_all()
    broker.peer.say(0, spec.Connection.Close(530, "NOT_ALLOWED - vhost is down", 0, 0))
    broker.peer.deliver()
    broker.clock.advance(2)
    broker.open()
    bad = client.publish("missing", "q", b"")
    broker.open()
    assert outcome(bad) is ExchangeRefused


def test_a_publish_on_a_closing_connection_waits(broker: Broker) -> None:
    """Somebody closed pika's connection: the publish raises nothing, and goes out on the next."""
    client = broker.ready()
    assert client.connection is not None
    client.connection.close()
    future = client.publish("events", "q", b"")
    broker.open()
    broker.clock.advance(2)
    broker.open().peer.confirm_all()
    assert outcome(future) is None


def test_a_check_has_the_user_id_of_its_message(broker: Broker) -> None:
    """RabbitMQ refuses that of another user: with the check, and not with the message."""
    client = broker.ready()
    seen: list[object] = []
    judge, patched = broker.judge, cast("Any", broker)

    def note(message: Published) -> Refusal | None:
        seen.append((message.exchange, message.properties.user_id, message.properties.message_id is not None))
        return judge(message)

    patched.judge = note
    client.publish("events", "q", b"", {"user_id": "guest"})
    client.publish("events", "q", b"")
    for _ in range(3):
        broker.open().peer.confirm_all()
    assert [each for each in seen if each == ("events", "guest", False)] == [("events", "guest", False)]
    assert sorted(map(str, seen)) == sorted(
        map(str, [("events", who, is_message) for who in ("guest", None) for is_message in (False, True)])
    )


def test_a_check_that_was_never_sent_costs_nothing(broker: Broker) -> None:
    """The connection is closed while its channel is being opened: the exchange is checked on the next one."""
    client = broker.ready()
    bad = client.publish("missing", "q", b"")
    broker.open()
    assert outcome(bad) is ExchangeRefused
    good = client.publish("events", "q", b"", timeout=60)
    broker.clock.turn()
    broker.peer.outbox.clear()
    broker.peer.close_connection(541, "INTERNAL_ERROR")
    broker.peer.deliver()
    broker.clock.advance(2)
    for _ in range(3):
        broker.open().peer.confirm_all()
    assert outcome(good) is None


def test_no_second_channel_is_opened_for_a_check_that_has_one(broker: Broker) -> None:
    """A check waits for the channel of an earlier one to close, is given up at that moment, and another follows."""
    client = broker.ready()
    link = client._core.link
    answers: list[object] = []
    first, second, third = (
        Message(broker.clock.loop.create_future(), exchange, "q", b"", None, None, {}) for exchange in ("a", "b", "c")
    )
    link.ask(first, answers.append)
    broker.clock.turn()
    broker.peer.deliver()
    link.drop_question()
    link.ask(second, answers.append)
    while link._leaving is not None:
        broker.clock.turn()
        broker.peer.deliver()
    link.drop_question()
    link.ask(third, answers.append)
    broker.open()
    assert (answers, len(broker.peer.open_channels)) == ([None], 2)
