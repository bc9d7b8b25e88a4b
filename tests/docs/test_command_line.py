"""docs/command-line.md: its commands run, and its tables are those of `--help`."""

import argparse
import asyncio
import dataclasses
import json
import os
import re
import shlex
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

import sprockets_amqp as amqp
from examples.demo import on_broker
from sprockets_amqp import cli
from sprockets_amqp.cli import check, diagram, lines, outbox, publish, replay, verify, watch
from sprockets_amqp.recording.trace import Line, initial_states, written
from tests.support.command import COMMAND, Result
from tests.support.documents import SECONDS, Document
from tools.documents import ROOT
from tools.postgres import Server
from tools.rabbitmq import Node, free_port

PAGE: Final = Document("docs/command-line.md")

TESTED: Final = {
    *((heading, "sh") for heading in ("check", "publish", "watch", "outbox", "diagram", "verify", "replay")),
    ("watch", "json"),
}

COMMANDS: Final[dict[str, ModuleType]] = {
    "check": check,
    "publish": publish,
    "watch": watch,
    "outbox": outbox,
    "diagram": diagram,
    "verify": verify,
    "replay": replay,
}


async def typed(line: str, folder: Path, url: str, *, until: bytes = b"") -> Result:
    """Type a line into a shell, in a folder; with ``until``, Ctrl-C ends it once it has printed that."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f"exec {line}" if "|" not in line else line),
        cwd=folder,
        env={**os.environ, "AMQP_URL": url, "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            out = b""
            if until:
                assert process.stdout is not None
                out = await process.stdout.readuntil(until)
                process.send_signal(signal.SIGINT)
            rest, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return Result(process.returncode, (out + rest).decode(), err.decode())


# What the commands do


@pytest.fixture
async def url(broker: Node) -> AsyncIterator[str]:
    """A broker with a queue for each that the page publishes to."""
    await on_broker(broker.url, lambda channel: channel.queue_declare("events"))
    await on_broker(broker.url, lambda channel: channel.queue_bind("events", "amq.topic", "event.posted"))
    yield broker.url
    await on_broker(broker.url, lambda channel: channel.queue_delete("events"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the page names."""
    setup = "async def declare(topology):\n    await topology.queue_declare('events')\n"
    (tmp_path / "application.py").write_text(setup)
    (tmp_path / "trace").mkdir()
    start = Line(1.0, states=initial_states(), client="amqp", process=1, run="amqp-1", part=1)
    (tmp_path / "trace" / "amqp-20261130T031200.000000-1-000001.jsonl").write_bytes(written(start))
    (tmp_path / "events.jsonl").write_text('{"user": 7}\n{"user": 8}\n')
    return tmp_path


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (command, line)
        for command in ("check", "publish", "diagram", "verify", "replay")
        for line in PAGE.commands(command)
    ],
)
async def test_a_command_does_what_the_page_says(command: str, line: str, url: str, folder: Path) -> None:
    """On a broker that runs, it succeeds."""
    result = await typed(line, folder, url)
    assert (result.status, result.err if "--lines" not in line else "") == (0, "")
    last = result.out.splitlines()[-1]
    assert re.search(
        {
            "check": "^all is fine$",
            "publish": r"^confirmed: message [0-9a-f-]{36}$|^2 lines: 2 confirmed$",
            "diagram": r"^diagrams/\w+\.\w+$|^ +class |^</scxml>$",
            "verify": r"properties hold; explored and proved in|^A message takes room exactly|all that must hold along",
            "replay": r"the end of what is recorded: the connection is idle$|^written: incident.html$",
        }[command],
        last,
    ), result.out
    assert (folder / "diagrams" / "lifecycle.svg").exists() is (line == "sprockets-amqp diagram")


async def test_check_prints_what_is_shown(url: str, folder: Path) -> None:
    """But for the port and the version; what fails comes with advice."""

    def masked(text: str) -> str:
        return re.sub(r"RabbitMQ [\d.]+", "RabbitMQ 4", re.sub(r"(port |:)\d+(?=\D)", r"\g<1>5672", text))

    good = await typed("sprockets-amqp check", folder, url)
    assert masked(good.out) == masked(PAGE.block("check", "text"))
    bad = await typed("sprockets-amqp check", folder, f"amqp://127.0.0.1:{free_port()}")
    assert masked(bad.out).endswith(masked(PAGE.block("check", "text", 1)))
    setup = await typed("sprockets-amqp check --setup application:declare", folder, url)
    assert [line.split()[0] for line in setup.out.splitlines()[4:7]] == ["login", "vhost", "setup"]


@pytest.mark.parametrize("line", PAGE.commands("watch"))
async def test_watch_prints_changes_as_shown(line: str, url: str, folder: Path) -> None:
    """Until Ctrl-C, in columns or as objects with these fields."""
    result = await typed(line, folder, url, until=b"ready")
    assert result.status == 0
    first = result.out.splitlines()[0]
    if "--json" in line:
        shown, told = json.loads(PAGE.block("watch", "json")), json.loads(first)
        assert shown.keys() == told.keys()
        assert list(shown["counters"]) == list(told["counters"])
        assert list(shown["counters"]) == [field.name for field in dataclasses.fields(amqp.Counters)]
    else:
        sample = PAGE.block("watch", "text").splitlines()[0]
        # But for the time.
        assert first[12:] == sample[12:]
        assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", first[:12])


