"""An intake that stops reading while messages cannot be sent, so that the pressure reaches the source of the events.

Devices send lines over TCP, and each line is published. While RabbitMQ has a memory alarm, or is away, the sockets are
not read: TCP makes the devices wait, and nothing piles up here. Run it with
``AMQP_URL=amqp://user:password@host:5672/%2f python -m examples.pause_intake``, then ``nc 127.0.0.1 9000``.
"""

import asyncio
import contextlib
import logging
from typing import cast

from sprockets_amqp import Client, State, StateChange

LOGGER = logging.getLogger(__name__)


class Intake:
    """The devices' connections, which are read only while the client is ready."""

    def __init__(self, client: Client, exchange: str = "amq.topic", routing_key: str = "reading") -> None:
        self.client = client
        self.paused = not client.ready
        self.transports: set[asyncio.Transport] = set()
        self._exchange = exchange
        self._routing_key = routing_key
        client.subscribe(self._on_change)

    async def listen(self, host: str = "127.0.0.1", port: int = 9000) -> asyncio.Server:
        """Accept connections from devices."""
        return await asyncio.get_running_loop().create_server(lambda: Device(self), host, port)

    def take(self, line: bytes) -> None:
        """Publish a line; lines read just before a pause wait in the client."""
        self.client.publish(self._exchange, self._routing_key, line).add_done_callback(_log_failure)

    def _on_change(self, change: StateChange) -> None:
        paused = change.dest is not State.READY
        if paused == self.paused:
            return
        self.paused = paused
        for transport in self.transports:
            if paused:
                transport.pause_reading()
            else:
                transport.resume_reading()


class Device(asyncio.Protocol):
    """One connection; each line is an event."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read from it, unless the intake is paused."""
        # A stream's transport can be read from; uvloop's derives from no class of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._intake.transports.add(self._transport)
        if self._intake.paused:
            self._transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Pass on complete lines."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._intake.take(line)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio calls it with the error
        """Forget it."""
        self._intake.transports.discard(self._transport)


def _log_failure(future: "asyncio.Future[None]") -> None:
    if not future.cancelled() and future.exception() is not None:
        LOGGER.warning("a reading was lost: %s", future.exception())


async def main() -> None:
    """Take readings until Ctrl-C."""
    client = Client.from_environment()
    client.subscribe(print)
    server = await Intake(client).listen()
    try:
        await asyncio.Event().wait()
    finally:
        server.close()
        await client.shutdown()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
