"""The kit's database in memory, which takes PostgreSQL's place: and what both do is the same."""

import asyncio
import contextlib
import random
from collections.abc import Callable

import psycopg
import pytest
from tornado.web import Application, RequestHandler

import sprockets_amqp as amqp
from sprockets_amqp import STORED, OutboxInsert, install, outbox_insert
from sprockets_amqp.outbox.postgres.store import PostgresStore
from sprockets_amqp.outbox.store import OWN, Changes, Store, unpack
from sprockets_amqp.testing import Broker, Database
from tests.test_store import putting
from tools.postgres import Server

URL = "postgresql://anywhere/app"


@pytest.fixture
def client(amqp_broker: Broker) -> amqp.Client:
    """A client that is ready, with its outbox in the database."""
    amqp_broker.queue_declare("q")
    made = amqp.Client("amqp://anywhere", io_loop=amqp_broker.clock.io_loop, outbox=URL, timeout=0)
    amqp_broker.advance(1)
    assert made.state is amqp.State.READY
    return made


def bodies(broker: Broker) -> list[bytes]:
    """What came."""
    return [message.body for message in broker.messages("q")]


def test_what_a_transaction_stores_is_published_exactly_if_it_commits(amqp_broker: Broker, client: amqp.Client) -> None:
    """In order, by whichever library."""
    database = amqp_broker.database
    with contextlib.suppress(ZeroDivisionError), database.transaction() as transaction:
        transaction.execute(*outbox_insert("", "q", b"rolled back").psycopg)
        raise ZeroDivisionError
    with database.transaction() as transaction:
        transaction.execute(*outbox_insert("", "q", b"psycopg").psycopg)
        transaction.execute(*outbox_insert("", "q", b"asyncpg").asyncpg)
        transaction.execute(*outbox_insert("", "q", b"sqlalchemy").sqlalchemy)
        assert database.stored() == []
    assert [message.body for message in database.stored()] == [b"psycopg", b"asyncpg", b"sqlalchemy"]
    amqp_broker.advance(0)
    assert bodies(amqp_broker) == [b"psycopg", b"asyncpg", b"sqlalchemy"]
    amqp_broker.advance(1)
    assert (database.stored(), client.counters.confirmed, client.counters.stored) == ([], 3, 0)


class Orders(RequestHandler):
    """Stores an order and its event in one transaction."""

    async def post(self) -> None:
        """Store both."""
        async with self.application.settings["database"].transaction() as transaction:
            await transaction.execute(*outbox_insert("", "q", self.request.body).asyncpg)
            if self.request.body == b"bad":
                self.set_status(400)
                raise ValueError


def test_a_handler_awaits_its_transaction(amqp_broker: Broker) -> None:
    """The application is given the database as what it makes transactions with."""
    amqp_broker.queue_declare("q")
    application = Application([("/", Orders)], database=amqp_broker.database)
    install(application, url="amqp://anywhere", outbox=URL)
    assert amqp_broker.fetch(application, "/", method="POST", body="good").code == 200
    assert amqp_broker.fetch(application, "/", method="POST", body="bad").code == 500
    amqp_broker.advance(1)
    assert bodies(amqp_broker) == [b"good"]


def test_a_database_that_is_away_is_done_without(amqp_broker: Broker, client: amqp.Client) -> None:
    """As PostgreSQL: publishes end as without an outbox, until it is back."""
    database = amqp_broker.database
    amqp_broker.stop()
    amqp_broker.advance(1)
    first = client.publish("", "q", b"first")
    amqp_broker.advance(0)
    assert first.result() == STORED
    database.stop()
    amqp_broker.advance(0)
    assert client.outbox_trouble == "ConnectionError: PostgreSQL: the database in memory was stopped"
    refused = client.publish("", "q", b"refused")
    amqp_broker.advance(0)
    assert isinstance(refused.exception(), amqp.NotReadyError)
    database.start()
    amqp_broker.advance(2)
    assert client.outbox_trouble == ""
    amqp_broker.start()
    amqp_broker.advance(60)
    assert bodies(amqp_broker) == [b"first"]


def test_two_clients_share_a_database_that_goes_and_comes(amqp_broker: Broker, client: amqp.Client) -> None:
    """Each has its own box again; when one is shut down, the other sends what is common."""
    other = amqp.Client("amqp://anywhere", io_loop=amqp_broker.clock.io_loop, outbox=URL, timeout=0)
    amqp_broker.advance(1)
    amqp_broker.stop()
    amqp_broker.advance(1)
    for each in (client, other):
        each.publish("", "q", str(id(each)).encode())
    amqp_broker.advance(0)
    amqp_broker.database.stop()
    with pytest.raises(ConnectionError), amqp_broker.database.transaction() as transaction:
        transaction.execute(*outbox_insert("", "q", b"lost").psycopg)
    amqp_broker.advance(2)
    amqp_broker.database.start()
    amqp_broker.advance(2)
    assert (client.counters.stored, other.counters.stored) == (1, 1)
    amqp_broker.start()
    amqp_broker.advance(60)
    assert sorted(bodies(amqp_broker)) == sorted(str(id(each)).encode() for each in (client, other))
    for last, leaving in enumerate((client, other)):
        with amqp_broker.database.transaction() as transaction:
            transaction.execute(*outbox_insert("", "q", b"common").psycopg)
        amqp_broker.advance(2)
        assert bodies(amqp_broker)[2:] == [b"common"] * (last + 1)
        amqp_broker.run(leaving.shutdown(1))
    assert amqp_broker.database.owners == {}


