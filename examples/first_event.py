"""POST /events publishes the request's body to an exchange, which routes it to a queue."""

import asyncio
import signal

from tornado.web import Application, RequestHandler

from sprockets_amqp import PublishingMixin, Topology, client_of, install


class Events(PublishingMixin, RequestHandler):
    async def post(self) -> None:
        await self.amqp_publish("events", "event.posted", self.request.body, {"delivery_mode": 2})
        self.set_status(202)


async def declare(topology: Topology) -> None:
    await topology.exchange_declare("events", "topic", durable=True)
    await topology.queue_declare("events", durable=True)
    await topology.queue_bind("events", "events", "event.#")


async def main() -> None:
    application = Application([("/events", Events)])
    install(application, setup=declare)
    server = application.listen(8000, "127.0.0.1")
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    server.stop()
    await client_of(application).shutdown()


if __name__ == "__main__":
    asyncio.run(main())
