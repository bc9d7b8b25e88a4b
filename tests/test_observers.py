"""Observers: every publish and every end of one, told once, and nothing that they do harms a publish."""

import asyncio
import contextvars
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from tornado.ioloop import IOLoop

from sprockets_amqp import Client, Outcome, Publish, PublishEnd, errors
from sprockets_amqp.bounded_log import MOST
from tests.support.consume import declare_queue
from tests.support.memory import Broker, in_memory, outcome
from tests.support.observing import Seen
from tools.rabbitmq import Node

broker = in_memory
Future = asyncio.Future[None]
DOCUMENTED: Final = Path(__file__).parent.parent / "docs" / "telemetry.md"


# Its times


def test_an_end_has_the_times_in_line_and_to_the_confirm(broker: Broker) -> None:
    """It waited for ready for 3 seconds, and 2 more for RabbitMQ's confirmation."""
    client = broker.client()
    seen = Seen().of(client)
    client.publish("", "q", "12345", {"message_id": "m1"})
    broker.clock.advance(3)
    broker.open().clock.advance(2)
    broker.peer.confirm_all()
    assert seen.ends == []
    broker.clock.turn()
    assert seen.ends == [PublishEnd(Outcome.CONFIRMED, None, "", "q", "m1", 5, 1, 3.0, 2.0, seconds=5.0)]


def test_what_is_sent_again_was_in_line_until_then(broker: Broker) -> None:
    """The number of times that it was sent is told, and the time from the last of them to the confirm."""
    client = broker.ready(republish_unconfirmed=True)
    seen = Seen().of(client)
    client.publish("", "q", b"", {"message_id": "m1"})
    broker.clock.advance(4)
    broker.peer.lose()
    broker.clock.advance(1)
    broker.open().clock.advance(2)
    broker.peer.confirm_all()
    broker.clock.turn()
    assert [(end.sends, end.seconds_in_line, end.seconds_to_confirm) for end in seen.ends] == [(2, 5.0, 2.0)]


def test_the_end_is_told_before_who_awaits_it_goes_on(broker: Broker) -> None:
    """So that what was measured is there when a request is answered."""
    client = broker.ready()
    seen = Seen().of(client)
    told_by_then: list[int] = []

    async def main() -> None:
        await client.publish("", "q", b"")
        told_by_then.append(len(seen.ends))

    task = broker.clock.loop.create_task(main())
    broker.open().peer.confirm_all()
    broker.clock.turn()
    assert (task.done(), told_by_then) == (True, [1])


def test_both_are_told_in_the_callers_context(broker: Broker) -> None:
    """A request's id in a context variable is that of the publish, whatever causes its end."""
    client = broker.ready()
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
    seen: list[str] = []

    class Asks:
        def publishing(self, _publish: Publish) -> Callable[[PublishEnd], object]:
            seen.append(request.get())
            return lambda _end: seen.append(request.get())

    client.observe(Asks())
    for name in ("first", "second"):
        context = contextvars.copy_context()
        context.run(request.set, name)
        context.run(client.publish, "", "q", b"")
    broker.open().peer.confirm_all()
    broker.clock.turn()
    assert seen == ["first", "second", "first", "second"]


# Headers


def arrived(broker: Broker) -> list[Any]:
    """The headers of each message that the broker has."""
    return [message.properties.headers for message in broker.published]


def test_headers_that_an_observer_adds_go_out(broker: Broker) -> None:
    """With the caller's own, and with another observer's, which sees them; the caller's dict is as it was."""
    client = broker.ready()
    Seen(one="1").of(client)
    second = Seen(two="2").of(client)
    properties: dict[str, Any] = {"headers": {"mine": "0"}, "content_type": "text/plain"}
    client.publish("", "q", b"", properties)
    client.publish("", "q", b"")
    client.publish("", "q", b"", {})
    client.publish("", "q", b"", {"headers": None})
    broker.open().peer.confirm_all()
    both = {"one": "1", "two": "2"}
    assert arrived(broker) == [{"mine": "0", **both}, both, both, both]
    assert properties == {"headers": {"mine": "0"}, "content_type": "text/plain"}
    assert second.begun[0].properties == properties
    assert broker.published[0].properties.content_type == "text/plain"


def test_what_an_observer_adds_is_checked_like_anything_else(broker: Broker) -> None:
    """A header that AMQP cannot hold is refused, and named."""
    client = broker.ready()
    Seen(trace=object()).of(client)
    future = client.publish("", "q", b"")
    assert outcome(future) is errors.InvalidMessage
    assert "headers hold a value that AMQP cannot encode: 'trace'" in str(future.exception())


