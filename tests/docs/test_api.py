"""docs/api.md: every public name is there, with its docstring; and the documentation can be built."""

import dataclasses
import importlib
import re
import subprocess
import sys
from typing import Final

import pytest
from sphinx.util.inventory import InventoryFile

import sprockets_amqp as amqp
from tests.support.documents import Document
from tools.api import MODULES
from tools.documents import ROOT

API: Final = Document("docs/api.md")

#: What is public, by its full name.
PUBLIC: Final = {
    f"{module}.{name}"
    for module in (f"sprockets_amqp.{path}".rstrip(".") for path in MODULES)
    for name in importlib.import_module(module).__all__
} - {"sprockets_amqp.web"}


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names that the built documentation explains, by their full names; any warning is an error."""
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "docs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    inventory = InventoryFile.loads((folder / "objects.inv").read_bytes(), uri="")
    objects = [each for kind, names in inventory.data.items() if kind.startswith("py:") for each in names.values()]
    # Where it is explained is its public name; an object has that of its own module, too.
    return {each.uri.partition("#")[2].removeprefix("module-") for each in objects}


def test_every_public_name_is_documented(documented: set[str]) -> None:
    """And no other class, function or constant is: what is on this page is promised to stay."""
    modules = {f"sprockets_amqp.{path}".rstrip(".") for path in MODULES}
    below = {name for name in documented if any(name.startswith(f"{public}.") for public in PUBLIC)}
    assert documented - below - modules == PUBLIC


def test_what_they_can_do_is_documented(documented: set[str]) -> None:
    """Each setting, and some of every other kind: methods, properties, members of an Enum, what a test calls."""
    names = {f"Settings.{field.name}" for field in dataclasses.fields(amqp.Settings)}
    names |= {"Client.publish", "Client.substate", "Client.from_environment", "Client.on_channel_open"}
    names |= {"State.READY", "Counters.stored", "ExchangeRefused.reply_code", "testing.Broker.refuse_exchange"}
    assert {f"sprockets_amqp.{name}" for name in names} <= documented
    assert "sprockets_amqp.testing.Broker.judge" not in documented


def test_the_constants_have_their_values() -> None:
    """These have no docstring to be taken."""
    found = re.findall(r"^\.\. data:: (\w+)\n   :value: (.*)$", API.text, re.MULTILINE)
    assert {name for name, _ in found} == {"STORED", "DEFAULT_RECONNECT_DELAY", "DEFAULT_CONNECTION_ATTEMPTS"}
    assert {name: value.strip('"') for name, value in found} == {name: str(getattr(amqp, name)) for name, _ in found}
