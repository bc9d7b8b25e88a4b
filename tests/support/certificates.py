"""Certificates of an authority that the tests own, for a node's TLS listener and for clients."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


class Authority:
    """Issues certificates and writes them into a folder, as RabbitMQ wants files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.certificate = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(self.certificate)

    def server(self, *names: str, not_after: datetime | None = None, demand_client: bool = False) -> dict[str, str]:
        """Return the `tls` argument of a Node, with a certificate for these names, or for localhost and 127.0.0.1."""
        key, chain = self._issue("server", *(names or ("localhost", "127.0.0.1")), not_after=not_after)
        return {
            "cacertfile": str(self.certificate),
            "keyfile": str(key),
            "certfile": str(chain),
            "verify": "verify_peer" if demand_client else "verify_none",
            "fail_if_no_peer_cert": "true" if demand_client else "false",
        }

    def server_context(self, *names: str) -> ssl.SSLContext:
        """Return the context of a server in this process, with a certificate for these names, or for localhost."""
        key, chain = self._issue("scripted", *(names or ("localhost", "127.0.0.1")))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(chain, key)
        return context

    def context(self, *, client_name: str | None = None) -> ssl.SSLContext:
        """Return a client's context that trusts this authority, with a certificate of its own where it is named."""
        context = ssl.create_default_context(cafile=self.certificate)
        if client_name:
            key, chain = self._issue("client", client_name)
            context.load_cert_chain(chain, key)
        return context

    def client(self, name: str) -> tuple[Path, Path]:
        """Write a client's certificate, whose common name that is, and its private key; return their files."""
        key, chain = self._issue("client", name, common_name=name)
        return chain, key

    def _issue(
        self, role: str, *names: str, not_after: datetime | None = None, common_name: str | None = None
    ) -> tuple[Path, Path]:
        issued = self._authority.issue_cert(*names, not_after=not_after, common_name=common_name)
        key, chain = self._folder / f"{role}-key.pem", self._folder / f"{role}.pem"
        issued.private_key_pem.write_to_path(key)
        issued.cert_chain_pems[0].write_to_path(chain)
        return key, chain
