"""What was accepted goes out before a client closes, and a closed channel is never published on; on RabbitMQ."""

import asyncio
import logging
from typing import Any

import pytest
from tornado.web import Application, RequestHandler

import sprockets_amqp as amqp
from examples.demo import on_broker
from sprockets_amqp import Client, PublishingMixin, State
from tests.support.consume import declare_queue
from tests.support.http import fetch, served
from tests.test_draining import Publishes
from tools.rabbitmq import Node

COUNT = 3000


class Many(PublishingMixin, RequestHandler):
    """Publishes without awaiting, and answers."""

    def post(self) -> None:
        """Publish."""
        for number in range(COUNT):
            self.amqp_publish(self.settings["exchange"], self.settings["key"], str(number))
        self.set_status(202)


@pytest.mark.parametrize("known", [True, False])
async def test_three_thousand_messages_without_await_arrive_before_it_stops(broker: Node, known: bool) -> None:
    """In order, whether the exchange was used before or not, although only a thousand may be unconfirmed."""
    queue = await declare_queue(broker.url)
    application = Application([("/", Many)], exchange=queue.exchange, key=queue.routing_key)
    amqp.install(application, url=broker.url)
    client = amqp.client_of(application)
    await client.wait_for(State.READY, 30)
    if known:
        await client.publish(queue.exchange, "elsewhere", b"")
    async with served(application) as base:
        assert (await fetch(f"{base}/", "POST", "")).code == 202
        await client.shutdown()
    assert [int(message.body) for message in await queue.messages()] == list(range(COUNT))
    await queue.delete()


@pytest.mark.parametrize("level", [logging.WARNING, logging.DEBUG])
async def test_a_log_handler_that_publishes_costs_no_connection(broker: Node, level: int) -> None:
    """An exchange in use is deleted: what pika and the client log of that goes out on the next channel."""
    queue = await declare_queue(broker.url)
    await on_broker(broker.url, lambda channel: channel.exchange_declare("short.lived", "fanout"))
    root = logging.getLogger()
    before = root.level
    async with Client(broker.url, reconnect_delay=0.2) as client:
        await client.publish("short.lived", "", b"")
        handler = Publishes(client)
        handler._exchange, handler._key = queue.exchange, queue.routing_key
        await client.publish(queue.exchange, queue.routing_key, b"known")
        root.addHandler(handler)
        root.setLevel(level)
        try:
            await on_broker(broker.url, lambda channel: channel.exchange_delete("short.lived"))
            lost: asyncio.Future[Any] = client.publish("short.lived", "", b"")
            with pytest.raises(amqp.OutcomeUnknown):
                await lost
        finally:
            root.removeHandler(handler)
            root.setLevel(before)
        await client.flush(30)
        assert handler.futures
        assert [each.exception() for each in handler.futures] == [None] * len(handler.futures)
        assert client.counters.reconnects == 0
    await queue.delete()
