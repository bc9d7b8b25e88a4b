"""Subscribers: told of every change, in order, and unable to delay or break anything."""

import asyncio
import contextlib
import gc
import logging
import warnings
from typing import Any

import pytest

from sprockets_amqp.hooks import PENDING_LIMIT, Changes, Hooks, StateChange
from sprockets_amqp.states import State


def change(dest: State, number: int = 0) -> StateChange:
    """Make a change into a state."""
    return StateChange(State.IDLE, dest, "connect", str(number), 0.0)


CHANGES = [change(State(number % 6 + 1), number) for number in range(8)]


@pytest.fixture
async def hooks() -> Hooks:
    """The hooks of a client, on the running loop."""
    hooks = Hooks()
    hooks.bind(asyncio.get_running_loop())
    return hooks


async def settle() -> None:
    """Give the loop the turns that everything that is due needs."""
    for _ in range(30):
        await asyncio.sleep(0)


async def test_every_subscriber_is_told_of_every_change_in_order(hooks: Hooks) -> None:
    """Functions and coroutine functions see each change, in order, in a later turn."""
    seen: dict[str, list[StateChange]] = {"function": [], "coroutine": []}

    async def coroutine(told: StateChange) -> None:
        await asyncio.sleep(0)
        seen["coroutine"].append(told)

    hooks.subscribe(seen["function"].append)
    hooks.subscribe(coroutine)
    for each in CHANGES:
        hooks.announce(each)
    assert seen == {"function": [], "coroutine": []}
    await settle()
    assert seen == {"function": CHANGES, "coroutine": CHANGES}


async def test_only_the_states_that_were_asked_for_are_told(hooks: Hooks) -> None:
    """A subscription to some states hears of changes into those, given as states or as their values."""
    seen: list[StateChange] = []
    hooks.subscribe(seen.append, [State.READY, 6])  # type: ignore[list-item]
    for each in CHANGES:
        hooks.announce(each)
    await settle()
    assert [each.dest for each in seen] == [each.dest for each in CHANGES if each.dest in {State.READY, State.CLOSED}]


def _eager(loop: asyncio.AbstractEventLoop, coroutine: Any, **_: Any) -> "asyncio.Future[Any] | asyncio.Task[Any]":
    """What `asyncio.eager_task_factory` does since Python 3.12, for coroutines that do not wait."""
    done = loop.create_future()
    try:
        coroutine.send(None)
    except StopIteration as stop:
        done.set_result(stop.value)
    return done


async def test_an_eager_task_factory_changes_nothing(hooks: Hooks) -> None:
    """A coroutine function that never waits is called with every change, not with the first alone."""
    seen: list[StateChange] = []

    async def coroutine(told: StateChange) -> None:
        seen.append(told)

    hooks.subscribe(coroutine)
    hooks.loop.set_task_factory(getattr(asyncio, "eager_task_factory", _eager))
    for each in CHANGES:
        hooks.announce(each)
        await settle()
    assert seen == CHANGES


async def test_a_coroutine_cancelled_before_it_began_leaves_no_warning(hooks: Hooks) -> None:
    """Python warns of coroutines that were never awaited."""
    seen: list[StateChange] = []

    async def coroutine(told: StateChange) -> None:
        seen.append(told)

    subscriptions = [hooks.subscribe(coroutine)]
    subscriptions.append(hooks.subscribe(lambda _: subscriptions[0].cancel()))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        hooks.announce(change(State.READY))
        await settle()
        subscriptions.pop().cancel()
        subscriptions.clear()
        gc.collect()
    assert (seen, warned) == ([], [])


async def test_what_a_callback_causes_comes_after_everybody_saw_its_cause(hooks: Hooks) -> None:
    """A change that a subscriber brings about is told when all have seen the one before."""
    seen: list[tuple[str, State]] = []

    def first(told: StateChange) -> None:
        seen.append(("first", told.dest))
        if told.dest is State.READY:
            hooks.announce(change(State.CLOSING))

    hooks.subscribe(first)
    hooks.subscribe(lambda told: seen.append(("second", told.dest)))
    hooks.announce(change(State.READY))
    await settle()
    assert seen == [
        ("first", State.READY),
        ("second", State.READY),
        ("first", State.CLOSING),
        ("second", State.CLOSING),
    ]


def _raise(error: BaseException) -> None:
    raise error


