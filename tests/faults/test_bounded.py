"""What a broker that takes nothing costs: bounded lines and bounded memory."""

import asyncio
from pathlib import Path

import sprockets_amqp as amqp
from tests.faults.stream import streaming
from tools.rabbitmq import Node

#: 2,000 publishes a second for ten seconds; `make soak` has the minute.
OFFERED = 20_000
MAX_WAITING = 2_000


def resident() -> int:
    """The resident size of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_a_frozen_broker_does_not_grow_memory(node: Node) -> None:
    """max_unconfirmed go out, max_waiting wait, and the others are refused at once by a sentence that says so."""
    async with streaming(node.url, interval=0, max_waiting=MAX_WAITING, max_unconfirmed=500) as stream:
        await stream.client.publish("amq.topic", "key", b"", mandatory=False)
        node.pause()
        accepted = await _offer(stream.client, MAX_WAITING + 500)
        assert (stream.client.unconfirmed, stream.client.waiting) == (500, MAX_WAITING)
        before = resident()
        assert not await _offer(stream.client, OFFERED)
        grown = resident() - before
        assert (stream.client.unconfirmed, stream.client.waiting) == (500, MAX_WAITING)
        assert grown < 8 * 1024**2, f"{grown / 1024**2:.1f} MiB more resident"
        node.resume()
        await asyncio.wait(accepted, timeout=60)
        assert not [future for future in accepted if future.exception()]


async def _offer(client: amqp.Client, number: int) -> list["asyncio.Future[None]"]:
    """Publish so many messages of 1 KiB; returns those that were not refused at once."""
    accepted = []
    for offered in range(number):
        future = client.publish("amq.topic", "key", b"x" * 1024, timeout=60, mandatory=False)
        future.add_done_callback(lambda future: future.cancelled() or future.exception())
        if not future.done():
            accepted.append(future)
        else:
            assert isinstance(future.exception(), amqp.NotReadyError)
            assert "max_waiting" in str(future.exception())
        if offered % 20 == 0:
            await asyncio.sleep(0)
    return accepted
