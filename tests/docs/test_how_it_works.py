"""docs/how-it-works.md: the log that it shows, the machines and the files that it names are those of the code."""

import logging
import re
from typing import Final

import pytest

from sprockets_amqp.states import Outage, Outbox, Renewal
from tests.support.documents import Document
from tools import modules
from tools.documents import ROOT

HOW: Final = Document("docs/how-it-works.md")

TESTED: Final = {("The way of an event", "python")}


async def test_the_way_of_an_event_can_be_watched(caplog: pytest.LogCaptureFixture) -> None:
    """The program that is shown logs the lines that are shown below it."""
    caplog.set_level(logging.DEBUG, "sprockets_amqp.lifecycle")
    async with HOW.run("The way of an event"):
        pass
    logged = [each.getMessage().strip() for each in caplog.records if " -> " in each.getMessage()]
    assert logged == HOW.block("The way of an event", "text").splitlines()


def test_the_machines_have_the_states_that_are_declared() -> None:
    """All of them, by their values; the connection's are on a page of their own."""
    told = {row[1].strip("`"): re.findall(r"`([^`]+)`", f"`{row[2].strip('`')}`") for row in HOW.rows("The machines")}
    for name, states in (("outage", Outage), ("renewal", Renewal), ("outbox", Outbox)):
        assert told[f"states/{name}.py"] == [state.value for state in states]
    files = {path.stem for path in (ROOT / "states").glob("*.py")} - {
        *("__init__", "ledger", "vocabulary"),
        # What is around the machines.
        *("world", "effects", "events", "properties", "stored"),
    }
    assert told.keys() == {f"states/{name}.py" for name in files}


def test_every_module_is_in_the_table() -> None:
    """As it lies in the folder, whatever its layer."""
    package = ROOT / "sprockets_amqp"
    found = {str(path.relative_to(package)) for path in [*package.rglob("*.py"), *(package / "states").glob("*.py")]}
    found = {path.removesuffix("__init__.py") for path in found} - {""}
    assert set(re.findall(r"^\| \d+ \| `([^`]+)` \|", modules.table(), re.MULTILINE)) == found


def test_the_files_that_are_named_exist() -> None:
    """In the project, or in the package."""
    prose = re.sub(r"^\|.*$", "", HOW.text, flags=re.MULTILINE)
    named = set(re.findall(r"`((?:\w+/)*\w*(?:\.py|/|\.toml))`", prose))
    assert len(named) > 20
    assert [
        name for name in named if not (ROOT / name).exists() and not (ROOT / "sprockets_amqp" / name).exists()
    ] == []
