"""An application to stop: ``python -m tests.support.stoppable plain|sprockets URL EXCHANGE ROUTING_KEY PORT``.

Its one request is taken before it is told to stop, and publishes only afterwards.
"""

import asyncio
import importlib
import signal
import sys
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

import sprockets_amqp as amqp

MODE, URL, EXCHANGE, ROUTING_KEY, PORT = sys.argv[1:]


class Slow(amqp.PublishingMixin, RequestHandler):
    """Publishes once the application is stopping."""

    async def post(self) -> None:
        """Answer when the event was confirmed."""
        say("taken")
        client = self.application.amqp  # type: ignore[attr-defined]
        while not client.stopping:
            await asyncio.sleep(0.01)
        await self.amqp_publish(EXCHANGE, ROUTING_KEY, self.request.body)
        self.write("published")


ROUTES = [("/", Slow), *amqp.web.routes()]


def say(what: str) -> None:
    """Tell the test."""
    sys.stdout.write(what + "\n")
    sys.stdout.flush()


async def plain() -> None:
    """Serve until SIGTERM, as an application that has a loop of its own does."""
    application = Application(ROUTES)
    amqp.install(application, url=URL)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = HTTPServer(application)
    server.listen(int(PORT), "127.0.0.1")
    say("serving")
    await stop.wait()
    server.stop()
    await application.amqp.shutdown()  # type: ignore[attr-defined]


def sprockets() -> None:
    """Serve until SIGTERM, as sprockets.http does."""
    # Distributed without annotations, and with deprecated imports of its own.
    http: Any = importlib.import_module("sprockets.http")
    importlib.import_module("sprockets.http.app")

    def make_application(**settings: Any) -> Application:
        application: Any = http.app.Application(ROUTES, **settings)
        application.before_run_callbacks.append(lambda app, loop: amqp.install(app, loop, url=URL))
        application.on_start_callbacks.append(lambda _app, _loop: say("serving"))
        return application  # type: ignore[no-any-return]

    http.run(make_application, {"port": int(PORT), "debug": True}, {"version": 1})


if __name__ == "__main__":
    if MODE == "plain":
        asyncio.run(plain())
    else:
        sprockets()
    say("ended")
