"""A fork of a client that is ready: parent and child each have a connection, whatever the child does."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.certificates import Authority
from tests.support.consume import Queue, declare_queue
from tests.support.forked import MESSAGES
from tests.support.waiting import until
from tests.test_started import open_ports
from tools.rabbitmq import Node

ROOT: Final = Path(__file__).parent.parent
#: What a child does, and how many messages it publishes.
CHILDREN: Final = {
    "publishes": 1,
    "publishes and exits": 1,
    "forks again": 3,
    "exits at once": 0,
    "exits": 0,
    "raises": 0,
    "is killed": 0,
    "is in a pool": 0,
    "is spawned": 1,
}


async def forked(child: str, queue: Queue, url: str, **environment: str) -> asyncio.subprocess.Process:
    """Start the process that forks."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "ignore::DeprecationWarning:os", "-W", "ignore::DeprecationWarning:multiprocessing"),
        *("-m", "tests.support.forked", child, url, queue.exchange, queue.routing_key),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


async def check_parent(child: str, queue: Queue, url: str = "", **environment: str) -> None:
    """All that the parent published is confirmed on the connection that it had, and arrived once."""
    process = await forked(child, queue, url or queue.url, **environment)
    out, err = await asyncio.wait_for(process.communicate(), 90)
    told: dict[str, Any] = {}
    for line in out.decode().splitlines():
        told |= json.loads(line)
    assert process.returncode == 0, err.decode()
    sent = 2 * MESSAGES + 1
    assert (told["confirmed"], told["reconnects"], told["same connection"]) == (sent, 0, True), err.decode()
    assert "Bad file descriptor" not in err.decode()
    names = [str(message.message_id) for message in await queue.messages()]
    children = [name for name in names if name.startswith("child")]
    assert len(children) == CHILDREN[child]
    assert sorted(name for name in names if name not in children) == sorted(
        ["first", *(f"{when} {number}" for when in ("before", "after") for number in range(MESSAGES))]
    )


@pytest.mark.parametrize("child", CHILDREN)
async def test_the_parents_messages_are_confirmed_to_the_parent(broker: Node, queue: Queue, child: str) -> None:
    """Whatever the child does and however it ends; what it publishes goes out on a connection of its own."""
    await check_parent(child, queue)


async def test_the_connection_does_not_live_on_in_a_child(broker: Node, queue: Queue) -> None:
    """The parent is killed, and RabbitMQ hears of it while the child goes on."""
    before = open_ports(broker)
    process = await forked("stays", queue, queue.url)
    assert process.stdout is not None
    child = json.loads(await process.stdout.readline())["child"]
    try:
        await process.stdout.readline()
        await process.wait()
        assert process.returncode == -signal.SIGKILL
        await until(lambda: open_ports(broker) <= before)
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.fixture(scope="module")
def secure(rabbitmq: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Authority]]:
    """A node with a TLS listener, and the authority that it is trusted by."""
    folder = tmp_path_factory.mktemp("authority")
    for each in (folder, folder.parent, folder.parent.parent):
        each.chmod(0o755)
    authority = Authority(folder)
    with closing(Node(tls=authority.server())) as node:
        asyncio.run(node.start())
        yield node, authority


@pytest.mark.parametrize("child", ["publishes and exits", "exits", "raises", "is in a pool"])
async def test_a_fork_under_tls_is_no_different(secure: tuple[Node, Authority], child: str) -> None:
    """No child says a word on the parent's connection, which TLS would not forgive."""
    node, authority = secure
    queue = await declare_queue(node.url)
    url = f"amqps://guest:guest@localhost:{node.tls_port}/%2f"
    await check_parent(child, queue, url, SSL_CERT_FILE=str(authority.certificate))
