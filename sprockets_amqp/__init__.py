"""The way a Tornado application publishes to RabbitMQ.

>>> import sprockets_amqp as amqp

`install(application)` opens one persistent connection and channel; handlers that mix in `PublishingMixin` write
``await self.amqp_publish(exchange, routing_key, body, properties)`` and know when that returns that RabbitMQ has the
message.
"""

from importlib.metadata import version

from . import web
from ._install import install
from .client import Client
from .errors import (
    AMQPException,
    ConnectionStateError,
    ExchangeRefused,
    InvalidMessage,
    MessageNacked,
    MessageReturned,
    NotReadyError,
    OutcomeUnknown,
    PublishingFailure,
)
from .hooks import Changes, StateChange, Subscription
from .mixin import PublishingMixin
from .publisher import Counters
from .settings import DEFAULT_CONNECTION_ATTEMPTS, DEFAULT_RECONNECT_DELAY, Settings
from .states import State

__version__ = version("sprockets_amqp")

__all__ = [
    "DEFAULT_CONNECTION_ATTEMPTS",
    "DEFAULT_RECONNECT_DELAY",
    "AMQPException",
    "Changes",
    "Client",
    "ConnectionStateError",
    "Counters",
    "ExchangeRefused",
    "InvalidMessage",
    "MessageNacked",
    "MessageReturned",
    "NotReadyError",
    "OutcomeUnknown",
    "PublishingFailure",
    "PublishingMixin",
    "Settings",
    "State",
    "StateChange",
    "Subscription",
    "__version__",
    "install",
    "web",
]
