"""Connecting step by step, to find which step fails and what to do: from DNS to a message that is rolled back.

Everything goes over the link that a client would open, address by address.
"""

import asyncio
import functools
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import pika
from pika.exceptions import ConnectionClosedByBroker, ProbableAuthenticationError
from tornado.ioloop import IOLoop

from sprockets_amqp.connection.events import Events
from sprockets_amqp.connection.link import Link
from sprockets_amqp.connection.topology import SetupFunction, declare
from sprockets_amqp.delivery.check import Answer, CheckModel
from sprockets_amqp.delivery.message import encode
from sprockets_amqp.delivery.options import defaults
from sprockets_amqp.errors import AMQPException
from sprockets_amqp.names import DEFAULT_NAME
from sprockets_amqp.settings import Settings
from sprockets_amqp.text import function_name, shown
from sprockets_amqp.wire.connection import VERSION_LIMIT
from sprockets_amqp.wire.failed import AttemptFailed
from sprockets_amqp.wire.login import ByCertificate, ByPassword, MechanismMissing, too_long
from sprockets_amqp.wire.network import DNS, LOGIN, TCP, TLS, VHOST
from sprockets_amqp.wire.replies import describe

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
    """One step: whether it worked, what was found, and what to do if it failed.

    ``passed_over``: it failed at one address of the node, and the next address is tried, as a client does.
    """

    name: str
    ok: bool
    detail: str
    advice: str = ""
    passed_over: bool = False


class Blocked(AMQPException):
    """RabbitMQ blocks connections that publish: an alarm."""


async def check_node(
    parameters: pika.URLParameters, limit: float, setup: SetupFunction | None = None
) -> AsyncIterator[Step]:
    """Yield each step as soon as it is done, up to the first that fails; each may take ``limit`` seconds.

    If another address of the node may pass the step that failed, the step is ``passed_over``, and that address follows.
    """
    attempt = _Attempt(parameters, setup, limit)
    try:
        while True:
            async for step in _steps(attempt, parameters, limit):
                yield step
            if not step.passed_over:
                return
    finally:
        await attempt.end()


async def _steps(attempt: "_Attempt", parameters: pika.URLParameters, limit: float) -> AsyncIterator[Step]:
    for name, take in attempt.steps():
        try:
            detail = await take()
        except Exception as error:
            passed_over = attempt.may_pass_over(error)
            yield Step(name, False, attempt.detail(error, limit), _advise(name, error, parameters), passed_over)
            return
        yield Step(name, True, detail)


