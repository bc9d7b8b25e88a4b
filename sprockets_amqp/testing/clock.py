"""A loop whose time stands still until it is moved, or until there is nothing left to do but wait."""

import asyncio
import selectors
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from tornado.ioloop import IOLoop

#: Turns of the loop within which everything happens that takes no time.
TURNS: Final = 40
#: Turns after which a test has gone on for too long.
MOST_TURNS: Final = 400_000
#: Real seconds to wait for threads at a time.
PATIENCE: Final = 0.05
#: Real seconds after which it goes on without them: they may wait for the loop.
MOST_PATIENCE: Final = 10.0
#: Real seconds within which data from one socket of this process reaches another.
GRACE: Final = 0.002
#: The socket by which the loop wakes itself.
OWN_SOCKETS: Final = 1

T = TypeVar("T")


class Clock:
    """The loop, and its time.

    Threads that the loop runs (``asyncio.to_thread``) are waited for in real time, while the loop's time stands still.
    The loop cannot know about anything else that may answer, such as a service behind a socket: that is waited for as
    long as ``grace`` says.

    Attributes:
        grace: real seconds to wait for sockets, if there are any, before time moves.
        now: the loop's time, in seconds.
        loop: the asyncio loop.
        io_loop: Tornado's view of it.
        escaped: the contexts of exceptions that escaped from callbacks of the loop.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.grace = GRACE
        self.loop: Any = _Loop(self)
        self.io_loop = IOLoop(make_current=False, asyncio_loop=self.loop)
        self.escaped: list[dict[str, Any]] = []
        self._turns_left = MOST_TURNS
        self.loop.set_exception_handler(lambda _loop, context: self.escaped.append(context))

    def turn(self, times: int = TURNS) -> None:
        """Let the loop run what is due and what follows from it, for at most ``times`` turns."""
        self._turns_left -= times
        assert self._turns_left > 0, "what the test waits for never happens"
        self.loop.selector.turns = times
        try:
            self.loop.run_forever()
        finally:
            self.loop.selector.turns = 0

    def timers(self) -> list[asyncio.TimerHandle]:
        """Return the pending timers, the next one first."""
        # asyncio has no public list of them.
        return sorted(timer for timer in self.loop._scheduled if not timer.cancelled())  # noqa: SLF001

    def advance(self, seconds: float) -> None:
        """Let time pass, and every timer fire at its time."""
        end = self.now + seconds
        self._turns_left = MOST_TURNS
        self.turn()
        while (timers := self.timers()) and timers[0].when() <= end:
            self.now = max(self.now, timers[0].when())
            self.turn()
        self.now = end
        self.turn()

    def run(self, coroutine: Coroutine[Any, Any, T], seconds: float = 1000) -> T:
        """Run a coroutine to its end; when there is nothing else to do, time moves to the next timer.

        Raises:
            TimeoutError: it did not end within ``seconds`` of the loop's time.
        """
        self.loop.selector.jumps = True
        try:
            result: T = self.loop.run_until_complete(asyncio.wait_for(coroutine, seconds))
            return result
        finally:
            self.loop.selector.jumps = False

    def close(self) -> None:
        """Cancel what a failed test left behind, and close the loop."""
        self._turns_left = MOST_TURNS
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.turn()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.io_loop.close()


class _Loop(asyncio.SelectorEventLoop):
    """Takes its time from the clock, and knows how much of its work is being done by threads."""

    def __init__(self, clock: Clock) -> None:
        self.selector = _Selector(clock)
        super().__init__(self.selector)
        self.in_threads = self.in_real_threads = 0
        self._test_clock = clock

    def time(self) -> float:
        """Return the clock's time."""
        return self._test_clock.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Count what is in progress."""
        future = super().run_in_executor(executor, func, *args)
        # What stands in for threads may never answer.
        self._count(1, is_real := executor is None or isinstance(executor, ThreadPoolExecutor))
        future.add_done_callback(lambda _: self._count(-1, is_real))
        return future

    def _count(self, step: int, is_real: bool) -> None:
        self.in_threads += step
        self.in_real_threads += step * is_real


class _Selector(selectors.DefaultSelector):
    """Moves the clock when the loop would sleep until the next timer, or stops the loop after a number of turns.

    Each turn of the loop calls `select` once.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.jumps = False
        self.turns = 0
        #: How many threads are waited for, and since when, in real time.
        self._threads, self._since = 0, 0.0
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        """Return what is ready; else move the clock, or wait for threads."""
        if self.turns:
            return self._turn(timeout)
        if not self.jumps or (timeout is not None and timeout <= 0):
            return super().select(timeout)
        if ready := super().select(self._clock.grace if len(self.get_map()) > OWN_SOCKETS else 0):
            return ready
        loop = self._clock.loop
        if timeout is None or loop.in_threads > loop.in_real_threads or self._waits_for_threads():
            return super().select(PATIENCE)
        self._clock.now += timeout
        return []

    def _waits_for_threads(self) -> bool:
        threads = self._clock.loop.in_real_threads
        if threads != self._threads:
            self._threads, self._since = threads, time.monotonic()
        return bool(threads) and time.monotonic() - self._since < MOST_PATIENCE

    def _turn(self, timeout: float | None) -> list[Any]:
        loop = self._clock.loop
        if timeout != 0 and self._waits_for_threads():
            # There is nothing else to do: this is no turn.
            return super().select(PATIENCE)
        self.turns -= 1
        # If the timeout is not 0, no callback waits and no timer is due; sockets and threads may still bring some.
        idle = timeout != 0 and not loop.in_threads and len(self.get_map()) == OWN_SOCKETS
        if idle or not self.turns:
            # The loop still finishes this turn.
            loop.stop()
        return super().select(0)
