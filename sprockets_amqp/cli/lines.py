"""Publishing each line of a file and keeping account of it, in memory that does not grow with the file."""

import asyncio
import collections
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final

from sprockets_amqp.errors import (
    ExchangeRefused,
    InvalidMessage,
    MessageNacked,
    MessageReturned,
    NotReadyError,
    OutcomeUnknown,
)
from sprockets_amqp.many import Outcomes, Outgoing
from sprockets_amqp.wire.reading import BODY_LIMIT

from .command import plainly

#: How many octets are read at a time.
CHUNK_SIZE: Final = 256 * 1024
#: How many such chunks wait to be published.
READ_AHEAD: Final = 2
#: How many ranges of line numbers are kept for each outcome.
MAX_RANGES: Final = 1000
#: Seconds to wait for confirms after an interrupt.
DRAIN_LIMIT: Final = 5.0

OUTCOMES: Final[dict[type[BaseException], str]] = {
    MessageReturned: "returned",
    MessageNacked: "nacked",
    ExchangeRefused: "refused",
    InvalidMessage: "refused",
    OutcomeUnknown: "unknown",
    NotReadyError: "unfinished",
}
#: The same would become of the lines that follow: they are not tried.
HOPELESS: Final = (ExchangeRefused, NotReadyError)


class Account:
    """What became of the lines: how many of each outcome, which ones, and the first reason of each.

    Attributes:
        sent: how many lines were published, whatever became of them; the first line has the number 1.
        octets: how many octets of the file are settled, line ends included.
        counts: how many lines had each outcome.
        reasons: the first reason for each outcome except confirmed.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.octets = 0
        self.counts: collections.Counter[str] = collections.Counter()
        self.reasons: dict[str, str] = {}
        self._ranges: dict[str, list[list[int]]] = collections.defaultdict(list)

    @property
    def settled(self) -> int:
        """How many lines have an outcome."""
        return self.counts.total()

    def settle(self, size: int, error: BaseException | None) -> None:
        """Record what became of the next line."""
        number = self.settled + 1
        outcome = "confirmed" if error is None else OUTCOMES.get(type(error), "unfinished")
        self.octets += size
        self.counts[outcome] += 1
        if error is None:
            return
        self.reasons.setdefault(outcome, plainly(error))
        ranges = self._ranges[outcome]
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        elif len(ranges) < MAX_RANGES:
            ranges.append([number, number])

    def summary(self) -> str:
        """Count the outcomes in one line, for people."""
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items()) or "nothing published"
        pending = self.sent - self.settled
        return counts + (f", {pending} pending" if pending else "")

    def listing(self) -> list[str]:
        """List the lines that were not confirmed, one entry for each outcome."""
        return [f"{outcome}: {self._numbers(outcome)}; the first: {reason}" for outcome, reason in self.reasons.items()]

    def _numbers(self, outcome: str) -> str:
        ranges = self._ranges[outcome]
        numbers = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
        noun = "line" if self.counts[outcome] == 1 else "lines"
        hidden = self.counts[outcome] - sum(last - first + 1 for first, last in ranges)
        return f"{noun} {numbers}" + (f" and {hidden} more" if hidden else "")


class Sender:
    """Publishes lines in order, and keeps account of them.

    Args:
        publish: `Client.publish_many`.
        message: makes a message of a line without its end.
    """

    def __init__(
        self, publish: Callable[[AsyncIterator[Outgoing]], Outcomes], message: Callable[[bytes], Outgoing]
    ) -> None:
        self.account = Account()
        self._publish = publish
        self._message = message
        self._complete = False
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._settled = asyncio.Event()

    def interrupt(self) -> None:
        """Read no further, and wait for pending lines within a limit; when called again, do not wait."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def send(self, lines: AsyncIterator[bytes]) -> bool:
        """Publish the lines until the last, an interrupt, or an outcome that makes the others hopeless, too.

        Returns whether it reached the end of the lines. Raises OSError if they cannot be read.
        """
        sizes: collections.deque[int] = collections.deque()
        outcomes = self._publish(self._messages(lines, sizes))
        settling = asyncio.ensure_future(self._settle(outcomes, sizes))
        settling.add_done_callback(lambda _settling: self._settled.set())
        await _any(self._settled, self._stop)
        outcomes.finish()
        await _any(self._settled, self._hurry, timeout=DRAIN_LIMIT)
        if settling.done():
            settling.result()
        return self._complete

    async def settled(self) -> None:
        """Return when each published line has its outcome; the client was shut down, which ends all of them."""
        await self._settled.wait()

    async def _messages(self, lines: AsyncIterator[bytes], sizes: collections.deque[int]) -> AsyncIterator[Outgoing]:
        async for line in lines:
            if self._stop.is_set():
                return
            self.account.sent += 1
            sizes.append(len(line))
            yield self._message(line.removesuffix(b"\n").removesuffix(b"\r"))
        self._complete = True

    async def _settle(self, outcomes: Outcomes, sizes: collections.deque[int]) -> None:
        async for outcome in outcomes:
            self.account.settle(sizes.popleft(), outcome.error)
            if isinstance(outcome.error, HOPELESS):
                self._stop.set()


async def read_lines(descriptor: int) -> AsyncIterator[bytes]:
    """Yield the lines of a file or pipe, line ends included, while the loop goes on.

    Raises:
        OSError: it cannot be read, or a line is longer than any body that RabbitMQ accepts.
    """
    chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    room = threading.Semaphore(READ_AHEAD)

    def read() -> None:
        chunk: bytes | OSError = b"-"
        # The loop is closed once the lines are no longer wanted.
        with suppress(RuntimeError):
            while chunk and not isinstance(chunk, OSError):
                room.acquire()
                chunk = _chunk(descriptor)
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)

    # The process does not wait for this thread: a pipe may stay silent indefinitely.
    threading.Thread(target=read, daemon=True).start()
    # Long lines come in many chunks.
    rest = bytearray()
    while chunk := await chunks.get():
        if isinstance(chunk, OSError):
            raise chunk
        end, *others = chunk.split(b"\n")
        rest += end
        for other in others:
            yield bytes(rest + b"\n")
            rest = bytearray(other)
        if len(rest) > BODY_LIMIT:
            raise OSError(f"a line is longer than {BODY_LIMIT} octets, which is more than RabbitMQ accepts")
        room.release()
    if rest:
        yield bytes(rest)


def _chunk(descriptor: int) -> bytes | OSError:
    try:
        return os.read(descriptor, CHUNK_SIZE)
    except OSError as error:
        return error


async def _any(*events: asyncio.Event, timeout: float | None = None) -> None:
    """Return when one of the events is set, or after ``timeout`` seconds."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
