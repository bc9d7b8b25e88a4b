"""The outbox on a disk that takes no more: the kernel refuses to let its files grow."""

import asyncio
import subprocess
import sys
from pathlib import Path

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
