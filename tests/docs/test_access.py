"""docs/access.md: its URLs are what it says, its functions are asked, and its certificates open a connection."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from tornado.web import Application, RequestHandler

import sprockets_amqp as amqp
from sprockets_amqp.connection.address import CALL_LIMIT
from sprockets_amqp.connection.renewal import RESERVE
from sprockets_amqp.names import PATTERN
from sprockets_amqp.testing import Broker
from sprockets_amqp.urls import URL_OPTIONS, node_parameters
from tests.support.certificates import Authority
from tests.support.documents import Document
from tests.support.http import fetch, served
from tests.support.waiting import until
from tools.rabbitmq import Node

ACCESS: Final = Document("docs/access.md")

TESTED: Final = {
    ("The URL", "python"),
    ("Several nodes", "python"),
    ("Credentials that change", "python"),
    ("Tokens that expire", "python"),
    ("Users that change", "python"),
    ("TLS", "python"),
    ("Logging in by the certificate", "python"),
    ("Logging in by the certificate", "ini"),
    ("Several brokers", "python"),
}


@asynccontextmanager
async def installed(heading: str, number: int = 0, **names: Any) -> AsyncIterator[amqp.Client]:
    """The client that the block under the heading installs; it is shut down after the test."""
    application = Application()
    async with ACCESS.run(heading, number, application=application, **names):
        yield application.amqp  # type: ignore[attr-defined]


def parsed(url: str) -> Any:
    """pika's parameters of a URL that names one node."""
    (node,) = node_parameters(url)
    return node


# The URL


async def test_any_password_can_be_written(broker: Node) -> None:
    """As the page quotes it; RabbitMQ lets the user in."""
    async with ACCESS.run("The URL") as names:
        node = parsed(names["url"])
    password = node.credentials.password
    assert (node.host, node.port, node.virtual_host, node.credentials.username) == (
        "rabbitmq.example.org",
        5672,
        "/",
        "orders",
    )
    await broker.ctl("add_user", "orders", password)
    await broker.ctl("set_permissions", "orders", ".*", ".*", ".*")
    try:
        url = names["url"].replace("rabbitmq.example.org", f"127.0.0.1:{broker.port}")
        async with amqp.Client(url) as client:
            await client.wait_for(amqp.State.READY, 30)
    finally:
        await broker.ctl("delete_user", "orders")


def test_the_characters_that_are_named_have_to_be_quoted() -> None:
    """Each of them, unquoted, is refused or means something else."""
    (named,) = re.findall(r"the characters `([^`]+)` have", ACCESS.section("The URL"))
    for character in named.split():
        user, password = f"us{character}2fer", f"pass{character}2fword"
        try:
            credentials = parsed(f"amqp://{user}:{password}@host/%2f").credentials
        except ValueError:
            continue
        assert (credentials.username, credentials.password) != (user, password), character


def test_what_is_missing_in_a_url_is_what_the_table_says() -> None:
    """User, password, host, ports and vhost; the scheme has to be there."""
    plain, secure, section = parsed("amqp://"), parsed("amqps://"), ACCESS.section("The URL")
    assert f"| `{plain.credentials.username}:{plain.credentials.password}`, which" in section
    assert f"| `{plain.host}` |" in section
    assert f"| {plain.port}, or {secure.port} for `amqps://` |" in section
    assert f"| `{plain.virtual_host}`, which is written `%2f` |" in section
    with pytest.raises(ValueError, match="must begin with amqp"):
        node_parameters("host:5672")


def test_every_option_is_there() -> None:
    """With pika's default."""
    rows = {name: row[1] for row in ACCESS.rows("Options of the URL") for name in re.findall(r"\w+", row[0])}
    assert set(rows) == URL_OPTIONS
    node = parsed("amqp://")
    for name in ("socket_timeout", "stack_timeout", "retry_delay"):
        assert rows[name] == f"{getattr(node, name):g}"
    assert rows["frame_max"] == f"{node.channel_max}, {node.frame_max}, {node.locale}"
    assert (node.heartbeat, node.blocked_connection_timeout) == (None, None)


