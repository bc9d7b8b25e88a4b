"""A small application: POST /events publishes the body to an exchange, and answers when RabbitMQ has confirmed it.

Run it with ``AMQP_URL=amqp://user:password@host:5672/%2f python -m examples.application``; `make demo` shows it.
"""

import asyncio
import os
import signal
import uuid
from typing import Any

from tornado.web import Application, RequestHandler

from sprockets_amqp import Client, PublishingMixin, install


class Events(PublishingMixin, RequestHandler):
    """Takes events."""

    async def post(self) -> None:
        """Publish the request's body; if that fails, the response is 503 or 502."""
        message_id = str(uuid.uuid4())
        properties = {"message_id": message_id, "content_type": "application/json", "delivery_mode": 2}
        await self.amqp_publish(self.settings["exchange"], "event.posted", self.request.body, properties)
        self.set_status(202)
        self.write({"message_id": message_id})


class EventsApplication(Application):
    """The application, with its client to RabbitMQ."""

    amqp: Client

    def __init__(self, exchange: str = "amq.topic", **amqp_settings: Any) -> None:
        super().__init__([("/events", Events)], service="events", version="1.0", exchange=exchange)
        install(self, **amqp_settings)


async def main() -> None:
    """Serve until SIGTERM or Ctrl-C; then requests in flight are answered and their events confirmed."""
    application = EventsApplication()
    server = application.listen(int(os.environ.get("PORT", "8000")), "127.0.0.1")
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    server.stop()
    await application.amqp.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
