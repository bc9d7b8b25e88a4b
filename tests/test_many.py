"""Publishing many messages: in a window, each with its outcome, in their order."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sprockets_amqp import Client, InvalidMessage, MessageNacked, MessageOutcome, MessageReturned
from sprockets_amqp.testing import Broker
from tests.support.consume import Queue

URL = "amqp://rabbit.example.com"


class Event(NamedTuple):
    """A message of an application's own class."""

    exchange: str
    routing_key: str
    body: bytes


class Numbers:
    """So many messages to the queue q, and how many of them were taken."""

    def __init__(self, count: int, size: int = 1) -> None:
        self._left = iter(range(count))
        self._size = size
        self.taken = 0

    def __iter__(self) -> Iterator[tuple[str, str, bytes]]:
        return self

    def __next__(self) -> tuple[str, str, bytes]:
        number = next(self._left)
        self.taken += 1
        return "", "q", b"%d" % number * self._size


class Coming(Numbers):
    """The same, asynchronously."""

    def __aiter__(self) -> AsyncIterator[tuple[str, str, bytes]]:
        return self

    async def __anext__(self) -> tuple[str, str, bytes]:
        await asyncio.sleep(0)
        with contextlib.suppress(StopIteration):
            return next(self)
        raise StopAsyncIteration


@pytest.fixture
def kit(amqp_broker: Broker) -> Broker:
    """A broker with the queue q."""
    amqp_broker.queue_declare("q")
    return amqp_broker


def bodies(outcomes: list[MessageOutcome]) -> list[int]:
    """Return the numbers of the messages."""
    return [int(outcome.message[2]) for outcome in outcomes]


async def all_of(client: Client, messages: Any, **options: Any) -> list[MessageOutcome]:
    """Publish messages, and return their outcomes."""
    return [outcome async for outcome in client.publish_many(messages, **options)]


@pytest.mark.parametrize("kind", [Numbers, Coming])
def test_each_message_has_its_outcome_in_order(kit: Broker, kind: type[Numbers]) -> None:
    """However many there are."""
    client = Client(URL, max_unconfirmed=10)
    outcomes = kit.run(all_of(client, kind(2500)))
    assert bodies(outcomes) == list(range(2500))
    assert all(outcome.confirmed for outcome in outcomes)
    assert [int(message.body) for message in kit.messages("q")] == list(range(2500))


@pytest.mark.parametrize("kind", [Numbers, Coming])
def test_no_more_are_taken_than_are_under_way(kit: Broker, kind: type[Numbers]) -> None:
    """As many as the client sends unconfirmed; so memory does not grow with their number."""
    client, messages = Client(URL, max_unconfirmed=10), kind(1000)
    kit.swallow_confirms()
    task = kit.clock.loop.create_task(all_of(client, messages))
    kit.advance(5)
    assert (len(kit.published), messages.taken) == (10, 10)
    kit.release_confirms()
    assert len(kit.run(asyncio.wait_for(task, 100))) == 1000


def test_large_bodies_take_more_room(kit: Broker) -> None:
    """Octets are bounded, too; one body may be larger."""
    client, messages = Client(URL, max_unconfirmed_size=250), Numbers(10, size=100)
    kit.swallow_confirms()
    task = kit.clock.loop.create_task(all_of(client, messages))
    kit.advance(5)
    assert messages.taken == 3
    kit.release_confirms()
    assert len(kit.run(asyncio.wait_for(task, 100))) == 10
    assert len(kit.run(all_of(Client(URL, max_unconfirmed_size=50), Numbers(3, size=100)))) == 3


def test_one_that_fails_harms_no_other(kit: Broker) -> None:
    """It is an outcome as any; what is no message is told as such."""
    client = Client(URL, fail_on_return=True)
    kit.queue_declare("full", max_length=1)
    given: list[Any] = [
        *(("", "q", b"1"), ("", "full", b"2"), ("", "full", b"3"), ("", "nowhere", b"4"), ("", "q", 5), ("", "q")),
        *(
            "text",
            ["", "q", b"7"],
            ("", "q", "8", {"message_id": "m"}),
            ("", "q", b"9", None),
            *(("", "q", b"", {"x": 1}), Event("", "q", b"10")),
        ),
    ]
    outcomes = kit.run(all_of(client, given))
    kinds = [type(outcome.error) for outcome in outcomes]
    fine = type(None)
    assert kinds == [
        *(fine, fine, MessageNacked, MessageReturned, InvalidMessage, InvalidMessage),
        *(InvalidMessage, InvalidMessage, fine, fine, InvalidMessage, fine),
    ]
    assert [outcome.message for outcome in outcomes] == given
    assert "a tuple of exchange, routing key, body and perhaps properties, not 'text'" in str(outcomes[6].error)
    assert [message.body for message in kit.messages("q")] == [b"1", b"8", b"9", b"10"]


