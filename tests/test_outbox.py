"""The outbox: what is stored, in which order it is sent, and what becomes of it; against a broker in memory."""

import asyncio
import contextlib
import re
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pika import spec

from sprockets_amqp import (
    STORED,
    Delivery,
    ExchangeRefused,
    InvalidMessage,
    MessageNacked,
    MessageReturned,
    NotReadyError,
    Outcome,
    OutcomeUnknown,
    Publish,
)
from sprockets_amqp.client import Client
from sprockets_amqp.outbox.sqlite.file import OutboxFile
from sprockets_amqp.outbox.stock import LOAD
from sprockets_amqp.outbox.store import unpack
from sprockets_amqp.settings import Settings
from sprockets_amqp.states import CONNECTION, Connecting, Outbox, Place, State
from sprockets_amqp.web import status
from tests.support.memory import Broker, in_memory, outcome
from tests.support.observing import Seen
from tests.test_substates import enter, never
from tools.memory import Disk

broker = in_memory


@contextmanager
def folder() -> Iterator[Path]:
    """A folder of the test's own: the behaviours are called without pytest's fixtures, too."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def state(client: Client) -> Outbox:
    """Return what the outbox does with a message now."""
    return client._runtime.outbox.state


def publish(client: Client, *names: str, **options: Any) -> list[Any]:
    """Publish messages of these names."""
    futures = [client.publish("", "q", name.encode(), {"message_id": name}, **options) for name in names]
    for each in futures:
        each.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return futures


def lose(broker: Broker) -> None:
    """Have the connection lost, and no other made."""
    broker.peer.lose()
    broker.clock.turn()


def confirm(broker: Broker) -> None:
    """Open what wants to be open, and confirm everything until nothing is left."""
    for _ in range(6):
        broker.open()
        broker.every(lambda peer: peer.confirm_all())
        broker.open()


def stop(broker: Broker, client: Client) -> None:
    """Shut a client down, and let RabbitMQ answer."""
    task = broker.clock.loop.create_task(client.shutdown(2))
    for _ in range(60):
        broker.open()
        broker.clock.advance(0.05)
    task.result()


def test_what_waited_too_long_is_stored_and_sent_when_the_client_is_ready(broker: Broker) -> None:
    """It ends with STORED instead of NotReadyError, and what waited before it is stored with it."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=60)
        broker.clock.turn()
        first, second, third = (
            publish(client, "first") + publish(client, "second", timeout=1) + publish(client, "third")
        )
        broker.clock.advance(2)
        assert [each.result() for each in (first, second, third)] == [STORED] * 3
        assert (client.counters.stored, client.waiting, client.counters.failed) == (3, 0, 0)
        confirm(broker)
        assert broker.messages == ["first", "second", "third"]
        assert (client.counters.stored, state(client)) == (0, Outbox.CLEAR)


def test_observers_are_told_what_became_of_a_stored_message(broker: Broker) -> None:
    """Apart from the end of its publish, and by the client that sends it; one that wants no word gets none."""
    with folder() as path:
        first = broker.client(outbox=path, timeout=0)
        before = Seen().of(first)
        broker.clock.turn()
        publish(first, "first")
        first.publish("missing", "q", b"12345", {"message_id": "second"})
        broker.clock.advance(1)
        assert (before.outcomes, before.deliveries) == ([Outcome.STORED] * 2, [])
        stop(broker, first)

        client = broker.client(outbox=path, timeout=0)
        seen = Seen().of(client)
        client.observe(Deaf())
        confirm(broker)
        assert (before.deliveries, seen.ends) == ([], [])
        delivered, refused = sorted(seen.deliveries, key=lambda each: each.outcome)
        assert delivered == Delivery(Outcome.CONFIRMED, None, "", "q", "first", 5, delivered.seconds_to_confirm)
        assert delivered.seconds_to_confirm is not None
        assert isinstance(refused.error, ExchangeRefused) and refused.error.message_id == "second"
        assert refused == Delivery(Outcome.REFUSED, refused.error, "missing", "q", "second", 5, None)


def test_observers_are_told_how_a_publish_went_that_rabbitmq_confirmed_before_the_disk(broker: Broker) -> None:
    """It was sent once, and confirmed after the time that this took."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        seen = Seen().of(client)
        broker.clock.turn()
        Disk.waiting = waiting = list[Any]()
        (confirmed,) = publish(client, "confirmed")
        broker.open()
        broker.clock.advance(0.5)
        broker.peer.confirm_all()
        broker.open()
        (end,) = seen.ends
        assert (confirmed.result(), end.outcome, end.sends) == (None, Outcome.CONFIRMED, 1)
        assert end.seconds_to_confirm is not None and 0.4 < end.seconds_to_confirm < 0.6
        Disk.waiting = None
        work(waiting)


class Deaf:
    """An observer that wants to know of no delivery."""

    delivered = None

    def publishing(self, publish: Publish) -> None:
        """Want to know of no end, either."""


def test_while_something_is_stored_the_outbox_is_the_line(broker: Broker) -> None:
    """What is published behind it is stored, too, even while the client is ready; then it goes out again."""
    with folder() as path:
        client = broker.ready(outbox=path, timeout=0.5, max_unconfirmed=1)
        lose(broker)
        (stored,) = publish(client, "stored")
        broker.clock.advance(0.6)
        assert stored.result() == STORED
        assert client.publish_outcome == "is stored"
        broker.clock.advance(1)
        broker.open()
        assert client.ready
        # The first is on the wire, and there is room for no more.
        assert broker.messages == ["stored"]
        behind = publish(client, "behind", "it")
        broker.clock.turn()
        assert state(client) is Outbox.CLEAR
        confirm(broker)
        assert broker.messages == ["stored", "behind", "it"]
        assert [each.result() for each in behind] == [None, None]


def test_a_publish_is_stored_in_a_persistent_outage(broker: Broker) -> None:
    """Nobody waits then: it is on the disk at once, and goes out in the order of the calls."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=1)
        broker.clock.advance(2)
        assert client.publish_outcome == "is stored"
        stored = publish(client, *"abcdef")
        broker.clock.turn()
        assert [each.result() for each in stored] == [STORED] * 6
        confirm(broker)
        assert broker.messages == list("abcdef")


def test_what_was_lost_is_stored_and_sent_before_what_came_later(broker: Broker) -> None:
    """The lost message keeps its place: it is sent again first, with its id."""
    with folder() as path:
        client = broker.ready(outbox=path, timeout=0.5)
        (lost,) = publish(client, "lost")
        broker.clock.turn()
        lose(broker)
        (later,) = publish(client, "later")
        broker.clock.advance(0.7)
        assert (lost.result(), later.result()) == (STORED, STORED)
        broker.clock.advance(1)
        confirm(broker)
        assert broker.messages == ["lost", "lost", "later"]


def test_what_is_stored_survives_the_client(broker: Broker) -> None:
    """The next client of that name sends it first; one of another name leaves it alone."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        stored = publish(client, "first", "second")
        broker.clock.turn()
        assert [each.result() for each in stored] == [STORED] * 2
        stop(broker, client)
        other = broker.ready(outbox=path, name="audit")
        assert other.counters.stored == 0
        again = broker.client(outbox=path)
        broker.clock.turn()
        (third,) = publish(again, "third")
        confirm(broker)
        assert broker.messages == ["first", "second", "third"]
        assert third.result() == STORED or third.result() is None
        stop(broker, again)
        stop(broker, other)
        assert list(path.iterdir()) == []


def test_a_clock_that_jumps_changes_no_order(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a client's life or between two: the time is stored for people alone."""
    with folder() as path:
        for year, life in (40, "ab"), (10, "cd"), (50, "ef"):
            client = broker.client(outbox=path, timeout=0)
            broker.clock.turn()
            for back, name in enumerate(life):
                monkeypatch.setattr("time.time", lambda now=3e7 * (year - 3 * back): now)
                publish(client, name)
                broker.clock.turn()
            stop(broker, client)
        monkeypatch.undo()
        with sqlite3.connect(path / "amqp.1.outbox") as connection:
            times = [unpack(each)[0] for (each,) in connection.execute("SELECT message FROM messages ORDER BY number")]
        connection.close()
        assert times == [3e7 * year for year in (40, 37, 10, 7, 50, 47)]
        broker.client(outbox=path)
        confirm(broker)
        assert broker.messages == list("abcdef")


