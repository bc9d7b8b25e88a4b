"""Requests whose publish fails, and requests in flight while the client stops."""

import asyncio
import json
import logging
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tornado.httpclient import HTTPResponse
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler, websocket_connect

import sprockets_amqp as amqp
from sprockets_amqp import Client, NotReadyError, OutcomeUnknown, PublishingMixin, State
from sprockets_amqp.handlers.answers import answer
from tests.support.consume import declare_queue
from tests.support.http import fetch, served
from tools.rabbitmq import Node, free_port


class Handler(PublishingMixin, RequestHandler):
    """Publishes what it is asked to."""

    async def post(self) -> None:
        """Answer when RabbitMQ confirmed."""
        asked = json.loads(self.request.body)
        await self.amqp_publish(asked.pop("exchange", ""), asked.pop("key", "nobody"), b"{}", asked)
        self.write("published")


class WritesErrors(RequestHandler):
    """An application's base handler with errors in its own format."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Name the status and what was raised."""
        self.finish(f"own: {status_code} {type(kwargs['exc_info'][1]).__name__}")


class LogsErrors(RequestHandler):
    """An application's base handler that reports what was raised."""

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Report."""
        logging.getLogger("own").warning("own: %s", typ.__name__)


class WithOwnErrors(PublishingMixin, WritesErrors, LogsErrors):
    """Its bases answer and log, behind the mixin."""

    async def post(self) -> None:
        """Publish to an exchange that does not exist."""
        await self.amqp_publish("no such exchange", "key", b"")


class ChoosesStatus(PublishingMixin, RequestHandler):
    """Handles what a publish raises itself."""

    async def post(self) -> None:
        """Answer with a status of its own."""
        try:
            await self.amqp_publish("no such exchange", "key", b"")
        except amqp.PublishingFailure:
            self.set_status(202)


@asynccontextmanager
async def application(
    url: str, *handlers: Any, settings: dict[str, Any] | None = None, **arguments: Any
) -> AsyncIterator[tuple[str, Client]]:
    """An application with a client; yields the beginning of its URLs and the client."""
    app = Application(list(handlers) or [("/", Handler)], **(settings or {}))
    amqp.install(app, url=url, **arguments)
    client: Client = app.amqp  # type: ignore[attr-defined]
    try:
        async with served(app) as base:
            yield base, client
    finally:
        await client.shutdown(5)


def answered(response: HTTPResponse) -> tuple[int, str, bool]:
    """What the answer says: its status, the error's name, and whether the message may have arrived."""
    document = json.loads(response.body)
    assert set(document) == {"error", "reason", "message_id", "may_have_arrived"}
    assert document["reason"].endswith(".")
    assert "guest" not in response.body.decode() and "127.0.0.1" not in response.body.decode()
    return response.code, document["error"], document["may_have_arrived"]


async def post(base: str, **asked: Any) -> HTTPResponse:
    """Ask for a publish."""
    return await fetch(f"{base}/", "POST", json.dumps(asked))


async def test_a_publish_while_the_broker_is_gone_is_answered_503_with_retry_after() -> None:
    """The request can safely be made again."""
    async with application("amqp://guest:guest@127.0.0.1:1/", timeout=0, reconnect_delay=2.5) as (base, _):
        response = await post(base)
        assert answered(response) == (503, "NotReadyError", False)
        assert response.headers["Retry-After"] == "3"


async def test_each_way_to_fail_has_its_answer(broker: Node) -> None:
    """502 where the broker would not have it, 500 where the application is at fault."""
    async with application(broker.url, fail_on_return=True) as (base, client):
        assert answered(await post(base, exchange="no such exchange")) == (502, "ExchangeRefused", False)
        assert answered(await post(base)) == (502, "MessageReturned", True)
        assert answered(await post(base, priority=300)) == (500, "InvalidMessage", False)
        channel = client.channel
        assert channel is not None
        declared = asyncio.get_running_loop().create_future()
        full = {"x-max-length": 0, "x-overflow": "reject-publish"}
        channel.queue_declare("full", exclusive=True, arguments=full, callback=declared.set_result)
        await declared
        response = await post(base, key="full")
        assert answered(response) == (502, "MessageNacked", True)
        assert "Retry-After" not in response.headers


