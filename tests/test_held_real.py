"""The client is held to the declaration on a real RabbitMQ: the shortest way to each row, as it is declared.

What RabbitMQ says arrives frame by frame. Little is said in its place: an alarm and a stopped flow, and that it knows
no transactions or allows no second channel, which no RabbitMQ that others use can be made to say.
"""

import asyncio
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Final, cast

import pytest
from pika import spec
from tornado.ioloop import IOLoop

from sprockets_amqp.connection.attempts import Backoff
from sprockets_amqp.outbox import model
from sprockets_amqp.proof.explore import Graph
from sprockets_amqp.proof.paths import Leg, Map, Way
from sprockets_amqp.states import CONNECTION, MACHINES, Closing, Connecting
from sprockets_amqp.states.world import World
from tests.support.frames import Frames, Line, channel_of, is_close
from tools import held
from tools.hand import LONG, PLACES, Hand
from tools.rabbitmq import Node

#: Steps of a way: a failure is read by people.
LONGEST: Final = 60
#: Seconds within which RabbitMQ has answered, on a busy machine.
PATIENCE: Final = 20.0


class RealBroker:
    """What a hand needs of a broker, on a real loop and a real RabbitMQ."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.loop = asyncio.new_event_loop()
        self.frames = Frames(self.loop, node.port)
        self.clock = self
        self.escaped: list[Any] = []
        self.loop.set_exception_handler(lambda _loop, context: self.escaped.append(context))
        self.channel_error: Exception | None = None
        self._turns_left = 0
        self._logs_in = True

    @property
    def peer(self) -> Line:
        """The last connection."""
        self.wait(lambda: bool(self.frames.lines))
        return self.frames.lines[-1]

    def turn(self, times: int = 20) -> None:
        """Let the loop run what is due."""
        for _ in range(times):
            self.loop.run_until_complete(asyncio.sleep(0))

    def wait(self, reached: Callable[[], bool]) -> None:
        """Let the loop run until something is so."""

        async def look() -> None:
            async with asyncio.timeout(PATIENCE):
                while not reached():
                    await asyncio.sleep(0.002)

        self.loop.run_until_complete(look())

    def client(self, url: Any, **settings: Any) -> Any:
        """Make a client whose delays nobody waits for."""
        from sprockets_amqp import Client  # noqa: PLC0415

        settings |= {"reconnect_delay": LONG, "max_reconnect_delay": LONG}
        client = Client(url, io_loop=IOLoop(make_current=False, asyncio_loop=self.loop), **settings)
        link: Any = client._runtime.link
        opens, broker = link.open_connection, self

        def open_connection(parameters: Any) -> None:
            opens(parameters)
            channel = link.connection.channel

            def open_channel(*args: Any, **more: Any) -> Any:
                if broker.channel_error is not None:
                    raise broker.channel_error
                return channel(*args, **more)

            link.connection.channel = open_channel

        link.open_connection = open_connection
        return client

    def watch(self, client: Any) -> list[tuple[str, str, str]]:
        """Return the changes from now on."""
        told: list[tuple[str, str, str]] = []
        client.subscribe(lambda change: told.append((change.source.name, change.trigger, change.dest.name)))
        return told

    def close(self) -> None:
        """Leave nothing."""
        self.loop.run_until_complete(self.frames.close())
        self.turn()
        self.loop.close()


class RealHand(Hand):
    """Has RabbitMQ do what a step says."""

    broker: RealBroker

    def __init__(self, node: Node, **settings: bool) -> None:
        super().__init__(**settings, broker=RealBroker(node))
        self.runtime.lifecycle.attempts._channels = Backoff(LONG, LONG)

    def url(self, user: str = "guest") -> str:
        """Return the URL, by way of what holds frames back."""
        return f"amqp://{user}:guest@127.0.0.1:{self.broker.frames.port}/%2f?heartbeat=0&retry_delay=1000"

    def _arrive(self, channel: int, *, last: bool = False) -> None:
        """Let what RabbitMQ says next on a channel arrive."""
        peer = self.broker.peer
        self.broker.wait(lambda: self._has_said(channel))
        frames = [each for each in peer.outbox if channel_of(each) == channel]
        held = [each for each in peer.outbox if channel_of(each) != channel]
        peer.outbox = frames
        peer.deliver()
        peer.outbox = held + peer.outbox
        self.turn()

    def _until(self, channel: Callable[[], int], reached: Callable[[], bool]) -> None:
        """Let frames arrive on a channel until something is so."""
        while not reached():
            self.broker.wait(lambda: reached() or self._has_said(channel()))
            if not reached():
                self._arrive(channel())
                self.broker.turn()

    def _has_said(self, channel: int) -> bool:
        return any(channel_of(each) == channel for each in self.broker.frames.lines[-1].outbox)

    def _state(self) -> Any:
        return self.runtime.lifecycle.state

    def _shake_hands(self) -> None:
        lines = self.broker.frames.lines
        self.broker.wait(lambda: bool(lines) and not lines[-1].lost)
        self._until(lambda: 0, lambda: self._state() is not Connecting.OPENING_CONNECTION)

    def refuse(self) -> None:
        """Cut the line before RabbitMQ has said anything."""
        lines = self.broker.frames.lines
        self.broker.wait(lambda: bool(lines) and not lines[-1].lost)
        lines[-1].lose()

    def refuse_login(self) -> None:
        """Have RabbitMQ refuse the password, which is another meanwhile."""
        self._ctl("change_password", "guest", "another")
        try:
            self._shake_hands()
        finally:
            # Other tests use the node, too.
            self._ctl("change_password", "guest", "guest")

    def _ctl(self, *arguments: str) -> None:
        asyncio.run(self.broker.node.ctl(*arguments))

    def open_channel(self) -> None:
        """Let RabbitMQ open the channel."""
        self._until(lambda: self._channel, lambda: self._state() is not Connecting.OPENING_CHANNEL)

    def leave_channel(self) -> None:
        """Let RabbitMQ answer channel.close."""
        self._until(lambda: self._channel, lambda: self._state() is not Connecting.CLOSING_CHANNEL)

    def say_goodbye(self) -> None:
        """Let RabbitMQ answer connection.close, and what comes before."""
        lifecycle, peer = self.runtime.lifecycle, self.broker.peer
        while lifecycle.state is Closing.CLOSING_CONNECTION:
            self.broker.wait(lambda: bool(peer.outbox) or lifecycle.state is not Closing.CLOSING_CONNECTION)
            peer.deliver()
            self.broker.turn()

    def _close_channel(self, code: int, *, expired: bool) -> None:
        """Publish what makes RabbitMQ close the channel: to no exchange, or to one that is RabbitMQ's own."""
        self._set_expired(expired)
        channel = self.runtime.link.channel
        assert channel is not None
        number = self._channel
        if channel.is_open and self._state() is not Connecting.OPENING_CHANNEL:
            type(channel).basic_publish(channel, "amq.rabbitmq.trace" if expired else "missing", "q", b"")
            self._arrive_closed(number)
        else:
            self.broker.peer.close_channel(number)
            self._say(number, spec.Channel.Close(code, "closed by hand", 60, 40))
        for publish in self.runtime.publisher.line.in_order():
            publish.blamed = 0

    def _arrive_closed(self, number: int) -> None:
        """Let it arrive that RabbitMQ has closed a channel; what it said there before is lost."""
        peer = self.broker.peer
        self.broker.wait(lambda: any(is_close(each, number) for each in peer.outbox))
        held = [each for each in peer.outbox if channel_of(each) != number]
        peer.outbox = [each for each in peer.outbox if is_close(each, number)]
        peer.deliver()
        peer.outbox = held + peer.outbox
        channels = {self.runtime.link.channel, self.runtime.check._channel}
        self.broker.wait(lambda: channels != {self.runtime.link.channel, self.runtime.check._channel})

    def confirm(self) -> None:
        """Let RabbitMQ's confirm arrive."""
        self._until(lambda: self._channel, lambda: self.client.unconfirmed == 0)

    def answer_check(self) -> None:
        """Let RabbitMQ's answer arrive."""
        state = self.runtime.check.state
        self._until(lambda: self._lane, lambda: self.runtime.check.state is not state)

    def close_lane(self, code: int) -> None:
        """Close the channel for checks: RabbitMQ does, if a message is sent to no exchange."""
        channel, number = self.runtime.check._channel, self._lane
        assert channel is not None
        if channel.is_open and code == 404:
            type(channel).basic_publish(channel, "missing", "q", b"")
            self._arrive_closed(number)
        else:
            self.broker.peer.close_channel(number)
            self._say(number, spec.Channel.Close(code, "closed by hand", 60, 40))

    def close_old_lane(self) -> None:
        """Let the answer to channel.close arrive."""
        check = self.runtime.check
        old = check._old
        assert old is not None
        self._until(lambda: int(old.channel_number), lambda: check._old is not old)


