"""An incident, and its recording: for some seconds RabbitMQ cannot be reached, and requests are refused.

Run it with the folder for the recording, and replay that: AMQP_URL says where RabbitMQ is.

    python -m examples.incident /tmp/trace
    sprockets-amqp replay /tmp/trace
"""

import asyncio
import os
import sys
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

from sprockets_amqp import AMQPException, Client

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2f")


class Cable:
    """A connection from a port of this machine to RabbitMQ, which can be unplugged."""

    def __init__(self, host: str, port: int) -> None:
        self._there = host, port
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._joins: set[asyncio.Task[None]] = set()
        self.port = 0

    async def plug_in(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._join, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def unplug(self) -> None:
        """Cut those that there are, and take no more."""
        assert self._server is not None
        self._server.close()
        for end in self._ends:
            end.transport.abort()
        await asyncio.gather(*self._joins)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._joins.add(task)
        task.add_done_callback(self._joins.discard)
        far_reader, far_writer = await asyncio.open_connection(*self._there)
        ends = {writer, far_writer}
        self._ends |= ends
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        self._ends -= ends


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while octets := await reader.read(65536):
            writer.write(octets)
    writer.close()


async def publish(client: Client, seconds: float) -> None:
    """Publish twenty messages a second, as requests would."""
    requests = set()
    for _ in range(int(seconds * 20)):
        requests.add(asyncio.ensure_future(request(client)))
        await asyncio.sleep(0.05)
    await asyncio.wait(requests)


async def request(client: Client) -> None:
    """Publish, and leave it at that if it fails."""
    # There is no such queue, so that nothing is left behind: RabbitMQ confirms the message all the same.
    with suppress(AMQPException):
        await client.publish("", "incident", b"an event")


async def main(folder: str) -> None:
    """Publish for ten seconds, of which RabbitMQ cannot be reached for four."""
    url = urlsplit(URL)
    cable = Cable(url.hostname or "localhost", url.port or 5672)
    await cable.plug_in()
    user = url.netloc.rpartition("@")[0]
    through_cable = urlunsplit(url._replace(netloc=f"{user}@127.0.0.1:{cable.port}"))
    async with Client(
        through_cable,
        recorder=folder,
        timeout=2,
        reconnect_delay=0.5,
        max_reconnect_delay=2,
        on_return_callback=lambda *_: None,
    ) as client:
        publishing = asyncio.create_task(publish(client, 10))
        await asyncio.sleep(3)
        await cable.unplug()
        await asyncio.sleep(4)
        await cable.plug_in()
        await publishing
        counters = client.counters
    await cable.unplug()
    print(f"{counters.confirmed} confirmed, {counters.failed} failed, {counters.not_ready} of them never sent")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
