"""Requests in memory: Tornado's handlers and this package's mixin are real, only the HTTP connection is not."""

import asyncio
from collections.abc import Callable
from typing import Any

from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPServerRequest, RequestStartLine, ResponseStartLine
from tornado.web import Application, RequestHandler

import sprockets_amqp as amqp
from sprockets_amqp import Client, PublishingMixin
from tests.support.memory import Broker


class Request(HTTPConnection):
    """A request to an application, and its answer, which leaves when the test lets it."""

    def __init__(self, broker: Broker, application: Application, *, slow: bool = False) -> None:
        self._loop = broker.clock.loop
        self._slow = slow
        self._sent: list[asyncio.Future[None]] = []
        #: The status of the answer, or None before there is one, and its body.
        self.status: int | None = None
        self.body = b""
        asked = HTTPServerRequest(start_line=RequestStartLine("POST", "/", "HTTP/1.0"), connection=self)
        self._loop.call_soon(application, asked)
        broker.clock.turn(2)

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Nobody hangs up."""

    def write_headers(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders, chunk: bytes | None = None
    ) -> "asyncio.Future[None]":
        """Take the beginning of the answer."""
        assert isinstance(start_line, ResponseStartLine)
        self.status = start_line.code
        return self.write(chunk or b"")

    def write(self, chunk: bytes) -> "asyncio.Future[None]":
        """Take more of the answer."""
        self.body += chunk
        sent: asyncio.Future[None] = self._loop.create_future()
        self._sent.append(sent)
        if not self._slow:
            sent.set_result(None)
        return sent

    def finish(self) -> None:
        """Take the end of the answer."""

    def flush(self) -> None:
        """Let the peer have read all of it."""
        for sent in self._sent:
            if not sent.done():
                sent.set_result(None)


class Gated(PublishingMixin, RequestHandler):
    """Publishes when the test opens the gate."""

    async def post(self) -> None:
        """Wait, then publish."""
        await self.settings["gate"].wait()
        await self.amqp_publish("", "q", b"")
        self.write("published")


def gated(broker: Broker, **arguments: Any) -> tuple[Application, Client, asyncio.Event]:
    """Make an application with a client that is ready; returns them, and the gate of its handler."""
    gate = asyncio.Event()
    application = Application([("/", Gated)], gate=gate)
    amqp.install(application, broker.clock.io_loop, url="amqp://broker", **arguments)
    client: Client = application.amqp  # type: ignore[attr-defined]
    broker.clients.append(client)
    broker.open()
    assert client.ready
    return application, client, gate
