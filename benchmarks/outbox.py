"""The outbox: how fast it stores and drains, and for how long the loop stands still: ``python -m benchmarks.outbox``.

Storing is compared with SQLite's own `executemany` of rows of the same size with the same durability on the same disk,
draining with publishing the same messages. Each pair is measured in turn; medians count.
"""

import asyncio
import contextlib
import logging
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import sprockets_amqp as amqp
from benchmarks.results import Check
from tools.rabbitmq import Node

ROUNDS: Final = 5
MESSAGES: Final = 20_000
#: How many are stored and drained while the loop is watched.
MANY: Final = 100_000
#: How many publish at a time, and how many rows are inserted in a transaction.
AT_ONCE: Final = 1000
BODY: Final = b"x" * 1000
QUEUE: Final = "benchmark-outbox"
NOWHERE: Final = "amqp://127.0.0.1:2"
SETTINGS: Final[dict[str, Any]] = {"timeout": 0, "reconnect_delay": 0.05, "max_reconnect_delay": 0.1}
PROPERTIES: Final = {"content_type": "application/json", "delivery_mode": 2}


@contextlib.contextmanager
def standstill() -> Iterator[list[float]]:
    """Measure how long the loop stood still at most, in seconds, into the list that is yielded."""
    found = [0.0]

    async def watch() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            found[0], last = max(found[0], now - last - 0.001), now

    task = asyncio.get_running_loop().create_task(watch())
    try:
        yield found
    finally:
        task.cancel()


async def publish(client: amqp.Client, messages: int) -> float:
    """Publish so many; returns the seconds until the last has ended."""

    async def one_after_the_other() -> None:
        for _ in range(messages // AT_ONCE):
            await client.publish("", QUEUE, BODY, PROPERTIES)

    began = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
    return time.perf_counter() - began


async def stored(folder: str, messages: int = MESSAGES) -> float:
    """Store so many, with no RabbitMQ to send them to; returns the seconds."""
    client = amqp.Client(NOWHERE, outbox=folder, **SETTINGS)
    seconds = await publish(client, messages)
    await client.shutdown()
    return seconds


def inserted(folder: str) -> float:
    """Have SQLite insert as many octets; returns the seconds."""
    connection = sqlite3.connect(Path(folder, "plain"), isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE messages (number INTEGER PRIMARY KEY, method BLOB, properties BLOB, body BLOB)")
    began = time.perf_counter()
    for first in range(0, MESSAGES, AT_ONCE):
        connection.execute("BEGIN IMMEDIATE")
        rows = [(first + number, b"m" * 40, b"p" * 80, BODY) for number in range(AT_ONCE)]
        connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
    seconds = time.perf_counter() - began
    connection.close()
    return seconds


async def drained(node: Node, folder: str) -> float:
    """Let what is stored in a folder be sent; returns the seconds from ready until nothing is stored."""
    client = amqp.Client(node.url, outbox=folder, **SETTINGS)
    await client.wait_for(amqp.State.READY, 30)
    began = time.perf_counter()
    await client.flush(300)
    seconds = time.perf_counter() - began
    await client.shutdown()
    return seconds


async def published(node: Node) -> float:
    """Publish as many while the client is ready; returns the seconds."""
    client = amqp.Client(node.url)
    await client.wait_for(amqp.State.READY, 30)
    seconds = await publish(client, MESSAGES)
    await client.shutdown()
    return seconds


async def run(node: Node) -> list[Check]:
    """Measure on a running broker."""
    # Each of these clients warns that it is not ready.
    logging.getLogger("sprockets_amqp").setLevel(logging.ERROR)
    setup = amqp.Client(node.url, setup=lambda topology: topology.queue_declare(QUEUE, durable=True))
    await setup.wait_for(amqp.State.READY, 30)
    rounds = [await _round(node) for _ in range(ROUNDS)]
    with tempfile.TemporaryDirectory(dir=".") as folder, standstill() as longest:
        await stored(folder, MANY)
        await drained(node, folder)
    await node.ctl("delete_queue", QUEUE)
    await setup.shutdown()
    storing, draining, loop, thread, sqlite = (statistics.median(each) for each in zip(*rounds, strict=True))
    return [
        Check("storing in the outbox: messages a second, over SQLite's executemany", "at least 0.5", f"{storing:.2f}"),
        Check(
            "processor time for it: on the loop, in the thread (both need Python's lock); executemany's",
            "-",
            f"{loop:.0f} + {thread:.0f} µs; {sqlite:.0f} µs",
        ),
        Check("draining the outbox: messages a second, over publishing", "at least 0.8", f"{draining:.2f}"),
        Check(
            f"the loop's longest standstill while {MANY:,} messages are stored, {AT_ONCE:,} at once, and drained",
            "-",
            f"{longest[0] * 1000:.0f} ms",
        ),
    ]


async def _round(node: Node) -> tuple[float, ...]:
    """Return the two ratios, and the µs of processor time for a message: the loop's, the thread's, and SQLite's."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        loop, both = time.thread_time(), time.process_time()
        storing = await stored(folder)
        loop, both = time.thread_time() - loop, time.process_time() - both
        sqlite = time.process_time()
        inserting = await asyncio.to_thread(inserted, folder)
        sqlite = time.process_time() - sqlite
        draining = await drained(node, folder)
    await node.ctl("purge_queue", QUEUE)
    publishing = await published(node)
    await node.ctl("purge_queue", QUEUE)
    spent = (each / MESSAGES * 1e6 for each in (loop, both - loop, sqlite))
    return inserting / storing, publishing / draining, *spent


async def main() -> None:
    """Print what was measured."""
    async with Node() as node:
        await node.ctl("eval", "ok.")
        for check in await run(node):
            print(f"{check.what} ({check.goal}): {check.value}")


if __name__ == "__main__":
    asyncio.run(main())
