"""One measurement of growth, in a process of its own: ``python -m benchmarks.grow KIND NUMBER URL``.

Prints what it measured as JSON, in seconds and octets. `kinds.py` says what each kind is.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sprockets_amqp as amqp
from benchmarks.messages import with_headers, with_properties
from benchmarks.peers import EXCHANGE, ROUTING_KEY, exchange_names

if TYPE_CHECKING:
    from benchmarks.results import Grown


#: Returns where the next message goes: exchange and routing key.
Where = Callable[[], tuple[str, str]]

BODY = os.urandom(1024)
#: Messages that are measured, if no more are in flight.
MESSAGES = 30_000
#: The client's own limits, by default; a line of any length stays below the last.
MAX_UNCONFIRMED, MAX_WAITING, MAX_WAITING_SIZE = 1000, 10_000, 2**30
#: In flight where that is not what grows.
AT_ONCE = 500
#: Messages a second, and how many routing keys they go to, while memory is measured: more than are remembered.
RATE, KEYS = 5_000, 5_000
INTERVAL = 0.01
#: How often memory is looked at.
SAMPLES = 60

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Spent:
    """Processor time of the process, that of its garbage collector aside, and time of the clock."""

    _collected = 0.0
    _began = 0.0

    @classmethod
    def watch_collector(cls) -> None:
        """Measure what the collector takes."""
        gc.callbacks.append(cls._on_collection)

    @classmethod
    def _on_collection(cls, phase: str, _info: object) -> None:
        if phase == "start":
            cls._began = time.process_time()
        else:
            cls._collected += time.process_time() - cls._began

    def __init__(self) -> None:
        self._since = (time.process_time(), self._collected, time.perf_counter())

    def each(self, messages: int) -> Grown:
        """Return what was spent since this was made, for each of so many messages."""
        now = (time.process_time(), self._collected, time.perf_counter())
        cpu, collector, wall = ((after - before) / messages for before, after in zip(self._since, now, strict=True))
        return {"cpu": cpu - collector, "gc": collector, "wall": wall}


async def ready(url: str, **settings: Any) -> amqp.Client:
    """Return a client that is ready."""
    client = amqp.Client(url, **settings)
    await client.wait_for(amqp.State.READY, timeout=10)
    return client


async def publish(client: amqp.Client, messages: int, at_once: int, where: Where) -> None:
    """Publish with ``at_once`` coroutines, each of which awaits its message's end before its next."""
    turns = iter(range(messages))

    async def publish_in_turn() -> None:
        for _ in turns:
            await client.publish(*where(), BODY, with_properties())

    await asyncio.gather(*(publish_in_turn() for _ in range(at_once)))


def places(exchanges: int = 0, routing_keys: int = 0) -> Where:
    """Return what goes round so many exchanges or routing keys."""
    keys = [f"{ROUTING_KEY}.{each}" for each in range(routing_keys)] or [ROUTING_KEY]
    return itertools.cycle(itertools.product(exchange_names(exchanges) or [EXCHANGE], keys)).__next__


