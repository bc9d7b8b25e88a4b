"""docs/reliability.md: its examples run, its numbers are the client's, and each row says what happens."""

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any, Final

import pytest

import sprockets_amqp as amqp
from sprockets_amqp.connection import address, lifecycle
from sprockets_amqp.connection.attempts import CHANNEL_DELAY, Backoff
from sprockets_amqp.delivery import check, exchanges
from sprockets_amqp.testing import Broker
from tests.support.documents import Document
from tools.rabbitmq import Node

PAGE: Final = Document("docs/reliability.md")

TESTED: Final = {("Confirms", "python"), ("Duplicates", "python")}

URL: Final = "amqp://broker"


@pytest.fixture
def orders(amqp_broker: Broker) -> Broker:
    """A broker that has what the examples publish to."""
    amqp_broker.exchange_declare("orders", "topic")
    amqp_broker.queue_declare("orders")
    amqp_broker.queue_bind("orders", "orders", "order.#")
    return amqp_broker


async def ended(client: amqp.Client, *message: Any, **options: Any) -> object:
    """Publish a message; returns the class of what it ended with, or None."""
    (result,) = await asyncio.gather(client.publish(*message, **options), return_exceptions=True)
    return type(result) if isinstance(result, BaseException) else result


# What the examples do


async def test_a_persistent_message_is_published(orders: Broker) -> None:
    """It ends when it is confirmed."""
    async with amqp.Client(URL) as client, PAGE.run("Confirms", client=client, body=b"a book"):
        (message,) = orders.messages("orders")
        assert (message.properties.delivery_mode, message.confirmed) == (2, True)


async def test_what_may_have_arrived_is_published_again_with_its_id(orders: Broker) -> None:
    """The first one's confirmation never comes; a consumer sees the same id twice."""
    orders.swallow_confirms()
    async with amqp.Client(URL, confirm_timeout=0.05) as client, PAGE.run("Duplicates", amqp=amqp) as names:
        placed = asyncio.create_task(names["place"](client, 4711, b"a book"))
        while len(orders.published) < 2:
            await asyncio.sleep(0)
        orders.release_confirms()
        await placed
    assert [message.properties.message_id for message in orders.messages("orders")] == ["order-4711"] * 2


async def test_an_unroutable_message_is_acked(orders: Broker) -> None:
    """Only `fail_on_return` makes an error of it."""
    for fails, ends in ((False, None), (True, amqp.MessageReturned)):
        async with amqp.Client(URL, fail_on_return=fails) as client:
            assert await ended(client, "orders", "nobody.listens", b"") is ends


# What is said of questions


def test_a_bad_value_and_a_missing_exchange_affect_no_other_message(orders: Broker) -> None:
    """The first two rows of the table."""
    rows = PAGE.rows("Exchange checks")

    async def publish(*bad: Any) -> list[object]:
        async with amqp.Client(URL) as client:
            other = ended(client, "orders", "order.placed", b"")
            return list(await asyncio.gather(ended(client, *bad), other))

    orders.refuse_exchange("forbidden", 403)
    for row, bad in (
        (rows[0], ("orders", "order.placed", b"", {"priority": 300})),
        (rows[0], ("orders", "k" * 256, b"")),
        (rows[0], ("orders", "order.placed", b"", {"headers": {"long": "x" * 200_000}})),
        (rows[1], ("missing", "order.placed", b"")),
        (rows[1], ("forbidden", "order.placed", b"")),
    ):
        ends = getattr(amqp, row[2])
        assert orders.run(publish(*bad)) == [ends, None]
        assert row[3] == "are not affected"


def test_an_exchange_that_is_deleted_closes_the_channel_once(orders: Broker) -> None:
    """The third row: its message and those in flight are unknown, later ones are refused."""
    row = PAGE.rows("Exchange checks")[2]

    async def publish() -> list[object]:
        async with amqp.Client(URL) as client:
            for exchange in ("orders", "amq.topic"):
                await client.publish(exchange, "order.placed", b"")
            orders.exchange_delete("orders")
            both = asyncio.gather(
                ended(client, "orders", "order.placed", b""), ended(client, "amq.topic", "order.placed", b"")
            )
            return [*await both, await ended(client, "orders", "order.placed", b"")]

    first, other, later = orders.run(publish())
    assert re.findall(r"`(\w+)`", f"`{row[2]}`") == [first.__name__, later.__name__]  # type: ignore[attr-defined]
    assert f"`{other.__name__}`" in row[3]  # type: ignore[attr-defined]


