"""aiormq, as its documentation uses it."""

# Only `make bench` installs what is imported here.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import aiormq
from aiormq import spec

from benchmarks.peers import APP_ID, EXCHANGE, ROUTING_KEY

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from aiormq.abc import AbstractChannel, AbstractConnection

    from benchmarks.messages import Properties


class Aiormq:
    """One connection and one channel; aiormq selects confirms when it opens a channel."""

    _connection: AbstractConnection
    _channel: AbstractChannel

    async def open(self, url: str, window: int) -> None:  # noqa: ARG002 - nothing limits it
        """Connect and open the channel."""
        self._connection = await aiormq.connect(url)
        self._channel = await self._connection.channel(publisher_confirms=True)

    def publish(self, body: bytes, properties: Properties | None) -> Awaitable[object]:
        """Publish with aiormq's default of waiting until the frames are written."""
        if properties is None:
            properties = {"message_id": str(uuid.uuid4()), "timestamp": datetime.now(UTC), "app_id": APP_ID}
        confirmed: Awaitable[object] = self._channel.basic_publish(
            body,
            exchange=EXCHANGE,
            routing_key=ROUTING_KEY,
            properties=spec.Basic.Properties(**properties),
            mandatory=True,
        )
        return confirmed

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()


def make() -> Aiormq:
    """Return the publisher."""
    return Aiormq()
