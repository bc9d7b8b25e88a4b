"""The ways that a connection can go, for tests: each is generated from the declaration, and followed on the broker."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from sprockets_amqp.client import Client
from sprockets_amqp.errors import ConnectionStateError
from sprockets_amqp.proof.explore import Edge, Graph, explore
from sprockets_amqp.proof.paths import Leg, Map, search
from sprockets_amqp.proof.reaction import Reactions
from sprockets_amqp.states import Connecting, State, Substate
from sprockets_amqp.states.world import World

from .broker import Broker

#: Seconds that each of the broker's frames takes, so that a connection is seen being opened.
SLOW: Final = 0.01
#: Seconds within which what a step leads to is reached, if requests do not come between.
PATIENCE: Final = 300.0


def _block(broker: Broker, _client: Client) -> None:
    broker.block()
    for peer in broker.connections:
        # As if each had just published something.
        peer.stall(stalled=True, reason=broker.alarm)


def _cut(broker: Broker, _client: Client) -> None:
    # Nobody answers the next attempt before the path says how.
    broker.ignore_attempts()
    broker.cut()


def _answer(broker: Broker, *, up: bool, logs_in: bool = True) -> None:
    """Answer the attempt that waits, and none after it."""
    broker.refuse_password(refused=not logs_in)
    broker.start() if up else broker.stop()
    broker.ignore_attempts(ignored=False)
    broker.ignore_attempts()


#: What the broker or the application does for each event, by its words.
DOES: Final[dict[str, Callable[[Broker, Client], object]]] = {
    "the application connects": lambda _, client: client.connect(),
    "the application closes": lambda _, client: client.close(),
    "the connection is lost": _cut,
    "the node is not reached": lambda broker, _: _answer(broker, up=False),
    "RabbitMQ refuses the login": lambda broker, _: _answer(broker, up=True, logs_in=False),
    "RabbitMQ accepts the connection": lambda broker, _: _answer(broker, up=True),
    "RabbitMQ opens the channel": lambda *_: None,
    "RabbitMQ closes the channel": lambda broker, _: broker.close_channel(),
    "RabbitMQ blocks publishing": _block,
    "RabbitMQ blocks no longer": lambda broker, _: broker.unblock(),
    "RabbitMQ answers that the connection is closed": lambda *_: None,
}


class Turn(NamedTuple):
    """What happens, in words, and the state of the connection that it leads to."""

    words: str
    dest: Substate


class Path(NamedTuple):
    """One way that the connection of a client can go, beginning when it is ready.

    Attributes:
        turns: what happens, in order.
    """

    turns: tuple[Turn, ...]

    def __str__(self) -> str:
        return ", ".join("a delay" if turn.words.startswith("the clock") else turn.words for turn in self.turns)

    def follow(self, broker: Broker, client: Client | None = None) -> Iterator[State]:
        """Have it happen to a client, and yield the client's state each time, the first time when it is ready.

        What the test does then, such as a request, is part of the test. Time may pass meanwhile, and the client go on
        by itself: what the path says happens all the same. At the end RabbitMQ works, the client is ready, and what it
        has published has ended.

        Args:
            broker: the fixture ``amqp_broker``.
            client: whose connection it is; None: the only one there is.

        Raises:
            ValueError: there is no client, or more than one.
            RuntimeError: the test is a coroutine, or has a loop of its own: the broker cannot move its time.
            TimeoutError: the client does not become ready at the beginning, or at the end.
        """
        loop = broker.clock.loop
        clients = [client] if client is not None else Client.bound(loop)
        if len(clients) != 1:
            raise ValueError(f"there must be one client to follow, or it must be given; there are {len(clients)}")
        (client,) = clients
        delay, broker.delay = broker.delay, SLOW
        try:
            _become_ready(broker, client)
            yield client.state
            for turn in self.turns:
                # A request that came between may have left the application nothing to close or to connect.
                with contextlib.suppress(ConnectionStateError):
                    DOES.get(turn.words, _nothing)(broker, client)
                _wait(broker, lambda dest=turn.dest: client.substate in _LASTS.get(dest, (dest,)))  # type: ignore[misc]
                yield client.state
        finally:
            broker.delay = delay
            broker.refuse_password(refused=False)
            broker.start()
            broker.ignore_attempts(ignored=False)
            broker.unblock()
        _wait(broker, lambda: not client.closing)
        _become_ready(broker, client)
        broker.run(client.flush())
        yield client.state


#: Where the first delay is none, the next state is reached at once.
_LASTS: Final = {Connecting.RETRYING_CHANNEL: (Connecting.RETRYING_CHANNEL, Connecting.OPENING_CHANNEL)}


def _become_ready(broker: Broker, client: Client) -> None:
    if client.closed and not client.recovers:
        client.connect()
    _wait(broker, lambda: client.ready)
    if not client.ready:
        raise TimeoutError(f"not ready within {PATIENCE:g} s: {client.condition}")


def _nothing(_broker: Broker, _client: Client) -> None:
    """The clock does what remains."""


def _wait(broker: Broker, reached: Callable[[], bool]) -> None:
    """Let time pass until something is reached; or for as long as it may take, if requests have changed the way."""
    clock = broker.clock
    end = clock.now + PATIENCE
    clock.turn()
    while not reached() and clock.now < end and (timers := clock.timers()):
        clock.advance(max(0.0, timers[0].when() - clock.now))


def paths() -> list[Path]:
    """Return every way that a connection can go while nothing is on the wire.

    Together they take each step that RabbitMQ and the network can cause, and closing and connecting again.

    >>> @pytest.mark.parametrize("path", paths(), ids=str)
    ... def test_no_event_is_lost(amqp_broker, application, path):
    ...     for state in path.follow(amqp_broker):
    ...         ...
    """
    graph = _explored()
    legs = Map(graph, _is_plain).legs
    ready = next(number for number, world in enumerate(graph.worlds) if world.connection is State.READY)
    found: list[tuple[Turn, ...]] = []
    for way, back in search(ready, lambda number: [(leg, (), leg.dest) for leg in legs(number)]):
        turns = tuple(_turn(graph, leg) for leg, _, _ in (*back(), way))
        # The way here need not be gone by itself.
        found = [each for each in found if turns[: len(each)] != each]
        found.append(turns)
    return [Path(turns) for turns in found]


def _explored() -> Graph:
    """Explore what the broker can cause of a client without an outbox, checks and credentials that expire."""
    reactions = Reactions()
    begins = [world for world in reactions.beginnings() if not world.given]
    timed = {"connection.node_due", "connection.channel_due", "connection.connect"}
    return explore(
        reactions,
        begins,
        lambda event: event.words in DOES or event.kind == "soon" or (event.kind == "delay" and event.learns in timed),
    )


def _is_plain(world: World, edge: Edge) -> bool:
    """Return whether a client takes a step whose URL is a string, and that has no `setup`; and whether it leads on."""
    answers = {guard for guard, yes in edge.step.assumed if yes}
    # RabbitMQ reads nothing on a connection that it blocks with an alarm.
    is_read = not world.blocks or edge.step.event.words != "RabbitMQ opens the channel"
    return is_read and edge.step.world != world and not answers & {"calls", "sets_up", "retries_node"}


def _turn(graph: Graph, leg: Leg) -> Turn:
    return Turn(leg.edge.step.event.words, graph.worlds[leg.dest].connection)