class InGroup(PublishingMixin, RequestHandler):
    """Publishes in a task group."""

    async def publish(self) -> None:
        """Publish without waiting."""
        await self.amqp_publish("", "key", b"", timeout=0)

    async def post(self) -> None:
        """Publish."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.publish())


async def test_what_a_task_group_raises_is_answered_alike(caplog: pytest.LogCaptureFixture) -> None:
    """With what to do, and in one line of the log."""
    async with application(f"amqp://127.0.0.1:{free_port()}", ("/", InGroup)) as (base, _client):
        response = await post(base)
    assert (answered(response), response.headers["Retry-After"]) == ((503, "NotReadyError", False), "5")
    (line,) = (
        record.message for record in caplog.records if record.name.startswith("sprockets") and "503" in record.message
    )
    assert "connection is C" in line
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        ([NotReadyError("a"), OutcomeUnknown("b")], 502),
        ([OutcomeUnknown("b"), ExceptionGroup("", [NotReadyError("a")])], 502),
        ([NotReadyError("a"), NotReadyError("b")], 503),
        ([NotReadyError("a"), ValueError("b")], None),
        ([ExceptionGroup("", [ValueError("b")]), NotReadyError("a")], None),
    ],
)
def test_of_several_that_were_raised_the_worst_decides(raised: list[Exception], status: int | None) -> None:
    """An event that may have arrived is not to be sent again unseen; an error of the application's is no answer."""
    found = answer(ExceptionGroup("unhandled errors in a TaskGroup", raised))
    assert (found.status if found is not None else None) == status


class NamesBadly(PublishingMixin, RequestHandler):
    """Raises an error about a message that is not named by a str, before or within a publish."""

    async def post(self) -> None:
        """Raise, or publish with an id that is none."""
        if self.request.body == b"raise":
            raise amqp.InvalidMessage("order", "is empty").about(uuid.UUID(int=1), "", "")  # type: ignore[arg-type]
        await self.amqp_publish("", "nobody", b"{}", {"message_id": b"bytes"})


