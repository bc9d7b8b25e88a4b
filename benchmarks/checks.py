"""What this project's client promises that no peer is measured on: its ledger, its memory, its way back."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import statistics
import time
import tracemalloc
from typing import TYPE_CHECKING

import sprockets_amqp as amqp
from benchmarks.peers import EXCHANGE, ROUTING_KEY
from benchmarks.results import Check
from sprockets_amqp.delivery.confirms import Confirms

if TYPE_CHECKING:
    from benchmarks.broker import Broker

#: Messages that one ``multiple`` confirmation settles, and in flight while it does.
_SETTLED = 100
_FEW, _MANY = 1_000, 100_000

#: Messages that are in flight while memory is measured, and the size of their bodies.
_IN_FLIGHT = 5_000
_BODY = 64

_RESTARTS = 3
#: Seconds between attempts while the broker is away.
_DELAY = 0.05


async def run(broker: Broker) -> list[Check]:
    """Measure each of them."""
    return [_settling(), await _memory(broker), await _ready_again(broker)]


def _settling() -> Check:
    few, many = (min(_settle(in_flight) for _ in range(5)) for in_flight in (_FEW, _MANY))
    return Check(
        f"settling {_SETTLED} of {_MANY:,} messages in flight, over settling {_SETTLED} of {_FEW:,}",
        "about 1",
        f"{many / few:.2f}",
    )


def _settle(in_flight: int) -> float:
    """Return the seconds that settling takes while as many are in flight: what is settled is sent anew."""
    confirms: Confirms[int] = Confirms()
    for _ in range(in_flight):
        confirms.add(0)
    spent = 0.0
    for turn in range(1, 201):
        started = time.perf_counter()
        confirms.settle(turn * _SETTLED, multiple=True)
        spent += time.perf_counter() - started
        for _ in range(_SETTLED):
            confirms.add(0)
    return spent


async def _memory(broker: Broker) -> Check:
    """Freeze the broker with messages on their way to it, so that the transport's buffer counts as well."""
    client = amqp.Client(broker.node.url, max_unconfirmed=_IN_FLIGHT)
    await client.wait_for(amqp.State.READY, timeout=10)
    await client.publish(EXCHANGE, ROUTING_KEY, b"")
    broker.node.pause()
    tracemalloc.start()
    try:
        before = _traced()
        futures = [client.publish(EXCHANGE, ROUTING_KEY, os.urandom(_BODY)) for _ in range(_IN_FLIGHT)]
        await asyncio.sleep(0)
        each = (_traced() - before) / _IN_FLIGHT - _BODY
        assert client.unconfirmed == _IN_FLIGHT
    finally:
        tracemalloc.stop()
        broker.node.resume()
    await asyncio.gather(*futures)
    await client.shutdown()
    return Check(
        "memory for each message in flight, beyond its body, its future included", "at most 1 KiB", f"{each:.0f} B"
    )


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def _ready_again(broker: Broker) -> Check:
    # It says each time that the broker is away.
    logging.getLogger("sprockets_amqp").setLevel(logging.ERROR)
    client = amqp.Client(broker.node.url, reconnect_delay=_DELAY, max_reconnect_delay=_DELAY, connection_attempts=1)
    await client.wait_for(amqp.State.READY, timeout=10)
    taken = [await _restart(broker, client) for _ in range(_RESTARTS)]
    await client.shutdown()
    await broker.declare()
    return Check(
        "ready again after a restarted broker accepts connections, reconnect delay aside",
        "within 100 ms",
        f"{statistics.median(taken) * 1e3:.0f} ms",
    )


async def _restart(broker: Broker, client: amqp.Client) -> float:
    """Return the seconds from the attempt that reaches the new broker to ready: earlier ones were refused at once."""
    changes: list[amqp.StateChange] = []
    subscription = client.subscribe(changes.append)
    await broker.node.kill()
    await broker.node.start()
    await client.wait_for(amqp.State.READY, timeout=10)
    subscription.cancel()
    attempt, ready = changes[-2:]
    assert (attempt.dest, ready.dest) == (amqp.State.CONNECTING, amqp.State.READY)
    return ready.at - attempt.at
