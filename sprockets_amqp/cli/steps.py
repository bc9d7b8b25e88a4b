"""Connecting step by step, to find which step fails and what to do: from DNS to a message that is rolled back.

The first three steps are done here; the others are pika's, on the link that a client would open.
"""

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import pika
from pika.exceptions import ConnectionClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError
from tornado.ioloop import IOLoop

from sprockets_amqp.errors import AMQPException
from sprockets_amqp.link import Events, Link
from sprockets_amqp.text import function_name, shown
from sprockets_amqp.topology import SetupFunction, declare
from sprockets_amqp.wire.pika_insides import broker_words
from sprockets_amqp.wire.replies import describe
from sprockets_amqp.wire.tls import unverified
from sprockets_amqp.wire.transport import VERSION_LIMIT

#: RabbitMQ's reply codes for what the user may not do, and for what exists with other arguments.
ACCESS_REFUSED: Final = 403
PRECONDITION_FAILED: Final = 406
#: RabbitMQ's reply codes for a second channel that the user may not open, and for transactions that it does not offer.
NOT_TRIED: Final = frozenset({530, 540})
#: Seconds that closing cleanly may take.
CLOSE_LIMIT: Final = 2.0
#: OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_HOSTNAME_MISMATCH (and that of addresses).
EXPIRED: Final = 10
OTHER_NAME: Final = frozenset({62, 64})


