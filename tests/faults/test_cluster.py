"""Faults of a cluster of three nodes, with a quorum queue."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

import sprockets_amqp as amqp
from sprockets_amqp import State
from sprockets_amqp.delivery import nacks
from tests.faults.stream import streaming
from tools.rabbitmq import Cluster, Node

QUORUM = {"x-queue-type": "quorum"}
QUERY = "?heartbeat=2&stack_timeout=3&socket_timeout=2"


@pytest_asyncio.fixture
async def healthy(cluster: Cluster) -> AsyncIterator[Cluster]:
    """A cluster that a test may break; it is mended after the test."""
    yield cluster
    await cluster.repair()


def all_of(cluster: Cluster) -> str:
    """One URL that names every node, with credentials and vhost once."""
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
    return f"amqp://guest:guest@{hosts}/%2f{QUERY}"


def node_of(client: amqp.Client, cluster: Cluster) -> Node:
    """The node that the client is on."""
    return next(node for node in cluster.nodes if node.port == getattr(client.parameters, "port", None))


@pytest.mark.fault(42)
async def test_leader_of_a_quorum_queue_killed(healthy: Cluster) -> None:
    """The client stays ready on another node; messages in flight are confirmed by the new leader."""
    entry = healthy.nodes[0]
    async with streaming(entry.url, arguments=QUORUM, interval=0.01) as stream:
        leader = await _leader_elsewhere(healthy, stream.queue, entry)
        await leader.kill()
        await stream.confirmed()
        assert stream.path == [] and not stream.errors
        await healthy.start()


@pytest.mark.fault(43)
async def test_quorum_lost(healthy: Cluster) -> None:
    """Nothing is confirmed until the quorum is back; then everything is."""
    entry = healthy.nodes[0]
    async with streaming(entry.url, arguments=QUORUM, interval=0.05) as stream:
        for node in healthy.nodes[1:]:
            node.pause()
        held = [stream.publish() for _ in range(20)]
        await asyncio.wait(held, timeout=2)
        assert not any(future.done() and future.exception() is None for future in held[-5:])
        for node in healthy.nodes[1:]:
            node.resume()
        await stream.confirmed()
        await stream.ended()
        # None at all, mostly: RabbitMQ may drop a connection whose heartbeats were held up with the quorum.
        assert not [error for error in stream.errors if not isinstance(error, amqp.OutcomeUnknown)]


@pytest.mark.fault(44)
async def test_node_of_the_client_killed(healthy: Cluster) -> None:
    """Messages in flight end as unknown; the client connects to another node at once."""
    url = all_of(healthy)
    async with streaming(url, admin_url=url, arguments=QUORUM, interval=0.01, reconnect_delay=30) as stream:
        first = node_of(stream.client, healthy)
        stream.admin_url = next(node for node in healthy.nodes if node is not first).url
        # A channel that publishes before another leader was elected gets nacks for good: RabbitMQ 3.10 goes by the
        # queue's record (https://github.com/rabbitmq/rabbitmq-server/pull/9241).
        await _leader_elsewhere(healthy, stream.queue, first)
        changes = stream.client.changes()
        first.pause()
        stream.publish()
        await first.kill()
        assert (await asyncio.wait_for(anext(changes), 30)).dest is State.CLOSED
        # The delay of 30 s would show: another node is tried without it.
        await stream.client.wait_for(State.READY, 20)
        assert node_of(stream.client, healthy) is not first
        await stream.confirmed()
        assert stream.errors
        assert all(isinstance(error, amqp.OutcomeUnknown) for error in stream.errors)
        await healthy.start()


async def test_a_leader_that_is_none_any_more(healthy: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel that RabbitMQ 3.10 opens before another leader is elected nacks everything: it is replaced."""
    monkeypatch.setattr(nacks, "LASTING", 1.0)
    url = all_of(healthy)
    async with streaming(url, admin_url=url, arguments=QUORUM, interval=0.01, reconnect_delay=30) as stream:
        first = node_of(stream.client, healthy)
        stream.admin_url = next(node for node in healthy.nodes if node is not first).url
        await healthy.replicated(stream.queue)
        await _lead(healthy, stream.queue, first)
        changes = stream.client.changes()
        await first.kill()
        assert (await asyncio.wait_for(anext(changes), 30)).dest is State.CLOSED
        await stream.client.wait_for(State.READY, 30)
        await stream.confirmed()
        assert {type(error) for error in stream.errors} <= {amqp.OutcomeUnknown, amqp.MessageNacked}
        await healthy.start()


async def test_clients_spread_over_the_nodes() -> None:
    """Three hundred clients do not all begin, nor all return, with the same node."""
    first: Counter[int] = Counter()
    second: Counter[int] = Counter()
    loop_clients = [amqp.Client("amqp://guest:guest@127.0.0.1:1,127.0.0.1:2,127.0.0.1:3/%2f") for _ in range(300)]
    for client in loop_clients:
        attempts = client._runtime.lifecycle.attempts
        first[getattr(attempts.node, "port", 0)] += 1
        attempts.next()
        second[getattr(attempts.node, "port", 0)] += 1
    await asyncio.gather(*(client.shutdown(1) for client in loop_clients))
    assert set(first) == set(second) == {1, 2, 3}
    assert min(first.values()) > 50 and min(second.values()) > 50


async def _lead(cluster: Cluster, queue: str, node: Node) -> None:
    """Have a quorum queue led by this node."""
    resource = f'rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)'
    transfer = f"rabbit_quorum_queue:transfer_leadership(Q, '{node.name}')"
    while await cluster.leader(queue) is not node:
        await node.ctl("eval", f"{{ok, Q}} = rabbit_amqqueue:lookup({resource}), {transfer}.")


async def _leader_elsewhere(cluster: Cluster, queue: str, node: Node) -> Node:
    """Have a quorum queue led by another node than this, and by one that can be lost; return that leader."""
    await cluster.replicated(queue)
    follower = next(other for other in cluster.nodes if other is not node)
    resource = f'rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)'
    transfer = f"rabbit_quorum_queue:transfer_leadership(Q, '{follower.name}')"
    while (leader := await cluster.leader(queue)) is node:
        await node.ctl("eval", f"{{ok, Q}} = rabbit_amqqueue:lookup({resource}), {transfer}.")
    return leader
