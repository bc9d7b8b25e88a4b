"""The node's certificate is verified unless somebody asked for exactly that, and then everybody hears of it."""

import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from sprockets_amqp import Client, Settings, State
from sprockets_amqp.settings import node_parameters
from sprockets_amqp.web import status
from sprockets_amqp.wire.tls import unverified
from tests.support.certificates import Authority
from tests.support.command import run
from tools.rabbitmq import Node

# Python warns of the old protocols, and applications use them all the same.
pytestmark = pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLS")

PROTOCOLS = (None, int(ssl.PROTOCOL_TLS), int(ssl.PROTOCOL_TLSv1_2), int(ssl.PROTOCOL_TLS_CLIENT))


def tls_url(authority: Path, port: int, **options: Any) -> str:
    """A URL whose ssl_options trust an authority, and say more."""
    text = repr({"ca_certs": str(authority), **{name: each for name, each in options.items() if each is not None}})
    return f"amqps://guest:guest@localhost:{port}/%2f?connection_attempts=1&ssl_options={quote(text)}"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority that did not sign the node's certificate, unless a test lets it."""
    return Authority(tmp_path)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("asked", "mode", "names", "doubt"),
    [
        ({}, ssl.CERT_REQUIRED, True, ""),
        ({"cert_reqs": 2}, ssl.CERT_REQUIRED, True, ""),
        ({"cert_reqs": 1, "check_hostname": True}, ssl.CERT_OPTIONAL, True, ""),
        ({"cert_reqs": 0}, ssl.CERT_NONE, False, "is not verified"),
        ({"cert_reqs": 0, "check_hostname": False}, ssl.CERT_NONE, False, "is not verified"),
        ({"check_hostname": False}, ssl.CERT_REQUIRED, False, "may be for any host"),
    ],
)
def test_verification_is_off_only_where_it_was_asked_for(
    authority: Authority, protocol: int | None, asked: dict[str, Any], mode: ssl.VerifyMode, names: bool, doubt: str
) -> None:
    """Whatever the protocol: with the old ones pika's context takes any certificate."""
    [node] = node_parameters(tls_url(authority.certificate, 5671, protocol=protocol, **asked))
    assert node.ssl_options is not None
    context = node.ssl_options.context
    assert (context.verify_mode, context.check_hostname) == (mode, names)
    assert bool(doubt) is bool(unverified(node))
    assert doubt in unverified(node)


@pytest.mark.parametrize("url", ["amqp://host", "amqps://host", "amqps://host?heartbeat=3"])
def test_without_ssl_options_there_is_nothing_to_say(url: str) -> None:
    """TLS verifies everything, and without TLS there is no certificate."""
    [node] = node_parameters(url)
    assert unverified(node) == ""


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"cert_reqs": "CERT_NONE"}, "cert_reqs must be 2 (the default: the certificate is verified) or 0"),
        ({"cert_reqs": 3}, "cert_reqs must be 2"),
        ({"cert_reqs": False}, "cert_reqs must be 2"),
        ({"check_hostname": 0}, "check_hostname must be True (the default) or False"),
        ({"cert_reqs": 0, "check_hostname": True}, "check_hostname cannot be True where cert_reqs is 0"),
    ],
)
def test_what_is_asked_for_has_to_be_clear(authority: Authority, asked: dict[str, Any], says: str) -> None:
    """What is no word about verification, or two that contradict each other, is refused."""
    with pytest.raises(ValueError, match=re.escape(f"url (argument url) has a bad option ssl_options: {says}")):
        Settings(url=tls_url(authority.certificate, 5671, **asked))


async def connected(url: str) -> tuple[bool, str]:
    """Whether a client of the URL comes to be ready, and what its page says of the certificate."""
    client = Client(url, reconnect_delay=60, connection_attempts=1)
    try:
        async for change in client.changes():
            if change.dest in {State.READY, State.CLOSED}:
                break
        return client.ready, status.snapshot(client)["doubt"]
    finally:
        await client.shutdown()


@pytest.mark.usefixtures("rabbitmq")
async def test_a_stranger_is_not_taken_for_the_node(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """With each protocol: one whom nobody trusted signed for, and one who is somebody else."""
    stranger = authority.certificate.parent / "stranger"
    stranger.mkdir()
    trusted = authority.certificate
    untrusted = Authority(stranger).certificate
    async with Node(tls=authority.server("elsewhere.example.org")) as node:
        assert node.tls_port is not None
        for protocol in PROTOCOLS:
            for whom in (trusted, untrusted):
                url = tls_url(whom, node.tls_port, protocol=protocol, cert_reqs=2, check_hostname=True)
                assert await connected(url) == (False, "")
                checked = await run("check", url)
                assert checked.status == 1
                assert "TLS       FAILED" in checked.out

            caplog.clear()
            url = tls_url(untrusted, node.tls_port, protocol=protocol, cert_reqs=0)
            ready, doubt = await connected(url)
            assert (ready, doubt[:31]) == (True, "the certificate is not verified")
            assert f"connected to localhost port {node.tls_port}: {doubt}" in caplog.messages
            checked = await run("check", url)
            assert checked.status == 0
            assert doubt in checked.out and "good for" not in checked.out

            ready, doubt = await connected(tls_url(trusted, node.tls_port, protocol=protocol, check_hostname=False))
            assert (ready, doubt[:35]) == (True, "the certificate may be for any host")
