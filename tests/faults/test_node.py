"""Faults of one node: its operator's, its resources', and what it refuses."""

import asyncio
import select
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

import sprockets_amqp as amqp
from sprockets_amqp import State
from tests.faults.stream import Stream, streaming
from tests.support.proxy import Proxy
from tools import rabbitmq
from tools.rabbitmq import Node

S = State
#: Down and up again.
RECONNECTED = [S.CLOSED, S.CONNECTING, S.READY]


async def left_ready(stream: Stream, cause: Awaitable[object]) -> None:
    """Cause the fault, and wait until the client noticed."""
    noticed = asyncio.Event()
    subscription = stream.client.subscribe(lambda change: change.source is S.READY and noticed.set())
    await cause
    await asyncio.wait_for(noticed.wait(), 60)
    subscription.cancel()


@asynccontextmanager
async def far_away(url: str, node: Node, **settings: Any) -> AsyncIterator[Stream]:
    """A stream to a node behind a slow line: whenever the fault comes, some of it is in flight."""
    async with Proxy(node.port) as proxy:
        near = url.replace(f":{node.port}/", f":{proxy.port}/")
        assert near != url
        async with streaming(near, admin_url=node.url, **settings) as stream:
            proxy.delay = 0.1
            yield stream


def only_unknown(stream: Stream, words: str = "") -> None:
    """What was not confirmed may have arrived, and says why nobody knows; there is some."""
    assert stream.errors
    assert all(isinstance(error, amqp.OutcomeUnknown) for error in stream.errors), stream.errors[:3]
    assert all(words in str(error) and error.__cause__ is not None for error in stream.errors), stream.errors[:3]


@pytest.mark.fault(1)
async def test_forced_close(node: Node) -> None:
    """Messages in flight end as unknown (320); the client reconnects and continues."""
    async with far_away(node.url, node) as stream:
        await left_ready(stream, node.ctl("close_all_connections", "bye"))
        await stream.confirmed()
        assert stream.path == RECONNECTED
        only_unknown(stream, "320")


@pytest.mark.fault(2)
async def test_application_restart(node: Node) -> None:
    """Messages in flight end as unknown; new publishes wait for the broker."""
    async with far_away(node.url, node) as stream:
        await left_ready(stream, node.ctl("stop_app"))
        await node.ctl("start_app")
        await stream.confirmed()
        assert stream.path[0] is S.CLOSED and stream.path[-1] is S.READY
        only_unknown(stream)


@pytest.mark.fault(3)
async def test_broker_killed(node: Node) -> None:
    """Messages in flight end as unknown; confirmed ones are in the queue after kill -9."""
    async with streaming(node.url) as stream:
        await node.store_definitions()
        node.pause()
        stream.publish()
        await left_ready(stream, node.kill())
        await node.start()
        await stream.confirmed()
        only_unknown(stream)


@pytest.mark.fault(4)
async def test_maintenance(node: Node) -> None:
    """A drained node closes its connections (320); publishes wait until it is revived."""
    async with far_away(node.url, node) as stream:
        await left_ready(stream, node.ctl("drain", tool="rabbitmq-upgrade"))
        await node.ctl("revive", tool="rabbitmq-upgrade")
        await stream.confirmed()
        only_unknown(stream)


@pytest.mark.fault(5)
async def test_listeners_suspended(node: Node) -> None:
    """Nothing: the open connection stays open."""
    async with streaming(node.url) as stream:
        await node.ctl("suspend_listeners")
        await stream.confirmed()
        await node.ctl("resume_listeners")
        assert stream.path == [] and not stream.errors


@pytest.mark.fault(6)
async def test_memory_alarm(node: Node) -> None:
    """Publishes wait, and are confirmed when the alarm is over."""
    async with streaming(node.url) as stream:
        await left_ready(stream, node.ctl("set_vm_memory_high_watermark", "0"))
        await node.ctl("set_vm_memory_high_watermark", "0.4")
        await stream.confirmed()
        assert stream.path == [S.BLOCKED, S.READY] and not stream.errors


