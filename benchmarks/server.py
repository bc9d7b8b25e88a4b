"""A Tornado application to load, in a process of its own: ``python -m benchmarks.server PEER URL SIZE GIVEN``.

``POST /empty`` does nothing, ``POST /publish`` publishes one message and answers when it is confirmed, and
``GET /usage`` tells the processor time that the process has spent. Prints its port, and ends when its standard input
does.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from typing import cast

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from benchmarks.messages import MAKERS, Given, Giver
from benchmarks.peers import APP_ID, EXCHANGE, OURS, ROUTING_KEY, Publisher, make_publisher


class EmptyHandler(RequestHandler):
    """What a request costs by itself."""

    async def post(self) -> None:
        """Answer 204."""
        self.set_status(204)


class PublishHandler(RequestHandler):
    """A peer used from a handler."""

    def initialize(self, publisher: Publisher, body: bytes, give: Giver) -> None:
        """Take what the route gives."""
        self.publisher = publisher
        self.body = body
        self.give = give

    async def post(self) -> None:
        """Publish, and answer 204 when the broker has confirmed."""
        await self.publisher.publish(self.body, self.give())
        self.set_status(204)


class UsageHandler(RequestHandler):
    """The server's own processor time."""

    async def get(self) -> None:
        """Answer user and system seconds."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.write({"user": usage.ru_utime, "system": usage.ru_stime})


async def application(peer: str, url: str, body: bytes, give: Giver) -> Application:
    """Return the application, connected to the broker."""
    routes = [("/empty", EmptyHandler), ("/usage", UsageHandler)]
    if peer == OURS:
        return await _application_with_mixin(url, body, give, routes)
    publisher = make_publisher(peer)
    await publisher.open(url, 1)
    return Application([*routes, ("/publish", PublishHandler, {"publisher": publisher, "body": body, "give": give})])


async def _application_with_mixin(
    url: str, body: bytes, give: Giver, routes: list[tuple[str, type[RequestHandler]]]
) -> Application:
    """Use this project's client as its README does: installed into the application, with the mixin."""
    import sprockets_amqp as amqp  # noqa: PLC0415 - only in the process that measures it

    class MixinHandler(amqp.PublishingMixin, RequestHandler):
        async def post(self) -> None:
            await self.amqp_publish(EXCHANGE, ROUTING_KEY, body, give())
            self.set_status(204)

    application = Application([*routes, ("/publish", MixinHandler)])
    amqp.install(application, url=url, default_app_id=APP_ID)
    client: amqp.Client = application.amqp  # type: ignore[attr-defined] # install() sets it
    await client.wait_for(amqp.State.READY, timeout=10)
    return application


async def main() -> None:
    """Serve on a free port until standard input ends."""
    peer, url, size, given = sys.argv[1:]
    sockets = bind_sockets(0, "127.0.0.1")
    HTTPServer(await application(peer, url, os.urandom(int(size)), MAKERS[cast("Given", given)])).add_sockets(sockets)
    print(sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
