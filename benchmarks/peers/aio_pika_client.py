"""aio-pika with its robust connection, as its documentation uses it."""

# Only `make bench` installs what is imported here.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import aio_pika

from benchmarks.peers import APP_ID, EXCHANGE, ROUTING_KEY

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from aio_pika.abc import AbstractExchange, AbstractRobustConnection

    from benchmarks.messages import Properties


class AioPika:
    """One robust connection and one channel in confirm mode; mandatory is aio-pika's default."""

    _connection: AbstractRobustConnection
    _exchange: AbstractExchange

    async def open(self, url: str, window: int) -> None:  # noqa: ARG002 - nothing limits it
        """Connect, open the channel and look the exchange up."""
        self._connection = await aio_pika.connect_robust(url)
        channel = await self._connection.channel(publisher_confirms=True)
        self._exchange = await channel.get_exchange(EXCHANGE)

    def publish(self, body: bytes, properties: Properties | None) -> Awaitable[object]:
        """Publish to the exchange that was looked up."""
        if properties is None:
            properties = {"message_id": str(uuid.uuid4()), "timestamp": datetime.now(UTC), "app_id": APP_ID}
        message = aio_pika.Message(body, **properties)
        confirmed: Awaitable[object] = self._exchange.publish(message, ROUTING_KEY)
        return confirmed

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()


def make() -> AioPika:
    """Return the publisher."""
    return AioPika()
