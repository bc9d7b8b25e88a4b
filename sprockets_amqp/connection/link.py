"""pika's connection and channel: every pika event enters here, and every AMQP action leaves here.

What `setup` declares and exchange checks go over channels of their own, in `topology.py` and `delivery/check.py`.

pika's events are passed on to `Events`, in pika's terms; those of a connection or channel that was dropped are
ignored.
"""

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any, Final

import pika
from pika import BasicProperties
from pika.channel import Channel
from pika.exceptions import AMQPError, ChannelClosedByClient, ConnectionWrongStateError
from pika.frame import Method
from pika.spec import Basic
from tornado.ioloop import IOLoop

from sprockets_amqp.bounded_log import named
from sprockets_amqp.names import DEFAULT_NAME
from sprockets_amqp.text import shown
from sprockets_amqp.wire.connection import Connection
from sprockets_amqp.wire.failed import AttemptFailed
from sprockets_amqp.wire.network import SocketAddress, other_network
from sprockets_amqp.wire.pika_insides import send_flow_ok
from sprockets_amqp.wire.pika_log import tell_once
from sprockets_amqp.wire.reading import BODY_LIMIT
from sprockets_amqp.wire.replies import ACCESS_REFUSED, reply, told_limit
from sprockets_amqp.wire.tcp import INTERNET
from sprockets_amqp.wire.tls import unverified

from .events import Events

LOGGER = logging.getLogger("sprockets_amqp.link")

#: Why RabbitMQ blocks publishing: ``connection.blocked``, or ``channel.flow``.
ALARM: Final = "alarm"
FLOW: Final = "flow"

#: Nodes whose failed addresses are remembered: a function may return ever new ones.
MANY_NODES: Final = 100


