"""Logging in by the client's certificate, and why RabbitMQ refuses it, on a node with the plugin."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from pika.exceptions import ChannelClosedByBroker

from sprockets_amqp import Access, Client, ExchangeRefused, OutcomeUnknown, Settings, State
from sprockets_amqp.cli import steps
from sprockets_amqp.urls import node_parameters
from tests.support.certificates import Authority
from tests.support.command import run
from tools.rabbitmq import Node

QUICK: dict[str, Any] = {"connection_attempts": 1, "reconnect_delay": 0.1, "max_reconnect_delay": 0.2}
BY_NAME = {"auth_mechanisms.1": "PLAIN", "auth_mechanisms.2": "EXTERNAL", "ssl_cert_login_from": "common_name"}


class Server:
    """A node, an authority that it trusts, and the files of its user `orders`."""

    def __init__(self, folder: Path, *, demands: bool = True, config: Mapping[str, str] = BY_NAME) -> None:
        self.authority = Authority(folder)
        self.certificate, self.key = self.authority.client("orders")
        self.node = Node(tls=self.authority.server(demand_client=demands), config=config)
        (self.node.folder / "enabled_plugins").write_text("[rabbitmq_auth_mechanism_ssl].")

    @property
    def url(self) -> str:
        """Where the node listens with TLS, without a user."""
        return f"amqps://localhost:{self.node.tls_port}/%2f"

    @property
    def files(self) -> dict[str, Any]:
        """The settings for TLS."""
        return {"tls_ca": self.authority.certificate, "tls_certificate": self.certificate, "tls_key": self.key}

    async def check(self, url: str = "", **more: Any) -> str:
        """What `sprockets-amqp check` prints; it fails unless it says that all is well."""
        variables: dict[str, Any] = {f"AMQP_{name.upper()}": str(path) for name, path in self.files.items()}
        result = await run("check", url or f"{self.url}?auth=external", **variables, **more)
        assert result.status == ("of 1 nodes failed" in result.out)
        return result.out


@asynccontextmanager
async def served(folder: Path, **how: Any) -> AsyncIterator[Server]:
    """A server of that kind."""
    server = Server(folder, **how)
    async with server.node:
        yield server


@pytest_asyncio.fixture
async def server(tmp_path: Path, rabbitmq: None) -> AsyncIterator[Server]:
    """A node that has the plugin, and takes users' names from certificates."""
    async with served(tmp_path) as made:
        yield made


async def test_a_certificate_is_all_that_is_needed(server: Server) -> None:
    """In each way that it can be given; the messages have no user but that one, whose permissions hold."""
    await server.node.ctl("add_user", "orders", "unused")
    await server.node.ctl("set_permissions", "orders", ".*", "amq\\.fanout|amq\\.topic|amq\\.default", ".*")
    await server.node.ctl("set_topic_permissions", "orders", "amq.topic", "^mine", ".*")
    options = {
        name: str(path) for name, path in zip(("cafile", "certfile", "keyfile"), server.files.values(), strict=True)
    }
    context = server.authority.context()
    context.load_cert_chain(server.certificate, server.key)
    ways: list[tuple[Any, dict[str, Any]]] = [
        (f"{server.url}?auth=external", server.files),
        (server.url, {"auth": "external", **server.files}),
        (f"{server.url}?auth=external", {"auth": "external", **server.files}),
        (f"{server.url}?auth=external", {"tls_context": context}),
        (f"{server.url}?auth=external&ssl_options={quote(repr(options))}", {}),
        (lambda: Access(f"{server.url}?auth=external"), server.files),
        (lambda: server.url, {"auth": "external", **server.files}),
    ]
    for url, settings in ways:
        async with Client(url, **settings, **QUICK) as client:
            await client.wait_for(State.READY, 30)
            await client.publish("amq.fanout", "", b"")
            assert "EXTERNAL\torders" in await server.node.ctl("list_connections", "auth_mechanism", "user")
            with pytest.raises(ExchangeRefused, match="refused for user 'orders'"):
                await client.publish("amq.direct", "", b"")
    # The client learns which exchange has topics from a refusal that names the certificate's user.
    async with Client(f"{server.url}?auth=external", **server.files, **QUICK) as client:
        await client.wait_for(State.READY, 30)
        await client.publish("amq.topic", "mine.1", b"")
        with pytest.raises(OutcomeUnknown):
            await client.publish(
                "amq.topic", "theirs' in exchange 'amq.fanout' in vhost '/' refused for user 'orders", b""
            )
        await client.wait_for(State.READY, 30)
        innocent = [client.publish("amq.topic", f"mine.{number}", b"") for number in range(20)]
        with pytest.raises(ExchangeRefused, match=r"access to topic 'theirs\.2'"):
            await client.publish("amq.topic", "theirs.2", b"")
        await asyncio.gather(*innocent)
        assert client.counters.reconnects == 0


