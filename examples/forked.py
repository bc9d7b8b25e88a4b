"""The application in several processes, by default one a processor; each has a connection of its own to RabbitMQ.

Run it with ``AMQP_URL=amqp://user:password@host:5672/%2f PROCESSES=2 python -m examples.forked``.
"""

import asyncio
import os
import signal
import socket
import sys

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.process import fork_processes

from examples.application import EventsApplication

STOPPING = (signal.SIGTERM, signal.SIGINT)
PARENT = os.getpid()


def pass_on(number: int, _frame: object) -> None:
    """Pass a signal on from the parent, which waits for its children, to all of its process group."""
    if os.getpid() != PARENT:
        # A child that does not serve yet.
        sys.exit()
    signal.signal(number, signal.SIG_IGN)
    os.killpg(0, number)


async def serve(sockets: list[socket.socket]) -> None:
    """Serve in one process until it is stopped."""
    application = EventsApplication()
    server = HTTPServer(application)
    server.add_sockets(sockets)
    stopped = asyncio.Event()
    for number in STOPPING:
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    server.stop()
    await application.amqp.shutdown()


def main() -> None:
    """Bind the port, fork, and serve in each child; a child that dies is started again."""
    sockets = bind_sockets(int(os.environ.get("PORT", "8000")), "127.0.0.1")
    for number in STOPPING:
        signal.signal(number, pass_on)
    fork_processes(int(os.environ.get("PROCESSES", "0")))
    asyncio.run(serve(sockets))


if __name__ == "__main__":
    main()
