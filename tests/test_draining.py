"""What was accepted goes out before a client closes, and only new publishes are refused; against a broker in memory."""

import asyncio
import logging
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pika import spec

from sprockets_amqp import STORED, Client, ExchangeRefused, NotReadyError, OutcomeUnknown
from sprockets_amqp.states import Closed, Closing, State, Substate
from tests.support.memory import Broker, in_memory, outcome

broker = in_memory


def publish(client: Client, count: int, exchange: str = "", **options: Any) -> list["asyncio.Future[Any]"]:
    """Publish messages named m0, m1 … without awaiting any."""
    futures = [client.publish(exchange, "q", b"", {"message_id": f"m{each}"}, **options) for each in range(count)]
    for future in futures:
        future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return futures


def place(client: Client) -> Substate:
    """Return the present substate, which mypy would take for one that lasts."""
    return client.substate


def begin(broker: Broker, client: Client, timeout: float = 10) -> "asyncio.Task[None]":
    """Begin to shut the client down."""
    stopping: asyncio.Task[None] = broker.clock.loop.create_task(client.shutdown(timeout))
    broker.clock.turn()
    return stopping


def work_off(broker: Broker, rounds: int = 8) -> None:
    """Let RabbitMQ read, answer and confirm everything."""
    for _ in range(rounds):
        broker.open().peer.confirm_all()
        broker.clock.turn()
    broker.open()


def outcomes(futures: list["asyncio.Future[Any]"]) -> set[object]:
    """What became of them."""
    return {outcome(future) for future in futures}


@pytest.mark.parametrize("how", ["close", "shutdown"])
def test_what_waits_for_an_exchange_to_be_checked_goes_out_first(broker: Broker, how: str) -> None:
    """The first use of an exchange, and then the end: the message is confirmed, and only then it is closed."""
    client = broker.ready()
    [future] = publish(client, 1, "amq.topic")
    if how == "close":
        client.close()
    else:
        begin(broker, client)
    assert (place(client), future.done()) == (Closing.DRAINING, False)
    work_off(broker)
    assert (outcome(future), place(client), broker.messages) == (None, Closed.STOPPED, ["m0"])


@pytest.mark.parametrize("window", [1, 2, 5])
def test_what_waits_for_room_goes_out_first(broker: Broker, window: int) -> None:
    """A handler publishes many without awaiting them, answers 202, and the process is told to stop."""
    client = broker.ready(max_unconfirmed=window)
    futures = publish(client, 11, timeout=100)
    stopping = begin(broker, client)
    late = client.publish("", "q", b"", {"message_id": "late"}, timeout=100)
    assert outcome(late) is NotReadyError
    work_off(broker, 15)
    assert (outcomes(futures), stopping.done()) == ({None}, True)
    assert broker.messages == [f"m{each}" for each in range(11)]


def test_what_is_refused_while_it_drains_holds_up_nothing(broker: Broker) -> None:
    """Its exchange does not exist, its caller gives up, its time is over: then nothing waits any more."""
    client = broker.ready(max_unconfirmed=1)
    [refused] = publish(client, 1, "missing")
    sent, short, cancelled = publish(client, 3, timeout=100)
    [expired] = publish(client, 1, timeout=2)
    stopping = begin(broker, client)
    broker.open()
    assert outcome(refused) is ExchangeRefused
    broker.clock.advance(2.5)
    cancelled.cancel()
    broker.clock.turn()
    assert (outcome(expired), place(client)) == (NotReadyError, Closing.DRAINING)
    work_off(broker)
    assert ([outcome(sent), outcome(short)], stopping.done()) == ([None, None], True)


