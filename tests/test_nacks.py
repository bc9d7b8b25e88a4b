"""A channel on which RabbitMQ nacks without end is replaced; a queue that is merely full is not harmed by it."""

import asyncio
from typing import Any

import pytest
from pika import spec

from sprockets_amqp import STORED, Client, MessageNacked, NotReadyError, State
from sprockets_amqp.delivery import nacks
from sprockets_amqp.delivery.nacks import LASTING, LEAST, LONGEST, LONGEST_PAUSE, MOST, Nacks
from sprockets_amqp.delivery.publisher import CLEAR_LIMIT
from sprockets_amqp.states import Closing, Connecting
from tests.support.memory import Broker, in_memory, outcome
from tests.test_outbox import folder
from tools.rabbitmq import Node

broker = in_memory

#: Where messages are nacked, and where they are not.
STALE = "stale"
SOUND = "sound"


class Run:
    """A client that publishes every so often to both, and a RabbitMQ that nacks what goes to one of them."""

    def __init__(self, broker: Broker, client: Client | None = None, *, every: float = 1.0) -> None:
        self.broker = broker
        self.client = client or broker.ready(timeout=60)
        self.every = every
        self.futures: dict[str, list[asyncio.Future[None]]] = {STALE: [], SOUND: []}
        #: Until how often the channel was replaced, RabbitMQ nacks.
        self.stale_until: float = 1

    @property
    def replaced(self) -> int:
        """How often the channel was replaced."""
        return sum(change.trigger == "nacks_lasted" for change in self.client.history)

    def answer(self) -> None:
        """Answer each message."""
        peer = self.broker.peer
        for channel, tags in list(peer.unconfirmed.items()):
            for tag in list(tags):
                is_stale = peer.messages[channel, tag].routing_key == STALE and self.replaced < self.stale_until
                peer.confirm(tag, channel=channel, nack=is_stale)
        peer.deliver()
        self.broker.clock.turn()

    def last(self, seconds: float) -> None:
        """Publish for so long."""
        end = self.broker.clock.now + seconds
        while self.broker.clock.now < end:
            for key, futures in self.futures.items():
                futures.append(self.client.publish("", key, b""))
                futures[-1].add_done_callback(lambda ended: ended.exception())
            self.broker.clock.advance(0.1)
            self.answer()
            # RabbitMQ answers channel.close, and opens another.
            for _ in range(6):
                self.broker.peer.deliver()
                self.broker.clock.turn()
            self.broker.clock.advance(self.every - 0.1)
        self.broker.clock.advance(1)
        self.answer()

    def outcomes(self, key: str) -> list[object]:
        """What became of each message."""
        return [outcome(future) for future in self.futures[key]]


