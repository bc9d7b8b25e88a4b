"""The publishers that are measured, one module each, behind one protocol.

All publish the same message, mandatory, with the properties that they are given; where they are given none, with a
message id, a timestamp and an app id, which a peer sets itself where its library does not. All use one connection and
one channel in confirm mode, and await each message's own confirmation.
A peer's library is imported only in the process that measures it.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from benchmarks.messages import Properties

EXCHANGE = "benchmark"
ROUTING_KEY = "benchmark"
QUEUE = "benchmark"
APP_ID = "benchmark/1.0.0"

#: What ratios are taken against.
BASELINE = "pika"

#: The same without properties on the message, which the others can't be asked to do without.
BARE = "pika-bare"

#: This project's own client, by its peer name.
OURS = "sprockets_amqp"

#: The C library, in a program of its own that ``benchmarks/librabbitmq.py`` compiles.
LIBRABBITMQ = "librabbitmq"

#: Peer name → the import name of its library, and the module here that drives it.
_MODULES = {
    OURS: ("sprockets_amqp", "sprockets_client"),
    BASELINE: ("pika", "pika_by_hand"),
    BARE: ("pika", "pika_bare"),
    "aiormq": ("aiormq", "aiormq_client"),
    "aio-pika": ("aio_pika", "aio_pika_client"),
}

PEERS = (OURS, BASELINE, BARE, LIBRABBITMQ, "aiormq", "aio-pika")


def exchange_names(number: int) -> list[str]:
    """Name so many exchanges."""
    return [f"{EXCHANGE}.{each}" for each in range(number)]


class Publisher(Protocol):
    """A connection to RabbitMQ with one channel in confirm mode."""

    async def open(self, url: str, window: int) -> None:
        """Connect, and get ready to have up to ``window`` messages unconfirmed."""

    def publish(self, body: bytes, properties: Properties | None) -> Awaitable[object]:
        """Publish ``body`` with ``properties``; what is returned ends when the broker has confirmed it."""

    async def close(self) -> None:
        """Close the connection."""


def missing_library(peer: str) -> str | None:
    """Name the library that ``peer`` needs and that can't be imported."""
    library, _ = _MODULES[peer]
    return None if importlib.util.find_spec(library) else library


def make_publisher(peer: str) -> Publisher:
    """Import ``peer``'s module and return its publisher, not yet connected."""
    _, name = _MODULES[peer]
    publisher: Publisher = importlib.import_module(f"benchmarks.peers.{name}").make()
    return publisher
