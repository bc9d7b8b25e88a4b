"""The client: the documented API."""

import asyncio
import concurrent.futures
import functools
import threading
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, ClassVar, Self, Unpack, cast

from tornado.ioloop import IOLoop
from transitions import MachineError

from .connection.lifecycle import CLOSE_LIMIT, DRAIN_LIMIT
from .connection.topology import SetupFunction
from .delivery.options import OPTIONS, Options
from .delivery.publish import Result  # noqa: TC001 - get_type_hints() of a public method needs it
from .errors import ConnectionStateError
from .hooks import Callback, Changes, StateChange, Subscription
from .many import Outcomes, Outgoing, Window
from .names import DEFAULT_NAME
from .observers import Observation, Observer, Observers
from .outbox.model import FINISH_LIMIT
from .pika_events import OnReturn, PikaEvents
from .runtime import Runtime, running_loop
from .secret import all_hidden, all_revealed, hidden
from .settings import (
    DEFAULT_CONNECTION_ATTEMPTS,
    DEFAULT_RECONNECT_DELAY,
    DEFAULT_URL,
    URL,
    MoreSettings,
    Settings,
    from_environment,
)
from .states import DESCRIPTIONS, State
from .threads import FromThreads
from .wire.connection import Connection


class Arguments(MoreSettings, total=False):
    """The keyword arguments of `install` and `Client.from_environment`, as a type checker sees them."""

    url: URL
    enable_confirmations: bool
    reconnect_delay: float
    connection_attempts: int
    default_app_id: str | None
    on_ready_callback: Callable[["Client"], object] | None
    on_unavailable_callback: Callable[["Client"], object] | None
    on_return_callback: OnReturn | None
    on_persistent_failure_callback: Callable[["Client"], object] | None
    setup: SetupFunction | None


