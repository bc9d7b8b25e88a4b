"""What a client leaves behind: descriptors, threads, tasks and timers of the loop."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Seconds that something may take to go away after it was closed: a thread that just ends, a socket's last callback.
GRACE = 15.0
_INTERVAL = 0.01


class Leaked(AssertionError):
    """Something is left that was not there before."""


def held() -> set[object]:
    """Return what the process and the running loop hold now, but for the caller's task and the loop's own threads.

    uvloop keeps the /dev/null of a program that it has started.
    """
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    # asyncio.to_thread() keeps its threads for as long as the loop lives.
    threads = {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}
    descriptors = {each for each in _descriptors() if not each.endswith("-> /dev/null")}
    return {*descriptors, *threads, *tasks, *timers()}


def timers() -> list[asyncio.TimerHandle]:
    """Return the timers of the running loop that are still to fire; uvloop does not tell of its own."""
    # asyncio has no public list of them.
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", [])
    return [timer for timer in scheduled if not timer.cancelled()]


@asynccontextmanager
async def no_leaks(grace: float = GRACE) -> AsyncIterator[None]:
    """Raise Leaked when the block leaves a descriptor, thread, task or timer behind that it did not find.

    The block is one run of the loop: uvloop has other sockets to be woken up by in the next. A fixture is another run.
    """
    before = held()
    yield
    left = await _settled(before, grace)
    if left:
        msg = "left behind:\n" + "\n".join(sorted(map(str, left)))
        raise Leaked(msg)


async def _settled(before: set[object], grace: float) -> set[object]:
    """Return what is new, once nothing is or the grace is over."""
    for _ in range(int(grace / _INTERVAL)):
        if not held() - before:
            break
        await asyncio.sleep(_INTERVAL)
    return held() - before


def sockets() -> set[str]:
    """Return the process's sockets of the Internet's families: those of a loop's own are of another."""
    return {each for each in _descriptors() if "-> socket:" in each and _is_inet(int(each.split()[1]))}


def _is_inet(descriptor: int) -> bool:
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        return copy.family in {socket.AF_INET, socket.AF_INET6}


def _descriptors() -> list[str]:
    """Return `number -> what it is` for each open descriptor, so that a number that is used again counts as new."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        # The descriptor that lists the folder is gone by now.
        with suppress(FileNotFoundError):
            found.append(f"descriptor {entry.name} -> {entry.readlink()}")
    return found
