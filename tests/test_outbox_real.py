"""The outbox on a real RabbitMQ: processes and brokers that are killed at random moments lose nothing."""

import asyncio
import collections
import contextlib
import logging
import os
import random
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

import sprockets_amqp as amqp
from sprockets_amqp.cli import main
from sprockets_amqp.outbox.sqlite.file import OutboxFile
from sprockets_amqp.outbox.sqlite.folder import files
from sprockets_amqp.outbox.store import unpack
from tests.support.consume import on_channel
from tests.support.lives import Lives
from tools.history import CONFIRMED, check
from tools.rabbitmq import Node

LOGGER = logging.getLogger(__name__)

#: How often the process and the broker are killed; an hour of `make soak` has more.
PROCESS_KILLS = int(os.environ.get("OUTBOX_PROCESS_KILLS", "4"))
BROKER_KILLS = int(os.environ.get("OUTBOX_BROKER_KILLS", "1"))
#: How many messages a process publishes a second.
RATE = 500

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
        print(name, "published", flush=True)
        future = client.publish("", queue, name, {"message_id": name, "delivery_mode": 2})
        future.add_done_callback(lambda future, name=name: tell(name, future))
        until += 1 / rate
        await asyncio.sleep(until - loop.time())
    await client.flush(60)
    print("flushed all", flush=True)
    await client.shutdown()

