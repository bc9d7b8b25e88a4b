"""What becomes of publishes in trouble, in each library: `python -m tests.support.compared` prints it as JSON.

It starts a RabbitMQ node of its own, and runs where the libraries are installed.
"""

# What is imported here is installed by tests/test_compared.py.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, Protocol

from tools.rabbitmq import Node

if TYPE_CHECKING:
    from collections.abc import Awaitable

EXCHANGE = "compared"
MISSING = "missing"
SECONDS = 30
#: How long a library may take to publish again when RabbitMQ is back; those that reconnect try each second.
BACK = 10
#: Within which a message is on the wire: a library tells nobody, and a node that is paused does not read it.
WRITTEN = 0.3


class Library(Protocol):
    """A connection of a library, and a channel in confirm mode, as its documentation makes them."""

    async def open(self, url: str) -> None:
        """Connect, and declare the exchange."""

    def publish(self, exchange: str) -> Awaitable[object]:
        """Publish a message; the future ends with what the library says of it."""

    async def close(self) -> None:
        """Close the connection."""


class SprocketsAMQP:
    """This project's client."""

    async def open(self, url: str) -> None:
        """Declare by ``setup``."""
        import sprockets_amqp as amqp

        async def declare(topology: amqp.Topology) -> None:
            await topology.exchange_declare(EXCHANGE, "fanout", durable=True)

        self.client = amqp.Client(url, setup=declare, reconnect_delay=1, timeout=SECONDS)
        await self.client.wait_for(amqp.State.READY, SECONDS)

    def publish(self, exchange: str) -> Awaitable[object]:
        """Publish as a handler does."""
        return self.client.publish(exchange, "", b"", mandatory=False)

    async def close(self) -> None:
        """Shut down."""
        await self.client.shutdown()


class Pika:
    """TornadoConnection with a future for each delivery tag; what is left when the channel closes has got no word."""

    async def open(self, url: str) -> None:
        """Put a channel in confirm mode."""
        import pika
        from pika.adapters.tornado_connection import TornadoConnection
        from tornado.ioloop import IOLoop

        self.futures: dict[int, asyncio.Future[object]] = {}
        self.tag = 0
        self.loop = asyncio.get_running_loop()
        opened = self.loop.create_future()

        def channel_is_open(channel: Any) -> None:
            self.channel = channel
            channel.add_on_close_callback(lambda *_: self.settle(list(self.futures), "no word"))
            channel.confirm_delivery(self.on_confirm)
            channel.exchange_declare(EXCHANGE, "fanout", durable=True, callback=opened.set_result)

        self.connection = TornadoConnection(
            pika.URLParameters(url),
            on_open_callback=lambda connection: connection.channel(on_open_callback=channel_is_open),
            on_open_error_callback=lambda _connection, error: opened.set_exception(error),
            custom_ioloop=IOLoop.current(),
        )
        await opened

    def on_confirm(self, frame: Any) -> None:
        """Settle the messages that RabbitMQ confirmed."""
        tag = frame.method.delivery_tag
        self.settle([each for each in self.futures if each == tag or (frame.method.multiple and each < tag)], None)

    def settle(self, tags: list[int], word: object) -> None:
        """End the futures of these messages."""
        for tag in tags:
            self.futures.pop(tag).set_result(word)

    def publish(self, exchange: str) -> Awaitable[object]:
        """Publish; what pika raises at once is the future's."""
        future: asyncio.Future[object] = self.loop.create_future()
        try:
            self.channel.basic_publish(exchange, "", b"")
        except Exception as error:
            future.set_exception(error)
        else:
            self.tag += 1
            self.futures[self.tag] = future
        return future

    async def close(self) -> None:
        """Close the connection, if it is open."""
        if self.connection.is_open:
            self.connection.close()


class AioPika:
    """The robust connection."""

    async def open(self, url: str) -> None:
        """Look the missing exchange up without asking RabbitMQ, as for one that was deleted since."""
        import aio_pika

        self.message = aio_pika.Message
        self.connection = await aio_pika.connect_robust(url, reconnect_interval=1)
        channel = await self.connection.channel()
        self.exchanges = {
            EXCHANGE: await channel.declare_exchange(EXCHANGE, "fanout", durable=True),
            MISSING: await channel.get_exchange(MISSING, ensure=False),
        }

    def publish(self, exchange: str) -> Awaitable[object]:
        """Publish to the exchange that was looked up."""
        published: Awaitable[object] = self.exchanges[exchange].publish(self.message(b""), "")
        return asyncio.ensure_future(published)

    async def close(self) -> None:
        """Close the connection."""
        await self.connection.close()


