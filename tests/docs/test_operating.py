"""docs/operating.md: page, probes, manifest and configuration work, and each line of the log has its sample."""

import ast
import asyncio
import importlib
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from tornado.web import Application

import sprockets_amqp as amqp
from examples.application import Events
from sprockets_amqp import bounded_log
from sprockets_amqp.connection import lifecycle
from sprockets_amqp.delivery import exchanges
from sprockets_amqp.testing import Broker
from sprockets_amqp.web import page, status
from sprockets_amqp.wire import sending
from tests.support.documents import SECONDS, Document
from tests.support.http import fetch, served
from tools.documents import ROOT
from tools.rabbitmq import free_port

PAGE: Final = Document("docs/operating.md")

TESTED: Final = {
    ("The live page", "python"),
    ("JSON", "json"),
    ("Kubernetes", "yaml"),
    ("Logging", "python"),
}

#: The headings under which lines of the log have a table.
LOGGED: Final = (
    "Connecting",
    "What RabbitMQ says",
    "Requests, and your own code",
    "The outbox",
    "The recorder",
    "At DEBUG",
)


async def codes(address: str, *paths: str) -> list[int]:
    """The statuses of the answers to requests for these paths."""
    return [(await fetch(f"{address}{path}")).code for path in paths]


# The page and the probes


async def test_the_page_and_the_probes_answer(amqp_broker: Broker) -> None:
    """Ready while publishes go out; alive until the client was closed for good."""
    async with PAGE.run("The live page", amqp=amqp, Application=Application, handlers=[("/events", Events)]) as names:
        client: amqp.Client = names["application"].amqp
        await client.wait_for(amqp.State.READY, SECONDS)
        probes = [row[0] for row in PAGE.rows("Probes")]
        async with served(names["application"]) as address:
            assert await codes(address, "/amqp", "/amqp/", *probes) == [200, 200, 200, 200]
            amqp_broker.stop()
            await client.wait_for(amqp.State.CLOSED, SECONDS)
            assert await codes(address, "/amqp/", *probes) == [200, 503, 200]
            await client.shutdown()
            assert await codes(address, "/amqp/", *probes) == [200, 503, 503]


def test_the_document_is_that_of_the_probes(amqp_broker: Broker) -> None:
    """With the fields that the page explains."""
    shown = json.loads(PAGE.block("JSON", "json"))
    client = amqp.Client("amqp://rabbit/shop", reconnect_delay=60)
    amqp_broker.stop()
    amqp_broker.advance(1)
    told = status.describe(client)
    assert shown.keys() == told.keys()
    assert shown["counters"].keys() == told["counters"].keys()
    fixed = told.keys() - {"since", "counters"}
    assert {name: shown[name] for name in fixed} == {name: told[name] for name in fixed}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["since"])
    explained = [field for row in PAGE.rows("JSON") for field in re.findall(r"\w+", row[0])]
    assert explained == list(told)


# Kubernetes


def test_the_manifest_probes_what_is_there_and_gives_enough_time() -> None:
    """Its paths are those of the routes, and its grace is longer than what it is for."""
    yaml = importlib.import_module("yaml")
    pod = yaml.safe_load(PAGE.block("Kubernetes", "yaml"))["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (port,) = (each["containerPort"] for each in container["ports"])
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("readiness", "liveness")}
    assert {name: (probe["path"], probe["port"]) for name, probe in probes.items()} == {
        row[3].partition(",")[0]: (row[0], port) for row in PAGE.rows("Probes")
    }
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    sleeps, grace = int(seconds), pod["terminationGracePeriodSeconds"]
    # As long again as shutdown() takes is left to whatever else ends with the process.
    assert command == "sleep"
    assert grace >= sleeps + 2 * lifecycle.DRAIN_LIMIT
    assert [row[0] for row in PAGE.rows("Grace periods")] == [
        f"0 to {sleeps}",
        str(sleeps),
        f"{sleeps} to {sleeps + lifecycle.DRAIN_LIMIT:g}",
        str(grace),
    ]
    names = {each["name"] for each in container["env"]}
    assert names == {"AMQP_URL"}


# The log


class Call(NamedTuple):
    """A call that logs: its level, or None where it has another's, and its message as it is in the source."""

    level: str | None
    message: str

    @property
    def pattern(self) -> str:
        """What its lines look like."""
        number = {"%d": r"-?\d+", "%g": r"\d+(?:\.\d+)?", "%.1f": r"\d+\.\d"}
        parts = re.split(r"(%(?:\.\d)?[a-z])", self.message)
        return "".join(number.get(part, ".*") if part.startswith("%") else re.escape(part) for part in parts)

    @property
    def literal(self) -> int:
        """How many characters of it are no arguments: of several calls that a line may come from, it is this one's."""
        return len(re.sub(r"%(?:\.\d)?[a-z]", "", self.message))


def logging_calls() -> set[Call]:
    """Every call of a logger in the package."""
    found = set()
    for path in (ROOT / "sprockets_amqp").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                found |= _logging_call(node.func, node.args)
    return found


