"""docs/recorder.md: the incident is told as it was, its commands run, and its tables are those of the code."""

import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from tornado.web import Application

import sprockets_amqp as amqp
from sprockets_amqp.handlers.install import install
from sprockets_amqp.recording import ring, trace
from sprockets_amqp.recording.trace import Line, Pull
from sprockets_amqp.states import MACHINES
from tests.support.command import COMMAND
from tests.support.documents import Document
from tools.documents import ROOT
from tools.rabbitmq import Node

PAGE: Final = Document("docs/recorder.md")

TESTED: Final = {
    ("The recorder", "python"),
    ("An incident", "sh"),
    ("Replay", "sh"),
    ("Verify", "sh"),
}


@pytest.mark.usefixtures("amqp_broker")
async def test_the_setting_is_an_argument_of_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another folder."""
    application = Application()
    folder = str(tmp_path / "trace")
    monkeypatch.setattr("sprockets_amqp.install", functools.partial(_installed, folder))
    async with PAGE.run("The recorder", application=application):
        client: amqp.Client = application.amqp  # type: ignore[attr-defined]
        assert client.settings.recorder == folder


def _installed(folder: str, application: Application, *, recorder: str) -> object:
    assert recorder == "/var/lib/events/trace"
    return install(application, recorder=folder)


def masked(text: str) -> list[str]:
    """What happened, without times, numbers and repetitions that depend on the machine."""
    lines = [re.sub(r"^[\d:.]+ |(?<=StreamLostError: ).*", "", line) for line in text.splitlines()]
    words = [re.sub(r"\s+", " ", re.sub(r"\d+", "N", line)) for line in lines]
    return [line for line in words if not line.startswith((" N", " now"))]


async def test_the_incident_is_told_as_shown(broker: Node, tmp_path: Path) -> None:
    """On a real RabbitMQ: the same changes, in the same order, and the refusals between them."""
    environment = {
        **os.environ,
        "AMQP_URL": broker.url,
        "PATH": f"{Path(sys.executable).parent}:{Path(COMMAND).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }

    def typed(line: str) -> str:
        done = subprocess.run(
            ["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    causing, telling = PAGE.commands("An incident")
    counts = [int(number) for number in re.findall(r"\d+", typed(causing))]
    told = typed(telling)
    sample = PAGE.block("An incident", "text")
    assert masked(told) == masked(sample)
    # What it prints at its end is what is told. A message that was in flight when the cable was cut failed, too.
    for word, count in zip(("confirmed", "failed", "not ready"), counts, strict=True):
        assert sum(int(number) for number in re.findall(rf"(\d+) {word}", told)) == count
    assert 0 < counts[2] <= counts[1]
    assert counts[0] + counts[1] == 200
    refused = sum(int(number) for number in re.findall(r"(\d+) not ready", sample))
    assert f"{refused} in all" in " ".join(PAGE.text.split())
    (verifying,) = PAGE.commands("Verify")
    assert masked(typed(verifying)) == masked(PAGE.block("Verify", "text"))
    (writing,) = PAGE.commands("Replay")
    assert typed(writing) == "written: incident.html\n"


def test_the_names_in_a_line_are_those_of_the_code() -> None:
    """Each kind of line has those of its table."""
    tables = re.findall(r"((?:^\|.*\n)+)", PAGE.section("The files"), re.MULTILINE)
    first, second = (set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) for table in tables)
    start = Line(1.0, states={"outage": "calm"}, client="amqp", process=1, run="amqp-1", part=1)
    assert json.loads(trace.written(start)).keys() == {"at", *first}
    inner = Pull("outage", "outage_began", "calm", "counting")
    step = Line(1.0, Pull("connection", "connect", "idle", "closed", "why", (inner,)))
    assert json.loads(trace.written(step)).keys() == {"at", *second}
    counters = Line(1.0, counters=dataclasses.asdict(amqp.Counters()))
    assert json.loads(trace.written(counters)).keys() == {"at", "counters"}
    assert all(f"`{machine.name}`" in PAGE.section("The files") for machine in MACHINES)


def test_the_numbers_are_those_of_the_code() -> None:
    """Limits, and what the defaults come to."""
    settings = amqp.Settings(url="amqp://localhost")
    text = " ".join(PAGE.text.split())
    assert f"{settings.recorder_size * settings.recorder_files // 1024**2} MiB for each process" in text
    assert f"{ring.MOST_WAITING:,} lines behind" in text
    assert trace.NAME.fullmatch(re.search(r"`(amqp-[\w.-]+)`", text)[1])  # type: ignore[index]
    assert f"`format` | `{trace.FORMAT}`" in text
    day = len(trace.written(Line(1.8e9, counters=dataclasses.asdict(amqp.Counters())))) * 86_400
    assert round(day / 1024**2, -1) == 20
