"""docs/lifecycle.md: its hooks are told, its limits and attributes are those of the code, its commands draw."""

import asyncio
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any, Final

import pytest

import sprockets_amqp as amqp
from sprockets_amqp import Client, StateChange, settings
from sprockets_amqp.connection.address import CALL_LIMIT
from sprockets_amqp.connection.lifecycle import CLOSE_LIMIT, DRAIN_LIMIT, SETUP_LIMIT
from sprockets_amqp.drawing import diagrams
from sprockets_amqp.hooks import HISTORY_LENGTH, PENDING_LIMIT
from sprockets_amqp.states import CONNECTION, MACHINES
from sprockets_amqp.testing import Broker
from tests.support.command import run
from tests.support.documents import Document
from tools.documents import ROOT

LIFECYCLE: Final = Document("docs/lifecycle.md")

TESTED: Final = {
    ("Subscriptions", "python"),
    ("Iteration", "python"),
    ("Waiting for a state", "python"),
    ("Draw it", "sh"),
}
URL: Final = "amqp://localhost"


def names(cells: list[str]) -> list[str]:
    """Every name in these cells: those in code."""
    return [name.strip("` ") for cell in cells for name in cell.split(", ")]


def test_the_picture_of_each_machine_is_there() -> None:
    """With a text for those who cannot see it."""
    pictures = re.findall(r"!\[[^]]{50,}\]\(([^)]+)\)", LIFECYCLE.text)
    names = {"lifecycle" if machine is CONNECTION else machine.name for machine in MACHINES}
    assert {Path(picture).stem for picture in pictures} == names
    for picture in pictures:
        assert (ROOT / "docs" / picture).read_text().startswith("<svg")


# The hooks


async def test_a_subscriber_is_told(amqp_broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    """Of what the page shows."""
    async with Client(URL, reconnect_delay=30) as client, LIFECYCLE.run("Subscriptions", client=client) as told:
        await client.wait_for(amqp.State.READY)
        amqp_broker.close_connections()
        await client.wait_for(amqp.State.CLOSED)
        await asyncio.sleep(0)
        assert capsys.readouterr().out == LIFECYCLE.block("Subscriptions", "text")
        told["subscription"].cancel()
    assert capsys.readouterr().out == ""


async def test_an_iterator_is_told(amqp_broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    """Of each change, in order."""
    async with Client(URL, reconnect_delay=30) as client, LIFECYCLE.run("Iteration", client=client) as told:
        await client.wait_for(amqp.State.READY)
        amqp_broker.close_connections()
        await client.wait_for(amqp.State.CLOSED)
        await asyncio.sleep(0)
        told["following"].cancel()
    shown = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in shown] == ["READY", "CLOSED"]
    assert all(re.fullmatch(r"[A-Z]+ since 1\d{9}", line) for line in shown)


@pytest.mark.usefixtures("amqp_broker")
async def test_a_state_is_waited_for() -> None:
    """The client is ready when the line has run."""
    client = Client(URL)
    assert not client.ready
    async with LIFECYCLE.run("Waiting for a state", client=client):
        assert client.ready


def test_the_callbacks_are_called_as_the_table_says(amqp_broker: Broker) -> None:
    """Ready, unavailable, and once in an outage that lasts."""
    told: list[str] = []
    callbacks: dict[str, Any] = {
        row[0]: lambda client, name=row[0]: told.append(f"{name} {client.state.name}")
        for row in LIFECYCLE.rows("Callbacks")
    }

    async def live() -> None:
        async with Client(URL, timeout=10, **callbacks) as client:
            await client.wait_for(amqp.State.READY)
            amqp_broker.stop()
            await asyncio.sleep(9)
            told.append("nine seconds")
            await asyncio.sleep(100)
            amqp_broker.start()
            await client.wait_for(amqp.State.READY)

    amqp_broker.run(live())
    ready, unavailable, persistent = callbacks
    assert told == [
        f"{ready} READY",
        f"{unavailable} CLOSED",
        "nine seconds",
        f"{persistent} CLOSED",
        f"{ready} READY",
        f"{unavailable} CLOSING",
    ]


# The tables


@pytest.mark.usefixtures("amqp_broker")
def test_the_limits_are_those_of_the_code() -> None:
    """And the delays are the settings' defaults."""
    client = Client(URL)
    node = client.parameters
    assert node is not None
    limits = [CALL_LIMIT, float(node.stack_timeout or 0), SETUP_LIMIT, DRAIN_LIMIT, CLOSE_LIMIT]
    assert [row[1] for row in LIFECYCLE.rows("How the client reconnects")] == [f"{limit:g} s" for limit in limits]
    section = LIFECYCLE.section("How the client reconnects")
    assert f"`reconnect_delay` seconds at most, {settings.DEFAULT_RECONNECT_DELAY} by default" in section
    assert f"`max_reconnect_delay`, {client.settings.max_reconnect_delay:g} by default" in section
    assert f"{node.retry_delay:g} seconds apart" in section.replace("two", "2")
    assert f"lasted for `timeout` seconds, {client.settings.timeout:g} by default" in LIFECYCLE.section("Outages")


def test_every_attribute_of_the_client_is_there() -> None:
    """Each property, and what is set when the client is made."""
    properties = [name for name, each in inspect.getmembers(Client) if isinstance(each, property) and name[0] != "_"]
    listed = names([row[0] for row in LIFECYCLE.rows("Ask the client")])
    assert sorted(listed) == sorted([*properties, "io_loop"])


def test_every_attribute_of_a_change_is_there() -> None:
    """In their order."""
    fields = [field.name for field in dataclasses.fields(StateChange)]
    assert names([row[0] for row in LIFECYCLE.rows("A change")]) == fields
    assert f"{PENDING_LIMIT} behind" in LIFECYCLE.section("A change")
    assert HISTORY_LENGTH == 100 and "the last hundred changes" in LIFECYCLE.text


def test_every_guard_is_explained() -> None:
    """Each that the table of transitions names."""
    guards = set(re.findall(r"(?:if|unless) `(\w+)`", diagrams.table()))
    assert guards == set(re.findall(r"`(\w+)` holds", LIFECYCLE.section("Transitions")))


# The commands


@pytest.mark.parametrize("command", LIFECYCLE.commands("Draw it"))
async def test_the_declaration_is_drawn(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into a folder, or onto the screen."""
    monkeypatch.chdir(tmp_path)
    program, *arguments = command.split()
    done = await run(*arguments)
    assert (program, done.status, done.err) == ("sprockets-amqp", 0, "")
    if "--print" in arguments:
        assert done.out == {"mermaid": diagrams.mermaid, "table": diagrams.table}[arguments[-1]]()
    else:
        names = [f"lifecycle.{kind}" for kind in ("dot", "md", "mmd", "png", "svg")]
        names += [f"{machine.name}.svg" for machine in MACHINES if machine is not CONNECTION]
        assert sorted(path.name for path in (tmp_path / "lifecycle").iterdir()) == sorted(names)
