"""The examples of what hooks are good for, on a real broker."""

import asyncio
import os
import signal
import sys
from typing import Any

import pytest

from examples.outage_alert import watch
from examples.pause_intake import Intake
from sprockets_amqp import Client, State
from tests.support.consume import declare_queue
from tests.support.waiting import until
from tools.rabbitmq import Node

QUICK: dict[str, Any] = {"reconnect_delay": 0.2, "max_reconnect_delay": 0.5}


async def test_the_alert_comes_once_in_an_outage_and_again_when_it_is_over(node: Node) -> None:
    """Attempts to connect in between neither delay nor repeat it; an outage that is short is not told."""
    alerts: asyncio.Queue[str] = asyncio.Queue()
    client = Client(node.url, **QUICK)
    await client.wait_for(State.READY, 30)
    watching = asyncio.create_task(watch(client, alerts.put_nowait, after=3))
    for _ in range(2):
        await node.ctl("close_all_connections", "a short outage")
        await client.wait_for(State.READY, 30)
        await node.ctl("suspend_listeners")
        await node.ctl("close_all_connections", "a long outage")
        alert = await asyncio.wait_for(alerts.get(), 60)
        assert alert.startswith("RabbitMQ has taken no messages for 3 s: connection is C")
        failed = asyncio.Event()
        client.subscribe(lambda _change: failed.set(), [State.CLOSED])  # noqa: B023 - each round has its own
        await failed.wait()
        assert alerts.empty()
        await node.repair()
        assert await asyncio.wait_for(alerts.get(), 60) == "RabbitMQ takes messages again"
    watching.cancel()
    await client.shutdown()


async def test_the_intake_pauses_while_rabbitmq_blocks(node: Node) -> None:
    """Devices wait, and no event of theirs is lost."""
    queue = await declare_queue(node.url)
    client = Client(node.url, timeout=60, **QUICK)
    await client.wait_for(State.READY, 30)
    intake = Intake(client, queue.exchange, queue.routing_key)
    server = await intake.listen(port=0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        await node.ctl("set_vm_memory_high_watermark", "0")
        writer.write(b"first\n")
        await client.wait_for(State.BLOCKED, 30)
        while not intake.paused:
            await asyncio.sleep(0)
        [transport] = intake.transports
        assert not transport.is_reading()
        writer.write(b"second\nthird\n")
        await writer.drain()
        # Time enough for the loop to read them, if it did.
        await node.ctl("list_connections")
        assert client.waiting + client.unconfirmed == 1
        await node.ctl("set_vm_memory_high_watermark", "0.4")
        await client.wait_for(State.READY, 30)
        await until(lambda: client.counters.confirmed == 3)
        assert transport.is_reading()
        assert [message.body for message in await queue.messages()] == [b"first", b"second", b"third"]
    finally:
        writer.close()
        await writer.wait_closed()
        server.close()
        await client.shutdown()
        await queue.delete()


@pytest.mark.parametrize("name", ["observed", "outage_alert", "pause_intake"])
async def test_each_example_runs_by_itself_until_ctrl_c(broker: Node, name: str) -> None:
    """As its first lines say, and leaves nothing unclosed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "always::ResourceWarning", "-m", f"examples.{name}"),
        env={**os.environ, "AMQP_URL": broker.url, "PORT": "0", "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        printed = [(await process.stdout.readline()).decode() for _ in range(2)]
        assert "State.READY" in printed[1]
        process.send_signal(signal.SIGINT)
        rest, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            # It has a port that is fixed, which the next test could not have.
            process.kill()
            await process.wait()
    assert (process.returncode, err) == (0, b"")
    assert "State.CLOSED" in rest.decode().splitlines()[-1]
