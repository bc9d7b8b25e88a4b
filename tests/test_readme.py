"""The README tells the truth: its code runs, its tables are those of the code, and its links lead somewhere.

`python -m tools.documents` brings up to date what is generated.
"""

import ast
import asyncio
import contextlib
import dataclasses
import http.client
import importlib
import inspect
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import types
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from tornado.ioloop import IOLoop
from tornado.web import Application, RequestHandler

import sprockets_amqp as amqp
from examples.application import Events
from examples.demo import on_broker
from sprockets_amqp import errors
from sprockets_amqp.settings import DEFAULT_URL
from sprockets_amqp.testing import Broker
from tests.support.http import fetch, served
from tests.support.waiting import until
from tools.documents import README
from tools.rabbitmq import Node, free_port

ROOT: Final = Path(__file__).parent.parent
SECONDS: Final = 60


def test_the_picture_is_there() -> None:
    """With a text for those who cannot see it."""
    (picture,) = re.findall(r'<img src="([^"]+)"[^>]* alt="[^"]{50,}">', README.read_text())
    assert (ROOT / picture).read_text().startswith("<svg")


# What the code blocks do


class Block(NamedTuple):
    """A block of code: the heading it stands under, its language, and its text."""

    heading: str
    language: str
    text: str


def blocks() -> list[Block]:
    """Every block of code in the README, in order."""
    found = re.finditer(
        r"^## (?P<heading>[^\n]*)$|^```(?P<language>\w*)\n(?P<text>.*?)^```$", README.read_text(), _FLAGS
    )
    result, heading = [], ""
    for match in found:
        if match["heading"]:
            heading = match["heading"]
        else:
            result.append(Block(heading, match["language"], match["text"]))
    return result


_FLAGS: Final = re.MULTILINE | re.DOTALL


def block(heading: str, language: str) -> str:
    """The only block of this language under the heading."""
    (text,) = (each.text for each in blocks() if (each.heading, each.language) == (heading, language))
    return text


#: Every block; each has a test below, or is generated.
TESTED: Final = {
    ("Two commands", "sh"),
    ("A complete application", "python"),
    ("A complete application", "sh"),
    ("Errors, and what to do", "python"),
    ("The connection's life", "mermaid"),
    ("Reliability", "python"),
    ("Stopping", "python"),
    ("Hooks", "python"),
    ("Live page and readiness", "python"),
    ("Command line", "sh"),
    ("Credentials that change", "python"),
    ("Exchanges and queues", "python"),
    ("The outbox", "python"),
    ("Testing your handlers", "python"),
    ("Coming from sprockets.mixins.amqp", "python"),
    ("Working on it", "sh"),
}


