"""The README tells the truth: its code runs, its commands work, and its tables are those of the code.

What it says of other libraries is in tests/test_compared.py.
"""

import asyncio
import http.client
import inspect
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from tornado.web import Application

import sprockets_amqp as amqp
from examples.demo import on_broker
from examples.first_event import Events, declare
from sprockets_amqp import errors
from sprockets_amqp.testing import Broker
from tests.support.command import bare_environment
from tests.support.documents import Document
from tools.documents import ROOT
from tools.rabbitmq import Node, free_port

README: Final = Document("README.md")
SECONDS: Final = 60
#: What a checkout has that no installation needs.
LEFT_OUT: Final = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "_build")

#: Every block of code; each has a test below.
TESTED: Final = {
    ("Try it", "sh"),
    ("Install it", "sh"),
    ("A first application", "python"),
    ("A first application", "sh"),
}


def test_it_is_a_page() -> None:
    """What has no room here has a page in docs/."""
    assert README.text.count("\n") <= 150
    assert max(len(line) for line in README.text.splitlines() if line[:1] not in {"|", "<"}) <= 120


def test_the_picture_is_there() -> None:
    """With a text for those who cannot see it."""
    (picture,) = re.findall(r'<img src="([^"]+)"[^>]* alt="[^"]{50,}">', README.text)
    assert (ROOT / picture).read_text().startswith("<svg")


def test_every_page_of_the_documentation_is_linked() -> None:
    """But the index, which the links stand for; for two pages the file that they show."""
    shown = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
    pages = {shown.get(path.name, f"docs/{path.name}") for path in (ROOT / "docs").glob("*.md")} - {"docs/index.md"}
    assert pages <= set(re.findall(r"\]\(([^)#]+)", README.section("Documentation")))


# What the commands do


def test_make_knows_its_targets() -> None:
    """Both run something in the virtual environment; tests/test_demo.py runs the demo, and this is a test."""
    assert README.commands("Try it") == ["make demo", "make test"]
    for command in README.commands("Try it"):
        planned = subprocess.run(
            [*shlex.split(command), "--dry-run", "--always-make"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert ".venv/bin/" in planned.stdout


@pytest.mark.package
@pytest.mark.xdist_group("package")
def test_the_commands_install_it(tmp_path: Path) -> None:
    """In a copy of the project: the package and what it needs are found there afterwards, and nothing else."""
    folder = tmp_path / "sprockets_amqp"
    shutil.copytree(ROOT, folder, symlinks=True, ignore=LEFT_OUT)
    script = "\n".join(
        ["set -e", *README.commands("Install it"), "pip --disable-pip-version-check list --format freeze"]
    )
    done = subprocess.run(
        ["sh", "-c", f'python3() {{ {shlex.quote(sys.executable)} "$@"; }}\n{script}'],
        cwd=folder,
        env=bare_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    installed = {line.partition("==")[0] for line in done.stdout.splitlines() if re.fullmatch(r"[\w-]+==\S+", line)}
    # transitions brings six.
    assert installed - {"pip", "setuptools", "six"} == {"pika", "tornado", "transitions", "sprockets_amqp"}


@pytest.fixture
async def vhost(broker: Node) -> AsyncIterator[str]:
    """The URL of a vhost in which nothing is declared yet."""
    yield await broker.add_user("first", vhost="first")
    await broker.ctl("delete_vhost", "first")
    await broker.ctl("delete_user", "first")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
async def test_the_event_arrives_in_the_queue(vhost: str, tmp_path: Path, stop: signal.Signals) -> None:
    """The application is started as it says, answers what curl posts, and the queue that it declared has the event.

    Ctrl-C or SIGTERM ends it in order, without a traceback.
    """
    start, curl = README.commands("A first application")
    assert start == "python -m examples.first_event"
    program, *options, body, address = shlex.split(curl)
    assert (program, options, address) == ("curl", ["-i", "-d"], "http://127.0.0.1:8000/events")

    port = free_port()
    (tmp_path / "first_event.py").write_text(README.block("A first application", "python").replace("8000", str(port)))
    application = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "first_event"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "AMQP_URL": vhost},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert await asyncio.to_thread(_post, port, body) == (202, "Accepted")
    finally:
        application.send_signal(stop)
        _, errors = await asyncio.wait_for(application.communicate(), SECONDS)
    assert (application.returncode, errors) == (0, b"")
    _, _, event = await on_broker(vhost, lambda channel: channel.basic_get("events", auto_ack=True))
    assert event == body.encode()


def _post(port: int, body: str) -> tuple[int, str]:
    deadline = time.monotonic() + SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        try:
            connection.request("POST", "/events", body)
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.reason
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the application does not listen"
            time.sleep(0.05)
        finally:
            connection.close()


def test_an_outage_is_answered_with_503(amqp_broker: Broker) -> None:
    """The first request waits for RabbitMQ, the next one does not, and afterwards events are accepted again."""
    application = Application([("/events", Events)])
    amqp.install(application, setup=declare)

    def status() -> int:
        return amqp_broker.fetch(application, "/events", method="POST", body="{}").code

    assert status() == 202
    amqp_broker.stop()
    before = amqp_broker.clock.now
    assert (status(), amqp_broker.clock.now - before) == (503, 10)
    before = amqp_broker.clock.now
    assert (status(), amqp_broker.clock.now - before) == (503, 0)
    amqp_broker.start()
    amqp_broker.advance(60)
    assert status() == 202
    assert len(amqp_broker.messages("events")) == 2


# What the tables say


def test_the_outcomes_are_those_of_the_code() -> None:
    """Each way in which a publish can end has a row, which says whether the message may have arrived."""
    families = {errors.AMQPException, errors.PublishingFailure, errors.ConnectionStateError}
    raised = {
        name: error.may_have_arrived
        for name, error in vars(errors).items()
        if isinstance(error, type) and issubclass(error, errors.AMQPException) and error not in families
    }
    rows = {row[1]: row[2] for row in README.rows("What a publish ends with")}
    assert rows.keys() == {"None", "STORED", *raised}
    assert {name: not rows[name].startswith("no") for name in raised} == raised


def test_the_call_is_that_of_the_code() -> None:
    """The mixin's and the client's publish have the same arguments."""
    (arguments,) = re.findall(r"`amqp_publish\(([^`]*)\)`", README.section("What a publish ends with"))
    for function in (amqp.PublishingMixin.amqp_publish, amqp.Client.publish):
        _, *parameters, options = inspect.signature(function).parameters.values()
        assert options.kind is inspect.Parameter.VAR_KEYWORD
        assert [str(each).partition(":")[0].partition(" =")[0] for each in parameters] == [
            each.partition("=")[0] for each in arguments.split(", ")
        ]
