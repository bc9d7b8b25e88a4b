"""Which exchanges RabbitMQ takes messages for, asked on a channel of its own; against a broker in memory."""

import asyncio
import logging
import tempfile
import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest
from pika import spec

from sprockets_amqp import Client, ExchangeRefused
from sprockets_amqp.delivery.check import CheckModel
from sprockets_amqp.states import CHECK, Check, Closing, Connecting, Running
from sprockets_amqp.testing.rules import Published
from tests.support.memory import Broker, in_memory, outcome

broker = in_memory

Future = asyncio.Future[Any]


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

    def note(message: Published) -> None:
        seen.append((message.exchange, message.properties.user_id, message.properties.message_id is not None))
        judge(message)

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


# Each way of the machine


def check_of(client: Client) -> CheckModel:
    """Return the model of the client's check."""
    return client._runtime.check


def reach(broker: Broker, client: Client, step: Running) -> None:
    """Deliver RabbitMQ's frames, one at a time, until the check has got as far."""
    while check_of(client).state is not step:
        broker.peer.deliver(1)
        broker.clock.turn()


def asked(broker: Broker, client: Client) -> Future:
    """Publish to an exchange that is checked, up to the empty message; RabbitMQ's answer is held back."""
    future = client.publish("events", "q", b"", timeout=60)
    reach(broker, client, Running.CHECKING)
    return future


def finish(broker: Broker, future: Future) -> object:
    """Let RabbitMQ answer and confirm until the publish has ended; return how."""
    for _ in range(10):
        broker.open().peer.confirm_all()
        broker.clock.advance(0.1)
        if future.done():
            break
    return outcome(future)


def test_a_check_can_be_asked_for_and_ends_in_every_state() -> None:
    """One that no row answers would hold its exchange, or every message, up for good."""
    running = {state for state in CHECK.lasting if CHECK.outer[state] is Check.RUNNING}
    assert {*CHECK.lasting} - running == {*CHECK.sources("check_requested")}
    assert running == {*CHECK.sources("check_expired")}
    assert {CHECK.outer[state] for state in running} == {*CHECK.sources("publishing_ended")}


def test_a_check_leaves_its_channel_for_the_next(broker: Broker) -> None:
    """One channel is enough for any number of exchanges, one after another."""
    client = broker.ready()
    for exchange in ("a", "b", "c"):
        future = client.publish(exchange, "q", b"")
        broker.open().peer.confirm_all()
        assert (outcome(future), check_of(client).state) == (None, Check.IDLE)
    assert len(broker.peer.open_channels) == 2


def test_a_refused_check_takes_its_channel_and_the_next_opens_another(broker: Broker) -> None:
    """RabbitMQ closes the channel to refuse."""
    client = broker.ready()
    bad = client.publish("missing", "q", b"")
    broker.open()
    assert (outcome(bad), check_of(client).state) == (ExchangeRefused, Check.NONE)
    good = client.publish("events", "q", b"")
    broker.open().peer.confirm_all()
    assert (outcome(good), check_of(client).state) == (None, Check.IDLE)


def test_an_idle_channel_that_rabbitmq_closes_is_opened_again(broker: Broker) -> None:
    """It refuses nothing: no message was checked."""
    client = broker.ready()
    client.publish("events", "q", b"")
    broker.open().peer.confirm_all()
    (number,) = broker.peer.open_channels - {1}
    broker.peer.close_channel(number, 404, "NOT_FOUND")
    broker.open()
    assert check_of(client).state is Check.NONE
    good = client.publish("other", "q", b"")
    broker.open().peer.confirm_all()
    assert outcome(good) is None


@pytest.mark.parametrize("last", [Running.OPENING, Running.SELECTING, Running.CHECKING])
def test_a_check_that_is_not_answered_is_made_again_on_another_channel(broker: Broker, last: Running) -> None:
    """After five seconds, however far it had come; until its channel is closed, the next waits for that."""
    client = broker.ready()
    future = client.publish("events", "q", b"", timeout=60)
    broker.clock.turn()
    reach(broker, client, last)
    kept, broker.peer.outbox = broker.peer.outbox, []
    broker.clock.advance(4.9)
    assert check_of(client).state is last
    broker.clock.advance(0.2)
    # It is still needed, and made again.
    assert check_of(client).state is Running.WAITING
    broker.peer.outbox = kept + broker.peer.outbox
    broker.open().peer.confirm_all()
    broker.open().peer.confirm_all()
    assert (outcome(future), check_of(client).state, len(broker.peer.open_channels)) == (None, Check.IDLE, 2)


