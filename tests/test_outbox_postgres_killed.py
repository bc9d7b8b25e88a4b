"""The outbox in PostgreSQL: processes, RabbitMQ and PostgreSQL are killed at random moments, and nothing is lost."""

import asyncio
import collections
import logging
import os
import random
import time
import uuid
from typing import Any

from tests.support.consume import on_channel
from tests.support.lives import Lives
from tests.test_outbox_real import _take
from tools.history import CONFIRMED, STORED, UNKNOWN, UNSENT, check
from tools.postgres import Server
from tools.rabbitmq import Node

LOGGER = logging.getLogger(__name__)

#: How often a process, RabbitMQ and PostgreSQL are killed.
PROCESS_KILLS = int(os.environ.get("OUTBOX_PROCESS_KILLS", "5"))
BROKER_KILLS = int(os.environ.get("OUTBOX_BROKER_KILLS", "1"))
POSTGRES_KILLS = int(os.environ.get("OUTBOX_POSTGRES_KILLS", "1"))
#: How many messages the processes publish in a second, together; a third of them in transactions.
PROCESSES, RATE = 3, 500

#: What a publish tells, in the words of a history.
OUTCOMES = {"None": CONFIRMED, "stored": STORED, "NotReadyError": UNSENT, "OutcomeUnknown": UNKNOWN}

PUBLISHER = """
import asyncio, random, sys, uuid
import psycopg
import sprockets_amqp as amqp

url, database, queue, rate = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])

def tell(name, future):
    error = future.exception()
    print(name, type(error).__name__ if error is not None else future.result(), flush=True)

async def connected():
    while True:
        try:
            return await psycopg.AsyncConnection.connect(database)
        except psycopg.OperationalError:
            await asyncio.sleep(0.05)

async def transact(connection):
    names = [uuid.uuid4().hex for _ in range(2)]
    print("transaction", *names, flush=True)
    try:
        for name in names:
            await connection.execute("INSERT INTO orders VALUES (%s)", (name,))
            insert = amqp.outbox_insert("", queue, name, {"message_id": name, "delivery_mode": 2})
            await connection.execute(*insert.psycopg)
        if random.random() < 0.2:
            await connection.rollback()
        else:
            await connection.commit()
            print(names[0], "committed", flush=True)
            print(names[1], "committed", flush=True)
    except psycopg.OperationalError:
        await connection.close()
        return await connected()
    return connection

async def transactions():
    connection, loop = await connected(), asyncio.get_running_loop()
    until = loop.time()
    while rate:
        connection = await transact(connection)
        until += 6 / rate
        await asyncio.sleep(until - loop.time())
    await connection.close()

async def publishes(client):
    loop = asyncio.get_running_loop()
    until = loop.time()
    while rate:
        name = uuid.uuid4().hex
        print(name, "published", flush=True)
        future = client.publish("", queue, name, {"message_id": name, "delivery_mode": 2})
        future.add_done_callback(lambda future, name=name: tell(name, future))
        until += 1.5 / rate
        await asyncio.sleep(until - loop.time())

async def main():
    client = amqp.Client(url, outbox=database, timeout=0.2, reconnect_delay=0.1, max_reconnect_delay=0.3)
    await asyncio.gather(transactions(), publishes(client))
    # What is common is counted when it is read.
    connection = await connected()
    await connection.set_autocommit(True)
    while (await (await connection.execute("SELECT count(*) FROM sprockets_amqp_outbox")).fetchone())[0]:
        await asyncio.sleep(0.1)
    await connection.close()
    await client.shutdown()

asyncio.run(main())
"""


class Publishing(Lives):
    """The program, and its transactions.

    Attributes:
        transactions: the names in each of its transactions.
        committed: those of which it was told that they are.
    """

    def __init__(self, node: Node, database: str, queue: str) -> None:
        super().__init__(PUBLISHER, node.url, database, queue)
        self.transactions: list[list[str]] = []
        self.committed: set[str] = set()

    def note(self, words: list[str]) -> None:
        """Note a line."""
        first, *others = words
        if first == "transaction":
            self.transactions.append(others)
        elif others == ["committed"]:
            self.committed.add(first)
            self.count("committed")
        elif others == ["published"]:
            self.history.published(first, f"{self.life}")
        else:
            self.history.ended(first, OUTCOMES[others[0]])
            self.count(OUTCOMES[others[0]])


