"""This project's client with everything on that is on by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sprockets_amqp as amqp
from benchmarks.peers import APP_ID, EXCHANGE, ROUTING_KEY

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from benchmarks.messages import Properties

#: The client's own default; a larger window needs a larger limit, or its messages would wait in line.
_MAX_UNCONFIRMED = 1000


class SprocketsAmqp:
    """One client; it adds a timestamp and an app id to what is given, and an id where none is."""

    _client: amqp.Client

    async def open(self, url: str, window: int) -> None:
        """Connect and wait until the client is ready."""
        self._client = amqp.Client(url, default_app_id=APP_ID, max_unconfirmed=max(window, _MAX_UNCONFIRMED))
        await self._client.wait_for(amqp.State.READY, timeout=10)

    def publish(self, body: bytes, properties: Properties | None) -> Awaitable[object]:
        """Publish with the client's defaults: mandatory, confirmed, within its limits and deadlines."""
        return self._client.publish(EXCHANGE, ROUTING_KEY, body, properties)

    async def close(self) -> None:
        """Drain and close."""
        await self._client.shutdown()


def make() -> SprocketsAmqp:
    """Return the publisher."""
    return SprocketsAmqp()