class Nameless:
    """A thing that has no repr."""

    def __repr__(self) -> str:
        raise ValueError("no repr")


def test_what_is_odd_harms_no_other(kit: Broker) -> None:
    """It has an outcome like any other."""
    view = memoryview(b"x")
    view.release()
    messages: list[Any] = [("", "q", b"1"), ("", "q", view), Nameless(), ("", "q", b"2")]

    async def publish() -> list[Any]:
        async with Client(URL) as client:
            return [type(each.error) async for each in client.publish_many(messages)]

    assert kit.run(publish()) == [type(None), InvalidMessage, InvalidMessage, type(None)]


def test_a_source_that_the_body_feeds_goes_on(kit: Broker) -> None:
    """It has room as soon as an outcome is told, even if the body waits for what it does with that."""

    async def publish() -> int:
        queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=4)

        async def source() -> AsyncIterator[Any]:
            while (message := await queue.get()) is not None:
                yield message

        async with Client(URL, max_unconfirmed=4) as client:
            for number in range(4):
                queue.put_nowait(("", "q", b"%d" % number))
            told = 0
            async for _ in client.publish_many(source()):
                told += 1
                while told == 1 and not queue.full():
                    queue.put_nowait(("", "q", b"more"))
                if told <= 20:
                    await queue.put(("", "q", b"again"))
                if told == 28:
                    await queue.put(None)
            return told

    assert kit.run(asyncio.wait_for(publish(), 60)) == 28


