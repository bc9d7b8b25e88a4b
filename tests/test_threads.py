"""Publishing from threads: in the order of each, and nothing waits for ever."""

import asyncio
import concurrent.futures
import contextvars
import itertools
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from examples import log_handler
from sprockets_amqp import (
    Client,
    InvalidMessage,
    MessageReturned,
    NotReadyError,
    OutcomeUnknown,
    Publish,
    State,
    threads,
)
from sprockets_amqp.testing import Broker
from tests.support.consume import Queue

URL = "amqp://rabbit.example.com"
LIMIT = 20


@pytest.fixture
def kit(amqp_broker: Broker) -> Broker:
    """A broker with the queue q, for coroutines."""
    amqp_broker.queue_declare("q")
    return amqp_broker


async def in_thread(work: Callable[[], Any]) -> Any:
    """Run something in a thread of its own, which no executor waits for."""
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()

    def run() -> None:
        try:
            outcome, told = work(), done.set_result
        except Exception as error:
            outcome, told = error, done.set_exception
        loop.call_soon_threadsafe(told, outcome)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wait_for(done, LIMIT)


async def test_each_thread_publishes_in_its_order(kit: Broker) -> None:
    """However many there are; each result comes back to its own."""
    count = 200

    def work(thread: int) -> int:
        futures = [client.publish_threadsafe("", "q", b"%d %d" % (thread, number)) for number in range(count)]
        return sum(future.result(LIMIT) is None for future in futures)

    async with Client(URL) as client:
        results = await asyncio.gather(*(asyncio.to_thread(work, thread) for thread in range(4)))
    assert results == [count] * 4
    published = [tuple(map(int, message.body.split())) for message in kit.messages("q")]
    assert len(published) == 4 * count
    for thread in range(4):
        assert [number for each, number in published if each == thread] == list(range(count))


async def test_what_a_publish_raises_comes_back(kit: Broker) -> None:
    """To the thread; what is misspelt, too."""
    async with Client(URL, fail_on_return=True) as client:

        def work(arguments: tuple[Any, ...], options: Any) -> None:
            client.publish_threadsafe(*arguments, **options).result(LIMIT)

        cases: list[tuple[tuple[Any, ...], Any, type[Exception]]] = [
            (("", "nowhere", b""), {}, MessageReturned),
            (("", "q", 5), {}, InvalidMessage),
            (("", "q", b""), {"time_out": 5}, TypeError),
        ]
        for arguments, options, error in cases:
            with pytest.raises(error):
                await asyncio.to_thread(
                    lambda a, o: client.publish_threadsafe(*a, **o).result(LIMIT), arguments, options
                )
        assert await asyncio.to_thread(lambda: client.publish_threadsafe("", "q", b"").result(LIMIT)) is None
    assert len(kit.messages("q")) == 1


async def test_the_loops_own_thread_is_told_to_use_publish(kit: Broker) -> None:
    """It would wait for itself."""
    async with Client(URL) as client:
        with pytest.raises(RuntimeError, match=r"use publish\(\) here"):
            client.publish_threadsafe("", "q", b"")


def test_a_thread_that_has_yet_to_run_the_loop_is_told(kit: Broker) -> None:
    """It would wait for itself, too."""
    client = Client(URL)
    with pytest.raises(RuntimeError, match=r"use publish\(\) here"):
        client.publish_threadsafe("", "q", b"")


async def test_one_that_is_cancelled_in_time_is_not_published(kit: Broker) -> None:
    """The loop takes it later than that."""
    async with Client(URL) as client:

        def work() -> bool:
            # The loop waits for this thread.
            future = client.publish_threadsafe("", "q", b"1")
            other = client.publish_threadsafe("", "q", b"2")
            cancelled = future.cancel()
            gone.set()
            return cancelled and other.result(LIMIT) is None

        gone = threading.Event()
        working = asyncio.ensure_future(in_thread(work))
        await asyncio.sleep(0)
        gone.wait(LIMIT)
        assert await working
    assert [message.body for message in kit.messages("q")] == [b"2"]


