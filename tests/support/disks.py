"""An outbox on a file system of its own, which fills up or is read-only for a while: a program that a test runs.

It runs in a mount namespace, as root or as who is root there: what it mounts is gone with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import sprockets_amqp as amqp
from sprockets_amqp.web import status

NOBODY: Final = "amqp://127.0.0.1:2"
#: Twice as much as the file and its log take when they are empty, and some messages; or far more than are read at once.
SIZES: Final = {"fills up": "size=1m", "fills up with many": "size=16m", "turns read-only": "size=1m"}


async def run(scene: str, folder: Path, url: str, queue: str) -> dict[str, Any]:
    """Play a scene in a process of its own; returns what was seen in it."""
    own = ("--mount", "--propagation", "unchanged")
    as_root = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    program = (sys.executable, "-m", __name__, scene, str(folder), url, queue)
    process = await asyncio.create_subprocess_exec(
        "unshare", *own, *as_root, *program, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, errors = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, errors.decode()
    seen: dict[str, Any] = json.loads(out)
    return seen


class Stage:
    """A client that reaches RabbitMQ when it is let to, and what is seen of it."""

    def __init__(self, folder: str, url: str, queue: str) -> None:
        self._queue = queue
        self._real, self._url = url, NOBODY
        self.told: list[str] = []
        self.seen: dict[str, Any] = {"told": self.told, "stored": [], "confirmed": []}
        handler = logging.Handler(logging.ERROR)
        handler.emit = lambda record: self.told.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("sprockets_amqp").addHandler(handler)
        self._quick: dict[str, Any] = {"timeout": 0, "reconnect_delay": 0.1, "max_reconnect_delay": 0.2}
        self.client = amqp.Client(lambda: self._url, outbox=folder, **self._quick)
        self._count = 0

    async def publish(self, size: int = 0) -> str:
        """Publish a message; returns what it ended with, and keeps its id where it is to arrive."""
        name = f"m{self._count}"
        self._count += 1
        try:
            ended = await self.client.publish("", self._queue, bytes(size), {"message_id": name, "delivery_mode": 2})
        except amqp.NotReadyError:
            return "refused"
        self.seen["stored" if ended == amqp.STORED else "confirmed"].append(name)
        return str(ended)

    async def until_stored(self) -> None:
        """Publish until one is stored."""
        while await self.publish() != amqp.STORED:
            await asyncio.sleep(0.05)

    async def is_in_trouble(self, seconds: float) -> bool:
        """Tell whether nothing can be stored all the while."""
        end = asyncio.get_running_loop().time() + seconds
        while self.client.outbox_trouble and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.001)
        return bool(self.client.outbox_trouble)

    async def reach(self, *, reachable: bool) -> None:
        """Connect anew, to RabbitMQ or to nobody."""
        await self.client.shutdown(4)
        self._url = self._real if reachable else NOBODY
        self.client.connect()
        if reachable:
            await self.client.wait_for(amqp.State.READY, 30)

    @property
    def page(self) -> str:
        """What the page says of a publish."""
        return str(status.snapshot(self.client)["publish"])


async def fills_up(stage: Stage) -> None:
    """The disk is full of what is stored, and RabbitMQ comes back."""
    while await stage.publish(30_000) == amqp.STORED:
        pass
    stage.seen["full"] = [await stage.publish(30_000) for _ in range(5)]
    stage.seen["page"] = stage.page
    stage.seen["fitted"] = len(stage.seen["stored"])
    await stage.reach(reachable=True)
    await stage.client.flush(30)
    stage.seen["drained"] = stage.client.counters.confirmed
    stage.seen["ready"] = await stage.publish()
    await stage.reach(reachable=False)
    await stage.until_stored()
    await stage.reach(reachable=True)


async def fills_up_with_many(stage: Stage) -> None:
    """The disk is full of small messages, far more than are read at once, and RabbitMQ comes back."""
    while "refused" not in await asyncio.gather(*(stage.publish(2000) for _ in range(100))):
        pass
    stage.seen["fitted"] = len(stage.seen["stored"])
    await stage.reach(reachable=True)
    await stage.client.flush(60)
    stage.seen["drained"] = stage.client.counters.confirmed


async def turns_read_only(stage: Stage, folder: str) -> None:
    """The file system is read-only while messages are stored, and comes back.

    The kernel lets nobody make it so while a file is open to be written: the client is shut down for that moment.
    """
    for _ in range(5):
        await stage.publish()
    await stage.client.shutdown(4)
    assert await remounted(folder, "ro")
    try:
        amqp.Client(NOBODY, outbox=folder)
    except ValueError as error:
        stage.seen["anew"] = str(error)
    stage.client.connect()
    stage.seen["read-only"] = [await stage.publish() for _ in range(5)]
    # It is tried again each second.
    stage.seen["steady"] = await stage.is_in_trouble(2.5)
    stage.seen["page"] = stage.page
    await stage.reach(reachable=True)
    stage.seen["ready"] = await stage.publish()
    await stage.reach(reachable=False)
    assert await remounted(folder, "rw")
    await stage.until_stored()
    await stage.reach(reachable=True)


async def remounted(folder: str, how: str) -> bool:
    """Mount the file system again; tells whether the kernel lets it."""
    how = f"remount,bind,{how}"
    process = await asyncio.create_subprocess_exec("mount", "-o", how, folder, stderr=subprocess.DEVNULL)
    return await process.wait() == 0


async def play(scene: str, folder: str, url: str, queue: str) -> dict[str, Any]:
    """Play a scene to its end."""
    stage = Stage(folder, url, queue)
    if scene == "fills up":
        await fills_up(stage)
    elif scene == "fills up with many":
        await fills_up_with_many(stage)
    else:
        await turns_read_only(stage, folder)
    await stage.client.flush(30)
    await stage.client.shutdown()
    return stage.seen


def main(scene: str, folder: str, url: str, queue: str) -> None:
    """Mount a small file system, and play a scene on it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", SIZES[scene], "tmpfs", folder], check=True)
    try:
        seen = asyncio.run(play(scene, folder, url, queue))
        seen["left"] = [path.name for path in Path(folder).iterdir()]
        sys.stdout.write(json.dumps(seen))
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