def test_a_check_does_not_wait_for_ever_for_the_last_channel(broker: Broker) -> None:
    """One that RabbitMQ does not close is done without, once the limit of the next check is over."""
    client = broker.ready()
    future = asked(broker, client)
    broker.peer.outbox.clear()
    broker.clock.advance(5.1)
    assert check_of(client).state is Running.WAITING
    broker.clock.advance(5.1)
    assert check_of(client).state is Running.OPENING
    assert finish(broker, future) is None


def test_a_check_waits_for_a_channel_number_that_is_about_to_be_free(broker: Broker) -> None:
    """There is room for two: the last channel is not closed yet, and that is no reason to use exchanges unchecked."""
    broker.tune = spec.Connection.Tune(2, 8192, 0)
    client = broker.ready()
    bad = client.publish("missing", "q", b"", timeout=60)
    broker.clock.turn()
    reach(broker, client, Running.CHECKING)
    refusal, broker.peer.outbox = broker.peer.outbox, []
    broker.clock.advance(5.1)
    # The check that waits for the channel is given up, too, and the next tries without.
    broker.clock.advance(5.1)
    assert check_of(client).state is Running.WAITING
    broker.peer.outbox = refusal
    assert finish(broker, bad) is ExchangeRefused


def test_a_lost_publishing_channel_ends_the_check(broker: Broker) -> None:
    """Its channel is closed, and the exchange is checked on the next."""
    client = broker.ready()
    future = asked(broker, client)
    answer, broker.peer.outbox = broker.peer.outbox, []
    broker.peer.close_channel(1, 406, "PRECONDITION_FAILED")
    broker.peer.deliver()
    assert check_of(client).state is Check.LEAVING
    broker.peer.outbox = answer + broker.peer.outbox
    assert finish(broker, future) is None
    assert len(broker.peer.open_channels) == 2


def test_a_lost_publishing_channel_ends_a_check_that_waits(broker: Broker) -> None:
    """The channel that it waits for is still being closed."""
    client = broker.ready()
    future = asked(broker, client)
    broker.peer.outbox.clear()
    broker.clock.advance(5.1)
    assert check_of(client).state is Running.WAITING
    broker.peer.outbox.clear()
    broker.peer.close_channel(1, 406, "PRECONDITION_FAILED")
    broker.peer.deliver()
    assert check_of(client).state is Check.LEAVING
    future.cancel()


@pytest.mark.parametrize("how", ["running", "idle", "leaving"])
def test_a_lost_connection_takes_the_channel_along(broker: Broker, how: str) -> None:
    """The next connection opens one of its own."""
    client = broker.ready()
    future = asked(broker, client)
    if how == "idle":
        broker.open().peer.confirm_all()
        assert check_of(client).state is Check.IDLE
    elif how == "leaving":
        broker.peer.outbox.clear()
        future.cancel()
        broker.clock.advance(5.1)
        assert check_of(client).state is Check.LEAVING
    broker.peer.lose()
    assert check_of(client).state is Check.NONE
    broker.clock.advance(2)
    broker.open()
    again = client.publish("other", "q", b"")
    broker.open().peer.confirm_all()
    broker.open().peer.confirm_all()
    assert (outcome(again), check_of(client).state) == (None, Check.IDLE)


def warnings_of(broker: Broker, act: Callable[[], object]) -> list[str]:
    """Return what the check warns of meanwhile."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("sprockets_amqp.delivery.check")
    logger.addHandler(handler)
    try:
        act()
    finally:
        logger.removeHandler(handler)
    return lines


def test_a_refused_channel_is_warned_of(broker: Broker) -> None:
    """In the user's words."""
    _costs_one_connection(broker, Running.OPENING, 530, "allows this user no second channel")


def test_a_refused_transaction_is_warned_of(broker: Broker) -> None:
    """As what it is."""
    _costs_one_connection(broker, Running.SELECTING, 540, "has refused a transaction, with which exchanges are checked")


