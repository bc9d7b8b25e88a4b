"""Requests in flight: those that handlers are still answering, so that stopping can wait for them."""

import asyncio
import math
import weakref
from typing import Final

#: Seconds in which a peer that keeps its connection alive sends its next request, if it is busy.
NEXT_REQUEST: Final = 0.2


class InFlight:
    """The requests whose handlers may still publish."""

    def __init__(self) -> None:
        # Weak, so that a handler that never finishes is forgotten with its connection.
        self._requests: set[weakref.ref[object]] = set()
        self._changed = asyncio.Event()
        #: The loop on which `finish` waits, or waited.
        self._loop: asyncio.AbstractEventLoop | None = None
        #: When the last request was answered, in the time of its loop.
        self._answered_at = -math.inf

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: object) -> None:
        """Add a request that is being answered."""
        self._requests.add(weakref.ref(request, self._remove))

    def discard(self, request: object) -> None:
        """Remove a request that was answered; an unknown one is ignored."""
        reference = weakref.ref(request)
        if reference in self._requests:
            self._answered_at = asyncio.get_running_loop().time()
            self._remove(reference)

    async def finish_all(self, timeout: float) -> bool:
        """Do as `finish`, but let peers that keep their connections alive send the request that they are about to.

        Its answer closes the connection; those before did not.
        """
        loop = asyncio.get_running_loop()
        pause = min(timeout, self._answered_at + NEXT_REQUEST - loop.time())
        if pause > 0:
            await asyncio.sleep(pause)
        return await self.finish(timeout - max(0.0, pause))

    async def finish(self, timeout: float) -> bool:
        """Return when no request is in flight, or after ``timeout`` seconds; the result says whether none is left."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                while self._requests:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _remove(self, request: weakref.ref[object]) -> None:
        self._requests.discard(request)
        if self._loop is not None and not self._loop.is_closed():
            # The garbage collector may run in any thread.
            self._loop.call_soon_threadsafe(self._changed.set)
