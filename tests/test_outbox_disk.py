"""The outbox on a disk that takes no more: it is full, read-only, or the kernel refuses to let a file grow."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sprockets_amqp import STORED, Client, NotReadyError
from tests.support import disks
from tests.support.consume import declare_queue
from tests.support.waiting import until
from tools.rabbitmq import Node

FILLING = """
import asyncio, logging, resource, sys
import sprockets_amqp as amqp

async def main():
    logging.basicConfig(level=logging.ERROR, stream=sys.stdout, format="%(message)s")
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    client = amqp.Client("amqp://127.0.0.1:2", outbox=sys.argv[1], timeout=0)
    await client.publish("", "q", b"first")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    ends = []
    for number in range(20):
        try:
            ends.append(await client.publish("", "q", bytes(30_000)))
        except amqp.NotReadyError as error:
            ends.append("refused")
    print(ends.index("refused") > 0, set(ends[ends.index("refused"):]) == {"refused"}, bool(client.outbox_trouble))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    while client.publish_outcome != "is stored":
        await asyncio.sleep(0.05)
    print(await client.publish("", "q", b"again"), client.counters.stored == ends.count("stored") + 2)
    await client.shutdown()

asyncio.run(main())
"""


async def test_a_disk_that_fills_up_is_told_once_and_used_again_when_there_is_room(tmp_path: Path) -> None:
    """Publishes end as without an outbox meanwhile, and what was stored is still there."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FILLING, str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, errors = await asyncio.wait_for(process.communicate(), 60)
    told, ends, again = out.decode().splitlines()
    assert told.startswith(f"outbox {tmp_path}: nothing can be stored: OperationalError: "), errors.decode()
    assert (ends, again) == ("True True True", "stored True")


async def test_without_a_thread_for_the_disk_nothing_is_stored_until_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is told at once, also by a client that is started again; what was stored before is there."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def published(name: bytes) -> object:
        return await client.publish("", "q", name, timeout=0)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        client = Client("amqp://127.0.0.1:2", outbox=tmp_path)
        await until(lambda: bool(client.outbox_trouble))
        with pytest.raises(NotReadyError):
            await published(b"refused")
        assert client.outbox_trouble == "RuntimeError: can't start new thread"
    await until(lambda: not client.outbox_trouble)
    assert await published(b"first") == STORED
    await client.shutdown(2)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        client.connect()
        await until(lambda: bool(client.outbox_trouble))
    await until(lambda: client.counters.stored == 1)
    assert (await published(b"second"), client.counters.stored) == (STORED, 2)
    await client.shutdown(2)


async def test_a_disk_that_is_full_of_stored_messages_is_used_again_when_they_were_delivered(
    broker: Node, tmp_path: Path
) -> None:
    """Nothing is lost or sent twice; publishes end as without an outbox meanwhile, told once and shown on the page."""
    queue = await declare_queue(broker.url)
    seen = await disks.run("fills up", tmp_path, broker.url, queue.name)
    assert seen["fitted"] > 10
    assert seen["full"] == ["refused"] * 5
    assert [words for words in seen["told"] if "nothing can be stored" in words] == [
        f"outbox {tmp_path}: nothing can be stored: OperationalError: database or disk is full"
    ]
    assert "the outbox cannot store anything: OperationalError: database or disk is full" in seen["page"]
    assert (seen["drained"], seen["ready"]) == (seen["fitted"], "None")
    assert seen["stored"][seen["fitted"] :] != []
    assert await queue.message_ids() == sorted(seen["stored"] + seen["confirmed"], key=number)
    assert seen["left"] == []
    await queue.delete()


async def test_a_disk_that_is_full_does_not_keep_what_is_stored_from_being_read(broker: Node, tmp_path: Path) -> None:
    """Messages that cannot be deleted are sent once, and those behind them, too; then there is room again."""
    queue = await declare_queue(broker.url)
    seen = await disks.run("fills up with many", tmp_path, broker.url, queue.name)
    assert seen["fitted"] > 1500
    assert seen["drained"] == seen["fitted"]
    assert await queue.message_ids() == sorted(seen["stored"], key=number)
    assert seen["left"] == []
    await queue.delete()


async def test_a_file_system_that_is_read_only_for_a_while_is_done_without(broker: Node, tmp_path: Path) -> None:
    """What was stored before is sent when it is back, and what is published meanwhile ends as without an outbox."""
    queue = await declare_queue(broker.url)
    seen = await disks.run("turns read-only", tmp_path, broker.url, queue.name)
    assert len(seen["stored"]) > 5
    assert "must be a folder that this process can write to" in seen["anew"]
    assert (seen["read-only"], seen["steady"], seen["ready"]) == (["refused"] * 5, True, "None")
    reason = "OSError: [Errno 30] Read-only file system"
    assert [words.partition(": '")[0] for words in seen["told"]] == [
        f"outbox {tmp_path}: nothing can be stored: {reason}"
    ]
    assert f"the outbox cannot store anything: {reason}" in seen["page"]
    arrived = await queue.message_ids()
    assert sorted(arrived, key=number) == sorted(seen["stored"] + seen["confirmed"], key=number)
    assert [name for name in arrived if name in seen["stored"]] == seen["stored"]
    assert seen["left"] == []
    await queue.delete()


def number(name: str | None) -> int:
    """The number of a message."""
    return int(str(name)[1:])
