"""The broker in memory, which a test holds by the hand."""

import asyncio
from collections.abc import Iterator

import pytest

from tools.memory import Broker

__all__ = ["Broker", "in_memory", "outcome"]


@pytest.fixture
def in_memory() -> Iterator[Broker]:
    """A broker in memory; at the end every client is shut down, and nothing escaped or is left."""
    broker = Broker().install()
    try:
        yield broker
        broker.shut_down()
        assert broker.clock.escaped == [], str(broker.clock.escaped)
    finally:
        broker.close()


def outcome(future: asyncio.Future[None]) -> object:
    """Return None for a success, else the exception's class; fails when the future did not end."""
    assert future.done()
    error = future.exception()
    return type(error) if error else None