@pytest.mark.parametrize(("sent", "error"), [(True, OutcomeUnknown), (False, NotReadyError)])
def test_a_loop_that_ends_ends_what_is_left(kit: Broker, sent: bool, error: type[Exception]) -> None:
    """Whoever waits in a thread goes on; so does whoever comes later."""
    clients: list[Client] = []
    futures: list[concurrent.futures.Future[Any]] = []

    async def main() -> None:
        client = Client(URL, timeout=600)
        clients.append(client)
        if sent:
            await client.publish("", "q", b"")
            kit.swallow_confirms()
        else:
            kit.stop()
        futures.append(await asyncio.to_thread(client.publish_threadsafe, "", "q", b"left"))
        while not (client.counters.unconfirmed if sent else client.counters.waiting):
            await asyncio.sleep(0)

    asyncio.run(main())
    with pytest.raises(error, match="the client's event loop has ended"):
        futures[0].result(LIMIT)
    with concurrent.futures.ThreadPoolExecutor() as executor:
        for _ in range(3):
            late = executor.submit(lambda: clients[0].publish_threadsafe("", "q", b"late").result(LIMIT))
            with pytest.raises(NotReadyError, match="the client's event loop has ended"):
                late.result(LIMIT)


@pytest.mark.parametrize("taken", [True, False])
def test_a_loop_that_is_closed_ends_what_a_thread_waits_for(kit: Broker, taken: bool) -> None:
    """As Tornado's is, which cancels no task: whether the loop knew of the publish or not."""
    loop = asyncio.new_event_loop()
    clients: list[Client] = []

    async def make() -> None:
        clients.append(Client(URL, timeout=600))
        await clients[0].publish("", "q", b"")
        kit.swallow_confirms()

    async def arrived() -> None:
        while not clients[0].unconfirmed:
            await asyncio.sleep(0)

    loop.run_until_complete(make())
    with concurrent.futures.ThreadPoolExecutor() as executor:
        future = executor.submit(clients[0].publish_threadsafe, "", "q", b"left").result(LIMIT)
        waiting = executor.submit(future.exception, LIMIT)
        if taken:
            loop.run_until_complete(arrived())
        loop.close()
        assert isinstance(waiting.result(LIMIT), OutcomeUnknown if taken else NotReadyError)


async def test_the_loop_goes_on_while_a_thread_publishes_without_end(kit: Broker) -> None:
    """So many are taken in a turn, and then everything else has its turn."""
    async with Client(URL) as client:
        await client.wait_for(State.READY, LIMIT)
        turns: list[int] = []

        def count() -> None:
            turns.append(len(kit.published))
            if len(kit.published) < 10 * threads.TURN:
                asyncio.get_running_loop().call_soon(count)

        def work() -> list[Any]:
            return [client.publish_threadsafe("", "q", b"") for _ in range(10 * threads.TURN)]

        # The loop waits for the thread, which then has published everything.
        with concurrent.futures.ThreadPoolExecutor() as executor:
            futures = executor.submit(work).result(LIMIT)
        count()
        await asyncio.gather(*map(asyncio.wrap_future, futures))
    assert max(later - before for before, later in itertools.pairwise(turns)) <= threads.TURN


