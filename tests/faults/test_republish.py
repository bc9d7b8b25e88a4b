"""At least once, when asked: republish_unconfirmed."""

import asyncio

import pytest

import sprockets_amqp as amqp
from sprockets_amqp import State
from tests.faults.stream import streaming
from tests.support.proxy import Proxy
from tools.rabbitmq import Node


@pytest.mark.fault(3)
async def test_three_kills_under_load_lose_nothing(node: Node) -> None:
    """With republish_unconfirmed, every publish is confirmed through three kill -9; duplicates have the same id."""
    async with streaming(node.url, interval=1 / 300, republish_unconfirmed=True, max_waiting=100_000) as stream:
        await node.store_definitions()
        for _ in range(3):
            await node.kill()
            await node.start()
            await stream.confirmed()
        await stream.client.wait_for(State.READY, 30)
        await stream.ended()
        assert not stream.errors, stream.errors[:3]
        counters = stream.client.counters
        # The stream goes on: what is on its way now was not lost either.
        assert counters.confirmed + counters.unconfirmed + counters.waiting >= len(stream.futures)
        assert counters.reconnects >= 3


async def test_a_message_that_rabbitmq_keeps_refusing_is_not_sent_for_ever(node: Node) -> None:
    """Sent again alone, it is the one that ends with its outcome unknown; those in its company are confirmed."""
    async with streaming(node.url, interval=0, republish_unconfirmed=True) as stream:
        # The exchange is known to the client when it goes: the first publish after that closes the channel.
        await stream.client.publish("", stream.queue, b"")
        connection = stream.client.connection
        assert connection is not None
        poison = stream.client.publish(stream.exchange, "key", b"", {"message_id": "poison", "expiration": "5"})
        others = [stream.publish() for _ in range(100)]
        for piece, data in enumerate(connection._sending._pieces):
            # What the client would refuse, put on the wire behind its back.
            connection._sending._pieces[piece] = bytes(data).replace(b"\x015", b"\x01x")
        outcomes = await asyncio.gather(poison, *others, return_exceptions=True)
        assert all(outcome is None for outcome in outcomes), outcomes[:3]
        assert stream.path == [State.CONNECTING, State.READY]
        assert stream.client.counters.republished >= 1


async def test_without_it_the_outcome_is_unknown_and_says_so(node: Node) -> None:
    """By default nothing is sent twice behind the application's back."""
    async with Proxy(node.port) as proxy, streaming(proxy.url(), admin_url=node.url, interval=0) as stream:
        proxy.delay = 0.1
        futures = [stream.publish() for _ in range(200)]
        await asyncio.sleep(0)
        proxy.reset()
        await stream.confirmed()
        assert stream.client.counters.republished == 0
        for future in futures:
            assert isinstance(future.exception(), amqp.OutcomeUnknown)
            assert "may have arrived" in str(future.exception())
