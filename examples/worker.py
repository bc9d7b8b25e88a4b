"""A worker without a web application: plain asyncio, one client, and nothing left unconfirmed at the end.

Run it with ``AMQP_URL=amqp://user:password@host:5672/%2f python -m examples.worker COUNT``.
"""

import asyncio
import sys

from sprockets_amqp import AMQPException, Client


async def main(count: int) -> int:
    """Publish ``count`` events; return how many RabbitMQ has confirmed."""
    async with Client.from_environment(default_app_id="worker") as client:
        futures = [
            client.publish("amq.topic", "event.counted", str(number), mandatory=False) for number in range(count)
        ]
        await client.flush(timeout=60)
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, AMQPException):
            print(outcome, file=sys.stderr)
    return outcomes.count(None)


if __name__ == "__main__":
    print(asyncio.run(main(int(sys.argv[1]))), "confirmed")
