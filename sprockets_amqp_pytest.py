"""The pytest fixture `amqp_broker`, which pytest finds by itself if `sprockets_amqp` is installed.

Every run of pytest loads this module, before it knows which tests it will run. It is outside of the package, so that
only tests that use the fixture load the client, pika and Tornado, and not before coverage is measured.
"""

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sprockets_amqp.testing import Broker


@pytest.fixture
def amqp_broker(request: pytest.FixtureRequest) -> Iterator["Broker"]:
    """A broker in memory, in place of every RabbitMQ, for one test.

    A test that is not a coroutine also gets the broker's own loop: `Broker.fetch` and `Broker.run` use it, and time
    moves instead of anything having to wait.
    """
    from sprockets_amqp.testing import Broker  # noqa: PLC0415 - not in every run of pytest

    broker = Broker().install()
    try:
        if not inspect.iscoroutinefunction(getattr(request, "function", None)):
            broker.own_loop()
        yield broker
    finally:
        broker.close()