def test_what_is_nacked_after_it_was_left_is_not_logged(kit: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody asks for it any more."""

    async def publish() -> tuple[int, int]:
        async with Client(URL) as client:
            await client.publish("", "q", b"")
            kit.swallow_confirms()
            kit.nack_next(3)
            outcomes = client.publish_many([("", "q", b"1")] * 3)
            left = asyncio.ensure_future(anext(aiter(outcomes)))
            while client.unconfirmed < 3:
                await asyncio.sleep(0)
            left.cancel()
            await asyncio.wait([left])
            kit.release_confirms()
            while client.unconfirmed:
                await asyncio.sleep(0)
            return len(outcomes.untold), client.counters.nacked

    assert kit.run(publish()) == (3, 3)
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_options_are_those_of_publish(kit: Broker) -> None:
    """And count for each message."""
    client = Client(URL, fail_on_return=True)
    assert [each.confirmed for each in kit.run(all_of(client, [("", "nowhere", b"")], mandatory=False))] == [True]
    with pytest.raises(TypeError, match="publish_many\\(\\) has no option 'time_out'"):
        kit.run(all_of(client, [], time_out=5))
    with pytest.raises(TypeError, match="not iterable"):
        kit.run(all_of(client, 5))
    assert kit.run(all_of(client, [])) == []


def test_what_comes_slowly_has_its_outcome_at_once(kit: Broker) -> None:
    """Nobody waits for the next message to hear of the last one."""
    client = Client(URL)
    told: list[tuple[int, float]] = []
    loop = kit.clock.loop

    async def slow() -> AsyncIterator[tuple[str, str, bytes]]:
        for number in range(3):
            await asyncio.sleep(10)
            yield "", "q", b"%d" % number

    async def collect() -> None:
        began = loop.time()
        outcomes = client.publish_many(slow())
        told.extend([(int(each.message[2]), round(loop.time() - began)) async for each in outcomes])

    kit.run(collect())
    assert told == [(0, 10), (1, 20), (2, 30)]


def broken(numbers: Numbers) -> Iterator[tuple[str, str, bytes]]:
    """Raise after the numbers."""
    yield from numbers
    raise ConnectionError("the database is gone")


async def broken_coming(numbers: Coming) -> AsyncIterator[tuple[str, str, bytes]]:
    """The same, asynchronously."""
    async for number in numbers:
        yield number
    raise ConnectionError("the database is gone")


@pytest.mark.parametrize(
    "messages", [lambda: broken(Numbers(5)), lambda: broken_coming(Coming(5))], ids=["sync", "async"]
)
def test_what_the_messages_raise_comes_after_the_outcomes(kit: Broker, messages: Any) -> None:
    """What was taken before is published as ever."""
    told: list[MessageOutcome] = []
    client = Client(URL, max_unconfirmed=2)

    async def collect() -> None:
        async for outcome in client.publish_many(messages()):
            told.append(outcome)  # noqa: PERF401 - a comprehension has nothing when it raises

    with pytest.raises(ConnectionError, match="the database is gone"):
        kit.run(collect())
    assert bodies(told) == list(range(5))


@pytest.mark.parametrize("kind", [Numbers, Coming])
def test_a_cancelled_iteration_tells_what_was_not_sent(kit: Broker, kind: type[Numbers]) -> None:
    """What waits is withdrawn; what is on the wire may arrive."""
    client = Client(URL, max_unconfirmed=3)
    kit.swallow_confirms()
    first = client.publish_many(kind(100))

    async def collect(outcomes: Any) -> None:
        async for _ in outcomes:
            pass

    task = kit.clock.loop.create_task(collect(first))
    kit.advance(1)
    # The line is longer than what may be unconfirmed: these wait.
    second = client.publish_many(kind(100))
    other = kit.clock.loop.create_task(collect(second))
    kit.advance(1)
    for each in (task, other):
        each.cancel()
        with pytest.raises(asyncio.CancelledError):
            kit.run(asyncio.wait_for(each, 10))
    assert ([message[2] for message in first.untold], first.not_sent) == ([b"0", b"1", b"2"], [])
    assert ([message[2] for message in second.not_sent], second.untold) == ([b"0", b"1", b"2"], [])
    kit.release_confirms()
    kit.advance(1)
    assert len(kit.messages("q")) == 3
    assert (client.counters.waiting, client.counters.unconfirmed) == (0, 0)


@pytest.mark.parametrize("kind", [Numbers, Coming])
def test_a_loop_that_is_left_takes_no_more(kit: Broker, kind: type[Numbers]) -> None:
    """At once with aclosing, or when Python sees that nobody goes on."""
    client, closed, left = Client(URL, max_unconfirmed=10), kind(1000), kind(1000)

    async def leave() -> None:
        async with contextlib.aclosing(aiter(client.publish_many(closed))) as outcomes:
            async for outcome in outcomes:
                assert outcome.confirmed
                break
        taken = closed.taken
        async for _ in client.publish_many(left):
            break
        gc.collect()
        await asyncio.sleep(1)
        assert (closed.taken, left.taken <= 30) == (taken, True)

    kit.run(leave())
    assert not asyncio.all_tasks(kit.clock.loop)


@pytest.mark.parametrize("kind", [Numbers, Coming])
def test_a_finished_one_tells_what_was_taken(kit: Broker, kind: type[Numbers]) -> None:
    """And takes no more."""
    client, messages = Client(URL, max_unconfirmed=10), kind(1000)

    async def collect() -> int:
        count = 0
        outcomes = client.publish_many(messages)
        async for _ in outcomes:
            count += 1
            outcomes.finish()
        assert "0 messages under way" in repr(outcomes)
        return count

    assert kit.run(collect()) == len(kit.messages("q")) <= messages.taken <= 20


def test_it_is_iterated_over_once(kit: Broker) -> None:
    """A second time would publish nothing, and say nothing."""
    client = Client(URL)

    async def twice() -> None:
        outcomes = client.publish_many(Numbers(3))
        assert len([each async for each in outcomes]) == 3
        with pytest.raises(RuntimeError, match="once"):
            aiter(outcomes)

    kit.run(twice())


def test_messages_that_are_stored_are_told_as_such(kit: Broker, tmp_path: Path) -> None:
    """They are on disk, and come when RabbitMQ does."""
    client = Client(URL, outbox=tmp_path)
    kit.stop()
    outcomes = kit.run(all_of(client, Numbers(20)))
    assert {(outcome.stored, outcome.confirmed, outcome.error) for outcome in outcomes} == {(True, False, None)}
    kit.start()
    kit.run(client.flush(600))
    assert [int(message.body) for message in kit.messages("q")] == list(range(20))


async def test_another_loop_is_refused(amqp_broker: Broker) -> None:
    """As `publish` refuses it."""
    client = Client(URL)
    async with client:
        with pytest.raises(RuntimeError, match="another thread"):
            await asyncio.to_thread(client.publish_many, Numbers(1))


async def test_rabbitmq_has_them_in_order(queue: Queue) -> None:
    """Several windows of them."""
    count = 5000
    messages = ((queue.exchange, queue.routing_key, b"%d" % number) for number in range(count))
    async with Client(queue.url, max_unconfirmed=100) as client:
        outcomes = await all_of(client, messages)
    assert all(outcome.confirmed for outcome in outcomes)
    assert [int(message.body) for message in await queue.messages()] == list(range(count))