class Client(PikaEvents):
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
            unroutable; without it, they are logged.
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

    _from_threads: FromThreads | None = None

    def __init__(
        self,
        url: URL,
        enable_confirmations: bool = True,
        reconnect_delay: float = DEFAULT_RECONNECT_DELAY,
        connection_attempts: int = DEFAULT_CONNECTION_ATTEMPTS,
        default_app_id: str | None = None,
        on_ready_callback: Callable[["Client"], object] | None = None,
        on_unavailable_callback: Callable[["Client"], object] | None = None,
        on_return_callback: OnReturn | None = None,
        io_loop: IOLoop | None = None,
        *,
        on_persistent_failure_callback: Callable[["Client"], object] | None = None,
        setup: SetupFunction | None = None,
        name: str = DEFAULT_NAME,
        **settings: Unpack[MoreSettings],
    ) -> None:
        url, settings = hidden(url), all_hidden(settings)
        super().__init__(
            Settings(
                url=url,
                enable_confirmations=enable_confirmations,
                reconnect_delay=reconnect_delay,
                connection_attempts=connection_attempts,
                default_app_id=default_app_id,
                # It makes a str of each path.
                **cast("dict[str, Any]", settings),
            ),
            name,
            on_return_callback,
        )
        if setup is not None and not callable(setup):
            raise ValueError(f"setup must be a coroutine function, not {setup!r:.80}")
        self._setup = setup
        self.on_ready = on_ready_callback
        self.on_unavailable = on_unavailable_callback
        self.on_persistent_failure = on_persistent_failure_callback
        self._observers = Observers(self.name)
        self._hooks.subscribe(self._tell_availability)
        self._begin(io_loop)

    @classmethod
    def from_environment(
        cls, *, name: str = DEFAULT_NAME, io_loop: IOLoop | None = None, **settings: Unpack[Arguments]
    ) -> Self:
        """Make a client with settings from the environment; keyword arguments take precedence.

        ``name`` is the prefix of the variables: ``AUDIT_URL`` for ``"audit"``.

        Raises:
            ValueError: a setting or the name is invalid; the error names it and where it came from.
        """
        settings = all_hidden(settings)
        defaults = {"url": DEFAULT_URL, "name": name}
        return cls(io_loop=io_loop, **{**defaults, **from_environment(name=name), **all_revealed(settings)})

    async def __aenter__(self) -> Self:
        self.bind()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Shut down, as `shutdown` does."""
        await self.shutdown()

    def _bind(self, io_loop: IOLoop) -> Runtime:
        before = self._from_threads
        runtime = super()._bind(io_loop)
        self._from_threads = FromThreads(runtime.loop, self.publish, runtime.on_wire)
        if before is not None:
            before.give_up("the client moved to another event loop")
        return runtime

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
        runtime = self._present
        if runtime is None or running_loop() is not runtime.loop:
            runtime = self._here()
        # A call that raises is not a publish.
        if self._observers and options.keys() <= OPTIONS:
            properties, watch = self._observers.begin(exchange, routing_key, properties)
            return runtime.publisher.publish(exchange, routing_key, body, properties, options, watch)
        return runtime.publisher.publish(exchange, routing_key, body, properties, options)

    def publish_many(
        self, messages: Iterable[Outgoing] | AsyncIterable[Outgoing], **options: Unpack[Options]
    ) -> Outcomes:
        """Publish any number of messages, and return their outcomes: an asynchronous iterator, in the same order.

        Each message is a tuple of exchange, routing key, body and, perhaps, properties. They come from an iterable or
        an asynchronous iterable, which is read no faster than RabbitMQ confirms: at most ``max_unconfirmed`` messages
        are under way, and memory does not grow with their number. The options are those of `publish`, which publishes
        each of them. One that fails harms no other, and is an outcome as any.

        >>> async def send(client, lines):
        ...     async for outcome in client.publish_many(("", "lines", line) for line in lines):
        ...         if outcome.error is not None:
        ...             print(outcome.message, outcome.error)

        Raises:
            RuntimeError: it is called from a thread other than the client's, or on another loop.
            TypeError: ``messages`` cannot be iterated, or an option is unknown.
        """
        runtime, settings = self._here(), self.settings
        if unknown := options.keys() - OPTIONS:
            raise TypeError(f"publish_many() has no option {min(unknown)!r}; the options are {', '.join(OPTIONS)}")
        publish = functools.partial(self.publish, **options) if options else self.publish
        # Others want to wait in line, too; and it takes fewer messages to exchanges that it has not seen before.
        limit = max(1, min(settings.max_unconfirmed, settings.max_waiting // 2))
        size = min(settings.max_unconfirmed_size, settings.max_waiting_size // 2)
        return Outcomes(messages, Window(publish, limit, size), runtime.on_wire)

    def publish_threadsafe(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | bytearray | memoryview | str,
        properties: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> "concurrent.futures.Future[Result]":
        """Publish a message from any other thread than the client's; the arguments are those of `publish`.

        The future ends as that of `publish` does: ``result(timeout)`` waits for it. The messages of a thread are
        published in the order of its calls. ``cancel()`` works until the client's loop has taken the message. When the
        loop ends (`asyncio.run`), what is left ends with NotReadyError, or OutcomeUnknown if it was sent.

        >>> def work(client):
        ...     client.publish_threadsafe("events", "event.worked", b"{}").result(timeout=60)

        Raises:
            RuntimeError: it is called in the client's own thread, where waiting would wait for ever: use `publish`. Or
                in a forked process, before the client was used on a loop there.
        """
        runtime = self._present
        if runtime is None:
            raise RuntimeError(f"{self!r} has no event loop in this process yet: use it on one first")
        if running_loop() is runtime.loop or (
            runtime.thread == threading.get_ident() and not runtime.loop.is_running()
        ):
            raise RuntimeError("publish_threadsafe() is for other threads than the client's own: use publish() here")
        assert self._from_threads is not None
        return self._from_threads.publish(exchange, routing_key, body, properties, **options)

    async def flush(self, timeout: float | None = None) -> None:
        """Return when everything published so far has ended, and nothing is stored any more.

        The futures say how each publish ended. Messages set aside in the outbox stay there.

        Raises:
            TimeoutError: something has not ended within ``timeout`` seconds, and continues all the same; or the client
                was stopped while messages were stored.
            RuntimeError: it is called on another loop than the client's.
        """
        runtime = self._here()
        try:
            async with asyncio.timeout(timeout):
                if pending := runtime.publisher.pending:
                    await asyncio.wait(pending)
                stored = await runtime.outbox.emptied()
        except TimeoutError:
            left = len([each for each in pending if not each.done()]) + runtime.outbox.stored
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
            self._runtime.rest()

    async def _stop(self, deadline: float) -> None:
        runtime = self._runtime
        loop, lifecycle, connection = runtime.loop, runtime.lifecycle, runtime.link.connection
        end = deadline
        if runtime.outbox.given:
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
        await runtime.outbox.closed(end - loop.time())
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

    # Its runtime

    def _make_runtime(self, io_loop: IOLoop) -> Runtime:
        return Runtime(
            self.settings,
            self._setup,
            self,
            # Looked up when it is time, so that patching a client takes effect.
            lambda: self.connect(),  # noqa: PLW0108
            self._hooks,
            self._tell_persistent_failure,
            self._observers,
            self.name,
            io_loop,
        )

    def _abandon(self) -> bool:
        self._shutdowns = 0
        self._observers.abandon()
        return super()._abandon()

    def _pull(self, name: str) -> None:
        lifecycle = self._runtime.lifecycle
        try:
            getattr(lifecycle, name)()
        except MachineError:
            known = lifecycle.states_for(name)
            sentence = f"{self.condition}; {name}() can be called only while it is {known}"
            raise ConnectionStateError(self.state_description).saying(sentence) from None
