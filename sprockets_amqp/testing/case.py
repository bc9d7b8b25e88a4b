"""A mixin for `tornado.testing.AsyncHTTPTestCase`."""

import dataclasses
import os
from typing import TYPE_CHECKING, Any, ClassVar, Final
from unittest import mock

from sprockets_amqp.client import Client
from sprockets_amqp.settings import PREFIXES, Settings

from .broker import Broker
from .place import SHUTDOWN_LIMIT

if TYPE_CHECKING:
    from tornado.testing import AsyncHTTPTestCase

    _Base = AsyncHTTPTestCase
else:
    _Base = object


#: With several attempts in a round, pika waits two seconds between them.
SOON: Final = {"reconnect_delay": 0.01, "max_reconnect_delay": 0.1, "connection_attempts": 1}


class AMQPTestCase(_Base):
    """Gives each test a broker in memory, in place of every RabbitMQ; name it before Tornado's class.

    >>> from tornado.testing import AsyncHTTPTestCase
    >>> class EventsTest(AMQPTestCase, AsyncHTTPTestCase):
    ...     amqp_settings = {"timeout": 0.1}

    Attributes:
        amqp_settings: settings that each test's environment has, for `install()`; arguments take precedence. The loop
            is Tornado's, and its time is real: limits that a test runs into should be short.
        amqp_broker: the broker.
    """

    amqp_settings: ClassVar[dict[str, Any]] = {}
    amqp_broker: Broker

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        bases = [base.__name__ for base in cls.__mro__]
        for other in {"AsyncTestCase", "AsyncHTTPTestCase"}.intersection(bases):
            if bases.index(other) < bases.index(AMQPTestCase.__name__):
                raise TypeError(f"{cls.__name__} must name AMQPTestCase before {bases[1]}: its setUp must run first")

    def setUp(self) -> None:
        """Install the broker before the application is made. Raises ValueError for an unknown setting."""
        variables = _variables({**SOON, **self.amqp_settings})
        environment = mock.patch.dict(os.environ, variables)
        environment.start()
        self.addCleanup(environment.stop)
        self.amqp_broker = Broker().install()
        self.addCleanup(self.amqp_broker.close)
        super().setUp()

    def tearDown(self) -> None:
        """Shut the clients down, on the test's loop."""
        for client in Client.bound(self.io_loop.asyncio_loop):  # type: ignore[attr-defined]
            self.io_loop.run_sync(lambda client=client: client.shutdown(SHUTDOWN_LIMIT))
        super().tearDown()


def _variables(settings: dict[str, Any]) -> dict[str, str]:
    names = {field.name: PREFIXES[0] + field.metadata["variable"] for field in dataclasses.fields(Settings)}
    for name in settings.keys() - names.keys():
        raise ValueError(f"amqp_settings has no {name!r}; the settings are {', '.join(names)}")
    return {names[name]: str(value) for name, value in settings.items() if value is not None}