@pytest.mark.usefixtures("amqp_broker")
async def test_several_nodes_may_be_named() -> None:
    """Each has a turn, and unconfirmed messages are sent again."""
    async with installed("Several nodes") as client:
        attempts = client._runtime.lifecycle.attempts
        turns = {(attempts.node.host, attempts.node.port) for _ in range(3) if attempts.node and attempts.next() >= 0}
        assert turns == {("one.example.org", 5672), ("two.example.org", 5672), ("three.example.org", 5673)}
        assert client.settings.republish_unconfirmed
    (complete,) = re.findall(r"complete URLs: `([^`]+)`", ACCESS.section("Several nodes"))
    nodes: list[Any] = [*node_parameters(complete)]
    assert [(node.host, node.credentials.username) for node in nodes] == [("one", "a"), ("two", "c")]


# Functions that are asked


@pytest.mark.usefixtures("amqp_broker")
async def test_a_file_is_read_before_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function answers what stands in it."""
    read_text = Path.read_text

    def read(path: Path, *arguments: Any, **named: Any) -> str:
        if path == Path("/run/secrets/amqp_url"):
            return "amqp://orders:from-the-file@localhost\n"
        return read_text(path, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", read)
    async with installed("Credentials that change") as client:
        before = client.url
        await client.wait_for(amqp.State.READY, 30)
        assert (before, client.url) == (None, "amqp://orders:from-the-file@localhost")
    assert f"may take {CALL_LIMIT:g} seconds" in ACCESS.section("Credentials that change")


@pytest.mark.usefixtures("amqp_broker")
async def test_a_token_is_fetched_and_renewed() -> None:
    """From an OAuth 2 server: again before it expires, on the same connection."""
    asked: list[str] = []

    class Token(RequestHandler):
        def post(self) -> None:
            asked.append(self.get_body_argument("client_secret"))
            assert self.get_body_argument("grant_type") == "client_credentials"
            self.write({"access_token": f"token-{len(asked)}", "expires_in": 0.3})

    async with served(Application([("/token", Token)])) as address:
        names: dict[str, Any] = {"TOKEN_URL": f"{address}/token", "CLIENT_SECRET": "secret"}
        async with installed("Tokens that expire", **names) as client:
            await client.wait_for(amqp.State.READY, 30)
            await until(lambda: len(asked) >= 3)
            await until(lambda: client.url == f"amqps://orders:token-{len(asked)}@rabbitmq.example.org")
            assert client.counters.reconnects == 0
    assert set(asked) == {"secret"}
    assert pytest.approx(1 / 3) == RESERVE and "two thirds" in ACCESS.section("Tokens that expire")


async def test_a_user_of_vault_is_followed_by_the_next(amqp_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """When RabbitMQ closes the connection of the one before."""
    monkeypatch.setenv("AMQP_RECONNECT_DELAY", "0.01")
    users: list[str] = []

    class Credentials(RequestHandler):
        def get(self) -> None:
            assert self.request.headers["X-Vault-Token"] == "vault"
            users.append(f"token-orders-{len(users)}")
            self.write(json.dumps({"lease_duration": 60, "data": {"username": users[-1], "password": "p/w"}}))

    async with (
        served(Application([("/v1/rabbitmq/creds/orders", Credentials)])) as address,
        installed("Users that change", VAULT_ADDR=address, VAULT_TOKEN="vault") as client,
    ):
        await client.wait_for(amqp.State.READY, 30)
        before: Any = client.parameters
        amqp_broker.close_connections("user 'token-orders-0' is deleted")
        await until(lambda: client.counters.reconnects == 1 and client.ready)
        after: Any = client.parameters
        assert [each.credentials.username for each in (before, after)] == users == ["token-orders-0", "token-orders-1"]
        assert after.credentials.password == "p/w"


# TLS


@pytest.mark.usefixtures("rabbitmq")
async def test_a_node_that_demands_a_certificate_gets_it(tmp_path: Path) -> None:
    """From files, and from a context of our own; without one, it refuses."""
    authority = Authority(tmp_path)
    certificate, key = authority.client("orders")
    async with Node(tls=authority.server("localhost", demand_client=True)) as node:
        for number in range(2):
            text = (
                ACCESS.block("TLS", "python", number)
                .replace("orders:secret@rabbitmq.example.org", f"guest:guest@localhost:{node.tls_port}")
                .replace("/etc/ssl/rabbitmq/authority.pem", str(authority.certificate))
                .replace("/etc/ssl/rabbitmq/orders.pem", str(certificate))
                .replace("/etc/ssl/rabbitmq/orders-key.pem", str(key))
            )
            application = Application()
            names: dict[str, Any] = {"application": application, "KEY_PASSWORD": "secret"}
            exec(compile(text, ACCESS.path, "exec"), names)  # noqa: S102 - what is tested
            client: amqp.Client = application.amqp  # type: ignore[attr-defined]
            async with client:
                await client.wait_for(amqp.State.READY, 30)
        url = f"amqps://guest:guest@localhost:{node.tls_port}"
        settings: dict[str, Any] = {"connection_attempts": 1, "reconnect_delay": 0.1, "max_reconnect_delay": 0.2}
        async with amqp.Client(url, tls_ca=authority.certificate, **settings) as stranger, asyncio.timeout(60):
            # A node that closes while it is being written to resets the connection, and its alert may be lost.
            async for change in stranger.changes():
                assert change.dest is not amqp.State.READY
                if "certificate required" in change.reason.lower().replace("_", " "):
                    break


def test_every_setting_of_tls_is_there() -> None:
    """In the table, or in the example of a context."""
    settings = {name for name in amqp.Settings.__dataclass_fields__ if name.startswith("tls_")}
    assert {row[0] for row in ACCESS.rows("TLS")} | {"tls_context"} == settings
    assert "tls_context=context" in ACCESS.block("TLS", "python", 1)


@pytest.mark.usefixtures("rabbitmq")
async def test_a_certificate_logs_in(tmp_path: Path) -> None:
    """With the lines that the page asks for, its block connects as the user that the certificate names."""
    authority = Authority(tmp_path)
    certificate, key = authority.client("orders")
    lines = ACCESS.block("Logging in by the certificate", "ini").splitlines()
    config = dict(line.split(" = ") for line in lines)
    node = Node(tls=authority.server("localhost", demand_client=True), config=config)
    (node.folder / "enabled_plugins").write_text("[rabbitmq_auth_mechanism_ssl].")
    async with node:
        await node.add_user("orders", vhost="shop")
        text = (
            ACCESS.block("Logging in by the certificate", "python")
            .replace("rabbitmq.example.org", f"localhost:{node.tls_port}")
            .replace("/etc/ssl/rabbitmq/authority.pem", str(authority.certificate))
            .replace("/etc/ssl/rabbitmq/orders.pem", str(certificate))
            .replace("/etc/ssl/rabbitmq/orders-key.pem", str(key))
        )
        application = Application()
        exec(compile(text, ACCESS.path, "exec"), {"application": application})  # noqa: S102 - what is tested
        client: amqp.Client = application.amqp  # type: ignore[attr-defined]
        async with client:
            await client.wait_for(amqp.State.READY, 30)
            assert "orders\tEXTERNAL" in await node.ctl("list_connections", "user", "auth_mechanism")


# Several brokers


async def test_a_handler_publishes_on_the_broker_that_it_names(
    amqp_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings come from variables of that name, and the probes are where the page says."""
    monkeypatch.setenv("AMQP_URL", "amqp://first.example.org")
    monkeypatch.setenv("AUDIT_URL", "amqp://second.example.org")
    amqp_broker.exchange_declare("audit")
    async with ACCESS.run("Several brokers") as names:
        application: Any = names["application"]
        application.add_handlers(".*", amqp.web.routes())
        clients = application.amqp_clients
        assert [client.parameters.host for client in clients.values()] == ["first.example.org", "second.example.org"]
        assert application.amqp is clients["amqp"]
        async with served(application) as address:
            assert (await fetch(f"{address}/login", "POST", "x")).code == 200
            probes = re.findall(r"`(/amqp/audit/\w+)`", ACCESS.section("Several brokers"))
            assert [(await fetch(f"{address}{probe}")).code for probe in probes] == [200, 200]
        assert [client.counters.confirmed for client in clients.values()] == [0, 1]
        (shutdown,) = re.findall(
            r"Shut all of them down together: `await (.*?)`", " ".join(ACCESS.section("Several brokers").split())
        )
        await eval(shutdown, {"asyncio": asyncio, "application": application})  # noqa: S307 - what is tested
        assert all(client.closed for client in clients.values())
    assert PATTERN == r"[a-z][a-z0-9_]*"
