"""A stream of publishes through a fault, and the ledger that must hold after it."""

import asyncio
import re
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pika

from sprockets_amqp import Client, State, StateChange
from sprockets_amqp.recording.ring import finish_all
from sprockets_amqp.recording.trace import read
from tests.support.leaks import no_leaks
from tools.history import History, check, outcome_of
from tools.recorded import problem_of

#: Reconnecting is what is tested, not waiting for it; confirm_timeout keeps a frozen broker's test short. An unroutable
#: message is confirmed and in no queue: only as a failure does it leave confirmed to mean stored.
QUICK: dict[str, Any] = {
    "reconnect_delay": 0.2,
    "max_reconnect_delay": 1,
    "timeout": 60,
    "confirm_timeout": 60,
    "fail_on_return": True,
}


class Stream:
    """Messages with numbered ids to a durable queue, what became of each, and the changes of state meanwhile."""

    def __init__(self, client: Client, admin_url: str, name: str) -> None:
        self.client = client
        self.admin_url = admin_url
        self.exchange = self.queue = name
        self.futures: dict[str, asyncio.Future[None]] = {}
        self.ends: Counter[str] = Counter()
        self.changes: list[StateChange] = []
        #: What is recorded of each publish, for a checker that knows nothing of the client.
        self.history = History()
        client.subscribe(self.changes.append)

    def publish(self, timeout: float | None = None) -> "asyncio.Future[None]":
        """Publish the next message of the stream."""
        message_id = f"{self.queue}-{len(self.futures)}"
        properties = {"message_id": message_id, "delivery_mode": 2}
        self.history.published(message_id)
        future = self.client.publish(self.exchange, "key", b"an event", properties, timeout=timeout)
        future.add_done_callback(lambda future: self._note_end(message_id, future))
        self.futures[message_id] = future
        return future

    def _note_end(self, message_id: str, future: "asyncio.Future[Any]") -> None:
        self.ends.update([message_id])
        self.history.ended(message_id, outcome_of(future))

    async def offer(self, interval: float) -> None:
        """Publish for ever, at intervals of so many seconds."""
        while True:
            self.publish()
            await asyncio.sleep(interval)

    @property
    def outcomes(self) -> list[BaseException | None]:
        """What each message ended with so far, in order; None for confirmed."""
        return [future.exception() for future in self.futures.values() if future.done() and not future.cancelled()]

    @property
    def errors(self) -> list[BaseException]:
        """What was not confirmed ended with."""
        return [error for error in self.outcomes if error is not None]

    @property
    def path(self) -> list[State]:
        """The states that were entered."""
        return [change.dest for change in self.changes]

    async def ended(self, limit: float = 90) -> None:
        """Wait until every publish so far ended."""
        if self.futures:
            await asyncio.wait(self.futures.values(), timeout=limit)

    async def confirmed(self, limit: float = 90) -> None:
        """Wait until a publish from now on is confirmed: the client came through."""
        async with asyncio.timeout(limit):
            while True:
                try:
                    return await self.publish()
                except Exception:  # noqa: S112 - what was in flight may be lost; the next is not
                    continue

    async def verify(self) -> list[str]:
        """Hold the ledger against the queue; returns the ids that the queue had, in its order."""
        await self.ended()
        pending = [name for name, future in self.futures.items() if not future.done()]
        assert not pending, f"never ended: {pending[:3]} of {len(pending)}"
        assert all(count == 1 for count in self.ends.values())
        assert self.client.unconfirmed == self.client.waiting == 0
        stored = await asyncio.to_thread(_drain, self.admin_url, self.queue)
        # Some tests put more into the queue than the stream.
        for name in filter(self.futures.__contains__, stored):
            self.history.delivered(name)
        assert check(self.history) == []
        confirmed = {
            name for name, future in self.futures.items() if not future.cancelled() and future.exception() is None
        }
        assert confirmed <= set(stored), f"confirmed and lost: {sorted(confirmed - set(stored))[:3]}"
        return stored


@asynccontextmanager
async def streaming(
    url: str, *, interval: float = 0.005, admin_url: str = "", arguments: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Stream]:
    """Offer a stream while the block causes its fault; after it the ledger holds, and nothing is left behind."""
    name = f"faults-{uuid4()}"
    await asyncio.to_thread(_declare, admin_url or url, name, arguments or {})
    async with no_leaks(), recorded() as folder:
        client = Client(url, **{**QUICK, "recorder": folder, **settings})
        stream = Stream(client, admin_url or url, name)
        await client.wait_for(State.READY, 60)
        await stream.publish()
        stream.changes.clear()
        offering = asyncio.create_task(stream.offer(interval)) if interval else None
        try:
            yield stream
            if offering is not None:
                offering.cancel()
            await stream.verify()
        finally:
            if offering is not None:
                offering.cancel()
            await client.shutdown(5)
            await asyncio.to_thread(_delete, stream.admin_url, stream.queue)


@asynccontextmanager
async def recorded() -> AsyncIterator[Path]:
    """A folder for a recorder: at the end, what it holds is what is declared."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield folder
        problems = await asyncio.to_thread(_judged, folder)
        assert problems == []


def _judged(folder: Path) -> list[str]:
    finish_all()
    return [problem for trace in read([folder]) if (problem := problem_of(trace))]


def _first(url: str) -> str:
    """The URL of the first of several nodes."""
    return re.sub(r",[^/]*", "", url)


def _declare(url: str, name: str, arguments: dict[str, Any]) -> None:
    with pika.BlockingConnection(pika.URLParameters(_first(url))) as connection:
        channel = connection.channel()
        channel.exchange_declare(name, "topic", durable=True)
        channel.queue_declare(name, durable=True, arguments=arguments)
        channel.queue_bind(name, name, "#")


def _drain(url: str, name: str) -> list[str]:
    stored: list[str] = []
    with pika.BlockingConnection(pika.URLParameters(_first(url))) as connection:
        channel = connection.channel()
        while True:
            method, properties, _body = channel.basic_get(name, auto_ack=True)
            if method is None or properties is None:
                return stored
            stored.append(str(properties.message_id))


def _delete(url: str, name: str) -> None:
    try:
        with pika.BlockingConnection(pika.URLParameters(_first(url))) as connection:
            channel = connection.channel()
            channel.queue_delete(name)
            channel.exchange_delete(name)
    except pika.exceptions.AMQPError:
        # The test ended with the broker down: its fixture mends it.
        return
