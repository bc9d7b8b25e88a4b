"""The client: the documented API; pika's events come in here and become triggers."""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self, Unpack

import pika
from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic, BasicProperties
from pika.spec import Channel as ChannelMethods
from tornado.ioloop import IOLoop
from transitions import MachineError

from .bound import Bound, running_loop
from .bounded_log import BoundedLog
from .delivery.counters import Counters
from .delivery.message import OPTIONS, Options, Result
from .errors import ConnectionStateError
from .hooks import Callback, Changes, Hooks, StateChange, Subscription
from .inflight import InFlight
from .lifecycle import CLOSE_LIMIT, DRAIN_LIMIT, Lifecycle
from .names import DEFAULT_NAME, check_name
from .observers import Observation, Observer, Observers
from .outbox import FINISH_LIMIT
from .settings import (
    DEFAULT_CONNECTION_ATTEMPTS,
    DEFAULT_RECONNECT_DELAY,
    DEFAULT_URL,
    URL,
    Settings,
    from_environment,
)
from .states import DESCRIPTIONS, PublishOutcome, State, Substate
from .text import shown
from .topology import SetupFunction
from .urls import hide_password
from .wire.replies import channel_lost, connection_lost, describe
from .wire.transport import Connection

LOGGER = logging.getLogger(__name__)


