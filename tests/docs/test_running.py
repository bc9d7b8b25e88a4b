"""docs/running.md: each way to start an application does, publishes, and ends as the page says."""

import asyncio
import contextlib
import importlib
import os
import signal
import sys
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from tornado.ioloop import IOLoop

import sprockets_amqp as amqp
from examples.application import Events
from sprockets_amqp.connection import lifecycle
from sprockets_amqp.outbox import model as outbox
from sprockets_amqp.testing import Broker
from tests.support.documents import SECONDS, Document
from tests.support.http import fetch
from tests.support.waiting import until
from tools.documents import ROOT
from tools.rabbitmq import Node, free_port

PAGE: Final = Document("docs/running.md")

TESTED: Final = {
    ("`IOLoop.current().start()`", "python"),
    ("Several processes", "python"),
    ("sprockets.http", "python"),
    ("Threads", "python"),
    ("Several loops", "python"),
}

#: What the scripts of the page know.
IMPORTS: Final = """
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.web import Application
import sprockets_amqp as amqp
from examples.application import Events as EventsOfApplication

class Events(EventsOfApplication):
    def initialize(self):
        self.application.settings["exchange"] = "amq.topic"
"""


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("AMQP_", "RABBITMQ_")):
            monkeypatch.delenv(name)


@contextlib.asynccontextmanager
async def started(
    broker: Node, *arguments: str, port: int, **variables: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a program in a process group of its own, and wait until it has published."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=ROOT,
        env={**os.environ, "AMQP_URL": broker.url, "PORT": str(port), **variables},
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(SECONDS):
            while await _posted(port) != 202:
                assert process.returncode is None, await process.communicate()
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # Those that it forked may live a little longer than it, and have its standard error open.
        await process.communicate()


async def _posted(port: int) -> int:
    try:
        return (await fetch(f"http://127.0.0.1:{port}/events", "POST", "{}")).code
    except OSError:
        # It does not serve yet.
        await asyncio.sleep(0.05)
        return 0


def children(process: asyncio.subprocess.Process) -> list[int]:
    """The processes that a process has forked and that live."""
    return [int(each) for each in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.parametrize("heading", ["`IOLoop.current().start()`", "Several processes"])
async def test_an_application_of_the_page_publishes(broker: Node, heading: str) -> None:
    """What is posted to it is confirmed, before a fork or without one."""
    port = free_port()
    text = IMPORTS + PAGE.block(heading, "python").replace("8000", str(port))
    async with started(broker, "-c", text, port=port) as process:
        assert len(children(process)) == (2 if "start(2)" in text else 0)


async def test_the_forked_example_publishes_in_each_process_and_stops(broker: Node) -> None:
    """A child that dies is started again; SIGTERM to the parent alone ends all of them well."""
    port = free_port()
    async with started(broker, "-m", "examples.forked", port=port, PROCESSES="2") as process:
        first, second = children(process)
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(children(process)) == 2 and first not in children(process))
        assert second in children(process)
        while await _posted(port) != 202:
            pass
        process.terminate()
        _, errors = await asyncio.wait_for(process.communicate(), SECONDS)
        assert process.returncode == 0, errors.decode()
        assert b"Traceback" not in errors


async def test_the_application_of_the_page_ends_well_on_sigterm(broker: Node) -> None:
    """Its main() is what Sphinx shows."""
    async with started(broker, "-m", "examples.application", port=free_port()) as process:
        process.terminate()
        _, errors = await asyncio.wait_for(process.communicate(), SECONDS)
        assert process.returncode == 0, errors.decode()


@pytest.mark.parametrize("name", ["application", "forked", "worker"])
def test_an_example_is_shown_with_its_main(name: str) -> None:
    """The tests above run two of them, tests/test_asyncio.py runs the worker."""
    assert f"```{{literalinclude}} ../examples/{name}.py\n:pyobject: main\n" in PAGE.text
    assert "def main(" in (ROOT / f"examples/{name}.py").read_text()


@pytest.mark.usefixtures("amqp_broker")
async def test_sprockets_http_installs_and_shuts_down() -> None:
    """Its application runs install() before the loop, and its shutdown closes the client."""
    with warnings.catch_warnings():
        # The package imports distutils, which Python 3.11 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("sprockets.http.app")
        sprockets = importlib.import_module("sprockets")
        async with PAGE.run("sprockets.http", amqp=amqp, sprockets=sprockets, Events=Events) as names:
            application = names["make_application"](service="events", version="1.0")
            application.start(IOLoop.current())
            await application.amqp.wait_for(amqp.State.READY, SECONDS)
            (shutdown,) = application.on_shutdown_callbacks
            await shutdown(application)
            assert application.amqp.closed


async def test_a_thread_waits_for_what_becomes_of_its_message(amqp_broker: Broker) -> None:
    """What a publish raises is raised there."""
    async with amqp.Client("amqp://broker") as client, PAGE.run("Threads", amqp=amqp) as names:
        await asyncio.to_thread(names["publish_and_wait"], client, b"waited for")
        assert [message.confirmed for message in amqp_broker.published] == [True]
        with pytest.raises(amqp.InvalidMessage):
            await asyncio.to_thread(names["publish_and_wait"], client, 7)
        with pytest.raises(RuntimeError, match="another thread"):
            await asyncio.to_thread(client.publish, "amq.topic", "key", b"")


async def test_a_loop_in_a_thread_has_a_client_of_its_own(amqp_broker: Broker) -> None:
    """It publishes there, and is shut down there."""
    threading = importlib.import_module("threading")
    async with PAGE.run("Several loops", amqp=amqp, asyncio=asyncio, threading=threading) as names:
        await asyncio.to_thread(names["thread"].join)
    (message,) = amqp_broker.published
    assert message.confirmed
    assert amqp_broker.peers[0].said_goodbye


def test_the_limits_of_stopping_are_the_clients() -> None:
    """How long it takes at the most, and what is kept of that."""
    section = " ".join(PAGE.section("Stopping").split())
    for words in (
        f"takes {lifecycle.DRAIN_LIMIT:g} seconds at the most",
        f"or {lifecycle.CLOSE_LIMIT:g} seconds before the limit",
        f"Of a limit below {2 * lifecycle.CLOSE_LIMIT:g} seconds, half is kept",
        f"has up to {lifecycle.DRAIN_LIMIT:g} seconds for what waits and for confirms",
    ):
        assert words in section
    assert outbox.FINISH_LIMIT == 1
    assert "An outbox gets the last second" in section
