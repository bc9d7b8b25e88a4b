"""An alert when no message could be sent for 30 seconds, and another when the outage is over.

Run it with ``AMQP_URL=amqp://user:password@host:5672/%2f python -m examples.outage_alert [SECONDS]``, and stop the
broker.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable

from sprockets_amqp import Client, State


async def watch(client: Client, alert: Callable[[str], object], after: float = 30.0) -> None:
    """Alert once in each outage that lasts longer than ``after`` seconds, and when it is over; runs until cancelled.

    Every state but ready is an outage, including an alarm of RabbitMQ's; attempts to connect do not restart it.
    """
    changes = client.changes()
    while True:
        try:
            await client.wait_for(State.READY, timeout=after)
        except TimeoutError:
            alert(f"RabbitMQ has taken no messages for {after:g} s: {client.condition}")
            await client.wait_for(State.READY)
            alert("RabbitMQ takes messages again")
        async for change in changes:
            if change.source is State.READY:
                break


async def main() -> None:
    """Watch a broker until Ctrl-C."""
    after = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    client = Client.from_environment()
    client.subscribe(print)
    try:
        await watch(client, print, after)
    finally:
        await client.shutdown()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
