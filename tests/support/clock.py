"""A loop whose time the test moves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tornado.ioloop import IOLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine

#: Turns of the loop after which everything that needs no time to pass has happened.
TURNS = 40
#: Turns after which a test has gone on for too long.
MOST_TURNS = 400_000


class Clock:
    """The loop, and its time, which stands still until it is moved."""

    def __init__(self) -> None:
        self.now: float = 1000.0
        loop: Any = asyncio.SelectorEventLoop()
        loop.time = lambda: self.now
        self.loop = loop
        self.io_loop = IOLoop(make_current=False, asyncio_loop=self.loop)
        #: What escaped from callbacks of the loop.
        self.escaped: list[dict[str, Any]] = []
        self._turns_left = MOST_TURNS
        self.loop.set_exception_handler(lambda _loop, context: self.escaped.append(context))

    def turn(self, times: int = TURNS) -> None:
        """Let the loop run what is due."""
        self._turns_left -= times
        assert self._turns_left > 0, "what the test waits for never happens"
        for _ in range(times):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def timers(self) -> list[asyncio.TimerHandle]:
        """Return the timers that are still to fire, the next one first."""
        return sorted(timer for timer in self.loop._scheduled if not timer.cancelled())

    def advance(self, seconds: float) -> None:
        """Let time pass, and every timer fire at its time."""
        end = self.now + seconds
        self.turn()
        while (timers := self.timers()) and timers[0].when() <= end:
            self.now = max(self.now, timers[0].when())
            self.turn()
        self.now = end
        self.turn()

    def run(self, coroutine: Coroutine[Any, Any, Any], seconds: float = 100) -> Any:
        """Run a coroutine to its end, while time passes in steps."""
        task = self.loop.create_task(coroutine)
        self.turn()
        deadline = self.now + seconds
        while not task.done() and self.now < deadline:
            self.advance(0.05)
        assert task.done(), f"{coroutine} did not end within {seconds} s"
        return task.result()

    def close(self) -> None:
        """Cancel what is left of a test that failed, and close the loop."""
        self._turns_left = MOST_TURNS
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.turn()
        self.io_loop.close()
