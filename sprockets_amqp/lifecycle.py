"""The lifecycle of the connection: the model that `states/connection.py` declares transitions for.

Triggers come in from `Client`, whose methods pika calls. What the declaration names stands here: the callbacks that
drive pika, and the guards that know what no state says. Nothing here decides when it is called.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import pika
from pika.channel import Channel
from tornado.ioloop import IOLoop
from transitions import EventData, Machine, MachineError

from .backoff import Backoff
from .errors import AMQPException, describe, reply
from .exchanges import Exchanges
from .hooks import Hooks, StateChange
from .publisher import Publisher
from .settings import Settings, node_parameters
from .states import CLOSABLE, DESCRIPTIONS, PUBLISHABLE, REFUSED, TRANSITIONS, State
from .transport import Connection

if TYPE_CHECKING:
    from .client import Client

LOGGER = logging.getLogger(__name__)
# transitions logs each callback at INFO; one line a transition is written here.
logging.getLogger("transitions").setLevel(logging.WARNING)

#: Seconds that `close()` waits for confirmations.
DRAIN_LIMIT: Final = 10.0
#: Seconds within which RabbitMQ is to answer connection.close; while it is blocking, it does not.
CLOSE_LIMIT: Final = 2.0
#: Seconds before a channel that did not last is opened again, the second time; doubled up to reconnect_delay.
CHANNEL_DELAY: Final = 0.1

Trigger = Callable[..., bool]


class Lifecycle:
    """The model. Its state is set by the declared transitions only."""

    state: State
    # What the declaration adds; tests/test_states.py holds the two equal.
    connect: Trigger
    connection_opened: Trigger
    channel_opened: Trigger
    connection_blocked: Trigger
    connection_unblocked: Trigger
    flow_stopped: Trigger
    flow_resumed: Trigger
    channel_closed: Trigger
    connection_failed: Trigger
    connection_closed: Trigger
    failure_persisted: Trigger
    close: Trigger
    drained: Trigger
    close_expired: Trigger
    stop: Trigger

    def __init__(self, client: "Client", settings: Settings, hooks: Hooks, io_loop: IOLoop) -> None:
        self.connection: Connection | None = None
        self.channel: Channel | None = None
        #: When the present state was entered, in seconds since 1970, and the last trouble since the client was ready.
        self.since = time.time()
        self.reason = ""
        self.nodes: list[pika.URLParameters] = _spread(settings)
        self.publisher = Publisher(hooks.loop, self, settings)
        self._client = client
        self._settings = settings
        self._hooks = hooks
        self._io_loop = io_loop
        self._loop = hooks.loop
        self._exchanges: Exchanges | None = None
        self._unchecked = False
        self._reasons_to_block: set[str] = set()
        self._persistent = False
        self._connections = 0
        self._untried = len(self.nodes) - 1
        self._ready_at: float | None = None
        self._backoff = Backoff(settings.reconnect_delay, settings.max_reconnect_delay)
        self._channel_backoff = Backoff(CHANNEL_DELAY, settings.reconnect_delay, at_once=True)
        self._reconnect_timer: asyncio.Handle | None = None
        self._connect_timer: asyncio.Handle | None = None
        self._channel_timer: asyncio.Handle | None = None
        self._outage_timer: asyncio.Handle | None = None
        self._close_timer: asyncio.Handle | None = None
        Machine(
            model=self,
            states=State,
            transitions=TRANSITIONS,
            initial=State.IDLE,
            auto_transitions=False,
            send_event=True,
            before_state_change="_note",
            after_state_change="_announce",
        )

    def __repr__(self) -> str:
        return f"<Lifecycle {self.state.name}>"

    # What the others ask

    @property
    def publishable(self) -> bool:
        """Whether a message may go out now."""
        return self.state in PUBLISHABLE

    @property
    def closable(self) -> bool:
        """Whether there is an open connection to close."""
        return self.state in CLOSABLE

    @property
    def recovers(self) -> bool:
        """Whether the client is, or will by itself be, on its way to ready: false once it was closed on request."""
        return self.state not in REFUSED or self._reconnect_timer is not None

    @property
    def awaitable(self) -> bool:
        """Whether a publish may wait for ready: the client recovers, and its outage did not last beyond ``timeout``."""
        return self.recovers and not self._persistent

    @property
    def blocking(self) -> bool:
        """Whether RabbitMQ asked not to publish, and did not take it back on this connection."""
        return bool(self._reasons_to_block)

    @property
    def condition(self) -> str:
        """In which state the connection is, and why, for people."""
        because = f" ({self.reason})" if self.reason and not self.publishable else ""
        return f"connection is {DESCRIPTIONS[self.state]}{because}"

    def feed(self, trigger: Trigger, reason: str = "", cause: BaseException | None = None) -> bool:
        """Pull the trigger for something that happened; False where the declaration has no row for it in this state."""
        try:
            return trigger(reason=reason, cause=cause)
        except MachineError as error:
            LOGGER.debug("ignored: %s", error)
            return False

    # What the declared transitions do, for every transition

    def _note(self, event: EventData) -> None:
        if event.kwargs.get("reason"):
            self.reason = event.kwargs["reason"]

    def _announce(self, event: EventData) -> None:
        transition = event.transition
        if transition is None or not transition.dest or transition.dest == transition.source:
            return
        source, dest = State[transition.source], State[transition.dest]
        self.since = time.time()
        if self.publishable:
            self.reason = ""
        change = StateChange(source, dest, event.event.name, event.kwargs.get("reason", ""), self.since)
        LOGGER.debug("%s -> %s by %s %s", source.name, dest.name, change.trigger, change.reason)
        self._hooks.announce(change)

    # ... to connect

    def start_later(self) -> None:
        """Connect in the loop's next turn; until the loop runs, the client is idle."""
        # An outage is watched from then on: what the application does before its loop runs is none.
        self._reconnect_timer = self._loop.call_soon(self.feed, self.connect)

    def _cancel_reconnect(self, _event: EventData) -> None:
        self._reconnect_timer = _cancelled(self._reconnect_timer)

    def _open_connection(self, _event: EventData) -> None:
        client, parameters = self._client, self.nodes[0]
        LOGGER.debug("connecting to %s:%s", parameters.host, parameters.port)
        self._limit_connecting(parameters)
        try:
            self.connection = Connection(
                parameters,
                on_open_callback=client.on_connection_open,
                on_open_error_callback=client.on_connection_open_error,
                on_close_callback=lambda connection, error: client.on_connection_closed(connection, *reply(error)),
                on_back_pressure=client.on_back_pressure_detected,
                io_loop=self._io_loop,
            )
        except Exception as error:
            self._fail_later(error)

    def _open_channel(self, _event: EventData | None) -> None:
        """Open a channel, in confirm mode where confirms are used; `channel_opened` is pulled when it is."""
        connection, client = self.connection, self._client
        assert connection is not None
        if self._exchanges is None:
            self._exchanges = Exchanges(connection, unchecked=self._unchecked)
            self._connections += 1
            self.publisher.counters.reconnects = self._connections - 1
        self._limit_connecting(self.nodes[0])
        try:
            channel = connection.channel(on_open_callback=self._select_confirms)
        except Exception as error:
            self._fail_later(error)
            return
        self.channel = channel
        channel.add_on_close_callback(lambda channel, error: client.on_channel_closed(channel, *reply(error)))
        channel.add_on_flow_callback(lambda frame: client.on_channel_flow(frame.method))  # type: ignore[attr-defined]
        channel.add_on_return_callback(client.on_basic_return)

    def _select_confirms(self, channel: Channel) -> None:
        if channel is not self.channel or self.connection is None:
            return
        client, connection = self._client, self.connection
        if not self._settings.enable_confirmations:
            client.on_channel_open(channel)
            return

        def on_selected(_frame: object) -> None:
            connection.read_confirms(channel.channel_number, client.on_delivery_confirmation)
            client.on_channel_open(channel)

        try:
            channel.confirm_delivery(client.on_delivery_confirmation, callback=on_selected)
        except Exception as error:
            self._fail_later(error)

    def _reopen_channel(self, _event: EventData) -> None:
        """Open a channel again: at once the first time, then backing off while channels do not last."""
        if self._lasted():
            self._channel_backoff.reset()
        self.channel = None
        # Even at once means later: pika still holds the number of the channel that it is closing.
        _cancelled(self._channel_timer)
        self._channel_timer = self._loop.call_later(self._channel_backoff.next(), self._open_channel, None)

    def _end_connecting(self, _event: EventData) -> None:
        self._connect_timer = _cancelled(self._connect_timer)
        self._channel_timer = _cancelled(self._channel_timer)

    def _limit_connecting(self, parameters: pika.URLParameters) -> None:
        # pika never calls back when DNS hangs or when descriptors or threads are out.
        limit = _connect_limit(parameters)
        _cancelled(self._connect_timer)
        self._connect_timer = self._loop.call_later(
            limit,
            self.feed,
            self.connection_failed,
            f"no answer from {parameters.host}:{parameters.port} within {limit:g} s",
        )

    def _fail_later(self, error: Exception) -> None:
        """Pull connection_failed once this transition is complete, unless the attempt has ended by then."""
        _cancelled(self._connect_timer)
        self._connect_timer = self._loop.call_soon(self.feed, self.connection_failed, describe(error), error)

    # ... once ready, blocked, and in an outage

    def _send_waiting(self, _event: EventData) -> None:
        assert self.connection is not None and self.channel is not None and self._exchanges is not None
        if self._ready_at is None:
            self._ready_at = self._loop.time()
        self.publisher.attach(self.connection, self.channel.channel_number, self._exchanges)
        self.publisher.send_waiting()

    def _remember_alarm(self, _event: EventData) -> None:
        self._reasons_to_block.add("alarm")

    def _forget_alarm(self, _event: EventData) -> None:
        self._reasons_to_block.discard("alarm")

    def _remember_flow(self, _event: EventData) -> None:
        self._reasons_to_block.add("flow")

    def _forget_flow(self, _event: EventData) -> None:
        self._reasons_to_block.discard("flow")

    def _watch_outage(self, _event: EventData) -> None:
        if self._outage_timer is None and not self._persistent:
            self._outage_timer = self._loop.call_later(self._settings.timeout, self.feed, self.failure_persisted)

    def _end_outage(self, _event: EventData) -> None:
        self._outage_timer = _cancelled(self._outage_timer)
        self._persistent = False

    def _remember_failure(self, _event: EventData) -> None:
        self._outage_timer = None
        self._persistent = True
        LOGGER.warning(
            "not ready for %g s: %s; publishes are refused until it is", self._settings.timeout, self.condition
        )
        self._hooks.call_later_in_order(self._client.tell_persistent_failure)

    # ... after a loss

    def _settle_unconfirmed(self, event: EventData) -> None:
        cause = event.kwargs.get("cause") or AMQPException(event.kwargs.get("reason") or "closed on request")
        self.publisher.detach(cause)
        self._reasons_to_block.discard("flow")
        if self._exchanges is not None:
            self._exchanges.forget()

    def _drop_connection(self, event: EventData) -> None:
        if self._exchanges is not None and self._exchanges.denied_by(event.kwargs.get("cause")):
            LOGGER.warning("RabbitMQ allows this user no second channel: exchanges are used unchecked")
            self._unchecked = True
        connection, self.connection = self.connection, None
        self.channel = self._exchanges = None
        self._reasons_to_block.clear()
        if connection is not None:
            connection.abort()

    def _schedule_reconnect(self, _event: EventData) -> None:
        """Connect again: to a node that was not tried yet at once, and after a delay when each of them was."""
        others = len(self.nodes) - 1
        if self._lasted():
            self._backoff.reset()
            self._untried = others
        self.nodes.append(self.nodes.pop(0))
        delay = 0.0 if self._untried else self._backoff.next()
        self._untried = self._untried - 1 if self._untried else others
        LOGGER.warning("%s; trying %s again in %.1f s", self.condition, self.nodes[0].host, delay)
        self._reconnect_timer = self._loop.call_later(delay, self.feed, self.connect)

    def _lasted(self) -> bool:
        """Tell whether the client was ready for long enough to begin with the first delay again."""
        ready_at, self._ready_at = self._ready_at, None
        return ready_at is not None and self._loop.time() - ready_at >= self._settings.reconnect_delay

    def _refuse_waiting(self, _event: EventData) -> None:
        self.publisher.refuse_waiting()

    # ... to close

    def _drain(self, event: EventData) -> None:
        limit = event.kwargs.get("limit", DRAIN_LIMIT)
        self._expire_close(limit, f"not drained within {limit:g} s")
        self.publisher.call_when_drained(lambda: self.feed(self.drained))

    def _close_connection(self, _event: EventData) -> None:
        assert self.connection is not None
        self._expire_close(CLOSE_LIMIT, "RabbitMQ did not answer connection.close in time")
        try:
            self.connection.close()
        except Exception as error:
            LOGGER.debug("closing %s: %r", self.connection, error)

    def _expire_close(self, limit: float, reason: str) -> None:
        # Draining and closing together stay within the limit that was asked for.
        deadline = self._loop.time() + limit
        if isinstance(self._close_timer, asyncio.TimerHandle):
            deadline = min(deadline, self._close_timer.when())
        _cancelled(self._close_timer)
        self._close_timer = self._loop.call_at(deadline, self.feed, self.close_expired, reason)

    def _end_closing(self, _event: EventData) -> None:
        self._close_timer = _cancelled(self._close_timer)
        self.publisher.call_when_drained(None)


def _cancelled(timer: asyncio.Handle | None) -> asyncio.Handle | None:
    """Cancel a timer, if there is one; returns None, to forget it in the same line."""
    if timer is not None:
        timer.cancel()
    return None


def _connect_limit(parameters: pika.URLParameters) -> float:
    """Return the seconds that pika's attempts on one node may take, and one to tell."""
    attempts = parameters.connection_attempts
    return attempts * float(parameters.stack_timeout or 0) + (attempts - 1) * parameters.retry_delay + 1


def _spread(settings: Settings) -> list[pika.URLParameters]:
    """Parse the nodes of the URL, in an order of this client's own, so that clients spread over them."""
    nodes = node_parameters(settings.url)
    for node in nodes:
        # Of several nodes each is tried once, so that the next one's turn comes soon.
        node.connection_attempts = settings.connection_attempts if len(nodes) == 1 else 1
        properties = dict(node.client_properties or {})
        properties.setdefault("connection_name", settings.default_app_id or "sprockets_amqp")
        node.client_properties = properties
    return random.sample(nodes, len(nodes))
