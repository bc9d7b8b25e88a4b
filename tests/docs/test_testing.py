"""docs/testing.md: its examples run, and its tables name everything that the test kit has."""

import asyncio
import dataclasses
import inspect
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest
from tornado.web import Application

import sprockets_amqp as amqp
from examples.application import EventsApplication
from sprockets_amqp.testing import Broker, Published
from tests.support.documents import SECONDS, Document
from tests.support.http import fetch, served
from tools.documents import ROOT

PAGE: Final = Document("docs/testing.md")

TESTED: Final = {
    ("With pytest", "python"),  # Generated from an example that the command below it runs.
    ("With pytest", "sh"),
    ("With `AsyncHTTPTestCase`", "sh"),
    ("With neither", "python"),
    ("An outbox in PostgreSQL", "python"),
    ("Several nodes", "python"),
    ("Faults", "python"),
    ("Every way that a connection can go", "python"),  # The same.
    ("Every way that a connection can go", "sh"),
    ("A mock instead", "python"),
    ("Fixtures of your own", "python"),
}

#: What the broker's verbs are for that no test of an application calls: the kit's own parts do.
INNER: Final = {
    *("install", "uninstall", "own_loop", "close", "judge", "accept", "declare", "answers"),
    *("log_in", "enter", "left", "note_sent", "serves", "reach", "attempted"),
}


# What the examples do


@pytest.mark.parametrize("heading", ["With pytest", "With `AsyncHTTPTestCase`"])
async def test_the_commands_run_the_examples(heading: str) -> None:
    """And the examples pass."""
    ((python, *arguments),) = map(shlex.split, PAGE.commands(heading))
    assert python == "python"
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode == 0, out.decode()
    assert re.search(rb"4 passed|Ran 3 tests", out), out.decode()


async def test_a_broker_serves_without_any_framework() -> None:
    """The block asserts what it shows."""
    async with PAGE.run("With neither", amqp=amqp) as names:
        assert len(names["broker"].published) == 1


async def test_each_node_of_a_cluster_can_be_a_broker() -> None:
    """The block asserts what it shows; the nodes share nothing."""
    async with PAGE.run("Several nodes", amqp=amqp) as names:
        assert len(names["one"].published) == len(names["two"].published) == 1


def test_a_late_confirm_takes_no_time(amqp_broker: Broker) -> None:
    """The block is a test, and the page says how long it waits."""
    namespace: dict[str, Any] = {"EventsApplication": EventsApplication, "json": json}
    exec(PAGE.block("Faults", "python"), namespace)  # noqa: S102 - it is this project's own
    before = amqp_broker.clock.now
    namespace["test_a_confirm_that_never_comes_is_answered_with_502"](amqp_broker)
    waited = amqp_broker.clock.now - before
    assert waited >= amqp.Settings().confirm_timeout
    assert f"`confirm_timeout`, {amqp.Settings().confirm_timeout:g} seconds" in " ".join(PAGE.section("Time").split())


async def test_a_mock_takes_the_place_of_the_client() -> None:
    """It is told what the handler publishes."""

    async def post(application: Application, path: str, body: str) -> None:
        async with served(application) as base:
            assert (await fetch(f"{base}{path}", "POST", body)).code == 202

    with Broker():
        application = EventsApplication()
        client = application.amqp
        async with PAGE.run("A mock instead", application=application, mock=mock, fetch=post) as names:
            assert names["properties"]["delivery_mode"] == 2
        await client.shutdown()


#: Tests that use the page's fixtures, beneath them.
USES_FIXTURES: Final = """

async def send(client):
    await client.publish("amq.topic", "k", b"", mandatory=False)

def test_plain(amqp_broker, client):
    amqp_broker.run(send(client))

async def test_coroutine(async_client):
    await send(async_client)

def test_mixed(amqp_broker, async_client):
    with pytest.raises(RuntimeError, match="belongs to another event loop"):
        amqp_broker.run(send(async_client))
"""


async def test_fixtures_are_for_tests_of_their_own_kind(tmp_path: Path) -> None:
    """With the other kind, publishing says so."""
    (tmp_path / "test_fixtures.py").write_text(PAGE.block("Fixtures of your own", "python") + USES_FIXTURES)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", str(tmp_path)),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode == 0, out.decode()
    assert b"3 passed" in out


# What the tables name


