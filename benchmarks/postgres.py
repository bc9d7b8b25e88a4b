"""The outbox in PostgreSQL, against what it is made of: ``python -m benchmarks.postgres [--million]``.

Storing is compared with psycopg's `executemany` of rows of the same size, a message in a transaction with the plain
insert of a row, draining with publishing. Each pair is measured in turn, on one server; medians count. A million
messages are stored and drained to see what becomes of the table.
"""

import asyncio
import logging
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import psycopg

import sprockets_amqp as amqp
from benchmarks.outbox import AT_ONCE, BODY, MESSAGES, PROPERTIES, QUEUE, ROUNDS, drained, published, stored
from benchmarks.results import Check
from sprockets_amqp.outbox.postgres.table import TABLE
from tests.support.consume import _channel
from tools.postgres import Server
from tools.rabbitmq import Node

#: How many transactions are timed in a round, and how many messages from their commit to the queue.
TRANSACTIONS: Final = 2000
NOTIFIED: Final = 1000
MILLION: Final = 1_000_000
PLAIN: Final = "CREATE TABLE IF NOT EXISTS plain (number bigint PRIMARY KEY, message bytea, checksum bigint)"


def inserted(database: str) -> float:
    """Have psycopg insert as many octets, as many at a time; returns the seconds."""
    octets = amqp.outbox_insert("", QUEUE, BODY, PROPERTIES).message
    with psycopg.connect(database) as connection:
        connection.execute(PLAIN)
        connection.execute("TRUNCATE plain")
        connection.commit()
        began = time.perf_counter()
        for first in range(0, MESSAGES, AT_ONCE):
            rows = [(first + number, octets, 4711) for number in range(AT_ONCE)]
            connection.cursor().executemany("INSERT INTO plain VALUES (%s, %b, %s)", rows)
            connection.commit()
        return time.perf_counter() - began


def transacted(database: str) -> float:
    """Store messages in transactions, and insert plain rows, in turn; returns the ratio of the median times."""
    times: dict[bool, list[float]] = {True: [], False: []}
    with psycopg.connect(database) as connection:
        connection.execute(PLAIN)
        connection.execute("TRUNCATE plain")
        connection.commit()
        for number in range(2 * TRANSACTIONS):
            insert = amqp.outbox_insert("", QUEUE, BODY, PROPERTIES)
            is_plain = bool(number % 2)
            began = time.perf_counter()
            if is_plain:
                row = (number, insert.message, insert.checksum)
                connection.execute("INSERT INTO plain VALUES (%s, %s, %s)", row)
            else:
                connection.execute(*insert.psycopg)
            connection.commit()
            times[is_plain].append(time.perf_counter() - began)
        connection.execute(f"DELETE FROM {TABLE}")  # noqa: S608 - it is a constant
    return statistics.median(times[False]) / statistics.median(times[True])


async def notified(node: Node, database: str) -> list[float]:
    """Return the milliseconds from the commit of each of some transactions until its message is consumed."""
    sent: dict[str, float] = {}
    found: list[float] = []

    def consume() -> None:
        with _channel(node.url) as channel:
            for method, properties, _ in channel.consume(QUEUE, auto_ack=True, inactivity_timeout=30):
                if method is None or properties is None:
                    break
                found.append(1000 * (time.perf_counter() - sent[str(properties.message_id)]))
                if len(found) == NOTIFIED:
                    break
            channel.cancel()

    async with amqp.Client(node.url, outbox=database) as client:
        await client.wait_for(amqp.State.READY, 30)
        with ThreadPoolExecutor(1) as pool:
            consuming = asyncio.get_running_loop().run_in_executor(pool, consume)
            async with await psycopg.AsyncConnection.connect(database) as connection:
                for _ in range(NOTIFIED):
                    insert = amqp.outbox_insert("", QUEUE, BODY, PROPERTIES)
                    await connection.execute(*insert.psycopg)
                    await connection.commit()
                    sent[str(insert.message_id)] = time.perf_counter()
                    await asyncio.sleep(0.01)
            await consuming
    return found


