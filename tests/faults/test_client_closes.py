"""Closing in every state, twice, and during the delay before reconnecting."""

import asyncio

import pytest

import sprockets_amqp as amqp
from sprockets_amqp import Client, State
from tests.support.leaks import no_leaks
from tests.support.scripted import ScriptedBroker
from tools.rabbitmq import Node

NOBODY = "amqp://guest:guest@127.0.0.1:1/%2f"


@pytest.mark.fault(41)
async def test_closing_in_every_state(broker: Node) -> None:
    """The client is closed for good, with no timer left; a second close is refused, a second shutdown does nothing."""
    async with no_leaks():
        ready = Client(broker.url)
        connecting = Client(broker.url)
        delayed = Client(NOBODY, connection_attempts=1, reconnect_delay=60)
        await ready.wait_for(State.READY, 30)
        await delayed.wait_for(State.CLOSED, 30)
        assert delayed.recovers
        pending = [client.publish("amq.topic", "key", b"") for client in (ready, delayed)]
        with pytest.raises(amqp.ConnectionStateError):
            delayed.close()
        ready.close()
        with pytest.raises(amqp.ConnectionStateError):
            ready.close()
        clients = (ready, connecting, delayed)
        await asyncio.gather(*(client.shutdown(5) for client in clients), *(client.shutdown(5) for client in clients))
        assert all(client.closed and not client.recovers for client in clients)
        assert all(future.done() for future in pending)


@pytest.mark.fault(41)
async def test_closing_a_broker_that_does_not_answer() -> None:
    """A broker that never answers connection.close is dropped at the limit."""
    async with no_leaks(), ScriptedBroker() as broker:
        broker.answers["Channel.Close"] = None
        client = Client(broker.url())
        await client.wait_for(State.READY, 10)
        await asyncio.wait_for(client.shutdown(0.3), 5)
        assert client.closed and not client.recovers
