"""docs/errors.md: each error is caused, on a broker in memory, and says and answers what the page shows."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from tornado.web import Application, RequestHandler

import sprockets_amqp as amqp
from examples.demo import on_broker
from sprockets_amqp import AMQPException, Client, PublishingMixin, State, errors
from sprockets_amqp.handlers.answers import answer
from sprockets_amqp.testing import Broker
from tests.support.documents import Document
from tools.rabbitmq import Node

ERRORS: Final = Document("docs/errors.md")

TESTED: Final = {("In a handler", "json"), ("In a handler", "python")}

FAMILIES: Final = {errors.AMQPException, errors.PublishingFailure}
KINDS: Final = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, AMQPException) and kind not in FAMILIES
}


def publish(client: Client, exchange: str = "orders", **properties: Any) -> "asyncio.Future[None]":
    """Publish the message that the page is about."""
    return client.publish(exchange, "order.placed", b"a book", {"message_id": "order-4711", **properties})


async def not_ready(broker: Broker, client: Client) -> None:
    """RabbitMQ is stopped, and stays so."""
    broker.stop()
    await client.wait_for(State.CLOSED)
    await publish(client)


async def invalid(_broker: Broker, client: Client) -> None:
    """The priority is none."""
    await publish(client, priority=300)


async def refused(broker: Broker, client: Client) -> None:
    """The exchange is gone."""
    broker.exchange_delete("orders")
    await publish(client)


async def returned(broker: Broker, client: Client) -> None:
    """The queue is gone."""
    broker.queue_delete("orders")
    await publish(client)


async def nacked(broker: Broker, client: Client) -> None:
    """The queue is full."""
    broker.fill("orders")
    await publish(client)


async def unknown(broker: Broker, client: Client) -> None:
    """RabbitMQ is stopped before it has confirmed the message."""
    broker.swallow_confirms()
    published = publish(client)
    while not client.unconfirmed:
        await asyncio.sleep(0)
    broker.stop()
    await published


async def bad_state(_broker: Broker, client: Client) -> None:
    """It is connected already."""
    client.connect()


#: How each error comes about.
CAUSES: Final[dict[str, Callable[[Broker, Client], Awaitable[None]]]] = {
    "NotReadyError": not_ready,
    "InvalidMessage": invalid,
    "ExchangeRefused": refused,
    "MessageReturned": returned,
    "MessageNacked": nacked,
    "OutcomeUnknown": unknown,
    "ConnectionStateError": bad_state,
}


@pytest.fixture
def memory(amqp_broker: Broker) -> Broker:
    """A broker with the exchange and the queue of the page."""
    amqp_broker.exchange_declare("orders", "topic")
    amqp_broker.queue_declare("orders")
    amqp_broker.queue_bind("orders", "orders", "order.*")
    return amqp_broker


@pytest.mark.parametrize("name", KINDS)
def test_it_says_what_the_page_shows(name: str, memory: Broker) -> None:
    """Word for word, and it knows its message."""

    async def cause() -> AMQPException:
        async with Client("amqp://localhost", fail_on_return=True) as client:
            await client.wait_for(State.READY)
            with pytest.raises(KINDS[name]) as raised:
                await CAUSES[name](memory, client)
            return raised.value

    error = memory.run(cause())
    assert f"{error}\n" == ERRORS.block(name, "text")
    assert error.message_id == (None if name == "ConnectionStateError" else "order-4711")
    assert (error.__cause__ is not None) is (name == "OutcomeUnknown")


def test_the_table_is_that_of_the_code() -> None:
    """Each error of a publish has a row and a heading: whether the message may have arrived, and the answer."""
    rows = {re.sub(r"\[`(\w+)`\].*", r"\1", row[0]): row[1:3] for row in ERRORS.rows("Errors")}
    expected = {}
    for name, kind in KINDS.items():
        found = answer(kind())
        if found is not None:
            seen = f"{found.status}, `Retry-After`" if found.status == 503 else str(found.status)
            expected[name] = ["yes" if kind.may_have_arrived else "no", seen.strip("`")]
    assert rows == expected
    assert set(KINDS) <= set(re.findall(r"^## (\w+)$", ERRORS.text, re.MULTILINE))


def test_their_families_are_those_of_the_code() -> None:
    """All are AMQPException, all but two are PublishingFailure, and InvalidMessage is a ValueError."""
    others = {name for name, kind in KINDS.items() if not issubclass(kind, errors.PublishingFailure)}
    assert others == {"NotReadyError", "ConnectionStateError"}
    assert issubclass(amqp.InvalidMessage, ValueError)
    assert {each.__name__ for each in FAMILIES} <= set(re.findall(r"\w+", ERRORS.text))


class Unwary(PublishingMixin, RequestHandler):
    """A handler that catches nothing."""

    async def post(self) -> None:
        """Publish what was posted."""
        await self.amqp_publish("orders", "order.placed", self.request.body, {"message_id": "order-4711"}, timeout=2)


def test_an_error_is_answered_as_the_page_shows(memory: Broker) -> None:
    """As JSON, with the delay after which the client tries again."""
    application = Application([("/", Unwary)])
    amqp.install(application, reconnect_delay=7.5)
    memory.stop()
    found = memory.fetch(application, "/", method="POST", body="a book")
    assert (found.code, found.headers["Retry-After"]) == (503, "8")
    assert json.loads(found.body) == json.loads(ERRORS.block("In a handler", "json"))


def test_a_handler_may_catch_them(memory: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """It answers an outage with 503, what may have arrived with 202, and what has not with 500."""
    names: dict[str, Any] = {"__name__": "errors"}
    exec(compile(ERRORS.block("In a handler", "python"), ERRORS.path, "exec"), names)  # noqa: S102 - what is tested
    application = Application([("/", names["Orders"])])
    amqp.install(application)

    def post() -> int:
        return memory.fetch(application, "/", method="POST", body="a book").code

    codes = [post()]
    memory.fill("orders")
    codes.append(post())
    memory.exchange_delete("orders")
    memory.close_channel()
    codes.append(post())
    memory.stop()
    codes.append(post())
    assert codes == [200, 202, 500, 503]
    assert "NOT_FOUND" in caplog.text and "order-4711" in caplog.text


async def test_the_codes_of_a_refusal_are_those_of_rabbitmq(broker: Node) -> None:
    """A missing exchange, one that the user may not write to, an internal one, and the name of another user."""
    url = await broker.add_user("reader")
    await broker.ctl("set_permissions", "reader", "^$", "^known$", ".*")
    await on_broker(broker.url, lambda channel: channel.exchange_declare("inner", internal=True))
    try:
        async with Client(broker.url) as guest, Client(url) as reader:
            publishes = [
                publish(guest, "missing"),
                publish(reader, "amq.direct"),
                publish(guest, "inner"),
                publish(guest, "amq.direct", user_id="reader"),
            ]
            ends = await asyncio.gather(*publishes, return_exceptions=True)
    finally:
        await on_broker(broker.url, lambda channel: channel.exchange_delete("inner"))
        await broker.ctl("delete_user", "reader")
    codes = [end.reply_code for end in ends if isinstance(end, amqp.ExchangeRefused)]
    assert codes == [404, 403, 403, 406]
    assert {row[0] for row in ERRORS.rows("ExchangeRefused")} == {str(code) for code in codes}
