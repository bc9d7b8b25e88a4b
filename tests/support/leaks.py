"""What a client leaves behind: descriptors, threads, tasks and timers."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

#: Turns of the loop in which what is on its way down may finish; each is over as soon as nothing is left.
TURNS = 200


def descriptors() -> dict[str, str]:
    """The open sockets, by number: files come and go with imports and logs."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith("socket:"):
            found[entry.name] = target
    return found


def _left(sockets: dict[str, str], threads: set[threading.Thread], timers: set[asyncio.TimerHandle]) -> list[str]:
    loop = asyncio.get_running_loop()
    current = asyncio.current_task()
    return [
        *(
            f"descriptor {number} {target}"
            for number, target in descriptors().items()
            if target not in sockets.values()
        ),
        *(f"thread {thread.name}" for thread in set(threading.enumerate()) - threads if not _is_executors(thread)),
        *(f"task {task}" for task in asyncio.all_tasks() if task is not current and task not in _tasks),
        *(
            f"timer {timer}"
            for timer in getattr(loop, "_scheduled", [])
            if not timer.cancelled() and timer not in timers
        ),
    ]


_tasks: set[object] = set()


def _is_executors(thread: threading.Thread) -> bool:
    """Tell whether asyncio keeps the thread, for the tests' own ``to_thread``."""
    return thread.name.startswith("asyncio_")


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fail when the block leaves a socket, thread, task or timer that was not there before."""
    loop = asyncio.get_running_loop()
    gc.collect()
    sockets, threads = descriptors(), set(threading.enumerate())
    timers = {timer for timer in getattr(loop, "_scheduled", []) if not timer.cancelled()}
    _tasks.clear()
    _tasks.update(asyncio.all_tasks())
    yield
    for _ in range(TURNS):
        if not _left(sockets, threads, timers):
            break
        await asyncio.sleep(0)
    gc.collect()
    left = _left(sockets, threads, timers)
    assert not left, "left behind: " + "; ".join(left)
