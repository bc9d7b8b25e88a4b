"""pika's log of an attempt that failed: one line, and all of it for an application that asks for it."""

import asyncio
import logging
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
from pamqp import commands

from sprockets_amqp import Client, State
from sprockets_amqp.bounded_log import MOST, Quota
from sprockets_amqp.wire import pika_log
from sprockets_amqp.wire.pika_insides import RETOLD, STRAY
from sprockets_amqp.wire.pika_log import tell_once
from tests.support.scripted import ScriptedBroker
from tools.rabbitmq import Node, free_port

PIKA = logging.getLogger("pika")


async def logged(url: str, caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return what is logged as an error or warning of one attempt to connect that fails: the logger, and the line."""
    client = Client(url, connection_attempts=1, reconnect_delay=60)
    caplog.clear()
    await client.wait_for(State.CLOSED, 30)
    condition = client.condition
    await client.shutdown()
    lines = [
        (record.name, record.getMessage().replace(condition, "CONDITION"))
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]
    caplog.clear()
    assert [re.sub(r"[\d.]+ s$", "", line) for name, line in lines if name == "sprockets_amqp.lifecycle"] == [
        f"CONDITION; trying {client._runtime.lifecycle.address.node_name} in "
    ]
    return [*lines, ("reason", client.history[-1].reason)]


async def told(url: str, caplog: pytest.LogCaptureFixture) -> str:
    """Return the reason of such an attempt, of which pika says nothing."""
    [(own, _), (_, reason)] = await logged(url, caplog)
    assert own == "sprockets_amqp.lifecycle"
    return reason


@pytest.fixture
def refusing() -> str:
    """The URL of a port on which nothing listens."""
    return f"amqp://guest:guest@127.0.0.1:{free_port()}"


async def test_a_refused_attempt_is_one_line_that_names_the_address(
    refusing: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It used to be seven errors of pika's."""
    place = refusing.rpartition("@")[2]
    assert await told(refusing, caplog) == f"TCP to {place}: Connection refused"
    named = refusing.replace("127.0.0.1", "localhost")
    reason = await told(named, caplog)
    assert reason.startswith(f"TCP to {place.replace('127.0.0.1', 'localhost')}") and "127.0.0.1" in reason


async def test_a_name_that_does_not_exist_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """As the resolver says it; some names are none at all."""
    reason = await told("amqp://nowhere.invalid", caplog)
    assert (reason.startswith("DNS of nowhere.invalid: ") and "resolution" in reason) or "not known" in reason
    assert re.match(r"DNS of a\.\.b: Unicode\w*Error: ", await told("amqp://a..b", caplog))


async def test_a_server_that_says_nothing_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """The one that says how far the attempt had come, with TLS and without."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        plain = await told(f"amqp://{place}/?stack_timeout=1", caplog)
        secure = await told(f"amqps://{place}/?stack_timeout=1", caplog)
    assert plain == f"login at {place}: no answer within 1 s"
    assert secure == f"TLS at {place}: no answer within 1 s"


async def test_a_server_that_hangs_up_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """As a proxy without a server behind it, with TLS and without; and one that is no RabbitMQ."""
    said = b""

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert await told(f"amqp://{place}", caplog) == f"login at {place}: the other side closed the connection"
    assert (await told(f"amqps://{place}", caplog)).startswith(f"TLS at {place}: ")
    said = b"SSH-2.0-OpenSSH_9.2p1\r\n"
    reason = await told(f"amqp://{place}", caplog)
    assert reason == f"login at {place}: InvalidFrameError: this is not AMQP: b'SSH-2.0-OpenSSH_9.2p1\\r\\n'"
    server.close()


async def test_what_the_broker_refuses_is_one_line_with_its_words(
    broker: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong password, a vhost that does not exist, and TLS on a plain port."""
    place = f"127.0.0.1:{broker.port}"
    login = await told(broker.url.replace("guest:guest", "guest:wrong"), caplog)
    assert login.startswith(f"login at {place}: (403) ACCESS_REFUSED - Login was refused")
    vhost = await told(broker.url.replace("%2f", "nowhere").replace("%2F", "nowhere"), caplog)
    assert vhost == f"vhost on {place}: (530) NOT_ALLOWED - vhost nowhere not found"
    assert "WRONG_VERSION_NUMBER" in await told(broker.url.replace("amqp:", "amqps:"), caplog)


@pytest.fixture(params=["level", "handler", "debug"])
def decided(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An application that decides about pika's log by itself, in one of the ways that there are."""
    handler = logging.StreamHandler()
    if request.param == "level":
        PIKA.setLevel(logging.ERROR)
    elif request.param == "handler":
        PIKA.addHandler(handler)
    else:
        caplog.set_level(logging.DEBUG)
    yield
    PIKA.removeHandler(handler)
    PIKA.setLevel(logging.NOTSET)


@pytest.mark.usefixtures("decided")
async def test_an_application_that_decides_about_pikas_log_gets_all_of_it(
    broker: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """By a level of pika's loggers, by a handler on them, or by DEBUG for everything."""
    lines = await logged(broker.url.replace("guest:guest", "guest:wrong"), caplog)
    [theirs] = [line for name, line in lines if name == "pika.connection"]
    assert "probable authentication error" in theirs


@pytest.mark.parametrize("decides", [False, True])
async def test_pika_tells_no_steps_that_succeed(broker: Node, caplog: pytest.LogCaptureFixture, decides: bool) -> None:
    """Connecting, publishing and closing at INFO is one line; an application that sets a level on pika gets all."""
    caplog.set_level(logging.INFO)
    if decides:
        caplog.set_level(logging.INFO, "pika")
    async with Client(broker.url) as client:
        await client.wait_for(State.READY, 30)
        await client.publish("amq.topic", "", b"", mandatory=False)
    names = {record.name.partition(".")[0] for record in caplog.records}
    assert names == ({"pika", "sprockets_amqp"} if decides else {"sprockets_amqp"})


async def stray_frames(count: int) -> None:
    """Have a broken broker send frames that nobody waits for, on a channel that is there and on one that is not."""
    async with ScriptedBroker() as broken:
        client = Client(broken.url())
        await client.wait_for(State.READY, 30)
        peer = await broken.peer()
        for _ in range(count):
            peer.send(commands.Queue.DeclareOk("q", 0, 0))
            peer.send(commands.Basic.Ack(1), channel=77)
        peer.send(commands.Connection.Blocked("that was all"), channel=0)
        await client.wait_for(State.BLOCKED, 30)
        await client.shutdown()


async def test_stray_frames_cannot_fill_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to be a line for each."""
    # What another test logged in this second does not count here.
    monkeypatch.setattr(pika_log._ONCE, "_quota", Quota(time.monotonic))
    await stray_frames(300)
    lines = [record.getMessage() for record in caplog.records if record.name in STRAY]
    for text in ("Unexpected frame: ", "frame for unregistered channel 77 on "):
        assert sum(text in line for line in lines) >= MOST
        assert any(text in line and "(more of these in this second are not logged)" in line for line in lines)
    # However long it took, it was no line for each.
    assert len(lines) < 300


def test_channels_that_rabbitmq_closes_cannot_fill_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers can name exchanges that do not exist: RabbitMQ closes a channel over each."""
    monkeypatch.setattr(pika_log._ONCE, "_quota", Quota(lambda: 0.0))
    tell_once()
    for number in range(3000):
        closed = "Received remote Channel.Close (%s): %r on %s"
        logging.getLogger("pika.channel").warning(closed, 404, f"no exchange '{number}'", number)
    assert len(caplog.records) == MOST + 1
    # That is what pika says.
    assert "Received remote Channel.Close (%s): %r on %s" in Path(pika.channel.__file__).read_text()


@pytest.mark.usefixtures("decided")
async def test_an_application_that_decides_gets_every_stray_frame(caplog: pytest.LogCaptureFixture) -> None:
    """As many as there are."""
    await stray_frames(20)
    assert len([record for record in caplog.records if "Unexpected frame: " in record.getMessage()]) == 20


def test_nothing_of_pikas_log_is_changed_before_a_client_is_made() -> None:
    """Importing the package leaves its loggers alone; however many clients are made, a logger has one filter."""
    script = f"""
import logging, sprockets_amqp
from tornado.ioloop import IOLoop
loggers = [logging.getLogger(name) for name in {list(RETOLD)!r}]
print([len(logger.filters) for logger in loggers])
io_loop = IOLoop(make_current=False)
clients = [sprockets_amqp.Client("amqp://localhost", io_loop=io_loop) for _ in range(2)]
print([len(logger.filters) for logger in loggers], {{logger.level for logger in loggers}})
io_loop.close()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.splitlines() == ["[0]", "[1] {0}"]
