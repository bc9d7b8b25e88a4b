"""The lifecycle of the connection: the model of the machine that `states/connection.py` declares.

Triggers come from `Client`, whose documented methods pika's events call. This module implements what the declaration
names: the actions that drive pika, the guards and the timeouts. Nothing here decides when it is called.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable
from typing import Final

from transitions import EventData

from sprockets_amqp.bounded_log import BoundedLog, named
from sprockets_amqp.delivery.publisher import Publisher
from sprockets_amqp.errors import AMQPException
from sprockets_amqp.hooks import StateChange
from sprockets_amqp.model import Model, Timeout, Trigger
from sprockets_amqp.outbox.model import OutboxModel
from sprockets_amqp.states import CONNECTION, DESCRIPTIONS, DOCUMENTED, State, Substate
from sprockets_amqp.wire.replies import ACCESS_REFUSED, describe

from .address import CALL_LIMIT, Address
from .link import Link
from .outage import OutageModel
from .renewal import RenewalModel
from .topology import Setup, in_setup

LOGGER = logging.getLogger("sprockets_amqp.lifecycle")

#: Comes before RabbitMQ's reply text.
EXPIRED: Final = "the credentials have expired"
#: Seconds that `close()` waits for confirmations.
DRAIN_LIMIT: Final = 10.0
#: Seconds that RabbitMQ has to answer connection.close; while it is blocking, it does not.
CLOSE_LIMIT: Final = 2.0
#: Seconds that `setup` may take.
SETUP_LIMIT: Final = 30.0


class Lifecycle(Model):
    """The model. Only the declared transitions set its state."""

    machine = CONNECTION
    state: Substate
    # Added by the declaration; tests/test_states.py keeps the two in step.
    connect: Trigger
    address_given: Trigger
    connection_opened: Trigger
    node_due: Trigger
    setup_done: Trigger
    channel_opened: Trigger
    connection_blocked: Trigger
    connection_unblocked: Trigger
    channel_closed: Trigger
    nacks_lasted: Trigger
    channel_due: Trigger
    connection_failed: Trigger
    connection_closed: Trigger
    access_expired: Trigger
    close: Trigger
    half_time_over: Trigger
    drained: Trigger
    close_expired: Trigger
    stop: Trigger

    def __init__(
        self,
        address: Address,
        link: Link,
        setup: Setup,
        publisher: Publisher,
        outage: OutageModel,
        outbox: OutboxModel,
        renewal: RenewalModel,
        connect: Callable[[], object],
        announce: Callable[[StateChange], object],
        loop: asyncio.AbstractEventLoop,
        name: str,
    ) -> None:
        super().__init__(loop, name)
        self.address = address
        self.attempts = address.attempts
        #: When the current documented state was entered, in seconds since 1970.
        self.since = time.time()
        #: When the next attempt to connect is due, in seconds since 1970; None while none is scheduled.
        self.next_attempt: float | None = None
        #: The last problem since the client was ready, or was asked to connect.
        self.reason = ""
        self._link = link
        self._setup = setup
        self._publisher = publisher
        self._outage = outage
        self._outbox = outbox
        self._renewal = renewal
        self._connect = connect
        self._announce = announce
        #: Whether it was ready before.
        self._been_ready = False
        #: When half of the time for closing is over, in the loop's time.
        self._half_time = 0.0
        self._logger = named(LOGGER, name)
        self._log = BoundedLog(self._logger, loop.time)

    def __repr__(self) -> str:
        return f"<Lifecycle {self.state.name}, {self._outage.state.name}>"

    # Queries

    @property
    def documented(self) -> State:
        """The documented state of the current substate."""
        return DOCUMENTED[self.state]

    @property
    def closable(self) -> bool:
        """Whether there is an open connection to close."""
        return self.knows("close")

    @property
    def calls(self) -> bool:
        """Whether to call a function for the address before the next attempt."""
        return self.address.is_due

    @property
    def retries_node(self) -> bool:
        """Whether to try the same node again: it was not reached, and has attempts left."""
        node = self.address.parameters
        return node is not None and not self._link.reached_broker and self.attempts.tries < node.connection_attempts

    @property
    def in_setup(self) -> bool:
        """Whether `setup` of this connection is the caller: nothing goes out before it has ended."""
        return in_setup(self._link.connection)

    @property
    def sets_up(self) -> bool:
        """Whether to run `setup` before a channel is opened."""
        return self._setup.given

    @property
    def blocking(self) -> bool:
        """Whether RabbitMQ has asked not to publish on this connection, and not taken it back."""
        return bool(self._link.blocking)

    @property
    def expired(self) -> bool:
        """Whether the last channel or connection was closed because the credentials have expired."""
        return self._renewal.expired and self._link.refused_access

    @property
    def stores(self) -> bool:
        """Whether there is an outbox that can store what would be refused."""
        return self._outbox.takes_messages

    @property
    def condition(self) -> str:
        """The state of the connection and the reason for it, for people."""
        trouble = "" if "sends" in self.declared.marks else self._link.blocking or self.reason
        because = f" ({trouble})" if trouble else ""
        return f"connection is {DESCRIPTIONS[self.documented]}{because}"

    def disowns(self, reply_code: int, reply_text: str) -> bool:
        """Return whether a refusal is about credentials that have expired; the connection is given up then."""
        disowned = self._renewal.expired and reply_code == ACCESS_REFUSED
        if disowned:
            self.schedule(self.state, 0, self.access_expired, f"{EXPIRED}: ({reply_code}) {reply_text}")
        return disowned

    def states_for(self, trigger: str) -> str:
        """Name the states in which a trigger has an effect, in words."""
        return " or ".join(dict.fromkeys(DESCRIPTIONS[DOCUMENTED[each]] for each in self.machine.sources(trigger)))

    def start(self) -> None:
        """Connect; if the loop does not run yet, in its first turn: until then the client is idle."""
        if self._loop.is_running():
            self._ask_to_connect()
        else:
            self.schedule(State.IDLE, 0, self._ask_to_connect)

    def retire(self, reason: str) -> None:
        """Stop, and tell only waiting publishes: the loop never ran."""
        self._announce = lambda _change: None
        self.feed(self.stop, reason)

    # `Client.connect` pulls the trigger, so that an override of it is called

    def _due(self, name: str) -> Trigger:
        return self._ask_to_connect if name == "connect" else super()._due(name)

    def _ask_to_connect(self, **_facts: object) -> bool:
        # Cancelled when connect() leaves this state.
        self.schedule(self.state, 0, self._ask_again)
        try:
            self._connect()
        except (Exception, asyncio.CancelledError):
            self._logger.exception("connect() raised")
        return True

    def _ask_again(self, **_facts: object) -> bool:
        delay = self.attempts.next()
        self._logger.warning("%s; connect() did not connect: calling it again in %.1f s", self.condition, delay)
        self.schedule(self.state, delay, self._ask_to_connect)
        return True

    # What the machine does at every transition

    def note_change(self, event: EventData) -> None:
        """Keep the state that is left, and the reason given."""
        super().note_change(event)
        self.next_attempt = None
        self.reason = event.kwargs.get("reason") or self.reason

    def announce_change(self, event: EventData) -> None:
        """Have the other machines follow, and announce a change of the documented state."""
        source, dest, reason = DOCUMENTED[self._previous], self.documented, event.kwargs.get("reason", "")
        self._logger.debug("%s -> %s by %s %s", self._previous.name, self.state.name, event.event.name, reason)
        super().announce_change(event)
        if dest is not source:
            self.since = time.time()
            self._announce(StateChange(source, dest, event.event.name, reason, self.since))

    # What is declared: connecting

    def call_for_address(self, _event: EventData) -> None:
        """Call the function for the address."""
        self.address.call(self._tell_end(self.address_given))

    def stop_call(self, _event: EventData) -> None:
        """Cancel the call."""
        self.address.stop_call()

    def call_limit(self, _event: EventData) -> Timeout:
        """Return how long the function may take."""
        return CALL_LIMIT, f"{self.address.function} has not returned within {CALL_LIMIT:g} s"

    def open_connection(self, _event: EventData) -> None:
        """Open a connection to the next node."""
        self._logger.debug("connecting to %s", self.address.node_name)
        self.attempts.count()
        self._attempt(lambda: self._link.open_connection(self.address.prepare()))

    def set_up(self, _event: EventData) -> None:
        """Run `setup`."""
        assert self._link.connection is not None
        self._setup.run(self._link.connection, self._tell_end(self.setup_done))

    def stop_setup(self, _event: EventData) -> None:
        """Cancel `setup`."""
        self._setup.cancel()

    def setup_limit(self, _event: EventData) -> Timeout:
        """Return how long `setup` may take."""
        return SETUP_LIMIT, f"{self._setup.name}() has not finished within {SETUP_LIMIT:g} s"

    def open_channel(self, _event: EventData) -> None:
        """Open a channel on the connection."""
        self._attempt(self._link.open_channel)

    def attempt_limit(self, _event: EventData) -> Timeout:
        """Return how long an attempt on one node may take, and what names the step that took too long."""
        limit = self._stack_timeout
        return limit, functools.partial(self._link.expired, limit)

    def channel_limit(self, _event: EventData) -> Timeout:
        """Return how long opening the channel may take: as long as the connection."""
        limit = self._stack_timeout
        return limit, f"{self.address.node_name} has not opened a channel within {limit:g} s"

    @property
    def _stack_timeout(self) -> float:
        node = self.address.parameters
        assert node is not None
        return float(node.stack_timeout or 0)

    def drop_attempt(self, _event: EventData) -> None:
        """Drop the connection that could not be opened."""
        self._link.drop_connection()

    def node_delay(self, _event: EventData) -> Timeout:
        """Log the failed attempt, and return the delay before the next."""
        node = self.address.parameters
        assert node is not None
        return self._tell_delay(float(node.retry_delay)), ""

    def channel_delay(self, _event: EventData) -> Timeout:
        """Count the lost channel, and return the delay before the next: none at first, then longer ones."""
        return self.attempts.next_channel(), ""

    def attempt_delay(self, _event: EventData) -> Timeout:
        """Go on to the next node, log it, and return the delay before it is tried."""
        return self._tell_delay(self.attempts.next()), ""

    def _tell_delay(self, delay: float) -> float:
        self._logger.warning("%s; %s in %.1f s", self.condition, self.address.next_step, delay)
        self.next_attempt = time.time() + delay
        return delay

    def _tell_end(self, done: Trigger) -> Callable[[AMQPException | None], object]:
        """Return the callback for the end of something that the application does while connecting."""

        def tell(problem: AMQPException | None) -> None:
            if problem is None:
                self.feed(done)
            else:
                self.feed(self.connection_failed, str(problem), problem)

        return tell

    def _attempt(self, action: Callable[[], None]) -> None:
        """Run an action; if it raises, the attempt fails after this transition, unless the state is left first."""
        try:
            action()
        except Exception as error:
            # Not the error of an earlier attempt, which the guards would ask about.
            self._link.error = error
            self.schedule(self.state, 0, self.connection_failed, describe(error), error)

    # ... ready

    def tell_ready(self, _event: EventData) -> None:
        """Log that it is ready: as a warning after trouble, for those who saw that in the log should see its end."""
        node, again = self.address.node_name, " again" if self._been_ready else ""
        if self.reason:
            lasted = self._loop.time() - self._outage.began
            self._log.log(logging.WARNING, "ready%s after %.1f s, on %s", again, lasted, node)
        else:
            self._logger.info("ready, on %s", node)
        self._been_ready = True
        self.reason = ""

    def send_waiting(self, _event: EventData) -> None:
        """Send waiting messages, in order."""
        self._publisher.send_waiting()

    def give_up_waiting(self, _event: EventData) -> None:
        """End waiting messages, or store them."""
        self._publisher.give_up_waiting()

    def forget_reason(self, _event: EventData) -> None:
        """Forget the last problem: it is from before the client was asked to connect."""
        self.reason = ""

    # ... losses

    def close_channel(self, _event: EventData) -> None:
        """Close the channel, on which nothing is unconfirmed, and log why."""
        self._log.log(logging.WARNING, "%s; opening another channel", self.condition)
        self._attempt(self._link.close_channel)

    def channel_answer_limit(self, _event: EventData) -> Timeout:
        """Return how long RabbitMQ may take to answer channel.close."""
        return CLOSE_LIMIT, "RabbitMQ did not answer channel.close in time"

    def drop_channel(self, event: EventData) -> None:
        """Drop the channel, and settle its unconfirmed messages."""
        self.attempts.lost(self._link.drop_channel())
        self._settle(event)

    def drop_connection(self, event: EventData) -> None:
        """Drop the connection, and settle its unconfirmed messages."""
        self.attempts.lost(self._link.drop_connection())
        self._settle(event)

    def _settle(self, event: EventData) -> None:
        cause = event.kwargs.get("cause") or AMQPException(event.kwargs.get("reason") or "closed on request")
        if self.expired:
            # No message is to blame.
            cause = AMQPException().saying(f"{EXPIRED}: {describe(cause)}")
        self._publisher.settle_unconfirmed(cause)

    # ... closing

    def closing_limit(self, event: EventData) -> Timeout:
        """Return how long draining and closing may take together."""
        limit = float(event.kwargs.get("limit", DRAIN_LIMIT))
        self._half_time = self._loop.time() + limit / 2
        return limit, f"not drained and closed within {limit:g} s"

    def half_time(self, _event: EventData) -> Timeout:
        """Return how long what waits may go out: an outbox needs the other half to store it."""
        return max(0.0, self._half_time - self._loop.time()), ""

    def drain(self, _event: EventData) -> None:
        """Wait until nothing waits and nothing is unconfirmed."""
        self._publisher.call_when_drained(lambda: self.schedule(self.state, 0, self.drained))

    def close_connection(self, _event: EventData) -> None:
        """Ask RabbitMQ to close the connection."""
        self._link.close_connection()

    def answer_limit(self, _event: EventData) -> Timeout:
        """Return how long RabbitMQ may take to answer connection.close."""
        return CLOSE_LIMIT, "RabbitMQ did not answer connection.close in time"
