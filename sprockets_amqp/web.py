"""Handlers that show the client: a live page, and readiness and liveness for whoever routes requests.

>>> import sprockets_amqp as amqp
>>> from tornado.web import Application
>>> application = Application([*amqp.web.routes()])

They show the client of their application, ``application.amqp``, and no secret. Whoever can reach the application can
reach them: where that is everybody, keep their prefix from the outside, as one does with metrics.
"""

import asyncio
import contextlib
import functools
import json
import re
import time
import weakref
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

from tornado.iostream import StreamClosedError
from tornado.routing import URLSpec
from tornado.template import Loader
from tornado.web import HTTPError, RequestHandler, StaticFileHandler

from .client import Client
from .declared import substate_name
from .hooks import StateChange
from .picture import STYLE, svg
from .settings import node_name
from .states import State
from .text import shown
from .tls import unverified

#: Seconds between looks at the counters, and at whether the client was closed for good.
TICK: Final = 1.0
#: Seconds after which something is sent although nothing changed: proxies end connections on which nothing moves.
HEARTBEAT: Final = 15.0
#: How many pages may follow one client at a time; others are told to try again.
MAX_STREAMS: Final = 100
#: Milliseconds after which a browser that lost its connection makes another.
RETRY: Final = 3000

STATIC: Final = Path(__file__).with_name("static")

NOT_INSTALLED: Final = "the application has no AMQP client: call sprockets_amqp.install(application) first"

#: Everything comes from here, and nothing is inline.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# With a loader of its own, the page is escaped whatever the application's settings are.
_TEMPLATES: Final = Loader(str(STATIC), autoescape="xhtml_escape")

# There are as many pictures as there are substates to light.
_picture: Final = functools.cache(svg)


def routes(prefix: str = "/amqp") -> list[Any]:
    """Return the routes of the page (at ``prefix``), ``prefix/ready`` and ``prefix/live``, for an `Application`.

    They are `tornado.web.URLSpec`, in a list that type checkers let stand beside tuples.
    """
    start = re.escape(prefix.rstrip("/"))
    return [
        URLSpec(rf"{start}/ready", Ready),
        URLSpec(rf"{start}/live", Live),
        URLSpec(rf"{start}/events", Events),
        URLSpec(rf"{start}/lifecycle\.css", Style),
        URLSpec(rf"{start}/(page\.css|page\.js|icon\.svg)", Static, {"path": str(STATIC)}),
        URLSpec(rf"{start}/?", Page),
    ]


class _Handler(RequestHandler):
    """What the handlers have in common."""

    def set_default_headers(self) -> None:
        """Let nobody keep what is true now, and nothing come from elsewhere."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")

    @property
    def client(self) -> Client:
        """The application's client; 503 where there is none."""
        client = getattr(self.application, "amqp", None)
        if not isinstance(client, Client):
            raise HTTPError(503, NOT_INSTALLED)
        client.bind()
        return client

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say in JSON what is missing."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        if isinstance(error, HTTPError) and error.log_message == NOT_INSTALLED:
            self.finish({"ready": False, "live": False, "reason": NOT_INSTALLED})
        else:
            super().write_error(status_code, **kwargs)

    def compute_etag(self) -> str | None:
        """Have none: nothing here may be kept."""
        return None


class Ready(_Handler):
    """Readiness: 200 while publishes go out, 503 while they would wait or be refused, and while the client stops."""

    def get(self) -> None:
        """Answer with the status and, as JSON, what is behind it."""
        status = describe(self.client)
        self.set_status(200 if status["ready"] else 503)
        self.finish(status)

    head = get


class Live(_Handler):
    """Liveness: 200 while the client can still recover, 503 once it was closed for good: a restart would help."""

    def get(self) -> None:
        """Answer with the status and, as JSON, what is behind it."""
        status = describe(self.client)
        self.set_status(200 if status["live"] else 503)
        self.finish(status)

    head = get


class Page(_Handler):
    """The live page; without JavaScript, a snapshot that loads itself again."""

    def get(self) -> None:
        """Answer with the page, whose links are relative, so that proxies may move it."""
        if not self.request.path.endswith("/"):
            self.redirect(f"{self.request.path.rpartition('/')[2]}/", status=307)
            return
        client = self.client
        self.finish(
            _TEMPLATES.load("page.html").generate(
                status=snapshot(client),
                changes=[describe_change(change) for change in reversed(client.history)],
                labels=COUNTERS,
                picture=_picture(client.substate),
            )
        )

    head = get


