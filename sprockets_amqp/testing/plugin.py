"""The pytest fixture `amqp_broker`, which pytest finds by itself where this package is installed."""

import inspect
from collections.abc import Iterator

import pytest

from .broker import Broker


@pytest.fixture
def amqp_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker in memory, in the place of every RabbitMQ, for one test.

    A test that is no coroutine gets a loop of the broker's with it: `Broker.fetch` and `Broker.run` use that, and where
    anything waits, time moves instead.
    """
    broker = Broker().install()
    try:
        if not inspect.iscoroutinefunction(getattr(request, "function", None)):
            broker.own_loop()
        yield broker
    finally:
        broker.close()
