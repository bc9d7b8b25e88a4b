"""The mixin for request handlers."""

import asyncio
import functools
import inspect
import logging
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from tornado.iostream import IOStream
from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler

from sprockets_amqp.bounded_log import BoundedLog, named
from sprockets_amqp.client import Client
from sprockets_amqp.delivery.options import Options
from sprockets_amqp.delivery.publish import Result  # noqa: TC001 - get_type_hints() of a public method needs it
from sprockets_amqp.names import DEFAULT_NAME, client_of, clients_of, missing
from sprockets_amqp.text import SHORT_STRING_LIMIT, shown

from .answers import answer

LOGGER = logging.getLogger("sprockets_amqp.mixin")

# It comes before RequestHandler among a handler's bases, and is not one itself.
if TYPE_CHECKING:
    _Handler = RequestHandler
else:
    _Handler = object


class PublishingMixin(_Handler):
    """Adds publishing to a `tornado.web.RequestHandler`; its application needs `install()`.

    Name it before `RequestHandler` (``class Events(PublishingMixin, RequestHandler)``). Then:

    - An error of a publish that the handler does not catch becomes the response: 503 with Retry-After for
      `NotReadyError`, 500 for `InvalidMessage`, 502 for the others. The application's own ``write_error`` is called
      with that status; without one, the response is JSON with error, reason, message_id and may_have_arrived.
    - `Client.shutdown` of any of the application's clients lets requests in flight finish first, except WebSockets and
      connections handed over by `detach()`. Meanwhile each response closes its connection, or clients that keep theirs
      alive would go on sending requests.
    """

    #: The name of the client to publish on, if the application has several; see `install`.
    amqp_name: ClassVar[str] = DEFAULT_NAME

    # A handler may have attributes of any name.
    _amqp_clients: Sequence[Client] = ()
    _amqp_retry_after: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._amqp_clients = [
            each for each in clients_of(getattr(self, "application", None)) if isinstance(each, Client)
        ]
        for client in self._amqp_clients:
            client.bind()
            if not isinstance(self, WebSocketHandler):
                client.in_flight.add(self)
        if any(client.stopping for client in self._amqp_clients):
            self.set_header("Connection", "close")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if RequestHandler in cls.__mro__ and cls.__mro__.index(RequestHandler) < cls.__mro__.index(PublishingMixin):
            warnings.warn(
                f"{cls.__qualname__} names PublishingMixin after RequestHandler: errors of a publish are answered 500 "
                f"and shutdown does not wait for requests: write class {cls.__name__}(PublishingMixin, RequestHandler)",
                stacklevel=2,
            )

    def amqp_publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | bytearray | memoryview | str,
        properties: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> "asyncio.Future[Result]":
        """Publish a message, as `Client.publish` does, with the handler's ``correlation_id`` if it has one.

        A correlation id is cut to the 255 octets that AMQP allows.

        In a test, ``application.amqp`` may be any object with a ``publish``; its result may be awaitable or not.

        Raises:
            RuntimeError: `install()` was not called for the application.
        """
        publish = getattr(client_of(self.application, self.amqp_name), "publish", None)
        if not callable(publish):
            raise RuntimeError(missing(self.amqp_name))
        correlation_id = getattr(self, "correlation_id", None)
        given: object = properties
        # publish() refuses properties that are not a mapping.
        if correlation_id and (given is None or isinstance(given, Mapping)):
            properties = {"correlation_id": _short(str(correlation_id)), **(given or {})}
        published = publish(exchange, routing_key, body, properties, **options)
        return published if isinstance(published, asyncio.Future) else asyncio.ensure_future(_awaited(published))

    # Called by Tornado: each goes on to the handler's other bases

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> "asyncio.Future[None]":
        """Finish the response; the request is in flight until it has been sent."""
        if any(client.stopping for client in self._amqp_clients):
            self.set_header("Connection", "close")
        sent: asyncio.Future[None] | None = super().finish(chunk)
        # A base class written for Tornado before 5.1 returns None.
        if sent is None or sent.done():
            self._end_request()
        else:
            sent.add_done_callback(lambda _sent: self._end_request())
        return sent  # type: ignore[return-value]

    def detach(self) -> IOStream:
        """Hand over the connection; like a WebSocket, it is no longer a request in flight."""
        self._end_request()
        return super().detach()

    def on_connection_close(self) -> None:
        """End a request whose body was broken off while it was streamed: Tornado calls no method for it."""
        body = getattr(self.request, "_body_future", None)
        if body is not None and not body.done():
            self._end_request()
        super().on_connection_close()

    def _end_request(self) -> None:
        for client in self._amqp_clients:
            client.in_flight.discard(self)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Send the status for what a publish raised, unless a status other than 500 was chosen."""
        found = answer(_raised(kwargs)) if status_code == 500 else None
        if found is not None:
            if kwargs.get("reason") == HTTPStatus(status_code).phrase:
                # A mixin before this one has filled it in.
                del kwargs["reason"]
            status_code = found.status
            client = client_of(self.application, self.amqp_name)
            if status_code == 503 and isinstance(client, Client):
                self._amqp_retry_after = str(math.ceil(client.reconnect_delay))
        super().send_error(status_code, **kwargs)

    def clear(self) -> None:
        """Reset the response, except for the Retry-After of an error that is being sent."""
        super().clear()
        if self._amqp_retry_after is not None:
            self.set_header("Retry-After", self._amqp_retry_after)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write what a publish raised as JSON, unless the application or its debug mode writes errors."""
        found = answer(_raised(kwargs))
        if found is None or self._is_overridden("write_error") or self.settings.get("serve_traceback"):
            super().write_error(status_code, **kwargs)
        else:
            self.finish(found.document)

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log what a publish raised in one line: in an outage, a traceback for each request is no help."""
        found = answer(value)
        if found is None or found.status == 500 or self._is_overridden("log_exception"):
            super().log_exception(typ, value, tb)
        else:
            log, request = _log(self.amqp_name), shown(self._request_summary())
            log.log(logging.WARNING, "%d %s: %s", found.status, request, found.error)

    def _is_overridden(self, name: str) -> bool:
        """Return whether a later base of the handler overrides Tornado's own method."""
        return getattr(super(), name).__func__ is not getattr(RequestHandler, name)


def _short(correlation_id: str) -> str:
    """Cut a correlation id, which callers may send at any length: better to lose part of it than the event."""
    octets = correlation_id.encode(errors="replace")
    if len(octets) <= SHORT_STRING_LIMIT:
        return correlation_id
    _log_cut()
    return octets[:SHORT_STRING_LIMIT].decode(errors="ignore")


@functools.cache
def _log(name: str) -> BoundedLog:
    """Return the log of a client's handlers: in an outage, each request would write a line."""
    return BoundedLog(named(LOGGER, name), time.monotonic)


@functools.cache
def _log_cut() -> None:
    """Log once per process: a caller who sends such ids sends many."""
    LOGGER.warning(
        "a handler's correlation_id was longer than %d octets, and was cut; this is logged once",
        SHORT_STRING_LIMIT,
    )


async def _awaited(published: Any) -> Any:
    return await published if inspect.isawaitable(published) else published


def _raised(kwargs: Mapping[str, Any]) -> object:
    return kwargs["exc_info"][1] if kwargs.get("exc_info") else None