class Style(_Handler):
    """The style of the picture, from where the picture is."""

    def get(self) -> None:
        """Answer with the style sheet."""
        self.set_header("Content-Type", "text/css; charset=utf-8")
        self.finish(STYLE)

    head = get


class Static(StaticFileHandler):
    """The page's script, style and icon."""

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002 - Tornado calls it with the path
        """Let browsers keep the files, but ask whether they are still the ones."""
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")


class Events(_Handler):
    """What the page follows: server-sent events, each the whole status and the changes since the one before."""

    _streams: ClassVar[weakref.WeakKeyDictionary[Client, set["Events"]]] = weakref.WeakKeyDictionary()
    _gone = False

    def initialize(self) -> None:
        """Have nothing to tell yet."""
        self._news = asyncio.Event()

    async def get(self) -> None:
        """Answer until the browser leaves or the client is closed for good; 503 where too many follow already."""
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
        # The connection ends with the stream, so that nothing of it holds up the end of the process; and nginx must
        # not wait for more.
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
        """Take note that the browser left."""
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
                await self._send({**status, "now": _iso(time.time()), "changes": list(map(describe_change, changes))})
                last, sent, sent_at = changes[-1] if changes else last, status, time.monotonic()
            if not status["live"]:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), TICK)

    async def _send(self, document: dict[str, Any]) -> None:
        self.write(f"data: {json.dumps(document)}\n\n")
        await self.flush()


#: The counters that people look at, with their names on the page.
COUNTERS: Final = {
    "published": "Published",
    "confirmed": "Confirmed",
    "unconfirmed": "Unconfirmed",
    "waiting": "Waiting",
    "returned": "Returned",
    "nacked": "Nacked",
    "failed": "Failed",
    "reconnects": "Reconnects",
}


def describe(client: Client) -> dict[str, Any]:
    """Tell the client's status in JSON's terms: what readiness and liveness answer."""
    history, counters = client.history, client.counters
    return {
        "state": client.state.name.lower(),
        "substate": substate_name(client.substate),
        "since": _iso(client.state_since),
        "ready": client.ready and not client.stopping,
        "live": client.recovers or client.closing,
        "trigger": history[-1].trigger if history else "",
        "reason": _reason(history),
        "broker": _broker(client),
        "counters": {name: getattr(counters, name) for name in COUNTERS},
    }


def snapshot(client: Client) -> dict[str, Any]:
    """Tell the client's status, and what the page shows of it beyond that."""
    outcome = client.publish_outcome
    because = f": not ready for more than {client.settings.timeout:g} s" if outcome == "is refused" else ""
    return {
        **describe(client),
        "description": client.state_description,
        "outcome": outcome,
        "doubt": unverified(client.parameters),
        "publish": f"a publish {outcome}{because if client.recovers else ''}",
    }


def describe_change(change: StateChange) -> dict[str, str]:
    """Tell a change in JSON's terms."""
    return {
        "at": _iso(change.at),
        "source": change.source.name.lower(),
        "dest": change.dest.name.lower(),
        "trigger": change.trigger,
        "reason": change.reason,
    }


def _reason(history: Sequence[StateChange]) -> str:
    """Return the reason of the last change or, where it had none, of the trouble that it is part of."""
    for change in reversed(history):
        if change.reason or change.dest is State.READY:
            return change.reason
    return ""


def _broker(client: Client) -> str:
    """Name the node that is connected, or tried next, without its credentials."""
    parameters = client.parameters
    return f"{shown(node_name(parameters))}/{quote(parameters.virtual_host, safe='')}"


def _since(history: Sequence[StateChange], last: StateChange | None) -> list[StateChange]:
    """Return the changes after the last one that was sent; all of them, where that is not among them any more."""
    for index in range(len(history) - 1, -1, -1):
        if history[index] is last:
            return list(history[index + 1 :])
    return list(history)


def _iso(seconds: float) -> str:
    """Write a time as RFC 3339 does, in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