def calls() -> dict[str, list[str]]:
    """The calls in the page's tables, with the names of their arguments."""
    cells = [row[0] for heading in ("What your code publishes to", "Faults") for row in PAGE.rows(heading)]
    found = [re.fullmatch(r"(\w+)\((.*)\)", cell) for cell in cells]
    return {each[1]: [part.partition("=")[0] for part in each[2].split(", ") if part] for each in found if each}


def test_the_calls_are_those_of_the_broker() -> None:
    """Each has a row with its arguments, or is explained in the text: what runs the test, and what looks."""
    verbs = {
        name: list(inspect.signature(each).parameters)[1:]
        for name, each in inspect.getmembers(Broker)
        if inspect.isfunction(each) and not name.startswith("_") and name not in INNER
    }
    text = {"fetch", "run", "advance", "messages"}
    assert calls() == {name: arguments for name, arguments in verbs.items() if name not in text}
    assert all(f"{name}(" in PAGE.text for name in text)
    assert {*dir(Broker)} >= INNER


def test_the_attributes_of_a_message_are_those_of_the_code() -> None:
    """Each field and property."""
    cells = " ".join(f"`{row[0]}`" for row in PAGE.rows("What was published"))
    fields = {field.name for field in dataclasses.fields(Published)}
    properties = {name for name, each in vars(Published).items() if isinstance(each, property)}
    assert set(re.findall(r"`(\w+)`", cells)) == fields | properties


def test_the_defaults_are_those_of_the_broker() -> None:
    """As far as the tables name them."""
    for call in ("fill(queue, full=True)", "refuse_password(refused=True)"):
        name, argument, default = re.fullmatch(r"(\w+)\(.*?(\w+)=(\w+)\)", call).groups()  # type: ignore[union-attr]
        assert f"`{call}`" in PAGE.text
        assert str(inspect.signature(getattr(Broker, name)).parameters[argument].default) == default


# What the text says


def test_each_fault_does_what_its_row_says(amqp_broker: Broker) -> None:
    """Two publishes feel it, as they would RabbitMQ's; when it is over they are confirmed again."""
    broker = amqp_broker
    broker.queue_declare("q")
    not_ready, unknown, nacked = amqp.NotReadyError, amqp.OutcomeUnknown, amqp.MessageNacked
    faults: list[tuple[Callable[[], object], Callable[[], object], list[object]]] = [
        (broker.stop, broker.start, [not_ready, not_ready]),
        (broker.cut, nothing, [not_ready, not_ready]),
        (lambda: broker.close_connections("bye"), nothing, [not_ready, not_ready]),
        (lambda: broker.block("low on memory"), broker.unblock, [unknown, unknown]),
        (
            lambda: broker.refuse_exchange("amq.topic", 403),
            lambda: broker.refuse_exchange("amq.topic", 0),
            [unknown] * 2,
        ),
        (lambda: broker.nack_next(1), nothing, [nacked, None]),
        (lambda: broker.fill("q"), lambda: broker.fill("q", full=False), [None, nacked]),
        (broker.swallow_confirms, broker.release_confirms, [unknown, unknown]),
        (lambda: broker.close_channel(406, "PRECONDITION_FAILED"), nothing, [None, None]),
        (
            lambda: (broker.refuse_password(), broker.cut()),
            lambda: broker.refuse_password(refused=False),
            [not_ready, not_ready],
        ),
    ]

    async def publish() -> list[object]:
        both = client.publish("amq.topic", "k", b"", timeout=1), client.publish("", "q", b"", timeout=1)
        ended = await asyncio.gather(*both, return_exceptions=True)
        return [type(each) if isinstance(each, Exception) else each for each in ended]

    client = amqp.Client("amqp://broker", confirm_timeout=1, on_return_callback=lambda *_: None)
    assert broker.run(publish()) == [None, None]
    for begin, end, felt in faults:
        begin()
        assert broker.run(publish()) == felt
        end()
        broker.advance(60)
        assert broker.run(publish()) == [None, None]


def nothing() -> None:
    """The fault is over by itself."""


async def test_a_coroutine_test_has_real_time(amqp_broker: Broker) -> None:
    """The broker's own loop is not there."""
    with pytest.raises(RuntimeError):
        amqp_broker.advance(1)
    with pytest.raises(RuntimeError):
        amqp_broker.run(asyncio.sleep(0))
