"""What the README says of other libraries, held against the libraries themselves.

What each is made for is what its authors say: https://pika.readthedocs.io, https://docs.aio-pika.com and
https://faststream.ag2.ai. Everything else in the table is tried here.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.command import bare_environment
from tests.support.documents import Document
from tools.documents import ROOT

#: The other libraries are installed once.
pytestmark = [pytest.mark.package, pytest.mark.xdist_group("compared")]

README: Final = Document("README.md")
#: What is tried of each row, and what its cells say of an outcome that is no exception.
ROWS: Final = {
    "when RabbitMQ is back": ("afterwards", {"confirmed": "publishes again", "ChannelWrongStateError": "your code"}),
    "a publish while RabbitMQ is away": ("away", {"confirmed": "waits"}),
    "a message in flight when the connection is lost": ("in flight", {"no word": "gets no word"}),
    "messages in flight with one to a missing exchange": (
        "others",
        {"confirmed": "are confirmed", "no word": "get no word"},
    ),
}
#: What shows that a library consumes, and that it has a broker in memory; of pika and aio-pika no module says so.
LOOKED_AT: Final = """
import importlib.util, inspect, json, pkgutil, pika.channel, aio_pika, faststream.rabbit

def has_tests(package):
    return any("test" in each.name or "memory" in each.name for each in pkgutil.walk_packages(package.__path__))

async def published():
    broker = faststream.rabbit.RabbitBroker("amqp://127.0.0.1:2")
    got = []

    @broker.subscriber("queue")
    async def take(event: str) -> None:
        got.append(event)

    async with faststream.rabbit.TestRabbitBroker(broker):
        await broker.publish("event", "queue")
    return bool(got)

import asyncio
print(json.dumps({
    "consumes messages": [
        hasattr(pika.channel.Channel, "basic_consume"), hasattr(aio_pika.Queue, "consume"),
        hasattr(faststream.rabbit.RabbitBroker, "subscriber"),
    ],
    "a broker in memory for your tests": [has_tests(pika), has_tests(aio_pika), asyncio.run(published())],
}))
"""


def rows() -> dict[str, list[str]]:
    """The table's rows by what they are about."""
    return {row[0]: row[1:] for row in README.rows("Compared")}


def columns() -> list[str]:
    """The libraries, in the order of the table."""
    (head,) = re.findall(r"^\| \| (.*) \|$", README.section("Compared"), re.MULTILINE)
    return [*head.split(" | ")]


def run(*command: object) -> str:
    """Run a command in the project's folder; returns what it printed."""
    done = subprocess.run(
        [*map(str, command)], cwd=ROOT, env=bare_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the other libraries, in the versions that the README names."""
    named = re.findall(r"(pika|aio-pika|FastStream) (\d[\d.]*\d)", README.section("Compared"))
    wanted = [f"{'faststream[rabbit]' if name == 'FastStream' else name}=={version}" for name, version in named]
    assert len(wanted) == 3
    environment = tmp_path_factory.mktemp("others") / "environment"
    run(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "tornado", "transitions", *wanted)
    return python


def test_what_becomes_of_publishes_in_trouble(rabbitmq: None, others: Path) -> None:
    """On a real RabbitMQ each library does what its cells say."""
    found = json.loads(run(others, "-m", "tests.support.compared"))
    assert list(found) == columns()
    for library, outcomes in found.items():
        for title, (trouble, words) in ROWS.items():
            cell = rows()[title][columns().index(library)]
            assert words.get(outcomes[trouble], outcomes[trouble]) in cell, (title, library, outcomes)


def test_what_else_they_have(others: Path) -> None:
    """Each cell begins with yes or no; this project's client has no way to consume, and a broker in memory."""
    found: dict[str, Any] = json.loads(run(others, "-W", "ignore", "-c", LOOKED_AT))
    found["consumes messages"].insert(0, False)
    found["a broker in memory for your tests"].insert(0, True)
    said = {title: [cell.startswith("yes") for cell in rows()[title]] for title in found}
    assert said == found


def test_every_row_is_tried() -> None:
    """But what a library is made for, which its authors say."""
    assert rows().keys() == {"is made for", "consumes messages", "a broker in memory for your tests", *ROWS}
