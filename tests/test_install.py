"""install(): where it may be called, where its settings come from, and that no password gets out."""

import asyncio
import http.client
import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pika
import pytest
from tornado.web import Application

import sprockets_amqp as amqp
from examples.demo import on_broker
from sprockets_amqp import Client, State
from sprockets_amqp.urls import hide_password
from tests.support.command import WARNINGS_ARE_ERRORS
from tools.rabbitmq import Node, free_port

ROOT: Final = Path(__file__).parent.parent
#: Where nobody listens: these tests look at settings.
NOBODY: Final = "amqp://guest:guest@127.0.0.1:1/%2f"
DEFAULTS: Final = {
    "timeout": 10,
    "confirm_timeout": 30,
    "reconnect_delay": 5,
    "max_reconnect_delay": 60,
    "connection_attempts": 3,
    "enable_confirmations": True,
    "fail_on_return": False,
    "persistent": False,
    "republish_unconfirmed": False,
    "max_unconfirmed": 1000,
    "max_unconfirmed_size": 67108864,
    "max_routes": 100,
    "max_routes_size": 4096,
    "max_waiting": 10000,
    "max_waiting_size": 67108864,
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine's environment says about brokers is not looked at."""
    for name in os.environ:
        if name.startswith(("AMQP_", "RABBITMQ_")):
            monkeypatch.delenv(name)


def client_of(application: Application) -> Client:
    """The client that install() set."""
    client = application.amqp  # type: ignore[attr-defined]
    assert isinstance(client, Client)
    return client


@asynccontextmanager
async def installed(application: Application | None = None, **settings: Any) -> AsyncIterator[Client]:
    """A client that install() made, until the end of the block."""
    application = application or Application()
    assert amqp.install(application, **settings) is True
    try:
        yield client_of(application)
    finally:
        await client_of(application).shutdown(1)


# Once


async def test_a_second_install_is_refused_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """It returns False, and the first client stays."""
    application = Application()
    async with installed(application, url=NOBODY) as client:
        assert amqp.install(application, url=NOBODY) is False
        assert client_of(application) is client
        warnings = [record.getMessage() for record in caplog.records if record.name == "sprockets_amqp._install"]
        assert len(warnings) == 1 and "already installed" in warnings[0]


async def test_what_is_closed_but_comes_back_is_installed(broker: Node) -> None:
    """Closed until the next attempt is not stopped for good."""
    application = Application()
    async with installed(application, url=NOBODY, connection_attempts=1) as client:
        await client.wait_for(State.CLOSED, 30)
        assert amqp.install(application, url=broker.url) is False


async def test_it_installs_again_after_the_client_was_stopped_for_good(broker: Node) -> None:
    """The new client publishes."""
    application = Application()
    async with installed(application, url=broker.url) as first:
        await first.shutdown()
        async with installed(application, url=broker.url) as second:
            assert second is not first
            await second.publish("amq.topic", "key", b"")


async def test_a_client_that_is_closing_is_still_installed(broker: Node) -> None:
    """Nobody gets a second connection while the first is being closed."""
    application = Application()
    async with installed(application, url=broker.url) as client:
        await client.wait_for(State.READY, 30)
        client.close()
        assert amqp.install(application, url=broker.url) is False


# Where it may be called


async def test_it_may_be_called_in_the_applications_constructor(broker: Node) -> None:
    """As the README's application does."""

    class Events(Application):
        amqp: Client

        def __init__(self) -> None:
            super().__init__()
            amqp.install(self, url=broker.url)

    application = Events()
    await application.amqp.publish("amq.topic", "key", b"")
    await application.amqp.shutdown()


def test_it_may_be_called_inside_asyncio_run(broker: Node) -> None:
    """It connects on that loop, whatever loops there were before."""

    async def main() -> amqp.Counters:
        async with installed(url=broker.url) as client:
            await client.publish("amq.topic", "key", b"")
            return client.counters

    assert asyncio.run(main()).confirmed == 1
    assert asyncio.run(main()).confirmed == 1


def scripted(script: str, *arguments: str, strictly: bool = True) -> subprocess.Popen[str]:
    """A Python of its own that runs the script; strictly: any warning is an error."""
    return subprocess.Popen(
        [sys.executable, *(WARNINGS_ARE_ERRORS if strictly else ()), "-c", script, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


BEFORE_THE_LOOP: Final = """
import sys
from tornado.ioloop import IOLoop
from tornado.web import Application
import sprockets_amqp as amqp

application = Application()
assert amqp.install(application, url=sys.argv[1])
client = application.amqp
assert client.idle and client.state_description == "Idle"
waiting = client.publish("amq.topic", "key", b"published before the loop runs", mandatory=False)
assert client.waiting == 1 and not waiting.done()

async def stop():
    await waiting
    await client.shutdown()
    IOLoop.current().stop()

IOLoop.current().add_callback(stop)
IOLoop.current().start()
print(client.counters.confirmed, client.state_description)
"""


def test_it_may_be_called_before_a_loop_runs(broker: Node) -> None:
    """The client is idle until the loop starts, and then connects and sends what waits."""
    script = scripted(BEFORE_THE_LOOP, broker.url)
    out, err = script.communicate(timeout=60)
    assert (script.returncode, out, err) == (0, "1 Closed\n", "")


SPROCKETS_HTTP: Final = """
import logging, sys
import sprockets.http, sprockets.http.app
from tornado.web import Application, RequestHandler
import sprockets_amqp as amqp

url, exchange, port, kind = sys.argv[1:]

class Events(amqp.PublishingMixin, RequestHandler):
    async def post(self):
        await self.amqp_publish(exchange, "event.posted", self.request.body)
        self.set_status(202)

def install(application, io_loop):
    assert amqp.install(application, io_loop, url=url)
    application.amqp.subscribe(lambda change: print(change.dest.name, flush=True))

def make_application(**settings):
    if kind == "its own":
        application = sprockets.http.app.Application([("/events", Events)], **settings)
        application.before_run_callbacks.append(install)
        return application
    application = Application([("/events", Events)], **settings)
    if kind == "plain":
        install(application, None)
    else:
        application.runner_callbacks = {"before_run": [install]}
    return application

settings = {"service": "events", "version": "2.0", "port": port, "debug": True}
sprockets.http.run(make_application, settings, {"version": 1})
print("ended")
"""


@pytest.mark.parametrize("kind", ["its own", "plain", "plain with before_run"])
async def test_sprockets_http_shuts_the_client_down(broker: Node, kind: str) -> None:
    """The real package runs it, publishes, and on SIGTERM the client is shut down before the process ends.

    It takes an application of its own, with callbacks, or a plain one, with `runner_callbacks`.
    """
    port = free_port()
    await on_broker(broker.url, lambda channel: channel.queue_declare("sprockets-http"))
    await on_broker(broker.url, lambda channel: channel.queue_bind("sprockets-http", "amq.topic", "event.posted"))
    # The package's own imports are deprecated in Python 3.11.
    service = scripted(SPROCKETS_HTTP, broker.url, "amq.topic", str(port), kind, strictly=False)
    try:
        assert service.stdout is not None
        path = [await asyncio.to_thread(service.stdout.readline) for _ in range(2)]
        assert path == ["CONNECTING\n", "READY\n"]
        assert await asyncio.to_thread(_post, port, b"from sprockets.http") == 202
        service.send_signal(signal.SIGTERM)
        out, err = await asyncio.to_thread(service.communicate, timeout=60)
    finally:
        service.kill()
    assert (service.returncode, out) == (0, "CLOSING\nCLOSED\nended\n"), err
    _, properties, body = await on_broker(broker.url, lambda channel: channel.basic_get("sprockets-http", True))
    assert (body, properties.app_id) == (b"from sprockets.http", "events/2.0")
    await on_broker(broker.url, lambda channel: channel.queue_delete("sprockets-http"))


def _post(port: int, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/events", body)
    status = connection.getresponse().status
    connection.close()
    return status


# Where settings come from


async def test_the_defaults_are_the_documented_ones() -> None:
    """With neither arguments nor environment."""
    async with installed(url=NOBODY) as client:
        assert {name: getattr(client.settings, name) for name in DEFAULTS} == DEFAULTS


async def test_the_default_url_is_the_local_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable counts as unset."""
    monkeypatch.setenv("AMQP_URL", "")
    async with installed() as client:
        assert client.url == "amqp://guest:guest@localhost:5672/%2f"


#: Each setting: its variable, what the variable says, what that means, and an argument that differs.
SOURCES: Final = {
    "url": ("URL", "amqp://guest:guest@127.0.0.1:2/", "amqp://guest:guest@127.0.0.1:2/", NOBODY),
    "timeout": ("TIMEOUT", "2.5", 2.5, 3),
    "confirm_timeout": ("CONFIRM_TIMEOUT", "7", 7, 8),
    "reconnect_delay": ("RECONNECT_DELAY", "0.5", 0.5, 4),
    "max_reconnect_delay": ("MAX_RECONNECT_DELAY", "20", 20, 21),
    "connection_attempts": ("CONNECTION_ATTEMPTS", "2", 2, 4),
    "enable_confirmations": ("CONFIRMATIONS", "Off", False, True),
    "fail_on_return": ("FAIL_ON_RETURN", "YES", True, False),
    "persistent": ("PERSISTENT", "1", True, False),
    "republish_unconfirmed": ("REPUBLISH_UNCONFIRMED", "1", True, False),
    "max_unconfirmed": ("MAX_UNCONFIRMED", "10", 10, 11),
    "max_unconfirmed_size": ("MAX_UNCONFIRMED_SIZE", "3000", 3000, 3001),
    "max_routes": ("MAX_ROUTES", "30", 30, 31),
    "max_routes_size": ("MAX_ROUTES_SIZE", "300", 300, 301),
    "max_waiting": ("MAX_WAITING", "20", 20, 21),
    "max_waiting_size": ("MAX_WAITING_SIZE", "2000", 2000, 2001),
    "max_message_size": ("MAX_MESSAGE_SIZE", "1000", 1000, 1001),
    "default_app_id": ("APP_ID", "events/3", "events/3", "events/4"),
}


def test_every_setting_has_its_sources_tested() -> None:
    """A new setting is added to the table above."""
    fields = list(amqp.Settings.__dataclass_fields__)
    # These need files: tests/test_login.py, test_tls.py, test_outbox.py and test_recorder.py have them.
    assert list(SOURCES) == [name for name in fields if not name.startswith(("auth", "tls_", "outbox", "recorder"))]


@pytest.mark.parametrize("name", SOURCES)
async def test_arguments_before_amqp_before_rabbitmq(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument wins over AMQP_…, which wins over RABBITMQ_…, for each setting."""
    variable, text, value, argument = SOURCES[name]
    url: dict[str, Any] = {} if name == "url" else {"url": NOBODY}
    monkeypatch.setenv(f"RABBITMQ_{variable}", text)
    async with installed(**url) as client:
        assert getattr(client.settings, name) == value
    monkeypatch.setenv(f"AMQP_{variable}", text)
    monkeypatch.setenv(f"RABBITMQ_{variable}", "is not looked at")
    async with installed(**url) as client:
        assert getattr(client.settings, name) == value
    async with installed(**{**url, name: argument}) as client:
        assert getattr(client.settings, name) == argument


@pytest.mark.parametrize("prefix", ["AMQP", "RABBITMQ"])
@pytest.mark.parametrize(
    ("name", "variable", "bad"),
    [
        ("timeout", "TIMEOUT", "soon"),
        ("timeout", "TIMEOUT", "-1"),
        ("confirm_timeout", "CONFIRM_TIMEOUT", "0"),
        ("reconnect_delay", "RECONNECT_DELAY", "nan"),
        ("connection_attempts", "CONNECTION_ATTEMPTS", "2.5"),
        ("enable_confirmations", "CONFIRMATIONS", "perhaps"),
        ("max_waiting", "MAX_WAITING", "inf"),
    ],
)
async def test_a_bad_variable_is_named(
    prefix: str, name: str, variable: str, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ValueError names the setting, the variable and the value, and nothing is installed."""
    monkeypatch.setenv(f"{prefix}_{variable}", bad)
    application = Application()
    with pytest.raises(ValueError, match=rf"^{name} \(environment variable {prefix}_{variable}\) must be .*'{bad}'$"):
        amqp.install(application, url=NOBODY)
    assert not hasattr(application, "amqp")


async def test_a_bad_argument_is_named() -> None:
    """The ValueError says that it was an argument."""
    with pytest.raises(ValueError, match=r"^max_unconfirmed \(argument max_unconfirmed\) must be .*not 0$"):
        amqp.install(Application(), url=NOBODY, max_unconfirmed=0)


@pytest.mark.parametrize(
    ("settings", "app_id"),
    [
        ({"service": "events", "version": "1.2"}, "events/1.2"),
        ({"service": "events"}, f"sprockets_amqp/{version('sprockets_amqp')}"),
        ({}, f"sprockets_amqp/{version('sprockets_amqp')}"),
    ],
)
async def test_the_app_id_comes_from_the_applications_settings(settings: dict[str, str], app_id: str) -> None:
    """From service and version where both are there."""
    async with installed(Application(**settings), url=NOBODY) as client:  # type: ignore[arg-type]
        assert client.default_app_id == app_id


# No password gets out

#: In the URL, and as it is meant: what must be found in neither form.
ENCODED: Final = "s3cret%40w%2Frd"
SECRET: Final = "s3cret"


class Everything(logging.Handler):
    """Keeps every record, formatted with its traceback, its arguments and all else that it carries."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record."""
        self.lines.append(f"{record.name}: {self.format(record)} {record.args!r} {vars(record)!r}")


@pytest.fixture
def everything() -> Iterator[list[str]]:
    """All that is logged at DEBUG by any logger there is, pika's and transitions' included."""
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in ("pika", "transitions", "asyncio", "tornado"))]
    loggers += [logging.getLogger(name) for name in root.manager.loggerDict]
    levels = [(logger, logger.level) for logger in loggers]
    handler = Everything()
    root.addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield handler.lines
    root.removeHandler(handler)
    for logger, level in levels:
        logger.setLevel(level)


def shown(client: Client) -> str:
    """What people see of a client when they print it, or what it works with."""
    parts = (client, client.settings, client.parameters, client.connection, client.channel, client.counters)
    return " ".join(f"{part} {part!r}" for part in (*parts, client.condition, client.state, client._runtime.lifecycle))


async def test_no_password_is_logged_through_a_clients_life(node: Node, everything: list[str]) -> None:
    """Connecting, publishing, losing the connection, returning, and a second install."""
    await node.add_user("keeper", "s3cret@w/rd")
    url = node.url_for("keeper", ENCODED)
    application = Application()
    async with installed(application, url=url, reconnect_delay=0.1) as client:
        await client.publish("amq.topic", "key", b"")
        assert amqp.install(application, url=url) is False
        with pytest.raises(amqp.ExchangeRefused) as refused:
            await client.publish("missing", "key", b"")
        seen = _formatted(refused.value)
        told: list[str] = []
        client.subscribe(lambda _change: told.append(shown(client)))
        changes = client.changes()
        await node.ctl("close_all_connections", "bye")
        async with asyncio.timeout(30):
            while (await anext(changes)).dest is not State.READY:
                pass
        seen += "".join(told)
    assert any(line.startswith("pika") for line in everything)
    assert any(line.startswith("sprockets_amqp") for line in everything)
    assert any(line.startswith("transitions") for line in everything)
    assert _with_secret([*everything, seen]) == []
    await node.ctl("delete_user", "keeper")


async def test_no_password_is_logged_when_it_is_wrong(broker: Node, everything: list[str]) -> None:
    """RabbitMQ's refusal is logged and told, the password in neither."""
    url = broker.url_for("guest", ENCODED)
    async with installed(url=f"{url},{url}", timeout=1, reconnect_delay=0.1) as client:
        with pytest.raises(amqp.NotReadyError, match="ACCESS_REFUSED") as refused:
            await client.publish("amq.topic", "key", b"")
        with pytest.raises(TimeoutError) as late:
            await client.wait_for(State.READY, 0)
        seen = shown(client) + _formatted(refused.value) + _formatted(late.value)
    assert any("ACCESS_REFUSED" in line for line in everything)
    assert _with_secret([*everything, seen]) == []


BAD_URLS: Final = [
    "amqp://keeper:s3cret#x@127.0.0.1:5672/",
    "amqp://keeper:s3cret/x@127.0.0.1:5672/",
    "amqp://keeper:s3cret?x@127.0.0.1:5672/",
    "amqp://keeper:s3cret@x@127.0.0.1:5672/",
    "amqp://kee,per:s3cret@127.0.0.1:5672/",
    "amqp://keeper:s3cret@127.0.0.1:port/",
    "amqp://keeper:s3cret@127.0.0.1:0/",
    "amqp://keeper:s3cret@127.0.0.1:99999/",
    "amqp://keeper:s3cret@[::1/",
    "http://keeper:s3cret@127.0.0.1/",
    "keeper:s3cret@127.0.0.1",
    "amqp://s3cret@127.0.0.1",
]


@pytest.mark.parametrize("url", BAD_URLS)
@pytest.mark.parametrize("origin", ["argument", "variable"])
async def test_a_bad_url_is_refused_without_showing_it(
    url: str, origin: str, monkeypatch: pytest.MonkeyPatch, everything: list[str]
) -> None:
    """The ValueError names where the URL came from, and its traceback shows no part of it."""
    settings: dict[str, Any] = {"url": url}
    if origin == "variable":
        monkeypatch.setenv("AMQP_URL", url)
        settings = {}
    named = "argument url" if settings else "environment variable AMQP_URL"
    with pytest.raises(ValueError, match=rf"^url \({named}\)") as refused:
        amqp.install(Application(), **settings)
    assert _with_secret([*everything, _formatted(refused.value)]) == []


@pytest.mark.parametrize(
    ("url", "hidden"),
    [
        ("amqp://keeper:s3cret@one:5672/%2f", "amqp://keeper:***@one:5672/%2f"),
        ("amqp://keeper:s3cret@one,other:s3cret@two/v", "amqp://keeper:***@one,other:***@two/v"),
        (
            "amqps://keeper:s3cret@one/v,amqps://keeper:s3cret@two/v",
            "amqps://keeper:***@one/v,amqps://keeper:***@two/v",
        ),
        ("amqp://one/v", "amqp://one/v"),
    ],
)
def test_urls_are_shown_without_passwords(url: str, hidden: str) -> None:
    """Everything else of them is there, to see which broker is meant."""
    assert hide_password(url) == hidden
    assert pika.URLParameters("amqp://one/v").host in hide_password("amqp://one/v")


def _formatted(error: BaseException) -> str:
    """Everything that a traceback of it shows, what it was raised from included."""
    return f"{error!r} " + "".join(traceback.format_exception(error))


def _with_secret(lines: list[str]) -> list[str]:
    return [line for line in lines if SECRET in line]
