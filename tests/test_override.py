"""An application that overrides or patches `Client.connect`, against a broker in memory."""

import asyncio
from typing import Any, ClassVar
from unittest import mock

import pytest

from sprockets_amqp import Client, ConnectionStateError
from tests.support.memory import Broker, in_memory

broker = in_memory


class Counting(Client):
    """Does something before it connects, as an application may: the class attribute says what."""

    calls = 0
    before: ClassVar[Any] = staticmethod(lambda: True)

    def connect(self) -> Any:
        """Count, and connect unless told otherwise."""
        self.calls += 1
        return super().connect() if self.before() else None


def made(broker: Broker, before: Any = lambda: True, attempts: int = 3) -> Counting:
    """Make such a client."""
    kind = type("Kind", (Counting,), {"before": staticmethod(before)})
    client: Counting = kind(
        "amqp://broker",
        io_loop=broker.clock.io_loop,
        connection_attempts=attempts,
        reconnect_delay=1,
        max_reconnect_delay=4,
    )
    broker.clients.append(client)
    return client


def test_each_attempt_goes_through_the_override(broker: Broker) -> None:
    """The first, those that follow a refusal, and those that follow a loss."""
    client = made(broker, attempts=1)
    assert (client.calls, client.idle) == (0, True)
    broker.clock.turn()
    assert (client.calls, len(broker.peers), client.connecting) == (1, 1, True)
    broker.peer.refuse()
    broker.clock.advance(1)
    assert (client.calls, len(broker.peers)) == (2, 2)
    broker.open()
    broker.peer.lose()
    broker.clock.advance(3)
    broker.open()
    assert (client.calls, len(broker.peers), client.ready) == (3, 3, True)


async def test_in_a_running_loop_the_constructor_connects() -> None:
    """As in version 3.0: a patched connect() was called when the client is there, and nothing was connected."""
    with mock.patch.object(Client, "connect") as connect:
        client = Client("amqp://guest:guest@127.0.0.1:1/")
        connect.assert_called_once_with()
        assert (client.idle, client.connection) == (True, None)
        await client.shutdown()


def test_a_patch_is_seen_by_a_client_that_was_made_before(broker: Broker) -> None:
    """The next attempt calls it."""
    client = broker.ready()
    with mock.patch.object(Client, "connect", autospec=True) as connect:
        broker.peer.lose()
        broker.clock.advance(1)
        connect.assert_called_once_with(client)
    assert client.closed


def test_connect_is_still_for_idle_and_closed(broker: Broker) -> None:
    """The override's call of the original raises where the application's would."""
    client = made(broker)
    broker.open()
    assert client.ready
    with pytest.raises(ConnectionStateError):
        client.connect()
    assert (client.ready, client.calls) == (True, 2)


@pytest.mark.parametrize("lost", [False, True], ids=["at first", "after a loss"])
@pytest.mark.parametrize("how", ["raises", "is cancelled", "does nothing"])
def test_an_override_that_does_not_connect_is_called_again(
    broker: Broker, how: str, lost: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """After each delay, and what it raised is logged; as soon as it connects, the client is ready."""
    failing = not lost

    def before() -> bool:
        if failing and how == "raises":
            raise OSError("no credentials yet")
        if failing and how == "is cancelled":
            raise asyncio.CancelledError
        return not failing

    client = made(broker, before)
    broker.open()
    if lost:
        failing = True
        broker.peer.lose()
    broker.clock.advance(20)
    count = client.calls
    assert count >= 5 + lost
    assert (client.closed, client.idle, len(broker.peers)) == (lost, not lost, int(lost))
    assert caplog.text.count("connect() did not connect: calling it again in ") == count - lost
    assert caplog.text.count("OSError: no credentials yet") == (count - lost if how == "raises" else 0)
    failing = False
    broker.clock.advance(4)
    broker.open()
    assert (client.ready, client.calls) == (True, count + 1)


def test_an_override_may_connect_and_raise(broker: Broker) -> None:
    """It connected: nothing is called again."""

    class Raising(Client):
        def connect(self) -> Any:
            super().connect()
            raise OSError("afterwards")

    client = Raising("amqp://broker", io_loop=broker.clock.io_loop)
    broker.clients.append(client)
    broker.open()
    assert client.ready
    broker.clock.advance(60)
    assert (client.ready, len(broker.peers)) == (True, 1)


def test_a_client_that_was_stopped_is_not_asked_to_connect(broker: Broker) -> None:
    """Neither when it was idle, nor when it waited for an override that did not connect."""
    client = made(broker, lambda: False)
    broker.clock.advance(3)
    broker.clock.run(client.shutdown(1))
    count = client.calls
    broker.clock.advance(60)
    assert (client.calls, client.closed) == (count, True)
