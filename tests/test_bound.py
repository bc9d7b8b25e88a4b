"""A client belongs to one loop in one thread: which, and what those are told who come from elsewhere."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from tornado.ioloop import IOLoop

from sprockets_amqp import Client, State
from tests.support.command import WARNINGS_ARE_ERRORS
from tools.rabbitmq import Node

ROOT: Final = Path(__file__).parent.parent


@pytest.mark.parametrize("call", ["publish", "connect", "close"])
async def test_a_call_from_another_thread_is_refused_with_what_to_do(broker: Node, call: str) -> None:
    """Nothing of it takes effect, and the client goes on."""
    client = Client(broker.url)
    await client.wait_for(State.READY, 30)
    calls: dict[str, Callable[[], object]] = {
        "publish": lambda: client.publish("amq.topic", "key", b""),
        "connect": client.connect,
        "close": client.close,
    }
    with pytest.raises(RuntimeError, match=r"another thread: publish with client\.publish_threadsafe\("):
        await asyncio.to_thread(calls[call])
    assert client.ready
    assert client.counters.published == 0
    await client.shutdown()


async def test_what_the_error_names_works_from_another_thread(broker: Node) -> None:
    """The event is confirmed, and the thread can wait for that."""
    client = Client(broker.url)
    loop = asyncio.get_running_loop()

    async def publish() -> str:
        await client.publish("amq.topic", "key", b"from a thread")
        return threading.current_thread().name

    def in_thread() -> str:
        client.publish_threadsafe("amq.topic", "key", b"from a thread")
        return asyncio.run_coroutine_threadsafe(publish(), loop).result(30)

    assert await asyncio.to_thread(in_thread) == threading.current_thread().name
    assert client.counters.confirmed == 2
    await client.shutdown()


async def test_a_loop_in_another_thread_is_refused_too(broker: Node) -> None:
    """A client that runs does not move."""
    client = Client(broker.url)
    await client.wait_for(State.READY, 30)

    async def elsewhere() -> None:
        await client.publish("amq.topic", "key", b"")

    with pytest.raises(RuntimeError, match="another thread"):
        await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    await client.publish("amq.topic", "key", b"")
    await client.shutdown()


@pytest.mark.parametrize("runs", ["from the start", "later"])
def test_a_client_belongs_to_the_thread_in_which_its_loop_runs(broker: Node, runs: str) -> None:
    """While the loop runs in another thread, the one that made both, and ran it before, is refused like any other."""
    io_loop = IOLoop(make_current=False)
    client = Client(broker.url, io_loop=io_loop)
    loop = io_loop.asyncio_loop

    async def publish() -> None:
        await client.publish("amq.topic", "key", b"")

    if runs == "later":
        loop.run_until_complete(publish())
    published = client.counters.published
    thread = threading.Thread(target=io_loop.start)
    thread.start()

    try:
        asyncio.run_coroutine_threadsafe(publish(), loop).result(30)
        with pytest.raises(RuntimeError, match="another thread"):
            client.publish("amq.topic", "key", b"")
        assert client.counters.published == published + 1
        asyncio.run_coroutine_threadsafe(client.shutdown(), loop).result(30)
    finally:
        io_loop.add_callback(io_loop.stop)
        thread.join()
        io_loop.close()


def test_a_client_that_ran_on_one_loop_is_refused_on_the_next(broker: Node) -> None:
    """It has a connection on the other, which is not running any more."""

    async def make() -> Client:
        client = Client(broker.url)
        await client.publish("amq.topic", "key", b"")
        await client.shutdown()
        return client

    async def use(client: Client) -> None:
        with pytest.raises(RuntimeError, match=r"another event loop: call install\(\) while this loop is running"):
            client.publish("amq.topic", "key", b"")

    asyncio.run(use(asyncio.run(make())))


def run(script: str, *arguments: str) -> tuple[str, str]:
    """Run a script in a Python of its own, where any warning is an error; returns what it printed."""
    done = subprocess.run(
        [sys.executable, *WARNINGS_ARE_ERRORS, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


MOVES: Final = """
import asyncio, logging, sys, warnings
from tornado.web import Application
import sprockets_amqp as amqp

logging.basicConfig(format="%(levelname)s %(message)s")
application = Application(amqp.web.routes())
amqp.install(application, url=sys.argv[1])
client = application.amqp
early = client.publish("amq.topic", "key", b"published before any loop runs")
changes = []
client.subscribe(lambda change: changes.append((change.source.name, change.dest.name)))

async def use():
    if sys.argv[2] == "publish":
        await client.publish("amq.topic", "key", b"")
    elif sys.argv[2] == "wait_for":
        await client.wait_for(amqp.State.READY, 30)
    elif sys.argv[2] == "connect":
        client.bind()
    else:
        from tests.support.http import fetch, served
        async with served(application) as base:
            response = await fetch(f"{base}/amqp{sys.argv[2]}")
            print(response.code)
    await client.wait_for(amqp.State.READY, 30)
    print(type(early.exception()).__name__, early.exception())
    await client.publish("amq.topic", "key", b"")
    await client.shutdown()
    await asyncio.sleep(0)
    print(changes[0], changes[-1])

asyncio.run(use())
"""


@pytest.mark.parametrize("use", ["publish", "wait_for", "connect", "/live", "/ready"])
def test_the_first_use_in_another_loop_takes_the_client_there(broker: Node, use: str) -> None:
    """What was published for the loop that never ran is refused, the log says why, and subscribers stay."""
    out, err = run(MOVES, broker.url, use)
    lines = out.splitlines()
    if use.startswith("/"):
        assert lines.pop(0) == {"/live": "200", "/ready": "503"}[use]
    assert lines[0].startswith("NotReadyError connection is Closed (it was published on an event loop that never ran")
    assert lines[1] == "('IDLE', 'CONNECTING') ('CLOSING', 'CLOSED')"
    assert err.count("made for an event loop that never ran") == 1
    assert "messages published before are refused: 1" in err


GIVEN: Final = """
import asyncio, sys
from tornado.ioloop import IOLoop
import sprockets_amqp as amqp

io_loop = IOLoop(make_current=False)
client = amqp.Client(sys.argv[1], io_loop=io_loop)

async def elsewhere():
    try:
        client.publish("amq.topic", "key", b"")
    except RuntimeError as error:
        print(error)

asyncio.run(elsewhere())

async def there():
    await client.publish("amq.topic", "key", b"")
    await client.shutdown()
    print("published")

io_loop.run_sync(there)
io_loop.close()
"""


def test_a_loop_that_was_given_is_kept_to(broker: Node) -> None:
    """io_loop is where it runs, and nowhere else."""
    out, _ = run(GIVEN, broker.url)
    refused, published = out.splitlines()
    assert "belongs to another event loop" in refused
    assert published == "published"
