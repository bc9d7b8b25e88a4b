"""Publish from a Tornado application to RabbitMQ.

>>> import sprockets_amqp as amqp

`install(application)` opens one persistent connection and channel. Handlers that mix in `PublishingMixin` call
``await self.amqp_publish(exchange, routing_key, body, properties)``: when it returns, RabbitMQ has the message.
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

try:
    from .states import State
except ModuleNotFoundError as error:
    if error.name == f"{__name__}.states":
        raise ImportError(
            "sprockets_amqp/states is missing. In a checkout it is a symbolic link to states/: if Git made it a file "
            "instead, run: git config core.symlinks true && git checkout -- sprockets_amqp/states"
        ) from None
    raise

from .access import Access
from .client import Client
from .connection.topology import Topology
from .delivery.counters import Counters
from .delivery.message import Properties
from .delivery.publish import STORED
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
from .handlers.install import client_of, install
from .handlers.mixin import PublishingMixin
from .hooks import Changes, StateChange, Subscription
from .many import MessageOutcome, Outcomes
from .observers import Delivery, Observation, Observer, Outcome, Publish, PublishEnd
from .outbox.insert import OutboxInsert, outbox_insert
from .settings import DEFAULT_CONNECTION_ATTEMPTS, DEFAULT_RECONNECT_DELAY, Settings

if TYPE_CHECKING:
    from . import web
else:

    def __getattr__(name: str) -> Any:
        """Load the page and the probes when they are first asked for."""
        if name == "web":
            return importlib.import_module(".web", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = version("sprockets_amqp")

__all__ = [
    "DEFAULT_CONNECTION_ATTEMPTS",
    "DEFAULT_RECONNECT_DELAY",
    "STORED",
    "AMQPException",
    "Access",
    "Changes",
    "Client",
    "ConnectionStateError",
    "Counters",
    "Delivery",
    "ExchangeRefused",
    "InvalidMessage",
    "MessageNacked",
    "MessageOutcome",
    "MessageReturned",
    "NotReadyError",
    "Observation",
    "Observer",
    "OutboxInsert",
    "Outcome",
    "OutcomeUnknown",
    "Outcomes",
    "Properties",
    "Publish",
    "PublishEnd",
    "PublishingFailure",
    "PublishingMixin",
    "Settings",
    "State",
    "StateChange",
    "Subscription",
    "Topology",
    "__version__",
    "client_of",
    "install",
    "outbox_insert",
    "web",
]