@pytest.mark.fault(7)
async def test_disk_alarm(node: Node) -> None:
    """Publishes wait, and are confirmed when the alarm is over."""
    async with streaming(node.url) as stream:
        await left_ready(stream, node.ctl("set_disk_free_limit", "9000GB"))
        await node.ctl("set_disk_free_limit", "50MB")
        await stream.confirmed()
        assert stream.path == [S.BLOCKED, S.READY] and not stream.errors


@pytest.mark.fault(8)
async def test_close_while_blocked(node: Node) -> None:
    """The client is closed within its limit and stays closed; messages in flight end as unknown."""
    async with streaming(node.url, interval=0) as stream:
        await node.ctl("set_vm_memory_high_watermark", "0")
        for _ in range(500):
            stream.publish()
        await stream.client.wait_for(S.BLOCKED, 30)
        await stream.client.shutdown(0.5)
        await node.ctl("set_vm_memory_high_watermark", "0.4")
        assert stream.path == [S.BLOCKED, S.CLOSING, S.CLOSED]
        assert not stream.client.recovers
        # RabbitMQ confirms nothing under an alarm, but what came before it noticed.
        assert {type(error) for error in stream.errors} == {amqp.OutcomeUnknown}


@pytest.mark.fault(9)
async def test_blocked_too_long(node: Node) -> None:
    """With blocked_connection_timeout in the URL, the client reconnects; it is blocked again until the alarm ends."""
    async with streaming(node.url_for(query="blocked_connection_timeout=1"), admin_url=node.url) as stream:
        await node.ctl("set_vm_memory_high_watermark", "0")
        await stream.client.wait_for(S.CLOSED, 30)
        await node.ctl("set_vm_memory_high_watermark", "0.4")
        await stream.confirmed()
        assert stream.path[:2] == [S.BLOCKED, S.CLOSED]
        only_unknown(stream)


@pytest.mark.fault(10)
async def test_killed_while_blocked(node: Node) -> None:
    """The client reconnects while the alarm lasts, and publishes wait until it ends."""
    async with streaming(node.url) as stream:
        await left_ready(stream, node.ctl("set_vm_memory_high_watermark", "0"))
        await node.ctl("close_all_connections", "bye")
        await node.ctl("set_vm_memory_high_watermark", "0.4")
        await stream.confirmed()
        assert stream.path[:2] == [S.BLOCKED, S.CLOSED]
        only_unknown(stream)


@pytest.mark.fault(11)
async def test_missing_exchange(node: Node) -> None:
    """Only the publish to the missing exchange fails, with RabbitMQ's words; the others are confirmed."""
    async with streaming(node.url) as stream:
        others = [stream.publish() for _ in range(300)]
        culprit = stream.client.publish("no such exchange", "key", b"")
        others += [stream.publish() for _ in range(300)]
        with pytest.raises(amqp.ExchangeRefused, match="NOT_FOUND - no exchange 'no such exchange'") as caught:
            await culprit
        assert caught.value.reply_code == 404 and not caught.value.may_have_arrived
        await asyncio.gather(*others)
        assert stream.path == [] and not stream.errors