def _logging_call(function: ast.Attribute, arguments: list[ast.expr]) -> set[Call]:
    level, logger = function.attr, ast.unparse(function.value)
    if not re.fullmatch(
        r"LOGGER|log(ger)?|(self\.)?_?log(ger)?|self\._(ignored|bounded)|named\(.*\)|_log\(.*\)", logger
    ):
        return set()
    if level == "log":
        level = ast.unparse(arguments.pop(0)).rpartition(".")[2]
    if level not in {"debug", "info", "warning", "error", "critical", "exception", "level"} | set(_LEVELS):
        return set()
    message = arguments[0]
    if isinstance(message, ast.Name):
        # A BoundedLog passes on what it was called with.
        return set()
    known = {"exception": "ERROR", "level": None}
    return {Call(known.get(level, level.upper()), str(ast.literal_eval(message)))}


_LEVELS: Final = logging.getLevelNamesMapping()


def samples() -> list[tuple[str, str]]:
    """Level and line of each sample."""
    return [(row[0], row[1]) for heading in LOGGED for row in PAGE.rows(heading)]


def test_each_line_of_the_log_has_a_sample_and_each_sample_is_one() -> None:
    """With its level."""
    calls = logging_calls()
    assert len(calls) > 40
    shown: dict[Call, list[str]] = {call: [] for call in calls}
    for level, line in samples():
        matching = [call for call in calls if re.fullmatch(call.pattern, line)]
        call = max(matching, key=lambda call: call.literal)
        shown[call].append(line)
        assert call.level in {level, None}, line
    assert [call for call, lines in shown.items() if not lines] == []


def test_the_numbers_in_the_samples_are_those_of_the_code() -> None:
    """Limits that the page names."""
    text = " ".join(PAGE.text.split())
    assert f"{sending.BACK_PRESSURE_MARK // 1024**2} MiB wait for the socket" in text
    assert f"not checked again for {exchanges.COSTLY_LIMIT:g} s" in text
    assert f"for up to {page.MAX_STREAMS} people" in text
    assert bounded_log.MOST == 10
    assert "ten of a kind are logged in a second" in text


def test_a_foreign_file_in_the_outbox_is_logged_as_shown(
    amqp_broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The sentence is that of the error."""
    sqlite3 = importlib.import_module("sqlite3")
    for number in (1, 3):
        with sqlite3.connect(tmp_path / f"amqp.{number}.outbox") as other:
            other.execute("CREATE TABLE cats (name TEXT)")
        other.close()
    client = amqp.Client("amqp://broker", outbox=str(tmp_path))
    amqp_broker.run(client.wait_for(amqp.State.READY))
    amqp_broker.run(client.flush())
    assert (tmp_path / "amqp.2.outbox").exists()
    (sample,) = (row[1] for row in PAGE.rows("The outbox") if "amqp.3" in row[1])
    assert sample.replace("/var/lib/events", str(tmp_path)) in caplog.messages


UNDER_CONFIGURATION: Final = """
import asyncio, logging, logging.config, sys
import sprockets_amqp as amqp

{block}

async def main():
    lasts = asyncio.Event()
    async with amqp.Client(sys.argv[1], timeout=0.01, on_persistent_failure_callback=lambda _: lasts.set()):
        await lasts.wait()

asyncio.run(main())
"""


async def test_the_configuration_shows_our_lines_and_none_of_pikas() -> None:
    """A refused connection in one line, and that the outage lasts in another."""
    text = UNDER_CONFIGURATION.format(block=PAGE.block("Logging", "python"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", text, f"amqp://127.0.0.1:{free_port()}/?connection_attempts=1"),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), SECONDS)
    lines = errors.decode().splitlines()
    assert process.returncode == 0, errors.decode()
    assert lines
    assert all(re.match(r"[\d-]+ [\d:,]+ WARNING sprockets_amqp\.(lifecycle|outage): ", line) for line in lines), lines


# Several clients


async def test_each_client_has_its_variables_probes_and_name(
    amqp_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the columns of the table say."""
    first, second = ({row[0]: row[column] for row in PAGE.rows("Several clients")} for column in (1, 2))
    urls = {"AMQP_URL": "amqp://first", "AUDIT_URL": "amqp://second"}
    for variable, url in urls.items():
        monkeypatch.setenv(variable, url)
    application: Any = Application([*amqp.web.routes()])
    for name in ("amqp", "audit"):
        amqp.install(application, name=name)
    clients = application.amqp_clients
    try:
        for column, client in ((first, clients["amqp"]), (second, clients["audit"])):
            assert urls[column["variables"].removesuffix("` …")] == client.url
            assert eval(column["the client"], {"application": application}) is client  # noqa: S307 - our own
            assert column["metrics"] == f'client="{client.name}"'
            assert column["files in an outbox"] == f"{client.name}.1.outbox"
            await client.wait_for(amqp.State.READY, SECONDS)
            async with served(application) as address:
                paths = re.findall(r"/[\w/]+", column["page and probes"])
                assert await codes(address, *paths) == [200, 200, 200]
    finally:
        for client in clients.values():
            await client.shutdown()
