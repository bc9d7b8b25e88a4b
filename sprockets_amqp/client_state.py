"""What a client says about itself: its settings, its state, and its counters."""

import pika
from pika.channel import Channel

from .delivery.counters import Counters
from .hooks import Hooks, StateChange
from .inflight import InFlight
from .runtime import Bound
from .settings import Settings
from .states import DESCRIPTIONS, PublishOutcome, State, Substate
from .urls import hide_password
from .wire.connection import Connection


class ClientState(Bound):
    """The base of `Client` that only answers: nothing here changes anything."""

    #: None while the client is being made.
    _settings: Settings | None = None

    def __init__(self, settings: Settings, name: str) -> None:
        super().__init__(name)
        self._settings = settings
        self._hooks = Hooks(self.name)
        #: How many calls of `shutdown()` are in progress.
        self._shutdowns = 0

    def __repr__(self) -> str:
        # In a forked process it has no state until it is used.
        state = self.state if self._present is not None else State.IDLE
        where = "without settings"
        if self._settings is not None:
            where = hide_password(self.url) if self.url is not None else self.settings.shown_url
        return f"<Client {DESCRIPTIONS[state]} {where}>"

    @property
    def settings(self) -> Settings:
        """The settings, checked."""
        assert self._settings is not None
        return self._settings

    @property
    def url(self) -> str | None:
        """The URL as given or last returned, passwords included; None until the function has returned one."""
        if isinstance(self.settings.url, str):
            return self.settings.url
        return self._present.lifecycle.address.url if self._present is not None else None

    @property
    def parameters(self) -> pika.URLParameters | None:
        """pika's parameters for the node that is connected or tried next; None until the function has returned one."""
        return self._runtime.lifecycle.address.parameters

    @property
    def connection(self) -> Connection | None:
        """pika's connection, or None."""
        return self._runtime.link.connection

    @property
    def channel(self) -> Channel | None:
        """pika's channel, or None. Do not publish on it directly: that would confuse the confirms."""
        return self._runtime.link.channel

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
        return self._runtime.lifecycle.documented

    @property
    def substate(self) -> Substate:
        """The substate of the current state; the state itself if it has none."""
        return self._runtime.lifecycle.state

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
        return self._runtime.lifecycle.closable

    @property
    def recovers(self) -> bool:
        """Whether the client is ready, or will be by itself; false once it was closed on request."""
        return self._runtime.gate.recovers

    @property
    def condition(self) -> str:
        """The state and the reason for it in one line, for people."""
        return self._runtime.lifecycle.condition

    @property
    def reason(self) -> str:
        """The last problem since the client was ready, or was asked to connect, in one line; empty if there is none."""
        return self._runtime.lifecycle.reason

    @property
    def state_since(self) -> float:
        """When the current state was entered, in seconds since 1970."""
        return self._runtime.lifecycle.since

    @property
    def next_attempt(self) -> float | None:
        """When the next attempt to connect is due, in seconds since 1970; None while none is scheduled."""
        return self._runtime.lifecycle.next_attempt

    @property
    def history(self) -> tuple[StateChange, ...]:
        """The latest hundred state changes since the client was made, oldest first."""
        return tuple(self._hooks.history)

    @property
    def publish_outcome(self) -> PublishOutcome:
        """What becomes of a publish now: it goes out, waits, is refused, or is stored."""
        return self._runtime.gate.publish_outcome

    @property
    def outbox_trouble(self) -> str:
        """Why nothing can be stored in the outbox now; empty if it can, and without an outbox."""
        return self._runtime.outbox.trouble

    @property
    def stopping(self) -> bool:
        """Whether `shutdown()` is in progress, even while the client is still ready for requests in flight."""
        return self._shutdowns > 0

    @property
    def in_flight(self) -> InFlight:
        """The requests that handlers with `PublishingMixin` are answering."""
        return self._runtime.in_flight

    @property
    def unconfirmed(self) -> int:
        """How many messages are on the wire, neither confirmed nor lost."""
        return self._runtime.publisher.unconfirmed

    @property
    def waiting(self) -> int:
        """How many messages are waiting for the client to be ready, or for room among the unconfirmed."""
        return self._runtime.publisher.waiting

    @property
    def counters(self) -> Counters:
        """A copy of the message counters."""
        return self._runtime.counters
