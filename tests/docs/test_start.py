"""docs/start.md, typed from its first command to its last: a virtual environment, an application, an outage."""

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from examples.demo import on_broker
from tests.support.command import bare_environment
from tests.support.documents import Document
from tools.documents import ROOT
from tools.rabbitmq import Node, free_port, scripts

START: Final = Document("docs/start.md")

TESTED: Final = {
    ("Install", "sh"),
    ("Write the application", "python"),
    ("Post an event", "sh"),
    ("Read it from the queue", "sh"),
    ("Read it from the queue", "python"),
    ("Stop RabbitMQ", "sh"),
}
LIMIT: Final = 150
#: A request waits five seconds here for RabbitMQ, instead of ten.
VARIABLES: Final = {"AMQP_TIMEOUT": "5", "AMQP_RECONNECT_DELAY": "0.5", "AMQP_MAX_RECONNECT_DELAY": "0.5"}
#: What a checkout has that no installation needs.
LEFT_OUT: Final = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "_build")
#: What the page has its reader do in words, after the command that ends so.
IN_WORDS: Final = {
    "events.py &": "until (: </dev/tcp/127.0.0.1/8000) 2>/dev/null; do sleep 0.1; done",
    "list_queues name messages": "python read.py",
    "start_app": "until {curl} --fail; do sleep 0.1; done",
}
#: Stands before each command in what the script prints.
PROMPT: Final = "\n$ "


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The folder of sprockets_amqp, with the files that the page has the reader save."""
    folder = tmp_path / "sprockets_amqp"
    shutil.copytree(ROOT, folder, symlinks=True, ignore=LEFT_OUT)
    (folder / "read.py").write_text(START.block("Read it from the queue", "python"))
    return folder


@pytest.fixture
async def debian(node: Node, tmp_path: Path) -> AsyncIterator[str]:
    """A PATH on which rabbitmqctl is about the test's node, and apt-get has nothing to do."""
    folder = tmp_path / "bin"
    folder.mkdir()
    variables = {**node.host.environment(), **node._environment()}
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    (folder / ".curlrc").write_text("silent\n")
    commands = {"rabbitmqctl": f'{exports}exec {scripts() / "rabbitmqctl"} --quiet "$@"', "apt-get": "true"}
    for name, text in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    yield f"{folder}:{Path(sys.executable).parent}"
    await on_broker(node.url, lambda channel: channel.queue_delete("events"))
    await on_broker(node.url, lambda channel: channel.exchange_delete("events"))


def script() -> str:
    """Every command of the page, in order; one that fails ends the script."""
    curl, lines = START.commands("Post an event")[-1], ["set -e", "trap 'kill $(jobs -p)' EXIT"]
    for heading in dict.fromkeys(each.heading for each in START.blocks() if each.language == "sh"):
        for command in START.commands(heading):
            lines += [f"echo {shlex.quote(PROMPT + command)}", command]
            lines += [words.format(curl=curl) for end, words in IN_WORDS.items() if command.endswith(end)]
    return "\n".join([*lines, "wait", "trap - EXIT", "echo the application has ended"])


async def test_the_page_from_its_first_command_to_its_last(node: Node, package: Path, debian: str) -> None:
    """Everything is answered, queued and logged as the page shows it."""
    port = str(free_port())
    (package / "events.py").write_text(START.block("Write the application", "python").replace("8000", port))
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script().replace("8000", port).replace("localhost:5672", f"localhost:{node.port}")),
        cwd=package,
        env={
            **bare_environment(),
            **VARIABLES,
            "PATH": f"{debian}:{os.environ['PATH']}",
            "CURL_HOME": debian.partition(":")[0],
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        out = (await asyncio.wait_for(process.communicate(), LIMIT))[0].decode().replace("\r\n", "\n")
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    assert process.returncode == 0, out
    printed = [part.partition("\n")[::2] for part in out.split(PROMPT)[1:]]
    outcome = dict(printed)
    assert "Successfully installed" in outcome["pip install ."]
    assert steps(outcome["sprockets-amqp check"]) == steps(START.block("Install", "text"))
    accepted, waited, refused = [answer for command, answer in printed if command.startswith("curl")]
    assert accepted.startswith(START.block("Post an event", "text"))
    listed = outcome["rabbitmqctl list_queues name messages"]
    assert set(START.block("Read it from the queue", "text").splitlines()) <= set(listed.splitlines())
    assert re.search(r"^b'\{\"user\": 7\}' [0-9a-f-]{36} sprockets_amqp/", listed, re.MULTILINE)
    for answer in (waited, refused):
        assert facts(answer) == facts(START.block("Stop RabbitMQ", "text"))
    assert "shutdown'); trying localhost:" in outcome["rabbitmqctl stop_app"]
    assert "not ready for 5 s: connection is C" in waited and "; a publish now is refused\n" in waited
    assert "ready again after " in outcome["rabbitmqctl start_app"]
    assert "HTTP/1.1 202 Accepted" in outcome["rabbitmqctl start_app"]
    assert outcome["kill %1"].endswith("the application has ended\n")


def steps(checked: str) -> list[list[str]]:
    """What was checked, and whether it worked."""
    return [line.split()[:2] for line in checked.splitlines()[2:]]


def facts(answer: str) -> tuple[str, bool, set[str], str]:
    """The status of an answer, whether it says when to try again, and what its document says."""
    status, document = re.search(r"HTTP/1.1 (.*)", answer), re.search(r"\{.*\}", answer)
    assert status and document
    found = json.loads(document[0])
    return status[1], "\nRetry-After: " in answer, set(found), found["error"] + found["reason"]


def test_the_setup_of_the_application_can_be_checked(tmp_path: Path) -> None:
    """`check --setup` imports it, which starts nothing; a URL that is none ends the command after that."""
    (tmp_path / "events.py").write_text(START.block("Write the application", "python"))
    command = [sys.executable, "-m", "sprockets_amqp", "check", "--setup", "events:declare", "nowhere"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (found.returncode, "must begin with amqp:// or amqps://" in found.stderr) == (2, True), found.stderr