async def test_each_message_is_published_as_it_was_and_in_its_context(kit: Broker) -> None:
    """A buffer, properties and headers may be used again; what observes it sees the thread's own context."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="")
    seen: list[str] = []

    class Watches:
        def publishing(self, _publish: Publish) -> None:
            seen.append(name.get())

    def work() -> None:
        body, properties = bytearray(b"0"), {"message_id": "m0", "headers": {"n": ["0"]}}
        for number in range(1, 4):
            name.set(f"m{number}")
            properties["message_id"] = f"m{number}"
            properties["headers"]["n"][0] = str(number)  # type: ignore[index]
            body[:] = str(number).encode()
            view = memoryview(body)
            client.publish_threadsafe("", "q", view if number == 2 else body, properties)
            view.release()

    async with Client(URL) as client:
        client.observe(Watches())
        with concurrent.futures.ThreadPoolExecutor() as executor:
            executor.submit(work).result(LIMIT)
        await client.wait_for(State.READY, LIMIT)
        while len(seen) < 3:
            await asyncio.sleep(0)
        await client.flush(LIMIT)
    told = [(each.body, each.properties.message_id, each.properties.headers) for each in kit.messages("q")]
    assert told == [(b"%d" % number, f"m{number}", {"n": [str(number)]}) for number in range(1, 4)]
    assert seen == ["m1", "m2", "m3"]


async def test_what_cannot_be_copied_is_an_invalid_message(kit: Broker) -> None:
    """As with publish(): a view that was released, and a header that is nothing that AMQP has."""
    view = memoryview(b"x")
    view.release()
    messages: list[Any] = [("", "q", view), ("", "q", b"", {"headers": {"lock": threading.Lock()}})]
    async with Client(URL) as client:
        for message in messages:
            future = await asyncio.to_thread(client.publish_threadsafe, *message)
            with pytest.raises(InvalidMessage):
                await asyncio.wrap_future(future)


async def test_cancelled_tasks_alone_are_no_end(kit: Broker) -> None:
    """The loop goes on, and takes messages again."""
    async with Client(URL) as client:
        kit.swallow_confirms()
        left = await asyncio.to_thread(client.publish_threadsafe, "", "q", b"1")
        while not client.counters.unconfirmed:
            await asyncio.sleep(0)
        me = asyncio.current_task()
        for task in asyncio.all_tasks():
            if task is not me:
                task.cancel()
        with pytest.raises(OutcomeUnknown):
            await asyncio.to_thread(left.result, LIMIT)
        kit.release_confirms()

        async def again() -> object:
            while True:
                try:
                    return await asyncio.to_thread(lambda: client.publish_threadsafe("", "q", b"2").result(LIMIT))
                except NotReadyError:
                    await asyncio.sleep(0.05)

        assert await asyncio.wait_for(again(), LIMIT) is None
    assert [message.body for message in kit.messages("q")] == [b"1", b"2"]


async def test_nothing_is_left_when_nothing_is_under_way(kit: Broker) -> None:
    """No task, which would be cancelled when the loop ends."""
    async with Client(URL) as client:
        before = asyncio.all_tasks()
        await asyncio.to_thread(lambda: client.publish_threadsafe("", "q", b"").result(LIMIT))
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= before


async def test_log_records_are_published_from_anywhere(kit: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none about publishing, which would never end."""
    kit.queue_bind("q", "amq.topic", "log.#")
    monkeypatch.setenv("AMQP_URL", URL)
    await log_handler.main()
    published = [(message.routing_key, message.body) for message in kit.messages("q")]
    assert published == [
        ("log.warning.application", b"on the loop"),
        ("log.warning.application", b"in a thread"),
    ]
    assert not any(isinstance(handler, log_handler.AMQPHandler) for handler in logging.getLogger().handlers)


async def test_log_records_of_an_outage_are_bounded(kit: Broker) -> None:
    """What does not fit is dropped; the application goes on."""
    kit.stop()
    async with Client(URL, timeout=0.5) as client:
        handler = log_handler.AMQPHandler(client, most=3)
        for number in range(10):
            handler.emit(logging.makeLogRecord({"name": "application", "levelname": "INFO", "msg": str(number)}))
            handler.emit(logging.makeLogRecord({"name": "sprockets_amqp.lifecycle", "levelname": "INFO", "msg": "x"}))
        assert client.waiting == 3


async def test_rabbitmq_has_what_threads_publish(queue: Queue) -> None:
    """Each in its order."""
    async with Client(queue.url) as client:

        def work(thread: int) -> None:
            futures = [
                client.publish_threadsafe(queue.exchange, queue.routing_key, b"%d %d" % (thread, number))
                for number in range(500)
            ]
            for future in futures:
                future.result(LIMIT)

        await asyncio.gather(*(asyncio.to_thread(work, thread) for thread in range(4)))
    received = [tuple(map(int, message.body.split())) for message in await queue.messages()]
    assert sorted(received) == [(thread, number) for thread in range(4) for number in range(500)]
    assert all([n for t, n in received if t == thread] == list(range(500)) for thread in range(4))
