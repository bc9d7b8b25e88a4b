"""An application in each way to start one: ``python -m tests.support.started PLACE RUNNER URL EXCHANGE KEY PORT``.

A request publishes the number of the process that took it, and is answered with that and the local port of the
connection that it was published on. SIGTERM ends each process well.
"""

import asyncio
import importlib
import json
import os
import signal
import sys
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.process import fork_processes
from tornado.web import Application, RequestHandler

import sprockets_amqp as amqp

PLACE, RUNNER, URL, EXCHANGE, ROUTING_KEY, PORT = sys.argv[1:]
PARENT = os.getpid()


class Publishes(amqp.PublishingMixin, RequestHandler):
    """Publishes on request."""

    async def post(self) -> None:
        """Answer when the event was confirmed."""
        await self.amqp_publish(EXCHANGE, ROUTING_KEY, str(os.getpid()))
        socket = self.application.amqp.connection.socket  # type: ignore[attr-defined]
        self.finish(json.dumps({"process": os.getpid(), "port": socket.getsockname()[1]}))


ROUTES: list[Any] = [("/", Publishes), *amqp.web.routes()]


class Constructed(Application):
    """An application that installs its client in its constructor."""

    def __init__(self) -> None:
        super().__init__(ROUTES)
        install(self)


def install(application: Application) -> None:
    """Install the client."""
    assert amqp.install(application, url=URL)


def make_application() -> Application:
    """Make the application, with its client where that is the place for it."""
    if PLACE == "in the constructor":
        return Constructed()
    application = Application(ROUTES)
    if PLACE == "at module level":
        install(application)
    return application


def say(what: str) -> None:
    """Tell the test; each process in a line of its own."""
    os.write(1, f"{what}\n".encode())


def end_on_sigterm(application: Application, server: HTTPServer) -> None:
    """Shut down on SIGTERM and stop the loop, the way that Tornado's own documentation has it."""
    loop = IOLoop.current()

    async def end() -> None:
        server.stop()
        await application.amqp.shutdown()  # type: ignore[attr-defined]
        loop.stop()

    signal.signal(signal.SIGTERM, lambda *_: loop.add_callback_from_signal(end))


def serve(application: Application, processes: int) -> None:
    """Run Tornado's loop, in several processes where that is asked for."""
    server = HTTPServer(application)
    if processes > 1:
        # The parent waits for its children, which hear of the signal, too.
        signal.signal(signal.SIGTERM, lambda *_: None)
        server.bind(int(PORT), "127.0.0.1")
        server.start(processes)
    else:
        server.listen(int(PORT), "127.0.0.1")
    if PLACE == "after the fork":
        install(application)
    end_on_sigterm(application, server)
    IOLoop.current().start()


async def main(application: Application) -> None:
    """Serve under `asyncio.run` until SIGTERM."""
    if PLACE in {"inside asyncio.run", "after the fork"}:
        install(application)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = HTTPServer(application)
    server.bind(int(PORT), "127.0.0.1", reuse_port=True)
    server.start()
    await stop.wait()
    server.stop()
    await application.amqp.shutdown()  # type: ignore[attr-defined]


def run_sprockets(processes: int) -> None:
    """Run the application as sprockets.http does."""
    # Distributed without annotations, and with deprecated imports of its own.
    http: Any = importlib.import_module("sprockets.http")
    base: Any = importlib.import_module("sprockets.http.app").Application

    class Constructing(base):  # type: ignore[misc]
        def __init__(self, **settings: Any) -> None:
            super().__init__(ROUTES, **settings)
            if PLACE == "in the constructor":
                install(self)
            else:
                self.before_run_callbacks.append(lambda application, _loop: install(application))

    settings = {"port": int(PORT), "number_of_procs": processes, "debug": False}
    http.run(Constructing, settings, {"version": 1})


def run() -> None:
    """Start the application as it is asked for."""
    if RUNNER.startswith("sprockets.http"):
        run_sprockets(int(RUNNER.rpartition(" ")[2]))
        return
    application = make_application()
    if RUNNER == "fork_processes(2), asyncio.run":
        signal.signal(signal.SIGTERM, lambda *_: None)
        fork_processes(2)
        asyncio.run(main(application))
    elif RUNNER == "asyncio.run":
        asyncio.run(main(application))
    elif RUNNER == "fork_processes(2), IOLoop.current().start()":
        signal.signal(signal.SIGTERM, lambda *_: None)
        fork_processes(2)
        if PLACE == "after the fork":
            install(application)
        server = HTTPServer(application)
        server.bind(int(PORT), "127.0.0.1", reuse_port=True)
        server.start()
        end_on_sigterm(application, server)
        IOLoop.current().start()
    else:
        serve(application, 2 if RUNNER == "HTTPServer.start(2)" else 1)


if __name__ == "__main__":
    run()
    say(f"{os.getpid()} ended")