@dataclass(frozen=True)
class Step:
    """One step: whether it worked, what was found, and what to do if it failed."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


class Blocked(AMQPException):
    """RabbitMQ blocks connections that publish: an alarm."""


@dataclass
class _Probe:
    """The message that is published and rolled back: to the default exchange, which is there for everybody."""

    exchange: str = ""
    routing_key: str = ""
    user_id: str | None = None
    copies: tuple[tuple[str, tuple[str, ...]], ...] = ()


async def check_node(
    parameters: pika.URLParameters, limit: float, setup: SetupFunction | None = None
) -> AsyncIterator[Step]:
    """Yield each step as soon as it is done, up to the first that fails; each may take ``limit`` seconds."""
    attempt = _Attempt(parameters, setup)
    try:
        for name, take in attempt.steps():
            try:
                async with asyncio.timeout(limit):
                    detail = await take()
            except Exception as error:
                yield Step(name, False, _detail(error, limit), _ADVICE[name](error, parameters))
                return
            yield Step(name, True, detail)
    finally:
        await attempt.end()


class _Attempt(Events):
    """One attempt to get as far as a client that publishes."""

    def __init__(self, parameters: pika.URLParameters, setup: SetupFunction | None) -> None:
        self._setup = setup
        self._parameters = parameters
        self._parameters.connection_attempts = 1
        self._loop = asyncio.get_running_loop()
        self._addresses: list[tuple[Any, ...]] = []
        self._socket: socket.socket | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._link = Link(self, IOLoop.current(), confirm=False)
        self._denied: BaseException | None = None
        self._answer: asyncio.Future[None] = self._loop.create_future()

    def steps(self) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
        """Return the steps in order; TLS only if the URL asks for it."""
        tls = [("TLS", self._start_tls)] if self._parameters.ssl_options else []
        amqp = [("login", self._log_in), ("vhost", self._open_vhost)]
        setup = [("setup", self._set_up)] if self._setup is not None else []
        channel = [("channel", self._open_channel), ("confirms", self._select_confirms), ("publish", self._publish)]
        return [("DNS", self._look_up), ("TCP", self._connect), *tls, *amqp, *setup, *channel]

    async def end(self) -> None:
        """Close what was opened."""
        await self._close_probe()
        connection = self._link.connection
        if connection is not None and connection.is_open:
            self._link.close_connection()
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_LIMIT):
                    await connection.wait_closed()
        self._link.drop_connection()

    async def _look_up(self) -> str:
        records = await _resolve(self._parameters.host, self._parameters.port)
        self._addresses = list(dict.fromkeys((record[0], record[4]) for record in records))
        return ", ".join(address[0] for _, address in self._addresses)

    async def _connect(self) -> str:
        problem: OSError = OSError("no address")
        for family, address in self._addresses:
            self._socket = socket.socket(family, socket.SOCK_STREAM)
            self._socket.setblocking(False)
            try:
                await self._loop.sock_connect(self._socket, address)
            except OSError as error:
                problem = error
                self._socket.close()
            else:
                return f"{address[0]} port {address[1]} accepts connections"
        raise problem

    async def _start_tls(self) -> str:
        options = self._parameters.ssl_options
        assert options is not None
        name = options.server_hostname or self._parameters.host
        _, self._writer = await asyncio.open_connection(sock=self._socket, ssl=options.context, server_hostname=name)
        found = unverified(self._parameters) or f"the certificate is valid for {name}"
        return f"{self._writer.get_extra_info('ssl_object').version()}, {found}"

    async def _log_in(self) -> str:
        await self._close_probe()
        self._link.open_connection(self._parameters)
        try:
            await self._answer
        except ProbableAccessDeniedError as error:
            # RabbitMQ checks the vhost only once it has accepted the user.
            self._denied = error
        return f"as {getattr(self._parameters.credentials, 'username', 'the client certificate')}"

    async def _open_vhost(self) -> str:
        if self._denied is not None:
            raise self._denied
        return repr(self._parameters.virtual_host)

    async def _set_up(self) -> str:
        assert self._setup is not None and self._link.connection is not None
        await declare(self._setup, self._link.connection)
        return f"{function_name(self._setup)}() declared everything"

    async def _open_channel(self) -> str:
        self._answer = self._loop.create_future()
        self._link.open_channel()
        await self._answer
        return "opened"

    async def _select_confirms(self) -> str:
        self._answer = self._loop.create_future()
        self._link.select_confirms()
        await self._answer
        assert self._link.connection is not None
        server = self._link.connection.server_properties or {}
        product, its_version = server.get("product", "the server"), server.get("version", "")
        return f"offered by {shown(product, VERSION_LIMIT)} {shown(its_version, VERSION_LIMIT)}".rstrip()

    async def _publish(self) -> str:
        # RabbitMQ tells of an alarm only connections that publish (https://www.rabbitmq.com/docs/connection-blocked).
        self._answer = self._loop.create_future()
        # A refusal says that messages are taken, too.
        self._link.ask(_Probe(), lambda _refusal: self._succeed())
        try:
            await self._answer
        except ConnectionClosedByBroker as error:
            if error.reply_code in NOT_TRIED:
                return f"not tried: {describe(error)}"
            raise
        return "RabbitMQ takes messages (one was rolled back)" if self._link.asked else "not tried: only one channel"

    async def _close_probe(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._writer is not None:
            # Close it without waiting.
            self._writer.transport.abort()
        self._socket = self._writer = None

    # Events of the link

    def on_connection_open(self, _connection: object) -> None:
        """Take the next step."""
        self._succeed()

    def on_channel_open(self, _channel: object) -> None:
        """Take the next step."""
        self._succeed()

    def on_connection_open_error(self, _connection: object, error: BaseException) -> None:
        """Fail the step."""
        self._fail(error)

    def on_connection_closed(self, _connection: object, _reply_code: int, _reply_text: str) -> None:
        """Fail the step."""
        self._fail(self._link.error)

    def on_connection_blocked(self, method_frame: Any) -> None:
        """Fail the step."""
        reason = shown(getattr(method_frame.method, "reason", ""))
        self._fail(Blocked().saying(f"RabbitMQ blocks publishing: {reason}"))

    def on_channel_closed(self, _channel: object, _reply_code: int, _reply_text: str) -> None:
        """Fail the step."""
        self._fail(self._link.error)

    def _succeed(self) -> None:
        if not self._answer.done():
            self._answer.set_result(None)

    def _fail(self, error: BaseException | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(error or ConnectionError())


async def _resolve(host: str, port: int) -> list[Any]:
    """Look up a host in a thread that cannot delay the end of the process, however long DNS hangs."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Any]] = loop.create_future()

    def report(result: "list[Any] | OSError") -> None:
        if found.done():
            return
        if isinstance(result, OSError):
            found.set_exception(result)
        else:
            found.set_result(result)

    def look_up() -> None:
        result: list[Any] | OSError
        try:
            result = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            result = error
        # The loop is closed once the result is no longer wanted.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(report, result)

    threading.Thread(target=look_up, daemon=True).start()
    return await found