def test_a_file_whose_client_is_gone_is_taken_over_within_a_minute(broker: Broker) -> None:
    """Of two clients of one name each has a file; when one is gone, the other sends what it left."""
    with folder() as path:
        one = broker.ready(outbox=path, timeout=0)
        two = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        publish(two, "left")
        broker.clock.turn()
        stop(broker, two)
        assert one.counters.stored == 0
        broker.every(lambda peer: peer.say(0, spec.Connection.Blocked("low on memory")))
        broker.open()
        broker.clock.advance(61)
        assert (one.counters.stored, state(one)) == (1, Outbox.HOLDING)
        broker.every(lambda peer: peer.say(0, spec.Connection.Unblocked()))
        confirm(broker)
        assert broker.messages == ["left"]
        assert [each.name for each in path.glob("*.outbox")] == ["amqp.1.outbox"]


def test_a_late_ack_deletes_what_ran_into_confirm_timeout(broker: Broker) -> None:
    """It is not sent again while its channel lives."""
    with folder() as path:
        client = broker.ready(outbox=path, confirm_timeout=5)
        (late,) = publish(client, "late")
        broker.clock.advance(6)
        assert (late.result(), client.counters.stored) == (STORED, 1)
        assert client.publish_outcome == "goes out"
        confirm(broker)
        assert (broker.messages, client.counters.stored) == (["late"], 0)


def test_what_ran_into_confirm_timeout_is_sent_again_when_its_channel_is_gone(broker: Broker) -> None:
    """It is on the disk by then, and comes first."""
    with folder() as path:
        client = broker.ready(outbox=path, confirm_timeout=5)
        publish(client, "late")
        broker.clock.advance(6)
        lose(broker)
        assert state(client) is Outbox.HOLDING
        broker.clock.advance(1)
        confirm(broker)
        assert (broker.messages, client.counters.stored) == (["late", "late"], 0)


def test_a_stored_message_that_runs_into_confirm_timeout_is_not_sent_again_on_its_channel(broker: Broker) -> None:
    """RabbitMQ may confirm it yet; when its channel is gone, it is sent again."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0, confirm_timeout=5)
        broker.clock.turn()
        publish(client, "acked", "lost")
        broker.open()
        broker.clock.advance(12)
        (behind,) = publish(client, "behind")
        broker.clock.turn()
        assert (broker.messages, client.counters.stored) == (["acked", "lost", "behind"], 2)
        broker.peer.confirm(1)
        broker.open()
        assert client.counters.stored == 1
        lose(broker)
        broker.clock.advance(1)
        confirm(broker)
        assert broker.messages == ["acked", "lost", "behind", "lost", "behind"]
        assert (behind.result(), client.counters.stored) == (STORED, 0)


def test_the_page_and_the_probes_tell_of_the_outbox(broker: Broker) -> None:
    """Ready while publishes are stored; when nothing can be, the page says why."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=1, outbox_limit=300)
        broker.clock.turn()
        assert status.describe(client)["ready"] is False
        broker.clock.advance(2)
        publish(client, "stored")
        assert status.describe(client)["ready"] is True
        assert status.describe(client)["counters"]["stored"] == 1
        publish(client, "full")
        broker.clock.turn()
        told = status.snapshot(client)
        assert (told["ready"], "outbox cannot store anything: it takes 204 octets" in told["publish"]) == (
            False,
            True,
        )


def test_what_rabbitmq_says_of_the_message_is_told(broker: Broker) -> None:
    """A bad message, a nack: nothing of that is stored."""
    with folder() as path:
        client = broker.ready(outbox=path)
        bad = client.publish("", "q", b"", {"priority": 300})
        (nacked,) = publish(client, "nacked")
        broker.clock.turn()
        broker.peer.confirm(1, nack=True)
        broker.open()
        assert (outcome(bad), outcome(nacked)) == (InvalidMessage, MessageNacked)
        assert client.counters.stored == 0


