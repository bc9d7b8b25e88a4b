"""Publishing from any thread: what they publish comes to the loop in the order of each, and its end goes back."""

import asyncio
import collections
import concurrent.futures
import contextlib
import contextvars
import copy
import time
from collections.abc import Callable
from typing import Any, Final

from .delivery.publish import Result
from .errors import NotReadyError, OutcomeUnknown

#: How many publishes of other threads are taken in one turn of the loop, which has other things to do.
TURN: Final = 500
ENDED: Final = "the client's event loop has ended"
#: Seconds after which a loop that goes on has not ended, though its tasks were cancelled.
GOES_ON: Final = 1.0
#: Seconds after which a thread that waits looks whether the loop was closed.
LOOK: Final = 1.0


class Future(concurrent.futures.Future[Result]):
    """The end of a publish of another thread, which does not wait for a loop that is closed."""

    def __init__(self, publishes: "FromThreads") -> None:
        super().__init__()
        self._publishes = publishes

    def result(self, timeout: float | None = None) -> Result:
        """Return what `Client.publish` would; see `concurrent.futures.Future.result`."""
        return super().result(self._watch(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what that would raise; see `concurrent.futures.Future.exception`."""
        return super().exception(self._watch(timeout))

    def _watch(self, timeout: float | None) -> float | None:
        """Wait, and look now and then whether the loop was closed; return what is left of the time."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LOOK if end is None else min(LOOK, end - time.monotonic())
            if left <= 0 or self.done() or concurrent.futures.wait([self], left).done:
                return None if end is None else max(0.0, end - time.monotonic())
            self._publishes.look()


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
        self._calls: collections.deque[tuple[Future, contextvars.Context, tuple[Any, ...], dict[str, Any]]] = (
            collections.deque()
        )
        self._called = False
        #: What is published, and has not ended.
        self._open: dict[asyncio.Future[Result], Future] = {}
        #: Is cancelled when the loop ends, as `asyncio.run` does.
        self._watch: asyncio.Task[None] | None = None
        self._ended = False

    def publish(self, *message: Any, **options: Any) -> Future:
        """Have a message published; called in any thread but the loop's."""
        future = Future(self)
        # It is encoded later, and the caller goes on.
        self._calls.append((future, contextvars.copy_context(), tuple(map(_fixed, message)), options))
        if self._ended:
            self.give_up()
        elif not self._called:
            # Another thread may call the loop as well, which does no harm.
            self._called = True
            try:
                self._loop.call_soon_threadsafe(self._take)
            except RuntimeError:
                # It is closed.
                self._called = False
                self.give_up()
        return future

    def look(self) -> None:
        """End everything if the loop was closed; called in any thread."""
        if self._loop.is_closed():
            left, self._open = self._open, {}
            self._tell(left, set(left))
            self.give_up()

    def _take(self) -> None:
        self._called = False
        for _ in range(min(TURN, len(self._calls))):
            future, context, message, options = self._calls.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                publish = context.run(self._publish, *message, **options)
            except Exception as error:
                future.set_exception(error)
            else:
                self._open[publish] = future
                publish.add_done_callback(self._settle)
        if self._calls:
            self._called = True
            self._loop.call_soon(self._take)
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
        except asyncio.CancelledError:
            if self._watch is asyncio.current_task():
                self._watch = None
                self._end()
            raise

    def _end(self) -> None:
        self._ended = True
        self._loop.call_later(GOES_ON, self._go_on)
        left, self._open = self._open, {}
        self._tell(left, self._sent())
        self.give_up()

    @staticmethod
    def _tell(left: "dict[asyncio.Future[Result], Future]", sent: "set[asyncio.Future[Result]]") -> None:
        for publish, future in left.items():
            error = OutcomeUnknown(f"it may have been sent, and {ENDED}") if publish in sent else NotReadyError(ENDED)
            # Another thread may have looked as well.
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                future.set_exception(error)

    def _go_on(self) -> None:
        self._ended = False

    def give_up(self, why: str = ENDED) -> None:
        """End what has not come to the loop, which does not take it any more."""
        while self._calls:
            try:
                future, *_ = self._calls.popleft()
            except IndexError:
                # Another thread was faster.
                return
            if future.set_running_or_notify_cancel():
                future.set_exception(NotReadyError(why))


def _fixed(argument: Any) -> Any:
    """Return an argument as it is now: a buffer or a dict may be used again before the loop reads it."""
    try:
        if isinstance(argument, bytearray | memoryview):
            return bytes(argument)
        if isinstance(argument, dict):
            return {name: copy.deepcopy(each) if isinstance(each, _NESTED) else each for name, each in argument.items()}
    except Exception:
        # A view that was released, or something that nobody can copy: the publish says what is wrong with it.
        return argument
    return argument


#: What a property such as headers may consist of, and may be changed.
_NESTED: Final = (dict, list, bytearray)