def test_a_channel_on_which_all_is_nacked_is_replaced(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """After ten seconds; nothing else comes to harm, and from then on everything is confirmed."""
    run = Run(broker)
    run.last(30)
    assert run.replaced == 1
    nacked = run.outcomes(STALE).count(MessageNacked)
    assert LASTING <= nacked <= LASTING + 2
    assert run.outcomes(STALE)[nacked:] == [None] * (len(run.futures[STALE]) - nacked)
    assert set(run.outcomes(SOUND)) == {None}
    assert run.client.counters.reconnects == 0
    [line] = [record.getMessage() for record in caplog.records if "opening another channel" in record.getMessage()]
    assert f"RabbitMQ has nacked {nacked} messages in a row to '' with routing key 'stale'" in line
    changes = [(change.source, change.dest) for change in run.client.history[-2:]]
    assert changes == [(State.READY, State.CONNECTING), (State.CONNECTING, State.READY)]


def test_a_full_queue_costs_ever_fewer_channels(broker: Broker) -> None:
    """Each time that it has not helped, it takes twice as long until it is tried again; the others do not notice."""
    run = Run(broker, every=5)
    run.stale_until = float("inf")
    run.last(4 * 3600)
    # 10, 20, 40 ... 600 s, and then every ten minutes.
    assert 25 <= run.replaced <= 30
    assert set(run.outcomes(STALE)) == {MessageNacked}
    assert set(run.outcomes(SOUND)) == {None}
    assert run.client.counters.reconnects == 0
    run.stale_until = 0
    run.last(60)
    assert run.outcomes(STALE)[-10:] == [None] * 10


def test_a_queue_that_is_full_at_times_keeps_its_channel(broker: Broker) -> None:
    """An ack in between says that the channel is not to blame."""
    run = Run(broker)
    for _ in range(20):
        run.stale_until = float("inf")
        run.last(LASTING - 3)
        run.stale_until = 0
        run.last(2)
    assert run.replaced == 0


def held_up(run: Run) -> tuple[Any, list[int], int]:
    """Have RabbitMQ nack for long enough while one message is unconfirmed: return its publish, its list and its tag."""
    run.stale_until = float("inf")
    run.last(LASTING - 1)
    slow = run.client.publish("", SOUND, b"")
    slow.add_done_callback(lambda ended: ended.exception())
    run.broker.clock.advance(0.1)
    [tags] = [tags for tags in run.broker.peer.unconfirmed.values() if tags]
    tag = tags.pop(0)
    for _ in range(4):
        if run.client._runtime.publisher._clears:
            break
        run.client.publish("", STALE, b"").add_done_callback(lambda ended: ended.exception())
        run.broker.clock.advance(0.5)
        run.answer()
    return slow, tags, tag


def test_nothing_is_closed_under_what_is_unconfirmed(broker: Broker) -> None:
    """What waits meanwhile goes out afterwards in order; after a while the client goes on with its old channel."""
    run = Run(broker)
    slow, tags, tag = held_up(run)
    client, clock = run.client, broker.clock
    waiting = [client.publish("", SOUND, b"", {"message_id": f"m{number}"}, timeout=60) for number in range(3)]
    at_once = client.publish("", SOUND, b"", timeout=0)
    clock.turn()
    assert outcome(at_once) is NotReadyError
    assert "RabbitMQ has nacked" in str(at_once.exception()) and "another channel" in str(at_once.exception())
    assert (client.waiting, client.state, run.replaced) == (3, State.READY, 0)
    clock.advance(CLEAR_LIMIT)
    run.answer()
    assert broker.messages[-3:] == ["m0", "m1", "m2"]
    assert [outcome(future) for future in waiting] == [None] * 3
    assert not slow.done() and run.replaced == 0
    tags.append(tag)
    broker.peer.confirm_all()
    clock.turn()
    assert outcome(slow) is None


def test_the_channel_is_replaced_once_the_last_one_is_confirmed(broker: Broker) -> None:
    """Even if nothing waits."""
    run = Run(broker)
    slow, tags, tag = held_up(run)
    assert run.replaced == 0
    tags.append(tag)
    broker.peer.confirm_all()
    broker.clock.turn()
    broker.clock.turn()
    assert (outcome(slow), run.replaced) == (None, 1)
    broker.open()


def test_what_is_never_confirmed_holds_nothing_up(broker: Broker) -> None:
    """A queue without a majority beside a full one: the others are published to as ever."""
    run = Run(broker)
    run.stale_until = float("inf")
    client, clock = run.client, broker.clock
    client.publish("", SOUND, b"").add_done_callback(lambda ended: ended.exception())
    clock.advance(0.1)
    [tags] = [tags for tags in broker.peer.unconfirmed.values() if tags]
    tags.pop(0)
    run.last(10 * LASTING)
    assert set(run.outcomes(SOUND)) == {None}
    assert run.replaced == 0


@pytest.mark.parametrize("settings", [{"timeout": 0}, {"enable_confirmations": False}], ids=str)
def test_where_nothing_may_wait_the_channel_stays(broker: Broker, settings: dict[str, Any]) -> None:
    """Nor is anybody told of an outage."""
    told: list[object] = []
    client = broker.ready(on_persistent_failure_callback=lambda *_: told.append(_), **settings)
    told.clear()
    run = Run(broker, client)
    run.stale_until = float("inf")
    run.last(3 * LASTING)
    assert (run.replaced, told) == (0, [])


def test_setup_is_not_run_again(broker: Broker) -> None:
    """What it declared is there."""
    runs: list[object] = []

    async def setup(topology: object) -> None:
        runs.append(topology)

    run = Run(broker, broker.ready(timeout=60, setup=setup))
    run.last(30)
    assert (run.replaced, len(runs)) == (1, 1)


@pytest.mark.parametrize("meanwhile", ["close", "block", "lose", "close the channel"])
def test_what_happens_meanwhile_comes_first(broker: Broker, meanwhile: str) -> None:
    """While the last confirm is awaited, anything may happen: what waits ends well, and nothing stays held up."""
    run = Run(broker)
    _, tags, slow = held_up(run)
    client, clock = run.client, broker.clock
    waiting = client.publish("", SOUND, b"", timeout=60)
    clock.turn()
    assert (client.waiting, client.state) == (1, State.READY)
    run.stale_until = 0
    if meanwhile == "close":
        client.close()
        clock.turn()
        assert client.substate is Closing.DRAINING
        tags.insert(0, slow)
    elif meanwhile == "block":
        broker.peer.say(0, spec.Connection.Blocked("low on memory"))
        broker.peer.deliver()
        clock.advance(2 * CLEAR_LIMIT)
        assert (client.state, client.waiting) == (State.BLOCKED, 1)
        broker.peer.say(0, spec.Connection.Unblocked())
        broker.peer.deliver()
    elif meanwhile == "lose":
        broker.peer.lose()
        clock.advance(10)
        broker.open()
    else:
        broker.peer.close_channel(1, 406, "PRECONDITION_FAILED")
        for _ in range(6):
            broker.peer.deliver()
            clock.advance(0.1)
    clock.turn()
    run.answer()
    assert outcome(waiting) is None
    assert run.replaced == 0


def test_a_channel_close_that_is_not_answered_costs_the_connection(broker: Broker) -> None:
    """RabbitMQ has some seconds; then the client connects anew, and what waited goes out."""
    run = Run(broker)
    client, clock = run.client, broker.clock
    run.last(LASTING - 1)
    while not run.replaced:
        client.publish("", STALE, b"").add_done_callback(lambda ended: ended.exception())
        clock.advance(1)
        run.answer()
    assert client.substate is Connecting.CLOSING_CHANNEL
    waiting = client.publish("", SOUND, b"", timeout=60)
    broker.peer.outbox.clear()
    clock.advance(2.1)
    assert "RabbitMQ did not answer channel.close in time" in client.condition
    clock.advance(10)
    broker.open()
    clock.turn()
    run.answer()
    assert outcome(waiting) is None


def test_what_is_stored_goes_out_on_the_new_channel(broker: Broker) -> None:
    """A stored message that is nacked is tried again and again, while others are behind it."""
    with folder() as path:
        client = broker.client(outbox=path, timeout=1, max_unconfirmed=1)
        broker.clock.advance(2)
        stored = [client.publish("", key, b"") for key in [STALE, SOUND] * 15]
        broker.clock.advance(1)
        assert {future.result() for future in stored} == {STORED}
        run = Run(broker, client)
        broker.open()
        held = 0
        for _ in range(100):
            broker.clock.advance(1)
            run.answer()
            broker.open()
            if not run.replaced:
                held = client.counters.stored
        # While others were left to send.
        assert (run.replaced, client.counters.stored) == (1, 0)
        assert held > 10
        broker.shut_down()


# When it is due


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.nacks = Nacks(lambda: self.now)

    def nack(self, *keys: str) -> str:
        """Nack messages with these routing keys."""
        return self.nacks.nacked([_publish(key) for key in keys])

    def ack(self, *keys: str) -> None:
        """Ack messages with these routing keys."""
        self.nacks.acked([_publish(key) for key in keys])

    def until_due(self, key: str = "a", step: float = 1.0) -> float:
        """Nack until it is due; return how long that took."""
        begin = self.now
        while not self.nack(key):
            self.now += step
        return self.now - begin


def _publish(key: str) -> Any:
    message = type("Message", (), {"exchange": "x", "routing_key": key})
    return type("Publish", (), {"message": message})


def test_it_takes_twice_as_long_each_time_up_to_a_limit() -> None:
    """As long as it does not help."""
    clock = Clock()
    took = [clock.until_due() for _ in range(10)]
    expected = [min(LASTING * 2**number, LONGEST) for number in range(10)]
    assert all(wanted <= each <= wanted + LEAST for each, wanted in zip(took, expected, strict=True))


def test_help_or_calm_makes_it_begin_again() -> None:
    """An ack right after the channel was replaced, or a long time without a run."""
    for ends in ("help", "calm"):
        clock = Clock()
        for _ in range(4):
            clock.until_due()
        if ends == "help":
            clock.ack("a")
        else:
            clock.now += 2 * LONGEST
        assert clock.until_due() <= LASTING + LEAST, ends


def test_an_ack_after_a_nack_is_no_help() -> None:
    """The queue was full, and has room now."""
    clock = Clock()
    for _ in range(4):
        clock.until_due()
    clock.nack("a")
    clock.ack("a")
    # But it begins anew, and there is a pause between two channels.
    assert LASTING < clock.until_due() <= LONGEST_PAUSE + LEAST


def test_few_nacks_are_no_run() -> None:
    """However far apart they are."""
    clock = Clock()
    for _ in range(LEAST - 1):
        assert clock.nack("a") == ""
        clock.now += 100
    assert clock.nack("a")


def test_each_destination_has_its_own_run() -> None:
    """Acks elsewhere do not end it; those of ever new routing keys do not push it out, and take little memory."""
    clock = Clock()
    for number in range(int(LASTING)):
        assert clock.nack("a") == ""
        clock.ack("b")
        assert clock.nack(*(f"{number}.{each}" for each in range(MOST // 2))) == ""
        clock.now += 1
    assert len(clock.nacks._runs) <= MOST
    assert "with routing key 'a'" in clock.nack("a")


def test_a_full_queue_does_not_delay_the_cure_of_another() -> None:
    """For longer than the pause between two channels."""
    clock = Clock()
    for _ in range(8):
        clock.until_due("full")
    begin, due = clock.now, ""
    while "'b'" not in due:
        clock.now += 1
        due = clock.nack("full") or clock.nack("b")
    assert clock.now - begin <= LONGEST_PAUSE + LASTING + LEAST


def test_what_is_not_published_to_any_more_is_forgotten() -> None:
    """An ack costs no more than before."""
    clock = Clock()
    clock.nack("a")
    assert clock.nacks
    clock.now += LONGEST + 1
    clock.ack("b")
    assert not clock.nacks


def test_after_a_loss_it_is_counted_anew() -> None:
    """Another channel is used by then; how long it has to last is still known."""
    clock = Clock()
    clock.until_due()
    clock.now += LASTING
    clock.nack("a")
    clock.nacks.begin_again()
    assert 2 * LASTING <= clock.until_due() <= 2 * LASTING + LEAST


# On RabbitMQ


async def test_a_full_queue_on_rabbitmq(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything to it is nacked, and nothing else; what is free again is used. With times of a tenth of a second."""
    monkeypatch.setattr(nacks, "LASTING", 0.1)
    monkeypatch.setattr(nacks, "LONGEST", 0.8)
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}

    async def setup(topology: Any) -> None:
        await topology.queue_declare("full", durable=True, arguments=arguments)
        await topology.queue_declare("empty", durable=True)

    async with Client(node.url, setup=setup) as client:
        await client.wait_for(State.READY, 30)
        await client.publish("", "full", b"")
        refused: list[asyncio.Future[None]] = []
        taken: list[asyncio.Future[None]] = []

        async def publish() -> None:
            while len([change for change in client.history if change.trigger == "nacks_lasted"]) < 4:
                refused.append(client.publish("", "full", b""))
                taken.extend(client.publish("", "empty", b"") for _ in range(10))
                await asyncio.wait(taken[-10:])

        await asyncio.wait_for(publish(), 60)
        outcomes = {type(each) for each in await asyncio.gather(*refused, return_exceptions=True)}
        assert outcomes == {MessageNacked}
        assert await asyncio.gather(*taken) == [None] * len(taken)
        assert client.counters.reconnects == 0
        await node.ctl("purge_queue", "full")
        await client.publish("", "full", b"")
    for queue in ("full", "empty"):
        await node.ctl("delete_queue", queue)


def test_names_are_told_as_they_are_safe(broker: Broker) -> None:
    """A routing key comes from a stranger."""
    clock = Clock()
    evil = "a\nERROR \x1b[31m"
    clock.until_due(evil)
    clock.nacks.begin_again()
    told = ""
    while not told:
        told = clock.nack(evil)
        clock.now += 1
    assert told.isprintable()
