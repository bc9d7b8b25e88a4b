"""docs/exchanges.md: what its functions declare is there, on RabbitMQ, and does what the page says."""

import asyncio
import inspect
import logging
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from tornado.web import Application

import sprockets_amqp as amqp
from examples.demo import on_broker
from sprockets_amqp import Client, Topology
from sprockets_amqp.connection.lifecycle import SETUP_LIMIT
from tests.support.command import run
from tests.support.documents import Document
from tools.rabbitmq import Node

EXCHANGES: Final = Document("docs/exchanges.md")

TESTED: Final = {
    ("Declare what you publish to", "python"),
    ("When a declaration is refused", "sh"),
    ("When a declaration is refused", "python"),
    ("Unroutable messages", "python"),
    ("Recipes", "python"),
}
#: The vhost of these tests, and its user.
NAME: Final = "exchanges"
ALL: Final = (".*", ".*", ".*")


@pytest.fixture(scope="module")
def vhost(broker: Node) -> Iterator[str]:
    """The URL of a vhost of these tests' own."""
    yield asyncio.run(broker.add_user(NAME, vhost=NAME))
    asyncio.run(broker.ctl("delete_vhost", NAME))
    asyncio.run(broker.ctl("delete_user", NAME))


@pytest.fixture
async def url(vhost: str) -> AsyncIterator[str]:
    """The same; what the test declared is deleted after it."""
    yield vhost
    await on_broker(vhost, delete_all)


def delete_all(channel: BlockingChannel) -> None:
    """Delete what any test declares; what is not there is deleted all the same."""
    for exchange in ("a", "audit", "b", "dead", "events", "payments", "unrouted"):
        channel.exchange_delete(exchange)
    for queue in ("audit", "dead", "events.all", "jobs", "mail", "orders", "q", "unrouted"):
        channel.queue_delete(queue)


def function(heading: str, number: int = 0) -> Any:
    """What the block under the heading defines, as `declare`."""
    names: dict[str, Any] = {}
    text = EXCHANGES.block(heading, "python", number).partition("\n\n\ninstall(")[0]
    exec(compile(text, EXCHANGES.path, "exec"), names)  # noqa: S102 - what is tested
    return names["declare"]


async def take(url: str, queue: str) -> bytes | None:
    """Take a message out of a queue."""
    return (await on_broker(url, lambda channel: channel.basic_get(queue, auto_ack=True)))[2]  # type: ignore[no-any-return]


