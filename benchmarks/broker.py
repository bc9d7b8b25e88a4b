"""The broker that is measured against: a node of our own, with a queue that is the same for every peer."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pika
import trustme
from pika.exceptions import AMQPError

from benchmarks.peers import EXCHANGE, QUEUE, ROUTING_KEY, exchange_names
from tools.rabbitmq import Node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pika.adapters.blocking_connection import BlockingChannel

#: A real queue, since a message that no queue takes would be returned; it drops its oldest, so that it never grows.
_QUEUE_ARGUMENTS = {"x-max-length": 1000, "x-max-length-bytes": 64 * 1024 * 1024}


class Broker:
    """A running node with the exchange and the queue declared."""

    def __init__(self, node: Node, cafile: Path) -> None:
        self.node = node
        self.cafile = cafile
        self._owner: BlockingChannel | None = None

    def url(self, *, tls: bool) -> str:
        """Return the URL to publish to."""
        # librabbitmq holds the certificate against host names only, not against addresses.
        return f"amqps://guest:guest@localhost:{self.node.tls_port}/%2f" if tls else self.node.url

    def environment(self, *, tls: bool) -> dict[str, str]:
        """Return what makes a peer trust the node's certificate: the same way for every peer."""
        return {"SSL_CERT_FILE": str(self.cafile)} if tls else {}

    async def declare(self) -> None:
        """Declare the exchange and the queue."""
        await asyncio.to_thread(self._declare)

    async def declare_exchanges(self, number: int) -> None:
        """Declare so many more exchanges, and have the queue take what comes to any of them under any routing key."""
        await asyncio.to_thread(self._declare_exchanges, number)

    async def empty_queue(self) -> None:
        """Purge the queue, so that no peer starts with what another left."""
        await asyncio.to_thread(self._purge)

    def close(self) -> None:
        """Let go of the queue; harmless where the node is gone."""
        if self._owner is not None:
            with contextlib.suppress(AMQPError):
                self._owner.connection.close()

    def _declare(self) -> None:
        # Nobody reads from it between two measurements, so that it can't answer heartbeats.
        parameters = pika.URLParameters(f"{self.node.url}?heartbeat=0")
        self._owner = pika.BlockingConnection(parameters).channel()
        self._owner.exchange_declare(EXCHANGE, "topic")
        # Exclusive: since version 4.3, RabbitMQ has no other queues that are not on a disk.
        self._owner.queue_declare(QUEUE, exclusive=True, arguments=_QUEUE_ARGUMENTS)
        self._owner.queue_bind(QUEUE, EXCHANGE, ROUTING_KEY)

    def _declare_exchanges(self, number: int) -> None:
        assert self._owner is not None
        self._owner.queue_bind(QUEUE, EXCHANGE, "#")
        for name in exchange_names(number):
            self._owner.exchange_declare(name, "topic")
            self._owner.queue_bind(QUEUE, name, "#")

    def _purge(self) -> None:
        assert self._owner is not None
        self._owner.queue_purge(QUEUE)


@contextlib.asynccontextmanager
async def running_broker(folder: Path) -> AsyncIterator[Broker]:
    """Start a node that has a TLS listener too, with its certificates in ``folder``; stop it afterwards."""
    cafile, certfile, keyfile = (folder / name for name in ("ca.pem", "server.pem", "server.key"))
    authority = trustme.CA()
    server = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(cafile))
    server.private_key_pem.write_to_path(str(keyfile))
    for pem in server.cert_chain_pems:
        pem.write_to_path(str(certfile), append=True)
    tls = {"cacertfile": str(cafile), "certfile": str(certfile), "keyfile": str(keyfile), "verify": "verify_none"}
    async with Node("benchmark", tls=tls) as node:
        broker = Broker(node, cafile)
        with contextlib.closing(broker):
            await broker.declare()
            yield broker
