"""A worker without a web application: plain asyncio, one client, and nothing left unconfirmed at the end.

Run it with ``AMQP_URL=amqp://user:password@host:5672/%2f python -m examples.worker COUNT``.
"""

import asyncio
import sys

from sprockets_amqp import Client

#: How many messages are under way at a time; the client takes as many, unconfirmed, before others wait in line.
WINDOW = 1000


async def main(count: int) -> int:
    """Publish ``count`` events; return how many RabbitMQ has confirmed."""
    confirmed = 0
    window = asyncio.Semaphore(WINDOW)

    def settle(publish: "asyncio.Future[None]") -> None:
        nonlocal confirmed
        window.release()
        error = publish.exception()
        if error is None:
            confirmed += 1
        else:
            print(error, file=sys.stderr)

    async with Client.from_environment(default_app_id="worker") as client:
        for number in range(count):
            await window.acquire()
            client.publish("amq.topic", "event.counted", str(number), mandatory=False).add_done_callback(settle)
        # When every place is free again, everything has its outcome.
        for _ in range(WINDOW):
            await window.acquire()
    return confirmed


if __name__ == "__main__":
    wanted = int(sys.argv[1])
    reached = asyncio.run(main(wanted))
    print(reached, "confirmed")
    sys.exit(reached < wanted)
