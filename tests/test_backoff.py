"""Delays between attempts."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprockets_amqp.backoff import Backoff

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
