"""Faults around the process: names, descriptors and threads."""

import asyncio
import resource
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

import sprockets_amqp as amqp
from sprockets_amqp import State
from tests.support.leaks import no_leaks
from tools.rabbitmq import Node

QUICK: dict[str, Any] = {"reconnect_delay": 0.1, "max_reconnect_delay": 0.2, "timeout": 60, "connection_attempts": 1}


@pytest.mark.fault(27)
async def test_dns_fails() -> None:
    """A name that does not exist is tried again; the reason says so."""
    async with no_leaks():
        client = amqp.Client("amqp://guest:guest@no-such-host.invalid/%2f", **QUICK)
        changes = client.changes()
        failed = [await asyncio.wait_for(anext(changes), 30) for _ in range(2)][-1]
        assert failed.trigger == "connection_failed" and failed.reason.startswith("DNS of no-such-host.invalid: ")
        assert client.recovers
        await client.shutdown()
        del changes


HANGING = """
import asyncio, socket, threading
import sprockets_amqp as amqp
socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
async def main():
    client = amqp.Client("amqp://guest:guest@host/%2f?stack_timeout=0.5", connection_attempts=1, reconnect_delay=60)
    await client.wait_for(amqp.State.CLOSED, 20)
    print(client.condition)
    await client.shutdown()
asyncio.run(main())
"""


@pytest.mark.fault(27)
async def test_dns_hangs() -> None:
    """The attempt ends at its own limit, and DNS cannot delay the end of the process."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", HANGING, stdout=subprocess.PIPE)
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    assert b"DNS of host: no answer within 0.5 s" in output


@pytest.mark.fault(28)
async def test_no_descriptors(broker: Node) -> None:
    """The attempt ends at its own limit; the client is ready when descriptors are free again."""
    client = amqp.Client(broker.url_for(query="stack_timeout=0.5"), **QUICK)
    await client.wait_for(State.READY, 30)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        client.connection.abort() if client.connection else None
        while True:
            try:
                taken.append(socket.socket())
            except OSError:
                break
        await client.wait_for(State.CLOSED, 30)
        assert client.recovers
    finally:
        for one in taken:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await asyncio.wait_for(client.publish("amq.topic", "key", b"", timeout=30), 30)
    await client.shutdown()


@pytest.mark.fault(28)
async def test_no_threads(broker: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a thread for the look-up, the attempt fails; the client is ready when there is one again."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        client = amqp.Client(broker.url, **QUICK)
        await client.wait_for(State.CLOSED, 30)
        assert client.recovers and "can't start new thread" in client.condition
    await asyncio.wait_for(client.publish("amq.topic", "key", b"", timeout=30), 30)
    await client.shutdown()


@pytest.mark.fault(29)
async def test_broker_out_of_descriptors(node: Node) -> None:
    """RabbitMQ accepts no connection; the client keeps trying until it does.

    From 4.0 on, RabbitMQ's memory monitor does not survive this: restart the node.
    """
    others = [amqp.Client(node.url, **QUICK) for _ in range(5)]
    await asyncio.gather(*(other.wait_for(State.READY, 30) for other in others))
    async with node.without_descriptors():
        client = amqp.Client(node.url_for(query="stack_timeout=1&socket_timeout=1"), **QUICK)
        waiting = client.publish("amq.topic", "key", b"")
        await client.wait_for(State.CLOSED, 30)
        assert client.recovers
    await asyncio.wait_for(waiting, 60)
    # What is open stays.
    assert {other.counters.reconnects for other in others} == {0}
    await asyncio.gather(*(each.shutdown() for each in (client, *others)))