async def steady(client: amqp.Client, at_once: int, where: Where) -> Grown:
    """Measure a message while so many are published at once, after a warm-up, and shut the client down."""
    await publish(client, max(MESSAGES // 10, at_once), at_once, where)
    messages = max(MESSAGES, 2 * at_once)
    spent = Spent()
    await publish(client, messages, at_once, where)
    measured = spent.each(messages)
    await client.shutdown()
    return measured


async def window(number: int, url: str) -> Grown:
    """So many messages in flight, the client's limit."""
    # The first ones wait until RabbitMQ was asked about the exchange.
    settings = {"max_waiting": number, "max_waiting_size": MAX_WAITING_SIZE}
    client = await ready(url, max_unconfirmed=number, confirm_timeout=300, timeout=300, **settings)
    return await steady(client, number, places())


async def line(number: int, url: str) -> Grown:
    """So many messages in line behind a full window; and as many that wait until the client is ready."""
    settings = {
        "timeout": 300,
        "confirm_timeout": 300,
        "max_waiting": number + MAX_WAITING,
        "max_waiting_size": MAX_WAITING_SIZE,
    }
    measured = await steady(await ready(url, **settings), MAX_UNCONFIRMED + number, places())
    if number:
        outage = await wait_for_ready(number, url, settings)
        measured |= {"outage": outage["cpu"], "outage_gc": outage["gc"]}
    return measured


async def wait_for_ready(number: int, url: str, settings: dict[str, Any]) -> Grown:
    """Measure a message that is published with so many others before the client is ready, until it is confirmed."""
    gate = asyncio.Event()

    async def after_a_while() -> str:
        await gate.wait()
        return url

    client = amqp.Client(after_a_while, **settings)
    spent = Spent()
    futures = [client.publish(EXCHANGE, ROUTING_KEY, BODY, with_properties()) for _ in range(number)]
    assert client.waiting == number
    gate.set()
    await asyncio.gather(*futures)
    measured = spent.each(number)
    await client.shutdown()
    return measured


async def routing_keys(number: int, url: str) -> Grown:
    """So many routing keys, in turn."""
    return await steady(await ready(url), AT_ONCE, places(routing_keys=number))


async def exchanges(number: int, url: str) -> Grown:
    """So many exchanges, in turn: the first time, when RabbitMQ is asked about each, and from then on."""
    client, where = await ready(url, timeout=300), places(exchanges=number)
    spent = Spent()
    await publish(client, number, min(number, AT_ONCE), where)
    first = spent.each(number)
    return {**await steady(client, AT_ONCE, where), **{f"first_{name}": value for name, value in first.items()}}


async def clients(number: int, url: str) -> Grown:
    """So many clients that lose their node and come back.

    Prints a line when all are ready, and one with the time when all are ready again.
    """
    every = [amqp.Client(url) for _ in range(number)]
    await asyncio.gather(*(client.wait_for(amqp.State.READY, timeout=300) for client in every))
    gone = [client.wait_for(amqp.State.CLOSED) for client in every]
    print(flush=True)
    await asyncio.gather(*gone)
    await asyncio.gather(*(client.wait_for(amqp.State.READY, timeout=300) for client in every))
    print(time.time(), flush=True)
    # While they return, the node is asked for its connections.
    await asyncio.to_thread(sys.stdin.read)
    await asyncio.gather(*(client.shutdown() for client in every))
    return {}


async def memory(number: float, url: str) -> Grown:
    """So many minutes of messages with headers, to many routing keys."""
    client, where = await ready(url), places(routing_keys=KEYS)
    ends: Counter[str] = Counter(confirmed=0, failed=0)
    samples: list[tuple[float, int]] = []

    def note(future: asyncio.Future[object]) -> None:
        ends["failed" if future.exception() else "confirmed"] += 1

    loop = asyncio.get_running_loop()
    began = loop.time()
    for turn in range(int(number * 60 / INTERVAL) + 1):
        if turn % int(number * 60 / INTERVAL / SAMPLES) == 0:
            samples.append((turn * INTERVAL, _resident()))
            print(f"    {turn * INTERVAL:6.0f} s {_resident() / 2**20:8.1f} MiB", file=sys.stderr, flush=True)
        for _ in range(int(RATE * INTERVAL)):
            client.publish(*where(), BODY, with_headers()).add_done_callback(note)
        await asyncio.sleep(began + turn * INTERVAL - loop.time())
    await client.flush(30)
    closed = client.counters.reconnects
    await client.shutdown()
    return {**ends, "closed": closed, "samples": samples}


def _resident() -> int:
    """Return the octets of memory that the process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


#: By the names of `kinds.py`.
MEASURES: dict[str, Callable[[int, str], Awaitable[Grown]]] = {
    "window": window,
    "line": line,
    "routing keys": routing_keys,
    "exchanges": exchanges,
    "clients": clients,
    "memory": memory,
}


async def measure(kind: str, number: int, url: str) -> Grown:
    """Measure one kind at one number."""
    Spent.watch_collector()
    return await MEASURES[kind](number, url)


def main() -> None:
    """Measure what the command line names."""
    logging.basicConfig(handlers=[logging.NullHandler()])
    kind, number, url = sys.argv[1:]
    print(json.dumps(asyncio.run(measure(kind, int(number), url))))


if __name__ == "__main__":
    main()