class FastStream:
    """Its broker object alone, without an application."""

    async def open(self, url: str) -> None:
        """Start the broker object."""
        from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange

        self.broker = RabbitBroker(url, reconnect_interval=1)
        await self.broker.start()
        self.exchanges = {EXCHANGE: RabbitExchange(EXCHANGE, ExchangeType.FANOUT, durable=True), MISSING: MISSING}
        await self.broker.declare_exchange(self.exchanges[EXCHANGE])

    def publish(self, exchange: str) -> Awaitable[object]:
        """Publish without a subscriber."""
        published: Awaitable[object] = self.broker.publish("", exchange=self.exchanges[exchange])
        return asyncio.ensure_future(published)

    async def close(self) -> None:
        """Stop the broker object."""
        await self.broker.stop()


LIBRARIES: dict[str, type[Library]] = {
    "sprockets_amqp": SprocketsAMQP,
    "pika": Pika,
    "aio-pika": AioPika,
    "FastStream": FastStream,
}


async def outcome(publish: Awaitable[object]) -> str:
    """Return "confirmed", what else the library said, or the name of the exception."""
    try:
        async with asyncio.timeout(SECONDS):
            word = await publish
    except Exception as error:
        return type(error).__name__
    return word if isinstance(word, str) else "confirmed"


async def with_a_missing_exchange(library: Library, node: Node) -> str:
    """Return what becomes of messages to a good exchange that are in flight with one to a missing exchange."""
    assert await outcome(library.publish(EXCHANGE)) == "confirmed"
    node.pause()
    bad = library.publish(MISSING)
    await asyncio.sleep(WRITTEN)
    good = [library.publish(EXCHANGE) for _ in range(20)]
    await asyncio.sleep(WRITTEN)
    node.resume()
    assert await outcome(bad) != "confirmed"
    (one,) = {await outcome(each) for each in good}
    return one


async def in_an_outage(libraries: dict[str, Library], node: Node) -> dict[str, dict[str, str]]:
    """Return what becomes of a message in flight, of one published while RabbitMQ is away, and of those afterwards."""
    for library in libraries.values():
        assert await outcome(library.publish(EXCHANGE)) == "confirmed"
    await node.store_definitions()
    node.pause()
    in_flight = {name: library.publish(EXCHANGE) for name, library in libraries.items()}
    await asyncio.sleep(WRITTEN)
    await node.kill()
    ended = await outcomes(in_flight)
    away = {name: library.publish(EXCHANGE) for name, library in libraries.items()}
    await node.start()
    ended_away = await outcomes(away)
    found = {name: {"in flight": ended[name], "away": ended_away[name]} for name in libraries}
    for name, library in libraries.items():
        found[name]["afterwards"] = await afterwards(library)
    return found


async def outcomes(publishes: dict[str, Awaitable[object]]) -> dict[str, str]:
    """Return what becomes of a publish of each library."""
    return dict(zip(publishes, await asyncio.gather(*map(outcome, publishes.values())), strict=True))


async def afterwards(library: Library) -> str:
    """Return what becomes of a message once RabbitMQ is back, and the library has had the time to notice."""
    for _ in range(BACK * 5):
        if await outcome(library.publish(EXCHANGE)) == "confirmed":
            break
        await asyncio.sleep(0.2)
    return await outcome(library.publish(EXCHANGE))


async def main() -> dict[str, dict[str, str]]:
    """Bring the libraries into each trouble, with connections of their own."""
    found = {}
    async with Node() as node:
        for name, kind in LIBRARIES.items():
            library = kind()
            await library.open(node.url)
            found[name] = {"others": await with_a_missing_exchange(library, node)}
            await library.close()
        libraries = {name: kind() for name, kind in LIBRARIES.items()}
        for library in libraries.values():
            await library.open(node.url)
        for name, each in (await in_an_outage(libraries, node)).items():
            found[name] |= each
        for library in libraries.values():
            await library.close()
    return found


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(json.dumps(asyncio.run(main())))
