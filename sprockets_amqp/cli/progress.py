"""Progress of publishing a file: a bar if the terminal and the package rich allow it, else plain lines."""

import asyncio
import importlib.util
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from .lines import Account

#: Seconds between updates of a bar, and between plain lines.
BAR_INTERVAL: Final = 0.1
LINE_INTERVAL: Final = 2.0


@asynccontextmanager
async def shown(account: Account, descriptor: int) -> AsyncIterator[None]:
    """Show the progress of the account's file on standard error."""
    if sys.stderr.isatty() and importlib.util.find_spec("rich") is not None:
        show, end = _bar(account, _size(descriptor))
        interval = BAR_INTERVAL
    else:
        show, end = _lines(account)
        interval = LINE_INTERVAL
    ticking = asyncio.ensure_future(_tick(show, interval))
    try:
        yield
    finally:
        ticking.cancel()
        with suppress(asyncio.CancelledError):
            await ticking
        end()


async def _tick(show: Callable[[], None], interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        show()


def _lines(account: Account) -> tuple[Callable[[], None], Callable[[], None]]:
    def show() -> None:
        sys.stderr.write(f"line {account.sent}: {account.summary()}\n")
        sys.stderr.flush()

    return show, lambda: None


def _bar(account: Account, size: int | None) -> tuple[Callable[[], None], Callable[[], None]]:
    from rich.console import Console  # noqa: PLC0415 - an extra, and slow to import
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    progress = Progress(*columns, console=Console(stderr=True))
    bar = progress.add_task("", total=size)
    progress.start()

    def show() -> None:
        progress.update(bar, completed=account.octets, description=account.summary())

    def end() -> None:
        show()
        progress.stop()

    return show, end


def _size(descriptor: int) -> int | None:
    """Return the number of octets to read, or None if only the end will tell."""
    status = os.fstat(descriptor)
    return status.st_size if stat.S_ISREG(status.st_mode) else None
