"""Faults of TLS, with real certificates."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
import trustme

import sprockets_amqp as amqp
from sprockets_amqp import State
from tests.faults.stream import streaming
from tests.support.proxy import Proxy
from tools.rabbitmq import Node

QUICK: dict[str, Any] = {"reconnect_delay": 0.1, "max_reconnect_delay": 0.2, "timeout": 60, "connection_attempts": 1}


class Certificates:
    """An authority of the test's own, and what it signed."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.folder = folder
        self.authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.client = self.write("client", self.authority.issue_cert("client@example.org"))

    def write(self, name: str, certificate: trustme.LeafCert) -> dict[str, str]:
        """Write a certificate and its key; returns ssl_options."""
        certificate.cert_chain_pems[0].write_to_path(str(self.folder / f"{name}.pem"))
        certificate.private_key_pem.write_to_path(str(self.folder / f"{name}.key"))
        return {
            "cacertfile": str(self.folder / "ca.pem"),
            "certfile": str(self.folder / f"{name}.pem"),
            "keyfile": str(self.folder / f"{name}.key"),
        }

    def url(self, port: int | None, *, client: bool = True, host: str = "localhost") -> str:
        """A URL that trusts the authority, with the client's certificate or without."""
        options: dict[str, Any] = {"cafile": self.client["cacertfile"]}
        if client:
            options |= {"certfile": self.client["certfile"], "keyfile": self.client["keyfile"]}
        return f"amqps://guest:guest@{host}:{port}/%2f?stack_timeout=2&ssl_options={quote(repr(options))}"


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """Certificates of the test's own."""
    tmp_path.chmod(0o755)
    return Certificates(tmp_path)


@pytest_asyncio.fixture
async def secure(rabbitmq: None, certificates: Certificates) -> AsyncIterator[Node]:
    """A node with a TLS listener that wants a client's certificate."""
    server = certificates.write("server", certificates.authority.issue_cert("localhost"))
    async with Node(tls={**server, "verify": "verify_peer", "fail_if_no_peer_cert": "true"}) as node:
        yield node


async def refused(url: str) -> str:
    """Try to connect; returns why the client was closed, and that it keeps trying."""
    client = amqp.Client(url, **QUICK)
    try:
        await client.wait_for(State.CLOSED, 30)
        assert client.recovers
        assert client.counters.published == 0
        return client.condition
    finally:
        await client.shutdown()


@pytest.mark.fault(30)
async def test_tls_and_its_faults(secure: Node, certificates: Certificates) -> None:
    """Each ends the attempt with its reason, never falling back to plain text; cut in mid-stream, it reconnects."""
    async with Proxy(secure.tls_port or 0) as proxy:
        async with streaming(certificates.url(proxy.port), admin_url=secure.url) as stream:
            proxy.delay = 0.1
            stream.publish()
            proxy.reset()
            while State.CLOSED not in stream.path:
                await asyncio.wait_for(anext(stream.client.changes()), 60)
            await stream.confirmed()
            assert stream.errors
            assert all(isinstance(error, amqp.OutcomeUnknown) for error in stream.errors)
        proxy.black_hole()
        assert "TLS at localhost" in await refused(certificates.url(proxy.port))
    assert "the certificate cannot be verified: " in await refused(
        f"amqps://guest:guest@localhost:{secure.tls_port}/%2f"
    )
    assert "127.0.0.1" in await refused(certificates.url(secure.tls_port, host="127.0.0.1"))
    assert "SSL" in await refused(certificates.url(secure.port))
    await refused(certificates.url(secure.tls_port, client=False))


@pytest.mark.usefixtures("rabbitmq")
@pytest.mark.fault(30)
async def test_an_expired_certificate(certificates: Certificates) -> None:
    """An expired certificate is not trusted, and the reason says that it has expired."""
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    expired = certificates.authority.issue_cert("localhost", not_after=yesterday)
    async with Node(tls=certificates.write("expired", expired)) as node:
        assert "expired" in await refused(certificates.url(node.tls_port))