@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_the_last_that_waits_may_end_without_being_sent(broker: Broker, how: str) -> None:
    """Nothing else tells that the line is empty."""
    client = broker.ready()
    broker.unanswered.add("slow")
    [future] = publish(client, 1, "slow", timeout=1)
    stopping = begin(broker, client)
    assert (place(client), client.waiting) == (Closing.DRAINING, 1)
    if how == "cancelled":
        future.cancel()
    else:
        broker.unanswered.clear()
        broker.clock.advance(5.1)
        broker.peer.confirm_all()
    broker.open()
    broker.clock.advance(0.1)
    broker.open()
    assert (future.done(), place(client), stopping.done()) == (True, Closed.STOPPED, True)


def test_at_the_limit_what_still_waits_is_not_sent(broker: Broker) -> None:
    """It ends as never sent; what is on the wire is unknown."""
    client = broker.ready(max_unconfirmed=1)
    sent, waits = publish(client, 2, timeout=100)
    stopping = begin(broker, client, 4)
    broker.clock.advance(3.9)
    assert (sent.done(), waits.done()) == (False, False)
    broker.clock.advance(0.2)
    assert (outcome(sent), outcome(waits), stopping.done()) == (OutcomeUnknown, NotReadyError, True)


def test_blocking_pauses_it(broker: Broker) -> None:
    """An alarm that begins while it drains, or lasts already: what waits goes out if it ends in time."""
    client = broker.ready(max_unconfirmed=1)
    sent, waits = publish(client, 2, timeout=100)
    broker.clock.turn()
    stopping = begin(broker, client)
    broker.peer.stall(stalled=True)
    broker.peer.deliver()
    assert place(client) is Closing.PAUSED
    broker.peer.confirm_all()
    broker.clock.advance(1)
    assert (outcome(sent), waits.done(), client.unconfirmed) == (None, False, 0)
    broker.peer.stall(stalled=False)
    broker.peer.deliver()
    assert place(client) is Closing.DRAINING
    work_off(broker)
    assert (outcome(waits), stopping.done(), broker.messages) == (None, True, ["m0", "m1"])


@pytest.mark.parametrize("ends", [True, False])
def test_what_waits_when_it_is_closed_while_blocked_goes_out_if_the_alarm_ends(broker: Broker, ends: bool) -> None:
    """Else it is refused at the limit, and never sent. An alarm that ends while the flow is stopped is not the end."""
    client = broker.ready()
    broker.peer.stall(stalled=True)
    broker.peer.say(1, spec.Channel.Flow(active=False))
    broker.peer.deliver()
    [waits] = publish(client, 1, timeout=100)
    stopping = begin(broker, client)
    assert (place(client), waits.done()) == (Closing.PAUSED, False)
    broker.peer.stall(stalled=False)
    broker.peer.deliver()
    assert place(client) is Closing.PAUSED
    if ends:
        broker.peer.say(1, spec.Channel.Flow(active=True))
        work_off(broker)
        assert (outcome(waits), stopping.done(), broker.messages) == (None, True, ["m0"])
    else:
        broker.clock.advance(10.1)
        assert (outcome(waits), stopping.done(), broker.messages) == (NotReadyError, True, [])


def test_closing_while_blocked_ends_if_nothing_is_left(broker: Broker) -> None:
    """The last confirm may come although RabbitMQ blocks; and if nothing waits, nothing is waited for."""
    client = broker.ready()
    [sent] = publish(client, 1)
    broker.clock.turn()
    broker.peer.stall(stalled=True)
    broker.peer.deliver()
    client.close()
    broker.clock.advance(1)
    assert place(client) is Closing.PAUSED
    broker.peer.confirm_all()
    broker.clock.turn()
    assert (outcome(sent), place(client)) == (None, Closing.CLOSING_CONNECTION)


def lose_channel(broker: Broker) -> None:
    """RabbitMQ closes the channel."""
    broker.peer.close_channel(code=406, text="PRECONDITION_FAILED")
    broker.peer.deliver()


def lose_connection(broker: Broker) -> None:
    """The line is cut."""
    broker.peer.lose()


