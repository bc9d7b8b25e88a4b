"""The client on a real broker: it publishes, comes back, and stops without leaving anything."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import sprockets_amqp as amqp
from sprockets_amqp import Client, State, StateChange
from tests.support.leaks import no_leaks
from tools.rabbitmq import Node

#: Reconnecting is what is tested here, not waiting for it.
QUICK: dict[str, Any] = {"reconnect_delay": 0.2, "max_reconnect_delay": 0.5, "timeout": 60}


@asynccontextmanager
async def connected(url: str, **settings: Any) -> AsyncIterator[Client]:
    """A client that is ready, and is shut down at the end."""
    client = Client(url, **{**QUICK, **settings})
    try:
        await client.wait_for(State.READY, 30)
        yield client
    finally:
        await client.shutdown(5)


def recorded(client: Client) -> list[StateChange]:
    """The changes from now on, as they come."""
    changes: list[StateChange] = []
    client.subscribe(changes.append)
    return changes


async def lost(client: Client, cause: Callable[[], Any]) -> None:
    """Do what costs the client its readiness, and wait until it noticed."""
    gone = asyncio.get_running_loop().create_future()
    subscription = client.subscribe(
        lambda change: change.source is State.READY and not gone.done() and gone.set_result(None)
    )
    await cause()
    await asyncio.wait_for(gone, 60)
    subscription.cancel()


async def flows(client: Client) -> None:
    """A publish goes through, once the client is ready again."""
    await client.wait_for(State.READY, 60)
    await client.publish("amq.topic", "flows", b"an event")


async def test_a_confirmed_publish_ends_with_none(broker: Node) -> None:
    """RabbitMQ has the message when the future ends."""
    async with connected(broker.url) as client:
        await client.publish("amq.topic", "key", "an event")
        assert client.counters.confirmed == 1
        assert client.unconfirmed == client.waiting == 0


async def test_publishes_before_ready_go_out_in_order(broker: Node) -> None:
    """What was published while connecting waits, and ends in the order of the calls."""
    client = Client(broker.url)
    ended: list[int] = []
    futures = [client.publish("amq.topic", str(n), b"") for n in range(50)]
    for number, future in enumerate(futures):
        future.add_done_callback(lambda _future, number=number: ended.append(number))  # type: ignore[misc]
    assert client.waiting == 50
    await asyncio.gather(*futures)
    assert ended == list(range(50))
    await client.shutdown()


async def test_it_comes_back_when_the_broker_was_stopped_and_started(node: Node) -> None:
    """A publish during the outage waits for the broker."""
    async with connected(node.url) as client:
        changes = recorded(client)
        await lost(client, node.stop)
        waiting = client.publish("amq.topic", "key", b"")
        await node.start()
        await waiting
        await flows(client)
        path = [change.dest for change in changes]
        assert path[:2] == [State.CLOSED, State.CONNECTING]
        assert path[-1] is State.READY
        assert client.counters.reconnects == 1


async def test_it_comes_back_when_an_operator_closed_the_connection(node: Node) -> None:
    """RabbitMQ's words are the reason of the change."""
    async with connected(node.url) as client:
        changes = recorded(client)
        await lost(client, lambda: node.ctl("close_all_connections", "by the operator"))
        await flows(client)
        assert [change.dest for change in changes] == [State.CLOSED, State.CONNECTING, State.READY]
        assert "320" in changes[0].reason and "by the operator" in changes[0].reason


async def test_it_opens_a_channel_again_that_rabbitmq_closed(node: Node) -> None:
    """The connection stays; what was in flight may have arrived."""
    async with connected(node.url) as client:
        changes = recorded(client)
        connection, channel = client.connection, client.channel
        assert channel is not None
        await lost(client, _later(lambda: channel.basic_publish("no such exchange", "key", b"")))
        await flows(client)
        assert [change.dest for change in changes] == [State.CONNECTING, State.READY]
        assert "404" in changes[0].reason
        assert client.connection is connection


async def test_a_memory_alarm_blocks_and_publishes_wait(node: Node) -> None:
    """Publishes under an alarm are confirmed once it is over."""
    async with connected(node.url) as client:
        await client.publish("amq.topic", "key", b"")
        await node.ctl("set_vm_memory_high_watermark", "0")
        first = client.publish("amq.topic", "key", b"")
        await client.wait_for(State.BLOCKED, 30)
        second = client.publish("amq.topic", "key", b"")
        assert client.waiting == 1
        assert client.closable and not client.ready
        await node.ctl("set_vm_memory_high_watermark", "0.4")
        await asyncio.gather(first, second)
        assert client.ready