def _detail(error: Exception, limit: float) -> str:
    if isinstance(error, TimeoutError) and not error.args:
        return f"no answer within {limit:g} s"
    if (words := broker_words(error)) is not None:
        return words
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno)
    return describe(error)


def _advise_dns(error: Exception, parameters: pika.URLParameters) -> str:
    if isinstance(error, TimeoutError):
        return "the name server does not answer: check /etc/resolv.conf, or use the node's address in the URL"
    return f"correct the host in the URL, {parameters.host!r}, or add it to DNS or /etc/hosts"


def _advise_tcp(error: Exception, parameters: pika.URLParameters) -> str:
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens on port {parameters.port}: start RabbitMQ, or correct the port (5672, with TLS 5671)"
    return "the node cannot be reached: check the address, and any firewall in between"


def _advise_tls(error: Exception, parameters: pika.URLParameters) -> str:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return "this port does not speak TLS, or only another version: use amqp://, or the TLS port (5671 by default)"
    if error.verify_code == EXPIRED:
        return "renew the node's certificate"
    if error.verify_code in OTHER_NAME:
        return f"the certificate is not for {parameters.host!r}: use a host that it names"
    return (
        "no trusted authority signed the certificate: give your authority's certificates as AMQP_TLS_CA, or as "
        "ca_certs in the URL's ssl_options"
    )


def _advise_login(error: Exception, parameters: pika.URLParameters) -> str:
    if isinstance(error, ProbableAuthenticationError):
        return (
            "wrong user or password (percent-encode them in the URL): check with rabbitmqctl authenticate_user; "
            "guest may log in only from RabbitMQ's own machine"
        )
    if isinstance(error, TimeoutError):
        return (
            "something accepts connections but does not answer: RabbitMQ may be starting or frozen, or the port wrong"
        )
    if parameters.ssl_options:
        return "the other side hung up: it may require a client certificate (ssl_options), or not be an AMQP port"
    return "the other side hung up: it may be a TLS port (use amqps://), or not an AMQP port"


def _advise_vhost(error: Exception, parameters: pika.URLParameters) -> str:
    user, vhost = getattr(parameters.credentials, "username", "USER"), parameters.virtual_host
    if "not found" in str(error):
        return f"there is no such vhost: rabbitmqctl add_vhost '{vhost}', or correct the URL (the vhost / is %2f)"
    if "limit" in str(error):
        return "a limit on connections is reached: see rabbitmqctl list_vhost_limits, list_user_limits"
    if "refused" in str(error):
        return f"the user has no access: rabbitmqctl set_permissions --vhost '{vhost}' '{user}' '.*' '.*' '.*'"
    return "the two sides did not agree: correct frame_max, channel_max or heartbeat in the URL, or leave them out"


def _advise_setup(error: Exception, parameters: pika.URLParameters) -> str:
    user = getattr(parameters.credentials, "username", "USER")
    code = getattr(error, "reply_code", 0)
    if code == ACCESS_REFUSED:
        return f"the user may not declare or bind it: rabbitmqctl set_permissions '{user}', with configure for its name"
    if code == PRECONDITION_FAILED:
        return "it exists already, with other arguments: declare it with the same ones, or delete it"
    return "correct what setup declares: nothing is published until it succeeds"


def _advise_channel(_error: Exception, _parameters: pika.URLParameters) -> str:
    return "check the limit on the user's channels (rabbitmqctl list_user_limits), and RabbitMQ's log"


def _advise_confirms(_error: Exception, _parameters: pika.URLParameters) -> str:
    return "this server offers no publisher confirms: use RabbitMQ, or publish with AMQP_CONFIRMATIONS=false"


def _advise_publish(error: Exception, _parameters: pika.URLParameters) -> str:
    if isinstance(error, Blocked):
        return (
            "free memory or disk space on the node (see rabbitmq-diagnostics alarms), or look for queues without "
            "consumers: publishes wait until the alarm ends"
        )
    return "look into RabbitMQ's log"


_ADVICE: Final[dict[str, Callable[[Exception, pika.URLParameters], str]]] = {
    "DNS": _advise_dns,
    "TCP": _advise_tcp,
    "TLS": _advise_tls,
    "login": _advise_login,
    "vhost": _advise_vhost,
    "setup": _advise_setup,
    "channel": _advise_channel,
    "confirms": _advise_confirms,
    "publish": _advise_publish,
}