@pytest.mark.parametrize("blocked", [True, False])
@pytest.mark.parametrize("lose", [lose_channel, lose_connection])
def test_a_loss_ends_the_draining(broker: Broker, lose: Callable[[Broker], None], blocked: bool) -> None:
    """What waits is refused at once, for there will be no other channel; what was sent is unknown."""
    client = broker.ready(max_unconfirmed=1)
    sent, waits = publish(client, 2, timeout=100)
    broker.clock.turn()
    if blocked:
        broker.peer.stall(stalled=True)
        broker.peer.deliver()
    client.close()
    lose(broker)
    assert (outcome(sent), outcome(waits)) == (OutcomeUnknown, NotReadyError)
    assert "Closing" in str(waits.exception()) or "Closed" in str(waits.exception())
    broker.open()
    broker.clock.advance(2.1)
    assert (place(client), broker.messages) == (Closed.STOPPED, ["m0"])


def test_without_confirms_what_waits_goes_out_first_too(broker: Broker) -> None:
    """It is over when the socket has taken all of it."""
    client = broker.ready(enable_confirmations=False)
    broker.peer.slow_down(slow=True)
    futures = [client.publish("", "q", bytes(1024**2)) for _ in range(8)]
    broker.clock.turn()
    waits = [future for future in futures if not future.done()]
    assert waits
    stopping = begin(broker, client)
    assert (place(client), any(each.done() for each in waits)) == (Closing.DRAINING, False)
    broker.peer.slow_down(slow=False)
    broker.clock.advance(0.2)
    broker.open()
    assert (outcomes(futures), stopping.done(), len(broker.messages)) == ({None}, True, 8)


# With an outbox


@pytest.mark.parametrize("blocked", [True, False])
@pytest.mark.parametrize("limit", [4, 10])
def test_what_still_waits_at_half_time_is_stored(broker: Broker, limit: float, blocked: bool) -> None:
    """The disk needs time as well; what is on the wire may still be confirmed."""
    with tempfile.TemporaryDirectory() as path:
        client = broker.ready(outbox=path, max_unconfirmed=1)
        sent, waits, more = publish(client, 3, timeout=100)
        broker.clock.turn()
        if blocked:
            broker.peer.stall(stalled=True)
            broker.peer.deliver()
        client.close() if limit == 10 else client._runtime.lifecycle.close(limit=limit)
        broker.clock.advance(limit / 2 - 0.1)
        assert (sent.done(), waits.done(), more.done()) == (False, False, False)
        broker.clock.advance(0.2)
        assert (sent.done(), waits.result(), more.result()) == (False, STORED, STORED)
        assert place(client) is Closing.CONFIRMING
        broker.peer.confirm_all()
        broker.open()
        # An alarm keeps RabbitMQ from reading connection.close.
        broker.clock.advance(2.1 if blocked else 0)
        assert (sent.result(), place(client), broker.messages) == (None, Closed.STOPPED, ["m0"])
        again = broker.ready(outbox=path)
        work_off(broker)
        assert (broker.messages, again.counters.stored) == (["m0", "m1", "m2"], 0)


def test_after_half_time_a_publish_is_stored_and_a_lost_channel_ends_it(broker: Broker) -> None:
    """It is no outage, however long it takes."""
    told: list[Client] = []
    with tempfile.TemporaryDirectory() as path:
        client = broker.ready(outbox=path, max_unconfirmed=1, timeout=1, on_persistent_failure_callback=told.append)
        sent, _ = publish(client, 2, timeout=100)
        client.close()
        broker.clock.advance(7)
        late = client.publish("", "q", b"", {"message_id": "late"})
        broker.clock.advance(0.1)
        assert (place(client), client.recovers, told) == (Closing.CONFIRMING, False, [])
        assert (late.result(), sent.done()) == (STORED, False)
        lose_channel(broker)
        assert place(client) is Closing.CLOSING_CONNECTION
        broker.open()
        assert (place(client), sent.result()) == (Closed.STOPPED, STORED)