def _costs_one_connection(broker: Broker, step: Running, code: int, words: str) -> None:
    client = broker.ready()
    first = client.publish("events", "q", b"", timeout=60)
    broker.clock.turn()
    reach(broker, client, step)
    broker.peer.outbox.clear()
    broker.peer.say(0, spec.Connection.Close(code, "no", 0, 0))
    lines = warnings_of(broker, lambda: (broker.peer.deliver(), broker.clock.advance(2)))
    assert lines == [f"RabbitMQ {words}: exchanges are used unchecked"]
    assert warnings_of(broker, lambda: finish(broker, first)) == []
    assert (outcome(first), len(broker.peers), check_of(client).state) == (None, 2, Check.UNAVAILABLE)


def test_a_connection_of_one_channel_is_used_unchecked_at_once(broker: Broker) -> None:
    """Also if a channel of the last connection was being closed when that was lost: it has nothing to do with it."""
    client = broker.ready()
    future = asked(broker, client)
    broker.peer.outbox.clear()
    future.cancel()
    broker.clock.advance(5.1)
    assert check_of(client).state is Check.LEAVING
    broker.tune = spec.Connection.Tune(1, 8192, 0)
    broker.peer.lose()
    broker.clock.advance(2)
    broker.open()
    again = client.publish("events", "q", b"", timeout=60)
    lines = warnings_of(broker, broker.clock.turn)
    assert lines == ["RabbitMQ allows no second channel: exchange 'events' is used unchecked"]
    assert check_of(client).state is Check.NONE
    broker.open().peer.confirm_all()
    assert outcome(again) is None


@pytest.mark.parametrize("step", [Running.WAITING, Running.OPENING, Running.SELECTING, Running.CHECKING])
def test_while_one_exchange_is_checked_others_wait_for_their_own_check(broker: Broker, step: Running) -> None:
    """One at a time, and none is used unchecked meanwhile."""
    client = broker.ready()
    future = client.publish("events", "q", b"", timeout=60)
    broker.clock.turn()
    reach(broker, client, (Running.CHECKING if step is Running.WAITING else step))
    if step is Running.WAITING:
        kept, broker.peer.outbox = broker.peer.outbox, []
        broker.clock.advance(5.1)
        broker.peer.outbox = kept
    assert check_of(client).state is step
    bad = client.publish("missing", "q", b"", timeout=60)
    assert (client.waiting, broker.messages) == (2, [])
    assert (finish(broker, future), finish(broker, bad)) == (None, ExchangeRefused)


def test_a_check_that_waits_is_not_blamed_for_a_lost_connection(broker: Broker) -> None:
    """It is not on the wire: the exchange is checked on the next connection, like any other."""
    client = broker.ready()
    future = asked(broker, client)
    broker.peer.outbox.clear()
    broker.clock.advance(5.1)
    assert check_of(client).state is Running.WAITING
    broker.peer.close_connection(541, "INTERNAL_ERROR")
    broker.peer.deliver()
    broker.clock.advance(2)
    assert finish(broker, future) is None


def test_a_publish_that_was_checked_is_not_kept(broker: Broker) -> None:
    """What has ended can go."""
    client = broker.ready()
    future = client.publish("events", "q", b"")
    assert finish(broker, future) is None
    gone = weakref.ref(future)
    del future
    # Without a collection, which takes long in a large process: nothing here is in a cycle.
    assert gone() is None


def test_an_idle_channel_lasts_as_long_as_the_connection(broker: Broker) -> None:
    """Through a lost publishing channel, setup, and closing."""
    runs: list[int] = []

    async def setup(_topology: object) -> None:
        runs.append(1)
        if len(runs) > 1:
            await asyncio.get_running_loop().create_future()

    client = broker.ready(setup=setup)
    client.publish("events", "q", b"")
    broker.open().peer.confirm_all()
    broker.peer.close_channel(code=406, text="PRECONDITION_FAILED")
    broker.peer.deliver()
    broker.clock.advance(0.2)
    assert (client.substate, check_of(client).state) == (Connecting.SETTING_UP, Check.IDLE)


def test_an_idle_channel_is_left_to_the_closing_connection(broker: Broker) -> None:
    """Nothing is said about it."""
    client = broker.ready()
    client.publish("events", "q", b"")
    broker.open().peer.confirm_all()
    client.close()
    broker.clock.turn()
    assert (client.substate, check_of(client).state) == (Closing.CLOSING_CONNECTION, Check.IDLE)
    broker.open()
    assert (client.closed, check_of(client).state) == (True, Check.NONE)


