"""The node's certificate is verified unless somebody asked for exactly that, and then everybody hears of it."""

import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sprockets_amqp import Client, Settings, State
from sprockets_amqp.settings import from_environment
from sprockets_amqp.urls import node_parameters
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
        ({"cert_reqs": 0, "check_hostname": True}, "check_hostname cannot be True if cert_reqs is 0"),
    ],
)
def test_what_is_asked_for_has_to_be_clear(authority: Authority, asked: dict[str, Any], says: str) -> None:
    """What is no word about verification, or two that contradict each other, is refused."""
    with pytest.raises(ValueError, match=re.escape(f"url (argument url) has a bad option ssl_options: {says}")):
        Settings(url=tls_url(authority.certificate, 5671, **asked))


def test_files_come_from_settings(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument wins over AMQP_…, which wins over RABBITMQ_…; what the context trusts and shows is theirs."""
    certificate, key = authority.client("app")
    for prefix, path in (("RABBITMQ", "/nowhere"), ("AMQP", str(authority.certificate))):
        monkeypatch.setenv(f"{prefix}_TLS_CA", path)
    monkeypatch.setenv("AMQP_TLS_CERTIFICATE", str(certificate))
    given = from_environment()
    assert given["tls_ca"] == str(authority.certificate)
    settings = Settings(url="amqps://one,two", tls_key=str(key), **given)
    for node in node_parameters("amqps://one,two", settings.tls):
        assert node.ssl_options is not None
        assert node.ssl_options.server_hostname == node.host
        assert len(node.ssl_options.context.get_ca_certs()) == 1
        assert unverified(node) == ""


@pytest.mark.parametrize(
    ("url", "given", "says"),
    [
        ("amqps://host", {"tls_ca": "/nowhere/ca.pem"}, "tls_ca '/nowhere/ca.pem': No such file or directory"),
        ("amqps://host", {"tls_ca": "bad"}, "has no certificate in PEM format"),
        ("amqps://host", {"tls_certificate": "/nowhere/app.pem"}, "'/nowhere/app.pem': No such file or directory"),
        ("amqps://host", {"tls_certificate": "bad"}, "are not a matching certificate and private key in PEM format"),
        ("amqps://host", {"tls_certificate": "app", "tls_key": "other"}, "in PEM format (KEY_VALUES_MISMATCH)"),
        ("amqps://host", {"tls_certificate": "app", "tls_key": "locked"}, "the private key is encrypted"),
        ("amqps://host", {"tls_key": "key"}, "tls_key is given without tls_certificate"),
        ("amqps://host", {"tls_ca": "ca", "tls_context": "context"}, "tls_context and tls_ca are both given"),
        ("amqps://host", {"tls_ca": 7}, "tls_ca (argument tls_ca) must be the path of a file, not 7"),
        ("amqps://host", {"tls_context": 7}, "tls_context (argument tls_context) must be an ssl.SSLContext, not 7"),
        ("amqp://host", {"tls_ca": "ca"}, "the URL must begin with amqps:// if tls_ca is given"),
        ("amqps://one,amqps://host?ssl_options={}", {"tls_ca": "ca"}, "the URL has ssl_options, and tls_ca is given"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_name(
    authority: Authority, tmp_path: Path, url: str, given: dict[str, Any], says: str
) -> None:
    """At the start, as for any setting; OpenSSL never asks for a password on the terminal."""
    certificate, key = authority.client("app")
    bad, locked, other = (tmp_path / name for name in ("bad.pem", "locked.key", "other.key"))
    bad.write_text("this is no certificate")
    secret = serialization.load_pem_private_key(key.read_bytes(), None)
    how = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked.write_bytes(secret.private_bytes(*how, serialization.BestAvailableEncryption(b"secret")))
    other.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(*how, serialization.NoEncryption()))
    names: dict[object, Any] = {
        "bad": str(bad),
        "locked": str(locked),
        "other": str(other),
        "app": str(certificate),
        "key": str(key),
        "ca": str(authority.certificate),
        "context": ssl.create_default_context(),
    }
    options = quote(repr({"ca_certs": str(authority.certificate)}))
    with pytest.raises(ValueError, match=re.escape(says)):
        Settings(url=url.replace("{}", options), **{name: names.get(value, value) for name, value in given.items()})


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