async def run(node: Node) -> list[Check]:
    """Measure on a running broker, and a server of its own."""
    logging.getLogger("sprockets_amqp").setLevel(logging.ERROR)
    setup = amqp.Client(node.url, setup=lambda topology: topology.queue_declare(QUEUE, durable=True))
    await setup.wait_for(amqp.State.READY, 30)
    rounds = []
    async with Server() as server:
        database = await server.outbox()
        for _ in range(ROUNDS):
            storing = await stored(database)
            inserting = await asyncio.to_thread(inserted, database)
            draining = await drained(node, database)
            await node.ctl("purge_queue", QUEUE)
            publishing = await published(node)
            await node.ctl("purge_queue", QUEUE)
            transaction = await asyncio.to_thread(transacted, database)
            rounds.append((inserting / storing, publishing / draining, transaction))
        times = sorted(await notified(node, database))
    await node.ctl("delete_queue", QUEUE)
    await setup.shutdown()
    storing, draining, transaction = (statistics.median(each) for each in zip(*rounds, strict=True))
    half, most = times[len(times) // 2], times[len(times) * 99 // 100]
    return [
        Check("storing in PostgreSQL: messages a second, over executemany", "at least 0.5", f"{storing:.2f}"),
        Check("a message in a transaction: seconds, over a plain row's", "at most 1.2", f"{transaction:.2f}"),
        Check("draining PostgreSQL: messages a second, over publishing", "at least 0.6", f"{draining:.2f}"),
        Check("from a commit in PostgreSQL to the consumer: half, and 99 %", "-", f"{half:.1f} ms, {most:.1f} ms"),
    ]


async def million(node: Node) -> None:
    """Store a million messages, drain them, and print how large the table is meanwhile."""
    logging.getLogger("sprockets_amqp").setLevel(logging.ERROR)
    # The queue is not what is measured: it keeps the last messages.
    arguments: dict[str, Any] = {"x-max-length": 1000}
    setup = amqp.Client(
        node.url, setup=lambda topology: topology.queue_declare(QUEUE, durable=True, arguments=arguments)
    )
    await setup.wait_for(amqp.State.READY, 30)
    async with Server(config={"autovacuum_naptime": "15"}) as server:
        database = await server.outbox()
        insert = amqp.outbox_insert("", QUEUE, BODY[:300], PROPERTIES)
        row = f"INSERT INTO {TABLE} (name, box, message, checksum) SELECT 'amqp', 0, %s, %s FROM generate_series(1, %s)"  # noqa: S608
        await server.sql(row, insert.message, insert.checksum, MILLION, database=database[-19:])
        await _tell_size(server, database, "stored")
        client = amqp.Client(node.url, outbox=database, max_unconfirmed=1000)
        await client.wait_for(amqp.State.READY, 30)
        began, told = time.perf_counter(), 0
        flushing = asyncio.ensure_future(client.flush(3600))
        while not flushing.done():
            await asyncio.wait([flushing], timeout=1)
            if client.counters.confirmed - told >= MILLION // 10:
                confirmed, now = client.counters.confirmed, time.perf_counter()
                print(f"{confirmed:,} confirmed, {(confirmed - told) / (now - began):.0f} a second")
                began, told = now, confirmed
                await _tell_size(server, database, "meanwhile")
        await _tell_size(server, database, "drained")
        await asyncio.sleep(20)
        await _tell_size(server, database, "vacuumed")
        await client.shutdown()
    await setup.shutdown()


async def _tell_size(server: Server, database: str, when: str) -> None:
    sizes = "pg_table_size(c.oid) / 1048576, pg_indexes_size(c.oid) / 1048576, n_dead_tup, autovacuum_count"
    tables = f"pg_class AS c JOIN pg_stat_user_tables AS s ON s.relid = c.oid WHERE c.oid = '{TABLE}'::regclass"
    ((table, index, dead, vacuums),) = await server.sql(f"SELECT {sizes} FROM {tables}", database=database[-19:])  # noqa: S608
    print(f"{when}: table {table} MiB, index {index} MiB, {dead:,} dead rows, vacuumed {vacuums} times", flush=True)


async def main() -> None:
    """Print what was measured."""
    async with Node() as node:
        if "--million" in sys.argv:
            await million(node)
            return
        for check in await run(node):
            print(f"{check.what} ({check.goal}): {check.value}")


if __name__ == "__main__":
    asyncio.run(main())
