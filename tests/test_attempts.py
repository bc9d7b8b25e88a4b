"""Which node is tried next, and after what delay."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprockets_amqp.connection.attempts import Attempts, Backoff

seconds = st.floats(0.001, 1000)


@given(first=seconds, limit=seconds, attempts=st.integers(1, 60))
def test_delays_double_up_to_the_limit_and_jitter_only_shortens(first: float, limit: float, attempts: int) -> None:
    """The n-th delay lies between half and all of the first doubled n times, or of the limit."""
    backoff = Backoff(first, limit)
    for attempt in range(attempts):
        whole = min(max(first, limit), first * 2.0 ** min(attempt, 30))
        assert whole / 2 <= backoff.next() <= whole


@pytest.mark.parametrize(("chance", "delays"), [(0.5, [1, 2, 4, 5, 5]), (1.0, [2, 4, 8, 10, 10])])
def test_jitter_is_between_half_and_all(monkeypatch: pytest.MonkeyPatch, chance: float, delays: list[float]) -> None:
    """At its ends, the jitter halves the delay or leaves it."""
    asked: list[tuple[float, float]] = []
    monkeypatch.setattr(random, "uniform", lambda low, high: [chance, asked.append((low, high))][0])
    backoff = Backoff(2, 10)
    assert [backoff.next() for _ in delays] == delays
    assert set(asked) == {(0.5, 1)}


def test_a_limit_below_the_first_delay_is_no_limit_for_it() -> None:
    """The first delay is what was asked for, also where the limit is smaller."""
    backoff = Backoff(4, 1)
    assert all(2 <= backoff.next() <= 4 for _ in range(10))


def test_reset_begins_anew() -> None:
    """After a reset the delays begin with the first."""
    backoff = Backoff(1, 1000)
    for _ in range(8):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 1


def test_at_once_means_no_delay_the_first_time() -> None:
    """The first time, and the first after a reset, costs nothing; the second begins with the first delay."""
    backoff = Backoff(1, 10, at_once=True)
    for _ in range(2):
        assert backoff.next() == 0
        assert 0.5 <= backoff.next() <= 1
        assert 1 <= backoff.next() <= 2
        backoff.reset()


def test_it_goes_on_for_years() -> None:
    """Any number of attempts ends at the limit, and overflows nothing."""
    backoff = Backoff(5, 60)
    delays = [backoff.next() for _ in range(5000)]
    assert all(30 <= delay <= 60 for delay in delays[4:])


def test_many_clients_do_not_return_together() -> None:
    """Clients that lost their broker at the same moment try again at different ones."""
    assert len({Backoff(5, 60).next() for _ in range(100)}) > 90


# Which node is tried next


def waits(delay: float) -> bool:
    """Tell whether there was a delay."""
    return delay > 0


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_each_node_is_tried_once_a_round_and_rounds_are_apart(count: int) -> None:
    """In the same order each round, at once within it, and after a delay between two of them."""
    attempts = Attempts(range(count), reconnect_delay=5, max_reconnect_delay=60)
    tried = [attempts.node]
    delays = []
    for _ in range(3 * count - 1):
        delays.append(attempts.next())
        tried.append(attempts.node)
    assert tried == [*range(count)] * 3
    assert [waits(delay) for delay in delays] == [*[False] * (count - 1), True, *[False] * (count - 1), True] + [
        False
    ] * (count - 1)


def test_a_channel_that_lasted_begins_everything_anew() -> None:
    """The next node is tried at once, the round is whole again, and delays begin with the first."""
    attempts = Attempts("abc", reconnect_delay=5, max_reconnect_delay=600)
    for _ in range(20):
        attempts.next()
        attempts.next_channel()
    assert attempts.next_channel() > 2
    attempts.lost(5)
    assert attempts.next_channel() == 0
    delays = [attempts.next() for _ in range(3)]
    assert [waits(delay) for delay in delays] == [False, False, True]
    assert delays[-1] <= 5


def test_a_channel_that_did_not_last_changes_nothing() -> None:
    """A broker that accepts and drops at once is asked less and less often."""
    attempts = Attempts(["only"], reconnect_delay=1, max_reconnect_delay=64)
    for whole in (1, 2, 4, 8, 16, 32, 64, 64):
        assert whole / 2 <= attempts.next() <= whole
        attempts.lost(0.99)


def test_losing_the_connection_after_its_channel_asks_nothing_twice() -> None:
    """The channel lasted; that the connection then goes while it has none changes nothing."""
    attempts = Attempts(["only"], reconnect_delay=1, max_reconnect_delay=64)
    for _ in range(6):
        attempts.next()
    attempts.lost(3 * 86400)
    attempts.lost(0)
    assert attempts.next() <= 1


def test_a_channel_is_opened_again_at_once_and_then_less_and_less_often() -> None:
    """Up to the delay between connections."""
    attempts = Attempts(["only"], reconnect_delay=5, max_reconnect_delay=60)
    delays = [attempts.next_channel() for _ in range(12)]
    assert delays[0] == 0
    assert 0.05 <= delays[1] <= 0.1
    assert 2.5 <= delays[-1] <= 5


@given(count=st.integers(1, 5), lasted=st.lists(st.floats(0, 100), max_size=30))
def test_whatever_happens_each_node_has_its_turn(count: int, lasted: list[float]) -> None:
    """And no delay is longer than the longest that was asked for."""
    attempts = Attempts(range(count), reconnect_delay=5, max_reconnect_delay=60)
    for seconds in lasted:
        before = attempts.node or 0
        assert 0 <= attempts.next() <= 60
        assert attempts.node == (before + 1) % count
        attempts.lost(seconds)
