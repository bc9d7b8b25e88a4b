"""Faults of the line between the client and RabbitMQ, caused by a proxy."""

import asyncio

import pytest

import sprockets_amqp as amqp
from sprockets_amqp import State
from tests.faults.stream import Stream, streaming
from tests.support.proxy import Proxy
from tools.rabbitmq import Node

RECONNECTED = [State.CLOSED, State.CONNECTING, State.READY]


async def came_back(stream: Stream) -> None:
    """The client noticed, is ready again, and what was lost is unknown."""
    while State.CLOSED not in stream.path:
        await asyncio.wait_for(anext(stream.client.changes()), 60)
    await stream.confirmed()
    assert stream.path[:1] + stream.path[-1:] == [State.CLOSED, State.READY]
    assert stream.errors
    assert all(isinstance(error, amqp.OutcomeUnknown) and error.__cause__ for error in stream.errors)


@pytest.mark.fault(19)
async def test_tcp_reset(broker: Node) -> None:
    """Messages in flight end as unknown; the client reconnects."""
    async with Proxy(broker.port) as proxy, streaming(proxy.url(), admin_url=broker.url) as stream:
        proxy.delay = 0.1
        stream.publish()
        proxy.reset()
        await came_back(stream)
        assert stream.path == RECONNECTED


@pytest.mark.fault(20)
async def test_end_of_stream(broker: Node) -> None:
    """Messages in flight end as unknown; the client reconnects."""
    async with Proxy(broker.port) as proxy, streaming(proxy.url(), admin_url=broker.url) as stream:
        proxy.delay = 0.1
        stream.publish()
        proxy.eof()
        await came_back(stream)
        assert stream.path == RECONNECTED


@pytest.mark.fault(21)
async def test_black_hole(broker: Node) -> None:
    """Messages in flight end as unknown when the heartbeat is missed; at most max_unconfirmed were sent until then."""
    async with (
        Proxy(broker.port) as proxy,
        streaming(proxy.url("heartbeat=1&stack_timeout=2"), admin_url=broker.url, max_unconfirmed=50) as stream,
    ):
        proxy.black_hole()
        await stream.client.wait_for(State.CLOSED, 30)
        proxy.heal()
        await came_back(stream)
        assert 0 < len(stream.errors) <= 50


@pytest.mark.fault(24)
async def test_partial_frame_then_silence(broker: Node) -> None:
    """Half a frame confirms nothing: messages in flight end as unknown when the heartbeat is missed."""
    async with (
        Proxy(broker.port) as proxy,
        streaming(proxy.url("heartbeat=1&stack_timeout=2"), admin_url=broker.url) as stream,
    ):
        proxy.pass_only(to_client=5)
        await stream.client.wait_for(State.CLOSED, 30)
        proxy.heal()
        await came_back(stream)


@pytest.mark.fault(25)
async def test_latency(broker: Node) -> None:
    """A slow line confirms late; after confirm_timeout the outcome is unknown, and the late ack changes nothing."""
    async with Proxy(broker.port) as proxy:
        async with streaming(proxy.url(), admin_url=broker.url, interval=0.02) as stream:
            proxy.delay = 0.2
            await stream.confirmed()
            assert stream.path == [] and not stream.errors
        proxy.heal()
        async with streaming(proxy.url(), admin_url=broker.url, interval=0, confirm_timeout=0.3) as stream:
            proxy.delay = 0.5
            late = [stream.publish() for _ in range(10)]
            await asyncio.wait(late)
            assert {type(future.exception()) for future in late} == {amqp.OutcomeUnknown}
            assert "no confirmation within 0.3 s" in str(late[0].exception())
            while stream.client.unconfirmed:
                proxy.delay = 0
                await asyncio.wait([stream.publish()])
            assert stream.path == [] and stream.client.counters.confirmed >= 10
