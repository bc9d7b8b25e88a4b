"""State changes, delivered to subscribers in order, and unable to delay or break the client.

User code is never called from within a transition or a pika callback, but in a later turn of the loop.
"""

import asyncio
import collections
import dataclasses
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from .bounded_log import BoundedLog, named
from .names import DEFAULT_NAME
from .states import State
from .text import function_name

LOGGER = logging.getLogger(__name__)

#: How many of the latest changes are kept.
HISTORY_LENGTH: Final = 100
#: How many changes a subscriber may be behind; further ones push out the oldest.
PENDING_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class StateChange:
    """One change of the connection's state.

    Attributes:
        source: the state before.
        dest: the state after.
        trigger: what happened or was requested, by its name in the declaration.
        reason: why, in one line: RabbitMQ's or the network's words, or "".
        at: when, in seconds since 1970.
        missed: how many changes before this one were dropped, because the subscriber was too far behind.
    """

    source: State
    dest: State
    trigger: str
    reason: str
    at: float
    missed: int = 0


Callback = Callable[[StateChange], Awaitable[object] | object]


class Backlog:
    """The changes that a subscriber has yet to receive; if there are too many, the oldest are dropped."""

    def __init__(self, log: BoundedLog) -> None:
        self._log = log
        self._changes: collections.deque[StateChange] = collections.deque()
        self._missed = 0
        self.news = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._changes)

    def add(self, change: StateChange) -> None:
        """Append a change."""
        self._changes.append(change)
        self.news.set()
        if len(self._changes) > PENDING_LIMIT:
            self._changes.popleft()
            self._missed += 1
            if self._missed == 1:
                self._log.log(
                    logging.WARNING, "a subscriber is more than %d changes behind; it will miss some", PENDING_LIMIT
                )

    def take(self) -> StateChange:
        """Return the oldest change, with the number of changes dropped before it."""
        missed, self._missed = self._missed, 0
        change = self._changes.popleft()
        return dataclasses.replace(change, missed=missed) if missed else change

    def clear(self) -> None:
        """Forget all of them."""
        self._changes.clear()
        self._missed = 0


class Subscription:
    """What `Client.subscribe` returns; it lasts until `cancel()`."""

    def __init__(self, hooks: "Hooks", callback: Callback, states: frozenset[State] | None) -> None:
        self._hooks = hooks
        self._callback = callback
        self._states = states
        self._pending = Backlog(hooks.log)
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Subscription of {function_name(self._callback)}>"

    def cancel(self) -> None:
        """Stop delivering changes; a running coroutine is cancelled, unless it is the caller."""
        self._hooks.remove(self)
        self._pending.clear()
        if self._task is not None and self._task is not _current_task():
            self._task.cancel()

    def drop_pending(self) -> None:
        """Drop pending changes: the loop that would have delivered them is no longer the client's."""
        self._pending.clear()
        self._task = None

    def deliver(self, change: StateChange) -> None:
        """Call back, or queue the change while a coroutine function is busy with an earlier one."""
        if self._states is not None and change.dest not in self._states:
            return
        if self._task is not None:
            self._pending.add(change)
            return
        awaitable = self._hooks.call(self._callback, change)
        if inspect.isawaitable(awaitable):
            # An eager task factory would run it to its end before there is a task to wait for.
            self._task = task = asyncio.Task(self._work_off(awaitable), loop=self._hooks.loop)
            if inspect.iscoroutine(awaitable):
                # A task that is cancelled before its first step never awaits it.
                task.add_done_callback(lambda _task: awaitable.close())

    async def _work_off(self, awaitable: Awaitable[object]) -> None:
        try:
            await self._hooks.finish(self._callback, awaitable)
            while self._pending:
                following = self._hooks.call(self._callback, self._pending.take())
                if inspect.isawaitable(following):
                    await self._hooks.finish(self._callback, following)
        finally:
            self._task = None


