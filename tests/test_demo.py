"""`make demo`, as whoever meets the project first runs it."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.command import bare_environment
from tools.rabbitmq import Node

ROOT: Final = Path(__file__).parent.parent
LIMIT: Final = 120


#: A machine on which RabbitMQ is not installed.
WITHOUT_RABBITMQ: Final = """
import os, sys
from pathlib import Path
from examples import demo
from tools import rabbitmq
os.environ["PATH"] = ""
rabbitmq.DEBIAN_SCRIPTS = Path("/nowhere")
sys.exit(demo.run())
"""


def begun(url: str, folder: Path, *command: str) -> subprocess.Popen[str]:
    """The demo, begun; all that it starts carries the folder in its environment."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", *(command or ("-m", "examples.demo"))],
        cwd=ROOT,
        env={**bare_environment(), "AMQP_URL": url, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(demo: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit status and what it printed, to the one and the other."""
    out, err = demo.communicate(timeout=LIMIT)
    return demo.returncode, out, err


def left_of(folder: Path) -> list[str]:
    """What runs with the folder in its environment, or stands in it, a moment after the end."""
    deadline = time.monotonic() + 5
    while (left := [*_processes(folder), *map(str, folder.iterdir())]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _processes(folder: Path) -> Iterator[str]:
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder).encode() in environment.read_bytes():
                yield str(environment)
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue


@pytest.mark.usefixtures("rabbitmq")
def test_it_starts_a_broker_and_shows_everything_with_it(tmp_path: Path) -> None:
    """Without AMQP_URL it starts a node, stops and starts it again, and leaves neither process nor file."""
    status, out, err = ended(begun("", tmp_path))
    assert (status, err) == (0, "")
    assert out.count("202 Accepted") == 2
    confirmed = re.findall(r"confirmed message (\S+)", out)
    assert re.findall(r"message_id (\S+),", out) == confirmed
    assert out.count('\n   {"event": "signed up", "user": 7}\n') == 1
    assert out.count('\n   {"event": "signed out", "user": 7}\n') == 1
    assert "wait in the application: 1" in out
    assert re.findall(r"state (\w+ -> \w+)", out)[:2] == ["idle -> connecting", "connecting -> ready"]
    assert "state ready -> closed: (320)" in out
    assert out.count("state connecting -> ready") == 2
    assert left_of(tmp_path) == []


async def test_it_uses_the_broker_that_amqp_url_names(broker: Node, tmp_path: Path) -> None:
    """It starts none, leaves neither queue nor exchange, and shows no password."""
    url = await broker.add_user("visitor", "visitor-secret")
    status, out, err = ended(begun(url, tmp_path))
    assert (status, err) == (0, "")
    assert out.count("202 Accepted") == 1
    assert '{"event": "signed up", "user": 7}' in out
    assert "visitor:***@" in out and "visitor-secret" not in out
    assert "demo" not in await broker.ctl("list_queues", "name")
    assert "demo" not in await broker.ctl("list_exchanges", "name")
    assert left_of(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("amqp://guest:demo-secret@127.0.0.1:1/%2f", "Connection refused"),
        ("rabbit.example.com", r"AMQP_URL\) must begin with amqp://"),
    ],
)
def test_it_says_what_is_wrong_in_a_sentence(url: str, sentence: str, tmp_path: Path) -> None:
    """A broker that cannot be used is no traceback, and the exit status says it."""
    status, out, err = ended(begun(url, tmp_path))
    assert status == 1
    assert re.search(f"^The demo failed: .*{sentence}", err, re.MULTILINE)
    assert len(err.strip().splitlines()) == 1
    assert "demo-secret" not in out + err


async def test_it_says_that_the_password_is_wrong(broker: Node, tmp_path: Path) -> None:
    """RabbitMQ's own words say why."""
    status, _, err = ended(begun(broker.url_for("guest", "demo-secret"), tmp_path))
    assert status == 1
    assert "ACCESS_REFUSED" in err and "Traceback" not in err and "demo-secret" not in err


def test_it_says_what_to_do_where_rabbitmq_is_missing(tmp_path: Path) -> None:
    """Nothing is started, and the sentence names what to install."""
    status, out, err = ended(begun("", tmp_path, "-c", WITHOUT_RABBITMQ))
    assert status == 1
    assert err.startswith("\nThe demo failed: RabbitMQ is not installed: ")
    assert "Traceback" not in err and "Broker:" not in out


@pytest.mark.usefixtures("rabbitmq")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_can_be_stopped_at_any_moment(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM in the middle leave nothing running."""
    demo = begun("", tmp_path)
    assert demo.stdout is not None
    while "Exchange" not in demo.stdout.readline():
        assert demo.poll() is None
    demo.send_signal(number)
    status, out, err = ended(demo)
    assert (status, err) == (130, "")
    assert out.rstrip().endswith("Stopped; nothing is left running.")
    assert left_of(tmp_path) == []
