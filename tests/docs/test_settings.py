"""docs/settings.md: every setting is there, with its variable and default, and its examples set what they say."""

import dataclasses
import inspect
import re
from typing import Any, Final

import pytest
from tornado.web import Application

import sprockets_amqp as amqp
from sprockets_amqp import Client, Settings
from sprockets_amqp.settings import PREFIXES, from_environment
from tests.support.documents import Document

SETTINGS: Final = Document("docs/settings.md")

TESTED: Final = {("Settings", "python"), ("Settings", "sh")}
GROUPS: Final = ("Connection", "Waiting", "Confirmations", "Messages", "Outbox", "Recorder", "Login and TLS")


def shown(default: object) -> str:
    """A default, as it is written in a variable."""
    if default is None or isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_every_setting_is_there() -> None:
    """With its variable and its default."""
    expected = {
        field.name: (f"{PREFIXES[0]}{field.metadata['variable']}", shown(field.default))
        for field in dataclasses.fields(Settings)
    }
    expected["default_app_id"] = ("AMQP_APP_ID", "service/version")
    expected["tls_context"] = ("none", "none")
    rows = [row for heading in GROUPS for row in SETTINGS.rows(heading)]
    assert {name: (variable, default) for name, variable, default, _ in rows} == expected
    assert len(rows) == len(expected)


def test_every_other_argument_is_there() -> None:
    """Of the client, and of what makes one."""
    others = {name for row in SETTINGS.rows("Arguments without a variable") for name in re.findall(r"\w+", row[0])}
    known = {name for each in (Client.__init__, amqp.install) for name in inspect.signature(each).parameters}
    assert others == known - {field.name for field in dataclasses.fields(Settings)} - {
        "self",
        "application",
        "settings",
        "kwargs",
    }


def test_times_and_sizes_are_given_in_larger_units_where_that_helps() -> None:
    """And they are right."""
    settings = Settings(url="amqp://localhost")
    sizes = {row[0]: re.search(r"\((\d+) ([MG])iB\)", row[3]) for heading in GROUPS for row in SETTINGS.rows(heading)}
    told = {name: int(size[1]) * 1024 ** {"M": 2, "G": 3}[size[2]] for name, size in sizes.items() if size}
    assert told == {
        name: getattr(settings, name)
        for name in ("max_unconfirmed_size", "max_waiting_size", "outbox_limit", "recorder_size")
    }


@pytest.mark.usefixtures("amqp_broker")
async def test_arguments_set_what_they_say() -> None:
    """As keyword arguments of install()."""
    application = Application()
    async with SETTINGS.run("Settings", application=application):
        settings = application.amqp.settings  # type: ignore[attr-defined]
        assert (settings.timeout, settings.max_waiting) == (5, 1000)


def test_variables_set_what_they_say() -> None:
    """As a shell would export them."""
    exported = dict(line.removeprefix("export ").split("=", 1) for line in SETTINGS.commands("Settings"))
    found = from_environment(exported)
    assert (found["url"], found["timeout"]) == ("amqps://app:secret@rabbitmq.example.org/orders", 5)


@pytest.mark.usefixtures("amqp_broker")
def test_the_first_of_the_sources_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page: argument, AMQP_, RABBITMQ_, default; an empty variable is none."""
    for prefix in PREFIXES:
        monkeypatch.delenv(f"{prefix}TIMEOUT", raising=False)

    def timeout(**arguments: Any) -> float:
        return Client.from_environment(**arguments).settings.timeout

    found = [timeout()]
    monkeypatch.setenv("RABBITMQ_TIMEOUT", "3")
    found.append(timeout())
    monkeypatch.setenv("AMQP_TIMEOUT", "")
    found.append(timeout())
    monkeypatch.setenv("AMQP_TIMEOUT", "2")
    found += [timeout(), timeout(timeout=1), Client("amqp://localhost").settings.timeout]
    assert found == [10, 3, 3, 2, 1, 10]
    assert re.findall(r"prefix `(\w+_)`", SETTINGS.section("Where a value comes from")) == list(PREFIXES)


@pytest.mark.parametrize("word", ["true", "1", "YES", "On"])
def test_truth_has_four_names(word: str) -> None:
    """And so has its opposite."""
    opposite = {"true": "false", "1": "0", "YES": "NO", "On": "Off"}[word]
    found = [from_environment({"AMQP_FAIL_ON_RETURN": each})["fail_on_return"] for each in (word, opposite)]
    assert found == [True, False]
    assert f"`{word.lower()}`/`{opposite.lower()}`" in SETTINGS.section("Where a value comes from")


def test_a_bad_value_is_named() -> None:
    """With where it came from, as the page shows."""
    with pytest.raises(ValueError, match="AMQP_TIMEOUT") as raised:
        from_environment({"AMQP_TIMEOUT": "ten"})
    assert f"{raised.value}\n" == SETTINGS.block("Bad values", "text")
