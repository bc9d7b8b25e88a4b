"""Publishing from any thread: what they publish comes to the loop in the order of each, and its end goes back."""

import asyncio
import collections
import concurrent.futures
from collections.abc import Callable
from typing import Any, Final

from .delivery.publish import Result
from .errors import NotReadyError, OutcomeUnknown

Future = concurrent.futures.Future[Result]
ENDED: Final = "the client's event loop has ended"
#: Seconds after which a loop that goes on has not ended, though its tasks were cancelled.
GOES_ON: Final = 1.0


class FromThreads:
    """What other threads publish on a loop.

    Args:
        publish: publishes, on the loop.
        sent: returns the publishes that are on the wire.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        publish: Callable[..., "asyncio.Future[Result]"],
        sent: Callable[[], "set[asyncio.Future[Result]]"],
    ) -> None:
        self._loop = loop
        self._publish = publish
        self._sent = sent
        #: What has not come to the loop, and whether the loop knows.
        self._calls: collections.deque[tuple[Future, tuple[Any, ...], dict[str, Any]]] = collections.deque()
        self._called = False
        #: What is published, and has not ended.
        self._open: dict[asyncio.Future[Result], Future] = {}
        #: Is cancelled when the loop ends, as `asyncio.run` does.
        self._watch: asyncio.Task[None] | None = None
        self._ended = False

    def publish(self, *message: Any, **options: Any) -> Future:
        """Have a message published; called in any thread but the loop's."""
        future = Future()
        self._calls.append((future, message, options))
        if self._ended:
            self.give_up()
        elif not self._called:
            # Another thread may call the loop as well, which does no harm.
            self._called = True
            try:
                self._loop.call_soon_threadsafe(self._take)
            except RuntimeError:
                self.give_up()
        return future

    def _take(self) -> None:
        self._called = False
        while self._calls:
            future, message, options = self._calls.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                publish = self._publish(*message, **options)
            except Exception as error:
                future.set_exception(error)
            else:
                self._open[publish] = future
                publish.add_done_callback(self._settle)
        if self._open and self._watch is None:
            self._watch = self._loop.create_task(self._watch_loop())

    def _settle(self, publish: "asyncio.Future[Result]") -> None:
        future = self._open.pop(publish, None)
        if future is not None:
            if publish.cancelled():
                future.set_exception(NotReadyError("it was cancelled, and was not sent"))
            elif (error := publish.exception()) is not None:
                future.set_exception(error)
            else:
                future.set_result(publish.result())
        if not self._open and self._watch is not None:
            watch, self._watch = self._watch, None
            watch.cancel()

    async def _watch_loop(self) -> None:
        try:
            await self._loop.create_future()
        finally:
            if self._watch is asyncio.current_task():
                self._watch = None
                self._end()

    def _end(self) -> None:
        self._ended = True
        self._loop.call_later(GOES_ON, self._go_on)
        sent, left = self._sent(), self._open
        self._open = {}
        for publish, future in left.items():
            future.set_exception(
                OutcomeUnknown(f"it was sent, and {ENDED}") if publish in sent else NotReadyError(ENDED)
            )
        self.give_up()

    def _go_on(self) -> None:
        self._ended = False

    def give_up(self, why: str = ENDED) -> None:
        """End what has not come to the loop, which does not take it any more."""
        while self._calls:
            try:
                future, _, _ = self._calls.popleft()
            except IndexError:
                # Another thread was faster.
                return
            if future.set_running_or_notify_cancel():
                future.set_exception(NotReadyError(why))
