"""The outbox: how fast it stores and drains, and how long the loop stood still: `python -m benchmarks.outbox`.

Storing is compared with SQLite's own `executemany` of the same rows with the same durability on the same disk, draining
with publishing the same messages; each pair in turn, in one run, and medians of the ratios count.
"""

import asyncio
import contextlib
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import sprockets_amqp as amqp
from tools.rabbitmq import Node

ROUNDS: Final = 5
MESSAGES: Final = 20_000
#: How many publish at a time, and how many rows are inserted in a transaction.
AT_ONCE: Final = 1000
BODY: Final = b"x" * 1000
QUEUE: Final = "benchmark-outbox"
NOBODY: Final = "amqp://127.0.0.1:2"
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


async def publish(client: amqp.Client) -> float:
    """Publish all of them; returns the seconds until the last has ended."""

    async def one_after_the_other() -> None:
        for _ in range(MESSAGES // AT_ONCE):
            await client.publish("", QUEUE, BODY, PROPERTIES)

    began = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
    return time.perf_counter() - began


async def stored(folder: str) -> float:
    """Store them, for nobody is there; returns the seconds."""
    client = amqp.Client(NOBODY, outbox=folder, **SETTINGS)
    seconds = await publish(client)
    await client.shutdown()
    return seconds


def inserted(folder: str) -> float:
    """Have SQLite insert the same octets; returns the seconds."""
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
    """Have what is stored in a folder sent; returns the seconds from ready until nothing is stored."""
    client = amqp.Client(node.url, outbox=folder, **SETTINGS)
    await client.wait_for(amqp.State.READY, 30)
    began = time.perf_counter()
    await client.flush(300)
    seconds = time.perf_counter() - began
    await client.shutdown()
    return seconds


async def published(node: Node) -> float:
    """Publish them to a client that is ready; returns the seconds."""
    client = amqp.Client(node.url)
    await client.wait_for(amqp.State.READY, 30)
    seconds = await publish(client)
    await client.shutdown()
    return seconds


async def main() -> None:
    """Print what was measured."""
    storing, draining, stood = [], [], []
    async with Node() as node:
        await node.ctl("eval", "ok.")
        setup = amqp.Client(node.url, setup=lambda topology: topology.queue_declare(QUEUE, durable=True))
        await setup.wait_for(amqp.State.READY, 30)
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory(dir=".") as folder, standstill() as longest:
                seconds = await stored(folder)
                storing.append(await asyncio.to_thread(inserted, folder) / seconds)
                drain = await drained(node, folder)
                stood.append(longest[0])
            await node.ctl("purge_queue", QUEUE)
            plain = await published(node)
            draining.append(plain / drain)
            await node.ctl("purge_queue", QUEUE)
            rates = zip(("stored", "drained", "published"), (seconds, drain, plain), strict=True)
            print(", ".join(f"{name} {MESSAGES / each:,.0f}/s" for name, each in rates))
        await setup.shutdown()
    print(f"storing: {statistics.median(storing):.2f} of executemany's rate")
    print(f"draining: {statistics.median(draining):.2f} of publishing's rate")
    print(f"the loop stood still for at most {max(stood) * 1000:.0f} ms")


if __name__ == "__main__":
    asyncio.run(main())
