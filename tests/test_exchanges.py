"""Which exchanges RabbitMQ takes messages for, asked on a channel of its own; against a broker in memory."""

import pytest

from sprockets_amqp import ExchangeRefused, NotReadyError
from tests.support.memory import Broker, in_memory

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
def test_a_question_whose_message_is_gone_is_asked_for_the_next_one(broker: Broker, how: str) -> None:
    """RabbitMQ is slow to answer about an exchange: what waits behind the message that asked has its own question."""
    broker.unanswered.add("slow")
    client = broker.ready()
    asked = client.publish("slow", "q", b"", timeout=0)
    broker.open()
    behind = client.publish("slow", "q", b"", timeout=60)
    broker.unanswered.clear()
    if how == "cancelled":
        asked.cancel()
    else:
        broker.clock.advance(6)
        assert isinstance(asked.exception(), NotReadyError)
    broker.open().peer.confirm_all()
    assert behind.result() is None
