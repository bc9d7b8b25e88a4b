"""A log that a broken broker cannot fill: so many lines a second of each kind, and how many there were."""

import doctest
import logging
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import spec

from sprockets_amqp import bounded_log
from sprockets_amqp.bounded_log import MOST, BoundedLog, Quota
from tests.support.memory import Broker, in_memory

broker = in_memory


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        """What time it is."""
        return self.now


def test_the_first_few_pass_and_the_others_are_counted() -> None:
    """Of each kind on its own."""
    quota = Quota(Clock(), most=2)
    assert [quota.take("bark") for _ in range(4)] == [(True, 0), (True, 0), (False, 1), (False, 2)]
    assert quota.take("bite") == (True, 0)


def test_another_second_begins_with_what_was_held_back_before() -> None:
    """Once."""
    clock = Clock()
    quota = Quota(clock, most=1)
    assert [quota.take("bark") for _ in range(3)] == [(True, 0), (False, 1), (False, 2)]
    clock.now += 0.99
    assert quota.take("bark") == (False, 3)
    clock.now += 0.02
    assert quota.take("bark") == (True, 3)
    clock.now += 60
    assert quota.take("bark") == (True, 0)


@given(steps=st.lists(st.floats(min_value=0, max_value=3), max_size=60), most=st.integers(min_value=1, max_value=5))
def test_nothing_is_lost_in_the_count(steps: list[float], most: int) -> None:
    """What passed and what was held back is all that there was, and no second has more than twice what may pass."""
    clock, times, told, last = Clock(), [], 0, 0
    quota = Quota(clock, most)
    for step in steps:
        clock.now += step
        passes, held = quota.take("bark")
        told += held if passes else 0
        last = 0 if passes else held
        if passes:
            times.append(clock.now)
    assert len(times) + told + last == len(steps)
    assert all(sum(start <= time < start + 1 for time in times) <= 2 * most for start in times)


def test_a_line_says_that_there_are_more_and_later_one_how_many(caplog: pytest.LogCaptureFixture) -> None:
    """From where they would have come."""
    clock = Clock()
    log = BoundedLog(logging.getLogger("dog"), clock, most=2)
    for number in range(5):
        log.log(logging.WARNING, "bark %s", number)
    clock.now += 1
    log.log(logging.WARNING, "bark %s", 5)
    assert caplog.messages == [
        "bark 0",
        "bark 1",
        "more of these in this second are not logged: bark %s",
        "3 more were not logged: bark %s",
        "bark 5",
    ]
    assert {record.funcName for record in caplog.records} == {
        "test_a_line_says_that_there_are_more_and_later_one_how_many"
    }


def test_its_example_is_right() -> None:
    """What the docstring shows is what happens."""
    assert doctest.testmod(bounded_log) == doctest.TestResults(failed=0, attempted=2)


@pytest.mark.parametrize(
    "says",
    [
        lambda number: (1, spec.Basic.Ack(1000 + number)),
        lambda number: (1, spec.Basic.Nack(1000 + number, multiple=True)),
        lambda number: (0, spec.Connection.Unblocked() if number % 2 else spec.Connection.Blocked(f"{number}")),
        lambda number: (1, spec.Channel.Flow(active=bool(number % 2))),
    ],
    ids=["acks", "nacks", "alarms", "flow"],
)
def test_a_broken_broker_cannot_fill_the_log(broker: Broker, caplog: pytest.LogCaptureFixture, says: Any) -> None:
    """With acks of what was never sent, or with alarms that come and go; it used to be a line for each."""
    broker.ready()
    caplog.clear()
    for number in range(1000):
        broker.peer.say(*says(number))
    began = time.monotonic()
    broker.peer.deliver()
    seconds = int(time.monotonic() - began) + 2
    # Some of it is two lines: that it blocks, and that the client is ready again. The log is bounded by the second, of
    # which a busy machine takes several.
    assert MOST <= len(_warnings(caplog)) <= 2 * (MOST + 1) * seconds < 1000


def test_returns_without_end_cannot_fill_the_log(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody asked for them, and nobody was told to take them."""
    client = broker.ready()
    caplog.clear()
    for number in range(1000):
        method = spec.Basic.Return(312, f"NO_ROUTE {number}", "", "q")
        client.on_basic_return(client.channel, method, spec.BasicProperties(message_id="m1"), b"")
    # The first one is critical, and counts for itself.
    assert len(_warnings(caplog)) == 1 + MOST + 1
    assert client.counters.returned == 1000


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
