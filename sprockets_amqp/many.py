"""Publishing many messages: no more of them at a time than a window holds, each with its outcome, in their order."""

import asyncio
import collections
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from .delivery.publish import STORED, Result
from .errors import AMQPException, InvalidMessage
from .text import quoted

Body = bytes | bytearray | memoryview | str
#: An exchange, a routing key, a body, and perhaps properties.
Outgoing = tuple[str, str, Body] | tuple[str, str, Body, Mapping[str, Any] | None]
SIZED: Final = (bytes, str, bytearray, memoryview)
#: After so many outcomes, the loop has a turn even if there are more.
TURN: Final = 1000


class MessageOutcome(NamedTuple):
    """What became of one of many messages.

    Attributes:
        message: the message, as it was given.
        error: what its publish raised, or None.
        stored: whether it is in the outbox, to be sent when RabbitMQ accepts messages again.
    """

    message: Outgoing
    error: AMQPException | None
    stored: bool

    @property
    def confirmed(self) -> bool:
        """Whether RabbitMQ has confirmed it."""
        return self.error is None and not self.stored


class Window:
    """The messages under way: at most ``limit`` of them and, unless there is only one, ``size`` octets of bodies."""

    def __init__(self, publish: Callable[..., "asyncio.Future[Result]"], limit: int, size: int) -> None:
        self._publish = publish
        self._limit, self._size = limit, size
        #: Each with its future, and the octets of its body.
        self.entries: collections.deque[tuple[Outgoing, asyncio.Future[Result], int]] = collections.deque()
        self.octets = 0
        #: Those who wait for a change.
        self.waiting: list[asyncio.Future[None]] = []

    @property
    def is_full(self) -> bool:
        """Whether the next message waits for another one to end."""
        return bool(self.entries) and (len(self.entries) >= self._limit or self.octets >= self._size)

    def fill(self, messages: Iterable[Any]) -> bool:
        """Publish messages while there is room; return whether there may be more. Raises what they raise."""
        publish, entries, octets = self._publish, self.entries, self.octets
        room, limit = self._limit - len(entries), self._size
        try:
            for message in messages:
                if isinstance(message, tuple) and 3 <= len(message) <= 4:
                    future, size = publish(*message), _octets(message[2])
                else:
                    future, size = _no_message(message), 0
                entries.append((message, future, size))
                octets += size
                room -= 1
                if not room or octets >= limit:
                    return True
        finally:
            self.octets = octets
        return False

    async def fill_by_and_by(self, messages: AsyncIterable[Outgoing]) -> None:
        """Publish messages as they come, and as there is room."""
        coming = aiter(messages)
        while True:
            while self.is_full:
                await self.changed()
            try:
                message = await anext(coming)
            except StopAsyncIteration:
                return
            self.fill([message])
            if len(self.entries) == 1:
                self.tell()

    async def changed(self) -> None:
        """Return when `tell` is called."""
        waiter = asyncio.get_running_loop().create_future()
        self.waiting.append(waiter)
        await waiter

    def tell(self, *_: object) -> None:
        """Let those go on who wait for a change."""
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


def _octets(body: object) -> int:
    """Return the size of a body; what is none, or a view that was released, ends with an error, and takes no room."""
    try:
        return len(body) if isinstance(body, SIZED) else 0
    except ValueError:
        return 0


def _no_message(given: object) -> "asyncio.Future[Result]":
    future = asyncio.get_running_loop().create_future()
    what = f"a message is a tuple of exchange, routing key, body and perhaps properties, not {quoted(given)}"
    future.set_exception(InvalidMessage(what))
    return future


class Outcomes:
    """The outcomes of many messages, in the order of the messages: iterate over it with ``async for``, once.

    A message is taken and published when there is room for it. `finish` takes no more of them, and the outcomes of
    those that were taken are still told. When the iteration is left, cancelled for instance, those that are not sent
    are withdrawn, and it is told which ones; leave a loop before its end with ``contextlib.aclosing(aiter(outcomes))``.

    Attributes:
        not_sent: once the iteration was left: the messages that were taken, and were not sent.
        untold: once it was left: the others whose outcome was not told. They may have arrived, or arrive yet.
    """

    def __init__(
        self,
        messages: Iterable[Outgoing] | AsyncIterable[Outgoing],
        window: Window,
        on_wire: Callable[[], "set[asyncio.Future[Result]]"],
    ) -> None:
        self.not_sent: list[Outgoing] = []
        self.untold: list[Outgoing] = []
        self._window = window
        self._on_wire = on_wire
        self._coming = messages if isinstance(messages, AsyncIterable) else None
        self._source = None if isinstance(messages, AsyncIterable) else iter(messages)
        self._filling: asyncio.Task[None] | None = None
        self._begun = False
        #: What the messages have raised.
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Outcomes, {len(self._window.entries)} messages under way>"

    def finish(self) -> None:
        """Take no more messages."""
        self._source = self._coming = None
        if self._filling is not None:
            self._filling.cancel()

    def __aiter__(self) -> AsyncGenerator[MessageOutcome]:
        """Begin to publish.

        Raises:
            RuntimeError: it has begun before.
            Exception: what the messages raised, after the outcomes of those before.
        """
        if self._begun:
            raise RuntimeError("the outcomes of publish_many() can be iterated over once")
        self._begun = True
        return self._outcomes()

    async def _outcomes(self) -> AsyncGenerator[MessageOutcome]:
        window, entries, new = self._window, self._window.entries, tuple.__new__
        if self._coming is not None:
            self._filling = asyncio.ensure_future(window.fill_by_and_by(self._coming))
            self._filling.add_done_callback(window.tell)
        try:
            while await self._next():
                # In one turn of the loop, as many as have ended.
                for _ in range(TURN):
                    if not entries or not entries[0][1].done():
                        break
                    message, future, size = entries.popleft()
                    window.octets -= size
                    if window.waiting:
                        # There is room for the next, which may be what comes before another outcome.
                        window.tell()
                    error: Any = future.exception()
                    # What the class does, without a call of Python's for each message.
                    yield new(MessageOutcome, (message, error, error is None and future.result() is STORED))
                else:
                    await asyncio.sleep(0)
            if self._error is not None:
                raise self._error
        finally:
            await self._leave()

    async def _next(self) -> bool:
        """Take messages, and return when the outcome of the first one is there; False: there is none."""
        window, entries, filling = self._window, self._window.entries, self._filling
        # Nobody fills a window that is full of octets.
        if self._source is not None and not window.is_full:
            try:
                if not window.fill(self._source):
                    self._source = None
            except Exception as error:
                self._source, self._error = None, error
        while not entries and filling is not None and not filling.done():
            await window.changed()
        if not entries:
            if filling is not None and not filling.cancelled():
                self._error = filling.exception()
            return False
        first = entries[0][1]
        if not first.done():
            first.add_done_callback(window.tell)
            while not first.done():
                await window.changed()
        return True

    async def _leave(self) -> None:
        """Take no more messages, and withdraw those that are not sent yet."""
        self.finish()
        on_wire, entries = self._on_wire(), self._window.entries
        while entries:
            message, future, _ = entries.popleft()
            sent = future.done() or future in on_wire
            (self.untold if sent else self.not_sent).append(message)
            if not sent:
                future.cancel()
            else:
                # Nobody asks any more, and asyncio need not say so.
                future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        if self._filling is not None and not self._filling.done():
            await asyncio.wait([self._filling])