@pytest.mark.parametrize(("body", "message_id"), [("raise", str(uuid.UUID(int=1))), ("publish", None)])
async def test_a_message_that_is_not_named_by_a_str_is_answered_and_logged_once(
    body: str, message_id: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """As JSON, with one traceback: what the answer cannot hold must not cost it."""
    async with application("amqp://guest:guest@127.0.0.1:1/", ("/", NamesBadly)) as (base, _):
        response = await fetch(f"{base}/", "POST", body)
        assert answered(response) == (500, "InvalidMessage", False)
        assert json.loads(response.body)["message_id"] == message_id
        assert caplog.text.count("Traceback") == 1


async def test_an_unknown_outcome_says_that_the_message_may_have_arrived(node: Node) -> None:
    """A frozen broker confirms nothing."""
    async with application(node.url, confirm_timeout=0.2) as (base, client):
        await client.publish("", "nobody", b"")
        node.pause()
        assert answered(await post(base)) == (502, "OutcomeUnknown", True)


async def test_an_application_that_writes_its_own_errors_is_asked(
    broker: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """Its write_error gets the status, and its log_exception the error, whatever the order of the bases."""
    async with application(broker.url, ("/", WithOwnErrors)) as (base, _):
        response = await post(base)
        assert (response.code, response.body) == (502, b"own: 502 ExchangeRefused")
        assert "own: ExchangeRefused" in caplog.text


async def test_an_application_that_catches_the_error_answers_as_it_likes(broker: Node) -> None:
    """Nothing is mapped that is handled."""
    async with application(broker.url, ("/", ChoosesStatus)) as (base, _):
        assert (await post(base)).code == 202


async def test_debug_mode_shows_the_traceback(broker: Node) -> None:
    """Tornado's serve_traceback still does what it says, with the status of the error."""
    async with application(broker.url, settings={"serve_traceback": True}) as (base, _):
        response = await post(base, exchange="no such exchange")
        assert response.code == 502
        assert b"Traceback" in response.body


async def test_other_errors_stay_what_they_are(broker: Node, caplog: pytest.LogCaptureFixture) -> None:
    """What no publish raised is Tornado's to answer and log."""
    async with application(broker.url) as (base, _):
        response = await fetch(f"{base}/", "POST", "no JSON")
        assert response.code == 500 and response.body.startswith(b"<html>")
        assert "JSONDecodeError" in caplog.text


async def test_a_failed_publish_is_one_line_in_the_log(broker: Node, caplog: pytest.LogCaptureFixture) -> None:
    """An outage does not fill the log with tracebacks; a programming error has its own."""
    async with application(broker.url) as (base, _):
        await post(base, exchange="no such exchange")
        [record] = [record for record in caplog.records if record.name == "sprockets_amqp.mixin"]
        assert "POST /" in record.getMessage() and "no such exchange" in record.getMessage()
        assert record.exc_info is None
        await post(base, priority=300)
        assert "Traceback" in caplog.text


class Greeter(PublishingMixin, RequestHandler):
    """Publishes nothing."""

    def get(self) -> None:
        """Say hello."""
        self.write("hello")


async def test_a_handler_that_publishes_nothing_needs_no_client(caplog: pytest.LogCaptureFixture) -> None:
    """In an application without install() it answers as any other; publishing is an error that says what to call."""
    async with served(Application([("/", Greeter), ("/event", Handler)])) as base:
        response = await fetch(f"{base}/")
        assert (response.code, response.body) == (200, b"hello")
        assert (await fetch(f"{base}/event", "POST", "{}")).code == 500
        assert "call sprockets_amqp.install(application) first" in caplog.text


class Gated(PublishingMixin, RequestHandler):
    """Publishes when the test lets it."""

    async def post(self) -> None:
        """Wait, then publish."""
        arrived, gate = self.settings["arrived"], self.settings["gate"]
        arrived.set()
        await gate.wait()
        await self.amqp_publish("", "nobody", b"")
        self.write("published")


def gated() -> dict[str, asyncio.Event]:
    """Application settings for `Gated`."""
    return {"arrived": asyncio.Event(), "gate": asyncio.Event()}


async def test_shutdown_lets_requests_in_flight_finish(broker: Node) -> None:
    """The client stays ready until they were answered, and then closes."""
    settings = gated()
    async with application(broker.url, ("/", Gated), settings=settings) as (base, client):
        await client.wait_for(State.READY, 30)
        request = asyncio.create_task(post(base))
        await settings["arrived"].wait()
        assert len(client.in_flight) == 1
        stopping = asyncio.create_task(client.shutdown())
        await asyncio.sleep(0)
        assert (client.stopping, client.state) == (True, State.READY)
        settings["gate"].set()
        assert (await request).body == b"published"
        await stopping
        assert (client.stopping, client.state, len(client.in_flight)) == (False, State.CLOSED, 0)
        assert client.counters.confirmed == 1


async def test_a_request_that_never_ends_does_not_hold_up_shutdown(broker: Node) -> None:
    """Shutdown keeps to its limit; the request is answered 503 when its publish is refused."""
    settings = gated()
    async with application(broker.url, ("/", Gated), settings=settings) as (base, client):
        await client.wait_for(State.READY, 30)
        request = asyncio.create_task(post(base))
        await settings["arrived"].wait()
        await client.shutdown(0.2)
        assert client.closed and len(client.in_flight) == 1
        settings["gate"].set()
        assert answered(await request) == (503, "NotReadyError", False)


async def test_requests_that_wait_for_a_broker_are_answered_before_shutdown_returns() -> None:
    """What waits is refused, and whoever asked is told so."""
    settings = gated()
    settings["gate"].set()
    gone = "amqp://guest:guest@127.0.0.1:1/"
    async with application(gone, ("/", Gated), settings=settings, timeout=60) as (base, client):
        request = asyncio.create_task(post(base))
        await settings["arrived"].wait()
        assert client.waiting == 1
        await client.shutdown(1)
        assert not client.in_flight
        assert answered(await request) == (503, "NotReadyError", False)


class Echo(PublishingMixin, WebSocketHandler):
    """A connection that stays."""

    def on_message(self, message: str | bytes) -> None:
        """Send it back."""
        self.write_message(message)


class Detached(PublishingMixin, RequestHandler):
    """Answers on the connection itself, which it keeps."""

    async def post(self) -> None:
        """Take the connection over, and publish."""
        stream = self.detach()
        self.settings["kept"] += [self, stream]
        await self.amqp_publish("amq.topic", "key", b"")
        await stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nmy")


async def test_connections_that_were_handed_over_are_not_waited_for(broker: Node) -> None:
    """They last as long as whoever has them likes."""
    settings: dict[str, Any] = {"kept": []}
    async with application(broker.url, ("/", Detached), settings=settings) as (base, client):
        assert (await post(base)).body == b"my"
        assert (len(settings["kept"]), len(client.in_flight)) == (2, 0)
        settings["kept"][1].close()


async def test_websockets_are_not_waited_for(broker: Node) -> None:
    """They last as long as their peers like."""
    settings = gated()
    async with application(broker.url, ("/", Gated), ("/echo", Echo), settings=settings) as (base, client):
        await client.wait_for(State.READY, 30)
        socket = await websocket_connect(base.replace("http", "ws") + "/echo")
        request = asyncio.create_task(post(base))
        await settings["arrived"].wait()
        # Of the two that are open, the request is waited for.
        stopping = asyncio.create_task(client.shutdown(60))
        await socket.write_message("hello")
        assert await socket.read_message() == "hello"
        assert (client.ready, stopping.done(), len(client.in_flight)) == (True, False, 1)
        settings["gate"].set()
        assert (await request).body == b"published"
        await asyncio.wait_for(stopping, 30)
        assert client.closed
        await socket.write_message("still open")
        assert await socket.read_message() == "still open"
        socket.close()
        assert await socket.read_message() is None


@pytest.mark.parametrize("mode", ["plain", "sprockets"])
async def test_sigterm_lets_a_request_in_flight_publish(broker: Node, mode: str) -> None:
    """It is answered, its event is in the queue, and the process ends well, an open live page or not."""
    queue = await declare_queue(broker.url)
    port = str(free_port())
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.support.stoppable", mode, broker.url, queue.exchange, queue.routing_key, port),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"serving\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(b"GET /amqp/events HTTP/1.0\r\n\r\n")
        assert await reader.readuntil(b"data: ")
        request = asyncio.create_task(fetch(f"http://127.0.0.1:{port}/", "POST", "an event"))
        assert await process.stdout.readline() == b"taken\n"
        process.send_signal(signal.SIGTERM)
        response = await request
        assert (response.code, response.body) == (200, b"published")
        rest, _ = await asyncio.wait_for(process.communicate(), 60)
        assert (process.returncode, rest) == (0, b"ended\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()
    finally:
        if process.returncode is None:
            process.kill()
    assert [message.body for message in await queue.messages()] == [b"an event"]
    await queue.delete()


async def test_properties_that_are_no_dict_are_refused_by_the_future(broker: Node) -> None:
    """Also where the handler has a correlation id of its own to add."""

    class Correlated(PublishingMixin):
        correlation_id = "the-request"

    application = Application()
    amqp.install(application, url=broker.url)
    handler = object.__new__(Correlated)
    handler.application = application
    refused = handler.amqp_publish("amq.topic", "key", b"", [1])  # type: ignore[arg-type]
    with pytest.raises(amqp.InvalidMessage, match="properties must be a dict"):
        await refused
    await application.amqp.shutdown()  # type: ignore[attr-defined]