class Client(Bound):
    """One persistent connection and channel to RabbitMQ, and the way to publish on them.

    It starts to connect at once, or when the loop starts, and goes on for ever until it is closed on request. The
    settings are those of `Settings`, each as a keyword argument; `install()` adds what the environment says.

    ``async with Client(url) as client:`` shuts it down at the end of the block.

    It belongs to the loop that runs when it is made, or to ``io_loop``. Made before any loop runs, it connects when
    the current one starts, or on the first use in another that does. In a forked process it begins anew, on a
    connection of its own; what was published before is the parent's.

    Args:
        url: the node, or several, comma separated; each lost one is followed by the next at once. Or a function or
            coroutine function that returns that or an `Access`: it is asked before each round of attempts, and may
            take 10 seconds.
        on_ready_callback: called with the client each time publishing becomes possible.
        on_unavailable_callback: called with the client each time it stops being possible.
        on_return_callback: called with method, properties and body of each message that RabbitMQ returned as
            unroutable; without it they are logged as critical.
        on_persistent_failure_callback: called with the client once in each outage that lasts longer than ``timeout``.
        io_loop: the loop to run on.
        name: what tells its files in the outbox, and its metrics, from those of other clients.
        setup: a coroutine function that is called with a `Topology` on each connection, and again when a channel was
            lost, and declares what has to be there before anything is published. It may take 30 seconds. Where it
            fails, that is a failed attempt to connect: one declaration that RabbitMQ refuses stops all publishing.

    Raises:
        ValueError: a setting is bad; the sentence names it.
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
        **settings: Any,
    ) -> None:
        try:
            self.settings = Settings(
                url=url,
                enable_confirmations=enable_confirmations,
                reconnect_delay=reconnect_delay,
                connection_attempts=connection_attempts,
                default_app_id=default_app_id,
                **settings,
            )
        finally:
            # A traceback may be shown with what its frames hold.
            del url, settings
        if setup is not None and not callable(setup):
            raise ValueError(f"setup must be a coroutine function, not {setup!r:.80}")
        self._setup = setup
        self.name = check_name(name)
        self.on_ready = on_ready_callback
        self.on_unavailable = on_unavailable_callback
        self.on_return = on_return_callback
        self.on_persistent_failure = on_persistent_failure_callback
        #: How many calls of `shutdown()` are under way.
        self._shutdowns = 0
        #: Whether the loop to run on was given: then no other takes its place.
        self._io_loop_given = io_loop is not None
        self._log = BoundedLog(LOGGER, self._now)
        self._observers = Observers()
        self._hooks = Hooks()
        self._hooks.subscribe(self._tell_availability)
        self._bind(io_loop or IOLoop.current())

    @classmethod
    def from_environment(cls, *, name: str = DEFAULT_NAME, **settings: Any) -> Self:
        """Make a client with the settings that the environment gives; keyword arguments come before them.

        ``name`` is the prefix of its variables: ``AUDIT_URL`` for ``"audit"``.

        Raises:
            ValueError: a setting or the name is bad; the sentence names it and where it came from.
        """
        try:
            settings = {"url": DEFAULT_URL, "name": name, **from_environment(name=name), **settings}
            return cls(**settings)
        finally:
            # A traceback may be shown with what its frames hold.
            settings = {}

    async def __aenter__(self) -> Self:
        self.bind()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Shut down, as `shutdown` does."""
        await self.shutdown()

    def __repr__(self) -> str:
        # In a forked process that has not used it yet, it has no state.
        state = self.state if self._present is not None else State.IDLE
        where = "without settings"
        if hasattr(self, "settings"):
            where = hide_password(self.url) if self.url is not None else self.settings.shown_url
        return f"<Client {DESCRIPTIONS[state]} {where}>"

    # What it was told, and what it works with

    @property
    def url(self) -> str | None:
        """The URL as it was given or last answered, passwords included; None before the function's first answer."""
        if isinstance(self.settings.url, str):
            return self.settings.url
        return self._present.lifecycle.address.url if self._present is not None else None

    @property
    def parameters(self) -> pika.URLParameters | None:
        """pika's parameters of the node that is connected, or tried next; None before the function's first answer."""
        return self._lifecycle.address.parameters

    @property
    def connection(self) -> Connection | None:
        """pika's connection, or None."""
        return self._core.link.connection

    @property
    def channel(self) -> Channel | None:
        """pika's channel, or None. Messages published on it directly would upset the ledger of confirms."""
        return self._core.link.channel

    @property
    def default_app_id(self) -> str | None:
        """The app_id of messages that are published without one."""
        return self.settings.default_app_id

    @property
    def publisher_confirmations(self) -> bool:
        """Whether a publish ends with RabbitMQ's confirmation, rather than when it is handed to the transport."""
        return self.settings.enable_confirmations

    @property
    def reconnect_delay(self) -> float:
        """Seconds before the first attempt to reconnect."""
        return self.settings.reconnect_delay

    @property
    def connection_attempts(self) -> int:
        """Attempts to reach a single node before the client is closed and waits."""
        return self.settings.connection_attempts

    # The state, as the model has it

    @property
    def state(self) -> State:
        """Where the connection is in its life."""
        return self._lifecycle.documented

    @property
    def substate(self) -> Substate:
        """How far the connection has come within its state; the state itself where it has no substates."""
        return self._lifecycle.state

    @property
    def state_description(self) -> str:
        """The state for people, such as 'Ready'."""
        return DESCRIPTIONS[self.state]

    @property
    def idle(self) -> bool:
        """Whether nothing was started yet."""
        return self.state is State.IDLE

    @property
    def connecting(self) -> bool:
        """Whether a connection, or a channel on it, is being opened."""
        return self.state is State.CONNECTING

    @property
    def ready(self) -> bool:
        """Whether messages go out."""
        return self.state is State.READY

    @property
    def blocked(self) -> bool:
        """Whether RabbitMQ asked not to publish."""
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
        """Whether the client is ready or on its way to it by itself: false once it was closed on request."""
        return self._lifecycle.recovers

    @property
    def condition(self) -> str:
        """The state and the trouble behind it in one line, for people."""
        return self._lifecycle.condition

    @property
    def state_since(self) -> float:
        """When the present state was entered, in seconds since 1970."""
        return self._lifecycle.since

    @property
    def history(self) -> tuple[StateChange, ...]:
        """The last hundred changes of state since the client was made, oldest first."""
        return tuple(self._hooks.history)

    @property
    def publish_outcome(self) -> PublishOutcome:
        """What becomes of a publish now: it goes out, waits, is refused, or is stored."""
        return self._lifecycle.publish_outcome

    @property
    def outbox_trouble(self) -> str:
        """Why nothing can be stored in the outbox now; empty where it can, and without an outbox."""
        return self._lifecycle.outbox.trouble

    @property
    def stopping(self) -> bool:
        """Whether `shutdown()` is under way, even while the client is still ready for requests in flight."""
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
        """How many messages wait for the client to be ready, or for room among the unconfirmed."""
        return self._core.publisher.waiting

    @property
    def counters(self) -> Counters:
        """How many messages there were so far, and are now: a copy."""
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
        body: bytes | str,
        properties: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> "asyncio.Future[Result]":
        """Publish a message; the future ends once, with None when RabbitMQ confirmed it, or with what became of it.

        With an outbox it ends with `STORED` where it would end with NotReadyError or OutcomeUnknown: the message is on
        the disk, and is sent when RabbitMQ takes messages again.

        Messages leave in the order of the calls. While the client is not ready the message waits, up to ``timeout``
        seconds (the client's ``timeout`` by default; 0: not at all). A ready client waits up to 5 seconds for
        RabbitMQ's word on an exchange that it uses for the first time. ``properties`` are AMQP's, by name; app_id,
        message_id and timestamp are filled in where they are not given.

        The future raises:
            InvalidMessage: an argument or property is bad; nothing was sent.
            NotReadyError: it was not sent within ``timeout``, or the limits are full, or the client was closed.
            ExchangeRefused: the exchange does not exist, or is not to be written to.
            MessageReturned: no queue took it, and ``fail_on_return`` is set.
            MessageNacked: a queue refused it.
            OutcomeUnknown: the connection was lost, or confirm_timeout passed, before it was confirmed.

        Raises:
            RuntimeError: it is called from another thread than the client's, or on another loop.
            TypeError: there is no such option.
        """
        core = self._present
        if core is None or running_loop() is not core.loop:
            core = self._here()
        # What raises is no publish.
        if self._observers and options.keys() <= OPTIONS:
            properties, watch = self._observers.begin(exchange, routing_key, properties)
            return core.publisher.publish(exchange, routing_key, body, properties, options, watch)
        return core.publisher.publish(exchange, routing_key, body, properties, options)

    async def flush(self, timeout: float | None = None) -> None:
        """Return when everything that was published before has ended, and nothing is stored any more.

        The futures say how each ended. What was set aside in the outbox stays there.

        Raises:
            TimeoutError: something has not ended within ``timeout`` seconds; it goes on all the same.
            RuntimeError: it is called on another loop than the client's.
        """
        core = self._here()
        try:
            async with asyncio.timeout(timeout):
                if pending := core.publisher.pending:
                    await asyncio.wait(pending)
                await core.lifecycle.outbox.emptied()
        except TimeoutError:
            left = len([each for each in pending if not each.done()]) + core.lifecycle.outbox.stored
            raise TimeoutError(f"{left} messages have not ended within {timeout} s: {self.condition}") from None

    def connect(self) -> Connection | None:
        """Connect now, from idle or closed, and recover from then on; returns pika's connection, or None.

        There is none yet where a function has to be asked for the URL first.

        The client calls it for its own first connection, and for each that it makes again: a subclass may have more to
        do before. Where that raises it is logged, and where it does not connect it is called again after the delay.

        Raises:
            ConnectionStateError: it is connected or connecting already, or closing.
            RuntimeError: it is called from another thread than the client's, or on another loop.
        """
        self._here()
        self._pull("connect")
        return self.connection

    def close(self) -> None:
        """Close the connection when all that is unconfirmed was confirmed, within 10 seconds.

        Publishes are refused at once. `wait_for(State.CLOSED)` tells when it is done. Nothing is connected again until
        `connect()`.

        Raises:
            ConnectionStateError: the client is not closable.
            RuntimeError: it is called from another thread than the client's, or on another loop.
        """
        self._here()
        self._pull("close")

    async def shutdown(self, timeout: float = DRAIN_LIMIT) -> None:
        """Stop from any state: let requests in flight finish, wait for confirmations, close, and leave nothing.

        It takes ``timeout`` seconds at the most, the last of them (2, or half) kept for confirmations and closing; what
        is unconfirmed by then ends with OutcomeUnknown. Stop the HTTP server first: until the requests that it took
        (those of handlers with `PublishingMixin`) were answered, the client publishes as before.
        """
        loop = self._here().loop
        deadline = loop.time() + timeout
        self._shutdowns += 1
        try:
            await self.in_flight.finish(timeout - min(CLOSE_LIMIT, timeout / 2))
            await self._stop(deadline)
            # What was refused is being answered now.
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
        """Call a function or coroutine function with each `StateChange`, or with those into some states.

        Changes come in order, none is lost, and what the callback raises is logged and changes nothing. A coroutine
        function is called again only when it has finished with the change before.
        """
        return self._hooks.subscribe(callback, states)

    def observe(self, observer: Observer) -> Observation:
        """Show the observer each publish from now on, until the result's `cancel()`.

        Its ``publishing(publish)`` is called in each call of `publish` with a `Publish`. It may add to ``headers``, and
        returns what is to be called once with the `PublishEnd`, or None. That is called in a later turn of the loop, in
        the context of the call (`contextvars`), and before a coroutine that awaits the publish continues. An exception
        from either is logged and changes nothing.

        A method ``delivered(delivery)``, where the observer has one, is called with the `Delivery` of each message that
        the client sent from its outbox, or set aside: the publish that ended with `STORED` is not told again.

        A forked process's client has the observers, and is told of what is published there.

        Raises:
            TypeError: the observer has no method ``publishing``.
        """
        return self._observers.observe(observer)

    def changes(self) -> Changes:
        """Return an asynchronous iterator over the state changes from now on."""
        return Changes(self._hooks)

    async def wait_for(self, state: State, timeout: float | None = None) -> None:
        """Return when the client is in the state, at once if it is already.

        Raises:
            TimeoutError: it was not within ``timeout`` seconds.
            RuntimeError: it is called on another loop than the client's.
        """
        loop = self._here().loop
        if self.state is state:
            return
        reached = loop.create_future()

        def tell(_change: StateChange) -> None:
            if not reached.done():
                reached.set_result(None)

        subscription = self.subscribe(tell, [State(state)])
        try:
            async with asyncio.timeout(timeout):
                await reached
        except TimeoutError:
            raise TimeoutError(f"not {State(state).name} within {timeout} s: {self.condition}") from None
        finally:
            subscription.cancel()

    # pika's events, in the order of a connection's life

    def on_connection_open(self, connection: Connection) -> None:
        """Called by pika when RabbitMQ has accepted the connection."""
        if connection is self.connection:
            self._lifecycle.feed(self._lifecycle.connection_opened)

    def on_connection_open_error(self, connection: Connection, error: BaseException) -> None:
        """Called by pika when no connection could be made."""
        if connection is self.connection:
            self._lifecycle.feed(self._lifecycle.connection_failed, describe(error), error)

    def on_channel_open(self, channel: Channel) -> None:
        """Called by pika when the channel is open and, where confirms are used, in confirm mode."""
        if channel is self.channel:
            self._lifecycle.feed(self._lifecycle.channel_opened, self._core.link.blocking)

    def on_connection_blocked(self, method_frame: Method[Any]) -> None:
        """Called by pika when RabbitMQ is short of memory or disk (https://www.rabbitmq.com/docs/connection-blocked)."""
        reason = shown(getattr(method_frame.method, "reason", ""))
        self._log.log(logging.WARNING, "RabbitMQ blocks publishing: %s", reason)
        self._lifecycle.feed(self._lifecycle.connection_blocked, reason)

    def on_connection_unblocked(self, _method_frame: Method[Any]) -> None:
        """Called by pika when RabbitMQ is no longer short of anything."""
        self._lifecycle.feed(self._lifecycle.connection_unblocked)

    def on_channel_flow(self, method: ChannelMethods.Flow) -> None:
        """Called by pika when RabbitMQ stops or resumes the flow (AMQP 0-9-1, channel.flow); it was acknowledged."""
        if method.active:
            self._lifecycle.feed(self._lifecycle.connection_unblocked)
        else:
            self._log.log(logging.WARNING, "RabbitMQ stops the channel's flow")
            self._lifecycle.feed(self._lifecycle.connection_blocked, "channel.flow")

    def on_delivery_confirmation(self, method_frame: Method[Any]) -> None:
        """Called by pika with each ack and nack: settle what it is about."""
        method = method_frame.method
        self._core.publisher.on_confirm(method.delivery_tag, method.multiple, isinstance(method, Basic.Ack))

    def on_basic_return(
        self, _channel: Channel | None, method: Basic.Return, properties: BasicProperties, body: bytes
    ) -> None:
        """Called by pika with each returned message: hand it to on_return, or log it as critical."""
        reply = (method.reply_code or 0, str(method.reply_text))
        self._core.publisher.on_return(reply, method.exchange or "", method.routing_key or "", properties.message_id)
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
        """Called by pika when RabbitMQ has closed the channel over an error."""
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
        """Called when more waits for the socket than should: log it; ``obj`` is the connection."""
        LOGGER.warning("RabbitMQ or the network takes messages slower than they are published: %r", obj)

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

    # What it stands on

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
            sentence = f"{self.condition}; {name}() is for a connection that is {known}"
            raise ConnectionStateError(self.state_description).saying(sentence) from None
