"""Requests in flight are the application's, and an application that stops ends its connections."""

import asyncio
import logging
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, ClassVar

import pytest
from pika import frame, spec
from tornado.httputil import HTTPHeaders
from tornado.web import Application, RequestHandler, stream_request_body

import sprockets_amqp as amqp
from sprockets_amqp import Client, PublishingMixin
from sprockets_amqp.handlers.mixin import _log
from sprockets_amqp.testing import Broker
from tests.support.http import fetch, served


@asynccontextmanager
async def running(
    *handlers: Any, names: tuple[str, ...] = ("amqp",), **settings: Any
) -> AsyncIterator[tuple[str, list[Client]]]:
    """An application with clients of a broker in memory; yields the beginning of its URLs, and the clients."""
    with Broker() as broker:
        broker.exchange_declare("events", "topic")
        application = Application(list(handlers), **settings)
        for name in names:
            amqp.install(application, url="amqp://broker", name=name)
        clients = list(application.amqp_clients.values())  # type: ignore[attr-defined]
        for client in clients:
            await client.wait_for(amqp.State.READY, 30)
        async with served(application) as base:
            yield base, clients
        for client in clients:
            await client.shutdown(1)


class Twice(PublishingMixin, RequestHandler):
    """Publishes on one client and then, when the test lets it, on another."""

    amqp_name = "audit"

    async def post(self) -> None:
        """Publish, wait, publish."""
        await self.amqp_publish("events", "audit", b"")
        self.settings["arrived"].set()
        await self.settings["gate"].wait()
        await self.application.amqp.publish("events", "event", b"")  # type: ignore[attr-defined]
        self.write("published")


async def test_a_request_is_in_flight_for_every_client_of_its_application() -> None:
    """Shut down together, no client closes while a handler may still publish on it."""
    events = {"arrived": asyncio.Event(), "gate": asyncio.Event()}
    async with running(("/", Twice), names=("amqp", "audit", "third"), **events) as (base, clients):
        request = asyncio.create_task(fetch(f"{base}/", "POST", ""))
        await events["arrived"].wait()
        assert [len(client.in_flight) for client in clients] == [1, 1, 1]
        stopping = asyncio.gather(*(client.shutdown() for client in clients))
        await asyncio.sleep(0)
        assert [client.ready for client in clients] == [True, True, True]
        events["gate"].set()
        assert (await request).body == b"published"
        await asyncio.wait_for(stopping, 5)
        assert [len(client.in_flight) for client in clients] == [0, 0, 0]


class Posts(PublishingMixin, RequestHandler):
    """Publishes."""

    async def post(self) -> None:
        """Publish."""
        await self.amqp_publish("events", "event", b"")
        self.set_status(202)


async def keep_sending(base: str, answers: list[tuple[int, str]]) -> None:
    """Send requests on one connection, as long as the server keeps it."""
    host, port = base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    while True:
        writer.write(b"POST / HTTP/1.1\r\nHost: events\r\nContent-Length: 0\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = HTTPHeaders.parse(head.partition("\r\n")[2])
        await reader.readexactly(int(headers["Content-Length"]))
        answers.append((int(head.split()[1]), headers.get("Connection", "")))
        if answers[-1][1] == "close":
            break
    writer.close()
    await writer.wait_closed()


async def test_connections_that_are_kept_alive_do_not_keep_it_alive() -> None:
    """While the client is stopping, each answer ends its connection, so that requests end; all of them are accepted."""
    async with running(("/", Posts)) as (base, [client]):
        answers: list[tuple[int, str]] = []
        senders = [asyncio.create_task(keep_sending(base, answers)) for _ in range(40)]
        while len(answers) < 200:
            await asyncio.sleep(0.01)
        assert {closes for _, closes in answers} == {""}
        await asyncio.wait_for(client.shutdown(), 5)
        await asyncio.wait_for(asyncio.gather(*senders), 5)
        assert {status for status, _ in answers} == {202}
        assert [closes for _, closes in answers].count("close") == 40


@stream_request_body
class Upload(PublishingMixin, RequestHandler):
    """Publishes each part of the body as it comes."""

    async def data_received(self, chunk: bytes) -> None:
        """Publish it."""
        await self.amqp_publish("events", "part", chunk)
        self.settings["arrived"].set()

    async def post(self) -> None:
        """Answer when all of it has come."""
        await self.settings["gate"].wait()
        self.write("uploaded")


async def test_an_upload_that_is_broken_off_is_over() -> None:
    """Its sender is gone: shutdown() does not wait until the garbage collector has found its handler."""
    settings: dict[str, Any] = {"arrived": asyncio.Event(), "gate": asyncio.Event(), "kept": []}

    class Kept(Upload):
        def initialize(self) -> None:
            """Keep the handler from being collected."""
            self.settings["kept"].append(self)

    async with running(("/", Kept), **settings) as (base, [client]):
        host, port = base.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST / HTTP/1.1\r\nHost: events\r\nContent-Length: 1000\r\n\r\nhalf of it")
        await settings["arrived"].wait()
        assert len(client.in_flight) == 1
        stopping = asyncio.create_task(client.shutdown())
        await asyncio.sleep(0)
        assert client.ready
        writer.close()
        await asyncio.wait_for(stopping, 5)
        assert len(client.in_flight) == 0


async def test_an_upload_that_has_come_is_waited_for_although_its_sender_hangs_up() -> None:
    """Its handler may still publish."""
    settings: dict[str, Any] = {"arrived": asyncio.Event(), "gate": asyncio.Event()}
    async with running(("/", Upload), **settings) as (base, [client]):
        host, port = base.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST / HTTP/1.1\r\nHost: events\r\nContent-Length: 5\r\n\r\nwhole")
        await settings["arrived"].wait()
        stopping = asyncio.create_task(client.shutdown())
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.1)
        assert (client.ready, stopping.done(), len(client.in_flight)) == (True, False, 1)
        settings["gate"].set()
        await asyncio.wait_for(stopping, 5)


