"""Credentials that change, files of TLS that are replaced, and what setup declares, on RabbitMQ."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from sprockets_amqp import STORED, Access, Client, ExchangeRefused, OutcomeUnknown, State, Topology
from sprockets_amqp.states import Renewal
from sprockets_amqp.web import status
from tests.support.certificates import Authority
from tests.support.command import run
from tests.support.waiting import until
from tools.rabbitmq import Node, version

KEY = b"the key that signs the tokens of this test"
#: Seconds for which a token is valid; RabbitMQ reads whole ones.
LIFETIME = int(os.environ.get("OAUTH_LIFETIME", "4"))
#: Messages a second.
RATE = 200
#: The configuration of RabbitMQ's OAuth 2 plugin: who signs, with which key.
OAUTH = """[{{rabbitmq_auth_backend_oauth2, [{{resource_server_id, <<"rabbitmq">>}}, {{key_config, [
  {{default_key, <<"test">>}},
  {{signing_keys, #{{<<"test">> => {{map, #{{<<"kty">> => <<"oct">>, <<"alg">> => <<"HS256">>, <<"k">> => <<"{key}">>
  }}}}}}}}]}}]}}].
"""


def encode(data: bytes) -> str:
    """Encode as JSON Web Tokens are."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(expires: int) -> str:
    """A token that allows everything until then."""
    scope = ["rabbitmq.configure:*/*", "rabbitmq.write:*/*", "rabbitmq.read:*/*"]
    claims = {"sub": "app", "aud": ["rabbitmq"], "scope": scope, "exp": expires}
    head = {"alg": "HS256", "typ": "JWT", "kid": "test"}
    signed = ".".join(encode(json.dumps(part).encode()) for part in (head, claims))
    return f"{signed}.{encode(hmac.digest(KEY, signed.encode(), hashlib.sha256))}"


@pytest.mark.usefixtures("rabbitmq")
async def test_tokens_are_renewed_on_the_open_connection(caplog: pytest.LogCaptureFixture) -> None:
    """With RabbitMQ's OAuth 2 plugin: several lifetimes of publishing, one connection, nothing lost or refused.

    `OAUTH_SECONDS` says for how long, `OAUTH_LIFETIME` how long a token is valid.
    """
    seconds = float(os.environ.get("OAUTH_SECONDS", "14"))
    caplog.set_level(logging.DEBUG)
    given: list[str] = []

    async def login() -> Access:
        expires = int(time.time()) + LIFETIME
        given.append(token(expires))
        return Access(f"amqp://app:{given[-1]}@127.0.0.1:{node.port}", valid_for=expires - time.time())

    node = Node(config={"auth_backends.1": "rabbit_auth_backend_oauth2", "auth_backends.2": "internal"})
    (node.folder / "advanced.config").write_text(OAUTH.format(key=encode(KEY)))
    (node.folder / "enabled_plugins").write_text("[rabbitmq_auth_backend_oauth2].")
    async with node, Client(login) as client:
        await client.wait_for(State.READY, 30)
        ends: list[asyncio.Future[None]] = []
        begin = asyncio.get_running_loop().time()
        for number in range(int(seconds * RATE)):
            ends.append(client.publish("amq.fanout", "", f"event {number}"))
            await asyncio.sleep(begin + number / RATE - asyncio.get_running_loop().time())
        await client.flush(10)
        assert [error for each in ends if (error := each.exception())] == []
        assert (client.counters.reconnects, client.counters.confirmed) == (0, len(ends))
        assert [change.dest for change in client.history] == [State.CONNECTING, State.READY]
        assert len(given) > seconds / LIFETIME
        shown = caplog.text + repr(client) + str(client.history)
        assert not any(secret in shown for secret in given)


@pytest.mark.usefixtures("rabbitmq")
async def test_a_token_that_has_expired_is_no_message_s_fault(tmp_path: Path) -> None:
    """While there is no new one, publishes are stored; nothing is set aside, and all of it arrives with a new token."""
    works = True

    async def login() -> Access:
        if not works:
            raise ConnectionError("the token endpoint is down")
        expires = int(time.time()) + LIFETIME
        return Access(f"amqp://app:{token(expires)}@127.0.0.1:{node.port}", valid_for=expires - time.time())

    node = Node(config={"auth_backends.1": "rabbit_auth_backend_oauth2", "auth_backends.2": "internal"})
    (node.folder / "advanced.config").write_text(OAUTH.format(key=encode(KEY)))
    (node.folder / "enabled_plugins").write_text("[rabbitmq_auth_backend_oauth2].")
    client = Client(login, outbox=tmp_path, timeout=1, reconnect_delay=0.2, max_reconnect_delay=0.5)
    async with node, client:
        await client.wait_for(State.READY, 30)
        await client.publish("amq.headers", "key", b"known")
        works = False
        await asyncio.sleep(LIFETIME + 1)
        futures = [client.publish(exchange, "key", b"") for exchange in ("amq.headers", "amq.fanout", "amq.direct")]
        results = await asyncio.gather(*futures)
        assert results == [STORED] * 3
        assert "Provided JWT token has expired" in str(client.history)
        await asyncio.sleep(1)
        assert (client.counters.set_aside, client.counters.stored) == (0, 3)
        works = True
        await client.flush(30)
        assert (client.counters.set_aside, client.counters.confirmed) == (0, 4)


