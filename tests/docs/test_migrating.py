"""docs/migrating.md: an application that changed its import publishes, and the names in the tables exist.

What version 3.0's own tests and applications do is in tests/test_api.py and tests/test_documented.py.
"""

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import sprockets_amqp as amqp
from sprockets_amqp import errors
from tests.support.documents import Document
from tests.support.http import fetch, served
from tools.documents import ROOT
from tools.rabbitmq import Node

MIGRATING: Final = Document("docs/migrating.md")

TESTED: Final = {
    ("Change the import", "python"),
    ("Change the import", "sh"),
    # tests/test_package.py installs what it builds.
    ("Dependencies that ask for the old name", "sh"),
}


async def test_an_application_that_changed_its_import_publishes(broker: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handler answers once the message was confirmed."""
    monkeypatch.setenv("AMQP_URL", broker.url)
    async with MIGRATING.run("Change the import") as names:
        async with served(names["application"]) as address:
            assert (await fetch(f"{address}/legacy")).code == 200
        assert names["application"].amqp.counters.confirmed == 1


def test_the_settings_are_checked(broker: Node) -> None:
    """The command says that all is fine, or which variable is bad."""
    (command,) = MIGRATING.commands("Change the import")
    program, *arguments = shlex.split(command)
    assert program == "sprockets-amqp"
    for variables, status in (({}, 0), ({"AMQP_CONFIRMATIONS": "sometimes"}, 2)):
        done = subprocess.run(
            [sys.executable, "-m", "sprockets_amqp", *arguments],
            env={**os.environ, "AMQP_URL": broker.url, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, all(name in done.stderr for name in variables)) == (status, True), done.stderr


def test_the_distribution_of_the_old_name_is_built_as_shown(tmp_path: Path) -> None:
    """From the root of the project."""
    (command,) = MIGRATING.commands("Dependencies that ask for the old name")
    shutil.copytree(ROOT / "compat", tmp_path / "compat")
    _, *arguments = shlex.split(command)
    subprocess.run([sys.executable, *arguments], check=True, cwd=tmp_path, capture_output=True)
    assert [path.name for path in (tmp_path / "dist").iterdir()] == ["sprockets_mixins_amqp-3.1.0-py3-none-any.whl"]


#: What the tables name besides: arguments of `install()`, and names of Tornado's, of AMQP's and of Python's.
OTHERS: Final = {
    *("install", "on_unavailable_callback", "on_persistent_failure_callback", "service", "version", "write_error"),
    *("message_id", "correlation_id", "app_id", "properties", "socket", "except", "str", "ValueError"),
    *("heartbeat", "may_have_arrived", "TornadoConnection", "ioloop", "getpeercert"),
    *("AMQP_TIMEOUT", "sprockets_amqp", "setup", "on_ready", "on_unavailable", "on_return", "exchange_declare"),
}


def test_the_names_exist() -> None:
    """Every attribute, setting and error that a table says is there today is one."""
    rows = [line.strip("| ").split(" | ")[1:] for line in MIGRATING.text.splitlines() if line.startswith("| ")]
    found = re.findall(
        r"`(?:client\.|await client\.)?(\w+)(?:\([^`]*\)|=\w+)?`", " ".join(" ".join(row) for row in rows)
    )
    settings = {field.name for field in dataclasses.fields(amqp.Settings)}
    assert set(found) - {*dir(amqp.Client), *settings, *vars(errors), *vars(amqp.PublishingMixin), *OTHERS} == set()
    assert len(set(found)) > 25
