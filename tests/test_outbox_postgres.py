"""The outbox in PostgreSQL: what only it promises, and what it comes through, on real servers."""

import asyncio
import contextlib
import gc
import logging
import os
import re
import socket
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

import sprockets_amqp as amqp
from sprockets_amqp import STORED, Client, NotReadyError, OutcomeUnknown, outbox_insert
from sprockets_amqp.cli import main
from sprockets_amqp.cli import outbox as outbox_command
from sprockets_amqp.outbox import writer
from sprockets_amqp.outbox.postgres import session
from sprockets_amqp.outbox.postgres import store as postgres_store
from sprockets_amqp.outbox.postgres.store import PostgresStore
from sprockets_amqp.outbox.store import GRACE, OWN, Changes, Unsure, checksum, pack, unpack
from sprockets_amqp.states import Outbox
from sprockets_amqp.web import status
from tests.support.certificates import Authority
from tests.support.consume import Queue, declare_queue
from tests.support.waiting import until
from tests.test_store import ids, putting
from tools.postgres import PASSWORD, Pooler, Server
from tools.rabbitmq import Node

#: No RabbitMQ listens here.
NOBODY: Final = "amqp://127.0.0.1:2"
QUICK: Final[dict[str, Any]] = {"timeout": 0.1, "reconnect_delay": 0.1, "max_reconnect_delay": 0.2}


@contextlib.asynccontextmanager
async def client_of(url: str, database: str, **settings: Any) -> AsyncIterator[Client]:
    """A client with an outbox there, which has looked into it."""
    client = Client(url, outbox=database, **{**QUICK, **settings})
    try:
        await until(lambda: client._runtime.outbox.state not in {Outbox.OFF, Outbox.OPENING})
        yield client
    finally:
        await client.shutdown(5)


async def rows(server: Server, database: str, columns: str = "box") -> list[tuple[Any, ...]]:
    """What is in the table, in the order of the numbers."""
    return await server.sql(f"SELECT {columns} FROM sprockets_amqp_outbox ORDER BY number", database=database[-19:])  # noqa: S608


async def stored(client: Client, name: str, queue: str = "q") -> str | None:
    """Publish a message; return what it ended with."""
    ended: str | None = await client.publish("", queue, b"", {"message_id": name, "delivery_mode": 2}, timeout=0)
    return ended


# Boxes and their owners


async def test_each_client_has_a_box_and_one_has_the_common_one(database: str) -> None:
    """A client that begins when another is gone has its messages, and the common ones, before its own."""
    one, two = PostgresStore(database, "amqp"), PostgresStore(database, "amqp")
    await one.open()
    await one.write(OWN, putting("one"))
    await two.open()
    await two.write(OWN, putting("two"))
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute(*outbox_insert("", "q", b"", {"message_id": "common"}).psycopg)
    assert (await ids(one), await ids(two)) == (["one", "common"], ["two"])
    await one.close({})
    # Somebody has to send it: a client that runs sees it when it reads next.
    assert await ids(two) == ["two", "common"]
    await two.open()
    assert (await ids(two), (await two.totals()).messages) == (["one", "two", "common"], 3)
    await two.close({})


async def test_other_names_have_other_boxes(database: str) -> None:
    """A client sees and takes over nothing of another name."""
    one, other = PostgresStore(database, "amqp"), PostgresStore(database, "audit")
    await one.open()
    await one.write(OWN, putting("one"))
    await one.close({})
    await other.open()
    await other.write(OWN, putting("other"))
    assert await ids(other) == ["other"]
    assert [name.partition(".")[0] for name in await other.names()] == ["amqp", "audit"]
    await other.close({})


async def test_a_box_that_somebody_has_taken_over_meanwhile_is_left_to_them(postgres: Server, database: str) -> None:
    """A client whose session was ended takes another box; what it has yet to delete in the old one stays there."""
    one, two = PostgresStore(database, "amqp"), PostgresStore(database, "amqp")
    await one.open()
    await one.write(OWN, putting("first"))
    await postgres.sql("SELECT pg_terminate_backend(%s)", one._session._connection.info.backend_pid)  # type: ignore[union-attr]
    await until(lambda: not one._session.is_open)
    await two.open()
    assert await ids(two) == ["first"]
    await one.open()
    await one.write(OWN, Changes(putting("second", start=2).puts, {1}))
    assert (await ids(one), await ids(two)) == (["second"], ["first"])
    await one.close({})
    await two.close({})


