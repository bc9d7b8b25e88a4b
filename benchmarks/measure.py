"""One measurement of one Python peer, in a process of its own: ``python -m benchmarks.measure PEER URL CASE``.

Processor time is this process's own, user and system, over the measured messages only; the garbage collector is left as
it is. Prints a ``Round`` as JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import sys
import time
from dataclasses import asdict

from benchmarks.cases import Case, Round, percentiles
from benchmarks.messages import MAKERS, Giver
from benchmarks.peers import Publisher, make_publisher


async def publish_pipelined(publisher: Publisher, body: bytes, give: Giver, messages: int, window: int) -> None:
    """Publish as ``window`` handlers at once would, each awaiting its own confirmation before its next message."""
    turns = iter(range(messages))

    async def publish_in_turn() -> None:
        for _ in turns:
            await publisher.publish(body, give())

    await asyncio.gather(*(publish_in_turn() for _ in range(window)))


async def publish_one_at_a_time(publisher: Publisher, body: bytes, give: Giver, messages: int) -> list[float]:
    """Publish the next message when the last is confirmed; return what each took, in seconds."""
    latencies = []
    for _ in range(messages):
        started = time.perf_counter()
        await publisher.publish(body, give())
        latencies.append(time.perf_counter() - started)
    return latencies


async def measure(peer: str, url: str, case: Case) -> Round:
    """Connect, warm up, and measure ``case``."""
    publisher = make_publisher(peer)
    await publisher.open(url, case.window)
    body, give = os.urandom(case.size), MAKERS[case.given]
    latencies: list[float] = []

    async def publish(messages: int) -> None:
        if case.workload == "one at a time":
            latencies[:] = await publish_one_at_a_time(publisher, body, give, messages)
        else:
            await publish_pipelined(publisher, body, give, messages, case.window)

    await publish(case.warm_up)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    await publish(case.messages)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    await publisher.close()

    p50, p99 = percentiles(latencies) if latencies else (None, None)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return Round(case.messages, wall, user, system, p50, p99)


def main() -> None:
    """Measure what the command line names."""
    # What a peer warns of under load costs what it costs, and does not belong among the tables.
    logging.basicConfig(handlers=[logging.NullHandler()])
    peer, url, case = sys.argv[1:]
    print(json.dumps(asdict(asyncio.run(measure(peer, url, Case(**json.loads(case)))))))


if __name__ == "__main__":
    main()