def shortest_ways(part: held.Part, settings: held.Settings, rows: set[int]) -> Iterator[tuple[Graph, list[Leg]]]:
    """Yield the shortest ways that together use each row that a client with these settings can use."""
    graph = held.explored(part)

    def is_real(world: World, edge: Any) -> bool:
        # A node that is there is reached: see the test below.
        reached = edge.step.event.words != "the node is not reached" and ("retries_node", True) not in edge.step.assumed
        return reached and settings.allow(world, edge)

    ways = Map(graph, is_real)
    start = held.begins(graph)[settings.given]

    def places(number: int) -> list[Way[int]]:
        return [(leg, {id(row) for step in leg.steps for _, row in step.rows}, leg.dest) for leg in ways.legs(number)]

    while rows:
        left = len(rows)
        way = []
        for leg in held.walk(start, cast("set[Hashable]", rows), places):
            way.append(leg)
            if len(way) > LONGEST:
                break
        if len(rows) == left:
            return
        yield graph, way


#: The exchange that paths publish to, as RabbitMQ names it.
NAME: Final = '{resource,<<"/">>,exchange,<<"exchange">>}'

CLIENTS: Final = (
    (held.PARTS[0], held.Settings(sets_up=False, given=False, republishes=True)),
    (held.PARTS[0], held.Settings(sets_up=True, given=False, republishes=True)),
    (held.PARTS[1], held.Settings(sets_up=False, given=True, republishes=True)),
)


