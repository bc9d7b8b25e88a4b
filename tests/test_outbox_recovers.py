"""An outbox whose disk fails and works again: what is sent in which order then, against a broker in memory."""

import pytest

from sprockets_amqp import STORED, NotReadyError
from sprockets_amqp.client import Client
from sprockets_amqp.outbox import model
from sprockets_amqp.states import Closed, Closing, Outbox
from tests.support.memory import Broker, in_memory, outcome
from tests.test_outbox import confirm, folder, publish, state
from tools.hand import Disk

broker = in_memory


def answer(broker: Broker, disk: Disk, *, works: bool = True) -> None:
    """Have the disk answer what it was asked, and fail if it does not work."""
    disk.unreadable = not works
    disk.answer()
    broker.clock.turn()
    disk.unreadable = False


def pausing(broker: Broker, disk: Disk, path: object) -> tuple[Client, object]:
    """Make a client that closes while RabbitMQ blocks, and whose disk fails; return it, and a publish that waits."""
    client = broker.ready(outbox=path)
    answer(broker, disk, works=False)
    broker.peer.stall(stalled=True)
    broker.peer.deliver()
    (waits,) = publish(client, "waits")
    client.close()
    assert (client.substate, state(client), client.waiting) == (Closing.PAUSED, Outbox.FAILING, 1)
    broker.clock.advance(1.5)
    return client, waits


def test_what_another_client_has_left_is_ahead_of_what_waits(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the disk had failed before it was found, and also of a client that is closing."""
    disk = Disk()
    monkeypatch.setattr(model, "store_in", lambda *_: disk)
    with folder() as path:
        client, waits = pausing(broker, disk, path)
        disk.fill()
        answer(broker, disk)
        assert (state(client), client.waiting) == (Outbox.HOLDING, 0)
        assert waits.result() == STORED  # type: ignore[attr-defined]
        disk.let_go()


def test_of_a_client_that_is_closing_nothing_is_refused_for_want_of_a_disk(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is found on a disk that cannot be written to is for the next client; what waits may still go out."""
    disk = Disk()
    monkeypatch.setattr(model, "store_in", lambda *_: disk)
    with folder() as path:
        client, _ = pausing(broker, disk, path)
        disk.fill()
        disk.unwritable = True
        answer(broker, disk)
        assert (state(client), client.waiting) == (Outbox.FAILING, 1)
        broker.peer.stall(stalled=False)
        confirm(broker)
        assert broker.messages == ["waits"]
        disk.let_go()


def test_a_silent_disk_refuses_nothing_that_nothing_stored_is_ahead_of(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was given waits no longer, and what waited for it to open goes out."""
    disk = Disk()
    monkeypatch.setattr(model, "store_in", lambda *_: disk)
    with folder() as path:
        client = broker.ready(outbox=path)
        (late,) = publish(client, "late", timeout=1)
        broker.clock.advance(2)
        (waits,) = publish(client, "waits", timeout=60)
        assert (state(client), late.done(), client.waiting) == (Outbox.OPENING, False, 1)
        broker.clock.advance(8.5)
        assert (state(client), outcome(late), broker.messages) == (Outbox.FAILING, NotReadyError, ["waits"])
        confirm(broker)
        assert waits.result() is None
        disk.let_go()


def test_a_shutdown_ends_when_the_client_is_started_again(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for a disk that is open again, nor does its limit close that disk later."""
    disk = Disk()
    monkeypatch.setattr(model, "store_in", lambda *_: disk)
    with folder() as path:
        client = broker.ready(outbox=path)
        answer(broker, disk)
        ending = broker.clock.loop.create_task(client.shutdown(30))
        broker.clock.turn()
        broker.peer.lose()
        broker.clock.turn(5)
        assert (client.substate, state(client), ending.done()) == (Closed.STOPPED, Outbox.FINISHING, False)
        client.connect()
        broker.clock.turn(5)
        assert (state(client), ending.done()) == (Outbox.OPENING, True)
        disk.let_go()
