"""Event loops and sockets in a forked child, where they are copies of the parent's.

The kernel objects behind them are shared: what a child unregisters from an epoll is unregistered for its parent too,
and a connection stays open until both have closed it. So a child closes its copies without telling the peer, and gives
an inherited event loop a selector and a wake-up socket of its own.

This uses asyncio beyond its documented API: ``_selector``, ``_close_self_pipe()`` and ``_make_self_pipe()`` of its
selector event loops. Loops without them (uvloop) are left alone.
"""

import asyncio
import contextlib
import os
import selectors
import socket
import sys
from collections.abc import Callable
from typing import Any

#: Loops that already belong to a process, with its process id.
_parted: list[tuple[int, object]] = []


def after_fork(callback: Callable[[], object]) -> None:
    """Call a function in each forked child, on systems that can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=callback)


def close_copy(sock: socket.socket) -> None:
    """Close this process's descriptor of a socket; nothing is sent, and the parent's stays open."""
    descriptor = sock.detach()
    if descriptor >= 0:
        os.close(descriptor)


def part_from_parent(loop: Any) -> bool:
    """Give an inherited loop a selector of its own that watches what the parent's watches; return whether it has one.

    Until then nothing may be closed, or the new selector could get the number of a descriptor that it is to watch.
    """
    inherited = getattr(loop, "_selector", None)
    if inherited is None:
        return False
    if any(process == os.getpid() and loop is parted for process, parted in _parted):
        return True
    # Kept, because asyncio warns about a loop that is dropped without being closed.
    _parted.append((os.getpid(), loop))
    own = selectors.DefaultSelector()
    for key in tuple((inherited.get_map() or {}).values()):
        # Skip what has been closed, and what epoll does not accept.
        with contextlib.suppress(ValueError, OSError):
            own.register(key.fileobj, key.events, key.data)
    inherited.close()
    loop._selector = own  # noqa: SLF001 - see above
    loop._close_self_pipe()  # noqa: SLF001
    loop._make_self_pipe()  # noqa: SLF001
    return True


def forget_current_loop() -> None:
    """Make sure that the child's current loop is not the parent's; from Python 3.12 on, asyncio does so itself."""
    if sys.version_info < (3, 12):
        asyncio.set_event_loop(None)
