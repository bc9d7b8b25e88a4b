"""Applications whose tests put something else in the place of the client."""

import asyncio
import copy
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from unittest import mock

import pytest
from tornado.web import Application, RequestHandler

import sprockets_amqp as amqp
from sprockets_amqp.handlers import mixin
from tests.support.http import fetch, served


class Handler(amqp.PublishingMixin, RequestHandler):
    """Publishes as it was written for the client."""

    correlation_id = "the-request"

    async def post(self) -> None:
        """Publish, and tell what the publish ended with."""
        ended = await self.amqp_publish("events", "event.posted", self.request.body, {"type": "posted"})
        self.write(f"published: {ended}")


class Fake:
    """Has no more than a publish, which keeps what it is given."""

    def __init__(self) -> None:
        self.published: list[Any] = []

    def publish(self, *message: Any, **options: Any) -> None:
        """Take note."""
        self.published.append((*message, options))


def future_of(value: object) -> Callable[..., Awaitable[object]]:
    """Make a publish that returns a future, as the client's does."""

    def publish(*_: object) -> Awaitable[object]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(value)
        return future

    return publish


async def posted(client: object) -> tuple[int, bytes]:
    """Post an event to an application with such a client; returns the answer's status and body."""
    application = Application([("/", Handler)])
    application.amqp = client  # type: ignore[attr-defined]
    async with served(application) as base:
        response = await fetch(f"{base}/", "POST", "an event")
        return response.code, response.body


SENT = ("events", "event.posted", b"an event", {"correlation_id": "the-request", "type": "posted"})


@pytest.mark.parametrize(
    "client",
    [
        mock.AsyncMock(publish=mock.AsyncMock(return_value=7)),
        mock.Mock(publish=mock.Mock(side_effect=future_of(7))),
        mock.Mock(publish=mock.Mock(return_value=7)),
        mock.MagicMock(spec=["publish"], publish=mock.AsyncMock(return_value=7)),
    ],
    ids=["coroutine", "future", "value", "nothing but publish"],
)
async def test_a_mock_takes_the_clients_place(client: Any) -> None:
    """Whatever its publish returns can be awaited, and it is called as the client would be."""
    assert await posted(client) == (200, b"published: 7")
    client.publish.assert_called_once_with(*SENT)


async def test_a_small_fake_takes_the_clients_place() -> None:
    """It needs a publish, and is asked for nothing else."""
    fake = Fake()
    assert await posted(fake) == (200, b"published: None")
    assert fake.published == [(*SENT, {})]


@pytest.mark.parametrize(("error", "status"), [(amqp.NotReadyError("closed"), 503), (amqp.MessageNacked(), 502)])
async def test_what_a_mock_raises_is_answered_like_the_clients(error: Exception, status: int) -> None:
    """So that a test sees what its application answers in an outage."""
    assert (await posted(mock.AsyncMock(publish=mock.AsyncMock(side_effect=error))))[0] == status
    assert (await posted(mock.Mock(publish=mock.Mock(side_effect=error))))[0] == status


@pytest.mark.parametrize("client", [None, object(), mock.Mock(spec=["publish"], publish="no function")])
async def test_what_cannot_publish_is_no_client(client: object, caplog: pytest.LogCaptureFixture) -> None:
    """The error says what to call, as it does without any client."""
    assert (await posted(client))[0] == 500
    assert "RuntimeError: the application has no AMQP client: call sprockets_amqp.install(application)" in caplog.text


@pytest.mark.parametrize(
    ("of_handler", "given", "sent"),
    [
        ("the-request", None, {"correlation_id": "the-request"}),
        ("the-request", {}, {"correlation_id": "the-request"}),
        ("the-request", {"correlation_id": "its own"}, {"correlation_id": "its own"}),
        ("the-request", {"type": "posted"}, {"correlation_id": "the-request", "type": "posted"}),
        (uuid.UUID(int=1), None, {"correlation_id": str(uuid.UUID(int=1))}),
        ("", {"type": "posted"}, {"type": "posted"}),
        (None, None, None),
        # What is no mapping is left as it is, for publish() to refuse.
        ("the-request", ["type"], ["type"]),
        ("the-request", 5, 5),
    ],
)
async def test_the_correlation_id_is_the_handlers_unless_one_is_given(
    of_handler: object, given: Any, sent: Any
) -> None:
    """An empty one is none, and the caller's dict stays as it was."""

    class Correlated(amqp.PublishingMixin):
        correlation_id = of_handler
        application = mock.Mock(amqp=mock.AsyncMock())

    before = copy.copy(given)
    await Correlated().amqp_publish("events", "key", b"", given)
    Correlated.application.amqp.publish.assert_called_once_with("events", "key", b"", sent)
    assert given == before


async def test_a_long_correlation_id_of_the_handler_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    """To 255 octets, between characters; that is logged once. One that the application gives is its own affair."""
    mixin._log_cut.cache_clear()

    class Correlated(amqp.PublishingMixin):
        application = mock.Mock(amqp=mock.AsyncMock())
        correlation_id: str

    handler = Correlated()
    for handler.correlation_id, sent in (
        ("x" * 255, "x" * 255),
        ("x" * 10_000, "x" * 255),
        ("é" * 200, "é" * 127),
        ("x" + "é" * 127, "x" + "é" * 127),
    ):
        await handler.amqp_publish("events", "key", b"")
        Correlated.application.amqp.publish.assert_called_with("events", "key", b"", {"correlation_id": sent})
    assert caplog.text.count("was cut") == 1
    await handler.amqp_publish("events", "key", b"", {"correlation_id": "y" * 256})
    Correlated.application.amqp.publish.assert_called_with("events", "key", b"", {"correlation_id": "y" * 256})


async def test_a_handler_without_a_correlation_id_adds_none() -> None:
    """Its properties go on as they are."""

    class Bare(amqp.PublishingMixin):
        application = mock.Mock(amqp=mock.AsyncMock())

    await Bare().amqp_publish("events", "key", b"", {"type": "posted"}, timeout=2)
    Bare.application.amqp.publish.assert_called_once_with("events", "key", b"", {"type": "posted"}, timeout=2)