async def test_what_setup_declares_is_there(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that is published at once arrives in the queue."""
    monkeypatch.setenv("AMQP_URL", url)
    application = Application()
    async with EXCHANGES.run("Declare what you publish to", application=application):
        client: Client = application.amqp  # type: ignore[attr-defined]
        await client.publish("events", "user.created", b"first")
        assert await take(url, "events.all") == b"first"
    assert f"may take {SETUP_LIMIT:g} seconds" in EXCHANGES.section("Declare what you publish to")


def test_the_methods_are_those_of_topology() -> None:
    """Each with its arguments, in their order."""
    shown = {
        row[0].partition("(")[0]: re.findall(r"(?<=[(,] )[\w*]+|(?<=\()\w+", row[0])
        for row in EXCHANGES.rows("Declare what you publish to")
    }
    methods = {name: each for name, each in vars(Topology).items() if not name.startswith("_") and name != "close"}
    expected = {}
    for name, method in methods.items():
        _self, *parameters = inspect.signature(method).parameters.values()
        first = next((each.name for each in parameters if each.kind is each.KEYWORD_ONLY), None)
        expected[name] = [named for each in parameters for named in (["*"] if each.name == first else []) + [each.name]]
    assert shown == expected


# Refusals


async def test_a_refused_declaration_is_shown(broker: Node, url: str, caplog: pytest.LogCaptureFixture) -> None:
    """As on the page, but for the place and the time; then it succeeds, and publishing goes on."""
    await on_broker(url, lambda channel: channel.exchange_declare("events", "fanout", durable=True))
    async with Client(url, setup=function("Declare what you publish to"), reconnect_delay=0.2) as client:
        waits = client.publish("events", "user.created", b"", timeout=30)
        await client.wait_for(amqp.State.CLOSED, 30)
        told = re.sub(r"\d+\.\d s$", "3.2 s", caplog.messages[-1])
        told = told.replace(f"127.0.0.1:{broker.port}", "localhost:5672").replace(f"'{NAME}'", "'/'")
        assert f"{told}\n" == EXCHANGES.block("When a declaration is refused", "text")
        await on_broker(url, lambda channel: channel.exchange_delete("events"))
        await waits


async def test_setup_is_tried_before_it_is_deployed(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command of the page, in the folder of `events.py`."""
    text = EXCHANGES.block("Declare what you publish to", "python").partition("\n\n\ninstall(")[0]
    (tmp_path / "events.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    (command,) = EXCHANGES.commands("When a declaration is refused")
    program, *arguments = command.split()
    done = await run(*arguments, AMQP_URL=url)
    assert (program, done.status) == ("sprockets-amqp", 0), done.out
    assert "declare() declared everything" in done.out


async def test_a_refusal_may_be_caught(broker: Node, url: str) -> None:
    """With and without the exchange of another team."""
    for declared in (False, True):
        if declared:
            await on_broker(url, lambda channel: channel.queue_delete("orders"))
            await on_broker(url, lambda channel: channel.exchange_declare("dead", "fanout"))
        async with Client(url, setup=function("When a declaration is refused")) as client:
            await client.wait_for(amqp.State.READY, 30)
        listed = await broker.ctl("list_queues", "--vhost", NAME, "name", "arguments")
        assert ("x-dead-letter-exchange" in listed) is declared


@pytest.mark.usefixtures("amqp_broker")
async def test_nothing_is_published_inside_setup() -> None:
    """The publish says what to use instead."""
    ends: list[BaseException] = []

    async def declare(_topology: Topology) -> None:
        try:
            await client.publish("amq.topic", "key", b"")
        except amqp.NotReadyError as error:
            ends.append(error)

    client = Client("amqp://localhost", setup=declare)
    await client.wait_for(amqp.State.READY, 30)
    await client.shutdown()
    assert "use on_ready_callback" in str(ends[0])


async def test_the_permissions_are_those_that_rabbitmq_asks_for(broker: Node, url: str) -> None:
    """All of the table are enough for everything; without any one of them, something is refused."""
    named = {"the exchange": "a", "the queue": "q", "the destination": "b", "the source": "a"}
    columns = list(zip(*(row[1:] for row in EXCHANGES.rows("Permissions")), strict=True))
    configure, write, read = ({named[cell] for cell in column if cell != "-"} for column in columns)
    configure |= {"b"}

    async def declare(topology: Topology) -> None:
        await topology.exchange_declare("a", "topic")
        await topology.exchange_declare("b", "topic")
        await topology.queue_declare("q")
        await topology.queue_bind("q", "a", "#")
        await topology.exchange_bind("b", "a", "#")

    async def refusal(*permissions: set[str]) -> str:
        patterns = (f"^({'|'.join(sorted(names))})$" for names in permissions)
        await broker.ctl("set_permissions", "--vhost", NAME, NAME, *patterns)
        async with Client(url, setup=declare, timeout=2, reconnect_delay=10) as client:
            (end,) = await asyncio.gather(client.publish("a", "key", b""), return_exceptions=True)
            return str(end)

    try:
        assert await refusal(configure, write, read) == "None"
        # From 4.0 on RabbitMQ says as well which access it is.
        assert re.search(r"REFUSED - (\w+ )?access to queue 'q'", await refusal(configure - {"q"}, write, read))
        assert re.search(r"REFUSED - (\w+ )?access to exchange 'b'", await refusal(configure, write - {"b"}, read))
        assert re.search(r"REFUSED - (\w+ )?access to exchange 'a'", await refusal(configure, write, read - {"a"}))
    finally:
        await broker.ctl("set_permissions", "--vhost", NAME, NAME, *ALL)


# Unroutable messages


@pytest.mark.usefixtures("amqp_broker")
async def test_what_is_unroutable_is_handed_over(caplog: pytest.LogCaptureFixture) -> None:
    """To the callback, and then no critical line is logged; without it, one is."""
    caplog.set_level(logging.WARNING)
    application = Application()
    async with EXCHANGES.run("Unroutable messages", application=application):
        client: Client = application.amqp  # type: ignore[attr-defined]
        await client.publish("amq.topic", "nobody", b"four")
        await asyncio.sleep(0)
    assert caplog.messages == ["no queue for 'nobody' of exchange 'amq.topic': 4 bytes"]
    caplog.clear()
    async with Client("amqp://localhost") as client:
        await client.publish("amq.topic", "nobody", b"secret")
        await client.publish("amq.topic", "nobody", b"secret", mandatory=False)
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]
    assert "nobody" in caplog.text and "secret" not in caplog.text


# Recipes


async def test_the_recipes_do_what_they_say(broker: Node, url: str) -> None:
    """An alternate exchange, a quorum queue, dead letters, a limit, and an exchange that feeds another."""
    async with Client(url, setup=function("Recipes"), fail_on_return=True) as client:
        await client.publish("payments", "payment.made", b"payment")
        assert await take(url, "audit") == b"payment"
        await client.publish("events", "order.placed", b"unrouted")
        assert await take(url, "unrouted") == b"unrouted"

        await client.publish("", "mail", b"late", {"expiration": "1"})
        await until_dead(url)

        await asyncio.gather(*(client.publish("", "jobs", b"") for _ in range(1000)))
        with pytest.raises(amqp.MessageNacked):
            await client.publish("", "jobs", b"")
    listed = await broker.ctl("list_queues", "--vhost", NAME, "name", "type", "arguments")
    assert re.search(r"^orders\t.*quorum", listed, re.MULTILINE)
    assert re.search(r"^mail\t.*60000", listed, re.MULTILINE)


async def until_dead(url: str) -> None:
    """Wait until the letter is among the dead."""
    found: list[bytes | None] = []
    while not any(found):
        found.append(await take(url, "dead"))
    assert found[-1] == b"late"
