"""docs/publishing.md: its programs publish to a broker in memory, its tables are those of the code."""

import dataclasses
import inspect
import re
from typing import Any, Final

import pytest
from tornado.web import Application

import sprockets_amqp as amqp
from sprockets_amqp import Client, Settings, errors
from sprockets_amqp.delivery.encoding import PROPERTY_NAMES
from sprockets_amqp.delivery.options import OPTIONS
from sprockets_amqp.testing import Broker
from tests.support.documents import Document

PUBLISHING: Final = Document("docs/publishing.md")

TESTED: Final = {
    ("Publishing and its outcomes", "python"),
    ("Properties", "python"),
    ("Many messages", "python"),
    ("Without awaiting", "python"),
    ("Without a web application", "python"),
}


@pytest.fixture(autouse=True)
def declared(amqp_broker: Broker) -> Broker:
    """A broker that has what the page publishes to."""
    for exchange in ("orders", "events"):
        amqp_broker.exchange_declare(exchange, "topic")
        amqp_broker.queue_declare(exchange)
        amqp_broker.queue_bind(exchange, exchange, "#")
    return amqp_broker


def program(heading: str) -> dict[str, Any]:
    """Run the block under the heading as a program; returns its names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(PUBLISHING.block(heading, "python"), PUBLISHING.path, "exec"), names)  # noqa: S102 - what is tested
    return names


# What the programs do


def test_the_handler_publishes(amqp_broker: Broker) -> None:
    """And answers 202 when its order was confirmed, 503 after two seconds without RabbitMQ."""
    application = Application([("/orders", program("Publishing and its outcomes")["Orders"])])
    amqp.install(application)
    assert amqp_broker.fetch(application, "/orders", method="POST", body="a book").code == 202
    (order,) = amqp_broker.messages("orders")
    assert (order.body, order.properties.delivery_mode) == (b"a book", 2)
    amqp_broker.stop()
    before = amqp_broker.clock.now
    assert amqp_broker.fetch(application, "/orders", method="POST", body="a book").code == 503
    assert amqp_broker.clock.now - before == pytest.approx(2, abs=0.1)


def test_an_order_of_unknown_outcome_is_sent_again_with_its_id(amqp_broker: Broker) -> None:
    """Three times; each has the same id."""
    place_order = program("Properties")["place_order"]

    async def place() -> None:
        async with Client("amqp://localhost", confirm_timeout=1) as client:
            await place_order(client, b"one")
            amqp_broker.swallow_confirms()
            with pytest.raises(RuntimeError, match="three attempts"):
                await place_order(client, b"two")
            amqp_broker.release_confirms()

    amqp_broker.run(place())
    one, *two = amqp_broker.messages("orders")
    assert one.body == b"one"
    assert [order.body for order in two] == [b"two"] * 3
    assert len({order.properties.message_id for order in two}) == 1


def test_any_number_is_published_within_the_limits(amqp_broker: Broker) -> None:
    """More than may wait; a hundred are under way with the next one, and none fails."""
    publish_all = program("Many messages")["publish_all"]
    most = 0

    async def publish() -> None:
        async with Client("amqp://localhost", max_unconfirmed=100, max_waiting=1000) as client:

            def bodies() -> Any:
                nonlocal most
                for number in range(5000):
                    most = max(most, client.waiting + client.unconfirmed)
                    yield str(number).encode()

            assert await publish_all(client, bodies()) == []

    amqp_broker.run(publish())
    assert [int(message.body) for message in amqp_broker.messages("events")] == [*range(5000)]
    assert most == 99


def test_one_that_fails_is_told_and_harms_no_other(amqp_broker: Broker) -> None:
    """Nothing is abandoned: each of the others is confirmed, and no future is left for asyncio to complain about."""
    publish_all = program("Many messages")["publish_all"]

    async def publish() -> Any:
        async with Client("amqp://localhost") as client:
            await client.wait_for(amqp.State.READY)
            amqp_broker.nack_next(3)
            return await publish_all(client, (b"event" for _ in range(2500)))

    assert [type(outcome.error) for outcome in amqp_broker.run(publish())] == [amqp.MessageNacked] * 3
    assert [message.confirmed for message in amqp_broker.messages("events")].count(True) == 2497


def test_failures_are_counted_after_a_flush(amqp_broker: Broker) -> None:
    """Every future has ended by then."""
    report = program("Without awaiting")["report"]

    async def publish() -> int:
        async with Client("amqp://localhost") as client:
            await client.wait_for(amqp.State.READY)
            amqp_broker.nack_next(2)
            return int(await report(client, ["one", "two", "three"]))

    assert amqp_broker.run(publish()) == 2


def test_a_worker_needs_no_application(amqp_broker: Broker) -> None:
    """Its message is in the queue when it has ended."""
    program("Without a web application")
    (message,) = amqp_broker.messages("events")
    assert (message.body, message.properties.content_type) == (b"42", "text/plain")


# What the page says


def test_the_arguments_are_those_of_the_code() -> None:
    """In the signatures and in the table, with every option."""
    _self, *arguments, _options = inspect.signature(Client.publish).parameters
    for signature in PUBLISHING.block("Publishing and its outcomes", "text").splitlines():
        named = [each.partition("=")[0] for each in signature.partition("(")[2].strip(")").split(", ")]
        assert named[:4] + sorted(named[5:]) == arguments + sorted(OPTIONS)
    named = [row[0] for row in PUBLISHING.rows("Arguments")]
    assert named[:4] + sorted(named[4:]) == arguments + sorted(OPTIONS)


def test_the_properties_are_those_of_amqp() -> None:
    """Each has a row."""
    assert sorted(row[0] for row in PUBLISHING.rows("Properties")) == sorted(PROPERTY_NAMES)


def test_every_error_of_a_publish_is_an_outcome() -> None:
    """And every outcome that raises is an error of the package."""
    raised = {
        name for row in PUBLISHING.rows("What becomes of a publish") for name in re.findall(r"raises `(\w+)", row[1])
    }
    families = {errors.AMQPException, errors.PublishingFailure, errors.ConnectionStateError}
    found = {
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.AMQPException)
    }
    assert raised == {each.__name__ for each in found - families}
    for row in PUBLISHING.rows("What becomes of a publish"):
        for name in re.findall(r"raises `(\w+)", row[1]):
            assert getattr(errors, name).may_have_arrived is not row[2].startswith("no"), name


def test_the_counters_are_those_of_the_code() -> None:
    """Each has a row."""
    named = [row[0] for row in PUBLISHING.rows("Counters")]
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(amqp.Counters))


def test_the_limits_are_those_of_the_settings() -> None:
    """With their defaults."""
    shown = dict(row[0].replace("`", "").split(", ", 1) for row in PUBLISHING.rows("Limits and back-pressure"))
    found = Settings(url="amqp://localhost")
    assert shown == {
        "max_unconfirmed": f"{found.max_unconfirmed:,}",
        "max_unconfirmed_size": f"{found.max_unconfirmed_size // 1024**2} MiB",
        "max_waiting": f"{found.max_waiting:,}",
        "max_waiting_size": f"{found.max_waiting_size // 1024**2} MiB",
    }
