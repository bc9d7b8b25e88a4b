"""The pytest fixture `amqp_broker`, which pytest finds by itself where `sprockets_amqp` is installed.

Every run of pytest there loads this module, before it knows what it is going to run. It stands outside of the package,
so that only tests that ask for the fixture load the client, pika and Tornado, and not before coverage is measured.
"""

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sprockets_amqp.testing import Broker


@pytest.fixture
def amqp_broker(request: pytest.FixtureRequest) -> Iterator["Broker"]:
    """A broker in memory, in the place of every RabbitMQ, for one test.

    A test that is no coroutine gets a loop of the broker's with it: `Broker.fetch` and `Broker.run` use that, and where
    anything waits, time moves instead.
    """
    from sprockets_amqp.testing import Broker  # noqa: PLC0415 - not in every run of pytest

    broker = Broker().install()
    try:
        if not inspect.iscoroutinefunction(getattr(request, "function", None)):
            broker.own_loop()
        yield broker
    finally:
        broker.close()