async def _raise_later(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


@pytest.mark.parametrize("callback", [_raise, _raise_later])
@pytest.mark.parametrize("error", [ValueError("mine"), asyncio.CancelledError("mine")], ids=["error", "cancelled"])
async def test_what_a_callback_raises_is_logged_and_changes_nothing(
    hooks: Hooks, caplog: pytest.LogCaptureFixture, callback: Any, error: BaseException
) -> None:
    """The others, and the callback itself, are told of every change; each time it is logged with the traceback."""
    told: list[StateChange] = []
    seen: list[StateChange] = []

    def bad(each: StateChange) -> Any:
        told.append(each)
        return callback(error)

    hooks.subscribe(bad)
    hooks.subscribe(seen.append)
    for each in CHANGES:
        hooks.announce(each)
    await settle()
    assert seen == told == CHANGES
    logged = [record for record in caplog.records if record.exc_info and record.exc_info[1] is error]
    assert len(logged) == len(CHANGES)
    assert all(record.levelno == logging.ERROR for record in logged)


async def test_a_slow_coroutine_delays_nobody_and_runs_once_at_a_time(hooks: Hooks) -> None:
    """While a coroutine works on one change the others see all; it gets what it missed, one after the other."""
    go_on = asyncio.Event()
    running: list[StateChange] = []
    finished: list[StateChange] = []
    #: How many were at work when each began; an assertion in a subscriber would be logged, and fail nothing.
    at_once: list[int] = []
    seen: list[StateChange] = []

    async def slow(told: StateChange) -> None:
        running.append(told)
        at_once.append(len(running) - len(finished))
        await go_on.wait()
        await asyncio.sleep(0)
        finished.append(told)

    hooks.subscribe(slow)
    hooks.subscribe(seen.append)
    for each in CHANGES:
        hooks.announce(each)
    await settle()
    assert seen == CHANGES
    assert running == CHANGES[:1]
    assert finished == []
    go_on.set()
    await settle()
    assert running == finished == CHANGES
    assert at_once == [1] * len(CHANGES)


async def test_a_cancelled_subscription_is_told_nothing_more(hooks: Hooks) -> None:
    """After cancel() nothing is delivered, not even what was announced before; cancelling twice is no error."""
    seen: list[StateChange] = []
    subscription = hooks.subscribe(seen.append)
    hooks.announce(CHANGES[0])
    subscription.cancel()
    subscription.cancel()
    await settle()
    assert seen == []


async def test_a_callback_can_cancel_itself_and_others(hooks: Hooks) -> None:
    """Cancelling within a callback takes effect at once: who was not told of the change yet is not told."""
    seen: list[str] = []

    def first(_told: StateChange) -> None:
        seen.append("first")
        own.cancel()
        others.cancel()

    own = hooks.subscribe(first)
    others = hooks.subscribe(lambda _told: seen.append("second"))
    hooks.subscribe(lambda _told: seen.append("third"))
    hooks.announce(CHANGES[0])
    hooks.announce(CHANGES[1])
    await settle()
    assert seen == ["first", "third", "third"]


async def test_cancelling_stops_a_coroutine_that_runs(hooks: Hooks) -> None:
    """A coroutine that is still at work when its subscription is cancelled is cancelled, and no task is left."""
    ended: list[str] = []

    async def slow(_told: StateChange) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    before = asyncio.all_tasks()
    subscription = hooks.subscribe(slow)
    hooks.announce(CHANGES[0])
    hooks.announce(CHANGES[1])
    await settle()
    subscription.cancel()
    await settle()
    assert ended == ["ended"]
    assert asyncio.all_tasks() == before


async def test_a_coroutine_that_cancels_its_own_subscription_finishes(hooks: Hooks) -> None:
    """Cancelling from within the coroutine lets it run to its end, and nothing follows."""
    finished: list[StateChange] = []

    async def once(told: StateChange) -> None:
        subscription.cancel()
        await asyncio.sleep(0)
        finished.append(told)

    subscription = hooks.subscribe(once)
    hooks.announce(CHANGES[0])
    hooks.announce(CHANGES[1])
    await settle()
    assert finished == CHANGES[:1]


async def test_changes_loses_nothing_from_its_creation_on(hooks: Hooks) -> None:
    """What is announced between creation and the first step is there, however slow the consumer."""
    changes = Changes(hooks)
    for each in CHANGES[:4]:
        hooks.announce(each)
    await settle()
    for each in CHANGES[4:]:
        hooks.announce(each)
    seen = []
    async for each in changes:
        seen.append(each)
        await asyncio.sleep(0)
        if len(seen) == len(CHANGES):
            break
    assert seen == CHANGES


async def test_a_subscriber_that_falls_behind_for_ever_is_bounded_and_told(
    hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    """It misses the oldest changes, and the next one says how many; who keeps up misses none."""
    go_on = asyncio.Event()
    told: dict[str, list[StateChange]] = {"slow": [], "quick": [], "iterated": []}

    async def slow(change: StateChange) -> None:
        told["slow"].append(change)
        await go_on.wait()

    hooks.subscribe(slow)
    hooks.subscribe(told["quick"].append)
    changes = Changes(hooks)
    announced = [change(State(number % 6 + 1), number) for number in range(PENDING_LIMIT + 21)]
    for each in announced:
        hooks.announce(each)
    await settle()
    go_on.set()
    for _ in range(PENDING_LIMIT):
        told["iterated"].append(await anext(changes))
        await asyncio.sleep(0)
    await settle()
    assert told["quick"] == announced
    assert told["slow"][0] == announced[0]
    assert (told["slow"][1].reason, told["slow"][1].missed) == ("21", 20)
    assert (told["iterated"][0].reason, told["iterated"][0].missed) == ("21", 21)
    for kept in (told["slow"][2:], told["iterated"][1:]):
        assert kept == announced[22:]
    assert [record.levelname for record in caplog.records if "changes behind" in record.getMessage()] == ["WARNING"] * 2


async def test_two_iterators_both_see_everything(hooks: Hooks) -> None:
    """Iterators do not take changes from each other."""
    one, two = Changes(hooks), Changes(hooks)
    hooks.announce(CHANGES[0])
    assert await anext(one) == await anext(two) == CHANGES[0]


async def test_an_iterator_that_was_left_listens_no_more(hooks: Hooks) -> None:
    """When nobody holds the iterator any more, its subscription is gone."""
    changes = Changes(hooks)
    assert len(hooks._subscriptions) == 1
    del changes
    gc.collect()
    assert hooks._subscriptions == []


async def test_waiting_for_a_change_can_be_given_up(hooks: Hooks) -> None:
    """A step of the iterator that is cancelled loses no change."""
    changes = Changes(hooks)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            await anext(changes)
    hooks.announce(CHANGES[0])
    assert await anext(changes) == CHANGES[0]


async def test_callbacks_of_other_kinds_keep_their_place_among_changes(hooks: Hooks) -> None:
    """What is called in order comes between the changes that were announced before and after it."""
    seen: list[object] = []
    hooks.subscribe(seen.append)
    hooks.announce(CHANGES[0])
    hooks.call_later_in_order(lambda: seen.append("returned"))
    hooks.announce(CHANGES[1])
    await settle()
    assert seen == [CHANGES[0], "returned", CHANGES[1]]


async def test_a_coroutine_function_of_another_kind_runs_to_its_end(
    hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    """What is started runs beside the client, and what it raises is logged like anybody's."""
    seen: list[object] = []
    error = ValueError("mine")

    async def on_return(*args: object) -> None:
        await asyncio.sleep(0)
        seen.append(args)
        raise error

    hooks.start(on_return, "method", "body")
    hooks.start(seen.append, "called")
    gc.collect()
    await settle()
    assert seen == ["called", ("method", "body")]
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]


@pytest.mark.parametrize("callback", [None, 1, "name"])
async def test_what_cannot_be_called_is_refused(hooks: Hooks, callback: Any) -> None:
    """Subscribing something that is no function is a TypeError at once, not a log line later."""
    with pytest.raises(TypeError, match="callback must be a function or a coroutine function"):
        hooks.subscribe(callback)


async def test_a_state_that_does_not_exist_is_refused(hooks: Hooks) -> None:
    """Subscribing to a state that is none is a ValueError at once."""
    with pytest.raises(ValueError, match="7"):
        hooks.subscribe(print, [7])  # type: ignore[list-item]
    assert hooks._subscriptions == []


async def test_a_subscription_names_its_callback(hooks: Hooks) -> None:
    """Its repr tells whose it is."""
    assert "print" in repr(hooks.subscribe(print))