asyncio.run(main())
"""


class Publishing(Lives):
    """The program, and how each of its publishes has ended.

    Attributes:
        ended: the ids of publishes that ended with None or STORED, and which of both.
    """

    def __init__(self, node: Node, folder: Path, queue: str) -> None:
        super().__init__(PUBLISHER, node.url, str(folder), queue)
        self.ended: dict[str, str] = {}

    def note(self, words: list[str]) -> None:
        """Note a line."""
        name, ended = words
        if ended == "published":
            self.history.published(name)
            return
        if name != "flushed":
            self.history.ended(name, CONFIRMED if ended == "None" else ended)
        self.ended[name] = ended
        self.count(ended)


def some() -> int:
    """Choose how many messages flow before something happens: often few, sometimes many."""
    return int(10 ** random.uniform(0, 2.8))


async def kill_processes(publishing: Publishing, others: "asyncio.Task[None]") -> None:
    """Kill one after the other; the last one when the others are done, too."""
    for kill in range(PROCESS_KILLS):
        task = asyncio.create_task(publishing.run(RATE))
        await publishing.more(some())
        if kill == PROCESS_KILLS - 1:
            await others
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def kill_brokers(publishing: Publishing, node: Node) -> None:
    """Kill the broker again and again, and start it when messages were stored meanwhile."""
    for _ in range(BROKER_KILLS):
        await publishing.more(some())
        await node.kill()
        await publishing.more(some(), amqp.STORED)
        await node.start()


async def test_killed_processes_and_brokers_lose_nothing(node: Node, tmp_path: Path) -> None:
    """Each id whose publish ended with None or STORED is in the queue after the last start; some are there twice."""
    queue = f"outbox-{uuid.uuid4().hex}"
    await on_channel(node.url, lambda channel: channel.queue_declare(queue, durable=True))
    await node.store_definitions()
    publishing = Publishing(node, tmp_path, queue)
    began = time.monotonic()
    await kill_processes(publishing, asyncio.create_task(kill_brokers(publishing, node)))
    seconds = time.monotonic() - began
    told = publishing.ended.keys() - {"flushed"}
    assert publishing.told[amqp.STORED]
    await publishing.run(0)
    assert publishing.ended.pop("flushed") == "all"
    taken = await on_channel(node.url, lambda channel: _take(channel, queue))
    for name in taken:
        publishing.history.delivered(name)
    assert check(publishing.history) == []
    arrived = collections.Counter(taken)
    LOGGER.info(
        "%d told within %.0f s, %d of them stored; %d arrived, %d twice; %d missing",
        len(told),
        seconds,
        publishing.told[amqp.STORED],
        arrived.total(),
        arrived.total() - len(arrived),
        len(told - arrived.keys()),
    )
    assert told <= arrived.keys()
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


async def test_what_is_stored_when_the_folder_is_deleted_arrives(broker: Node, tmp_path: Path) -> None:
    """And what is stored after that, behind it; the next process could find all of it."""
    queue = f"outbox-{uuid.uuid4().hex}"
    await on_channel(broker.url, lambda channel: channel.queue_declare(queue, durable=True))
    folder, urls = tmp_path / "events", ["amqp://127.0.0.1:2"]
    folder.mkdir()
    client = amqp.Client(lambda: urls[-1], outbox=folder, timeout=0, reconnect_delay=0.1, max_reconnect_delay=0.3)
    names = [f"m{number}" for number in range(6)]
    for name in names:
        if name == "m3":
            shutil.rmtree(folder)
            folder.mkdir()
        assert await client.publish("", queue, b"", {"message_id": name}) is amqp.STORED
    (path,) = files(folder)
    with contextlib.closing(OutboxFile(path, create=False)) as file:
        assert [unpack(row.message)[1].message_id for row in file.rows()] == names
    urls.append(broker.url)
    await client.flush(30)
    assert await on_channel(broker.url, lambda channel: _take(channel, queue)) == names
    await client.shutdown()
    await on_channel(broker.url, lambda channel: channel.queue_delete(queue))


async def test_what_rabbitmq_refuses_is_set_aside_and_sent_when_somebody_asks_for_it(
    broker: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exchange does not exist: RabbitMQ's words are kept, others go out, and with the exchange it does, too."""
    exchange = f"outbox-{uuid.uuid4().hex}"
    client = amqp.Client("amqp://127.0.0.1:2", outbox=tmp_path, timeout=0)
    await client.publish(exchange, "key", b"", {"message_id": "refused"})
    await client.publish("amq.topic", "key", b"", {"message_id": "good"})
    await client.shutdown()
    async with amqp.Client(broker.url, outbox=tmp_path) as client:
        await client.flush(30)
        assert (client.counters.stored, client.counters.set_aside, client.counters.confirmed) == (0, 1, 1)
    assert await asyncio.to_thread(main, ["outbox", "list", str(tmp_path)]) == 0
    assert f"NOT_FOUND - no exchange '{exchange}'" in capsys.readouterr().out
    await on_channel(broker.url, lambda channel: channel.exchange_declare(exchange, "topic", auto_delete=True))
    assert await asyncio.to_thread(main, ["outbox", "retry", str(tmp_path)]) == 0
    async with amqp.Client(broker.url, outbox=tmp_path) as client:
        await client.flush(30)
        assert (client.counters.stored, client.counters.set_aside, client.counters.confirmed) == (0, 0, 1)
    await on_channel(broker.url, lambda channel: channel.exchange_delete(exchange))


async def test_what_a_full_queue_nacks_is_delivered_when_there_is_room(broker: Node, tmp_path: Path) -> None:
    """It is tried again with back-off; messages to other queues go out meanwhile."""
    queue = f"outbox-{uuid.uuid4().hex}"
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    await on_channel(broker.url, lambda channel: channel.queue_declare(queue, arguments=limits))
    client = amqp.Client("amqp://127.0.0.1:2", outbox=tmp_path, timeout=0)
    for name in ("first", "second"):
        await client.publish("", queue, b"", {"message_id": name})
    await client.shutdown()
    async with amqp.Client(broker.url, outbox=tmp_path) as client:
        with pytest.raises(TimeoutError):
            await client.flush(2)
        assert client.counters.stored == 1
        assert await client.publish("amq.topic", "key", b"") is None
        arrived = await on_channel(broker.url, lambda channel: _take(channel, queue))
        await client.flush(30)
    arrived += await on_channel(broker.url, lambda channel: _take(channel, queue))
    assert arrived == ["first", "second"]
    await on_channel(broker.url, lambda channel: channel.queue_delete(queue))