def test_a_stored_message_that_is_refused_is_set_aside(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """It holds up nothing, keeps RabbitMQ's words, and is logged once."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        client.publish("missing", "q", b"", {"message_id": "refused"})
        publish(client, "good")
        confirm(broker)
        assert broker.messages == ["good"]
        assert (client.counters.stored, client.counters.set_aside) == (0, 1)
        assert caplog.text.count("message refused is set aside in the outbox") == 1
        stop(broker, client)
        with sqlite3.connect(path / "amqp.1.outbox") as connection:
            ((words,),) = connection.execute("SELECT set_aside FROM messages")
        connection.close()
        assert "404" in words


def test_what_is_set_aside_counts_so_before_the_disk_knows(broker: Broker) -> None:
    """And is not sent again meanwhile."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        client.publish("missing", "q", b"", {"message_id": "refused"})
        broker.clock.turn()
        Disk.waiting = waiting = list[Any]()
        broker.open()
        (read,) = waiting
        waiting.clear()
        read()
        broker.open()
        assert (client.counters.stored, client.counters.set_aside, len(waiting)) == (0, 1, 1)
        Disk.waiting = None
        work(waiting)
        confirm(broker)
        assert (broker.messages, client.counters.stored, client.counters.set_aside) == ([], 0, 1)


def test_what_is_sent_while_it_is_stored_counts_as_sent(broker: Broker) -> None:
    """For those who ask what may have arrived: publish_many() that is left, and other threads at the loop's end."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        waiting: list[Any] = []
        Disk.waiting = waiting
        outcomes = client.publish_many([("", "q", b"1", {"message_id": "one"})])

        async def iterate() -> None:
            async for _ in outcomes:
                pass

        task = broker.clock.loop.create_task(iterate())
        broker.clock.turn()
        broker.open()
        assert broker.messages == ["one"]
        task.cancel()
        broker.clock.turn()
        assert (outcomes.not_sent, len(outcomes.untold)) == ([], 1)
        Disk.waiting = None
        for each in waiting:
            each()
        confirm(broker)


def test_a_stored_message_that_is_nacked_is_sent_again_after_a_while(broker: Broker) -> None:
    """Others go out meanwhile."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        publish(client, "nacked")
        broker.open()
        assert broker.messages == ["nacked"]
        broker.peer.confirm(1, nack=True)
        broker.open()
        (other,) = publish(client, "other")
        confirm(broker)
        assert (broker.messages, other.result()) == (["nacked", "other"], None)
        broker.clock.advance(2)
        confirm(broker)
        assert broker.messages == ["nacked", "other", "nacked"]
        assert client.counters.stored == 0


def test_a_stored_message_over_which_the_channel_is_closed_is_set_aside_in_the_end(broker: Broker) -> None:
    """The suspects are marked, sent one at a time, and the one that is refused alone is set aside."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0, reconnect_delay=0.1)
        broker.clock.turn()
        publish(client, "good", "poison", "fine")
        for _ in range(30):
            broker.open()
            for channel, tags in list(broker.peer.unconfirmed.items()):
                if tags and "poison" in broker.messages[-len(tags) :]:
                    broker.peer.close_channel(channel, 406, "PRECONDITION_FAILED")
                else:
                    broker.peer.confirm_all()
            broker.open()
            broker.clock.advance(0.3)
        assert (client.counters.stored, client.counters.set_aside) == (0, 1)
        assert {"good", "fine"} <= broker.acked


def test_a_stopped_client_refuses_and_what_waited_is_stored(broker: Broker) -> None:
    """It was accepted before; afterwards nothing is."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=30)
        broker.clock.turn()
        (waits,) = publish(client, "waits")
        stop(broker, client)
        assert waits.result() == STORED
        (refused,) = publish(client, "refused")
        assert (outcome(refused), state(client)) == (NotReadyError, Outbox.OFF)


def test_closing_stores_what_is_published_and_what_stays_unconfirmed(broker: Broker) -> None:
    """While it drains, a publish is stored; what RabbitMQ never confirms is stored at the end."""
    with folder() as path:
        client = broker.ready(outbox=path)
        (unconfirmed,) = publish(client, "unconfirmed")
        broker.clock.turn()
        client.close()
        (late,) = publish(client, "late")
        broker.clock.turn()
        assert late.result() == STORED
        broker.clock.advance(11)
        assert (client.state, unconfirmed.result()) == (State.CLOSED, STORED)
        client.connect()
        broker.open()
        confirm(broker)
        assert broker.messages == ["unconfirmed", "unconfirmed", "late"]


def test_beyond_the_limit_publishes_end_as_without_an_outbox(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """The log says why once, and there is room again when something was delivered."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0, outbox_limit=300)
        broker.clock.turn()
        stored, full, too = publish(client, "stored", "full", "too")
        broker.clock.turn()
        assert (stored.result(), outcome(full), outcome(too)) == (STORED, NotReadyError, NotReadyError)
        assert (state(client), client.publish_outcome) == (Outbox.FULL, "is refused")
        broker.clock.advance(5)
        publish(client, "again")[0].exception()
        assert caplog.text.count("nothing can be stored") == 1
        confirm(broker)
        broker.clock.advance(2)
        (now,) = publish(client, "now")
        confirm(broker)
        assert (now.result(), state(client)) == (None, Outbox.CLEAR)


def test_the_limit_is_logged_each_time_that_it_is_reached(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """In the next outage, after everything was delivered, once more."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0, outbox_limit=300)
        for times in (1, 2):
            broker.clock.turn()
            publish(client, "stored", "full", "too")
            broker.clock.turn()
            assert caplog.text.count("(outbox_limit)") == times
            broker.clock.advance(5)
            confirm(broker)
            broker.clock.advance(2)
            assert state(client) is Outbox.CLEAR
            lose(broker)


def test_a_body_that_cannot_be_sent_is_not_stored(broker: Broker) -> None:
    """It is refused while the client is not ready, as when it is."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0, max_message_size=5)
        broker.clock.turn()
        (stored,) = publish(client, "small")
        (behind,) = publish(client, "too large")
        broker.clock.turn()
        assert (stored.result(), outcome(behind)) == (STORED, InvalidMessage)


def test_a_stored_message_without_an_id_that_is_returned_is_set_aside(broker: Broker) -> None:
    """With fail_on_return, like any other."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0, fail_on_return=True)
        broker.clock.turn()
        future = client.publish("", "q", b"body", {"message_id": None})
        broker.clock.turn()
        assert future.result() == STORED
        for _ in range(3):
            broker.open()
        publisher, properties = client._runtime.publisher, spec.BasicProperties(app_id=client.settings.default_app_id)
        (publish_,) = publisher.flight.entries.values()
        properties.decode(publish_.message.properties)
        publisher.flight.on_return((312, "NO_ROUTE"), "", "q", properties, b"body")
        confirm(broker)
        assert (client.counters.set_aside, client.counters.stored) == (1, 0)


def test_flush_says_what_is_left_when_the_client_is_stopped(broker: Broker) -> None:
    """Whoever acknowledges what it has flushed would lose it; and a new life of the client begins anew."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        publish(client, "stored", "and another")
        broker.clock.turn()
        loop = broker.clock.loop
        waiting = loop.create_task(client.flush())
        broker.clock.turn()
        stop(broker, client)
        after = loop.create_task(client.flush())
        broker.clock.turn()
        for each in (waiting, after):
            with pytest.raises(
                TimeoutError, match="stopped with 2 messages stored: the next client sends what is stored"
            ):
                each.result()


def test_a_full_outbox_refuses_until_something_was_delivered(broker: Broker) -> None:
    """Whatever the connection is doing: what is stored comes first, and nothing can be stored behind it."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=5, outbox_limit=300, max_unconfirmed=1)
        broker.clock.turn()
        (stored,) = publish(client, "stored", timeout=0)
        (full,) = publish(client, "full")
        broker.clock.turn()
        assert (stored.result(), outcome(full), client.publish_outcome) == (STORED, NotReadyError, "is refused")
        broker.clock.advance(0.5)
        assert [outcome(each) for each in publish(client, "waits")] == [NotReadyError]
        broker.clock.advance(5)
        (persistent,) = publish(client, "persistent")
        broker.clock.turn()
        (again,) = publish(client, "again")
        assert (outcome(persistent), outcome(again), state(client)) == (NotReadyError, NotReadyError, Outbox.FULL)
        broker.open()
        assert (client.ready, state(client), broker.messages) == (True, Outbox.FAILING, ["stored"])
        (passes,) = publish(client, "passes")
        assert (client.waiting, passes.done()) == (1, False)
        lose(broker)
        assert (state(client), client.publish_outcome, passes.done()) == (Outbox.FULL, "is refused", True)
        broker.clock.advance(1)
        confirm(broker)
        broker.clock.advance(2)
        (goes,) = publish(client, "goes")
        confirm(broker)
        assert (goes.result(), broker.messages) == (None, ["stored", "stored", "goes"])


def test_trouble_is_told_while_nothing_can_be_stored_and_no_longer(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each state that follows, and after the client was stopped and started again."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0, outbox_limit=300)
        broker.clock.turn()
        publish(client, "stored", "full")[1].exception()
        broker.clock.turn()
        assert (state(client), "(outbox_limit)" in client.outbox_trouble) == (Outbox.FULL, True)
        broker.clock.advance(1.1)
        assert (state(client), client.outbox_trouble) == (Outbox.HOLDING, "")
        confirm(broker)
        broker.clock.advance(2)
        assert (state(client), client.outbox_trouble) == (Outbox.CLEAR, "")
        problems = failing(monkeypatch)
        lose(broker)
        publish(client, "stored")
        broker.clock.turn()
        broker.clock.turn()
        assert (state(client), bool(client.outbox_trouble)) == (Outbox.FAILING, True)
        problems.clear()
        Disk.waiting = waiting = list[Any]()
        task = broker.clock.loop.create_task(client.shutdown(2))
        broker.clock.turn()
        assert (state(client), client.outbox_trouble) == (Outbox.FINISHING, "")
        Disk.waiting = None
        work(waiting)
        stop(broker, client)
        task.result()
        assert (state(client), client.outbox_trouble) == (Outbox.OFF, "")
        Disk.waiting = waiting
        client.connect()
        assert (state(client), client.outbox_trouble) == (Outbox.OPENING, "")
        Disk.waiting = None
        work(waiting)


def _running() -> list[Any]:
    return [each for each in CONNECTION.lasting if each not in CONNECTION.marked("at_rest")]


@pytest.mark.parametrize("substate", _running())
def test_the_outbox_is_open_from_the_first_attempt_until_the_client_is_stopped(broker: Broker, substate: Any) -> None:
    """Whatever the connection does."""
    function = {"url": never} if substate is Connecting.CALLING else {"url": "amqp://broker/?retry_delay=60"}
    setup = {"setup": never} if substate is Connecting.SETTING_UP else {}
    with folder() as path:
        client = enter(broker, substate, outbox=path, connection_attempts=3, **function, **setup)
        assert state(client) not in {Outbox.OFF, Outbox.FINISHING}
        stop(broker, client)
        assert state(client) is Outbox.OFF


def test_a_full_outbox_that_is_read_again_goes_on_with_what_it_has(broker: Broker) -> None:
    """Each second it is tried again: what is stored is still the line, and what comes is stored where there is room."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0, outbox_limit=300)
        broker.clock.turn()
        publish(client, "stored", "full")[1].exception()
        broker.clock.turn()
        assert state(client) is Outbox.FULL
        broker.clock.advance(1.1)
        assert (state(client), client.publish_outcome) == (Outbox.HOLDING, "is stored")


def test_a_full_outbox_that_cannot_be_read_again_is_still_the_line(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored comes first, even if it can't be counted now."""

    def fail(_file: OutboxFile) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with folder() as path:
        client = broker.client(outbox=path, timeout=60, outbox_limit=300)
        broker.clock.turn()
        publish(client, "stored", "full", timeout=0)
        broker.clock.turn()
        with monkeypatch.context() as patched:
            patched.setattr(OutboxFile, "totals", fail)
            broker.clock.advance(1.1)
            assert (state(client), client.publish_outcome) == (Outbox.FULL, "is refused")
        broker.clock.advance(1)
        assert state(client) is Outbox.HOLDING


def test_a_client_that_is_stopped_closes_its_files_whatever_state_they_are_in(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client can have them at once: full, failing or being opened."""
    with folder() as path:
        full = broker.client(outbox=path, timeout=0, outbox_limit=300)
        broker.clock.turn()
        publish(full, "stored", "full")[1].exception()
        broker.clock.turn()
        assert state(full) is Outbox.FULL
        stop(broker, full)
        OutboxFile.take(path / "amqp.1.outbox").close()
        broken = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        problems = failing(monkeypatch)
        publish(broken, "stored")
        broker.clock.turn()
        broker.clock.turn()
        assert state(broken) in {Outbox.FAILING, Outbox.FULL}
        stop(broker, broken)
        problems.clear()
        OutboxFile.take(path / "amqp.1.outbox").close()
        opening = broker.client(outbox=path)
        Disk.waiting = waiting = list[Any]()
        broker.clock.turn()
        assert state(opening) is Outbox.OPENING
        task = broker.clock.loop.create_task(opening.shutdown(2))
        broker.clock.turn()
        assert state(opening) is Outbox.FINISHING
        Disk.waiting = None
        work(waiting)
        stop(broker, opening)
        task.result()
        OutboxFile.take(path / "amqp.1.outbox").close()


def work(waiting: list[Any]) -> None:
    """Let the disk do what it was given."""
    while waiting:
        waiting.pop(0)()


def opening(broker: Broker, path: Path, **settings: Any) -> tuple[Client, list[Any]]:
    """Make a client whose disk has not answered yet."""
    Disk.waiting = waiting = list[Any]()
    client = broker.client(outbox=path, **settings)
    broker.open()
    assert (client.ready, state(client)) == (True, Outbox.OPENING)
    return client, waiting


def test_until_the_outbox_is_open_a_publish_waits_for_what_may_be_stored(broker: Broker) -> None:
    """Ready or not; when nothing is stored, it goes out."""
    with folder() as path:
        client, waiting = opening(broker, path)
        (waits,) = publish(client, "waits")
        assert (client.publish_outcome, client.waiting, broker.messages) == ("waits", 1, [])
        Disk.waiting = None
        work(waiting)
        broker.open()
        assert broker.messages == ["waits"]
        lose(broker)
        assert (state(client), client.publish_outcome) == (Outbox.CLEAR, "waits")
        broker.clock.advance(1)
        confirm(broker)
        assert waits.result() is None


def test_until_the_outbox_is_open_what_ends_badly_is_stored(broker: Broker) -> None:
    """It is given to the disk as soon as that answers."""
    with folder() as path:
        client, waiting = opening(broker, path, timeout=2)
        lose(broker)
        (waits,) = publish(client, "waits")
        assert (client.publish_outcome, client.waiting) == ("waits", 1)
        broker.clock.advance(3)
        assert (client.publish_outcome, waits.done()) == ("is stored", False)
        (stored,) = publish(client, "stored")
        Disk.waiting = None
        work(waiting)
        broker.clock.turn()
        assert (waits.result(), stored.result(), state(client)) == (STORED, STORED, Outbox.HOLDING)
        confirm(broker)
        assert broker.messages == ["waits", "stored"]


def test_a_disk_that_does_not_answer_while_it_is_opened_is_done_without(broker: Broker) -> None:
    """After ten seconds what waits goes out."""
    with folder() as path:
        client, waiting = opening(broker, path, timeout=60)
        (waits,) = publish(client, "waits")
        broker.clock.advance(9)
        assert broker.messages == []
        broker.clock.advance(1.5)
        assert (broker.messages, state(client)) == (["waits"], Outbox.FAILING)
        Disk.waiting = None
        work(waiting)
        broker.clock.advance(2)
        confirm(broker)
        assert (waits.result(), state(client)) == (None, Outbox.CLEAR)


def test_opening_stores_nothing_by_itself(broker: Broker) -> None:
    """What waits goes on waiting while nothing is stored."""
    with folder() as path:
        client, waiting = opening(broker, path)
        lose(broker)
        (waits,) = publish(client, "waits")
        Disk.waiting = None
        work(waiting)
        broker.clock.turn()
        assert (waits.done(), client.waiting) == (False, 1)


def test_what_is_stored_is_sent_when_it_is_found_while_the_client_is_ready(broker: Broker) -> None:
    """The connection may be there before the disk has answered."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        publish(client, "stored")
        broker.clock.turn()
        stop(broker, client)
        again, waiting = opening(broker, path)
        (later,) = publish(again, "later")
        Disk.waiting = None
        work(waiting)
        confirm(broker)
        assert (broker.messages, later.result()) == (["stored", "later"], STORED)


def test_a_client_that_is_started_again_before_its_files_are_closed_opens_them_again(broker: Broker) -> None:
    """Nothing that was given to the disk is given up."""
    with folder() as path:
        client = broker.ready(outbox=path)
        (kept,) = publish(client, "kept")
        broker.clock.turn()
        Disk.waiting = waiting = list[Any]()
        lose(broker)
        client._runtime.lifecycle.feed(client._runtime.lifecycle.stop)
        broker.clock.turn()
        assert state(client) is Outbox.FINISHING
        client.connect()
        assert state(client) is Outbox.OPENING
        Disk.waiting = None
        work(waiting)
        broker.clock.turn()
        confirm(broker)
        assert (kept.result(), broker.messages) == (STORED, ["kept", "kept"])


def test_a_client_that_is_stopped_waits_for_the_disk(broker: Broker) -> None:
    """What was not written by then ends as unknown: the disk has it. Meanwhile nothing is taken."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=60)
        broker.clock.turn()
        (waits,) = publish(client, "waits")
        Disk.waiting = waiting = list[Any]()
        client._runtime.lifecycle.feed(client._runtime.lifecycle.stop)
        broker.clock.advance(9)
        (refused,) = publish(client, "refused")
        assert (state(client), waits.done(), outcome(refused)) == (Outbox.FINISHING, False, NotReadyError)
        broker.clock.advance(2)
        assert (state(client), outcome(waits)) == (Outbox.OFF, OutcomeUnknown)
        Disk.waiting = None
        work(waiting)
        broker.clock.turn()


def test_an_outbox_holds_while_anything_is_stored(broker: Broker) -> None:
    """That the last one was sent means nothing where another was stored meanwhile."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        publish(client, "stored")
        model = client._runtime.outbox
        model.feed(model.backlog_ended)
        assert state(client) is Outbox.HOLDING
        model.feed(model.disk_failed)
        model.feed(model.backlog_ended)
        assert state(client) is Outbox.FULL


def test_a_ready_client_goes_on_while_the_disk_fails(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is published goes out; what is published in a persistent outage is refused."""
    with folder() as path:
        client = broker.ready(outbox=path, timeout=1, confirm_timeout=2)
        problems = failing(monkeypatch)
        (late,) = publish(client, "late")
        broker.clock.advance(2.5)
        assert (outcome(late), state(client), len(problems)) == (OutcomeUnknown, Outbox.FAILING, 2)
        publish(client, "goes")
        broker.clock.turn()
        assert (broker.messages, client.publish_outcome) == (["late", "goes"], "goes out")
        lose(broker)
        broker.clock.advance(0.2)
        (waits,) = publish(client, "waits")
        assert not waits.done()
        broker.clock.advance(2.5)
        (refused,) = publish(client, "refused")
        broker.clock.turn()
        assert (outcome(waits), outcome(refused)) == (NotReadyError, NotReadyError)
        problems.clear()


def test_nobody_waits_for_a_disk_that_is_tried_again(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is published meanwhile goes out, though it may not wait, and flush() returns."""
    with folder() as path:
        client = broker.ready(outbox=path, confirm_timeout=2)
        problems = failing(monkeypatch)
        publish(client, "late")
        broker.clock.advance(2.5)
        confirm(broker)
        assert state(client) is Outbox.FAILING
        Disk.waiting = waiting = list[Any]()
        broker.clock.advance(1.1)
        assert len(waiting) == 1
        (goes,) = publish(client, "goes", timeout=0)
        confirm(broker)
        flushed = broker.clock.loop.create_task(client.flush())
        broker.clock.turn()
        assert (goes.result(), flushed.done()) == (None, True)
        problems.clear()
        Disk.waiting = None
        work(waiting)
        broker.clock.turn()
        assert state(client) is Outbox.CLEAR


def failing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have the disk fail as long as the list is not empty; each failure is added to it."""
    problems = ["database or disk is full"]
    write = OutboxFile.write

    def fail(self: OutboxFile, *args: Any, **kwargs: Any) -> None:
        if problems:
            problems.append(problems[0])
            raise sqlite3.OperationalError(problems[0])
        write(self, *args, **kwargs)

    monkeypatch.setattr(OutboxFile, "write", fail)
    return problems


def test_a_disk_that_fails_makes_publishes_end_as_without_an_outbox(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waited goes on waiting; when the disk works again, messages are stored again."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=5)
        broker.clock.turn()
        problems = failing(monkeypatch)
        (waits,) = publish(client, "waits")
        (ends,) = publish(client, "ends", timeout=0)
        broker.clock.turn()
        assert (outcome(ends), waits.done(), state(client)) == (NotReadyError, False, Outbox.FAILING)
        assert client.publish_outcome == "waits"
        problems.clear()
        broker.clock.advance(6)
        assert (waits.result(), state(client)) == (STORED, Outbox.HOLDING)
        confirm(broker)
        assert broker.messages == ["waits"]


def test_what_is_stored_is_sent_first_by_a_client_that_can_store_nothing(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk can be read, and not be written to: publishes are refused until all of it is sent."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        publish(client, "stored")
        broker.clock.turn()
        stop(broker, client)

        def fail(_file: OutboxFile) -> None:
            raise sqlite3.OperationalError("attempt to write a readonly database")

        with monkeypatch.context() as patched:
            patched.setattr(OutboxFile, "try_out", fail)
            again = broker.client(outbox=path)
            broker.clock.turn()
            broker.clock.turn()
            assert (state(again), again.counters.stored) == (Outbox.FULL, 1)
            (refused,) = publish(again, "refused")
            broker.open()
            (goes,) = publish(again, "goes")
            confirm(broker)
            assert (outcome(refused), goes.result(), broker.messages) == (NotReadyError, None, ["stored", "goes"])
            assert state(again) is Outbox.FAILING
        broker.clock.advance(1.1)
        assert state(again) is Outbox.CLEAR


def test_a_disk_that_fails_does_not_keep_what_is_stored_from_being_sent(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was confirmed is deleted when the disk works again, and not sent twice."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        publish(client, "stored")
        broker.clock.turn()
        problems = failing(monkeypatch)
        confirm(broker)
        assert broker.messages == ["stored"]
        problems.clear()
        broker.clock.advance(70)
        confirm(broker)
        assert (broker.messages, client.counters.stored) == (["stored"], 0)


def test_a_disk_that_does_not_answer_ends_publishes_as_unknown(broker: Broker) -> None:
    """It may be stored, and delivered later: that is what the error says; the others were not given to the disk."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        waiting: list[Any] = []
        Disk.waiting = waiting
        (given,) = publish(client, "given")
        broker.clock.turn()
        (other,) = publish(client, "other")
        broker.clock.advance(11)
        assert (outcome(given), outcome(other)) == (OutcomeUnknown, NotReadyError)
        assert state(client) in {Outbox.FAILING, Outbox.FULL, Outbox.OPENING}
        Disk.waiting = None
        for work in waiting:
            work()
        broker.clock.advance(70)
        confirm(broker)
        assert broker.messages == ["given"]


def test_while_the_disk_hangs_a_ready_client_goes_on(broker: Broker) -> None:
    """It is not opened again before it has answered, and what is published meanwhile goes out."""
    with folder() as path:
        client, waiting = opening(broker, path, timeout=60)
        broker.clock.advance(10.5)
        for _ in range(5):
            broker.clock.advance(1.1)
            assert (state(client), client.publish_outcome) == (Outbox.FAILING, "goes out")
        (goes,) = publish(client, "goes")
        confirm(broker)
        assert goes.result() is None
        Disk.waiting = None
        work(waiting)
        broker.clock.advance(1.1)
        assert state(client) is Outbox.CLEAR


def test_while_the_disk_hangs_a_full_outbox_refuses(broker: Broker) -> None:
    """What is stored comes first, however long that takes."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        publish(client, "stored")
        broker.clock.turn()
        Disk.waiting = waiting = list[Any]()
        publish(client, "given")
        broker.clock.advance(10.5)
        for _ in range(5):
            broker.clock.advance(1.1)
            assert (state(client), client.publish_outcome) == (Outbox.FULL, "is refused")
        Disk.waiting = None
        work(waiting)
        broker.clock.advance(1.1)
        confirm(broker)
        assert (broker.messages, state(client)) == (["stored", "given"], Outbox.CLEAR)


def test_a_client_that_is_started_while_the_disk_hangs_does_without(broker: Broker) -> None:
    """Opening waits for its turn on the disk, and no longer than for the disk itself."""
    with folder() as path:
        client, waiting = opening(broker, path, timeout=60)
        stop(broker, client)
        assert state(client) is Outbox.OFF
        broker.clock.advance(10)
        client.connect()
        broker.open()
        assert state(client) is Outbox.OPENING
        broker.clock.advance(10.5)
        assert state(client) is Outbox.FAILING
        (goes,) = publish(client, "goes")
        confirm(broker)
        assert goes.result() is None
        Disk.waiting = None
        work(waiting)
        broker.clock.advance(1.1)
        assert state(client) is Outbox.CLEAR


def test_what_is_read_while_the_connection_is_lost_is_read_again(broker: Broker) -> None:
    """What was lost comes before it, though it is written later."""
    with folder() as path:
        client = broker.ready(outbox=path, timeout=0, confirm_timeout=600, max_unconfirmed=1)
        lost, second = publish(client, "lost", "second")
        broker.clock.turn(2)
        Disk.waiting = waiting = list[Any]()
        broker.clock.turn()
        # It is being read.
        assert (second.result(), len(waiting)) == (STORED, 1)
        lose(broker)
        broker.clock.advance(4)
        broker.open()
        assert client.ready
        Disk.waiting = None
        work(waiting)
        confirm(broker)
        assert broker.messages == ["lost", "lost", "second"]
        assert lost.result() == STORED


def test_flush_waits_for_what_is_stored(broker: Broker) -> None:
    """It returns when RabbitMQ has it, or says in time that it does not."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        publish(client, "stored")
        early = broker.clock.loop.create_task(client.flush(1))
        broker.clock.advance(2)
        assert isinstance(early.exception(), TimeoutError)
        flushed = broker.clock.loop.create_task(client.flush())
        broker.clock.turn()
        assert not flushed.done()
        confirm(broker)
        assert flushed.done()


def test_flush_waits_until_the_outbox_is_open(broker: Broker) -> None:
    """Nobody knows before what is stored."""
    with folder() as path:
        client, waiting = opening(broker, path)
        flushed = broker.clock.loop.create_task(client.flush())
        broker.clock.turn()
        assert not flushed.done()
        Disk.waiting = None
        work(waiting)
        broker.clock.turn()
        assert flushed.done()


def test_a_cancelled_publish_that_waits_for_the_disk_is_not_sent(broker: Broker) -> None:
    """Nobody waits for it any more, and it was never sent."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        waiting: list[Any] = []
        Disk.waiting = waiting
        (cancelled,) = publish(client, "cancelled")
        cancelled.cancel()
        broker.clock.turn()
        Disk.waiting = None
        for work in waiting:
            work()
        broker.clock.turn()
        confirm(broker)
        assert (broker.messages, client.counters.stored) == ([], 0)


def test_more_than_is_written_at_once_is_written_all_the_same(broker: Broker, tmp_path: Path) -> None:
    """And in order, also by a client that is being stopped."""
    client = broker.client(outbox=tmp_path, timeout=60)
    broker.clock.turn()
    names = [f"m{number}" for number in range(2500)]
    stored = publish(client, *names)
    stop(broker, client)
    assert {each.result() for each in stored} == {STORED}
    file = OutboxFile.take(tmp_path / "amqp.1.outbox")
    assert [unpack(row.message)[1].message_id for row in file.rows()] == names
    file.close()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"outbox": "/nowhere/at/all"}, "outbox (argument outbox) must be an existing folder, not '/nowhere/at/all'"),
        ({"outbox": __file__}, "must be an existing folder"),
        ({"outbox": "", "outbox_limit": 0}, "must be the path"),
        ({"outbox": str(Path(__file__).parent), "enable_confirmations": False}, "cannot know which messages to keep"),
        ({"outbox_limit": 0}, "outbox_limit (argument outbox_limit) must be a whole number above 0, not 0"),
    ],
)
def test_a_bad_outbox_is_told_at_the_start(settings: dict[str, Any], problem: str) -> None:
    """The sentence names the setting, the value and what it must be."""
    with pytest.raises(ValueError, match=re.escape(problem)):
        Settings(**settings)


def test_a_folder_that_may_not_be_written_to_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so that the kernel's answer stands in for it."""
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ValueError, match="must be a folder that this process can write to"):
        Settings(outbox=str(Path(__file__).parent))


def test_an_outbox_republishes() -> None:
    """What is lost is sent again: from the line, or from the disk."""
    assert Settings(outbox=str(Path(__file__).parent)).republish_unconfirmed
    assert not Settings().republish_unconfirmed


# What is sent while it is being written


def overtaking(broker: Broker, path: Path, *names: str, **settings: Any) -> tuple[Client, list[Any], list[Any]]:
    """Have messages on the wire that are not written yet; returns their client, the disk's work and their ends."""
    client = broker.client(outbox=path, timeout=0, **settings)
    broker.clock.turn()
    Disk.waiting = waiting = list[Any]()
    ends = publish(client, *names)
    broker.open()
    assert broker.messages == list(names)
    assert (state(client), [each.done() for each in ends]) == (Outbox.CLEAR, [False] * len(names))
    return client, waiting, ends


def test_what_is_being_written_is_sent_meanwhile_so_that_the_outbox_does_not_stay_the_line(broker: Broker) -> None:
    """However slow the disk is. What is confirmed before it is written ends so, and is not kept."""
    with folder() as path:
        client, waiting, (stored,) = overtaking(broker, path, "stored")
        seen = Seen().of(client)
        (next_one,) = publish(client, "next")
        confirm(broker)
        assert (stored.result(), next_one.result(), client.counters.stored) == (None, None, 0)
        assert (seen.outcomes, seen.deliveries) == ([Outcome.CONFIRMED], [])
        Disk.waiting = None
        work(waiting)
        broker.clock.turn()
        stop(broker, client)
        assert (broker.messages, list(path.iterdir())) == (["stored", "next"], [])


@pytest.mark.parametrize(
    ("limits", "taken"), [({"max_waiting": 2}, 2), ({"max_waiting_size": 100}, 1)], ids=["messages", "octets"]
)
def test_no_more_is_taken_than_may_wait_while_the_disk_writes(broker: Broker, limits: Any, taken: int) -> None:
    """What comes then is refused, and not kept in memory all the same: a disk may take seconds."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0, **limits)
        broker.clock.advance(1)
        Disk.waiting = waiting = list[Any]()
        futures = publish(client, *"abcdef")
        broker.clock.turn()
        assert [each.done() for each in futures] == [False] * taken + [True] * (6 - taken)
        assert {outcome(each) for each in futures[taken:]} == {NotReadyError}
        assert "being stored already" in str(futures[-1].exception())
        Disk.waiting = None
        work(waiting)
        broker.clock.turn()
        assert [each.result() for each in futures[:taken]] == [STORED] * taken


def test_what_was_sent_and_is_written_then_is_stored_until_it_is_confirmed(broker: Broker) -> None:
    """It ends with STORED, is not sent twice, and a confirm deletes it."""
    with folder() as path:
        client, waiting, (stored,) = overtaking(broker, path, "stored")
        Disk.waiting = None
        work(waiting)
        broker.clock.turn()
        assert (stored.result(), client.counters.stored, broker.messages) == (STORED, 1, ["stored"])
        confirm(broker)
        assert (client.counters.stored, broker.messages) == (0, ["stored"])


@pytest.mark.parametrize("written", [True, False])
def test_what_was_sent_and_lost_is_sent_again_in_order(broker: Broker, *, written: bool) -> None:
    """Whether the disk has written it by then or not."""
    with folder() as path:
        client, waiting, ends = overtaking(broker, path, "first", "second", max_unconfirmed=2)
        (third,) = publish(client, "third")
        lose(broker)
        (fourth,) = publish(client, "fourth")
        if written:
            Disk.waiting = None
            work(waiting)
            broker.clock.turn()
            assert {each.result() for each in (*ends, third, fourth)} == {STORED}
        broker.clock.advance(1)
        confirm(broker)
        assert broker.messages == ["first", "second", "first", "second", "third", "fourth"]
        assert client.counters.stored == 0
        Disk.waiting = None
        work(waiting)


def test_what_rabbitmq_says_before_the_disk_ends_the_publish(broker: Broker) -> None:
    """A nack, an exchange that does not exist: nobody has been told that it is stored."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        Disk.waiting = waiting = list[Any]()
        refused = client.publish("missing", "q", b"", {"message_id": "refused"})
        (nacked,) = publish(client, "nacked")
        broker.open()
        broker.peer.confirm(1, nack=True)
        broker.open()
        assert (outcome(refused), outcome(nacked)) == (ExchangeRefused, MessageNacked)
        Disk.waiting = None
        work(waiting)
        broker.clock.turn()
        stop(broker, client)
        assert list(path.iterdir()) == []


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_refused_after_it_was_sent_before_is_set_aside(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """It may be in a queue: its publish ends with STORED, as that of a message that was stored before."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        Disk.waiting = waiting = list[Any]()
        sent = client.publish("events", "q", b"", {"message_id": "sent"})
        broker.open()
        lose(broker)
        broker.missing.add("events")
        broker.clock.advance(1)
        broker.open()
        assert (broker.messages, sent.done()) == (["sent"], False)
        if fails:
            failing(monkeypatch)
        # It is written, and what becomes of it is not yet.
        waiting.pop(0)()
        broker.clock.turn()
        assert (client.counters.stored, client.counters.set_aside) == (0, 0 if fails else 1)
        Disk.waiting = None
        work(waiting)
        broker.clock.turn()
        assert (outcome(sent) if fails else sent.result()) == (OutcomeUnknown if fails else STORED)
        assert (client.counters.stored, client.counters.set_aside) == (0, 0 if fails else 1)
        # A minute later the store is counted again.
        broker.clock.advance(61)
        assert client.counters.set_aside == (0 if fails else 1)


def test_a_suspect_that_is_being_written_is_sent_alone(broker: Broker) -> None:
    """RabbitMQ closed the channel over one of two: the one that it refuses alone is told, the other goes out."""
    with folder() as path:
        client, waiting, (poison, good) = overtaking(broker, path, "poison", "good")
        broker.peer.close_channel(next(iter(broker.peer.unconfirmed)), 406, "PRECONDITION_FAILED")
        for _ in range(4):
            broker.open()
            broker.clock.advance(0.5)
        assert broker.messages == ["poison", "good", "poison"]
        broker.peer.close_channel(next(iter(broker.peer.unconfirmed)), 406, "PRECONDITION_FAILED")
        for _ in range(4):
            broker.open()
            broker.clock.advance(0.5)
        assert (outcome(poison), broker.messages[3:]) == (OutcomeUnknown, ["good"])
        confirm(broker)
        assert (good.result(), client.counters.stored, client.counters.set_aside) == (None, 0, 0)
        Disk.waiting = None
        work(waiting)


def test_a_suspect_that_cannot_be_written_is_sent_alone_and_others_together_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it has ended, nothing is suspected any more."""
    with folder() as path:
        client, waiting, suspects = overtaking(broker, path, "one", "two", reconnect_delay=0.2)
        broker.peer.close_channel(next(iter(broker.peer.unconfirmed)), 406, "PRECONDITION_FAILED")
        for _ in range(4):
            broker.open()
            broker.clock.advance(0.5)
        assert broker.messages == ["one", "two", "one"]
        failing(monkeypatch)
        Disk.waiting = None
        work(waiting)
        broker.clock.turn()
        broker.open()
        assert (state(client), broker.messages) == (Outbox.FAILING, ["one", "two", "one"])
        confirm(broker)
        assert [each.done() for each in suspects] == [True, True]
        before = len(broker.messages)
        publish(client, "three", "four")
        broker.open()
        assert broker.messages[before:] == ["three", "four"]


def test_what_was_sent_before_is_not_said_to_be_unsent(broker: Broker) -> None:
    """It was lost, came in line again, and was still being written when the client was stopped on a disk that hangs."""
    with folder() as path:
        client = broker.ready(outbox=path, timeout=0.5, reconnect_delay=2)
        sent = publish(client, "one", "two", "three")
        broker.clock.turn()
        broker.peer.close_channel(next(iter(broker.peer.unconfirmed)), 406, "PRECONDITION_FAILED")
        Disk.waiting = waiting = list[Any]()
        broker.peer.deliver()
        broker.clock.advance(1)
        for _ in range(4):
            broker.open()
            broker.clock.advance(0.5)
        # Suspects are sent one at a time.
        assert (broker.messages, state(client)) == (["one", "two", "three", "one"], Outbox.HOLDING)
        stop(broker, client)
        assert [outcome(each) for each in sent] == [OutcomeUnknown] * 3
        Disk.waiting = None
        work(waiting)


@pytest.mark.parametrize("lost", ["not", "before it is sent", "then"])
def test_what_is_written_while_it_is_in_line_is_sent_from_there(broker: Broker, lost: str) -> None:
    """Once, or again if the connection is lost."""
    with folder() as path:
        client, waiting, (first,) = overtaking(broker, path, "first", max_unconfirmed=1)
        (second,) = publish(client, "second")
        broker.clock.turn()
        Disk.waiting = None
        work(waiting)
        broker.clock.turn()
        assert (first.result(), second.result(), broker.messages) == (STORED, STORED, ["first"])
        if lost != "before it is sent":
            broker.peer.confirm(1)
            broker.open()
            assert broker.messages == ["first", "second"]
        if lost != "not":
            lose(broker)
            broker.clock.advance(1)
        confirm(broker)
        again = {"not": [], "before it is sent": ["first", "second"], "then": ["second"]}[lost]
        assert broker.messages == (["first"] if lost == "before it is sent" else ["first", "second"]) + again
        assert (client.counters.stored, client.ready) == (0, True)


def test_what_rabbitmq_has_confirmed_before_the_disk_fails_is_no_longer_counted(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its publish has ended; what is stored later is counted as ever."""
    with folder() as path:
        client, waiting, (confirmed,) = overtaking(broker, path, "confirmed")
        confirm(broker)
        assert confirmed.result() is None
        problems = failing(monkeypatch)
        Disk.waiting = None
        work(waiting)
        broker.clock.turn()
        problems.clear()
        broker.clock.advance(2)
        lose(broker)
        publish(client, "later", timeout=0)
        broker.clock.advance(0.5)
        assert client.counters.stored == 1
        broker.clock.advance(1)
        confirm(broker)
        assert (broker.messages, client.counters.stored) == (["confirmed", "later"], 0)


def test_what_was_sent_and_cannot_be_written_ends_as_without_an_outbox(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By RabbitMQ's word, which is on its way; or at confirm_timeout. What was not sent ends with why."""
    with folder() as path:
        client, waiting, (confirmed, late) = overtaking(
            broker, path, "confirmed", "late", max_unconfirmed=2, confirm_timeout=5
        )
        (unsent,) = publish(client, "unsent")
        broker.clock.turn()
        failing(monkeypatch)
        Disk.waiting = None
        work(waiting)
        broker.clock.turn()
        assert (confirmed.done(), late.done(), state(client)) == (False, False, Outbox.FAILING)
        assert (client.waiting, unsent.done()) == (0, True)
        broker.peer.confirm(1)
        broker.open()
        broker.clock.advance(6)
        assert (confirmed.result(), outcome(late), outcome(unsent)) == (None, OutcomeUnknown, NotReadyError)
        assert client.counters.stored == 0


def test_a_cancelled_publish_that_is_in_line_while_it_is_written_is_not_sent(broker: Broker) -> None:
    """Nobody waits for it any more, and it was never sent; one that was sent stays."""
    with folder() as path:
        client, waiting, (sent,) = overtaking(broker, path, "sent", max_unconfirmed=1)
        (unsent,) = publish(client, "unsent")
        broker.clock.turn()
        assert state(client) is Outbox.HOLDING
        sent.cancel()
        unsent.cancel()
        Disk.waiting = None
        work(waiting)
        confirm(broker)
        assert (broker.messages, client.counters.stored, state(client)) == (["sent"], 0, Outbox.CLEAR)


def test_a_disk_that_fails_in_the_moment_in_which_a_backlog_begins_is_known_to_fail(broker: Broker) -> None:
    """What changes the outbox's state meanwhile does not call it off."""
    with folder() as path:
        client = broker.ready(outbox=path, timeout=10, confirm_timeout=5, max_unconfirmed=1)
        (late,) = publish(client, "late")
        Disk.waiting = waiting = list[Any]()
        broker.clock.advance(5)
        # The disk has been given the one that is late: both are over in the same turn.
        assert len(waiting) == 1
        (waits,) = publish(client, "waits")
        broker.clock.advance(10.2)
        assert (outcome(late), outcome(waits), state(client)) == (OutcomeUnknown, NotReadyError, Outbox.FAILING)
        Disk.waiting = None
        work(waiting)


def test_a_cancelled_publish_is_not_counted_for_one_that_is_to_be_sent(broker: Broker) -> None:
    """It is read together with the others, in the turn in which it is deleted."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        publish(client, "first")
        broker.clock.turn()
        Disk.waiting = waiting = list[Any]()
        publish(client, "second")
        broker.open()
        cancelled, _ = publish(client, "cancelled", "last")
        cancelled.cancel()
        Disk.waiting = None
        work(waiting)
        confirm(broker)
        assert (broker.messages, client.counters.stored) == (["first", "second", "last"], 0)


def test_what_was_lost_with_a_stored_message_stays_behind_it(broker: Broker) -> None:
    """It was published later; stored as well, it is sent again later."""
    with folder() as path:
        client = broker.ready(outbox=path, confirm_timeout=5, timeout=60)
        (first,) = publish(client, "first")
        broker.clock.advance(6)
        (second,) = publish(client, "second")
        broker.clock.turn()
        assert (first.result(), broker.messages, state(client)) == (STORED, ["first", "second"], Outbox.CLEAR)
        lose(broker)
        broker.clock.advance(1)
        confirm(broker)
        assert broker.messages == ["first", "second", "first", "second"]
        assert (second.result(), client.counters.stored) == (STORED, 0)


def test_a_publish_that_goes_on_alone_may_be_stored_again(broker: Broker) -> None:
    """The disk had hung, and had stored it all the same: it is there twice, under two numbers."""
    with folder() as path:
        client, waiting, (late,) = overtaking(broker, path, "late", confirm_timeout=40)
        broker.clock.advance(11)
        assert (state(client), late.done()) == (Outbox.FAILING, False)
        Disk.waiting = None
        work(waiting)
        broker.clock.advance(3)
        (after,) = publish(client, "after")
        broker.open()
        broker.clock.advance(120)
        assert [each.result() for each in (late, after)] == [STORED] * 2
        confirm(broker)
        broker.clock.advance(61)
        confirm(broker)
        assert set(broker.messages) == {"late", "after"}
        assert client.counters.stored == 0


def test_a_returned_publish_that_goes_on_alone_ends_as_returned(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the disk has failed between the return and the ack."""
    with folder() as path:
        broker.unroutable.add("q")
        _, waiting, (returned,) = overtaking(broker, path, "returned", fail_on_return=True)
        failing(monkeypatch)
        Disk.waiting = None
        work(waiting)
        broker.clock.turn()
        confirm(broker)
        assert outcome(returned) is MessageReturned


def test_what_somebody_retries_hides_nothing_that_is_stored(broker: Broker) -> None:
    """Neither do later messages overtake what it was counted for."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        client.publish("missing", "q", b"", {"message_id": "aside"})
        confirm(broker)
        assert client.counters.set_aside == 1
        lose(broker)
        broker.missing.clear()
        (stored,) = publish(client, "stored")
        broker.clock.turn()
        with contextlib.closing(OutboxFile(path / "amqp.1.outbox", create=False)) as file:
            assert [file.retry(number) for number in file.set_aside()] == [True]
        broker.clock.advance(1)
        broker.open()
        publish(client, "later")
        confirm(broker)
        assert (stored.result(), broker.messages) == (STORED, ["stored", "aside", "later"])
        assert (client.counters.stored, client.counters.set_aside) == (0, 0)


def test_what_is_given_to_a_disk_that_hangs_already_waits_no_longer_than_its_limit(broker: Broker) -> None:
    """The client was stopped and started again behind it."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        Disk.waiting = waiting = list[Any]()
        publish(client, "given")
        broker.clock.turn()
        stop(broker, client)
        broker.clock.advance(11)
        client.connect()
        (behind,) = publish(client, "behind")
        broker.clock.advance(11)
        assert outcome(behind) is NotReadyError
        Disk.waiting = None
        work(waiting)


async def test_no_thread_at_the_end_is_no_reason_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client stops at once."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    client = Client("amqp://127.0.0.1:2", outbox=tmp_path, timeout=0)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    began = asyncio.get_running_loop().time()
    await client.shutdown(8)
    assert asyncio.get_running_loop().time() - began < 4


def test_somebody_who_cancels_all_tasks_loses_nothing(broker: Broker) -> None:
    """Frameworks do so when they stop: what was being written is written, and ends."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        Disk.waiting = waiting = list[Any]()
        (first,) = publish(client, "first")
        broker.clock.turn()
        (second,) = publish(client, "second")
        for task in asyncio.all_tasks(broker.clock.loop):
            task.cancel()
        broker.clock.turn()
        Disk.waiting = None
        work(waiting)
        broker.clock.advance(0.5)
        assert (first.result(), second.result(), client.counters.stored) == (STORED, STORED, 2)
        confirm(broker)
        assert (broker.messages, client.counters.stored) == (["first", "second"], 0)


def test_what_is_on_disk_alone_takes_no_memory(broker: Broker) -> None:
    """However much is stored, as much is in memory as may be in line, on the wire and in a batch."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0, max_unconfirmed=100)
        stock, most = client._runtime.outbox._stock, 0
        broker.clock.turn()
        for _ in range(10):
            publish(client, *(f"m{number}" for number in range(300)))
            broker.clock.turn()
            assert (len(stock.ledger.rows), stock.ledger.at(Place.ON_DISK)) == (0, client.counters.stored)
        assert client.counters.stored == 3000
        while client.counters.stored:
            broker.open()
            most = max(most, len(stock.ledger.rows))
            broker.every(lambda peer: peer.confirm_all())
        assert 100 < most <= 2 * LOAD + 100
        assert len(broker.messages) == 3000


# The log


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the outbox has logged, without the path of its folder."""
    lines = [record.getMessage() for record in caplog.records if record.name == "sprockets_amqp.outbox"]
    return [re.sub(r"^outbox \S+: ", "", line) for line in lines]


def test_the_log_tells_of_what_was_found_and_delivered(
    broker: Broker, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A start finds messages of an earlier process; when all of them are delivered, that is told, too."""
    first = broker.client(outbox=tmp_path, timeout=0)
    broker.clock.turn()
    publish(first, "a", "b", "c")
    broker.clock.advance(1)
    stop(broker, first)
    assert logged(caplog) == []
    client = broker.client(outbox=tmp_path)
    broker.clock.turn(20)
    assert logged(caplog) == ["3 messages to send, stored before the start"]
    broker.clock.advance(2)
    confirm(broker)
    assert client.counters.stored == 0
    assert logged(caplog)[1:] == ["all 3 stored messages were delivered, after 2.0 s"]


def test_a_start_without_stored_messages_tells_nothing(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one with some tells how many."""
    lines: list[str] = []
    monkeypatch.setattr("sprockets_amqp.outbox.model.LOGGER.warning", lambda text, *facts: lines.append(text % facts))
    with folder() as path:
        client = broker.client(outbox=path, timeout=0)
        broker.clock.turn(20)
        assert lines == []
        publish(client, "a", "b")
        broker.clock.advance(1)
        stop(broker, client)
        broker.client(outbox=path)
        broker.clock.turn(20)
        assert [line.partition(": ")[2] for line in lines] == ["2 messages to send, stored before the start"]


def test_what_is_stored_for_a_moment_only_is_not_told(
    broker: Broker, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Else a busy application would write a line each time that a message has to wait."""
    client = broker.ready(outbox=tmp_path, max_unconfirmed=1, max_waiting=2)
    futures = publish(client, "a", "b", "c", "d")
    confirm(broker)
    assert [each.result() for each in futures].count(STORED) >= 1
    assert (client.counters.stored, logged(caplog)) == (0, [])


def test_the_log_tells_that_the_disk_works_again(
    broker: Broker, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, when something was stored after the trouble; or when what was too much has been delivered."""
    client = broker.client(outbox=tmp_path, timeout=0)
    broker.clock.turn()
    publish(client, "a")
    broker.clock.advance(0.5)
    with monkeypatch.context() as patched:

        def fail(*_: object, **__: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        patched.setattr(OutboxFile, "write", fail)
        for _ in range(3):
            publish(client, "b")
            broker.clock.advance(1)
    assert logged(caplog) == ["nothing can be stored: OperationalError: disk I/O error"]
    broker.clock.advance(2)
    publish(client, "c", "d")
    broker.clock.advance(1)
    assert logged(caplog)[1:] == ["messages can be stored again"]
    caplog.clear()
    publish(client, "e")
    broker.clock.advance(1)
    assert logged(caplog) == []


def test_the_log_tells_that_the_limit_is_no_longer_reached(
    broker: Broker, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """When everything has been delivered."""
    client = broker.client(outbox=tmp_path, timeout=0, outbox_limit=500)
    broker.clock.turn()
    publish(client, "a", "b", "c", "d")
    broker.clock.advance(2)
    assert [line.partition(":")[0] for line in logged(caplog)] == ["nothing can be stored"]
    caplog.clear()
    confirm(broker)
    broker.clock.advance(2)
    assert sorted(re.sub(r"\d\.\d", "N", line) for line in logged(caplog)) == [
        "all 2 stored messages were delivered, after N s",
        "messages can be stored again",
    ]


# What can no longer be stored


def test_what_waits_and_can_no_longer_be_stored_is_refused_with_the_reason(broker: Broker) -> None:
    """One is stored when its time is over, and with it what waits; the limit is reached in the middle of that."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=60, outbox_limit=1200)
        broker.clock.turn()
        bodies = [client.publish("", "q", bytes(300), timeout=1)]
        bodies += [client.publish("", "q", bytes(300), timeout=50) for _ in range(3)]
        broker.clock.advance(1.1)
        assert [each.done() for each in bodies] == [True] * 4
        assert [each.result() for each in bodies[:2]] == [STORED] * 2
        assert [outcome(each) for each in bodies[2:]] == [NotReadyError] * 2
        assert all("(outbox_limit)" in str(each.exception()) for each in bodies[2:])
        assert (client.waiting, client.counters.stored) == (0, 2)


def test_what_is_being_written_counts_towards_the_limit(broker: Broker) -> None:
    """Also after the messages on disk were counted, which leaves it out."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=0, outbox_limit=1000)
        broker.clock.turn()
        Disk.waiting = []
        # A minute later the folder is looked through; meanwhile a message is published.
        broker.clock.advance(61)
        first = client.publish("", "q", bytes(400))
        broker.clock.turn()
        while Disk.waiting and not first.done():
            Disk.waiting.pop(0)()
            broker.clock.turn()
            second = client.publish("", "q", bytes(400))
            broker.clock.turn()
            assert outcome(second) is NotReadyError
        assert first.result() is STORED
        Disk.waiting = None
