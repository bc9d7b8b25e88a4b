"""The client: the documented API, where pika's events become triggers."""

import asyncio
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self, Unpack, cast

import pika
from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic, BasicProperties
from pika.spec import Channel as ChannelMethods
from tornado.ioloop import IOLoop
from transitions import MachineError

from .bound import Bound, running_loop
from .bounded_log import BoundedLog, named
from .connection.lifecycle import CLOSE_LIMIT, DRAIN_LIMIT, Lifecycle
from .connection.topology import SetupFunction
from .delivery.counters import Counters
from .delivery.message import OPTIONS, Options, Result
from .errors import ConnectionStateError
from .hooks import Callback, Changes, Hooks, StateChange, Subscription
from .inflight import InFlight
from .names import DEFAULT_NAME, check_name
from .observers import Observation, Observer, Observers
from .outbox.model import FINISH_LIMIT
from .settings import (
    DEFAULT_CONNECTION_ATTEMPTS,
    DEFAULT_RECONNECT_DELAY,
    DEFAULT_URL,
    URL,
    MoreSettings,
    Settings,
    from_environment,
)
from .states import DESCRIPTIONS, PublishOutcome, State, Substate
from .text import shown
from .urls import hide_password
from .wire.connection import Connection
from .wire.replies import channel_lost, connection_lost, describe

LOGGER = logging.getLogger(__name__)


class Arguments(MoreSettings, total=False):
    """The keyword arguments of `install` and `Client.from_environment`, as a type checker sees them."""

    url: URL
    enable_confirmations: bool
    reconnect_delay: float
    connection_attempts: int
    default_app_id: str | None
    on_ready_callback: Callable[["Client"], object] | None
    on_unavailable_callback: Callable[["Client"], object] | None
    on_return_callback: Callable[[Basic.Return, BasicProperties, bytes], object] | None
    on_persistent_failure_callback: Callable[["Client"], object] | None
    setup: SetupFunction | None


