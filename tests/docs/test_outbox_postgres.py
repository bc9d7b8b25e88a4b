"""docs/outbox.md on PostgreSQL: its examples run on a real server, and its numbers are those of the code."""

import asyncio
import json
import os
import re
import shlex
import signal
import sys
import uuid

import psycopg
import pytest
from tornado.web import Application

import sprockets_amqp as amqp
from sprockets_amqp import cli
from sprockets_amqp.outbox.postgres import session, store, table
from sprockets_amqp.outbox.postgres.store import PostgresStore
from tests import test_outbox_postgres, test_outbox_postgres_killed
from tests.support.consume import Queue, on_channel
from tests.support.documents import SECONDS, Document
from tools.documents import ROOT
from tools.postgres import PASSWORD, Server
from tools.rabbitmq import Node

PAGE = Document("docs/outbox.md")


async def test_the_table_is_made_and_used_as_shown(postgres: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """By its owner, with the rights for another user, who is named in the URL of the setting."""
    database, user = await postgres.outbox(migrated=False), f"shop_{uuid.uuid4().hex[:8]}"
    name = database[-19:]
    await postgres.sql(f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'")
    install, migrate = PAGE.commands("In PostgreSQL")
    assert install == "pip install 'sprockets_amqp[postgres]'"
    _, *arguments, url = shlex.split(migrate)
    assert url == "postgresql://owner:password@db.example.org/shop"
    assert await asyncio.to_thread(cli.main, [*arguments, database]) == 0
    assert await asyncio.to_thread(cli.main, [*arguments, "--sql"]) == 0
    assert capsys.readouterr().out == f"{table.TABLE} was made with version 1\n{table.MIGRATIONS[1]}"
    (grant,) = re.findall(r"GRANT .*;", PAGE.block("In PostgreSQL", "sql"))
    await postgres.sql(grant.replace("shop", user), database=name)
    text = PAGE.block("In PostgreSQL", "python")
    own = postgres.url_for(user, database=name)
    application = Application()
    text = text.replace("postgresql://shop:password@db.example.org/shop", own)
    text = text.replace("(application", "(application, url='amqp://127.0.0.1:2', timeout=0")
    exec(text, {"application": application})  # noqa: S102 - it is this project's own
    client: amqp.Client = application.amqp  # type: ignore[attr-defined]
    assert await client.publish("", "q", b"") == amqp.STORED
    await client.shutdown(5)
    # What the page says of it, it does: the table's version is in its comment, and each client has a box.
    ((comment,),) = await postgres.sql(f"SELECT obj_description('{table.TABLE}'::regclass)", database=name)
    assert table.COMMENT.fullmatch(comment)
    assert "is in its comment" in " ".join(PAGE.section("In PostgreSQL").split())


async def test_an_order_and_its_event_are_stored_together_as_shown(postgres: Server, database: str) -> None:
    """Or neither."""
    name = database[-19:]
    await postgres.sql("CREATE TABLE orders (name text PRIMARY KEY, book text)", database=name)
    async with (
        PAGE.run("In your transaction") as names,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as connection,
    ):
        await names["place"](connection, "order-1", "a book")
        with pytest.raises(psycopg.errors.UniqueViolation):
            await names["place"](connection, "order-1", "another")
        await names["place"](connection, "order-2", "a book")
    sender = PostgresStore(database, "amqp")
    await sender.open()
    found = [record.message for _, record in await sender.read(10, 10**6, set())]
    await sender.close({})
    assert [name for name in (b"order-1", b"order-2") for each in found if name in each] == [b"order-1", b"order-2"]
    assert len(found) == 2


def test_each_library_has_a_row() -> None:
    """Of the ways that tests/test_outbox_postgres.py takes."""
    text = PAGE.section("In your transaction")
    for way in ("psycopg", "asyncpg", "sqlalchemy"):
        assert f"execute(*insert.{way})" in text
        assert isinstance(getattr(amqp.OutboxInsert, way), property)
    assert "pg_notify" in amqp.outbox_insert("", "q", b"").psycopg[0]
    assert "pg_notify" not in amqp.outbox_insert("", "q", b"", notify=False).psycopg[0]
    assert "outbox_insert(…, notify=False)" in text


def test_the_numbers_on_postgresql_are_those_of_the_code() -> None:
    """Seconds, versions and rows."""
    text = " ".join(PAGE.text.split())
    assert f"when a machine dies, after {session.GONE} seconds" in text
    idle, interval, count = (int(session.SETTINGS[f"tcp_keepalives_{each}"]) for each in ("idle", "interval", "count"))
    assert idle + interval * count == session.GONE
    assert f"has to be version {session.OLDEST} or newer" in text
    assert f"after {session.ANSWER_LIMIT:g}, the session is given up" in text
    assert "within a second" in text
    assert f"wait for up to {session.CONNECT_LIMIT} seconds" in text
    assert f"up to {store.MOST} at a time" in text
    assert store.INTERVAL == 1
    (rows,) = re.findall(r"autovacuum_vacuum_threshold = (\d+), autovacuum_vacuum_cost", table.MIGRATIONS[1])
    assert f"as soon as it finds {int(rows):,} deleted rows" in text


async def test_a_box_is_listed_as_shown(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Though not with these numbers."""
    async with await psycopg.AsyncConnection.connect(database) as connection:
        for _ in range(12):
            await connection.execute(*amqp.outbox_insert("", "q", bytes(200)).psycopg)
    owner = PostgresStore(database, "amqp")
    await owner.open()
    await owner.read(1, 1, set())
    line = PAGE.commands("Looking inside")[-1]
    assert await asyncio.to_thread(cli.main, [*shlex.split(line)[1:-1], database]) == 0
    await owner.close({})

    def masked(text: str) -> str:
        return re.sub(r"\d+ octets|\d+ s ago", "…", text)

    assert masked(capsys.readouterr().out) == masked(PAGE.block("Looking inside", "text", 2))


async def test_two_processes_share_the_work_of_the_example(database: str, broker: Node, queue: Queue) -> None:
    """One knows nothing of RabbitMQ, and the other sends what the first has committed: no more, and no less."""
    await on_channel(broker.url, lambda channel: channel.queue_bind(queue.name, "amq.topic", "order.placed"))
    environment = {**os.environ, "DATABASE_URL": database, "AMQP_URL": broker.url, "PYTHONPATH": str(ROOT)}
    sender = await asyncio.create_subprocess_exec(sys.executable, "-m", "examples.orders", "send", env=environment)
    try:
        placing = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "examples.orders", "place", "a book", "", "a pen"),
            env={**environment, "AMQP_URL": "amqp://127.0.0.1:2"},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(placing.communicate(), SECONDS)
        first, refused, second = out.decode().splitlines()
        assert refused == "refused ''"
        placed = [line.removeprefix("placed ") for line in (first, second)]
        async with asyncio.timeout(SECONDS):
            while await queue.depth() < 2:
                await asyncio.sleep(0.05)
    finally:
        sender.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(sender.wait(), SECONDS) == 0
    arrived = await queue.messages()
    assert [message.message_id for message in arrived] == placed
    assert [json.loads(message.body)["article"] for message in arrived] == ["a book", "a pen"]


#: What shows what each row of the tables says, in tests/test_outbox_postgres.py and test_outbox_postgres_killed.py.
SHOWN = {
    "is away, restarts, or cannot be reached": "test_postgresql_that_is_away_is_done_without_until_it_comes",
    "is killed while it stores one": "test_what_is_being_stored_when_postgresql_is_killed_ends_with_the_truth",
    "fails over": "test_a_standby_takes_over",
    "has no connection left, is read-only, or its disk is full": "test_postgresql_that_is_read_only_is_tried_again",
    "does not answer when the client starts": "test_postgresql_that_hangs_at_the_start_delays_nothing_for_long",
    "does not answer": "test_postgresql_that_does_not_answer_is_waited_for_ten_seconds_and_then_left",
    "your process, before its transaction commits": "test_what_a_transaction_stores_is_sent_exactly_if_it_commits",
    "your process, after the commit": "test_many_that_were_stored_while_nobody_ran_are_sent_in_order",
    "the client that was sending": "test_another_client_sends_what_is_common_when_its_owner_is_gone",
    "PostgreSQL": "test_what_was_committed_stored_or_confirmed_arrives_and_what_was_rolled_back_does_not",
    "RabbitMQ and PostgreSQL": "test_what_was_committed_stored_or_confirmed_arrives_and_what_was_rolled_back_does_not",
}


def test_each_row_on_failures_is_shown_by_a_test() -> None:
    """On real servers."""
    tables = re.findall(r"((?:^\|.*\n)+)", PAGE.section("When PostgreSQL fails"), re.MULTILINE)
    rows = {line.strip("|").split(" | ")[0].strip() for each in tables for line in each.splitlines()[2:]}
    assert rows == SHOWN.keys()
    tests = {name for module in (test_outbox_postgres, test_outbox_postgres_killed) for name in vars(module)}
    assert set(SHOWN.values()) <= tests
