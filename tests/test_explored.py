"""The client in orders that nobody thought of, with the wire as the oracle."""

import asyncio
import collections
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pika import spec

from sprockets_amqp import (
    AMQPException,
    Client,
    ConnectionStateError,
    ExchangeRefused,
    InvalidMessage,
    MessageNacked,
    MessageReturned,
    NotReadyError,
    State,
)
from sprockets_amqp.states import Closing, Substate
from sprockets_amqp.testing.peer import Peer
from tests.support.memory import Broker

NOT_SENT = (NotReadyError, InvalidMessage, ExchangeRefused)


class Publish:
    """One publish, and what was so when it ended."""

    def __init__(self, message_id: str, exchange: str, future: "asyncio.Future[None]", broker: Broker) -> None:
        self.message_id = message_id
        self.exchange = exchange
        self.future = future
        #: How often the message had been sent, and with what the publish ended; None until it does.
        self.at_end: tuple[int, str] | None = None
        self._broker = broker
        future.add_done_callback(self._on_end)

    def _on_end(self, future: "asyncio.Future[None]") -> None:
        error = None if future.cancelled() else future.exception()
        self.at_end = (self._broker.sent[self.message_id], repr(error))


class Exploration(RuleBasedStateMachine):
    """A client and a broker, each of which does whatever comes to its mind."""

    @initialize(
        confirms=st.sampled_from([True, True, True, False]),
        republish=st.booleans(),
        fail_on_return=st.booleans(),
        timeout=st.sampled_from([0, 2, 30]),
        window=st.sampled_from([1, 3, 100]),
        nodes=st.sampled_from([1, 3]),
        mends=st.booleans(),
    )
    def start(
        self,
        confirms: bool,
        republish: bool,
        fail_on_return: bool,
        timeout: float,
        window: int,
        nodes: int,
        mends: bool,
    ) -> None:
        """Make the client."""
        self.broker = Broker().install()
        self.broker.unroutable.add("nowhere")
        self.republish = republish
        self.confirms = confirms
        self.mends = mends
        self.publishes: list[Publish] = []
        self.shutdowns: list[asyncio.Task[None]] = []
        self.client = Client(
            "amqp://" + ",".join(["one", "two", "three"][:nodes]),
            io_loop=self.broker.clock.io_loop,
            enable_confirmations=confirms,
            republish_unconfirmed=republish,
            fail_on_return=fail_on_return,
            timeout=timeout,
            confirm_timeout=20,
            max_unconfirmed=window,
            max_waiting=6,
            reconnect_delay=1,
            max_reconnect_delay=4,
            on_return_callback=lambda *_args: None,
        )
        self.told: list[Any] = []
        self.client.subscribe(self.told.append)
        self.window = window
        self.held_back: tuple[int, Substate, int] | None = None

    @property
    def ups(self) -> list[Peer]:
        """The connections that are up."""
        return [peer for peer in self.broker.peers if peer.accepted and not peer.lost]

    # The application

    @rule(
        exchange=st.sampled_from(["", "", "", "events", "other", "missing"]),
        routing_key=st.sampled_from(["q", "q", "nowhere"]),
        timeout=st.sampled_from([None, None, 0, 1, 60]),
        size=st.sampled_from([0, 5, 9000]),
        count=st.integers(1, 4),
    )
    def publish(self, exchange: str, routing_key: str, timeout: float | None, size: int, count: int) -> None:
        """Publish a few messages."""
        for _ in range(count):
            message_id = f"m{len(self.publishes)}"
            future = self.client.publish(
                exchange, routing_key, bytes(size), {"message_id": message_id}, timeout=timeout
            )
            self.publishes.append(Publish(message_id, exchange, future, self.broker))

    @rule(bad=st.sampled_from([{"priority": 300}, {"headers": {"a": 1.5}}, {"headers": {"a": "x" * 9000}}]))
    def publish_nonsense(self, bad: dict[str, Any]) -> None:
        """Publish what cannot be sent."""
        message_id = f"m{len(self.publishes)}"
        future = self.client.publish("", "q", b"", {"message_id": message_id, **bad})
        self.publishes.append(Publish(message_id, "", future, self.broker))

    @rule(which=st.integers(0, 5))
    def cancel(self, which: int) -> None:
        """Cancel one of those that are not done."""
        pending = [publish for publish in self.publishes if not publish.future.done()]
        if pending:
            pending[which % len(pending)].future.cancel()

    @rule(more=st.integers(1, 3))
    def come_back(self, more: int) -> None:
        """Let the client be ready again, if nothing of the broker's keeps it from that, and publish."""
        if not self.client.recovers and not self.client.closing:
            self.client.connect()
        for _ in range(3):
            self.broker.open()
            self.broker.clock.advance(4)
        self.broker.open()
        self.publish("", "q", None, 5, more)

    @precondition(lambda self: self.ups)
    @rule(exchanges=st.lists(st.sampled_from(["", "events", "missing"]), max_size=6), which=st.integers(0, 9))
    def publish_and_cancel(self, exchanges: list[str], which: int) -> None:
        """Publish to several exchanges at once, and cancel one when it is on the wire or in line."""
        for exchange in exchanges:
            self.publish(exchange, "q", None, 5, 1)
        self.broker.clock.turn(3)
        self.cancel(which)

    @rule()
    def connect(self) -> None:
        """Ask to connect."""
        self._ask(self.client.connect)

    @rule(chance=st.integers(0, 2))
    def close(self, chance: int) -> None:
        """Ask to close, now and then."""
        if chance == 0:
            self._ask(self.client.close)

    def _ask(self, verb: Any) -> None:
        before = self.client.state
        try:
            verb()
        except ConnectionStateError:
            assert self.client.state is before

    @rule(timeout=st.sampled_from([None, None, None, 0, 1, 5]))
    def shutdown(self, timeout: float | None) -> None:
        """Ask to shut down, now and then."""
        if timeout is not None:
            self.shutdowns.append(self.broker.clock.loop.create_task(self.client.shutdown(timeout)))

    # The broker and the network

    @rule(accepts=st.sampled_from([True, True, False]))
    def answer_connecting(self, accepts: bool) -> None:
        """Take a connection, or refuse it."""
        for peer in self.broker.peers:
            if not peer.accepted and not peer.lost:
                peer.accept() if accepts else peer.refuse()

    @rule()
    def go_on(self) -> None:
        """Let everything arrive for a while."""
        self.broker.open()

    @precondition(lambda self: self.ups)
    @rule(count=st.integers(1, 4))
    def deliver(self, count: int) -> None:
        """Let some of what the broker said arrive."""
        for peer in self.ups:
            peer.deliver(count)

    @precondition(lambda self: self.ups)
    @rule(which=st.integers(0, 5), multiple=st.booleans(), nack=st.sampled_from([False, False, True]))
    def confirm(self, which: int, multiple: bool, nack: bool) -> None:
        """Confirm something."""
        for peer in self.ups:
            for channel, tags in peer.unconfirmed.items():
                if tags:
                    peer.confirm(tags[which % len(tags)], channel=channel, multiple=multiple, nack=nack)

    @precondition(lambda self: self.ups)
    @rule(stalled=st.booleans())
    def alarm(self, stalled: bool) -> None:
        """Block, or unblock."""
        for peer in self.ups:
            if peer.stalled is not stalled:
                peer.stall(stalled=stalled)

    @precondition(lambda self: self.ups)
    @rule(active=st.booleans())
    def flow(self, active: bool) -> None:
        """Stop or resume the flow of the publishing channel."""
        for peer in self.ups:
            for number in peer.received:
                peer.say(number, spec.Channel.Flow(active))

    @precondition(lambda self: self.ups)
    @rule()
    def close_channel(self) -> None:
        """Close the publishing channel."""
        for peer in self.ups:
            for number in list(peer.received):
                peer.close_channel(number, 406, "PRECONDITION_FAILED")

    @precondition(lambda self: self.ups)
    @rule(code=st.sampled_from([320, 501]))
    def close_connection(self, code: int) -> None:
        """Close the connection with a word."""
        for peer in self.ups:
            peer.say(0, spec.Connection.Close(code, "bye", 0, 0))

    @precondition(lambda self: self.ups)
    @rule()
    def lose_connection(self) -> None:
        """Lose the connection without a word."""
        for peer in self.ups:
            peer.lose()

    # Time

    @rule(times=st.integers(1, 3))
    def turn(self, times: int) -> None:
        """Let the loop turn."""
        self.broker.clock.turn(times)

    @rule(seconds=st.sampled_from([0.1, 1, 3, 25, 70]))
    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.broker.clock.advance(seconds)

    # What holds at all times

    @invariant()
    def nothing_escapes(self) -> None:
        """No callback raised into the loop."""
        assert self.broker.clock.escaped == []

    @invariant()
    def what_ended_is_over(self) -> None:
        """A publish ends with what the contract names, in an error of its own, and is not sent any more after that."""
        for publish in self.publishes:
            if publish.at_end is None:
                continue
            error = None if publish.future.cancelled() else publish.future.exception()
            assert error is None or isinstance(error, AMQPException)
            assert error is None or error.message_id == publish.message_id
            assert publish.at_end == (self.broker.sent[publish.message_id], repr(error))

    @invariant()
    def changes_are_told_one_after_the_other(self) -> None:
        """Each begins where the one before ended, the first where the client began, and none is missing."""
        state = State.IDLE
        for change in self.told:
            assert change.source is state
            state = change.dest

    @invariant()
    def the_limits_hold(self) -> None:
        """No more on the wire than max_unconfirmed, and no more in line than max_waiting and what is sent again."""
        assert self.client.unconfirmed <= self.window
        assert self.client.waiting <= 6 + (self.window if self.republish else 0)

    @invariant()
    def each_message_tells_the_truth(self) -> None:
        """Confirmed is what was acknowledged; not sent is what never came; each comes once, in its exchange's order."""
        came, acked = collections.Counter(self.broker.messages), self.broker.acked
        for publish in self.publishes:
            if not publish.future.done() or publish.future.cancelled():
                continue
            error = publish.future.exception()
            if error is None and self.confirms:
                assert publish.message_id in acked
            elif isinstance(error, NOT_SENT):
                assert came[publish.message_id] == 0
            elif isinstance(error, MessageNacked | MessageReturned):
                assert came[publish.message_id] >= 1
        if not self.republish:
            assert set(came.values()) <= {1}
            for exchange in {publish.exchange for publish in self.publishes}:
                # A question about one exchange holds up no other.
                published = [publish.message_id for publish in self.publishes if publish.exchange == exchange]
                came_of_it = [message_id for message_id in self.broker.messages if message_id in published]
                assert came_of_it == sorted(came_of_it, key=published.index)

    @invariant()
    def the_flags_agree_with_the_state(self) -> None:
        """The state that is asked by its name is the state."""
        client = self.client
        flags = [client.idle, client.connecting, client.ready, client.blocked, client.closing, client.closed]
        assert flags.index(True) + 1 == client.state
        assert flags.count(True) == 1
        assert client.closable is (client.ready or client.blocked)

    @invariant()
    def ready_is_a_channel_that_is_open(self) -> None:
        """On a connection that is up, and in confirm mode where confirms are used."""
        if self.client.ready and not self.broker.peer.lost:
            # A close that RabbitMQ has said may still be on its way.
            said_more = bool(self.broker.peer.outbox)
            assert self.broker.peer.accepted
            assert said_more or self.broker.peer.open_channels
            assert said_more or self.broker.peer.received or not self.confirms

    @invariant()
    def nothing_is_sent_while_rabbitmq_blocks(self) -> None:
        """Nor in any state but ready and draining: as long as the state lasts, no more is handed to the transport."""
        client = self.client
        sends = client.substate in {State.READY, Closing.DRAINING}
        now = None if sends else (len(client.history), client.substate, client.counters.published)
        if now is not None and self.held_back is not None and now[:2] == self.held_back[:2]:
            assert now == self.held_back
        self.held_back = now

    @invariant()
    def what_lasts_has_an_end(self) -> None:
        """Connecting, closing and waiting for the next attempt each have a limit, whatever the broker does."""
        client = self.client
        if client.connecting or client.closing or (client.closed and client.recovers):
            assert self.broker.clock.timers() or self.broker.clock.loop._ready

    # The end

    def teardown(self) -> None:
        """All is mended: what recovers gets ready; then all is shut down, every publish ended, and nothing is left."""
        if not hasattr(self, "broker"):
            return
        try:
            if self.mends:
                self._mend()
            if self.mends and self.client.recovers and not any(not task.done() for task in self.shutdowns):
                assert self.client.ready, self.client.condition
                assert self.told[-1].dest is State.READY
            self._end()
        finally:
            for task in asyncio.all_tasks(self.broker.clock.loop):
                task.cancel()
            self.broker.clock.turn()
            self.broker.close()

    def _mend(self) -> None:
        for _ in range(8):
            self.broker.open()
            for peer in self.ups:
                if peer.stalled:
                    peer.stall(stalled=False)
                for number in peer.received:
                    peer.say(number, spec.Channel.Flow(active=True))
                peer.confirm_all()
            self.broker.clock.advance(5)
        self.broker.open()

    def _end(self) -> None:
        self.broker.clock.run(self.client.shutdown(1))
        self.broker.clock.turn()
        client = self.client
        assert (client.closed, client.recovers, client.connection) == (True, False, None)
        assert (client.unconfirmed, client.waiting) == (0, 0)
        assert [publish for publish in self.publishes if publish.at_end is None] == []
        assert all(task.done() and task.exception() is None for task in self.shutdowns)
        assert self.broker.clock.timers() == []
        assert asyncio.all_tasks(self.broker.clock.loop) == set()
        self.nothing_escapes()
        self.each_message_tells_the_truth()
        self.what_ended_is_over()
        self.changes_are_told_one_after_the_other()
        assert tuple(self.told[-len(client.history) :]) == client.history
        assert self.told[-1].dest is State.CLOSED
        client.publish("", "q", b"late").exception()


TestExploration = Exploration.TestCase
TestExploration.settings = settings(
    max_examples=settings().max_examples,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