class Hooks:
    """The subscribers, and the queue of calls to user code."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, name: str = DEFAULT_NAME) -> None:
        #: Bounded: RabbitMQ decides how often a callback is called, for example with returned messages.
        self.log = BoundedLog(named(LOGGER, name), time.monotonic)
        #: The latest changes, oldest first.
        self.history: collections.deque[StateChange] = collections.deque(maxlen=HISTORY_LENGTH)
        self._subscriptions: list[Subscription] = []
        self._pending: collections.deque[Callable[[], object]] = collections.deque()
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call back on this loop from now on; calls pending on another are dropped, subscribers stay."""
        self.loop = loop
        self.history.clear()
        self._pending.clear()
        self._scheduled = False
        self._tasks.clear()
        for subscription in self._subscriptions:
            subscription.drop_pending()

    def subscribe(self, callback: Callback, states: Iterable[State] | None = None) -> Subscription:
        """Call back with each `StateChange` from now on, or only with changes into one of the states."""
        if not callable(callback):
            raise TypeError(f"callback must be a function or a coroutine function, not {callback!r}")
        wanted = None if states is None else frozenset(map(State, states))
        subscription = Subscription(self, callback, wanted)
        self._subscriptions.append(subscription)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription; an unknown one is ignored."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def announce(self, change: StateChange) -> None:
        """Tell every subscriber about the change in a later turn of the loop, after all earlier changes."""
        self.history.append(change)
        self.call_later_in_order(lambda: self._deliver(change))

    def call_later_in_order(self, callback: Callable[[], object]) -> None:
        """Call user code in a later turn of the loop, in its place among the changes."""
        self._pending.append(callback)
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._deliver_pending)

    def call(self, callback: Callable[..., object], *args: Any) -> object:
        """Call user code; log what it raises, and return None then."""
        try:
            return callback(*args)
        except (Exception, asyncio.CancelledError):
            self._log_raised(callback)
            return None

    def start(self, callback: Callable[..., object], *args: Any) -> None:
        """Call user code; if it returns an awaitable, finish it in a task of its own."""
        awaitable = self.call(callback, *args)
        if inspect.isawaitable(awaitable):
            task = asyncio.Task(self.finish(callback, awaitable), loop=self.loop)
            # The loop keeps only weak references to tasks.
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self, callback: Callable[..., object], awaitable: Awaitable[object]) -> None:
        """Await what user code returned; log what it raises."""
        try:
            await awaitable
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this task was cancelled, but something that the user's code awaited.
            self._log_raised(callback)
        except Exception:
            self._log_raised(callback)

    def _log_raised(self, callback: Callable[..., object]) -> None:
        # By its name: what is bound to it may be secret.
        self.log.log(logging.ERROR, "%s raised; nothing else is affected", function_name(callback), exc_info=True)

    def _deliver_pending(self) -> None:
        self._scheduled = False
        # Changes that a callback causes wait for the next turn, so that every subscriber sees their cause first.
        for _ in range(len(self._pending)):
            self._pending.popleft()()
        if self._pending and not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._deliver_pending)

    def _deliver(self, change: StateChange) -> None:
        for subscription in tuple(self._subscriptions):
            if subscription in self._subscriptions:
                subscription.deliver(change)


class Changes(AsyncIterator[StateChange]):
    """What `Client.changes` returns: the changes since then, in order.

    A consumer that is more than 1000 behind misses the oldest; the next one that it gets says how many.
    """

    def __init__(self, hooks: Hooks) -> None:
        self._backlog = Backlog(hooks.log)
        self._subscription = hooks.subscribe(self._backlog.add)

    def __aiter__(self) -> "Changes":
        return self

    async def __anext__(self) -> StateChange:
        while not self._backlog:
            self._backlog.news.clear()
            await self._backlog.news.wait()
        return self._backlog.take()

    def __del__(self) -> None:
        # The iterator is gone: an ``async for`` was left.
        self._subscription.cancel()


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