@pytest.mark.parametrize("properties", [5, {"headers": "none"}, {"headers": ["none"]}])
def test_what_the_caller_gave_is_refused_as_without_an_observer(broker: Broker, properties: Any) -> None:
    """What it adds does not hide what is wrong."""
    client = broker.ready()
    without = client.publish("", "q", b"", properties)
    Seen(trace="1").of(client)
    observed = client.publish("", "q", b"", properties)
    assert str(observed.exception()) == str(without.exception())
    assert isinstance(observed.exception(), errors.InvalidMessage)


def test_the_callers_properties_cannot_be_changed(broker: Broker) -> None:
    """An observer may add headers, and nothing else."""
    client = broker.ready()
    seen = Seen().of(client)
    client.publish("", "q", b"", {"type": "created"}).add_done_callback(Future.exception)
    with pytest.raises(TypeError):
        seen.begun[0].properties["type"] = "deleted"  # type: ignore[index]


# In the documentation


def test_the_documented_observer_does_what_it_says(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """It adds its header, and logs the confirm that took more than a second, and no other."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENTED.read_text(), re.MULTILINE | re.DOTALL)
    client = broker.ready()
    names: dict[str, Any] = {"client": client}
    exec(code, names)  # noqa: S102 - the documentation's own
    for seconds, name in ((0.5, "quick"), (1.5, "slow")):
        client.publish("", "q", b"", {"message_id": name})
        broker.clock.advance(seconds)
        broker.peer.confirm_all()
        broker.clock.turn()
    assert [set(headers) for headers in arrived(broker)] == [{"x-host"}] * 2
    assert [record.getMessage() for record in caplog.records if record.name == "root"] == [
        "message slow: confirmed after 1.5 s"
    ]
    names["observation"].cancel()


# It harms nothing


class Raises:
    """An observer that raises, in the publish or at its end."""

    def __init__(self, error: BaseException, *, at_once: bool) -> None:
        self.error = error
        self.at_once = at_once

    def publishing(self, _publish: Publish) -> Callable[[PublishEnd], object]:
        """Raise, or do so later."""
        if self.at_once:
            raise self.error
        return self.end

    def end(self, _end: PublishEnd) -> None:
        """Raise."""
        raise self.error


@pytest.mark.parametrize("error", [ValueError("an observer's own"), asyncio.CancelledError()])
@pytest.mark.parametrize("at_once", [True, False])
def test_an_observer_that_raises_harms_nothing(
    broker: Broker, error: BaseException, at_once: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Publishes end as ever, the other observers are told, and the log has the traceback of the first few."""
    client = broker.ready()
    before = Seen(before="1").of(client)
    client.observe(Raises(error, at_once=at_once))
    after = Seen(after="1").of(client)
    futures = [client.publish("", "q", b"") for _ in range(2 * MOST)]
    broker.open().peer.confirm_all()
    broker.clock.turn()
    assert [outcome(future) for future in futures] == [None] * len(futures)
    assert before.outcomes == after.outcomes == [Outcome.CONFIRMED] * len(futures)
    assert arrived(broker)[0] == {"before": "1", "after": "1"}
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == MOST + 1
    assert lines[0].exc_info is not None and lines[0].exc_info[1] is error
    assert "raised; no publish is affected" in lines[0].getMessage()
    assert "not logged" in lines[-1].getMessage()


def test_an_observer_may_publish_when_it_is_told_an_end(broker: Broker) -> None:
    """It is told in a turn of its own: even the loss of a connection is over by then."""
    client = broker.ready()
    again: list[Future] = []

    class Publishes:
        def publishing(self, publish: Publish) -> Callable[[PublishEnd], object] | None:
            return self.end if publish.routing_key == "first" else None

        def end(self, _end: PublishEnd) -> None:
            again.append(client.publish("", "second", b""))

    client.observe(Publishes())
    firsts = [client.publish("", "first", b"") for _ in range(3)]
    broker.clock.turn()
    broker.peer.lose()
    broker.clock.advance(1)
    broker.open().peer.confirm_all()
    assert [outcome(future) for future in firsts] == [errors.OutcomeUnknown] * 3
    assert [outcome(future) for future in again] == [None] * 3


@pytest.mark.parametrize("observer", [None, object(), print])
def test_what_is_no_observer_is_refused(broker: Broker, observer: Any) -> None:
    """At once, by name, rather than at each publish."""
    with pytest.raises(TypeError, match="an observer needs a method publishing"):
        broker.client().observe(observer)


def test_a_call_that_raises_is_no_publish(broker: Broker) -> None:
    """Nobody is told that it began, as nobody could be told its end."""
    client = broker.ready()
    seen = Seen().of(client)
    with pytest.raises(TypeError, match="no option"):
        client.publish("", "q", b"", colour="red")  # type: ignore[call-arg]
    assert seen.begun == []


# When it begins and ends


def test_a_cancelled_observation_is_told_the_ends_of_what_it_saw(broker: Broker) -> None:
    """And sees nothing more; to cancel it again changes nothing."""
    client = broker.ready()
    seen = Seen()
    observation = client.observe(seen)
    client.publish("", "q", b"", {"message_id": "seen"})
    observation.cancel()
    observation.cancel()
    client.publish("", "q", b"", {"message_id": "unseen"})
    broker.open().peer.confirm_all()
    broker.clock.turn()
    assert [end.message_id for end in seen.ends] == ["seen"]


def test_what_was_published_on_a_loop_that_never_ran_is_told(broker: Broker) -> None:
    """On the loop to which the client moves: refused, or cancelled by its caller."""
    idle = IOLoop(make_current=False)
    client = Client("amqp://broker", io_loop=idle)
    client._io_loop_given = False
    seen = Seen().of(client)
    futures = [client.publish("", "q", b"") for _ in range(2)]
    futures[1].cancel()
    assert seen.ends == []

    async def move() -> None:
        client.bind()

    broker.clock.run(move())
    broker.clients.append(client)
    broker.clock.turn()
    assert outcome(futures[0]) is errors.NotReadyError
    assert seen.outcomes == [Outcome.NOT_READY, Outcome.CANCELLED]
    idle.close()


def test_a_publish_on_a_loop_that_was_closed_is_told_at_once(broker: Broker) -> None:
    """There is no later turn of it."""
    client = broker.ready()
    seen = Seen().of(client)
    broker.shut_down()
    loop = IOLoop(make_current=False)
    other = Client("amqp://broker", io_loop=loop)
    seen.of(other)
    other._runtime.lifecycle.retire("as if it was closed")
    loop.close()
    assert outcome(other.publish("", "q", b"")) is errors.NotReadyError
    assert seen.outcomes == [Outcome.NOT_READY]


FORKS: Final = """
import asyncio, os, sys
import sprockets_amqp as amqp

class Observer:
    def publishing(self, publish):
        return lambda end: print(name, publish.routing_key, end.routing_key, end.outcome, flush=True)

async def main():
    global name
    client = amqp.Client("amqp://127.0.0.1:1", timeout=60)
    client.observe(Observer())
    waits = client.publish("", "waits", b"")
    refused = client.publish("", "refused", 5)
    # Its end is to be told in the next turn of the loop.
    assert refused.exception() and not waits.done()
    pid = os.fork()
    if pid == 0:
        name = "child"
        return client
    name = "parent"
    await asyncio.to_thread(os.waitpid, pid, 0)
    waits.cancel()
    await client.shutdown()

async def publish(client):
    client.publish("", "own", b"", timeout=0).exception()
    await client.shutdown()

try:
    client = asyncio.new_event_loop().run_until_complete(main())
finally:
    asyncio.set_event_loop(None)
if client is not None:
    asyncio.run(publish(client))
    os._exit(0)
"""


def test_each_process_is_told_of_its_own_publishes() -> None:
    """A fork's client has the observers; what the parent published is the parent's to tell, also what ended."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS], capture_output=True, text=True, check=False, timeout=60
    )
    assert sorted(done.stdout.splitlines()) == [
        "child own own not_ready",
        "parent refused refused invalid",
        "parent waits waits cancelled",
    ], done.stderr


# On RabbitMQ


async def test_a_real_broker_gets_the_headers_and_its_confirm_is_told(node: Node) -> None:
    """The message arrives with what the observer added; a refusal and an outage are told as well."""
    queue = await declare_queue(node.url)
    seen = Seen(trace="1")
    async with Client(node.url, reconnect_delay=0.1) as client:
        client.observe(seen)
        # Longer than a tick of uvloop's clock, which counts milliseconds: the first waits for RabbitMQ to accept the
        # exchange, the second for its confirmation.
        for _ in range(2):
            node.pause()
            client.io_loop.call_later(0.05, node.resume)
            await client.publish(queue.exchange, queue.routing_key, b"an event", {"headers": {"mine": "0"}})
        message, _ = await queue.messages()
        with pytest.raises(errors.ExchangeRefused):
            await client.publish("there is none", "q", b"")
        await node.stop()
        with pytest.raises(errors.NotReadyError):
            await client.publish(queue.exchange, queue.routing_key, b"", timeout=0.1)
        await node.repair()
    assert message.properties.headers == {"mine": "0", "trace": "1"}
    assert seen.outcomes == [Outcome.CONFIRMED, Outcome.CONFIRMED, Outcome.REFUSED, Outcome.NOT_READY]
    first, second = seen.ends[:2]
    assert second.seconds_to_confirm is not None and second.seconds_to_confirm > 0 and first.seconds_in_line > 0
    assert (first.size, first.sends) == (8, 1)
