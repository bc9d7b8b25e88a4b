"""The line in which messages wait: whose turn it is, held or not; and that a question holds up no other exchange."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprockets_amqp import ExchangeRefused
from sprockets_amqp.delivery.line import Line
from sprockets_amqp.delivery.message import encode
from sprockets_amqp.delivery.options import defaults
from sprockets_amqp.delivery.publish import Publish
from sprockets_amqp.settings import Settings
from tests.support.memory import Broker, in_memory, outcome

broker = in_memory


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop to make futures of; it does not run."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def make(loop: asyncio.AbstractEventLoop, exchange: str) -> Publish:
    """Make a publish to an exchange."""
    message, _, _ = encode(exchange, "q", b"", None, None, {}, defaults(Settings()))
    return Publish(message, loop.create_future())


def left(line: Line) -> list[Publish]:
    """Let all go whose turn it is; return them in order."""
    gone = []
    while (message := line.next()) is not None:
        line.leave(message)
        gone.append(message)
    return gone


def test_messages_leave_in_the_order_in_which_they_came(loop: asyncio.AbstractEventLoop) -> None:
    """Whatever their exchanges; those that are put before all others leave before them."""
    line = Line()
    messages = [make(loop, exchange) for exchange in "abacb"]
    for message in messages:
        line.enter(message)
    early = [make(loop, exchange) for exchange in "bda"]
    for message in early:
        line.enter(message, first=True)
    assert line.in_order() == [*reversed(early), *messages]
    assert left(line) == [*reversed(early), *messages]
    assert not line
    line.leave(messages[0])


def test_a_lane_that_is_held_holds_up_no_other(loop: asyncio.AbstractEventLoop) -> None:
    """Released, its messages leave in their order, and before what came later."""
    line = Line()
    one, other, two, late = (make(loop, exchange) for exchange in "abab")
    for message in (one, other, two):
        line.enter(message)
    line.hold(one)
    assert left(line) == [other]
    assert line.next_held() is one
    assert line.lets_pass(late)
    assert not line.lets_pass(make(loop, "a"))
    line.enter(late)
    assert not line.lets_pass(make(loop, "c"))
    line.release(late)
    line.release(one)
    assert line.next_held() is None
    assert left(line) == [one, two, late]


def test_lanes_that_come_and_go_leave_nothing_behind(loop: asyncio.AbstractEventLoop) -> None:
    """In an outage publishes wait and expire without a turn."""
    line = Line()
    stays = make(loop, "held")
    line.enter(stays)
    line.hold(stays)
    for number in range(10_000):
        message = make(loop, str(number % 3))
        line.enter(message)
        line.leave(message)
    assert len(line._turns) < 100
    assert left(line) == []
    line.release_all()
    assert left(line) == [stays]


@given(
    st.lists(
        st.tuples(st.sampled_from(["enter", "first", "leave", "hold", "release", "all"]), st.sampled_from("abc")),
        max_size=60,
    )
)
def test_the_line_is_what_a_simple_one_would_be(loop: asyncio.AbstractEventLoop, steps: list[tuple[str, str]]) -> None:
    """At each step the next is the first of those whose lane is not held."""
    line = Line()
    simple: list[Publish] = []
    held: list[str] = []
    for what, exchange in steps:
        alike = [message for message in simple if message.message.exchange == exchange]
        following = line.next()
        if what in {"enter", "first"}:
            message = make(loop, exchange)
            line.enter(message, first=what == "first")
            simple.insert(0 if what == "first" else len(simple), message)
        elif what == "leave" and alike:
            line.leave(alike[-1])
            simple.remove(alike[-1])
            if len(alike) == 1 and exchange in held:
                held.remove(exchange)
        elif what == "hold" and following is not None:
            line.hold(following)
            held.append(following.message.exchange)
        elif what == "release" and alike:
            line.release(alike[0])
            held = [other for other in held if other != exchange]
        elif what == "all":
            line.release_all()
            held.clear()
        assert line.in_order() == simple
        assert line.next() is next((message for message in simple if message.message.exchange not in held), None)
        first_held = next(
            (message for name in held[:1] for message in simple if message.message.exchange == name), None
        )
        assert line.next_held() is first_held


def test_a_question_holds_up_no_message_to_a_known_exchange(broker: Broker) -> None:
    """It leaves at once, however many wait for RabbitMQ's word, and though the line is full."""
    client = broker.ready(max_waiting=100)
    bad = [client.publish(f"missing {number}", "q", b"") for number in range(100)]
    broker.missing |= {f"missing {number}" for number in range(100)}
    assert client.waiting == 100
    good = client.publish("", "q", b"", {"message_id": "good"})
    assert (client.waiting, client.unconfirmed) == (100, 1)
    for _ in range(60):
        broker.open().peer.confirm_all()
    assert good.result() is None
    assert {outcome(future) for future in bad} == {ExchangeRefused}


def test_one_exchange_keeps_its_order_while_it_is_asked_about(broker: Broker) -> None:
    """What was published to it first leaves first, and what is known leaves before."""
    client = broker.ready()
    names = [("events", "e1"), ("", "d1"), ("other", "o1"), ("events", "e2"), ("", "d2"), ("other", "o2")]
    futures = [client.publish(exchange, "q", b"", {"message_id": name}) for exchange, name in names]
    for _ in range(3):
        broker.open().peer.confirm_all()
    assert {future.result() for future in futures} == {None}
    assert broker.messages == ["d1", "d2", "e1", "e2", "o1", "o2"]


def test_a_cancelled_publish_is_not_asked_about(broker: Broker) -> None:
    """It waited behind another question: RabbitMQ is asked about those that still wait."""
    client = broker.ready()
    futures = [client.publish(exchange, "q", b"") for exchange in ("events", "missing", "other")]
    futures[1].cancel()
    for _ in range(3):
        broker.open().peer.confirm_all()
    assert [futures[index].result() for index in (0, 2)] == [None, None]
    assert len(broker.peer.channels) == 2