class Link:
    """One connection at a time, and the channel to publish on.

    Args:
        events: receives pika's events.
        io_loop: the loop to run on.
        confirm: whether to put the channel into confirm mode as soon as it is open.
        max_message_size: octets of the largest body, if RabbitMQ's own limit was changed.
        name: the client's name, for the log.
        on_step: called with each step of connecting that is done, up to AMQP's handshake, and what it has found.

    Attributes:
        connection: pika's connection, or None.
        channel: pika's channel for publishing, or None.
        opened: how many connections RabbitMQ has accepted.
        error: why the last connection or channel ended, or could not be opened, as pika raised it.
        publish: sends a message on the channel: `Connection.publish`.
        body_limit: the most octets of a body: max_message_size, or the default of the connected RabbitMQ; without a
            connection, the largest default of any version.
        header_limit: the most octets of properties that fit in one frame.
        held: whether pika is handling an event, which may turn out to be the end of the channel or the connection: what
            is published meanwhile has to wait.
    """

    header_limit: int

    def __init__(
        self,
        events: Events,
        io_loop: IOLoop,
        *,
        confirm: bool = True,
        max_message_size: int | None = None,
        name: str = DEFAULT_NAME,
        on_step: Callable[[str, str], object] | None = None,
    ) -> None:
        tell_once()
        self._name = name
        self._log = named(LOGGER, name)
        self.connection: Connection | None = None
        self.channel: Channel | None = None
        self.opened = 0
        self.error: BaseException | None = None
        self.publish: Callable[[bytes, bytes, bytes], None] = _publish_nowhere
        self.held = False
        self._events = events
        self._confirm = confirm
        self._max_message_size = max_message_size
        self.body_limit = max_message_size or BODY_LIMIT
        #: The largest body that RabbitMQ accepts on this connection, from its refusal of a larger one; 0: unknown.
        self._told_limit = 0
        self._io_loop = io_loop
        self._on_step = on_step
        #: Whether a channel was opened on the connection.
        self._was_used = False
        #: The address at which the last attempt on a node failed, by host and port.
        self._failed_at: dict[tuple[str, int], SocketAddress] = {}
        self._loop = io_loop.asyncio_loop  # type: ignore[attr-defined]
        self._blocking: dict[str, str] = {}
        self._channel_since: float | None = None

    def __repr__(self) -> str:
        return f"<Link {self.connection!r}>"

    # What is known about the wire

    @property
    def blocking(self) -> str:
        """Why RabbitMQ is blocking publishing on this connection, in its words; empty if it is not."""
        return ", ".join(self._blocking.values())

    @property
    def refused_access(self) -> bool:
        """Whether RabbitMQ closed the last channel or connection because the user may not do something."""
        return getattr(self.error, "reply_code", 0) == ACCESS_REFUSED

    @property
    def reached_broker(self) -> bool:
        """Whether the last attempt to connect got as far as AMQP."""
        return not isinstance(self.error, AttemptFailed) or self.error.final

    @property
    def unsent(self) -> int:
        """How many octets wait for the socket, approximately."""
        return self.connection.unsent if self.connection is not None else 0

    @property
    def congested(self) -> bool:
        """Whether too much is waiting for the socket."""
        return self.connection is not None and self.connection.congested

    # AMQP's actions

    def call_when_sent(self, callback: Callable[[], object]) -> None:
        """Call back once, when the socket has taken everything; never if the connection is lost before."""
        assert self.connection is not None
        self.connection.call_when_sent(callback)

    def open_connection(self, parameters: pika.URLParameters) -> None:
        """Start to connect to a node; `Events` receives the outcome. Raises what pika raises if it cannot start."""
        node, of_present = (parameters.host, parameters.port), self._of_present
        self._was_used = False
        self.connection = Connection(
            parameters,
            on_open_callback=of_present(self._on_connection_open),
            on_open_error_callback=of_present(self._on_connection_open_error),
            on_close_callback=of_present(self._on_connection_closed),
            on_back_pressure=of_present(self._on_back_pressure),
            on_hold=of_present(self._on_hold),
            io_loop=self._io_loop,
            network=other_network(*node) or INTERNET,
            behind=self._failed_at.get(node),
            on_step=self._on_step,
            client_name=self._name,
        )

    def expired(self, limit: float) -> Exception:
        """Take note that opening the connection has taken too long; return the error that names the step."""
        assert self.connection is not None
        self.error = error = self.connection.failure(TimeoutError(f"no answer within {limit:g} s"))
        return error

    def open_channel(self) -> None:
        """Open the channel to publish on, in confirm mode if confirms are used. Raises what pika raises."""
        assert self.connection is not None
        of_present = self._of_present
        self.channel = channel = self.connection.channel(on_open_callback=of_present(self._on_channel_open))
        channel.add_on_close_callback(of_present(self._on_channel_closed))
        channel.add_on_flow_callback(functools.partial(of_present(self._on_flow), channel))
        channel.add_on_return_callback(of_present(self._on_return))

    def select_confirms(self) -> None:
        """Put the channel into confirm mode. Raises ValueError if the server offers no publisher confirms."""
        assert self.channel is not None
        channel, on_confirm = self.channel, self._events.on_delivery_confirmation
        selected = functools.partial(self._of_present(lambda *_: self._use(channel, on_confirm)), channel)
        channel.confirm_delivery(on_confirm, callback=selected)

    def close_channel(self) -> None:
        """Close the channel; RabbitMQ's answer arrives through `Events`. Raises what pika raises."""
        assert self.channel is not None
        self.publish = _publish_nowhere
        self.channel.close()

    def drop_channel(self) -> float:
        """Forget the channel, which is closed; return how many seconds it was open."""
        since, self._channel_since = self._channel_since, None
        self.channel = None
        self.publish = _publish_nowhere
        # A stopped flow belongs to the channel, an alarm to the connection.
        self._blocking.pop(FLOW, None)
        return 0.0 if since is None else self._loop.time() - since

    @property
    def user(self) -> str | None:
        """The user that the connection logged in as; None without a connection, and if a certificate says who it is."""
        return getattr(self.connection and self.connection.params.credentials, "username", None)

    @property
    def vhost(self) -> str:
        """The virtual host of the connection; empty without one."""
        return str(getattr(self.connection and self.connection.params, "virtual_host", ""))

    def renew_secret(self, secret: str, on_accepted: Callable[[], object]) -> None:
        """Send RabbitMQ a new password for the open connection; it closes the connection if it refuses the password.

        connection.update-secret is a RabbitMQ extension (https://www.rabbitmq.com/docs/oauth2#token-expiration).
        """
        connection = self.connection
        assert connection is not None
        accepted = functools.partial(self._of_present(lambda *_: on_accepted()), connection)
        try:
            connection.update_secret(secret, "renewed before it expires", accepted)
        except AMQPError as error:
            self._log.debug("renewing the secret on %s: %r", connection, error)

    def close_connection(self) -> None:
        """Close the connection; RabbitMQ's answer arrives through `Events`."""
        assert self.connection is not None
        try:
            self.connection.close()
        except Exception as error:
            self._log.debug("closing %s: %r", self.connection, error)

    def drop_connection(self) -> float:
        """Drop the connection without waiting for RabbitMQ; return how many seconds its channel was open."""
        connection, self.connection = self.connection, None
        self._told_limit = 0
        self.held = False
        self.body_limit = self._max_message_size or BODY_LIMIT
        self._blocking.clear()
        if connection is not None:
            self._note_address(connection)
            connection.abort()
        return self.drop_channel()

    def _note_address(self, connection: Connection) -> None:
        """If no channel was opened, begin the next attempt on this node at the address behind the one tried."""
        if connection.reached is not None and not self._was_used:
            if len(self._failed_at) >= MANY_NODES:
                self._failed_at.clear()
            self._failed_at[connection.params.host, connection.params.port] = connection.reached

    def abandon(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """In a forked child, close its descriptors: the connection is the parent's."""
        if self.connection is not None:
            self.connection.abandon(loop)

    # pika's events, in the order of a connection's life

    def _of_present(self, handler: Callable[..., object]) -> Callable[..., None]:
        """Return the handler for events of the present connection and channel: those of a dropped one are ignored."""

        def handle(origin: object, *facts: object) -> None:
            if origin is self.connection or origin is self.channel:
                handler(origin, *facts)

        return handle

    def _on_connection_open(self, connection: Connection) -> None:
        self.opened += 1
        if doubt := unverified(connection.params):
            self._log.warning("connected to %s port %s: %s", connection.params.host, connection.params.port, doubt)
        connection.add_on_connection_blocked_callback(self._of_present(self._on_blocked))
        connection.add_on_connection_unblocked_callback(self._of_present(self._on_unblocked))
        self._events.on_connection_open(connection)

    def _on_connection_open_error(self, connection: Connection, error: BaseException) -> None:
        self.error = error
        self._events.on_connection_open_error(connection, error)

    def _on_channel_open(self, channel: Channel) -> None:
        if not self._confirm:
            self._use(channel)
            return
        try:
            self.select_confirms()
        except Exception as error:
            # Not from within pika's callback, which would continue with a dropped connection.
            failed = self._of_present(self._on_connection_open_error)
            self._loop.call_soon(failed, self.connection, error)

    def _use(self, channel: Channel, on_confirm: Callable[[Method[Any]], None] | None = None) -> None:
        assert self.connection is not None
        self._was_used = True
        self.connection.use_channel(channel.channel_number, on_confirm)
        self.publish = self.connection.publish
        limit = self._max_message_size or self.connection.body_limit
        self.body_limit = min(limit, self._told_limit or limit)
        self.header_limit = self.connection.header_limit
        self._channel_since = self._loop.time()
        self._events.on_channel_open(channel)

    def _on_blocked(self, _connection: object, method_frame: Method[Any]) -> None:
        self._blocking[ALARM] = shown(getattr(method_frame.method, "reason", "")) or ALARM
        self._events.on_connection_blocked(method_frame)

    def _on_unblocked(self, _connection: object, method_frame: Method[Any]) -> None:
        self._blocking.pop(ALARM, None)
        self._events.on_connection_unblocked(method_frame)

    def _on_flow(self, channel: Channel, method_frame: Method[Any]) -> None:
        method = method_frame.method
        if channel.is_open:
            send_flow_ok(channel, method.active)
        if method.active:
            self._blocking.pop(FLOW, None)
        else:
            self._blocking[FLOW] = "channel.flow"
        self._events.on_channel_flow(method)

    def _on_return(self, channel: Channel, method: Basic.Return, properties: BasicProperties, body: bytes) -> None:
        self._events.on_basic_return(channel, method, properties, body)

    def _on_hold(self, _connection: Connection, held: bool) -> None:
        self.held = held

    def _on_back_pressure(self, connection: object) -> None:
        self._events.on_back_pressure_detected(connection)

    def _on_channel_closed(self, channel: Channel, error: BaseException) -> None:
        # If the connection is lost, too, its own event follows and says more.
        if channel.connection.is_open and isinstance(error, ChannelClosedByClient):
            self._events.on_channel_left(channel, error)
        elif channel.connection.is_open:
            self.error = error
            self._told_limit = told_limit(*reply(error), self._told_limit)
            self._events.lose_channel(channel, error)

    def _on_connection_closed(self, connection: Connection, error: BaseException) -> None:
        self.error = error
        self._events.lose_connection(connection, error)


def _publish_nowhere(_method: bytes, _properties: bytes, _body: bytes) -> None:
    raise ConnectionWrongStateError("there is no channel to publish on")