async def test_it_comes_back_when_the_password_is_corrected_on_the_broker(node: Node) -> None:
    """A refused login is tried again, for ever."""
    await node.add_user("events", "right")
    client = Client(node.url_for("events", "wrong"), **QUICK)
    failures = recorded(client)
    await client.wait_for(State.CLOSED, 30)
    assert client.recovers
    assert failures[-1].trigger == "connection_failed"
    waiting = client.publish("amq.topic", "key", b"")
    await node.ctl("change_password", "events", "wrong")
    await waiting
    await client.shutdown()


async def test_close_refuses_new_publishes_and_drains_the_old(broker: Node) -> None:
    """What is unconfirmed is confirmed before the connection is closed."""
    async with connected(broker.url) as client:
        await client.publish("amq.topic", "key", b"")
        futures = [client.publish("amq.topic", "key", b"x" * 1000) for _ in range(500)]
        client.close()
        assert client.closing
        with pytest.raises(amqp.NotReadyError, match="Closing"):
            await client.publish("amq.topic", "key", b"")
        assert set(await asyncio.gather(*futures)) == {None}
        await client.wait_for(State.CLOSED, 10)
        assert not client.recovers
        with pytest.raises(amqp.ConnectionStateError):
            client.close()
        client.connect()
        await flows(client)


async def test_close_while_blocked_ends_within_its_limit(node: Node) -> None:
    """RabbitMQ reads nothing while it blocks, so what is unconfirmed may have arrived."""
    async with connected(node.url) as client:
        await client.publish("amq.topic", "key", b"")
        await node.ctl("set_vm_memory_high_watermark", "0")
        pending = [client.publish("amq.topic", "key", b"x" * 10_000) for _ in range(500)]
        await client.wait_for(State.BLOCKED, 30)
        assert client.unconfirmed
        await client.shutdown(0.5)
        assert client.closed and not client.recovers
        outcomes = await asyncio.gather(*pending, return_exceptions=True)
        unknown = [error for error in outcomes if isinstance(error, amqp.OutcomeUnknown)]
        assert unknown and all(error.may_have_arrived for error in unknown)
        assert len(unknown) + outcomes.count(None) == 500


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_stopping_at_any_moment_leaves_nothing(broker: Node, turns: int) -> None:
    """Neither timer, task, thread nor socket is left, however far the connection had come."""
    async with no_leaks():
        client = Client(broker.url)
        pending = client.publish("amq.topic", "key", b"")
        for _ in range(turns):
            await asyncio.sleep(0)
        await client.shutdown(5)
        assert client.closed
        assert pending.done()
        if pending.exception() is not None:
            assert isinstance(pending.exception(), amqp.NotReadyError)


async def test_an_outage_beyond_timeout_refuses_at_once(node: Node) -> None:
    """Nobody waits for a broker that is known to be gone, and publishing works again when it is back."""
    told: list[Client] = []
    async with connected(node.url, timeout=0.5, on_persistent_failure_callback=told.append) as client:
        await lost(client, node.stop)
        with pytest.raises(amqp.NotReadyError):
            await client.publish("amq.topic", "key", b"")
        assert told == [client]
        refused = client.publish("amq.topic", "key", b"", timeout=60)
        assert refused.done() and isinstance(refused.exception(), amqp.NotReadyError)
        await node.start()
        await flows(client)
        assert told == [client]


async def test_a_cancelled_publish_harms_no_other(broker: Node) -> None:
    """On the wire it stays in the ledger; in line it is never sent."""
    async with connected(broker.url, max_unconfirmed=1) as client:
        await client.publish("amq.topic", "key", b"")
        on_the_wire, in_line, other = (client.publish("amq.topic", "key", b"") for _ in range(3))
        on_the_wire.cancel()
        in_line.cancel()
        await other
        assert client.counters.published == 3


async def test_callbacks_are_told_and_may_raise(node: Node) -> None:
    """Each callback of the user's raises, and nothing else happens."""
    told: list[str] = []

    def telling(name: str) -> Callable[..., None]:
        def tell(*_: object) -> None:
            told.append(name)
            raise RuntimeError(name)

        return tell

    async with connected(
        node.url,
        on_ready_callback=telling("ready"),
        on_unavailable_callback=telling("unavailable"),
        on_return_callback=telling("return"),
    ) as client:
        client.subscribe(telling("change"))
        await client.publish("", "no such queue", b"")
        await lost(client, lambda: node.ctl("close_all_connections", "bye"))
        await flows(client)
    assert {"ready", "unavailable", "return", "change"} <= set(told)


def _later(call: Callable[[], object]) -> Callable[[], Any]:
    async def calling() -> None:
        call()

    return calling