def test_the_last_confirm_at_half_time_still_ends_it(broker: Broker) -> None:
    """Both come in one turn of the loop, the confirm first."""
    with tempfile.TemporaryDirectory() as path:
        client = broker.ready(outbox=path)
        [sent] = publish(client, 1)
        broker.clock.turn()
        broker.clock.loop.call_later(5, broker.peer.confirm_all)
        client.close()
        broker.clock.advance(5)
        broker.open()
        assert (outcome(sent), place(client)) == (None, Closed.STOPPED)


def test_blocking_does_not_put_off_half_time(broker: Broker) -> None:
    """An alarm that comes and goes leaves the disk its half."""
    with tempfile.TemporaryDirectory() as path:
        client = broker.ready(outbox=path, max_unconfirmed=1)
        _, waits = publish(client, 2, timeout=100)
        client.close()
        for stalled in (True, False):
            broker.clock.advance(2)
            broker.peer.stall(stalled=stalled)
            broker.peer.deliver()
        broker.clock.advance(1.1)
        assert (waits.result(), place(client)) == (STORED, Closing.CONFIRMING)


def test_a_new_publish_is_stored_and_what_waits_goes_out(broker: Broker) -> None:
    """What is stored while it closes is for the next client: it makes nothing wait behind it."""
    with tempfile.TemporaryDirectory() as path:
        client = broker.ready(outbox=path, max_unconfirmed=1)
        futures = publish(client, 3, timeout=100)
        client.close()
        late = client.publish("", "q", b"", {"message_id": "late"})
        broker.clock.advance(0.1)
        assert (late.result(), [each.done() for each in futures]) == (STORED, [False] * 3)
        work_off(broker)
        assert (outcomes(futures), place(client)) == ({None}, Closed.STOPPED)
        assert [each.result() for each in futures] == [None] * 3
        assert broker.messages == ["m0", "m1", "m2"]
        broker.ready(outbox=path)
        work_off(broker)
        assert broker.messages == ["m0", "m1", "m2", "late"]


def test_a_disk_that_fails_while_it_closes_makes_nothing_wait_for_it(broker: Broker) -> None:
    """A message that could not be stored is refused; what waits goes out."""
    with tempfile.TemporaryDirectory() as path:
        client = broker.ready(outbox=path, outbox_limit=1024, max_unconfirmed=1)
        futures = publish(client, 3, timeout=100)
        client.close()
        refused = client.publish("", "q", bytes(2048))
        broker.clock.advance(0.1)
        assert outcome(refused) is NotReadyError
        again = client.publish("", "q", b"")
        broker.clock.advance(0.1)
        assert outcome(again) is NotReadyError
        work_off(broker)
        assert ([each.result() for each in futures], place(client)) == ([None] * 3, Closed.STOPPED)


def test_nothing_more_is_read_from_disk_while_it_closes(broker: Broker) -> None:
    """What is in memory goes out; the rest is for the next client."""
    with tempfile.TemporaryDirectory() as path:
        first = broker.client(outbox=path, timeout=0)
        broker.clock.turn()
        publish(first, 1200)
        broker.clock.advance(1)
        assert first.counters.stored == 1200
        broker.clock.run(first.shutdown(1))
        client = broker.client(outbox=path, max_unconfirmed=10)
        broker.open()
        broker.clock.advance(0.1)
        client.close()
        for _ in range(120):
            broker.open().peer.confirm_all()
            broker.clock.turn()
        assert (place(client), len(broker.messages)) == (Closed.STOPPED, 1000)
        assert broker.messages == [f"m{each}" for each in range(len(broker.messages))]


# Between pika's event and the transition