def test_a_check_may_end_after_half_of_the_time_for_closing(broker: Broker) -> None:
    """What waits is in the outbox by then, and the channel is still there."""
    with tempfile.TemporaryDirectory() as path:
        client = broker.ready(outbox=path)
        client.publish("", "q", b"unconfirmed").add_done_callback(lambda ended: ended.exception())
        asked(broker, client)
        broker.peer.outbox.clear()
        task = broker.clock.loop.create_task(client.shutdown(5))
        broker.clock.advance(2.5)
        assert (client.substate, check_of(client).state) == (Closing.CONFIRMING, Running.CHECKING)
        broker.shut_down()
        task.result()


def test_an_idle_channel_lasts_after_half_of_the_time_for_closing(broker: Broker) -> None:
    """The connection is still open."""
    with tempfile.TemporaryDirectory() as path:
        client = broker.ready(outbox=path)
        client.publish("events", "q", b"")
        broker.open().peer.confirm_all()
        client.publish("", "q", b"unconfirmed").add_done_callback(lambda ended: ended.exception())
        broker.clock.turn()
        task = broker.clock.loop.create_task(client.shutdown(5))
        broker.clock.advance(2.5)
        assert (client.substate, check_of(client).state) == (Closing.CONFIRMING, Check.IDLE)
        broker.shut_down()
        task.result()


def test_an_idle_channel_lasts_through_an_alarm(broker: Broker) -> None:
    """And while the client closes in one."""
    client = broker.ready()
    client.publish("events", "q", b"")
    broker.open().peer.confirm_all()
    client.publish("", "q", b"unconfirmed").add_done_callback(lambda ended: ended.exception())
    broker.peer.say(0, spec.Connection.Blocked("low on memory"))
    broker.peer.deliver()
    assert (client.blocked, check_of(client).state) == (True, Check.IDLE)
    client.close()
    assert (client.substate, check_of(client).state) == (Closing.PAUSED, Check.IDLE)


def test_a_transaction_that_is_not_yet_selected_is_not_blamed(broker: Broker) -> None:
    """No message was on the wire: the exchange is checked on the next connection, like any other."""
    client = broker.ready()
    future = client.publish("events", "q", b"", timeout=60)
    broker.clock.turn()
    reach(broker, client, Running.SELECTING)
    broker.peer.outbox.clear()
    broker.peer.close_connection(541, "INTERNAL_ERROR")
    broker.peer.deliver()
    broker.clock.advance(2)
    assert finish(broker, future) is None


@pytest.mark.parametrize("closing", [Closing.DRAINING, Closing.PAUSED])
def test_a_check_goes_on_while_the_client_closes(broker: Broker, closing: Closing) -> None:
    """What waits is still sent; the check ends with the publishing channel."""
    client = broker.ready()
    future = asked(broker, client)
    answer, broker.peer.outbox = broker.peer.outbox, []
    client.close()
    if closing is Closing.PAUSED:
        broker.peer.say(0, spec.Connection.Blocked("low on memory"))
        broker.peer.deliver()
    assert (client.substate, check_of(client).state) == (closing, Running.CHECKING)
    broker.peer.outbox = answer + broker.peer.outbox
    if closing is Closing.PAUSED:
        broker.peer.say(0, spec.Connection.Unblocked())
    for _ in range(3):
        broker.open().peer.confirm_all()
    assert (outcome(future), client.closed, check_of(client).state) == (None, True, Check.NONE)


def test_transactions_that_cost_the_connection_are_not_tried_again(broker: Broker) -> None:
    """A proxy or broker without them answers tx.select with 540: exchanges are used unchecked from then on."""
    client = broker.ready()
    first = client.publish("events", "q", b"", timeout=60)
    broker.clock.turn()
    reach(broker, client, Running.SELECTING)
    broker.peer.outbox.clear()
    broker.peer.say(0, spec.Connection.Close(540, "NOT_IMPLEMENTED - tx.select", 0, 0))
    broker.peer.deliver()
    broker.clock.advance(2)
    broker.open().peer.confirm_all()
    second = client.publish("other", "q", b"")
    broker.open().peer.confirm_all()
    assert (outcome(first), outcome(second), len(broker.peers)) == (None, None, 2)
    assert (check_of(client).state, len(broker.peer.open_channels)) == (Check.UNAVAILABLE, 1)


