"""Waiting for what tells nobody: another process, a folder, a count."""

import asyncio
from collections.abc import Callable

#: A limit for what must happen, never a measure of speed.
LIMIT = 30


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that can only be looked at."""
    async with asyncio.timeout(LIMIT):
        while not holds():
            await asyncio.sleep(0.01)