async def test_a_user_who_is_deleted_is_followed_by_the_next(node: Node) -> None:
    """Rotated credentials: RabbitMQ closes the old user's connections, and the function knows the new one."""
    urls = [await node.add_user("old"), await node.add_user("new")]
    await node.ctl("set_permissions", "new", ".*", ".*", ".*")
    async with Client(lambda: urls[0], reconnect_delay=0.1) as client:
        await client.wait_for(State.READY, 30)
        await client.publish("", "nowhere", b"")
        del urls[0]
        await node.ctl("delete_user", "old")
        # Not every version closes the connection of a user who is deleted.
        await node.ctl("close_all_connections", "rotated")
        await until(lambda: client.counters.reconnects >= 1 and client.ready)
        await client.publish("", "nowhere", b"")
        assert client.url == urls[0]
    await node.ctl("delete_user", "new")


@pytest.mark.usefixtures("rabbitmq")
async def test_files_that_are_replaced_are_used_at_the_next_attempt(tmp_path: Path) -> None:
    """The authority's, and the client's certificate and key, which the node demands."""
    folders = [tmp_path / name for name in ("ours", "theirs")]
    for folder in folders:
        folder.mkdir()
    ours, theirs = map(Authority, folders)
    authority, certificate, key = (tmp_path / name for name in ("ca.pem", "app.pem", "app.key"))

    def write(issuer: Authority) -> None:
        shutil.copy(issuer.certificate, authority)
        for source, copy in zip(issuer.client("app"), (certificate, key), strict=True):
            shutil.copy(source, copy)

    write(theirs)
    async with Node(tls=ours.server("localhost", demand_client=True)) as node:
        url = f"amqps://guest:guest@localhost:{node.tls_port}?connection_attempts=1"
        files = {"tls_ca": str(authority), "tls_certificate": str(certificate), "tls_key": str(key)}
        settings = {"reconnect_delay": 0.1, "max_reconnect_delay": 0.1, "connection_attempts": 1}
        async with Client(url, **files, **settings) as client:  # type: ignore[arg-type]
            await until(lambda: "the certificate cannot be verified" in client.condition)
            authority.write_text("")
            await until(lambda: f"tls_ca {str(authority)!r}: has no certificate" in client.condition)
            write(ours)
            await client.wait_for(State.READY, 30)
            await client.publish("", "nowhere", b"")
        context = ours.context(client_name="app")
        context.check_hostname = False
        async with Client(url, tls_context=context) as client:
            await client.wait_for(State.READY, 30)
            assert "may be for any host" in status.snapshot(client)["doubt"]


async def declare(topology: Topology) -> None:
    """Declare what the tests below publish to."""
    await topology.exchange_declare("setup.events", "topic", durable=True)
    queue = await topology.queue_declare("setup.all", durable=True)
    await topology.queue_bind(queue.queue or "", "setup.events", "#")


@pytest.mark.usefixtures("rabbitmq")
async def test_what_was_lost_is_declared_again() -> None:
    """By a user with one channel: at first, when the exchange was deleted, and when the node lost everything."""
    async with Node() as node:
        await node.add_user("narrow")
        await node.ctl("set_user_limits", "narrow", '{"max-channels": 1}')
        client = Client(node.url_for("narrow", "secret"), setup=declare, reconnect_delay=0.2, fail_on_return=True)
        await client.publish("setup.events", "user.created", b"waited", timeout=30)
        await node.ctl(
            "eval",
            'rabbit_exchange:delete(rabbit_misc:r(<<"/">>, exchange, <<"setup.events">>), false, <<"test">>).',
        )
        with pytest.raises((ExchangeRefused, OutcomeUnknown)):
            await client.publish("setup.events", "user.created", b"refused")
        await client.publish("setup.events", "user.created", b"again", timeout=30)
        await client.shutdown()

        client = Client(node.url, setup=declare, reconnect_delay=0.2, fail_on_return=True)
        await client.wait_for(State.READY, 30)
        for command in ("stop_app", "reset", "start_app"):
            await node.ctl(command)
        await until(lambda: client.counters.reconnects > 0 and client.ready)
        await client.publish("setup.events", "user.created", b"after all", timeout=30)
        assert "setup.all\t1" in await node.ctl("list_queues", "name", "messages")
        await client.shutdown()


async def harmless(topology: Topology) -> None:
    """Declare what every vhost has."""
    await topology.exchange_declare("amq.topic", "topic", passive=True)


async def other(topology: Topology) -> None:
    """Declare what is there with another type."""
    await topology.exchange_declare("amq.topic", "fanout", durable=True)


async def forbidden(topology: Topology) -> None:
    """Declare what the user may not."""
    await topology.queue_declare("forbidden")