def some() -> int:
    """Choose how many messages flow before something happens: often few, sometimes many."""
    return int(10 ** random.uniform(0, 2.4))


async def kill_processes(all_: list[Publishing], others: "asyncio.Future[Any]") -> None:
    """Kill one or another; all of them when the others are done, too."""
    running = [asyncio.create_task(each.run(RATE / PROCESSES)) for each in all_]
    for _ in range(PROCESS_KILLS - PROCESSES):
        which = random.randrange(PROCESSES)
        await all_[which].more(some(), random.choice((CONFIRMED, "committed")))
        running[which].cancel()
        await asyncio.gather(running[which], return_exceptions=True)
        running[which] = asyncio.create_task(all_[which].run(RATE / PROCESSES))
    await others
    for each in running:
        each.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def kill_brokers(publishing: Publishing, node: Node) -> None:
    """Kill RabbitMQ again and again, and start it when messages were stored meanwhile."""
    for _ in range(BROKER_KILLS):
        await publishing.more(some(), CONFIRMED)
        await node.kill()
        await publishing.more(some(), STORED)
        await node.start()


async def kill_servers(publishing: Publishing, server: Server) -> None:
    """Kill PostgreSQL again and again, whatever RabbitMQ does."""
    for _ in range(POSTGRES_KILLS):
        await publishing.more(some(), "committed")
        await server.kill()
        await server.start()


async def test_what_was_committed_stored_or_confirmed_arrives_and_what_was_rolled_back_does_not(
    node: Node, server: Server
) -> None:
    """Whoever is killed; each box keeps its order, and so does each transaction."""
    database, queue = await server.outbox(), f"outbox-{uuid.uuid4().hex}"
    await server.sql("CREATE TABLE orders (name text)", database=database[-19:])
    await on_channel(node.url, lambda channel: channel.queue_declare(queue, durable=True))
    await node.store_definitions()
    processes = [Publishing(node, database, queue) for _ in range(PROCESSES)]
    began = time.monotonic()
    others = asyncio.gather(kill_brokers(processes[0], node), kill_servers(processes[1], server))
    await kill_processes(processes, others)
    seconds = time.monotonic() - began
    await asyncio.wait_for(Publishing(node, database, queue).run(0), 120)
    assert await server.sql("SELECT * FROM sprockets_amqp_outbox", database=database[-19:]) == []
    taken = await on_channel(node.url, lambda channel: _take(channel, queue))
    orders = {name for (name,) in await server.sql("SELECT name FROM orders", database=database[-19:])}
    problems = []
    for each in processes:
        transacted = {name for names in each.transactions for name in names}
        assert each.committed <= orders
        for number, names in enumerate(each.transactions):
            for name in names:
                each.history.published(name, f"transaction {number}")
                each.history.ended(name, STORED if name in orders else UNSENT)
        known = transacted | {name for what, name, _ in each.history.events if what == "published"}
        for name in taken:
            if name in known:
                each.history.delivered(name)
        problems += check(each.history)
    assert problems == []
    told = sum((each.told for each in processes), collections.Counter())
    LOGGER.info(
        "%d in %.0f s, %s; %d arrived, %d twice; %d committed, of which nobody was told of %d; %d rolled back",
        sum(told.values()),
        seconds,
        dict(told),
        len(taken),
        len(taken) - len(set(taken)),
        len(orders),
        len(orders - set().union(*(each.committed for each in processes))),
        sum(len(each.transactions) for each in processes) * 2 - len(orders),
    )
    assert told[STORED]
    assert told["committed"]
    await on_channel(node.url, lambda channel: channel.queue_delete(queue))