@pytest.fixture
async def url(broker: Node, monkeypatch: pytest.MonkeyPatch) -> str:
    """A broker, named by AMQP_URL as the README says."""
    for name in os.environ:
        if name.startswith(("AMQP_", "RABBITMQ_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AMQP_URL", broker.url)
    return broker.url


@contextlib.asynccontextmanager
async def run(heading: str, **names: object) -> AsyncIterator[dict[str, Any]]:
    """Run the block of Python under the heading as a module; yields its names, and shuts its clients down."""
    namespace: dict[str, Any] = {
        "__name__": "readme",
        "amqp": amqp,
        "asyncio": asyncio,
        "json": json,
        "Application": Application,
        "RequestHandler": RequestHandler,
        **names,
    }
    code = compile(block(heading, "python"), "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    try:
        async with asyncio.timeout(SECONDS):
            ended = types.FunctionType(code, namespace)()
            if inspect.isawaitable(ended):
                await ended
        yield namespace
    finally:
        applications = (value for value in namespace.values() if isinstance(value, Application))
        for client in (getattr(application, "amqp", None) for application in applications):
            if client is not None:
                await client.shutdown(5)


async def test_the_handler_catches_what_a_publish_raises(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A missing exchange is answered with 500, a confirmed order with 200, and an outage with 503."""
    async with run("Errors, and what to do", logging=logging) as names:
        application = Application([("/orders", names["Orders"])])
        amqp.install(application)
        client: amqp.Client = application.amqp  # type: ignore[attr-defined]
        async with served(application) as address:
            refused = await fetch(f"{address}/orders", "POST", "a book")
            await on_broker(url, lambda channel: channel.exchange_declare("orders"))
            confirmed = await fetch(f"{address}/orders", "POST", "a book")
            await on_broker(url, lambda channel: channel.exchange_delete("orders"))
            await client.shutdown()
            unavailable = await fetch(f"{address}/orders", "POST", "a book")
    assert [answer.code for answer in (refused, confirmed, unavailable)] == [500, 200, 503]
    assert unavailable.headers["Retry-After"] == "5"
    assert "NOT_FOUND" in caplog.text and "order-4711" in caplog.text


@pytest.mark.usefixtures("url")
async def test_several_nodes_may_be_named() -> None:
    """Each is a node of the client, and unconfirmed messages are sent again."""
    application = Application()
    async with run("Reliability", application=application):
        client: amqp.Client = application.amqp  # type: ignore[attr-defined]
        attempts = client._core.lifecycle.attempts
        assert {getattr(attempts.node, "port", 0) for _ in range(3) if attempts.next() >= 0} == {5672, 5673, 5674}
        assert client.settings.republish_unconfirmed


@pytest.mark.usefixtures("url")
async def test_sprockets_http_installs_and_shuts_down() -> None:
    """Its application runs install() before the loop, and its shutdown closes the client."""
    with warnings.catch_warnings():
        # The package imports distutils, which Python 3.11 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("sprockets.http.app")
        async with run("Stopping", sprockets=importlib.import_module("sprockets"), Events=Events) as names:
            application = names["make_application"](service="events", version="1.0")
            application.start(IOLoop.current())
            await application.amqp.wait_for(amqp.State.READY, SECONDS)
            assert application.amqp.default_app_id == "events/1.0"
            (shutdown,) = application.on_shutdown_callbacks
            await shutdown(application)
            assert application.amqp.closed


async def test_the_function_is_asked_for_the_address() -> None:
    """Before the first attempt; what it answers is what the client connects to."""

    async def fetch_token() -> tuple[str, float]:
        return "token", 60

    application = Application()
    async with run("Credentials that change", application=application, fetch_token=fetch_token):
        client: amqp.Client = application.amqp  # type: ignore[attr-defined]
        await until(lambda: client.url is not None)
        assert client.url == "amqps://app:token@rabbitmq.example.org"
        await client.shutdown(1)


async def test_what_setup_declares_is_there(broker: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that is published at once arrives in the queue."""
    monkeypatch.setenv("AMQP_URL", await broker.add_user("declares", vhost="declared"))
    try:
        application = Application()
        async with run("Exchanges and queues", application=application):
            client: amqp.Client = application.amqp  # type: ignore[attr-defined]
            await client.publish("events", "user.created", b"")
            listed = await broker.ctl("list_queues", "--vhost", "declared", "name", "messages")
            assert "events.all\t1" in listed
    finally:
        await broker.ctl("delete_vhost", "declared")
        await broker.ctl("delete_user", "declares")


async def test_the_outbox_accepts_what_rabbitmq_has_not(broker: Node, tmp_path: Path) -> None:
    """201 is RabbitMQ's, 202 the disk's."""
    async with run("The outbox") as names, amqp.Client(broker.url, outbox=tmp_path) as client:
        await client.wait_for(amqp.State.READY, 30)
        with pytest.raises(amqp.ExchangeRefused):
            await names["accept"](client, b"there is no such exchange")
    async with run("The outbox") as names, amqp.Client("amqp://127.0.0.1:2", outbox=tmp_path, timeout=0) as client:
        assert await names["accept"](client, b"an event") == 202


@pytest.mark.usefixtures("url")
async def test_hooks_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The iterator sees the client become ready, the subscription sees it closed."""
    application = Application()
    amqp.install(application)
    async with run("Hooks", application=application) as names:
        assert names["client"].ready
        assert isinstance(names["subscription"], amqp.Subscription)
        await names["client"].shutdown()
        await asyncio.sleep(0)
        names["following"].cancel()
    out = capsys.readouterr().out
    assert "READY since 1" in out
    assert "CLOSING -> CLOSED by connection_closed" in out
    assert "Counters(published=0" in out


@pytest.mark.usefixtures("url")
async def test_the_page_and_the_probes_answer() -> None:
    """The page shows the state; ready and alive while the client is, neither after it was closed for good."""
    async with run("Live page and readiness", handlers=[("/events", Events)]) as names:
        client: amqp.Client = names["application"].amqp
        await client.wait_for(amqp.State.READY, SECONDS)
        async with served(names["application"]) as address:
            up = [(await fetch(f"{address}/amqp{path}")).code for path in ("", "/ready", "/live")]
            await client.shutdown()
            down = [(await fetch(f"{address}/amqp{path}")).code for path in ("", "/ready", "/live")]
    assert (up, down) == ([200, 200, 200], [200, 503, 503])


@pytest.mark.usefixtures("url")
async def test_an_application_that_changed_its_import_publishes() -> None:
    """Its handler answers once the message was confirmed."""
    async with run("Coming from sprockets.mixins.amqp") as names:
        async with served(names["application"]) as address:
            assert (await fetch(f"{address}/legacy")).code == 200
        assert names["application"].amqp.counters.confirmed == 1


# What the commands do


def commands(heading: str) -> list[str]:
    """The lines of the shell blocks under the heading."""
    return [line for each in blocks() if each[:2] == (heading, "sh") for line in each.text.splitlines()]


@pytest.mark.parametrize("heading", ["Two commands", "Working on it"])
def test_make_knows_its_targets(heading: str) -> None:
    """Each command is a target that runs something in the virtual environment."""
    targets = [command for command in commands(heading) if command.startswith("make ")]
    assert targets
    for target in targets:
        planned = subprocess.run(
            [*shlex.split(target), "--dry-run", "--always-make"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert ".venv/bin/" in planned.stdout, target


def test_the_commands_are_the_demo_the_tests_and_pip() -> None:
    """tests/test_demo.py runs the demo, this is a test, and make installed the package with pip from here."""
    demo, tests, pip = commands("Two commands")
    assert (demo, tests) == ("make demo", "make test")
    assert shlex.split(pip) == ["python3", "-m", "pip", "install", "."]
    assert "name = sprockets_amqp\n" in (ROOT / "setup.cfg").read_text()


async def test_the_application_runs_as_it_says(url: str) -> None:
    """It is started by the command, answers what curl posts, and ends well on SIGTERM."""
    start, curl = commands("A complete application")
    *settings, python, dash_m, module, ampersand = shlex.split(start)
    assert [setting.partition("=")[0] for setting in settings] == ["AMQP_URL", "PORT"]
    assert settings[0] == f"AMQP_URL={DEFAULT_URL}"
    assert (python, dash_m, ampersand) == ("python3", "-m", "&")
    program, *options, body, address = shlex.split(curl)
    assert (program, options, address) == ("curl", ["-i", "-d"], "http://127.0.0.1:8000/events")

    port = free_port()
    application = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", dash_m, module),
        cwd=ROOT,
        env={**os.environ, "AMQP_URL": url, "PORT": str(port)},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        status, answer = await asyncio.to_thread(_post, port, body)
        application.send_signal(signal.SIGTERM)
        err = (await asyncio.wait_for(application.communicate(), SECONDS))[1].decode()
    finally:
        if application.returncode is None:
            application.kill()
    assert status == 202
    assert len(json.loads(answer)["message_id"]) == 36
    # An event without a subscriber is logged, and no failure.
    assert (application.returncode, err.count("\n"), "NO_ROUTE" in err) == (0, 1, True)


def _post(port: int, body: str) -> tuple[int, bytes]:
    deadline = time.monotonic() + SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        try:
            connection.request("POST", "/events", body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the application does not listen"
            time.sleep(0.05)
        finally:
            connection.close()


@pytest.fixture
async def subscriber(url: str) -> AsyncIterator[str]:
    """A queue that gets what the README publishes by hand."""
    await on_broker(url, lambda channel: channel.queue_declare("readme"))
    await on_broker(url, lambda channel: channel.queue_bind("readme", "amq.topic", "event.posted"))
    yield "readme"
    await on_broker(url, lambda channel: channel.queue_delete("readme"))


@pytest.mark.usefixtures("subscriber")
@pytest.mark.parametrize("command", commands("Command line"))
async def test_the_command_line_does_what_it_says(command: str, tmp_path: Path) -> None:
    """Each command succeeds on a broker that runs; watch is ended with Ctrl-C once it showed the client ready."""
    program, *arguments = shlex.split(command)
    assert program == "sprockets-amqp"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sprockets_amqp", *arguments),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            if arguments == ["watch"]:
                assert process.stdout is not None
                await process.stdout.readuntil(b"-> ready")
                process.send_signal(signal.SIGINT)
            await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0
    assert (tmp_path / "diagrams" / "lifecycle.svg").exists() is (arguments == ["diagram"])


# What the tables say


def rows(heading: str) -> list[list[str]]:
    """The first table under the heading, without its head."""
    section = README.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = section[section.index("\n| ") + 1 :].partition("\n\n")[0].splitlines()
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_the_settings_are_those_of_the_code() -> None:
    """Every setting is there, with its variable and its default."""
    expected = [
        [field.name, _variable(field.metadata["variable"]), _shown(field.default)]
        for field in dataclasses.fields(amqp.Settings)
        if field.name != "default_app_id"
    ]
    *others, app_id = [row[:3] for row in rows("Settings")]
    assert others == expected
    assert app_id == ["default_app_id", "AMQP_APP_ID", "service/version"]


def _variable(name: str) -> str:
    return f"AMQP_{name}" if name else "none: an argument only"


def _shown(default: object) -> str:
    return (
        str(default).lower()
        if isinstance(default, bool | None)
        else f"{default:g}"
        if isinstance(default, float)
        else str(default)
    )


def test_the_errors_are_those_of_the_code() -> None:
    """Every error that can be caught is there, with what it is and whether the message may have arrived."""
    families = {errors.AMQPException, errors.PublishingFailure}
    expected = {
        name: (
            ", ".join(base.__name__ for base in error.__bases__),
            "yes" if error.may_have_arrived else "no",
        )
        for name, error in vars(errors).items()
        if isinstance(error, type) and issubclass(error, errors.AMQPException) and error not in families
    }
    assert {row[0]: (row[1].replace("`", ""), row[2]) for row in rows("Errors, and what to do")} == expected


def test_the_contract_names_every_error_of_a_publish() -> None:
    """Each way in which a future can end has a row."""
    raised = {match for row in rows("What becomes of a publish") for match in re.findall(r"raises `(\w+)", row[1])}
    expected = {row[0] for row in rows("Errors, and what to do")} - {"ConnectionStateError"}
    assert raised == expected


def test_the_calls_of_the_test_kit_are_those_of_the_code() -> None:
    """Every name of the table is there, and every verb of the broker's is in the table or the text around it."""
    section = README.read_text().partition("\n## Testing your handlers\n")[2].partition("\n## ")[0]
    cells = " ".join(row[0] for row in rows("Testing your handlers"))
    broker = Broker()
    assert [name for name in re.findall(r"\w+(?=\()|(?<=`)\w+", cells) if not hasattr(broker, name)] == []
    inner = {"install", "uninstall", "own_loop", "close", "refuse_login", "judge", "accept", "declare", "answers"}
    inner |= {"note_sent", "reach", "attempted"}
    verbs = {name for name, each in vars(Broker).items() if inspect.isfunction(each) and not name.startswith("_")}
    assert [name for name in verbs - inner if f"{name}(" not in section] == []