@pytest.mark.fault(11)
async def test_missing_exchanges_in_a_row_with_two_channels(node: Node) -> None:
    """Even if RabbitMQ or the URL allows no third channel, each missing exchange is refused, and nothing else."""
    async with streaming(node.url_for(query="channel_max=2"), admin_url=node.url) as stream:
        missing = [stream.client.publish(f"missing {number}", "key", b"") for number in range(5)]
        outcomes = await asyncio.gather(*missing, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [amqp.ExchangeRefused] * 5
        await stream.confirmed()
        assert stream.path == [] and not stream.errors


@pytest.mark.fault(12)
async def test_exchange_deleted_in_mid_stream(node: Node) -> None:
    """Messages in flight end as unknown; later publishes are refused (404) until the exchange is declared again."""
    async with far_away(node.url, node) as stream:
        await left_ready(stream, node.ctl("eval", _delete_exchange(stream.exchange)))
        with pytest.raises(amqp.ExchangeRefused, match="NOT_FOUND"):
            await stream.publish()
        await stream.client.publish("amq.topic", "key", b"", mandatory=False)
        assert stream.path == [S.CONNECTING, S.READY]
        assert {type(error) for error in stream.errors} == {amqp.OutcomeUnknown, amqp.ExchangeRefused}


@pytest.mark.fault(13)
async def test_permission_revoked(node: Node) -> None:
    """RabbitMQ honours what it granted a channel; on the next connection publishes are refused (403), one by one."""
    await node.ctl("add_user", "revoked", "secret")
    await node.ctl("set_permissions", "revoked", ".*", ".*", ".*")
    async with far_away(node.url_for("revoked", "secret"), node) as stream:
        await node.ctl("clear_permissions", "revoked")
        await stream.confirmed()
        await node.ctl("set_permissions", "revoked", "none", "none", "none")
        await left_ready(stream, node.ctl("close_all_connections", "bye"))
        await stream.client.wait_for(S.READY, 30)
        with pytest.raises(amqp.ExchangeRefused, match="ACCESS_REFUSED"):
            await stream.publish()
        await node.ctl("set_permissions", "revoked", ".*", ".*", ".*")
        await stream.confirmed()
        assert {type(error) for error in stream.errors} == {amqp.OutcomeUnknown, amqp.ExchangeRefused}
    await node.ctl("delete_user", "revoked")


@pytest.mark.fault(14)
@pytest.mark.parametrize("what", ["user", "vhost"])
async def test_user_or_vhost_deleted(node: Node, caplog: pytest.LogCaptureFixture, what: str) -> None:
    """The client is closed and refused, and keeps trying until they are back; no log shows the password."""
    caplog.set_level("DEBUG")
    name = f"deleted-{what}"
    url = await node.add_user(name, "s3cr3t-w0rd", name)
    client = amqp.Client(url, reconnect_delay=0.2, max_reconnect_delay=0.5, timeout=60)
    failed = asyncio.Event()
    client.subscribe(lambda change: change.trigger == "connection_failed" and failed.set())
    await client.publish("amq.topic", "key", b"")
    await node.ctl(f"delete_{what}", name)
    if what == "user":
        # RabbitMQ keeps the connections of a user that it deleted.
        await node.ctl("close_all_connections", "bye")
    await asyncio.wait_for(failed.wait(), 60)
    waiting = client.publish("amq.topic", "key", b"")
    await node.ctl(*(("add_user", name, "s3cr3t-w0rd") if what == "user" else ("add_vhost", name)))
    await node.ctl("set_permissions", "--vhost", name, name, ".*", ".*", ".*")
    await asyncio.wait_for(waiting, 60)
    await client.shutdown()
    await node.ctl("delete_vhost", name)
    await node.ctl("delete_user", name)
    assert "s3cr3t-w0rd" not in caplog.text


@pytest.mark.fault(15)
async def test_password_changed(node: Node) -> None:
    """The login is refused, and retried more and more slowly until the password is right."""
    url = await node.add_user("changing", "before")
    async with far_away(url, node) as stream:
        await node.ctl("change_password", "changing", "after")
        await left_ready(stream, node.ctl("close_all_connections", "bye"))
        changes = stream.client.changes()
        while [change.trigger for change in stream.changes].count("connection_failed") < 2:
            await anext(changes)
        await node.ctl("change_password", "changing", "before")
        await stream.confirmed()
        only_unknown(stream)
    await node.ctl("delete_user", "changing")


@pytest.mark.fault(16)
async def test_limits(node: Node) -> None:
    """No connection, or no channel, is allowed: the client keeps trying until one is."""
    url = await node.add_user("limited", "secret", "limited")
    for limit, unlimit in [
        (("set_vhost_limits", "-p", "limited", '{"max-connections": 0}'), ("clear_vhost_limits", "-p", "limited")),
        (("set_user_limits", "limited", '{"max-channels": 0}'), ("clear_user_limits", "limited", "all")),
    ]:
        await node.ctl(*limit)
        client = amqp.Client(url, reconnect_delay=0.1, max_reconnect_delay=0.2, timeout=30)
        waiting = client.publish("amq.topic", "key", b"")
        await client.wait_for(S.CLOSED, 30)
        assert client.recovers
        await node.ctl(*unlimit)
        await waiting
        await client.shutdown()
    await node.ctl("delete_vhost", "limited")
    await node.ctl("delete_user", "limited")


@pytest.mark.fault(16)
async def test_a_user_of_one_channel(node: Node) -> None:
    """If the user may open only one channel, the client uses that one, and exchanges are not checked first."""
    url = await node.add_user("limited", "secret", "limited")
    await node.ctl("set_user_limits", "limited", '{"max-channels": 1}')
    client = amqp.Client(url, reconnect_delay=0.1, max_reconnect_delay=0.2, timeout=30)
    await client.publish("amq.topic", "key", b"")
    await client.publish("amq.direct", "key", b"")
    assert client.counters.reconnects == 1
    with pytest.raises(amqp.OutcomeUnknown, match="NOT_FOUND"):
        await client.publish("missing", "key", b"")
    # RabbitMQ counts the channel that it closed for a moment longer: the next one may cost the connection again.
    await client.publish("amq.direct", "key", b"")
    await client.shutdown()
    await node.ctl("delete_vhost", "limited")
    await node.ctl("delete_user", "limited")


@pytest.mark.fault(17)
async def test_queue_full(node: Node) -> None:
    """Messages that a full queue refuses are nacked, and only those."""
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    async with streaming(node.url, interval=0, arguments=arguments) as stream:
        refused = [stream.publish() for _ in range(20)]
        taken = [stream.client.publish("amq.topic", "key", b"", mandatory=False) for _ in range(20)]
        await asyncio.gather(*taken)
        outcomes = await asyncio.gather(*refused, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {amqp.MessageNacked}
        assert stream.path == [] and stream.client.counters.nacked == 20


@pytest.mark.fault(18)
async def test_unroutable(node: Node) -> None:
    """With fail_on_return, that publish fails, and only that one; without it, on_return_callback is called."""
    async with streaming(node.url, interval=0, fail_on_return=True) as stream:
        others = [stream.publish() for _ in range(100)]
        with pytest.raises(amqp.MessageReturned, match="NO_ROUTE"):
            await stream.client.publish("amq.topic", "no such binding", b"")
        await asyncio.gather(*others)
    told: list[Any] = []
    on_return: dict[str, Any] = {"fail_on_return": False, "on_return_callback": lambda *returned: told.append(returned)}
    async with streaming(node.url, interval=0, **on_return) as stream:
        await stream.client.publish("amq.topic", "no such binding", b"the body", {"message_id": "returned"})
        await stream.publish()
        ((method, properties, body),) = told
        assert (method.reply_code, properties.message_id, body) == (312, "returned", b"the body")


@pytest.mark.fault(18)
@pytest.mark.parametrize("message_id", ["order-7", None])
@pytest.mark.parametrize(
    ("routed", "unroutable"),
    [
        ({"kind": "known", "n": 2**40, "when": datetime(2026, 1, 1, tzinfo=UTC)}, {"kind": "other"}),
        ({"CC": ["known"]}, {"CC": ["other"], "BCC": ["others"]}),
        ({"BCC": ["known"]}, {"n": True}),
    ],
)
async def test_unroutable_among_others_of_the_same_id(
    node: Node, message_id: str | None, routed: dict[str, Any], unroutable: dict[str, Any]
) -> None:
    """Where only headers differ, the one that was returned fails, although one before it is unconfirmed."""

    async def declare(topology: amqp.Topology) -> None:
        await topology.exchange_declare("by-kind", "headers", durable=True)
        await topology.exchange_declare("by-key", durable=True)
        await topology.queue_declare("routed", durable=True)
        await topology.queue_bind("routed", "by-kind", "", {"x-match": "all", "kind": "known"})
        await topology.queue_bind("routed", "by-key", "known")

    exchange = "by-kind" if "kind" in routed else "by-key"
    properties = {"message_id": message_id, "delivery_mode": 2}
    async with amqp.Client(node.url, setup=declare, fail_on_return=True) as client:
        await client.publish(exchange, "gone", b"first", {**properties, "headers": routed})
        publishes = [
            client.publish(exchange, "gone", b"the same", {**properties, "headers": headers})
            for headers in (routed, unroutable, routed, unroutable)
        ]
        ends = await asyncio.gather(*publishes, return_exceptions=True)
    assert [type(end) for end in ends] == [type(None), amqp.MessageReturned, type(None), amqp.MessageReturned]
    await node.ctl("delete_queue", "routed")


@pytest.mark.fault(35)
async def test_sizes(node: Node) -> None:
    """Every body up to RabbitMQ's limit (128 MiB; from 4.0 on, 16 MiB) is confirmed; only larger ones are refused."""
    async with streaming(node.url, interval=0) as stream:
        sizes = [0, 1, 131_063, 131_064, 131_065, 262_128, 16 * 1024**2]
        await asyncio.gather(*(stream.client.publish(stream.exchange, "key", b"x" * size) for size in sizes))
        limit = (16 if rabbitmq.version() >= (4,) else 128) * 1024**2
        await stream.client.publish("amq.topic", "no binding", b"x" * limit, mandatory=False)
        others = [stream.publish() for _ in range(100)]
        with pytest.raises(amqp.InvalidMessage, match=f"body has {limit + 1} bytes"):
            await stream.client.publish("amq.topic", "no binding", b"x" * (limit + 1))
        await asyncio.gather(*others)
        assert stream.path == []


@pytest.mark.fault(36)
@pytest.mark.fault(37)
async def test_what_rabbitmq_would_refuse(node: Node) -> None:
    """Headers larger than a frame, wrong types and wrong values are refused one by one; the others are confirmed."""
    bad: list[tuple[Any, dict[str, Any], str]] = [
        (b"", {"headers": {"large": "x" * 1_000_000}}, "properties"),
        (b"", {"expiration": "abc"}, "expiration"),
        (b"", {"expiration": 60}, "expiration"),
        (b"", {"delivery_mode": 9}, "delivery_mode"),
        (b"", {"delivery_mode": "2"}, "delivery_mode"),
        (b"", {"priority": 300}, "priority"),
        (b"", {"timestamp": 1.5}, "timestamp"),
        (b"", {"timestamp": -1}, "timestamp"),
        (b"", {"headers": {"float": 1.5}}, "headers"),
        (b"", {"headers": {"set": {1}}}, "headers"),
        (b"", {"headers": {1: "key"}}, "headers"),
        (b"", {"headers": {"int": 1 << 70}}, "headers"),
        (b"", {"content_type": 5}, "content_type"),
        (b"", {"content_type": []}, "content_type"),
        (b"", {"correlation_id": "x" * 256}, "correlation_id"),
        (b"", {"no_such": 1}, "properties"),
        (None, {}, "body"),
        (5, {}, "body"),
        ([120], {}, "body"),
        ({"a": 1}, {}, "body"),
        ("\ud800", {}, "body"),
    ]
    async with streaming(node.url, interval=0) as stream:
        for body, properties, argument in bad:
            before, after = stream.publish(), None
            refused = stream.client.publish(stream.exchange, "key", body, properties)
            after = stream.publish()
            with pytest.raises(amqp.InvalidMessage) as caught:
                await refused
            assert caught.value.argument == argument
            assert not caught.value.may_have_arrived
            await asyncio.gather(before, after)
        with pytest.raises(amqp.InvalidMessage, match="timeout must be a number of seconds"):
            await stream.client.publish(stream.exchange, "key", b"", timeout="soon")  # type: ignore[arg-type]
        with pytest.raises(amqp.ExchangeRefused, match="user_id property set to 'somebody'"):
            await stream.client.publish(stream.exchange, "key", b"", {"user_id": "somebody"})
        await stream.client.publish(stream.exchange, "key", b"", {"user_id": "guest"})
        assert stream.path == []


@pytest.mark.fault(38)
async def test_cancelled_futures(node: Node) -> None:
    """Cancelling a publish affects no other, whatever becomes of its message."""
    async with Proxy(node.port) as proxy, streaming(proxy.url(), admin_url=node.url, interval=0) as stream:
        for lost in (False, True):
            proxy.delay = 0.1
            futures = [stream.publish() for _ in range(100)]
            await asyncio.sleep(0)
            for future in futures[::2]:
                future.cancel()
            if lost:
                proxy.reset()
            await asyncio.wait(futures)
            assert [future.exception() is None for future in futures[1::2]] == [not lost] * 50
            await stream.confirmed()
        only_unknown(stream)


@pytest.mark.fault(39)
async def test_callbacks_that_raise(node: Node) -> None:
    """Everything continues as if they had not; each exception is logged."""

    def raising(*_: object) -> None:
        raise RuntimeError("from the application")

    names = ("on_ready", "on_unavailable", "on_return", "on_persistent_failure")
    callbacks: dict[str, Any] = {f"{name}_callback": raising for name in names}
    async with far_away(node.url, node, fail_on_return=False, **callbacks) as stream:
        stream.client.subscribe(raising)
        await stream.client.publish("amq.topic", "no such binding", b"")
        await left_ready(stream, node.ctl("close_all_connections", "bye"))
        await stream.confirmed()
        assert stream.path == RECONNECTED
        only_unknown(stream)


@pytest.mark.fault(22)
async def test_broker_frozen(node: Node) -> None:
    """Messages in flight end as unknown when the heartbeat is missed; publishing resumes when the broker does."""
    async with streaming(node.url_for(query="heartbeat=1&stack_timeout=2"), admin_url=node.url) as stream:
        node.pause()
        await stream.client.wait_for(S.CLOSED, 30)
        node.resume()
        await stream.confirmed()
        only_unknown(stream)


@pytest.mark.fault(26)
async def test_frozen_during_the_handshake(node: Node) -> None:
    """The attempt ends at its limit, and the next one succeeds when the broker continues."""
    node.pause()
    client = amqp.Client(node.url_for(query="stack_timeout=1"), reconnect_delay=0.1, timeout=60, connection_attempts=1)
    waiting = client.publish("amq.topic", "key", b"")
    await client.wait_for(S.CLOSED, 30)
    assert client.recovers
    node.resume()
    await waiting
    await client.shutdown()


@pytest.mark.fault(40)
async def test_blocked_event_loop(node: Node) -> None:
    """RabbitMQ drops a client whose loop is blocked for longer than the heartbeat; the client reconnects."""
    async with streaming(node.url_for(query="heartbeat=1"), admin_url=node.url, interval=0) as stream:
        sent = [stream.publish() for _ in range(20)]
        # The loop is what must stand still; RabbitMQ gives up after two intervals.
        _stand_still(6)
        await asyncio.wait(sent)
        await stream.confirmed()
        assert stream.path[0] is S.CLOSED
        only_unknown(stream)


def _stand_still(seconds: float) -> None:
    select.select([], [], [], seconds)


def _delete_exchange(name: str) -> str:
    resource = f'rabbit_misc:r(<<"/">>, exchange, <<"{name}">>)'
    return f'rabbit_exchange:delete({resource}, false, <<"test">>).'
