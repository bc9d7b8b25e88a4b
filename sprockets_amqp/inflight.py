"""Requests in flight: those that handlers are still answering, so that stopping can wait for them."""

import asyncio
import weakref


class InFlight:
    """The requests whose handlers may still publish."""

    def __init__(self) -> None:
        # Weak, so that a handler that never finishes is forgotten with its connection.
        self._requests: weakref.WeakSet[object] = weakref.WeakSet()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: object) -> None:
        """Add a request that is being answered."""
        self._requests.add(request)

    def discard(self, request: object) -> None:
        """Remove a request that was answered; an unknown one is ignored."""
        self._requests.discard(request)
        self._changed.set()

    async def finish(self, timeout: float) -> bool:
        """Return when no request is in flight, or after ``timeout`` seconds; the result says whether none is left."""
        try:
            async with asyncio.timeout(timeout):
                while self._requests:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True