async def test_a_killed_process_leaves_its_box_at_once(database: str) -> None:
    """The next one owns it as soon as it looks."""
    program = (
        "import asyncio, os, signal, sys\n"
        "from sprockets_amqp import Client\n"
        "async def main():\n"
        f"    client = Client({NOBODY!r}, outbox=sys.argv[1], timeout=0)\n"
        "    print(await client.publish('', 'q', b'', {'message_id': 'left'}), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, database, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    assert out == b"stored\n"
    store = PostgresStore(database, "amqp")
    await store.open()
    assert await ids(store) == ["left"]
    await store.close({})


async def test_both_sides_notice_within_ten_seconds_that_the_other_machine_is_gone(database: str) -> None:
    """The kernels ask four seconds after the last octet, and then every two, three times."""
    store = PostgresStore(database, "amqp")
    await store.open()
    connection = store._session._connection
    assert connection is not None
    with socket.socket(fileno=os.dup(connection.fileno())) as mine:
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        assert [mine.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [4, 2, 3, 10000]
        assert mine.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
    found = [(await store._session.run((f"SHOW {name}", ())))[0][0] for name in names]
    assert found == ["4", "2", "3", "10000"]
    await store.close({})


async def test_a_session_is_what_a_box_needs_whatever_the_database_has_by_default(
    postgres: Server, database: str
) -> None:
    """A commit is flushed, nothing ends an idle session, and a lock of somebody else's is not waited for for ever."""
    for setting in ("synchronous_commit = off", "idle_session_timeout = 5000", "statement_timeout = 5000"):
        await postgres.sql(f"ALTER DATABASE {database[-19:]} SET {setting}")
    store = PostgresStore(database, "amqp")
    await store.open()
    names = ("synchronous_commit", "idle_session_timeout", "statement_timeout", "lock_timeout")
    assert [(await store._session.run((f"SHOW {name}", ())))[0][0] for name in names] == ["on", "0", "0", "5s"]
    await store.close({})


#: Has boxes taken over as soon as PostgreSQL has started.
AT_ONCE = "from sprockets_amqp.outbox.postgres import store; store.GRACE = 0.0"
FORKING = """
import asyncio, os, sys
from sprockets_amqp import Client

async def main():
    client = Client("amqp://127.0.0.1:2", outbox=sys.argv[1], timeout=0)
    print(await client.publish("", "q", b"", {"message_id": "parent"}), flush=True)
    if not os.fork():
        async def child():
            print(await client.publish("", "q", b"", {"message_id": "child"}), client.counters.stored, flush=True)
            await client.shutdown(2)
        asyncio.set_event_loop(None)
        asyncio._set_running_loop(None)
        asyncio.run(child())
        os._exit(0)
    await asyncio.to_thread(os.wait)
    print(await client.publish("", "q", b"", {"message_id": "again"}), client.counters.stored, flush=True)
    await client.shutdown(2)

asyncio.run(main())
"""


async def test_a_forked_child_has_a_session_of_its_own_and_leaves_the_parents_alone(
    postgres: Server, database: str
) -> None:
    """Its copy of the socket is closed without a word: the parent goes on in its box."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FORKING, database, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, errors = await asyncio.wait_for(process.communicate(), 30)
    assert out.decode().splitlines() == ["stored", "stored 1", "stored 2"], errors.decode()
    boxes = [box for (box,) in await rows(postgres, database)]
    assert len(boxes) == 3
    assert len(set(boxes)) == 2


async def test_what_cancels_all_tasks_ends_no_call(database: str) -> None:
    """Each is carried out to its end."""
    store = PostgresStore(database, "amqp")
    await store.open()

    async def cancel(task: "asyncio.Task[None]") -> None:
        while not task.done():
            for each in asyncio.all_tasks() - {asyncio.current_task()}:
                each.cancel()
            await asyncio.sleep(0)

    for number in range(1, 60, 3):
        task = asyncio.ensure_future(store.write(OWN, putting("a", "b", "c", start=number)))
        # Before it begins, it is its caller that is cancelled.
        await asyncio.sleep(0)
        await cancel(task)
        await task
    assert len(await store.read(100, 10**6, set())) == 60
    await store.close({})


# Faults


async def test_postgresql_that_is_away_is_done_without_until_it_comes(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Publishes end as without an outbox, which is told once and shown; then they are stored."""
    database = await server.outbox()
    await server.stop()
    async with client_of(NOBODY, database) as client:
        await until(lambda: bool(client.outbox_trouble))
        with pytest.raises(NotReadyError):
            await stored(client, "refused")
        assert "the outbox cannot store anything: ConnectionError: PostgreSQL: " in status.snapshot(client)["publish"]
        await server.start()
        await until(lambda: not client.outbox_trouble)
        assert await stored(client, "first") == STORED
        await server.kill()
        # It is noticed while nothing is done.
        await until(lambda: bool(client.outbox_trouble))
        await server.start()
        await until(lambda: not client.outbox_trouble)
        assert (await stored(client, "second"), client.counters.stored) == (STORED, 2)
    told = [record.getMessage() for record in caplog.records if "outbox" in record.getMessage()]
    assert [line.partition(": ")[2][:24] for line in told] == [
        "nothing can be stored: C",
        "messages can be stored a",
        "nothing can be stored: C",
        "messages can be stored a",
    ]
    assert len(await rows(server, database)) == 2


async def test_what_is_being_stored_when_postgresql_is_killed_ends_with_the_truth(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ended with STORED is there; what ended with NotReadyError is not, and nobody knows of the rest."""
    # Nobody comes back for the box at the end.
    monkeypatch.setattr(postgres_store, "GRACE", 0.0)
    database = await server.outbox()
    outcomes: dict[str, list[str]] = {}

    async def publish(client: Client, number: int) -> None:
        try:
            await stored(client, f"m{number}")
        except amqp.AMQPException as error:
            outcomes.setdefault(type(error).__name__, []).append(f"m{number}")
        else:
            outcomes.setdefault("STORED", []).append(f"m{number}")

    async with client_of(NOBODY, database) as client:
        publishing = []
        killing: asyncio.Future[None] | None = None
        for number in range(3000):
            publishing.append(asyncio.ensure_future(publish(client, number)))
            if number in {800, 1600, 2400}:
                await until(lambda: not client.outbox_trouble)
                killing = asyncio.ensure_future(server.kill())
            if number in {900, 1700, 2500}:
                assert killing is not None
                await killing
                await server.start()
            await asyncio.sleep(0)
        await asyncio.gather(*publishing)
    store = PostgresStore(database, "amqp")
    await store.open()
    there = [record for _, record in await store.read(10000, 10**9, set())]
    await store.close({})
    found = {str(unpack(record.message)[1].message_id) for record in there}
    assert set(outcomes["STORED"]) <= found
    assert found.isdisjoint(outcomes.get("NotReadyError", []))


async def test_after_a_restart_each_client_gets_its_own_box_again(server: Server) -> None:
    """Even if another one starts before it has noticed; what nobody claims is taken over five seconds later."""
    database = await server.outbox()
    one, gone, new = (PostgresStore(database, "amqp") for _ in range(3))
    for store, name in ((one, "one"), (gone, "gone")):
        await store.open()
        await store.write(OWN, putting(name))
    looks: list[float] = []
    new.watch(lambda: None, lambda: looks.append(asyncio.get_running_loop().time()))
    await server.kill()
    gone._session.end()
    await server.start()
    began = asyncio.get_running_loop().time()
    await new.open()
    await until(lambda: not one._session.is_open)
    await one.open()
    assert (await ids(one), await ids(new)) == (["one"], [])
    await until(lambda: bool(looks))
    assert looks[0] - began <= GRACE
    await new.open()
    assert await ids(new) == ["gone"]
    for store in (one, gone, new):
        await store.close({})


async def test_a_standby_takes_over(server: Server, broker: Node) -> None:
    """The URL names both, and the client finds the one that can be written to."""
    database = await server.outbox()
    queue = await declare_queue(broker.url)
    async with Server(follows=server) as standby:
        user, place = database.removeprefix("postgresql://").rsplit("@", 1)
        both = f"postgresql://{user}@127.0.0.1:{standby.port},{place}"
        reach = {"url": NOBODY}
        async with client_of(lambda: reach["url"], both) as client:  # type: ignore[arg-type]
            assert await stored(client, "before", queue.name) == STORED
            await standby.caught_up(server)
            await server.stop()
            await standby.promote()
            await until(lambda: not client.outbox_trouble)
            assert await stored(client, "after", queue.name) == STORED
            reach["url"] = broker.url
            await client.flush(20)
    assert await queue.message_ids() == ["before", "after"]
    await queue.delete()


async def test_postgresql_that_does_not_answer_is_waited_for_ten_seconds_and_then_left(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was given ends with OutcomeUnknown; a session that never answers ends, and a new one is opened."""
    monkeypatch.setattr(writer, "DISK_LIMIT", 0.3)
    monkeypatch.setattr(session, "ANSWER_LIMIT", 1.0)
    database = await server.outbox()
    async with client_of(NOBODY, database) as client:
        assert await stored(client, "first") == STORED
        server.pause()
        with pytest.raises(OutcomeUnknown, match="PostgreSQL did not answer in time"):
            await stored(client, "unknown")
        assert client.outbox_trouble == "PostgreSQL has not answered within 0.3 s"
        with pytest.raises(NotReadyError):
            await stored(client, "refused")
        await until(lambda: not client._runtime.outbox._writer._store._session.is_open)  # type: ignore[attr-defined]
        server.resume()
        await until(lambda: not client.outbox_trouble)
        assert await stored(client, "last") == STORED


async def test_postgresql_that_hangs_at_the_start_delays_nothing_for_long(
    server: Server, broker: Node, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is published meanwhile waits until that is known, and then goes out as without an outbox."""
    database = await server.outbox()
    server.pause()
    client = Client(broker.url, outbox=f"{database}?connect_timeout=2", timeout=10)
    assert await client.publish("", queue.name, b"") is None
    assert client.outbox_trouble
    server.resume()
    await until(lambda: not client.outbox_trouble)
    await client.shutdown(5)
    # What psycopg's errors refer to, sockets among it, goes with them.
    gc.collect()


async def test_postgresql_without_free_connections_is_tried_again(server: Server) -> None:
    """Its own words are told; when there is a connection, it goes on."""
    database = await server.outbox()
    others = []
    with contextlib.suppress(psycopg.OperationalError):
        while True:
            others.append(await psycopg.AsyncConnection.connect(database))
    async with client_of(NOBODY, database) as client:
        await until(lambda: bool(client.outbox_trouble))
        assert "sorry, too many clients already" in client.outbox_trouble
        for each in others:
            await each.close()
        await until(lambda: not client.outbox_trouble)
        assert await stored(client, "first") == STORED


async def test_postgresql_that_is_read_only_is_tried_again(server: Server) -> None:
    """A running session notices, and so does one that begins."""
    database = await server.outbox()
    async with client_of(NOBODY, database) as client:
        assert await stored(client, "first") == STORED
        server.set(default_transaction_read_only="on")
        server.reload()
        await until(lambda: server_says(database, "default_transaction_read_only") == "on")
        await until_refused(client)
        await until(lambda: "read-only" in client.outbox_trouble)
        await until(lambda: "session is read-only" in client._runtime.outbox.trouble)
        server.set(default_transaction_read_only=None)
        server.reload()
        await until(lambda: not client.outbox_trouble)
        assert await stored(client, "last") == STORED


async def until_refused(client: Client) -> None:
    """Publish until nothing is stored any more."""
    with contextlib.suppress(NotReadyError):
        while await stored(client, "some"):
            pass


def server_says(database: str, setting: str) -> str:
    """What a new session has."""
    with psycopg.connect(database) as connection:
        return str(connection.execute(f"SHOW {setting}").fetchone()[0])  # type: ignore[index]


async def test_a_disk_of_postgresql_that_takes_no_more_is_told_once_and_used_again(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Publishes end as without an outbox meanwhile, and what was stored is still there."""
    database = await server.outbox()
    async with client_of(NOBODY, database) as client:
        assert await stored(client, "first") == STORED
        store: Any = client._runtime.outbox._writer._store
        process = store._session._connection.info.backend_pid
        # More than a file of the log has, which is there already.
        server.limit_files(process, str(17 * 1024**2))
        ends = []
        for _ in range(25):
            try:
                ends.append(await client.publish("", "q", bytes(1024**2), timeout=0))
            except NotReadyError:
                ends.append("refused")
        assert 10 < ends.index("refused") < 20
        assert set(ends[ends.index("refused") :]) == {"refused"}
        assert "could not" in client.outbox_trouble
        server.limit_files(process, "unlimited")
        await until(lambda: not client.outbox_trouble)
        assert await stored(client, "last") == STORED
        assert client.counters.stored == ends.count(STORED) + 2
    assert len([each for each in caplog.records if "nothing can be stored" in each.getMessage()]) == 1


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_words_that_the_database_cannot_store_are_escaped(
    encoding: str, postgres: Server, broker: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    """RabbitMQ quotes the names of exchanges, which are in any alphabet."""
    name = f"outbox_{uuid.uuid4().hex[:12]}"
    await postgres.sql(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
    database = postgres.url_for(database=name)
    assert await command("migrate", database) == await command("migrate", database) == 0
    async with client_of(broker.url, database) as client:
        await client.wait_for(amqp.State.READY, 20)
        await by_psycopg(database, outbox_insert("заказы", "", "größe", {"message_id": "größe"}))
        await until(lambda: client.counters.set_aside == 1)
        assert client.outbox_trouble == ""
    assert await command("list", database) == 0
    assert "\\u0437\\u0430" in capsys.readouterr().out


async def test_a_client_that_cannot_send_leaves_the_common_box_to_others(
    database: str, broker: Node, queue: Queue
) -> None:
    """Whether it never could, or can no longer."""
    async with client_of(NOBODY, database), client_of(broker.url, database) as able:
        await able.wait_for(amqp.State.READY, 20)
        await by_psycopg(database, outbox_insert("", queue.name, b"", {"message_id": "common"}))
        await until(lambda: able.counters.confirmed == 1)
    one, two = PostgresStore(database, "amqp"), PostgresStore(database, "amqp")
    for store in (one, two):
        await store.open()
    await by_psycopg(database, outbox_insert("", queue.name, b"", {"message_id": "common"}))
    assert (await ids(one), await ids(two)) == (["common"], [])
    await one.share()
    assert await ids(two) == ["common"]
    for store in (one, two):
        await store.close({})


async def test_a_loop_that_ends_first_leaves_no_warning(database: str) -> None:
    """Nor does the process wait: PostgreSQL sees that it is gone."""
    program = (
        "import asyncio, sys\n"
        "from sprockets_amqp import Client\n"
        "async def main():\n"
        f"    client = Client({NOBODY!r}, outbox=sys.argv[1], timeout=0)\n"
        "    print(await client.publish('', 'q', b''), flush=True)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", program, database),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(), 30)
    assert (out, b"psycopg" in errors) == (b"stored\n", False), errors.decode()


async def test_a_pooler_is_refused_in_words(server: Server) -> None:
    """Whatever it shares sessions by: its clients would share the locks."""
    database = await server.outbox()
    with Pooler(server, database[-19:]) as pooler:
        async with client_of(NOBODY, pooler.url) as client:
            await until(lambda: "a connection pooler answers for PostgreSQL" in client.outbox_trouble)
            with pytest.raises(NotReadyError):
                await stored(client, "refused")


# In the application's transaction


async def by_psycopg(database: str, *inserts: amqp.OutboxInsert, commit: bool = True) -> None:
    """Store messages in one transaction, by psycopg, asynchronous."""
    async with await psycopg.AsyncConnection.connect(database) as connection:
        for each in inserts:
            await connection.execute(*each.psycopg)
        if not commit:
            await connection.rollback()


async def by_psycopg_synchronous(database: str, *inserts: amqp.OutboxInsert, commit: bool = True) -> None:
    """By psycopg, synchronous."""
    with psycopg.connect(database) as connection:
        for each in inserts:
            connection.execute(*each.psycopg)
        if not commit:
            connection.rollback()


async def by_asyncpg(database: str, *inserts: amqp.OutboxInsert, commit: bool = True) -> None:
    """By asyncpg."""
    connection = await asyncpg.connect(database)
    try:
        transaction = connection.transaction()
        await transaction.start()
        for each in inserts:
            await connection.execute(*each.asyncpg)
        await (transaction.commit if commit else transaction.rollback)()
    finally:
        await connection.close()


async def by_sqlalchemy(database: str, *inserts: amqp.OutboxInsert, commit: bool = True) -> None:
    """By SQLAlchemy, synchronous."""
    engine = sqlalchemy.create_engine(database.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        for each in inserts:
            connection.execute(*each.sqlalchemy)
        (connection.commit if commit else connection.rollback)()
    engine.dispose()


async def by_sqlalchemy_asynchronous(database: str, *inserts: amqp.OutboxInsert, commit: bool = True) -> None:
    """By SQLAlchemy, asynchronous, on asyncpg."""
    engine = create_async_engine(database.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.connect() as connection:
        for each in inserts:
            await connection.execute(*each.sqlalchemy)
        await (connection.commit if commit else connection.rollback)()
    await engine.dispose()


async def by_django(database: str, *inserts: amqp.OutboxInsert, commit: bool = True) -> None:
    """By a cursor of Django's."""
    await asyncio.to_thread(_by_django, database, inserts, commit)


def _by_django(database: str, inserts: tuple[amqp.OutboxInsert, ...], commit: bool) -> None:
    import django  # noqa: PLC0415 - it is dear
    from django.conf import settings  # noqa: PLC0415
    from django.db import connections, transaction  # noqa: PLC0415

    parts = urlsplit(database)
    places = {"NAME": parts.path[1:], "USER": "postgres", "PASSWORD": PASSWORD, "HOST": parts.hostname}
    if not settings.configured:
        settings.configure(DATABASES={"default": {}})
        django.setup()
    connections.settings["app"] = {
        "ENGINE": "django.db.backends.postgresql",
        "PORT": parts.port,
        **places,
        "AUTOCOMMIT": True,
        "OPTIONS": {},
        "ATOMIC_REQUESTS": False,
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": False,
        "TIME_ZONE": None,
        "TEST": {},
    }
    try:
        with transaction.atomic(using="app"), connections["app"].cursor() as cursor:
            for each in inserts:
                cursor.execute(*each.psycopg)
            transaction.set_rollback(not commit, using="app")
    finally:
        connections["app"].close()
        del connections["app"]


WAYS: Final[list[Callable[..., Any]]] = [
    by_psycopg,
    by_psycopg_synchronous,
    by_asyncpg,
    by_sqlalchemy,
    by_sqlalchemy_asynchronous,
    by_django,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_what_a_transaction_stores_is_sent_exactly_if_it_commits(
    way: Callable[..., Any], database: str, broker: Node, queue: Queue
) -> None:
    """In its order, with all its properties, as soon as it commits; what is rolled back is not."""
    async with client_of(broker.url, database) as client:
        await client.wait_for(amqp.State.READY, 20)
        await way(database, outbox_insert("", queue.name, b"no", {"message_id": "rolled back"}), commit=False)
        inserts = [
            outbox_insert("", queue.name, f"größe {number}\0%s $1 :x", {"headers": {"n": number}, "priority": number})
            for number in range(3)
        ]
        await way(database, *inserts)
        await until(lambda: client.counters.confirmed == 3)
        await client.flush(10)
    assert await queue.message_ids() == [insert.message_id for insert in inserts]


async def test_without_a_notification_it_is_found_within_a_second(
    postgres: Server, database: str, broker: Node, queue: Queue
) -> None:
    """A restored backup, or a tool that copies rows, tells nobody."""
    async with client_of(broker.url, database) as client:
        await client.wait_for(amqp.State.READY, 20)
        insert = outbox_insert("", queue.name, b"", notify=False)
        begun = time.monotonic()
        await by_psycopg(database, insert)
        await until(lambda: client.counters.confirmed == 1)
        logging.getLogger(__name__).info("found after %.2f s", time.monotonic() - begun)
    assert await queue.message_ids() == [insert.message_id]


async def test_nothing_waits_for_a_transaction_that_is_open(database: str, broker: Node, queue: Queue) -> None:
    """What it has stored has smaller numbers, and is sent when it commits: later."""
    async with client_of(broker.url, database) as client:
        await client.wait_for(amqp.State.READY, 20)
        async with await psycopg.AsyncConnection.connect(database) as slow:
            for name in ("slow 1", "slow 2"):
                await slow.execute(*outbox_insert("", queue.name, b"", {"message_id": name}).psycopg)
            await by_psycopg(database, outbox_insert("", queue.name, b"", {"message_id": "quick"}))
            await until(lambda: client.counters.confirmed == 1)
        await until(lambda: client.counters.confirmed == 3)
        await client.flush(10)
    assert await queue.message_ids() == ["quick", "slow 1", "slow 2"]


async def test_many_that_were_stored_while_nobody_ran_are_sent_in_order(
    database: str, broker: Node, queue: Queue
) -> None:
    """More than are read at once; and those that come meanwhile, without a backlog."""
    names = [f"m{number}" for number in range(1200)]
    await by_psycopg(database, *(outbox_insert("", queue.name, b"", {"message_id": name}) for name in names[:1100]))
    async with client_of(broker.url, database) as client:
        await client.flush(20)
        for name in names[1100:]:
            await by_psycopg(database, outbox_insert("", queue.name, b"", {"message_id": name}))
        await until(lambda: client.counters.confirmed == 1200)
        await client.flush(10)
        assert client.counters.stored == 0
    assert await queue.message_ids() == names


async def test_publishes_go_straight_out_while_transactions_store(database: str, broker: Node, queue: Queue) -> None:
    """What is stored elsewhere is no backlog of the client's as long as all of it goes out at once."""
    async with client_of(broker.url, database, timeout=5) as client:
        await client.wait_for(amqp.State.READY, 20)
        ends = []
        for _ in range(50):
            await by_psycopg(database, outbox_insert("", queue.name, b""))
            ends.append(await client.publish("", queue.name, b""))
        await until(lambda: client.counters.confirmed == 100)
        assert ends == [None] * 50


async def test_another_client_sends_what_is_common_when_its_owner_is_gone(
    database: str, broker: Node, queue: Queue
) -> None:
    """Within about a second: it need not be told."""
    async with client_of(broker.url, database) as second:
        async with client_of(broker.url, database) as first:
            await first.wait_for(amqp.State.READY, 20)
            await second.wait_for(amqp.State.READY, 20)
            await by_psycopg(database, outbox_insert("", queue.name, b"", {"message_id": "one"}))
            await until(lambda: first.counters.confirmed + second.counters.confirmed == 1)
        await by_psycopg(database, outbox_insert("", queue.name, b"", {"message_id": "two"}))
        await until(lambda: first.counters.confirmed + second.counters.confirmed == 2)
    assert await queue.message_ids() == ["one", "two"]


def test_what_cannot_be_sent_is_not_stored() -> None:
    """The call says so, as a publish would."""
    with pytest.raises(amqp.InvalidMessage, match="routing_key"):
        outbox_insert("", "x" * 256, b"")
    with pytest.raises(amqp.InvalidMessage):
        outbox_insert("", "q", b"", {"headers": {"x": object()}})
    with pytest.raises(ValueError, match="name must be"):
        outbox_insert("", "q", b"", name="it's")
    insert = outbox_insert("", "q", b"secret")
    assert "secret" not in repr(insert)
    assert insert.message_id


def nested(depth: int) -> bytes:
    """Properties of headers with CC, and with tables within tables."""
    table = b""
    for _ in range(depth):
        table = b"\x01tF" + len(table).to_bytes(4) + table
    headers = b"\x02CCA\x00\x00\x00\x00" + table
    return b"\x20\x00" + len(headers).to_bytes(4) + headers


async def test_rows_that_nobody_should_have_written_are_set_aside(
    postgres: Server, database: str, broker: Node, queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    """They harm no other message."""
    right = outbox_insert("", queue.name, b"", {"message_id": "right", "headers": {"a": 1}})
    its = unpack(right.message)[1]
    copied = unpack(outbox_insert("", "q", b"", {"headers": {"CC": ["x"], "a": 1}}).message)[1].properties
    method, properties = its.method, its.properties
    made = [
        (method, properties[:-3]),
        (method, properties + b"more"),
        # Queue.Declare, Basic.Publish with another method behind it, and a header of no known type.
        (method.replace(b"\x00\x3c\x00\x28", b"\x00\x32\x00\x0a"), properties),
        (method + b"\x01\x00\x01\x00\x00\x00\x04\x00\x14\x00\x28\xce", properties),
        (method, properties.replace(b"\x01a", b"\x01a?", 1)),
        # A frame that seems to have more octets; headers that pika cannot read, and some that Python cannot.
        (b"\x00\x01" + method[2:], properties),
        (method, copied.replace(b"\x01a", b"\x01a\xff", 1)),
        (method, nested(5000)),
        (b"", b""),
    ]
    messages = [pack(time.time(), *parts, b"") for parts in made]
    hostile = [(message, checksum(0, message)) for message in messages]
    hostile += [(b"", 0), (b"garbage" * 9, 7), (right.message[:-1], right.checksum), (bytes(30), 1)]
    insert = "INSERT INTO sprockets_amqp_outbox (name, box, message, checksum) VALUES (%s, %s, %s, %s)"
    for message, summed in hostile:
        await postgres.sql(insert, "amqp", 0, message, summed, database=database[-19:])
    # Boxes that no client has, and a name that none can have.
    for name, box in (("amqp", -1), ("amqp", -7), ("we\x1b[31mird", 3)):
        await postgres.sql(insert, name, box, right.message, right.checksum, database=database[-19:])
    # An invalid expiration, and a number of refusals that never was: it is still sent alone, once.
    expires = outbox_insert("", queue.name, b"", {"expiration": "1000"}).message.replace(b"\x041000", b"\x04soon")
    hostile.append((expires, checksum(0, expires)))
    await postgres.sql(
        "INSERT INTO sprockets_amqp_outbox (name, box, message, checksum, refusals) VALUES ('amqp', 0, %s, %s, %s)",
        *(*hostile[-1], -(2**31)),
        database=database[-19:],
    )
    await by_psycopg(database, right)
    async with client_of(broker.url, database) as client:
        await client.flush(10)
        await until(lambda: client.counters.set_aside == len(hostile))
    found = await rows(postgres, database, "set_aside")
    assert len([words for (words,) in found if words]) == len(hostile)
    # What was in flight beside a message over which RabbitMQ has closed the connection is sent again.
    arrived = await queue.message_ids()
    assert (set(arrived), len(arrived) >= 2) == ({"right"}, True)
    assert await command("list", database) == 0
    printed = capsys.readouterr().out
    assert f"0 to send, {len(hostile)} set aside" in printed
    assert printed.replace("\n", "").isprintable()


# Rights, the table, secrets, and the command line


async def test_users_need_no_more_rights_than_told(postgres: Server, database: str, queue: Queue) -> None:
    """A client needs four, and who stores in transactions one; what is missing is named."""
    name, user = database[-19:], f"user_{uuid.uuid4().hex[:8]}"
    await postgres.sql(f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'")
    own = postgres.url_for(user, database=name)
    store = PostgresStore(own, "amqp")
    with pytest.raises(
        PermissionError, match=f"GRANT SELECT, INSERT, UPDATE, DELETE ON sprockets_amqp_outbox TO {user}"
    ):
        await store.open()
    await postgres.sql(f"GRANT INSERT ON sprockets_amqp_outbox TO {user}", database=name)
    await by_psycopg(own, outbox_insert("", queue.name, b"", {"message_id": "common"}))
    await postgres.sql(f"GRANT SELECT, UPDATE, DELETE ON sprockets_amqp_outbox TO {user}", database=name)
    await store.open()
    await store.write(OWN, putting("own"))
    await store.write(OWN, Changes(set_asides={1: "no\0"}))
    ((box, aside),) = [
        (name, aside) for name in await store.names() for aside in [(await store.look(name))[1]] if aside
    ]
    assert await store.retry(box, aside) == {1}
    assert await ids(store) == ["own", "common"]
    assert await store.drop(box, [1]) == {1}
    await store.close({})


async def test_a_database_without_the_table_says_what_to_do(postgres: Server) -> None:
    """A running client sees that it was made."""
    database = await postgres.outbox(migrated=False)
    async with client_of(NOBODY, database) as client:
        await until(lambda: "run sprockets-amqp outbox migrate" in client.outbox_trouble)
        assert await command("migrate", database) == 0
        await until(lambda: not client.outbox_trouble)
        assert await stored(client, "first") == STORED


async def command(*words: str) -> int:
    """Run the command outbox; return its status."""
    try:
        return await asyncio.to_thread(main, ["outbox", *words])
    except SystemExit as end:
        return int(str(end.code))


async def test_the_table_is_made_once_and_never_in_anothers_place(
    postgres: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command, or by the SQL that it prints; it says what is there."""
    database = await postgres.outbox(migrated=False)
    assert await command("migrate", "--sql") == 0
    script = capsys.readouterr().out
    assert [await command("migrate", database), await command("migrate", database)] == [0, 0]
    assert capsys.readouterr().out.splitlines() == [
        "sprockets_amqp_outbox was made with version 1",
        "sprockets_amqp_outbox is of version 1",
    ]
    name = database[-19:]
    await postgres.sql("COMMENT ON TABLE sprockets_amqp_outbox IS 'sprockets_amqp outbox, version 7'", database=name)
    assert await command("migrate", database) == 1
    assert "is of version 7, and this is 1: upgrade sprockets_amqp" in capsys.readouterr().err
    store = PostgresStore(database, "amqp")
    with pytest.raises(ValueError, match="is of version 7, and this is 1: upgrade sprockets_amqp"):
        await store.open()
    await postgres.sql("DROP TABLE sprockets_amqp_outbox", database=name)
    await postgres.sql("CREATE VIEW sprockets_amqp_outbox AS SELECT 1 AS number", database=name)
    assert await command("migrate", database) == 1
    assert "that is no outbox: rename it" in capsys.readouterr().err
    with pytest.raises(ValueError, match="has no version: run sprockets-amqp outbox migrate, or rename what is there"):
        await store.open()
    await postgres.sql("DROP VIEW sprockets_amqp_outbox", database=name)
    await postgres.sql(script, database=name)
    await store.open()
    await store.close({})


async def test_ctrl_c_ends_a_command_behind_what_it_is_doing(
    database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has not begun is left alone."""
    for _ in range(5):
        store = PostgresStore(database, "amqp")
        await store._session.open(to_write=True)
        store._boxes[OWN] = await store._draw()
        await store.write(OWN, Changes(putting("aside").puts, set_asides={1: "no"}))
        store._session.end()
    on_box = outbox_command._on_box

    async def interrupted(*arguments: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        return await on_box(*arguments)

    monkeypatch.setattr(outbox_command, "_on_box", interrupted)
    with pytest.raises(asyncio.CancelledError):
        await outbox_command._run(PostgresStore(database, ""), "", "drop", [])
    assert len(capsys.readouterr().out.splitlines()) == 1


async def test_the_command_line_works_on_a_database(
    database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a folder: list, show, retry and drop; the password is shown nowhere."""
    assert await command("list", database) == 0
    assert "nothing is stored there" in capsys.readouterr().err
    store = PostgresStore(database, "amqp")
    await store.open()
    await store.write(OWN, Changes(putting("first", "second").puts, set_asides={2: "no such exchange"}))
    monkeypatch.setenv("AMQP_OUTBOX", database)
    assert await command("list") == 0
    out = capsys.readouterr().out
    match = re.match(r"(amqp\.\d+): 1 to send, 1 set aside, \d+ octets, the oldest stored \d s ago, in use\n", out)
    assert match is not None, out
    box = match[1]
    assert f"  {box}:2 second set aside: no such exchange" in out
    assert await command("show", f"{box}:1") == 0
    assert "message_id: first" in capsys.readouterr().out
    assert await command("retry") == 0
    assert capsys.readouterr().out == f"{box}:2: will be sent\n"
    await store.close({})
    assert await command("list") == 0
    assert "not in use" in capsys.readouterr().out
    # Wherever options stand.
    assert await command("drop", "-y", database) == 0
    assert await command("drop", f"{box}:1", f"{box}:9") == 1
    assert await command("drop", f"{box}:{2**63}") == 2
    assert await command("drop", "--why", database) == 2
    assert await command("drop", "amqp.77:1") == 1
    assert await command("downgrade") == 1
    assert "version 1.1 knows folders alone" in capsys.readouterr().err
    assert await command("migrate", "/tmp") == 2  # noqa: S108
    assert "a folder needs nothing" in capsys.readouterr().err
    away = database.replace("127.0.0.1:", "127.0.0.1:1,127.0.0.1:")
    assert await command("list", f"{away[: away.rindex(',')]}/x") == 1
    assert PASSWORD.partition(" ")[0] not in capsys.readouterr().err


def locals_of(error: BaseException) -> list[str]:
    """What an error tracker shows of the package's frames, of an error and those behind it."""
    found = []
    behind: BaseException | None = error
    while behind is not None:
        for frame, _ in traceback.walk_tb(behind.__traceback__):
            if "/sprockets_amqp/" in frame.f_code.co_filename:
                found += [repr(value) for value in frame.f_locals.values()]
        behind = behind.__cause__ or behind.__context__
    return found


async def test_the_password_is_shown_nowhere(
    server: Server, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in logs, the page, settings, errors, or the frames of tracebacks."""
    database = await server.outbox()
    wrong = server.url_for(password="hush", database=database[-19:])
    async with client_of(NOBODY, wrong) as client:
        await until(lambda: bool(client.outbox_trouble))
        shown = [*caplog.messages, str(status.snapshot(client)), repr(client), client.outbox_trouble]
        assert "password authentication failed" in client.outbox_trouble
    shown.append(repr(amqp.Settings(outbox=wrong)))
    for nearly in (
        *("postgresql+psycopg://u:hush@h/db", "POSTGRESQL://u:hush@h/db", " postgres://u:hush@h/db"),
        *("host=h password=hush", "postgresql://u:hu@shhush@h/db"),
    ):
        with pytest.raises(ValueError, match="outbox") as refused_setting:
            amqp.Settings(outbox=nearly)
        shown += [str(refused_setting.value), *locals_of(refused_setting.value)]
        assert await command("list", nearly) == 2
        assert await command("list", "--why", nearly) == 2
    shown += capsys.readouterr()
    with pytest.raises(ValueError, match="is not a URL of PostgreSQL") as caught:
        amqp.Settings(outbox="postgresql://app:hush@host/db?nonsense=hush")
    with pytest.raises(ConnectionError) as refused:
        await PostgresStore(wrong, "amqp").open()
    for error in (caught.value, refused.value):
        shown += [str(error), *locals_of(error)]
    assert [text for text in shown if "hush" in text] == []


async def test_the_session_is_encrypted_and_the_server_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As libpq's options in the URL say; a forked child does not end it either."""
    monkeypatch.setattr(postgres_store, "GRACE", 0.0)
    folders = [tmp_path / "ours", tmp_path / "theirs"]
    for folder in folders:
        folder.mkdir()
    authority, other = map(Authority, folders)
    files = authority.server("127.0.0.1")
    async with Server() as server:
        database = await server.outbox()
        server.certify(Path(files["certfile"]), Path(files["keyfile"]))
        await server.restart()
        for trusted, trouble in ((authority, ""), (other, "certificate verify failed")):
            url = f"{database}?sslmode=verify-full&sslrootcert={trusted.certificate}"
            async with client_of(NOBODY, url) as client:
                await until(lambda trouble=trouble, client=client: trouble in client.outbox_trouble)  # type: ignore[misc]
                if not trouble:
                    assert await stored(client, "secret") == STORED
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-c",
                f"{AT_ONCE}{FORKING}",
                f"{database}?sslmode=verify-full&sslrootcert={authority.certificate}",
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, errors = await asyncio.wait_for(process.communicate(), 30)
        # One message is there already.
        assert out.decode().splitlines() == ["stored", "stored 1", "stored 3"], errors.decode()


async def test_an_unsure_end_is_told_as_such(postgres: Server, database: str) -> None:
    """The session is gone while a message is stored: nobody is left to ask."""
    store = PostgresStore(database, "amqp")
    await store.open()
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("LOCK TABLE sprockets_amqp_outbox IN ACCESS EXCLUSIVE MODE")
        task = asyncio.ensure_future(store.write(OWN, putting("a")))
        pid = store._session._connection.info.backend_pid  # type: ignore[union-attr]
        while not await postgres.sql("SELECT 1 FROM pg_locks WHERE pid = %s AND NOT granted", pid):
            await asyncio.sleep(0.01)
        await postgres.sql("SELECT pg_terminate_backend(%s)", pid)
        with pytest.raises(Unsure):
            await task
    await store.close({})
