"""The outbox in forked processes: each has a file of its own, and none harms another's."""

import asyncio
import subprocess
import sys
from pathlib import Path

from sprockets_amqp.outbox.sqlite.file import OutboxFile
from sprockets_amqp.outbox.store import unpack

FORKING = """
import asyncio, os, sys
import sprockets_amqp as amqp

loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)

async def store(name, stop=False):
    result = await client.publish("", "q", b"", {"message_id": name})
    print(name, result, *sorted(each for each in os.listdir(sys.argv[1]) if each.endswith("outbox")), flush=True)
    if stop:
        await client.shutdown()

async def make():
    return amqp.Client("amqp://127.0.0.1:2", outbox=sys.argv[1], timeout=0)

client = loop.run_until_complete(make())
loop.run_until_complete(store("before"))
child = os.fork()
if not child:
    asyncio.run(store("child", stop=True))
    sys.exit(3)
print("exit", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
loop.run_until_complete(store("after", stop=True))
"""


async def test_a_forked_process_has_a_file_of_its_own(tmp_path: Path) -> None:
    """The parent's is still locked and whole, the child ends as it wants to, and everything is there."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FORKING, str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, errors = await asyncio.wait_for(process.communicate(), 60)
    assert out.decode().splitlines() == [
        "before stored amqp.1.outbox",
        "child stored amqp.1.outbox amqp.2.outbox",
        "exit 3",
        "after stored amqp.1.outbox amqp.2.outbox",
    ], errors.decode()
    names = []
    for number in (1, 2):
        file = OutboxFile.take(tmp_path / f"amqp.{number}.outbox")
        names.append([unpack(row.message)[1].message_id for row in file.rows()])
        file.close()
    assert names == [["before", "after"], ["child"]]