async def test_the_outbox_commands_take_what_was_set_aside(url: str, folder: Path, postgres: Server) -> None:
    """List, show, retry, drop, downgrade and migrate, in the order of the page."""
    stored = folder / "stored"
    stored.mkdir()
    missing = f"missing-{uuid.uuid4().hex}"
    async with amqp.Client("amqp://127.0.0.1:2", outbox=str(stored), timeout=0) as client:
        await client.publish(missing, "key", b"a body")
    async with amqp.Client(url, outbox=str(stored)) as client:
        await client.flush(30)
        assert client.counters.set_aside == 1
    printed, name = [], "amqp.1.outbox:1"
    database = await postgres.outbox(migrated=False)
    for line in PAGE.commands("outbox"):
        own = line.replace("postgresql://owner:password@db.example.org/shop", shlex.quote(database))
        result = await typed(own.replace("/var/lib/events", str(stored)).replace("amqp.1.outbox:1", name), folder, url)
        assert (result.status, result.err) == (0, "")
        printed.append(result.out)
        # Numbers count all that a process has published.
        name = next(iter(re.findall(r"amqp\.1\.outbox:\d+", result.out)), name)
    listed, shown, retried, dropped, downgraded, migrated = printed
    assert migrated == "sprockets_amqp_outbox was made with version 1\n"
    assert "0 to send, 1 set aside" in listed
    assert "body: a body" in shown
    assert retried == f"{name}: will be sent\n"
    assert dropped == f"{name}: dropped\n"
    assert downgraded == "amqp.1.outbox: 0 messages are in the format of version 1.1 now\n"


# What the tables say


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    (commands,) = (each for each in cli._parser()._actions if isinstance(each, argparse._SubParsersAction))
    return dict(commands.choices)


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """What a command takes, as the page writes it."""
    found = set()
    for action in parser._actions:
        if action.option_strings:
            value: Any = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
            found.add(", ".join(action.option_strings) + ("" if action.nargs == 0 else value))
        else:
            found.update(action.choices or [str(action.metavar or action.dest)])
    return found


def documented(heading: str) -> set[str]:
    """The options in the last table of a section."""
    lines = PAGE.section(heading).partition("| option | what it does |")[2].splitlines()[2:]
    return {line.split(" | ")[0].strip("| ").replace("`", "") for line in lines if line.startswith("|")}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_are_those_of_the_command(command: str) -> None:
    """Each has a row, and each row is one; those of every command have a table of their own."""
    common = documented("Command line")
    assert common == {"-h, --help", "-v, --verbose"}
    expected = {
        each.replace("--print, --format PRINTED", "--print KIND, --format KIND")
        for each in options_of(parsers()[command])
    }
    assert documented(command) == expected - common
    assert common <= expected


def test_every_command_has_a_row_and_a_section() -> None:
    """With its options and its statuses."""
    assert set(parsers()) == set(COMMANDS)
    rows = [re.findall(r"\w+", row[0])[0] for row in PAGE.rows("Command line")]
    assert rows == list(COMMANDS)


def test_the_statuses_are_those_of_the_help() -> None:
    """Of each command; Ctrl-C ends all but watch with 130."""
    rows = PAGE.rows("Exit statuses")
    for column, (name, command) in enumerate(COMMANDS.items(), 1):
        said = {int(row[0]) for row in rows if row[column] != "-"}
        declared = {int(number) for number in re.findall(r"\b(\d+) ", command.STATUS.partition("A client")[0])}
        assert said == declared | ({130} if name != "watch" else set())


def test_the_outcomes_are_those_of_the_code() -> None:
    """Each word that publish may print."""
    assert {row[0] for row in PAGE.rows("publish")} == {"confirmed", *lines.OUTCOMES.values()}
    section = " ".join(PAGE.section("publish").split())
    assert f"up to {lines.DRAIN_LIMIT:g} seconds for confirms" in section


def test_what_publish_prints_of_lines_is_as_shown() -> None:
    """The summary, and the lines of an outcome."""
    account = lines.Account()
    account.sent = 1000
    error = amqp.MessageNacked().about("5c1bf47e-8a0e-4c6e-9d0a-94a9a1d2e0b7", "amq.topic", "event.posted")
    for number in range(1, 1001):
        account.settle(1, error if number in {314, 315} else None)
    assert [f"1000 lines: {account.summary()}", *account.listing()] == PAGE.block("publish", "text", 1).splitlines()


def test_the_defaults_are_those_of_the_code() -> None:
    """Where a table names one."""
    defaults = {action.dest: action.default for parser in parsers().values() for action in parser._actions}
    assert (defaults["limit"], defaults["exchange"], str(defaults["output"])) == (10, "", "diagrams")
    for words in ("each step may take; 10 by default", 'by default the one with the name ""', "by default `diagrams`"):
        assert words in PAGE.text
    kinds = next(action.choices for action in parsers()["diagram"]._actions if action.dest == "printed")
    assert kinds is not None
    assert ", ".join(f"`{kind}`" for kind in list(kinds)[:-1]) + f" or `{list(kinds)[-1]}`" in PAGE.section("diagram")


async def test_the_module_is_the_same_command() -> None:
    """As the page says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sprockets_amqp", "--version"), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.decode().strip() == amqp.__version__