def test_the_times_of_a_question_are_the_clients() -> None:
    """How long it may take, and for how long a costly one is not asked again."""
    section = PAGE.section("Exchange checks")
    assert f"within {check.CHECK_LIMIT:g} seconds" in section
    assert exchanges.COSTLY_LIMIT == 5 * 60
    assert "for five minutes" in section


# What is said of time and limits


def test_the_delays_are_those_of_the_default_settings() -> None:
    """From half of each delay to all of it, until it grows no more."""
    settings = amqp.Settings()
    backoff = Backoff(settings.reconnect_delay, settings.max_reconnect_delay)
    rows = PAGE.rows("Reconnecting")
    for doublings, (_, said) in enumerate(rows):
        least, most = (float(number) for number in said.split(" to "))
        assert most == min(settings.max_reconnect_delay, settings.reconnect_delay * 2**doublings)
        assert least == most / 2
        assert least <= backoff.next() <= most
    assert rows[-1] == ["fifth and later", f"{settings.max_reconnect_delay / 2:g} to {settings.max_reconnect_delay:g}"]
    assert f"after {CHANNEL_DELAY:g} seconds" in PAGE.section("Reconnecting")


def test_the_limits_are_the_clients(amqp_broker: Broker) -> None:
    """Each number of the table is the setting's default, or the limit in the code."""
    defaults = amqp.Settings()
    rows = {row[0].replace("`", ""): re.sub("[`,]", "", row[1]) for row in PAGE.rows("Limits")}
    unconfirmed = (
        f"max_unconfirmed {defaults.max_unconfirmed}; "
        f"max_unconfirmed_size {defaults.max_unconfirmed_size // 1024**2} MiB"
    )
    lengths = f"max_waiting {defaults.max_waiting}; max_waiting_size {defaults.max_waiting_size // 1024**2} MiB"
    assert rows == {
        "messages on the wire, unconfirmed": unconfirmed,
        "messages in line": lengths,
        "waiting in line": f"timeout {defaults.timeout:g} seconds",
        "waiting for a confirm": f"confirm_timeout {defaults.confirm_timeout:g} seconds",
        "calling a url function": f"{address.CALL_LIMIT:g} seconds",
        "reaching one node, up to its handshake": f"stack_timeout in the URL {_stack_timeout():g} seconds",
        "setup": f"{lifecycle.SETUP_LIMIT:g} seconds",
        "a message that went out into an alarm": "timeout as for one that waits",
        "close(), sending what waits, and waiting for confirms": f"{lifecycle.DRAIN_LIMIT:g} seconds",
        "shutdown()": f"its timeout {_default_of_shutdown():g} seconds",
    }


def _stack_timeout() -> float:
    parameters = amqp.Client(URL).parameters
    assert parameters is not None and f"{parameters.socket_timeout:g} seconds" in PAGE.section("Limits")
    return float(parameters.stack_timeout or 0)


def _default_of_shutdown() -> float:
    return float(inspect.signature(amqp.Client.shutdown).parameters["timeout"].default)


def test_full_limits_end_as_the_table_says(orders: Broker, tmp_path: Path) -> None:
    """The line, the time in it, and the time to the confirm."""
    said = {row[0]: row[2] for row in PAGE.rows("Limits")}

    async def publish() -> None:
        async with amqp.Client(URL, timeout=5, confirm_timeout=3, max_unconfirmed=1, max_waiting=1) as client:
            await client.wait_for(amqp.State.READY)
            message = ("orders", "order.placed", b"")
            await client.publish(*message)
            orders.swallow_confirms()
            sent, waits, refused = (asyncio.create_task(ended(client, *message)) for _ in range(3))
            await asyncio.sleep(0.01)
            assert (client.unconfirmed, client.waiting, refused.result().__name__) == (  # type: ignore[attr-defined]
                1,
                1,
                said["messages in line"].removesuffix("` at once"),
            )
            assert (await sent).__name__ == said["waiting for a confirm"]  # type: ignore[attr-defined]
            assert (await waits).__name__ == said["waiting in line"]  # type: ignore[attr-defined]
            orders.release_confirms()

    orders.run(publish())


async def test_rabbitmq_proposes_the_heartbeat_that_the_page_names(broker: Node) -> None:
    """It is longer than the default for confirms, so that a silent line ends publishes by `confirm_timeout`."""
    async with amqp.Client(broker.url) as client:
        await client.wait_for(amqp.State.READY, 30)
        assert client.connection is not None
        heartbeat: Any = client.connection.params.heartbeat
    assert f"RabbitMQ proposes {heartbeat} seconds" in PAGE.section("Reconnecting")
    assert heartbeat > amqp.Settings().confirm_timeout