class _Attempt(Events):
    """Attempts to get as far as a client that publishes."""

    def __init__(self, parameters: pika.URLParameters, setup: SetupFunction | None, limit: float) -> None:
        self._setup = setup
        self._limit = limit
        self._parameters = parameters
        # Each step has its own limit.
        parameters.socket_timeout, parameters.stack_timeout = limit, None
        self._loop = asyncio.get_running_loop()
        self._link = Link(self, IOLoop.current(), confirm=False, on_step=self._on_step)
        # The step has a limit, which comes first.
        self._check = CheckModel(self._link, self._loop, DEFAULT_NAME, limit=limit + 1)
        #: What each step of connecting has found, or the error of the first that failed.
        self._found: dict[str, asyncio.Future[str]] = {}
        self._addresses: set[str] = set()
        self._tried: set[str] = set()
        #: Why the connection was lost, once it was.
        self._lost: BaseException | None = None
        self._answer: asyncio.Future[None] = self._loop.create_future()

    def steps(self) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
        """Return the steps in order, beginning with another attempt to connect; TLS only if the URL asks for it."""
        names = [DNS, TCP, *([TLS] if self._parameters.ssl_options else []), LOGIN, VHOST]
        self._link.drop_connection()
        self._found = {name: self._loop.create_future() for name in names}
        self._link.open_connection(self._parameters)
        connecting = [(name, functools.partial(self._wait_for, self._found[name])) for name in names]
        setup = [("setup", self._set_up)] if self._setup is not None else []
        channel = [("channel", self._open_channel), ("confirms", self._select_confirms), ("publish", self._publish)]
        return [*connecting, *((name, functools.partial(self._within, take)) for name, take in (*setup, *channel))]

    def may_pass_over(self, error: Exception) -> bool:
        """Return whether the client would get further at another address, which is tried next."""
        if not isinstance(error, AttemptFailed) or error.step in {DNS, TCP}:
            return False
        # Where the others accept nothing, the client comes back to it.
        back = error.address in self._tried
        self._tried.add(error.address)
        return not error.refused and not back and not self._addresses <= self._tried

    def detail(self, error: Exception, limit: float) -> str:
        """Say what went wrong, and at which address if the node has several."""
        if isinstance(error, AttemptFailed):
            several = len(self._addresses) > 1 and error.step not in {DNS, TCP}
            return f"{error.address}: {error.detail}" if several else error.detail
        return f"no answer within {limit:g} s" if isinstance(error, TimeoutError) else describe(error)

    async def end(self) -> None:
        """Close what was opened."""
        connection = self._link.connection
        if connection is not None and connection.is_open:
            self._link.close_connection()
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_LIMIT):
                    await connection.wait_closed()
        self._link.drop_connection()
        if connection is not None:
            await connection.wait_closed()

    async def _wait_for(self, found: "asyncio.Future[str]") -> str:
        try:
            async with asyncio.timeout(self._limit):
                return await asyncio.shield(found)
        except TimeoutError:
            # The connection knows how far it has got.
            self._fail_connecting(self._link.expired(self._limit))
        return await found

    async def _within(self, take: Callable[[], Awaitable[str]]) -> str:
        async with asyncio.timeout(self._limit):
            return await take()

    async def _set_up(self) -> str:
        assert self._setup is not None and self._link.connection is not None
        await declare(self._setup, self._link.connection)
        return f"{function_name(self._setup)}() declared everything"

    def _expect_answer(self) -> None:
        """Wait for what comes next; raise why the connection was lost, if it was."""
        if self._lost is not None:
            raise self._lost
        self._answer = self._loop.create_future()

    async def _open_channel(self) -> str:
        self._expect_answer()
        self._link.open_channel()
        await self._answer
        return "opened"

    async def _select_confirms(self) -> str:
        self._expect_answer()
        self._link.select_confirms()
        await self._answer
        assert self._link.connection is not None
        server = self._link.connection.server_properties or {}
        product, its_version = server.get("product", "the server"), server.get("version", "")
        return f"offered by {shown(product, VERSION_LIMIT)} {shown(its_version, VERSION_LIMIT)}".rstrip()

    async def _publish(self) -> str:
        # RabbitMQ tells of an alarm only connections that publish (https://www.rabbitmq.com/docs/connection-blocked).
        self._expect_answer()
        # To the default exchange, which is there for everybody. A refusal says that messages are taken, too.
        message, _, _ = encode("", "", b"", None, None, {}, defaults(Settings()))
        checked: list[bool] = []

        def on_answer(answer: Answer) -> None:
            if answer.in_time:
                checked.append(answer.checked)
                self._succeed()

        self._check.check(message, {}, on_answer)
        try:
            await self._answer
        except ConnectionClosedByBroker as error:
            if error.reply_code in NOT_TRIED:
                return f"not tried: {describe(error)}"
            raise
        return "RabbitMQ takes messages (one was rolled back)" if checked == [True] else "not tried: only one channel"

    # Events of the link

    def _on_step(self, name: str, found: str) -> None:
        if name == DNS:
            self._addresses = set(found.split(", "))
        self._find(name, found)

    def on_connection_open(self, _connection: object) -> None:
        """Take the next step."""
        self._find(LOGIN, f"as {getattr(self._parameters.credentials, 'username', 'the client certificate')}")
        self._find(VHOST, repr(self._parameters.virtual_host))

    def on_channel_open(self, _channel: object) -> None:
        """Take the next step."""
        self._succeed()

    def on_connection_open_error(self, _connection: object, error: BaseException) -> None:
        """Fail the step."""
        self._fail_connecting(error)

    def _fail_connecting(self, error: BaseException) -> None:
        if isinstance(error, AttemptFailed) and error.step == VHOST:
            # RabbitMQ checks the vhost only once it has accepted the user.
            self._find(LOGIN, f"as {getattr(self._parameters.credentials, 'username', 'the client certificate')}")
        for found in self._found.values():
            if not found.done():
                found.set_exception(error)
                found.exception()

    def on_connection_closed(self, _connection: object, _reply_code: int, _reply_text: str) -> None:
        """Fail the step."""
        self._lost = self._link.error
        self._fail(self._link.error)

    def on_connection_blocked(self, method_frame: Any) -> None:
        """Fail the step."""
        reason = shown(getattr(method_frame.method, "reason", ""))
        self._fail(Blocked().saying(f"RabbitMQ blocks publishing: {reason}"))

    def on_channel_closed(self, _channel: object, _reply_code: int, _reply_text: str) -> None:
        """Fail the step."""
        self._fail(self._link.error)

    def _find(self, name: str, found: str) -> None:
        if not self._found[name].done():
            self._found[name].set_result(found)

    def _succeed(self) -> None:
        if not self._answer.done():
            self._answer.set_result(None)

    def _fail(self, error: BaseException | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(error or ConnectionError())
            # Perhaps nobody waits for it just now.
            self._answer.exception()


def _advise(name: str, error: Exception, parameters: pika.URLParameters) -> str:
    cause = error.__cause__ if isinstance(error, AttemptFailed) else error
    return _ADVICE[name](cause if isinstance(cause, Exception) else error, parameters)


def _advise_dns(error: Exception, parameters: pika.URLParameters) -> str:
    if isinstance(error, TimeoutError):
        return "the name server does not answer: check /etc/resolv.conf, or use the node's address in the URL"
    if isinstance(error, UnicodeError):
        return f"{parameters.host!r} is not a host name: correct the URL"
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
    if isinstance(error, MechanismMissing):
        return _MECHANISM_ADVICE[error.mechanism]
    # A node that has read them refuses them in words, and one that is frozen says nothing.
    hung_up = not isinstance(error, TimeoutError) and "ACCESS_REFUSED" not in str(error)
    if hung_up and too_long(parameters.credentials):
        return "ask for a shorter token, with fewer scopes or claims"
    if isinstance(error, ProbableAuthenticationError) and isinstance(parameters.credentials, ByCertificate):
        return (
            "add the certificate's user (rabbitmqctl add_user): the name is its subject, such as CN=orders,O=Shop, or "
            "what ssl_cert_login_from in rabbitmq.conf says; RabbitMQ's log says if it found none"
        )
    if isinstance(error, ProbableAuthenticationError):
        return (
            "wrong user or password (percent-encode them in the URL): check with rabbitmqctl authenticate_user; "
            "guest may log in only from RabbitMQ's own machine"
        )
    if isinstance(error, TimeoutError):
        return (
            "something accepts connections but does not answer: RabbitMQ may be starting or frozen, or the port wrong"
        )
    perhaps = (
        "it may require a client certificate (ssl_options)"
        if parameters.ssl_options
        else "it may be a TLS port (use amqps://)"
    )
    return f"the other side hung up: {perhaps}, or no AMQP port"


#: What to do if the node does not offer the mechanism with which the client logs in.
_MECHANISM_ADVICE: Final = {
    ByCertificate.TYPE: (
        "enable the plugin rabbitmq_auth_mechanism_ssl, and in rabbitmq.conf add EXTERNAL to auth_mechanisms and set "
        "ssl_options.verify = verify_peer"
    ),
    ByPassword.TYPE: (
        "log in by the client's certificate (auth=external), or add PLAIN to auth_mechanisms in rabbitmq.conf"
    ),
}


def _user(error: Exception, parameters: pika.URLParameters) -> str:
    """Return the user's name; RabbitMQ, which takes it from the client's certificate, quotes it in its refusals."""
    # The last one: names that are quoted before may say anything.
    said = re.findall(r"for user '([^']*)'", str(error))
    return getattr(parameters.credentials, "username", shown(said[-1]) if said else "USER")


def _advise_vhost(error: Exception, parameters: pika.URLParameters) -> str:
    user, vhost = _user(error, parameters), parameters.virtual_host
    if "not found" in str(error):
        return f"there is no such vhost: rabbitmqctl add_vhost '{vhost}', or correct the URL (the vhost / is %2f)"
    if "limit" in str(error):
        return "a limit on connections is reached: see rabbitmqctl list_vhost_limits, list_user_limits"
    if "refused" in str(error):
        return f"the user has no access: rabbitmqctl set_permissions --vhost '{vhost}' '{user}' '.*' '.*' '.*'"
    return "the two sides did not agree: correct frame_max, channel_max or heartbeat in the URL, or leave them out"


def _advise_setup(error: Exception, parameters: pika.URLParameters) -> str:
    user = _user(error, parameters)
    code = getattr(error, "reply_code", 0)
    if code == ACCESS_REFUSED:
        return (
            f"the user may not declare or bind it: rabbitmqctl set_permissions '{user}', with configure for its name "
            "(for a passive declaration, too)"
        )
    if "transient_nonexcl_queues" in str(error):
        return "RabbitMQ is configured to refuse it: declare the queue with durable=True, or with exclusive=True"
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
