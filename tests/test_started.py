"""Every way an application is started: each process publishes on a connection of its own, and all of it ends well."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tornado.httpclient import HTTPClientError

from tests.support.consume import Queue
from tests.support.http import fetch
from tools.rabbitmq import Node, free_port
from tools.starts import CONSTRUCTOR, MODULE, WAYS


class Started:
    """An application in a process group of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self._url = f"http://127.0.0.1:{port}/"

    async def publish(self) -> tuple[int, int]:
        """Have an event published; returns the process that did, and the port of its connection."""
        while True:
            try:
                response = await fetch(self._url, "POST", "")
            except (OSError, HTTPClientError):
                # It does not serve yet.
                assert self.process.returncode is None
                continue
            assert response.code == 200, response.body
            answer = json.loads(response.body)
            return answer["process"], answer["port"]

    async def publish_in(self, processes: int, *, but: frozenset[int] = frozenset()) -> dict[int, int]:
        """Publish until so many processes did; returns the port of the connection of each."""
        ports: dict[int, int] = {}
        async with asyncio.timeout(60):
            while len(ports) < processes:
                process, port = await self.publish()
                if process not in but:
                    assert ports.setdefault(process, port) == port
        return ports

    async def end(self) -> str:
        """Send SIGTERM to all of it; returns what it printed."""
        os.killpg(self.process.pid, signal.SIGTERM)
        out, _ = await asyncio.wait_for(self.process.communicate(), 60)
        return out.decode()


@asynccontextmanager
async def started(place: str, runner: str, queue: Queue) -> AsyncIterator[Started]:
    """Start the application; nothing of it is left at the end."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.support.started", place, runner, queue.url, queue.exchange, queue.routing_key, str(port)),
        cwd=Path(__file__).parent.parent,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield Started(process, port)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def open_ports(node: Node) -> set[int]:
    """The ports from which connections to the broker are open, as the kernel has them."""
    established = "01"
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if state == established and int(local.rpartition(":")[2], 16) == node.port:
            found.add(int(remote.rpartition(":")[2], 16))
    return found


@pytest.mark.parametrize(
    ("place", "runner"), [(place, runner) for runner, (places, _) in WAYS.items() for place in places]
)
async def test_each_process_publishes_on_a_connection_of_its_own(
    broker: Node, queue: Queue, place: str, runner: str
) -> None:
    """Its events arrive, and SIGTERM ends each process well, with nothing left at the broker."""
    processes = WAYS[runner][1]
    async with started(place, runner, queue) as application:
        ports = await application.publish_in(processes)
        assert len(set(ports.values())) == processes
        assert set(ports.values()) <= open_ports(broker)
        ended = await application.end()
        assert application.process.returncode == 0
        assert {f"{process} ended" for process in ports} <= set(ended.splitlines())
        assert not set(ports.values()) & open_ports(broker)
    assert {int(message.body) for message in await queue.messages()} == set(ports)


@pytest.mark.parametrize(
    ("place", "runner"),
    [
        (CONSTRUCTOR, "sprockets.http, number_of_procs 2"),
        (MODULE, "HTTPServer.start(2)"),
        (MODULE, "fork_processes(2), asyncio.run"),
    ],
)
async def test_a_killed_child_comes_back(broker: Node, queue: Queue, place: str, runner: str) -> None:
    """The process that takes its place publishes, on a connection of its own, and the other was not disturbed."""
    async with started(place, runner, queue) as application:
        before = await application.publish_in(2)
        killed, other = before
        os.kill(killed, signal.SIGKILL)
        after = await application.publish_in(2, but=frozenset({killed}))
        assert after[other] == before[other]
        assert len(set(after.values()) | set(before.values())) == 3
        assert set(after.values()) <= open_ports(broker)
        await application.end()
        assert application.process.returncode == 0