class Publishes(logging.Handler):
    """A handler on the root logger that publishes each record, as an application's might."""

    def __init__(self, client: Client, **options: Any) -> None:
        super().__init__()
        self.futures: list[asyncio.Future[Any]] = []
        self._client = client
        self._options = options
        self._exchange, self._key = "", "log"
        self._busy = False

    def emit(self, record: logging.LogRecord) -> None:
        """Publish the record, but none that this itself causes, nor one of another thread's."""
        if not self._busy and record.thread == threading.main_thread().ident:
            self._busy = True
            self.futures.append(self._client.publish(self._exchange, self._key, record.getMessage(), **self._options))
            self.futures[-1].add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            self._busy = False


#: What RabbitMQ or the line does, and what pika and the client log about it, both before they know what it means.
EVENTS: dict[str, Callable[[Broker], object]] = {
    "channel.close": lambda broker: broker.peer.close_channel(code=404, text="NOT_FOUND"),
    "connection.close": lambda broker: broker.peer.close_connection(320, "CONNECTION_FORCED"),
    "connection.blocked": lambda broker: broker.peer.stall(stalled=True),
    "channel.flow": lambda broker: broker.peer.say(1, spec.Channel.Flow(active=False)),
    "reset": lambda broker: broker.peer.lose(ConnectionResetError("reset")),
}


@pytest.mark.parametrize("timeout", [None, 0])
@pytest.mark.parametrize("event", EVENTS)
def test_what_a_log_handler_publishes_meanwhile_never_meets_a_closed_channel(
    broker: Broker, event: str, timeout: float | None
) -> None:
    """It waits until the lifecycle knows what happened: nothing goes out on a channel that RabbitMQ has closed."""
    root = logging.getLogger()
    client = broker.ready(reconnect_delay=0.5)
    handler = Publishes(client, timeout=timeout)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        before = client.counters.published
        EVENTS[event](broker)
        broker.peer.deliver()
        during = client.counters.published
        late = client.publish("", "q", b"", {"message_id": "late"})
        broker.clock.turn()
        assert (handler.futures != [], during, client.state) == (True, before, client.state)
        assert client.state is not State.READY or event == "channel.close"
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    if event in {"connection.blocked", "channel.flow"}:
        broker.peer.stall(stalled=False)
        broker.peer.say(1, spec.Channel.Flow(active=True))
    broker.clock.advance(1)
    work_off(broker)
    assert outcome(late) is None
    assert {outcome(each) for each in handler.futures} <= ({None} if timeout is None else {None, NotReadyError})
    assert broker.messages.count("late") == 1
    assert client.counters.published == client.counters.confirmed


def test_nothing_goes_out_between_the_end_of_a_connection_and_its_news(broker: Broker) -> None:
    """RabbitMQ has said connection.close; until pika reports it, which takes some turns, a publish waits."""
    broker.clings = True
    client = broker.ready(reconnect_delay=0.5)
    broker.peer.close_connection(320, "CONNECTION_FORCED")
    broker.peer.deliver()
    futures = publish(client, 3, timeout=100)
    broker.clock.turn()
    assert (client.ready, client.counters.published, client.waiting) == (True, 0, 3)
    broker.clings = False
    broker.peer.drop_later(None)
    broker.clock.advance(1)
    work_off(broker)
    assert (outcomes(futures), broker.messages) == ({None}, ["m0", "m1", "m2"])


def test_what_waited_for_pika_goes_out_afterwards(broker: Broker) -> None:
    """An event that ends nothing, such as a returned message, delays what is published meanwhile by one turn."""
    broker.unroutable.add("key")
    client: Any = broker.ready()
    futures: list[asyncio.Future[Any]] = []
    real = client.on_basic_return

    def on_basic_return(*arguments: Any) -> None:
        real(*arguments)
        futures.extend(publish(client, 2, timeout=0))
        assert client.counters.published == 1

    client.on_basic_return = on_basic_return
    client.publish("", "key", b"")
    broker.clock.turn()
    broker.peer.deliver()
    broker.clock.turn()
    work_off(broker)
    assert (outcomes(futures), client.counters.published) == ({None}, 3)
