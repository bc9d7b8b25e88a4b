"""Exchange checks leave nothing behind on a real RabbitMQ, and pass where a type of exchange needs a header."""

import asyncio
from typing import Any, Final

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from sprockets_amqp import Client, ExchangeRefused, State
from tests.support.consume import on_channel
from tools.rabbitmq import Node

#: A selector over which x-jms-topic fails if a message has no header ``kind``: it negates what is no number then.
SELECTOR: Final = "{'or',{'=',{ident,<<\"kind\">>},1},{'=',{'-',{'and',{not_null,{ident,<<\"kind\">>}},undefined}},0}}."


def declare(channel: BlockingChannel) -> None:
    """Declare an exchange of each type, and bind a queue to the one that selects."""
    channel.exchange_declare("history", "x-recent-history")
    channel.exchange_declare("selects", "x-jms-topic")
    channel.queue_declare("selected")
    channel.queue_bind("selected", "selects", "", {"rjms_erlang_selector": SELECTOR})


def bind_late(channel: BlockingChannel) -> None:
    """Bind a queue to the exchange that keeps its last messages."""
    channel.queue_declare("late")
    channel.queue_bind("late", "history", "")


def bodies(channel: BlockingChannel, queue: str) -> list[bytes]:
    """Take what is in a queue."""
    found: list[bytes] = []
    while True:
        got: Any = channel.basic_get(queue, auto_ack=True)
        if got[0] is None:
            return found
        found.append(got[2])


@pytest.mark.usefixtures("rabbitmq")
async def test_a_check_is_kept_by_no_exchange_and_has_the_headers_that_one_needs() -> None:
    """A queue that is bound later gets the event and no empty message; the other exchange costs one connection."""
    node = Node()
    plugins = "rabbitmq_recent_history_exchange,rabbitmq_jms_topic_exchange"
    (node.folder / "enabled_plugins").write_text(f"[{plugins}].")
    async with node:
        url = f"amqp://guest:guest@127.0.0.1:{node.port}"
        await on_channel(url, declare)
        async with Client(url, reconnect_delay=0.2, timeout=20) as client:
            await client.wait_for(State.READY, 30)
            await client.publish("history", "", b"event")
            await on_channel(url, bind_late)
            assert await on_channel(url, lambda channel: bodies(channel, "late")) == [b"event"]
            futures = [client.publish("selects", "", b"job", {"headers": {"kind": 1}}) for _ in range(3)]
            await asyncio.gather(*futures)
            assert client.counters.reconnects == 1
            assert await on_channel(url, lambda channel: bodies(channel, "selected")) == [b"job"] * 3
            with pytest.raises(ExchangeRefused):
                await client.publish("nowhere", "", b"job")