@pytest.fixture
def _exchange(broker: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What paths publish to is there; nobody waits for a disk."""
    monkeypatch.setattr(model, "RETRY_DELAY", LONG)
    asyncio.run(broker.ctl("eval", f'rabbit_exchange:declare({NAME}, direct, false, false, false, [], <<"test">>).'))
    yield
    asyncio.run(broker.ctl("eval", f'rabbit_exchange:delete({NAME}, false, <<"test">>).'))


@pytest.mark.usefixtures("_exchange")
def test_every_row_is_used_on_a_real_rabbitmq(broker: Node) -> None:
    """Each step leads to the states, the timers and the outcome of a publish that are declared."""
    rows = {id(row) for machine in MACHINES for row in machine.rows}
    for part, settings in CLIENTS:
        for graph, way in shortest_ways(part, settings, rows):
            take(RealHand(broker, **settings._asdict()), graph, way)
    assert {(row.trigger, row.dest) for row in CONNECTION.rows if id(row) in rows} == UNREACHED
    assert len(rows) == len(UNREACHED)


#: The rows of a node that cannot be reached: no RabbitMQ is there.
UNREACHED: Final = {
    ("connection_failed", Connecting.RETRYING_NODE),
    ("node_due", Connecting.OPENING_CONNECTION),
}


def test_a_node_that_is_not_reached_is_tried_again(broker: Node) -> None:
    """Nothing listens there; the states between are seen in the order in which they are declared."""
    hand = RealHand(broker, sets_up=False, given=False, republishes=False)
    try:
        hand.broker.frames.refuse()
        seen: list[Any] = []
        lifecycle: Any = hand.runtime.lifecycle
        announce = lifecycle.announce_change
        lifecycle.announce_change = lambda event: (seen.append((event.event.name, lifecycle.state)), announce(event))
        lifecycle.attempts._due = False
        hand.client.connect()
        for _ in range(2):
            hand.broker.wait(lambda: lifecycle.state is Connecting.RETRYING_NODE)
            hand._expire("connection", Connecting.RETRYING_NODE, spent=True)
            assert lifecycle.state is Connecting.OPENING_CONNECTION
        assert set(seen) > UNREACHED
    finally:
        hand.close()


def take(hand: RealHand, graph: Graph, way: list[Leg]) -> None:
    """Go one way."""
    done: list[str] = []
    try:
        for leg in way:
            before, after = graph.worlds[leg.source], graph.worlds[leg.dest]
            done.append(str(leg.edge.timer or leg.edge.step.event.words))
            hand.take(before, leg.edge)
            expected = tuple(getattr(after, name) for name in held.NAMES)
            hand.broker.wait(lambda expected=expected: hand.states() == expected)  # type: ignore[misc]
            assert hand.timers() == graph.reactions.timers(after)
            assert hand.client.publish_outcome == after.outcome
            assert (hand.client.waiting, hand.client.unconfirmed) == PLACES[after.publish]
        assert hand.broker.escaped == []
    except BaseException as error:
        error.add_note(f"after {done[-12:]}: {hand.states()}, {hand.client.condition}")
        raise
    finally:
        hand.disk.let_go()
        hand.close()