async def test_a_refusal_is_told_in_rabbitmqs_words(broker: Node, caplog: pytest.LogCaptureFixture) -> None:
    """406 over other arguments, and 403 where the user may not configure."""
    url = await broker.add_user("reader")
    await broker.ctl("set_permissions", "reader", "", ".*", ".*")
    for access, setup, words in (
        (
            broker.url,
            other,
            "other() failed: (406) PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.topic'",
        ),
        (url, forbidden, "forbidden() failed: (403) ACCESS_REFUSED - "),
    ):
        async with Client(access, setup=setup) as client:
            await client.wait_for(State.CLOSED, 30)
            assert words in client.condition
            assert words in caplog.text
        checked = await run("check", access, "--setup", f"tests.test_access_real:{setup.__name__}")
        assert (checked.status, words.partition(": ")[2][:22] in checked.out) == (1, True), checked.out
        assert "setup     FAILED" in checked.out and "->" in checked.out
    checked = await run("check", broker.url, "--setup", "tests.test_access_real:nothing")
    assert (checked.status, "cannot be imported" in checked.err) == (2, True)
    checked = await run("check", broker.url, "--setup", "tests.test_access_real:harmless")
    assert (checked.status, "setup     ok      harmless() declared everything" in checked.out) == (0, True), checked.out
    await broker.ctl("delete_user", "reader")


async def test_what_is_revoked_shows_after_a_renewal(node: Node) -> None:
    """From 4.3 on RabbitMQ looks the permissions up again; no version closes the channel over the next publish."""
    url = await node.add_user("renewed")
    asked: list[int] = []

    def log_in() -> Access:
        asked.append(len(asked))
        return Access(url, valid_for=3)

    async with Client(log_in) as client:
        await client.wait_for(State.READY, 30)
        await client.publish("amq.fanout", "", b"")
        await node.ctl("set_permissions", "renewed", ".*", "amq.direct", ".*")
        renewal = client._runtime.renewal
        await until(lambda: len(asked) > 1 and renewal.state is Renewal.VALID)
        ends = await asyncio.gather(
            *(client.publish(exchange, "", b"") for exchange in ("amq.fanout", "amq.direct")), return_exceptions=True
        )
        assert ends[1] is None
        if version() >= (4, 3):
            assert isinstance(ends[0], ExchangeRefused)
        assert [change.dest for change in client.history] == [State.CONNECTING, State.READY]
    await node.ctl("delete_user", "renewed")


#: The configuration that forbids what is deprecated; versions before 3.13 do not know it.
FORBIDS = "deprecated_features.permit.transient_nonexcl_queues"


async def transient(topology: Topology) -> None:
    """Declare a queue that is neither durable nor exclusive."""
    await topology.queue_declare("transient")


@pytest.mark.usefixtures("rabbitmq")
async def test_a_transient_queue_is_warned_of_and_its_refusal_explained(caplog: pytest.LogCaptureFixture) -> None:
    """The log says what to change before RabbitMQ closes the connection, and `check` says it after that."""
    forbids = version() >= (3, 13)
    settings: dict[str, Any] = {"connection_attempts": 1, "reconnect_delay": 60, "max_reconnect_delay": 60}
    async with Node(config={FORBIDS: "false"} if forbids else {}) as node:
        async with Client(node.url, setup=transient, **settings) as client:
            await client.wait_for(State.CLOSED if forbids else State.READY, 30)
            assert "(541) INTERNAL_ERROR - Feature `transient_nonexcl_queues`" in client.condition or not forbids
        assert "setup declares queue 'transient' neither durable nor exclusive" in caplog.text
        result = await run("check", "--setup", "tests.test_access_real:transient", node.url)
        assert result.status == forbids
        advice = "RabbitMQ is configured to refuse it: declare the queue with durable=True, or with exclusive=True"
        assert (advice in result.out) == forbids


@pytest.mark.parametrize("length", [3000, 4200, 9000])
async def test_a_token_that_is_too_long_is_explained(node: Node, length: int) -> None:
    """RabbitMQ hangs up on it, which looks like a wrong password; the log and `check` say what it is."""
    url = node.url_for(password="x" * length)
    reads = length < 3600 or (length < 8000 and version() >= (4, 1))
    says = f"before the login, 8192 since 4.1, and user and password have {5 + length}"
    async with Client(url, connection_attempts=1) as client:
        await client.wait_for(State.CLOSED, 30)
        assert (says in client.condition) != reads
        assert "x" * 100 not in client.condition
    result = await run("check", url)
    assert (says in result.out) != reads
    assert ("ask for a shorter token" in result.out) != reads


async def test_a_small_frame_max_is_explained(node: Node) -> None:
    """From 4.1 on RabbitMQ hangs up, and says nothing."""
    url = node.url_for(query="frame_max=4096")
    async with Client(url, connection_attempts=1) as client:
        if version() >= (4, 1):
            await client.wait_for(State.CLOSED, 30)
            assert "RabbitMQ refuses frame_max=4096 in the URL since 4.1: leave it out" in client.condition
        else:
            await client.wait_for(State.READY, 30)
