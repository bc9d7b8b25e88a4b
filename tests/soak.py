"""An hour of random faults, and the ledger at its end: `make soak`, or `python -m tests.soak --minutes 5`."""

import argparse
import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from tests.faults.stream import Stream, streaming
from tests.support.proxy import Proxy
from tools.rabbitmq import Node

Fault = Callable[[], Awaitable[object]]


def faults_of(node: Node, proxy: Proxy) -> dict[str, Fault]:
    """What may go wrong, by name; each fault is over when its call returns."""

    async def restarted_after(end: Callable[[], Awaitable[object]]) -> None:
        await end()
        await node.start()

    async def frozen() -> None:
        node.pause()
        await asyncio.sleep(random.uniform(0.5, 12))
        node.resume()

    async def alarmed() -> None:
        await node.ctl("set_vm_memory_high_watermark", "0")
        await node.ctl("set_vm_memory_high_watermark", "0.4")

    async def swallowed() -> None:
        proxy.black_hole()
        await asyncio.sleep(random.uniform(0.5, 12))
        # TCP loses no bytes in the middle: a line that swallowed some never carries what comes after them.
        proxy.reset()
        proxy.heal()

    async def at_once(call: Callable[[], object]) -> None:
        call()

    return {
        "killed": lambda: restarted_after(node.kill),
        "stopped": lambda: restarted_after(node.stop),
        "closed by an operator": lambda: node.ctl("close_all_connections", "soak"),
        "frozen": frozen,
        "memory alarm": alarmed,
        "black hole": swallowed,
        "reset": lambda: at_once(proxy.reset),
        "end of stream": lambda: at_once(proxy.eof),
    }


async def soak(minutes: float, seed: int, republish: bool) -> None:
    """Publish 100 messages a second through random faults, then print what became of them."""
    random.seed(seed)
    caused: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + minutes * 60
    async with (
        Node() as node,
        Proxy(node.port) as proxy,
        streaming(
            proxy.url("heartbeat=4&stack_timeout=3"),
            admin_url=node.url,
            interval=0.01,
            republish_unconfirmed=republish,
            max_waiting=1_000_000,
            timeout=600,
        ) as stream,
    ):
        await node.store_definitions()
        faults = faults_of(node, proxy)
        while loop.time() < deadline:
            name = random.choice(sorted(faults))
            caused[name] += 1
            await faults[name]()
            await stream.confirmed(300)
            print(f"{sum(caused.values()):5} {name:24} {len(stream.futures):8} published", flush=True)
        print_ledger(stream, caused, seed)


def print_ledger(stream: Stream, caused: Counter[str], seed: int) -> None:
    """Print what was caused, and what every message ended with."""
    ends = Counter("confirmed" if error is None else type(error).__name__ for error in stream.outcomes)
    print(f"\nseed {seed}; faults: " + ", ".join(f"{name} {count}" for name, count in caused.most_common()))
    print("publishes: " + ", ".join(f"{name} {count}" for name, count in ends.most_common()))
    print(f"client: {stream.client.counters}")


def main() -> None:
    """Run the soak; every message that was confirmed is looked for in the queue at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--republish", action="store_true", help="with republish_unconfirmed")
    arguments = parser.parse_args()
    asyncio.run(soak(arguments.minutes, arguments.seed, arguments.republish))
    print("the ledger holds: nothing confirmed was lost, every publish ended once, nothing is left behind")


if __name__ == "__main__":
    main()