def test_what_is_on_the_wire_stays_with_the_client_that_has_sent_it(amqp_broker: Broker, client: amqp.Client) -> None:
    """Even while that cannot send more: it is confirmed yet, and not sent by another as well."""
    other = amqp.Client("amqp://anywhere", io_loop=amqp_broker.clock.io_loop, outbox=URL, timeout=0)
    amqp_broker.advance(1)
    amqp_broker.swallow_confirms()

    def commit(body: bytes) -> None:
        with amqp_broker.database.transaction() as transaction:
            transaction.execute(*outbox_insert("", "q", body).psycopg)
        amqp_broker.advance(1)

    commit(b"before")
    sender = client if client.counters.unconfirmed else other
    stopping = amqp_broker.clock.loop.create_task(sender.shutdown(20))
    commit(b"while it stops")
    amqp_broker.release_confirms()
    amqp_broker.advance(20)
    assert stopping.done()
    assert (bodies(amqp_broker), amqp_broker.database.stored()) == ([b"before", b"while it stops"], [])


def test_a_row_that_is_damaged_is_set_aside(amqp_broker: Broker, client: amqp.Client) -> None:
    """As in PostgreSQL; it is counted at the next look."""
    amqp_broker.database.commit([("amqp", b"garbage", 0)])
    amqp_broker.advance(61)
    assert client.counters.set_aside == 1


def test_code_without_a_client_is_seen_to_store(amqp_broker: Broker) -> None:
    """A script of another process stores; what is stored for a client of another name is not this one's."""
    with amqp_broker.database.transaction() as transaction:
        transaction.execute(*outbox_insert("events", "order.created", b"a book", {"message_id": "b"}).psycopg)
        transaction.execute(*outbox_insert("events", "x", b"", name="audit").psycopg)
    (message,) = amqp_broker.database.stored()
    assert (message.exchange, message.routing_key, message.body, message.message_id) == (
        "events",
        "order.created",
        b"a book",
        "b",
    )
    assert len(amqp_broker.database.stored("audit")) == 1


def test_other_statements_are_not_known() -> None:
    """A test that needs a database needs a real one."""
    with (
        pytest.raises(ValueError, match=r"knows the statements of outbox_insert alone, not DELETE"),
        Database().transaction() as transaction,
    ):
        transaction.execute("DELETE FROM orders")


def test_the_database_is_a_brokers_as_long_as_that_is_installed(postgres: Server) -> None:
    """Afterwards, clients reach PostgreSQL again."""
    with Broker():
        pass

    async def work() -> str:
        client = amqp.Client("amqp://127.0.0.1:2", outbox=await postgres.outbox(), timeout=0)
        ended = await client.publish("", "q", b"")
        await client.shutdown(2)
        return str(ended)

    assert asyncio.run(work()) == STORED


# Like the real one


class Performance:
    """What two clients' stores and transactions do at random, and what is seen."""

    def __init__(self, seed: int, make: Callable[[], Store], commit: Callable[[OutboxInsert], object]) -> None:
        self._chance = random.Random(seed)
        self._stores = [make(), make()]
        self._open: set[Store] = set()
        self._commit = commit
        self._number = 0
        self.seen: list[object] = []

    async def run(self) -> list[object]:
        """Do forty things."""
        for _ in range(40):
            store = self._chance.choice(self._stores)
            step = self._chance.choice(
                (self._put, self._put, self._store, self._read, self._read, self._close, self._look)
            )
            if store in self._open or step == self._store:
                await step(store)
            else:
                await store.open()
                self._open.add(store)
        for store in self._stores:
            await store.close({})
        return self.seen

    async def _store(self, _store: Store) -> None:
        self._number += 1
        self._commit(outbox_insert("", "q", b"x" * (self._number % 7), {"message_id": f"m{self._number}"}))

    async def _put(self, store: Store) -> None:
        self._number += 1
        await store.write(OWN, putting(f"m{self._number}", start=self._number))

    async def _look(self, store: Store) -> None:
        await store.open()
        totals = await store.totals()
        self.seen.append((totals.messages, totals.size, totals.set_aside))

    async def _close(self, store: Store) -> None:
        await store.close({})
        self._open.discard(store)

    async def _read(self, store: Store) -> None:
        found = await store.read(self._chance.randrange(1, 9), 10**6, set())
        self.seen.append([(unpack(record.message)[1].message_id, record.refusals) for _, record in found])
        for (box, number), _ in found[:3]:
            change = self._chance.choice((Changes(deletes={number}), Changes(suspects=[number] * 2)))
            change.set_asides = self._chance.choice(({}, {number: "no"}))
            await store.write(box, change)


@pytest.mark.parametrize("seed", range(6))
async def test_both_databases_do_the_same(seed: int, database: str) -> None:
    """Two clients that come and go, and transactions, see the same messages in the same order."""
    memory = Database()
    with psycopg.connect(database, autocommit=True) as connection:
        real = Performance(
            seed, lambda: PostgresStore(database, "amqp"), lambda each: connection.execute(*each.psycopg)
        )
        seen = await real.run()

    def commit(insert: OutboxInsert) -> None:
        with memory.transaction() as transaction:
            transaction.execute(*insert.psycopg)

    assert await Performance(seed, lambda: memory.store("", "amqp"), commit).run() == seen
    assert len(seen) > 5