async def test_check_says_why_a_login_is_refused(server: Server) -> None:
    """No user, no permission for the vhost, a user and password in vain; and that all is well in the end."""
    says = await server.check()
    assert "login     FAILED  (403) ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL" in says
    assert "-> " in says and "add the certificate's user (rabbitmqctl add_user)" in says
    await server.node.ctl("add_user", "orders", "unused")
    says = await server.check()
    assert "login     ok      as the client certificate" in says
    assert "rabbitmqctl set_permissions --vhost '/' 'orders' '.*' '.*' '.*'" in says
    await server.node.ctl("set_permissions", "orders", ".*", ".*", ".*")
    assert "1 of 1 nodes" not in await server.check()
    assert "1 of 1 nodes" not in await server.check(server.url, AMQP_AUTH="external")


@pytest.mark.parametrize(
    ("how", "url", "says"),
    [
        (
            {"config": {}},
            "?auth=external",
            "the node does not offer to log in with EXTERNAL, only with ",
        ),
        (
            {"config": {"auth_mechanisms.1": "EXTERNAL"}},
            "",
            "the node does not offer to log in with PLAIN, only with EXTERNAL",
        ),
        (
            {"demands": False},
            "?auth=external",
            "Login was refused using authentication mechanism EXTERNAL",
        ),
    ],
    ids=["the node has no EXTERNAL", "the node has no PLAIN", "the node asks for no certificate"],
)
@pytest.mark.usefixtures("rabbitmq")
async def test_what_the_node_does_not_offer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: dict[str, Any], url: str, says: str
) -> None:
    """The client's line and `check` name it; pika's own lines and traceback stay away."""
    async with served(tmp_path, **how) as made:
        await made.node.ctl("add_user", "orders", "unused")
        printed = await made.check(f"{made.url}{url}")
        assert says in printed
        assert re.search(r"-> +(enable the plugin rabbitmq_auth_mechanism_ssl|log in by the client's|add the)", printed)
        async with Client(f"{made.url}{url}", **made.files, **QUICK) as client:
            await client.wait_for(State.CLOSED, 30)
            assert says in client.condition
        assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"url": "amqps://host", "auth": "external"}, "auth=external needs the client's certificate"),
        ({"url": "amqps://host?auth=external"}, "auth=external needs the client's certificate"),
        ({"url": "amqps://host?auth=external", "tls_ca": "ca"}, "auth=external needs the client's certificate"),
        ({"url": "amqps://user:s3cr3t@host", "auth": "external"}, "url names a user, but with auth=external"),
        ({"url": "amqp://host", "auth": "external"}, "url must begin with amqps:// with auth=external"),
        ({"auth": "external"}, "url names a user, but with auth=external"),
        (
            {"url": "amqps://host?auth=external", "auth": "plain"},
            "url says auth=external, but the setting auth is 'plain'",
        ),
        ({"auth": "EXTERNAL"}, "auth (argument auth) must be plain or external, not 'EXTERNAL'"),
        ({"auth": b"external"}, "auth (argument auth) must be plain or external, not b'external'"),
        ({"auth": ["external"]}, "auth (argument auth) must be plain or external, not ['external']"),
    ],
)
def test_what_contradicts_itself_is_said_at_the_start(tmp_path: Path, given: dict[str, Any], says: str) -> None:
    """The error names the setting and what to do."""
    if "tls_ca" in given:
        given = {**given, "tls_ca": str(Authority(tmp_path).certificate)}
    with pytest.raises(ValueError, match=f"^{re.escape(says)}") as caught:
        Settings(**given)
    assert "s3cr3t" not in str(caught.value)


async def test_a_certificate_has_no_validity_to_give(tmp_path: Path) -> None:
    """The function's answer is refused in words; so is one with a user, or without a certificate to show."""
    authority = Authority(tmp_path)
    certificate, key = authority.client("orders")
    files: dict[str, Any] = {"tls_certificate": str(certificate), "tls_key": str(key)}
    for answer, settings, says in (
        (Access("amqps://localhost:1?auth=external", valid_for=60), files, "omit valid_for"),
        (Access("amqps://localhost:1", valid_for=60), {"auth": "external", **files}, "omit valid_for"),
        ("amqps://user:pw@localhost:1", {"auth": "external", **files}, "names a user, but with auth=external"),
        ("amqps://localhost:1?auth=external", {}, "auth=external needs the client's certificate"),
    ):
        async with Client(lambda answer=answer: answer, **settings, **QUICK) as client:  # type: ignore[misc]
            await client.wait_for(State.CLOSED, 30)
            assert says in client.condition


def test_advice_rests_on_what_rabbitmq_says_last() -> None:
    """A name that is quoted before the user's may look like one; a node that is frozen has read no token."""
    [by_certificate] = node_parameters("amqps://host?auth=external")
    quoting = ChannelClosedByBroker(403, "access to queue 'x' for user 'evil'' in vhost '/' refused for user 'orders'")
    assert "set_permissions 'orders'" in steps._advise_setup(quoting, by_certificate)
    [long] = node_parameters(f"amqp://user:{'x' * 5000}@host")
    assert "may be starting or frozen" in steps._advise_login(TimeoutError(), long)
    assert "a shorter token" in steps._advise_login(ConnectionResetError(), long)
