"""A client without a web application: made by the environment, in a block, and flushed."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from sprockets_amqp import Client, NotReadyError, OutcomeUnknown, State
from sprockets_amqp.testing import Broker
from tests.support.consume import Queue
from tools.rabbitmq import Node

ROOT = Path(__file__).parent.parent
URL = "amqp://broker"


async def test_a_block_shuts_the_client_down(broker: Node, queue: Queue) -> None:
    """What was published in it is confirmed, and the connection is closed."""
    async with Client(queue.url) as client:
        future = client.publish(queue.exchange, queue.routing_key, b"", {"message_id": "m"})
        await client.flush(30)
        assert future.done()
    assert client.closed and not client.recovers and client.connection is None
    assert await queue.message_ids() == ["m"]


def test_a_block_that_raises_shuts_it_down_too(amqp_broker: Broker) -> None:
    """And the exception goes on."""

    async def fail() -> Client:
        client = Client(URL)
        with pytest.raises(ZeroDivisionError):
            await divide(client)
        return client

    async def divide(client: Client) -> None:
        async with client:
            await client.wait_for(State.READY)
            1 / 0  # noqa: B018

    assert amqp_broker.run(fail()).closed
    assert amqp_broker.peers[0].said_goodbye


def test_a_client_made_before_the_loop_belongs_to_the_block(amqp_broker: Broker) -> None:
    """The block binds it to the loop that runs."""
    client = Client(URL)

    async def use() -> None:
        async with client:
            assert await client.publish("amq.topic", "key", b"") is None

    amqp_broker.run(use())
    assert len(amqp_broker.published) == 1


def test_flush_waits_for_what_is_in_line_and_on_the_wire(amqp_broker: Broker) -> None:
    """However long the broker takes."""

    async def publish() -> list[bool]:
        client = Client(URL, max_unconfirmed=2)
        before = [client.publish("amq.topic", "key", b"") for _ in range(5)]
        flushing = asyncio.ensure_future(client.flush())
        await asyncio.sleep(0)
        amqp_broker.delay = 1
        await asyncio.sleep(0.5)
        assert not flushing.done()
        await client.wait_for(State.READY)
        await flushing
        return [future.done() for future in before]

    assert amqp_broker.run(publish()) == [True] * 5


def test_flush_ends_with_what_failed(amqp_broker: Broker) -> None:
    """It raises none of it: the futures do."""
    amqp_broker.stop()

    async def publish() -> None:
        client = Client(URL, timeout=1)
        future = client.publish("amq.topic", "key", b"")
        await client.flush()
        assert isinstance(future.exception(), NotReadyError)
        await client.flush()

    amqp_broker.run(publish())


def test_flush_has_a_limit(amqp_broker: Broker) -> None:
    """After which what was published goes on all the same."""

    async def publish() -> None:
        client = Client(URL)
        await client.wait_for(State.READY)
        amqp_broker.swallow_confirms()
        future = client.publish("", "q", b"", mandatory=False)
        with pytest.raises(TimeoutError, match="1 message has not ended within 3 s: connection is Ready"):
            await client.flush(3)
        assert not future.done()
        amqp_broker.cut()
        with pytest.raises(OutcomeUnknown):
            await future

    amqp_broker.run(publish())


def test_the_environment_gives_the_settings(monkeypatch: pytest.MonkeyPatch, amqp_broker: Broker) -> None:
    """Arguments come before it, and what is wrong with it is told by its name."""
    monkeypatch.setenv("AMQP_URL", "amqp://user:secret@elsewhere")
    monkeypatch.setenv("AMQP_TIMEOUT", "7")
    client = Client.from_environment(confirm_timeout=3)
    assert client.parameters is not None
    assert (client.parameters.host, client.settings.timeout, client.settings.confirm_timeout) == ("elsewhere", 7, 3)
    assert Client.from_environment(timeout=2).settings.timeout == 2
    monkeypatch.setenv("AMQP_TIMEOUT", "soon")
    with pytest.raises(ValueError, match=r"timeout \(environment variable AMQP_TIMEOUT\) must be a number, not 'soon'"):
        Client.from_environment()


@pytest.mark.parametrize(("count", "exists"), [(50, True), (20_000, True), (10, False)])
async def test_the_example_runs_as_it_says(broker: Node, count: int, exists: bool) -> None:
    """It publishes more than may wait in line, is told of each, and ends; its status says whether all was confirmed."""
    url = broker.url if exists else f"{broker.url.removesuffix('%2f')}nowhere"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-m", "examples.worker", str(count)),
        cwd=ROOT,
        env={**os.environ, "AMQP_URL": url, "AMQP_TIMEOUT": "3"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    confirmed = count if exists else 0
    assert (process.returncode, out.decode()) == (confirmed < count, f"{confirmed} confirmed\n")
    assert len([line for line in err.decode().splitlines() if "was not sent" in line]) == count - confirmed