class FinishesAsBefore(RequestHandler):
    """A base class written for Tornado before 5.1, in which finish() returned nothing."""

    def finish(self, chunk: Any = None) -> Any:
        """Finish, and return nothing."""
        super().finish(chunk)


class OnOldBase(PublishingMixin, FinishesAsBefore):
    """Goes on after it has answered."""

    async def post(self) -> None:
        """Answer, then do more."""
        assert self.finish("answered") is None
        self.settings["went on"].append(True)


async def test_a_base_class_whose_finish_returns_nothing_is_fine() -> None:
    """What follows finish() runs, and the request is over."""
    settings: dict[str, Any] = {"went on": []}
    async with running(("/", OnOldBase), **settings) as (base, [client]):
        assert (await fetch(f"{base}/", "POST", "")).body == b"answered"
        assert (settings["went on"], len(client.in_flight)) == ([True], 0)


class OwnNames(PublishingMixin, RequestHandler):
    """Has attributes of its own."""

    _in_flight: ClassVar[set[str]] = {"mine"}
    _retry_after: ClassVar[list[str]] = ["mine"]

    async def post(self) -> None:
        """Publish where it is refused."""
        await self.amqp_publish("missing", "key", b"", timeout=0)


async def test_a_handler_may_have_attributes_of_any_name() -> None:
    """The mixin's own are in nobody's way."""
    async with running(("/", OwnNames)) as (base, [client]):
        assert (await fetch(f"{base}/", "POST", "")).code == 502
        assert len(client.in_flight) == 0
        assert (OwnNames._in_flight, OwnNames._retry_after) == ({"mine"}, ["mine"])


def test_the_mixin_behind_the_handler_is_told_of() -> None:
    """At the definition of the class, with what to write."""
    with pytest.warns(UserWarning, match=r"Late names PublishingMixin after RequestHandler.*class Late\(Publ"):
        type("Late", (RequestHandler, PublishingMixin), {"__qualname__": "Late"})

    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Early(PublishingMixin, RequestHandler):
            pass

        class Mixed(PublishingMixin):
            pass


class FillsInReasons:
    """A mixin that names the reason phrase of each error itself."""

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Send it with the phrase of its status."""
        other: Any = super()
        other.send_error(status_code, reason=HTTPStatus(status_code).phrase, **kwargs)


class Reasons(FillsInReasons, OwnNames):
    """Has another mixin first."""


async def test_the_reason_phrase_is_that_of_the_status() -> None:
    """Also if a mixin before this one has filled in that of 500."""
    async with running(("/", Reasons)) as (base, _):
        response = await fetch(f"{base}/", "POST", "")
        assert (response.code, response.reason) == (502, "Bad Gateway")


async def test_failed_requests_are_logged_within_limits(caplog: pytest.LogCaptureFixture) -> None:
    """An outage under load writes ten lines a second, and how many were left out."""
    _log.cache_clear()
    async with running(("/", OwnNames)) as (base, _):
        await asyncio.gather(*(fetch(f"{base}/", "POST", "") for _ in range(60)))
    lines = [record.getMessage() for record in caplog.records if record.name == "sprockets_amqp.mixin"]
    assert 10 <= len(lines) < 40
    assert [line for line in lines if line.startswith("more of these in this second are not logged: %d")]


async def test_each_line_of_a_client_with_a_name_begins_with_it(caplog: pytest.LogCaptureFixture) -> None:
    """So that two clients' lines can be told apart; those of the first one are as they were."""
    caplog.set_level(logging.DEBUG, "sprockets_amqp")
    _log.cache_clear()

    class Audits(OwnNames):
        amqp_name = "audit"

    def fails(_change: object) -> None:
        raise ValueError

    async with running(("/", OwnNames), ("/audit", Audits), names=("amqp", "audit")) as (base, [client, audit]):
        caplog.clear()
        for each, path in ((client, "/"), (audit, "/audit")):
            each.subscribe(fails)
            each.on_back_pressure_detected(each.connection)
            await fetch(f"{base}{path}", "POST", "")
            each.on_connection_blocked(frame.Method(0, spec.Connection.Blocked("low on memory")))
            await asyncio.sleep(0)
            await each.shutdown(1)
    lines = {"": [], "audit": []}  # type: dict[str, list[str]]
    for record in caplog.records:
        if record.name.startswith("sprockets_amqp"):
            named = record.getMessage().startswith("audit: ")
            lines["audit" if named else ""].append(record.getMessage().removeprefix("audit: "))
    kinds = [[line.split(" ")[0] for line in each if "more of these" not in line] for each in lines.values()]
    assert sorted(kinds[0]) == sorted(kinds[1])
    assert {"502", "RabbitMQ", "messages", "ready,", "READY"} < {*kinds[0], "ready,"}
