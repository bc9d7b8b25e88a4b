"""The ways that a connection can go, which the kit gives to tests of applications."""

import pytest
from tornado.web import Application

from sprockets_amqp import Client, client_of, install
from sprockets_amqp.states import Connecting, State, Substate
from sprockets_amqp.testing import Broker, Path, paths
from sprockets_amqp.testing.paths import DOES

#: Where the first delay is none, nobody sees the state.
UNSEEN: dict[Substate, Substate] = {Connecting.RETRYING_CHANNEL: Connecting.OPENING_CHANNEL}


def test_together_they_take_every_step() -> None:
    """Each event that the broker or the application can cause, and each state that it leads to."""
    given = paths()
    turns = {(turn.words, turn.dest) for path in given for turn in path.turns}
    assert {words for words, _ in turns if not words.startswith("the clock")} == set(DOES)
    states = {type(dest) for _, dest in turns}
    assert len({dest for _, dest in turns}) >= 8
    assert len(states) == 4
    assert len(set(map(str, given))) == len(given) > 15


def test_none_is_the_beginning_of_another() -> None:
    """So none is followed twice."""
    turns = [path.turns for path in paths()]
    assert not [each for each in turns for other in turns if each != other and other[: len(each)] == each]


@pytest.mark.parametrize("path", paths(), ids=str)
def test_the_client_goes_the_way(amqp_broker: Broker, path: Path) -> None:
    """Unless a request comes between, it is in each state when the test gets it; and ready at the end."""
    application = Application([])
    install(application)
    client = client_of(application)
    way = path.follow(amqp_broker)
    assert (next(way), client.substate) == (State.READY, State.READY)
    for turn, state in zip(path.turns, way, strict=False):
        assert UNSEEN.get(client.substate, client.substate) is UNSEEN.get(turn.dest, turn.dest)
        assert state is client.state
    assert list(way) == [State.READY]
    assert client.ready


def test_it_must_be_known_whose_way_it_is(amqp_broker: Broker) -> None:
    """The client is found if there is one."""
    path = paths()[0]
    with pytest.raises(ValueError, match="must be one client to follow, or it must be given; there are 0"):
        next(path.follow(amqp_broker))
    clients = [Client("amqp://broker", io_loop=amqp_broker.clock.io_loop) for _ in range(2)]
    with pytest.raises(ValueError, match="there are 2"):
        next(path.follow(amqp_broker))
    assert next(path.follow(amqp_broker, clients[1])) is State.READY


def test_a_client_that_was_closed_is_connected_first(amqp_broker: Broker) -> None:
    """A path begins when it is ready."""
    client = Client("amqp://broker", io_loop=amqp_broker.clock.io_loop)
    amqp_broker.run(client.shutdown())
    assert next(paths()[0].follow(amqp_broker)) is State.READY


def test_a_client_that_does_not_become_ready_cannot_be_followed(amqp_broker: Broker) -> None:
    """Nothing would be tested."""
    amqp_broker.stop()
    client = Client("amqp://broker", io_loop=amqp_broker.clock.io_loop)
    with pytest.raises(TimeoutError, match=r"not ready within 300 s: connection is C"):
        next(paths()[0].follow(amqp_broker, client))


@pytest.mark.parametrize("path", paths()[::4], ids=str)
def test_rabbitmq_works_again_when_a_test_has_seen_enough(amqp_broker: Broker, path: Path) -> None:
    """Wherever it stops."""
    client = Client("amqp://broker", io_loop=amqp_broker.clock.io_loop)
    way = path.follow(amqp_broker)
    for _ in path.turns:
        next(way)
    way.close()  # type: ignore[attr-defined]
    if client.closable or client.recovers:
        amqp_broker.advance(120)
        assert client.ready
    assert amqp_broker.alarm == ""


def test_what_was_published_on_the_way_has_ended_at_its_end(amqp_broker: Broker, tmp_path: object) -> None:
    """What an outbox has stored, too."""
    client = Client("amqp://broker", io_loop=amqp_broker.clock.io_loop, outbox=str(tmp_path), timeout=0)
    amqp_broker.queue_declare("q")
    futures = [client.publish("", "q", b"") for _ in paths()[0].follow(amqp_broker)]
    assert all(each.done() for each in futures[:-1])
    assert len(amqp_broker.messages("q")) >= len(futures) - 1


async def test_a_coroutine_is_told_that_time_cannot_be_moved(amqp_broker: Broker) -> None:
    """Its loop is its own."""
    with pytest.raises(RuntimeError, match="the test runs on its own loop"):
        next(paths()[0].follow(amqp_broker))


def test_attempts_that_are_ignored_are_answered_later(amqp_broker: Broker) -> None:
    """As a firewall does that drops them; the attempt has its limit."""
    amqp_broker.ignore_attempts()
    client = Client("amqp://broker", io_loop=amqp_broker.clock.io_loop)
    amqp_broker.advance(1)
    assert client.substate is Connecting.OPENING_CONNECTION
    amqp_broker.ignore_attempts(ignored=False)
    amqp_broker.advance(1)
    assert client.ready
    amqp_broker.ignore_attempts()
    amqp_broker.cut()
    amqp_broker.advance(60)
    assert "no answer within" in " ".join(change.reason for change in client.history)
    amqp_broker.ignore_attempts()
    amqp_broker.ignore_attempts(ignored=False)
    amqp_broker.advance(60)
    assert client.ready
