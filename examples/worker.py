"""A worker without a web application: plain asyncio, one client, and nothing left unconfirmed at the end.

Run it with ``AMQP_URL=amqp://user:password@host:5672/%2f python -m examples.worker COUNT``.
"""

import asyncio
import sys

from sprockets_amqp import Client


async def main(count: int) -> int:
    """Publish ``count`` events; return how many RabbitMQ has confirmed."""
    confirmed = 0
    events = (("amq.topic", "event.counted", str(number)) for number in range(count))
    async with Client.from_environment(default_app_id="worker") as client:
        async for outcome in client.publish_many(events, mandatory=False):
            if outcome.confirmed:
                confirmed += 1
            else:
                print(outcome.error, file=sys.stderr)
    return confirmed


if __name__ == "__main__":
    wanted = int(sys.argv[1])
    reached = asyncio.run(main(wanted))
    print(reached, "confirmed")
    sys.exit(reached < wanted)