def at(broker: Broker, client: Client, exchange: str, step: Running) -> Future:
    """Publish to an exchange that is checked, up to a step; RabbitMQ's answer is held back and lost."""
    future = client.publish(exchange, "q", b"", timeout=60)
    broker.clock.turn()
    reach(broker, client, step)
    broker.peer.outbox.clear()
    return future


@pytest.mark.parametrize("step", [Running.OPENING, Running.SELECTING])
def test_a_channel_that_is_closed_before_anything_is_checked_refuses_no_message(broker: Broker, step: Running) -> None:
    """It says nothing about the exchange, which is used unchecked, nor about the next one, which is checked."""
    client = broker.ready()
    first = at(broker, client, "events", step)
    broker.peer.close_channel(2, 506, "RESOURCE_ERROR")
    lines = warnings_of(broker, lambda: finish(broker, first))
    words = "RabbitMQ closed the channel of a check: (506) RESOURCE_ERROR: exchange 'events' is used unchecked"
    assert (outcome(first), lines, client.ready) == (None, [words], True)
    bad = client.publish("missing", "q", b"")
    assert finish(broker, bad) is ExchangeRefused
    assert client.ready


def test_the_channel_for_checks_outlives_the_one_that_is_replaced(broker: Broker) -> None:
    """The connection is the same: there are two channels, before and after."""
    client = broker.ready()
    first = client.publish("events", "q", b"")
    broker.open().peer.confirm_all()
    broker.clock.turn()
    assert (outcome(first), check_of(client).state, len(broker.peer.open_channels)) == (None, Check.IDLE, 2)
    client._runtime.gate.replace_channel("RabbitMQ has nacked 3 messages in a row")
    broker.clock.turn()
    assert client.substate is Connecting.CLOSING_CHANNEL
    broker.open()
    again = client.publish("events", "q", b"")
    broker.open().peer.confirm_all()
    broker.clock.turn()
    assert (outcome(again), len(broker.peer.open_channels)) == (None, 2)


def test_transactions_that_cost_a_channel_alone_are_not_tried_again(broker: Broker) -> None:
    """Exchanges that wait for their check are used unchecked, too, at once."""
    client = broker.ready()
    first = at(broker, client, "events", Running.SELECTING)
    behind = client.publish("other", "q", b"", timeout=60)
    broker.peer.close_channel(2, 540, "NOT_IMPLEMENTED - tx.select")
    assert (finish(broker, first), finish(broker, behind)) == (None, None)
    assert (check_of(client).state, len(broker.peer.open_channels)) == (Check.UNAVAILABLE, 1)
    later = client.publish("one more", "q", b"")
    broker.open().peer.confirm_all()
    assert (outcome(later), client.ready) == (None, True)


def test_a_suspect_is_used_unchecked_where_nothing_can_be_checked_any_more(broker: Broker) -> None:
    """The next connection refuses the transaction in which it would be checked alone: the others go on."""
    broker.costly = {"costly"}
    client = broker.ready()
    bad = client.publish("costly", "q", b"", timeout=60)
    flight = client.publish("", "q", b"")
    flight.add_done_callback(lambda ended: ended.exception())
    broker.open()
    broker.clock.advance(2)
    broker.peer.accept()
    reach(broker, client, Running.SELECTING)
    broker.costly.clear()
    broker.peer.outbox.clear()
    broker.peer.say(0, spec.Connection.Close(540, "NOT_IMPLEMENTED - tx.select", 0, 0))
    broker.peer.deliver()
    broker.clock.advance(4)
    others = [client.publish("", "q", b"", timeout=60) for _ in range(3)]
    assert [finish(broker, each) for each in (bad, *others)] == [None] * 4
    assert check_of(client).state is Check.UNAVAILABLE


def test_a_check_that_never_had_a_channel_leaves_none_to_wait_for(broker: Broker) -> None:
    """The publishing channel is lost in the moment in which there was no second one: the next check is made at once."""
    broker.tune = spec.Connection.Tune(1, 8192, 0)
    client = broker.ready()
    future = client.publish("events", "q", b"", timeout=3)
    broker.peer.close_channel(code=406, text="PRECONDITION_FAILED")
    broker.peer.deliver()
    assert finish(broker, future) is None
