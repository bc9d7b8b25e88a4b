"""Exchanges and queues on a real broker, and reading back what arrived in them, with plain pika.

A channel of pika's BlockingConnection is used in a thread of its own, so that the client under test goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pika

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pika.adapters.blocking_connection import BlockingChannel

T = TypeVar("T")

#: Seconds that a message which the broker counts may take to arrive.
DELIVERY_LIMIT = 30.0


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it was consumed."""

    body: bytes
    properties: pika.BasicProperties
    exchange: str
    routing_key: str
    redelivered: bool

    @property
    def message_id(self) -> str | None:
        """The message_id property."""
        return self.properties.message_id


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue that is bound to a durable exchange of its own by one routing key."""

    url: str
    exchange: str
    routing_key: str
    name: str

    async def messages(self) -> list[Message]:
        """Take everything out of the queue, in its order."""
        return await on_channel(self.url, lambda channel: _take_all(channel, self.name))

    async def message_ids(self) -> list[str | None]:
        """Take everything out of the queue and return the message ids, in its order."""
        return [message.message_id for message in await self.messages()]

    async def depth(self) -> int:
        """Return how many messages wait in the queue."""
        return await on_channel(self.url, lambda channel: _depth(channel, self.name))

    async def delete(self) -> None:
        """Delete the queue and its exchange."""
        await on_channel(self.url, self._delete)

    def _delete(self, channel: BlockingChannel) -> None:
        channel.queue_delete(self.name)
        channel.exchange_delete(self.exchange)


async def declare_queue(url: str, *, exchange_type: str = "direct", arguments: dict[str, Any] | None = None) -> Queue:
    """Declare an exchange and a queue of fresh names and bind them; `arguments` are the queue's (`x-max-length`, …)."""
    name = uuid.uuid4().hex[:12]
    queue = Queue(url, exchange=f"exchange-{name}", routing_key=f"key-{name}", name=f"queue-{name}")

    def declare(channel: BlockingChannel) -> None:
        channel.exchange_declare(queue.exchange, exchange_type, durable=True)
        channel.queue_declare(queue.name, durable=True, arguments=arguments)
        channel.queue_bind(queue.name, queue.exchange, queue.routing_key)

    await on_channel(url, declare)
    return queue


async def on_channel(url: str, use: Callable[[BlockingChannel], T]) -> T:
    """Call `use` with a channel of a connection of its own, in a thread, and return what it returns."""

    def run() -> T:
        with _channel(url) as channel:
            return use(channel)

    with ThreadPoolExecutor(max_workers=1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, run)


@contextmanager
def _channel(url: str) -> Iterator[BlockingChannel]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection.channel()
    finally:
        if connection.is_open:
            connection.close()


def _depth(channel: BlockingChannel, name: str) -> int:
    return int(channel.queue_declare(name, passive=True).method.message_count)


def _take_all(channel: BlockingChannel, name: str) -> list[Message]:
    taken: list[Message] = []
    while left := _depth(channel, name):
        for method, properties, body in channel.consume(name, auto_ack=True, inactivity_timeout=DELIVERY_LIMIT):
            if method is None or properties is None or body is None:
                msg = f"{name} counts {left} messages and delivered none within {DELIVERY_LIMIT} s"
                raise AssertionError(msg)
            taken.append(Message(body, properties, method.exchange or "", method.routing_key or "", method.redelivered))
            left -= 1
            if not left:
                break
        channel.cancel()
    return taken