class Client(Bound):
    """One persistent connection and channel to RabbitMQ, and the way to publish on them.

    It connects at once, or when the loop starts, and reconnects until it is closed on request. The settings are those
    of `Settings`, each as a keyword argument; `install()` adds those from the environment.

    ``async with Client(url) as client:`` shuts it down at the end of the block.

    It belongs to the loop that is running when it is made, or to ``io_loop``. Made before any loop runs, it connects
    when the current one starts, or on its first use in another running loop. In a forked process it starts afresh, on a
    connection of its own; what was published before the fork is the parent's.

    Args:
        url: the node, or several, separated by commas; when one is lost, the next is tried at once. Or a function or
            coroutine function that returns this or an `Access`: it is called before each round of attempts, and may
            take 10 seconds.
        on_ready_callback: called with the client each time publishing becomes possible.
        on_unavailable_callback: called with the client each time publishing stops being possible.
        on_return_callback: called with method, properties and body of each message that RabbitMQ returned as
            unroutable; without it, they are logged as critical.
        on_persistent_failure_callback: called with the client once in each outage that lasts longer than ``timeout``.
        io_loop: the loop to run on.
        name: distinguishes its outbox files and its metrics from those of other clients.
        setup: a coroutine function that is called with a `Topology` on each connection, and again when a channel was
            lost, to declare what must exist before anything is published. It may take 30 seconds. If it fails, so does
            the attempt to connect: a single declaration that RabbitMQ refuses stops all publishing.

    Raises:
        ValueError: a setting is invalid; the error names it.
    """

    STATE_IDLE: ClassVar = State.IDLE
    STATE_CONNECTING: ClassVar = State.CONNECTING
    STATE_READY: ClassVar = State.READY
    STATE_BLOCKED: ClassVar = State.BLOCKED
    STATE_CLOSING: ClassVar = State.CLOSING
    STATE_CLOSED: ClassVar = State.CLOSED
    STATE_DESC: ClassVar[dict[State, str]] = DESCRIPTIONS

    def __init__(
        self,
        url: URL,
        enable_confirmations: bool = True,
        reconnect_delay: float = DEFAULT_RECONNECT_DELAY,
        connection_attempts: int = DEFAULT_CONNECTION_ATTEMPTS,
        default_app_id: str | None = None,
        on_ready_callback: Callable[["Client"], object] | None = None,
        on_unavailable_callback: Callable[["Client"], object] | None = None,
        on_return_callback: Callable[[Basic.Return, BasicProperties, bytes], object] | None = None,
        io_loop: IOLoop | None = None,
        *,
        on_persistent_failure_callback: Callable[["Client"], object] | None = None,
        setup: SetupFunction | None = None,
        name: str = DEFAULT_NAME,
        **settings: Unpack[MoreSettings],
    ) -> None:
        try:
            self.settings = Settings(
                url=url,
                enable_confirmations=enable_confirmations,
                reconnect_delay=reconnect_delay,
                connection_attempts=connection_attempts,
                default_app_id=default_app_id,
                # It makes a str of each path.
                **cast("dict[str, Any]", settings),
            )
        finally:
            # Tracebacks may be shown with their frames' local variables.
            del url, settings
        if setup is not None and not callable(setup):
            raise ValueError(f"setup must be a coroutine function, not {setup!r:.80}")
        self._setup = setup
        self.name = check_name(name)
        self.on_ready = on_ready_callback
        self.on_unavailable = on_unavailable_callback
        self.on_return = on_return_callback
        self.on_persistent_failure = on_persistent_failure_callback
        #: How many calls of `shutdown()` are in progress.
        self._shutdowns = 0
        #: Whether the loop was given as an argument: then no other takes its place.
        self._io_loop_given = io_loop is not None
        self._log = BoundedLog(named(LOGGER, self.name), self._now)
        self._observers = Observers(self.name)
        self._hooks = Hooks(self.name)
        self._hooks.subscribe(self._tell_availability)
        self._bind(io_loop or IOLoop.current())

    @classmethod
    def from_environment(
        cls, *, name: str = DEFAULT_NAME, io_loop: IOLoop | None = None, **settings: Unpack[Arguments]
    ) -> Self:
        """Make a client with settings from the environment; keyword arguments take precedence.

        ``name`` is the prefix of the variables: ``AUDIT_URL`` for ``"audit"``.

        Raises:
            ValueError: a setting or the name is invalid; the error names it and where it came from.
        """
        try:
            values = {"url": DEFAULT_URL, "name": name, **from_environment(name=name), **settings}
            return cls(io_loop=io_loop, **values)
        finally:
            # Tracebacks may be shown with their frames' local variables.
            values, settings = {}, {}

    async def __aenter__(self) -> Self:
        self.bind()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Shut down, as `shutdown` does."""
        await self.shutdown()

    def __repr__(self) -> str:
        # In a forked process it has no state until it is used.
        state = self.state if self._present is not None else State.IDLE
        where = "without settings"
        if hasattr(self, "settings"):
            where = hide_password(self.url) if self.url is not None else self.settings.shown_url
        return f"<Client {DESCRIPTIONS[state]} {where}>"

    # Its settings, and what it works with

    @property
    def url(self) -> str | None:
        """The URL as given or last returned, passwords included; None until the function has returned one."""
        if isinstance(self.settings.url, str):
            return self.settings.url
        return self._present.lifecycle.address.url if self._present is not None else None

    @property
    def parameters(self) -> pika.URLParameters | None:
        """pika's parameters for the node that is connected or tried next; None until the function has returned one."""
        return self._lifecycle.address.parameters

    @property
    def connection(self) -> Connection | None:
        """pika's connection, or None."""
        return self._core.link.connection

    @property
    def channel(self) -> Channel | None:
        """pika's channel, or None. Do not publish on it directly: that would confuse the confirms."""
        return self._core.link.channel

    @property
    def default_app_id(self) -> str | None:
        """The app_id of messages published without one."""
        return self.settings.default_app_id

    @property
    def publisher_confirmations(self) -> bool:
        """Whether a publish ends when RabbitMQ confirms it, rather than when it is handed to the transport."""
        return self.settings.enable_confirmations

    @property
    def reconnect_delay(self) -> float:
        """Seconds before the first attempt to reconnect."""
        return self.settings.reconnect_delay

    @property
    def connection_attempts(self) -> int:
        """Attempts on a single node before the client is closed and waits."""
        return self.settings.connection_attempts

    # The state, from the model

    @property
    def state(self) -> State:
        """The documented state of the connection."""
        return self._lifecycle.documented

    @property
    def substate(self) -> Substate:
        """The substate of the current state; the state itself if it has none."""
        return self._lifecycle.state

    @property
    def state_description(self) -> str:
        """The state for people, such as 'Ready'."""
        return DESCRIPTIONS[self.state]

    @property
    def idle(self) -> bool:
        """Whether the client has not been started yet."""
        return self.state is State.IDLE

    @property
    def connecting(self) -> bool:
        """Whether a connection, or a channel on it, is being opened."""
        return self.state is State.CONNECTING

    @property
    def ready(self) -> bool:
        """Whether the connection is ready to publish."""
        return self.state is State.READY

    @property
    def blocked(self) -> bool:
        """Whether RabbitMQ has asked the client not to publish."""
        return self.state is State.BLOCKED

    @property
    def closing(self) -> bool:
        """Whether the connection is being closed on request."""
        return self.state is State.CLOSING

    @property
    def closed(self) -> bool:
        """Whether there is no connection; see `recovers`."""
        return self.state is State.CLOSED

    @property
    def closable(self) -> bool:
        """Whether `close()` would close the connection."""
        return self._lifecycle.closable

    @property
    def recovers(self) -> bool:
        """Whether the client is ready, or will be by itself; false once it was closed on request."""
        return self._lifecycle.recovers

    @property
    def condition(self) -> str:
        """The state and the reason for it in one line, for people."""
        return self._lifecycle.condition

    @property
    def reason(self) -> str:
        """The last problem since the client was ready, or was asked to connect, in one line; empty if there is none."""
        return self._lifecycle.reason

    @property
    def state_since(self) -> float:
        """When the current state was entered, in seconds since 1970."""
        return self._lifecycle.since

    @property
    def next_attempt(self) -> float | None:
        """When the next attempt to connect is due, in seconds since 1970; None while none is scheduled."""
        return self._lifecycle.next_attempt

    @property
    def history(self) -> tuple[StateChange, ...]:
        """The latest hundred state changes since the client was made, oldest first."""
        return tuple(self._hooks.history)

    @property
    def publish_outcome(self) -> PublishOutcome:
        """What becomes of a publish now: it goes out, waits, is refused, or is stored."""
        return self._lifecycle.publish_outcome

    @property
    def outbox_trouble(self) -> str:
        """Why nothing can be stored in the outbox now; empty if it can, and without an outbox."""
        return self._lifecycle.outbox.trouble

    @property
    def stopping(self) -> bool:
        """Whether `shutdown()` is in progress, even while the client is still ready for requests in flight."""
        return self._shutdowns > 0

    @property
    def in_flight(self) -> InFlight:
        """The requests that handlers with `PublishingMixin` are answering."""
        return self._core.in_flight

    @property
    def unconfirmed(self) -> int:
        """How many messages are on the wire, neither confirmed nor lost."""
        return self._core.publisher.unconfirmed

    @property
    def waiting(self) -> int:
        """How many messages are waiting for the client to be ready, or for room among the unconfirmed."""
        return self._core.publisher.waiting

    @property
    def counters(self) -> Counters:
        """A copy of the message counters."""
        return dataclasses.replace(
            self._core.publisher.counters,
            reconnects=max(0, self._core.link.opened - 1),
            unconfirmed=self.unconfirmed,
            waiting=self.waiting,
            stored=self._lifecycle.outbox.stored,
            set_aside=self._lifecycle.outbox.set_aside,
        )

    # Verbs

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | bytearray | memoryview | str,
        properties: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> "asyncio.Future[Result]":
        """Publish a message. The future ends once: with None when RabbitMQ confirmed it, or with what became of it.

        With an outbox it ends with `STORED` where it would otherwise end with NotReadyError or OutcomeUnknown: the
        message is on disk, and is sent when RabbitMQ accepts messages again.

        Messages to one exchange, and with one `user_id`, leave in the order of the calls; between exchanges there is no
        order. While the client is not ready, the message waits up to ``timeout`` seconds (by default the client's
        ``timeout``; 0: not at all). When it is ready and an exchange is used for the first time, the message waits up
        to 5 seconds for RabbitMQ to accept the exchange. ``properties`` are AMQP's, by name; app_id, message_id and
        timestamp are filled in if missing.

        The future raises:
            InvalidMessage: an argument or property is invalid; nothing was sent.
            NotReadyError: it was not sent within ``timeout``, or a limit was reached, or the client was closed.
            ExchangeRefused: the exchange does not exist, or the user may not write to it.
            MessageReturned: no queue took it, and ``fail_on_return`` is set.
            MessageNacked: a queue refused it.
            OutcomeUnknown: the connection was lost, or confirm_timeout passed, before it was confirmed.

        Raises:
            RuntimeError: it is called from a thread other than the client's, or on another loop.
            TypeError: an option is unknown.
        """
        core = self._present
        if core is None or running_loop() is not core.loop:
            core = self._here()
        # A call that raises is not a publish.
        if self._observers and options.keys() <= OPTIONS:
            properties, watch = self._observers.begin(exchange, routing_key, properties)
            return core.publisher.publish(exchange, routing_key, body, properties, options, watch)
        return core.publisher.publish(exchange, routing_key, body, properties, options)

    async def flush(self, timeout: float | None = None) -> None:
        """Return when everything published so far has ended, and nothing is stored any more.

        The futures say how each publish ended. Messages set aside in the outbox stay there.

        Raises:
            TimeoutError: something has not ended within ``timeout`` seconds, and continues all the same; or the client
                was stopped while messages were stored.
            RuntimeError: it is called on another loop than the client's.
        """
        core = self._here()
        try:
            async with asyncio.timeout(timeout):
                if pending := core.publisher.pending:
                    await asyncio.wait(pending)
                stored = await core.lifecycle.outbox.emptied()
        except TimeoutError:
            left = len([each for each in pending if not each.done()]) + core.lifecycle.outbox.stored
            noun = "message has" if left == 1 else "messages have"
            raise TimeoutError(f"{left} {noun} not ended within {timeout} s: {self.condition}") from None
        if stored:
            what = "1 message" if stored == 1 else f"{stored} messages"
            raise TimeoutError(f"the client was stopped with {what} stored: the next client sends what is stored")

    def connect(self) -> Connection | None:
        """Connect now, from idle or closed, and reconnect from then on; return pika's connection, or None.

        There is no connection yet if a function must be called for the URL first.

        The client calls this itself for its first connection and each later one: a subclass may do more before that. If
        the override raises, that is logged; if it does not connect, it is called again after the delay.

        Raises:
            ConnectionStateError: it is connected, connecting or closing.
            RuntimeError: it is called from another thread than the client's, or on another loop.
        """
        self._here()
        self._pull("connect")
        return self.connection

    def close(self) -> None:
        """Close the connection once all waiting messages are sent and confirmed, within 10 seconds.

        New publishes are refused at once, or stored in the outbox; so is what still waits after 5 of the 10 seconds, if
        there is an outbox. `wait_for(State.CLOSED)` returns when it is done. The client stays closed until `connect()`.

        Raises:
            ConnectionStateError: the client is not closable.
            RuntimeError: it is called from another thread than the client's, or on another loop.
        """
        self._here()
        self._pull("close")

    async def shutdown(self, timeout: float = DRAIN_LIMIT) -> None:
        """Stop from any state: let requests in flight finish, send what waits, await confirms, and close.

        It takes at most ``timeout`` seconds, the last of them (2, or half) reserved for sending, confirms and closing;
        what still waits then ends with NotReadyError, what is unconfirmed with OutcomeUnknown, unless an outbox stores
        it. What waits is sent if the client is ready. Nothing is left behind. Stop the HTTP server first: until the
        requests that it accepted (for handlers with `PublishingMixin`) are answered, the client publishes as before.
        """
        loop = self._here().loop
        deadline = loop.time() + timeout
        self._shutdowns += 1
        try:
            await self.in_flight.finish_all(timeout - min(CLOSE_LIMIT, timeout / 2))
            await self._stop(deadline)
            # Handlers are now answering the requests whose publish was refused.
            await self.in_flight.finish(deadline - loop.time())
        finally:
            self._shutdowns -= 1

    async def _stop(self, deadline: float) -> None:
        loop, lifecycle, connection = self._core.loop, self._lifecycle, self._core.link.connection
        end = deadline
        if lifecycle.outbox.given:
            deadline -= min(FINISH_LIMIT, max(0.0, deadline - loop.time()) / 2)
        if lifecycle.closable:
            lifecycle.close(limit=max(0.0, round(deadline - loop.time(), 2)))
        else:
            lifecycle.feed(lifecycle.stop)
        try:
            await self.wait_for(State.CLOSED, max(0.0, deadline - loop.time()))
        except TimeoutError:
            # close() was called before, with a later limit.
            lifecycle.feed(lifecycle.close_expired, "not drained when the client was shut down")
        await lifecycle.outbox.closed(end - loop.time())
        if connection is not None:
            await connection.wait_closed()

    def subscribe(self, callback: Callback, states: Iterable[State] | None = None) -> Subscription:
        """Call a function or coroutine function with each `StateChange`, or only with changes into some states.

        The first may be one that came before, and has yet to be delivered: subscribe right after making a client, and
        you see it connect. Changes arrive in order. A coroutine function is called again only when it has finished with
        the previous change; if it is more than 1000 behind, it misses the oldest. Exceptions from the callback are
        logged and change nothing.
        """
        return self._hooks.subscribe(callback, states)

    def observe(self, observer: Observer) -> Observation:
        """Show the observer each publish from now on, until ``cancel()`` is called on the result.

        Its ``publishing(publish)`` is called with a `Publish` in each call of `publish`. It may add to ``headers``, and
        returns None, or a function that is called once with the `PublishEnd`: in a later turn of the loop, in the
        context of the call (`contextvars`), and before a coroutine that awaits the publish continues. Exceptions from
        either are logged and change nothing.

        If the observer has a method ``delivered(delivery)``, it is called with the `Delivery` of each message that the
        client sent from its outbox or set aside: the publish that ended with `STORED` is not reported again.

        In a forked process the client keeps its observers, which see what is published there.

        Raises:
            TypeError: the observer has no method ``publishing``.
        """
        return self._observers.observe(observer)

    def changes(self) -> Changes:
        """Return an asynchronous iterator over the state changes from now on."""
        return Changes(self._hooks)

    async def wait_for(self, state: State, timeout: float | None = None) -> None:
        """Return when the client is in the state: at once if it already is.

        Raises:
            TimeoutError: it was not reached within ``timeout`` seconds.
            ValueError: there is no such state.
            RuntimeError: it is called on another loop than the client's.
        """
        loop, state = self._here().loop, State(state)
        if self.state is state:
            return
        reached = loop.create_future()

        def tell(_change: StateChange) -> None:
            if not reached.done():
                reached.set_result(None)

        subscription = self.subscribe(tell, [state])
        try:
            async with asyncio.timeout(timeout):
                await reached
        except TimeoutError:
            raise TimeoutError(f"not {state.name} within {timeout} s: {self.condition}") from None
        finally:
            subscription.cancel()

    # pika's events, in the order of a connection's life

    def on_connection_open(self, connection: Connection) -> None:
        """Called by pika when RabbitMQ has accepted the connection."""
        if connection is self.connection:
            self._lifecycle.feed(self._lifecycle.connection_opened)

    def on_connection_open_error(self, connection: Connection, error: BaseException) -> None:
        """Called by pika when a connection could not be opened."""
        if connection is self.connection:
            self._lifecycle.feed(self._lifecycle.connection_failed, describe(error), error)

    def on_channel_open(self, channel: Channel) -> None:
        """Called by pika when the channel is open and, if confirms are used, in confirm mode."""
        if channel is self.channel:
            self._lifecycle.feed(self._lifecycle.channel_opened, self._core.link.blocking)

    def on_connection_blocked(self, method_frame: Method[Any]) -> None:
        """Called by pika when RabbitMQ is short of memory or disk (https://www.rabbitmq.com/docs/connection-blocked)."""
        reason = shown(getattr(method_frame.method, "reason", ""))
        self._log.log(logging.WARNING, "RabbitMQ blocked publishing: %s", reason)
        self._lifecycle.feed(self._lifecycle.connection_blocked, reason)

    def on_connection_unblocked(self, _method_frame: Method[Any]) -> None:
        """Called by pika when RabbitMQ has enough memory and disk space again."""
        self._lifecycle.feed(self._lifecycle.connection_unblocked)

    def on_channel_flow(self, method: ChannelMethods.Flow) -> None:
        """Called by pika when RabbitMQ has stopped or resumed the flow (channel.flow), which has been acknowledged."""
        if method.active:
            self._lifecycle.feed(self._lifecycle.connection_unblocked)
        else:
            self._log.log(logging.WARNING, "RabbitMQ stopped the channel's flow")
            self._lifecycle.feed(self._lifecycle.connection_blocked, "channel.flow")

    def on_delivery_confirmation(self, method_frame: Method[Any]) -> None:
        """Called by pika with each ack and nack: settle the messages that it covers."""
        method = method_frame.method
        self._core.publisher.on_confirm(method.delivery_tag, method.multiple, isinstance(method, Basic.Ack))

    def on_basic_return(
        self, _channel: Channel | None, method: Basic.Return, properties: BasicProperties, body: bytes
    ) -> None:
        """Called by pika with each returned message: hand it to on_return, or log it as critical."""
        reply = (method.reply_code or 0, str(method.reply_text))
        self._core.publisher.on_return(reply, method.exchange or "", method.routing_key or "", properties, body)
        if self.on_return is not None:
            callback = self.on_return
            self._hooks.call_later_in_order(lambda: self._hooks.start(callback, method, properties, body))
        else:
            self._log.log(
                logging.CRITICAL,
                "message %s (correlation id %s) to exchange %r with routing key %r was returned: (%s) %s",
                shown(properties.message_id),
                shown(properties.correlation_id),
                method.exchange,
                method.routing_key,
                reply[0],
                shown(reply[1]),
            )

    def on_channel_closed(self, channel: Channel, reply_code: int, reply_text: str) -> None:
        """Called by pika when RabbitMQ has closed the channel because of an error."""
        if channel is self.channel:
            self._log.log(logging.WARNING, "RabbitMQ closed the channel: (%s) %s", reply_code, shown(reply_text))
            cause = self._core.link.cause(reply_code, reply_text) or channel_lost(reply_code, reply_text)
            self._lifecycle.feed(self._lifecycle.channel_closed, describe(cause), cause)

    def on_connection_closed(self, connection: Connection, reply_code: int, reply_text: str) -> None:
        """Called by pika when the connection is gone."""
        if connection is self.connection:
            cause = self._core.link.cause(reply_code, reply_text) or connection_lost(reply_code, reply_text)
            self._lifecycle.feed(self._lifecycle.connection_closed, describe(cause), cause)

    @staticmethod
    def on_back_pressure_detected(obj: object) -> None:
        """Called when too much is waiting for the socket: log it; ``obj`` is the connection."""
        log = _pressure_log(getattr(obj, "client_name", DEFAULT_NAME))
        log.log(logging.WARNING, "messages are published faster than RabbitMQ or the network takes them: %r", obj)

    # The user's callbacks

    def _tell_availability(self, change: StateChange) -> object:
        if change.dest is State.READY:
            return self.on_ready and self.on_ready(self)
        if change.source is State.READY:
            return self.on_unavailable and self.on_unavailable(self)
        return None

    def _tell_persistent_failure(self) -> None:
        """Call on_persistent_failure, if there is one."""
        if self.on_persistent_failure is not None:
            self._hooks.start(self.on_persistent_failure, self)

    # Its core

    def _now(self) -> float:
        return float(self._core.loop.time())

    def _abandon(self) -> bool:
        self._shutdowns = 0
        self._observers.abandon()
        return super()._abandon()

    @property
    def _lifecycle(self) -> Lifecycle:
        return self._core.lifecycle

    def _pull(self, name: str) -> None:
        try:
            getattr(self._lifecycle, name)()
        except MachineError:
            known = self._lifecycle.states_for(name)
            sentence = f"{self.condition}; {name}() can be called only while it is {known}"
            raise ConnectionStateError(self.state_description).saying(sentence) from None


@functools.cache
def _pressure_log(name: str) -> BoundedLog:
    return BoundedLog(named(LOGGER, name), time.monotonic)
