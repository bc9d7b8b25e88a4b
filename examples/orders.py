"""Orders and their events, in two processes: each exists exactly if the other does.

One process stores an order and its event in one transaction of its own; it knows nothing of RabbitMQ. The other sends
the events. DATABASE_URL is a database in PostgreSQL, and AMQP_URL says where RabbitMQ is.

    sprockets-amqp outbox migrate "$DATABASE_URL"
    python -m examples.orders send &
    python -m examples.orders place "a book" "" "a pen"
"""

import asyncio
import json
import os
import signal
import sys
import uuid

import psycopg

from sprockets_amqp import Client, outbox_insert

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2f")
DATABASE_URL = os.environ.get("DATABASE_URL", "postgresql:///shop")


async def place(article: str) -> str:
    """Store an order and its event, or neither; return the order's name."""
    order = str(uuid.uuid4())
    event = json.dumps({"order": order, "article": article})
    insert = outbox_insert("amq.topic", "order.placed", event, {"message_id": order, "delivery_mode": 2})
    async with await psycopg.AsyncConnection.connect(DATABASE_URL) as connection:
        # The constraint is checked behind the event: whatever fails takes both back.
        await connection.execute("CREATE TABLE IF NOT EXISTS orders (name text, article text CHECK (article <> ''))")
        await connection.execute(*insert.psycopg)
        await connection.execute("INSERT INTO orders VALUES (%s, %s)", (order, article))
    return order


async def place_all(articles: list[str]) -> None:
    """Place orders, and say what became of each."""
    for article in articles:
        try:
            print(f"placed {await place(article)}", flush=True)
        except psycopg.errors.CheckViolation:
            print(f"refused {article!r}", flush=True)


async def send() -> None:
    """Send events, until the process is stopped."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with Client(AMQP_URL, outbox=DATABASE_URL, on_return_callback=lambda *_: None):
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(send() if sys.argv[1] == "send" else place_all(sys.argv[2:]))
