"""The outbox on a real RabbitMQ: processes and brokers that are killed at random moments lose nothing."""

import asyncio
import collections
import logging
import os
import random
import sys
import uuid
from pathlib import Path
from typing import Any

import sprockets_amqp as amqp
from sprockets_amqp.delivery.outbox_folder import files
from tests.support.consume import on_channel
from tools.rabbitmq import Node

LOGGER = logging.getLogger(__name__)

#: How often the process and the broker are killed; an hour of `make soak` has more.
PROCESS_KILLS = int(os.environ.get("OUTBOX_PROCESS_KILLS", "4"))
BROKER_KILLS = int(os.environ.get("OUTBOX_BROKER_KILLS", "1"))

PUBLISHER = """
import asyncio, sys, uuid
import sprockets_amqp as amqp

url, folder, queue, rate = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])

def tell(name, future):
    if future.exception() is None:
        print(name, future.result(), flush=True)

async def main():
    client = amqp.Client(url, outbox=folder, timeout=0.2, reconnect_delay=0.1, max_reconnect_delay=0.3)
    loop = asyncio.get_running_loop()
    until = loop.time()
    while rate:
        name = uuid.uuid4().hex
        future = client.publish("", queue, name, {"message_id": name, "delivery_mode": 2})
        future.add_done_callback(lambda future, name=name: tell(name, future))
        until += 1 / rate
        await asyncio.sleep(until - loop.time())
    await client.flush(60)
    print("flushed", flush=True)
    await client.shutdown()

asyncio.run(main())
"""


async def publishing(node: Node, folder: Path, queue: str, rate: float, told: collections.Counter[str]) -> None:
    """Run a process that publishes, until somebody kills it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PUBLISHER, node.url, str(folder), queue, str(rate), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            told.update([line.decode().split()[0]] if line.endswith(b"\n") else [])
    finally:
        if process.returncode is None:
            process.kill()
        told.update(
            line.split()[0] for line in (await process.stdout.read()).decode().splitlines(keepends=True) if "\n" in line
        )
        await process.wait()


async def test_killed_processes_and_brokers_lose_nothing(node: Node, tmp_path: Path) -> None:
    """Each id whose publish ended with None or STORED is in the queue after the last start; some are there twice."""
    queue = f"outbox-{uuid.uuid4().hex}"
    await on_channel(node.url, lambda channel: channel.queue_declare(queue, durable=True))
    kills = ["process"] * PROCESS_KILLS + ["broker"] * BROKER_KILLS
    random.shuffle(kills)
    told: collections.Counter[str] = collections.Counter()
    task = asyncio.create_task(publishing(node, tmp_path, queue, 500, told))
    for kill in kills:
        # As long as a start takes, and a while in which messages flow.
        seen = len(told)
        async with asyncio.timeout(60):
            while len(told) < seen + random.randint(100, 600):
                await asyncio.sleep(0.02)
        if kill == "broker":
            await node.kill()
            seen = len(told)
            async with asyncio.timeout(60):
                while len(told) < seen + 200:
                    await asyncio.sleep(0.02)
            await node.start()
        else:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            task = asyncio.create_task(publishing(node, tmp_path, queue, 500, told))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await publishing(node, tmp_path, queue, 0, told)
    assert told.pop("flushed") == 1
    arrived = collections.Counter(await on_channel(node.url, lambda channel: _take(channel, queue)))
    missing = told.keys() - arrived.keys()
    duplicates = sum(arrived.values()) - len(arrived)
    LOGGER.info("%d told, %d duplicates, %d missing", len(told), duplicates, len(missing))
    assert not missing
    assert len(told) > 100 * len(kills)
    assert files(tmp_path) == []
    await on_channel(node.url, lambda channel: channel.queue_delete(queue))


def _take(channel: Any, queue: str) -> list[str]:
    found = []
    for method, properties, _body in channel.consume(queue, auto_ack=True, inactivity_timeout=2):
        if method is None:
            break
        found.append(str(properties.message_id))
    channel.cancel()
    return found


async def test_what_is_published_while_rabbitmq_is_down_arrives_in_order(node: Node, tmp_path: Path) -> None:
    """It ends with STORED, and is in the queue when RabbitMQ is back."""
    queue = f"outbox-{uuid.uuid4().hex}"
    await on_channel(node.url, lambda channel: channel.queue_declare(queue, durable=True))
    client = amqp.Client(node.url, outbox=tmp_path, timeout=0.2, reconnect_delay=0.1, max_reconnect_delay=0.3)
    await client.wait_for(amqp.State.READY, 30)
    await node.stop()
    names = [f"m{number}" for number in range(3000)]
    ended = await asyncio.gather(*(client.publish("", queue, b"", {"message_id": name}) for name in names))
    assert set(ended) == {amqp.STORED}
    await node.start()
    await client.flush(60)
    assert await on_channel(node.url, lambda channel: _take(channel, queue)) == names
    await client.shutdown()
    await on_channel(node.url, lambda channel: channel.queue_delete(queue))
