"""What is published while the line is slow or stands still: memory stays bounded, and everything arrives."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from pamqp import commands

from sprockets_amqp import Client, NotReadyError, State
from sprockets_amqp.wire.sending import BACK_PRESSURE_MARK
from tests.support.certificates import Authority
from tests.support.scripted import Peer, ScriptedBroker

BODY: Final = 64 * 1024
COUNT: Final = 400
#: Of AMQP's frames and, with TLS, of its records.
AROUND: Final = 1.02


@pytest.fixture(params=["plain", "TLS"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[ScriptedBroker, Any]]:
    """A broker that reads when it is told to, and the settings of a client for it."""
    authority = Authority(tmp_path)
    secure = request.param == "TLS"
    context = authority.server_context("127.0.0.1") if secure else None
    async with ScriptedBroker(context=context) as scripted:
        yield scripted, {"tls_context": authority.context()} if secure else {}


async def acknowledge(peer: Peer) -> None:
    """Confirm each message when it has arrived."""
    confirmed = 0
    while True:
        for message in peer.published[confirmed:]:
            peer.send(commands.Basic.Ack(message.tag))
            confirmed += 1
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("confirms", [True, False], ids=["confirms", "no confirms"])
async def test_memory_behind_a_line_that_stands_still_is_bounded(
    broker: tuple[ScriptedBroker, Any], confirms: bool
) -> None:
    """By max_unconfirmed_size, or by what counts as back pressure: the rest waits in line, and goes out in order."""
    scripted, settings = broker
    client = Client(scripted.url(), enable_confirmations=confirms, max_unconfirmed_size=2**20, timeout=60, **settings)
    await client.wait_for(State.READY, 20)
    peer = await scripted.peer()
    acknowledging = asyncio.create_task(acknowledge(peer))
    connection = client.connection
    assert connection is not None
    peer.pause()
    bodies = [os.urandom(8) * (BODY // 8) for _ in range(COUNT)]
    most = 0
    futures = []
    for body in bodies:
        futures.append(client.publish("", "q", body))
        most = max(most, connection.unsent)
        await asyncio.sleep(0)
        most = max(most, connection.unsent)
    limit = 2**20 if confirms else BACK_PRESSURE_MARK
    assert most <= (limit + BODY) * AROUND
    assert client.waiting > COUNT // 4
    assert confirms or most > BACK_PRESSURE_MARK
    peer.resume()
    await asyncio.gather(*futures)
    await client.shutdown(20)
    assert [message.body for message in peer.published] == bodies
    acknowledging.cancel()


async def test_a_line_that_stands_still_ends_with_what_waited_for_it(broker: tuple[ScriptedBroker, Any]) -> None:
    """It is cut: what was waiting waits for the next connection, and goes out there."""
    scripted, settings = broker
    client = Client(scripted.url(), enable_confirmations=False, reconnect_delay=0.05, timeout=60, **settings)
    await client.wait_for(State.READY, 20)
    peer = await scripted.peer()
    peer.pause()
    futures = [client.publish("", "q", bytes(BODY)) for _ in range(COUNT)]
    await asyncio.sleep(0.05)
    assert client.waiting > COUNT // 4
    waiting = client.waiting
    peer.abort()
    later = await scripted.peer()
    await asyncio.gather(*futures)
    await client.shutdown(20)
    assert len(later.published) == waiting


async def test_closing_without_confirms_waits_until_the_socket_has_taken_everything(
    broker: tuple[ScriptedBroker, Any],
) -> None:
    """As long as it may; what the socket has taken arrives."""
    scripted, settings = broker
    client = Client(scripted.url(), enable_confirmations=False, **settings)
    await client.wait_for(State.READY, 20)
    peer = await scripted.peer()
    peer.pause()
    futures = [client.publish("", "q", bytes(BODY)) for _ in range(COUNT)]
    closing = asyncio.create_task(client.shutdown(20))
    await asyncio.sleep(0.1)
    assert (client.closing, closing.done()) == (True, False)
    peer.resume()
    await closing
    ended = await asyncio.gather(*futures, return_exceptions=True)
    refused = sum(isinstance(each, NotReadyError) for each in ended)
    assert len(peer.published) == COUNT - refused
    assert refused == 0
