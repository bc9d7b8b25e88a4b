"""Text from outside, an HTTP request or a broker, forges no line of a log and moves no cursor of a terminal."""

import asyncio
import json
import logging
import signal
from typing import Any, Final

import pytest
from pamqp import commands
from pika import spec

from sprockets_amqp import Client, State
from sprockets_amqp.errors import (
    AMQPException,
    ConnectionStateError,
    ExchangeRefused,
    InvalidMessage,
    MessageNacked,
    MessageReturned,
    NotReadyError,
    OutcomeUnknown,
    PublishingFailure,
)
from sprockets_amqp.web import status
from sprockets_amqp.wire.replies import channel_lost, connection_lost, describe, reply
from tests.support.command import run, start
from tests.support.memory import Broker, in_memory
from tests.support.scripted import SERVER_PROPERTIES, ScriptedBroker

broker = in_memory

#: Line ends and a forged line, colours and a cleared screen, C1, Unicode's line ends, and directions of writing.
EVIL: Final = "x\r\nERROR forged\x1b[2J\x1b[31m\x07\x7f\x9b1m\x85\u2028\u2029\u202e\u2066end"


def harmless(text: str, limit: int = 6000) -> bool:
    """Whether text is one bounded line that a terminal shows as it is."""
    return text.isprintable() and len(text) <= limit


ERRORS: Final[list[AMQPException]] = [
    AMQPException(404, EVIL),
    AMQPException(EVIL, EVIL, EVIL),
    AMQPException(EVIL * 10000),
    AMQPException().saying(EVIL * 10000),
    ConnectionStateError(EVIL),
    NotReadyError(EVIL),
    NotReadyError(EVIL * 10000, EVIL),
    PublishingFailure(EVIL, EVIL, EVIL, EVIL),
    InvalidMessage(EVIL, EVIL * 10000),
    ExchangeRefused(404, EVIL * 10000),
    MessageReturned(312, EVIL * 10000),
    MessageNacked(EVIL),
    OutcomeUnknown(EVIL * 10000),
]


@pytest.mark.parametrize("error", ERRORS, ids=[f"{number}" for number in range(len(ERRORS))])
def test_the_sentence_of_an_error_is_harmless(error: AMQPException) -> None:
    """Whatever the message was named, and RabbitMQ said of it; the attributes keep what it was."""
    error.about(EVIL, EVIL, EVIL)
    assert harmless(str(error))
    assert (error.message_id, error.exchange, error.routing_key) == (EVIL, EVIL, EVIL)
    error.about(EVIL * 10000, EVIL * 10000, EVIL * 10000)
    assert harmless(str(error))


def test_what_ended_a_connection_is_harmless() -> None:
    """As an exception of pika's, as an event, and as an exception again."""
    for lost in (connection_lost(320, EVIL), connection_lost(0, EVIL), channel_lost(404, EVIL), OSError(EVIL * 10000)):
        assert harmless(reply(lost)[1], 600)
        assert harmless(describe(lost), 600)


def test_a_client_says_nothing_that_does_harm(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """In its log, its condition, its history and on its page, through all that RabbitMQ may say."""
    caplog.set_level(logging.DEBUG, "sprockets_amqp")
    client = broker.ready(fail_on_return=True)
    broker.unroutable.add(EVIL)
    returned = client.publish("", EVIL, b"", {"message_id": EVIL, "correlation_id": EVIL})
    broker.clock.turn()
    broker.peer.confirm_all()
    broker.peer.say(0, spec.Connection.Blocked(EVIL))
    broker.peer.deliver()
    assert "ERROR forged" in client.condition
    said = [str(returned.exception()), client.condition, *_page(client)]
    broker.peer.say(0, spec.Connection.Unblocked())
    broker.peer.close_channel(text=EVIL)
    broker.peer.deliver()
    said += [client.condition, *_page(client)]
    broker.open()
    broker.peer.say(0, spec.Connection.Close(320, EVIL, 0, 0))
    broker.peer.deliver()
    broker.clock.turn()
    waiting = client.publish("", "q", b"", {"message_id": EVIL}, timeout=0)
    said += [client.condition, str(waiting.exception()), repr(client), *_page(client)]
    said += [change.reason for change in client.history]
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("sprockets_amqp")]
    assert sum("ERROR forged" in line for line in lines) >= 4
    assert [line for line in [*said, *lines] if not harmless(line)] == []


def _page(client: Client) -> list[str]:
    snapshot = status.snapshot(client)
    changes = [status.describe_change(change) for change in client.history]
    return [value for each in [snapshot, *changes] for value in each.values() if isinstance(value, str)]


def evil_broker(**properties: Any) -> ScriptedBroker:
    """A broker that says harmful things of itself, and why it closes a connection over a message."""
    scripted = ScriptedBroker(server_properties={**SERVER_PROPERTIES, **properties})
    scripted.answers["Basic.Publish"] = commands.Connection.Close(501, EVIL, 0, 0)
    scripted.answers["Tx.Select"] = commands.Tx.SelectOk()
    return scripted


async def test_no_terminal_is_shown_what_a_broker_says_of_itself() -> None:
    """`check` cuts it, and escapes what is left."""
    async with evil_broker(product=EVIL * 100, version=EVIL * 100) as scripted:
        result = await run("check", scripted.url())
    assert result.status == 1 and "publish   FAILED" in result.out and "ERROR forged" in result.out
    assert [line for line in result.out.split("\n") if not harmless(line)] == []


async def test_no_terminal_is_shown_why_a_broker_closed_the_connection() -> None:
    """`publish` tells its reply in one line."""
    async with evil_broker() as scripted:
        result = await run(
            *("publish", "--url", scripted.url(), "--routing-key", "q", "--body", ""),
            *("--property", f"message_id={EVIL}"),
        )
    assert result.status == 1
    assert "(501)" in result.err and result.err.count("ERROR forged") == 2
    assert [line for line in result.err.split("\n") if not harmless(line)] == []


@pytest.mark.parametrize("arguments", [[], ["--json"]])
async def test_no_terminal_is_shown_why_a_broker_blocks(arguments: list[str]) -> None:
    """`watch` tells a change in a line, which with --json is JSON."""
    async with evil_broker() as scripted:
        process = await start("watch", *arguments, "--url", scripted.url())
        assert process.stdout is not None
        peer = await scripted.peer()
        await peer.received(commands.Confirm.Select)
        peer.send(commands.Connection.Blocked(EVIL), channel=0)
        lines: list[str] = []
        while not any("forged" in line for line in lines):
            lines.append((await process.stdout.readline()).decode().removesuffix("\n"))
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), 30)
    assert [line for line in lines if not harmless(line)] == []
    if arguments:
        assert all("reason" in json.loads(line) for line in lines)


@pytest.mark.parametrize(
    ("version", "limit"), [("4" * 50_000, 16), ("3.10.8", 128), ("4.3.6" + EVIL * 100, 16), (EVIL, 128), ("", 128)]
)
async def test_a_version_of_any_length_is_a_version(version: str, limit: int) -> None:
    """Python refuses to read a number of 5000 digits; the first ones tell enough."""
    async with evil_broker(version=version) as scripted:
        client = Client(scripted.url())
        await client.wait_for(State.READY, 30)
        assert client.connection is not None
        assert client.connection.body_limit == limit * 1024**2
        await client.shutdown()
