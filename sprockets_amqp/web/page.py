"""The live page, and the server-sent events that it follows."""

import asyncio
import contextlib
import functools
import json
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from tornado.iostream import StreamClosedError
from tornado.template import Loader
from tornado.web import StaticFileHandler

from sprockets_amqp.client import Client
from sprockets_amqp.drawing.picture import STYLE, svg
from sprockets_amqp.hooks import StateChange
from sprockets_amqp.names import DEFAULT_NAME, clients_of

from .handler import Handler
from .status import COUNTERS, describe_change, iso, snapshot

#: Seconds between checks of the counters, and of whether the client was closed for good.
TICK: Final = 1.0
#: Seconds after which something is sent even if nothing changed: proxies close idle connections.
HEARTBEAT: Final = 15.0
#: How many pages may follow one client at a time; others are asked to try again later.
MAX_STREAMS: Final = 100
#: Milliseconds after which a browser that lost its connection reconnects.
RETRY: Final = 3000

STATIC: Final = Path(__file__).with_name("static")

# With a loader of its own, the page is escaped whatever the application's settings are.
_TEMPLATES: Final = Loader(str(STATIC), autoescape="xhtml_escape")

# One picture for each substate, and each thing that may become of a publish there.
_picture: Final = functools.cache(svg)


class Page(Handler):
    """The live page; without JavaScript, a snapshot that reloads itself."""

    def get(self) -> None:
        """Answer with the page. Its links are relative, so that proxies may move it."""
        if not self.request.path.endswith("/"):
            self.redirect(f"{self.request.path.rpartition('/')[2]}/", status=307)
            return
        client = self.client
        self.finish(
            _TEMPLATES.load("page.html").generate(
                status=snapshot(client),
                changes=[describe_change(change) for change in reversed(client.history)],
                labels=COUNTERS,
                picture=_picture(client.substate, client.publish_outcome),
                others=self._others(client),
            )
        )

    head = get

    def _others(self, client: Client) -> dict[str, str]:
        """Return the application's other clients, each with the relative path of its page."""
        up = "" if client.name == DEFAULT_NAME else "../"
        names = sorted(each.name for each in clients_of(self.application) if isinstance(each, Client))
        paths = {name: f"{up}{name}/" if name != DEFAULT_NAME else up or "./" for name in names}
        return {name: path for name, path in paths.items() if name != client.name}


class Style(Handler):
    """The picture's style sheet."""

    def get(self) -> None:
        """Answer with the style sheet."""
        self.set_header("Content-Type", "text/css; charset=utf-8")
        self.finish(STYLE)

    head = get


class Static(StaticFileHandler):
    """The page's script, style and icon."""

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002 - Tornado calls it with the path
        """Let browsers keep the files, but ask each time whether they have changed."""
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")


class Events(Handler):
    """The server-sent events that the page follows, each with the whole status and the changes since the last one."""

    _streams: ClassVar[weakref.WeakKeyDictionary[Client, set["Events"]]] = weakref.WeakKeyDictionary()
    _gone = False

    def initialize(self) -> None:
        """Start without news."""
        self._news = asyncio.Event()

    async def get(self) -> None:
        """Answer until the browser leaves or the client is closed for good; 503 if too many pages follow it already."""
        client = self.client
        streams = self._streams.setdefault(client, set())
        if len(streams) >= MAX_STREAMS:
            self.set_status(503)
            self.set_header("Retry-After", str(RETRY // 1000))
            self.finish({"reason": f"{len(streams)} pages follow the client already: try again later"})
            return
        streams.add(self)
        try:
            await self._answer(client)
        finally:
            streams.discard(self)

    async def _answer(self, client: Client) -> None:
        self.set_header("Content-Type", "text/event-stream")
        # The connection ends with the stream, so that it does not delay the end of the process; and nginx must not
        # buffer it.
        self.set_header("Connection", "close")
        self.set_header("X-Accel-Buffering", "no")
        self.write(f"retry: {RETRY}\n\n")
        subscription = client.subscribe(lambda _change: self._news.set())
        try:
            await self._follow(client)
        except StreamClosedError:
            return
        finally:
            subscription.cancel()

    def on_connection_close(self) -> None:
        """Record that the browser has left."""
        self._gone = True
        self._news.set()

    async def _follow(self, client: Client) -> None:
        last: StateChange | None = None
        sent: dict[str, Any] = {}
        sent_at = -HEARTBEAT
        while not self._gone:
            self._news.clear()
            status, changes = snapshot(client), _since(client.history, last)
            if changes or status != sent or time.monotonic() - sent_at >= HEARTBEAT:
                await self._send({**status, "now": iso(time.time()), "changes": list(map(describe_change, changes))})
                last, sent, sent_at = changes[-1] if changes else last, status, time.monotonic()
            if not status["live"]:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), TICK)

    async def _send(self, document: dict[str, Any]) -> None:
        self.write(f"data: {json.dumps(document)}\n\n")
        await self.flush()


def _since(history: Sequence[StateChange], last: StateChange | None) -> list[StateChange]:
    """Return the changes after the last one that was sent; all of them if that one is no longer kept."""
    for index in range(len(history) - 1, -1, -1):
        if history[index] is last:
            return list(history[index + 1 :])
    return list(history)
