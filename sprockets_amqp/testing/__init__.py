"""A broker in memory for testing code that publishes: no server, no socket, milliseconds.

With pytest, ask for the fixture ``amqp_broker``; with `tornado.testing.AsyncHTTPTestCase`, use `AMQPTestCase`. The code
under test is the same as in production: `install()`, handlers, the client, pika and the frames between them are real.

>>> def test_an_event_is_published(amqp_broker):
...     amqp_broker.queue_declare("audit")
...     amqp_broker.queue_bind("audit", "amq.topic", "event.#")
...     assert amqp_broker.fetch(make_application(), "/events", method="POST", body="{}").code == 202
...     (message,) = amqp_broker.messages("audit")
...     assert message.confirmed
"""

from .broker import Broker
from .case import AMQPTestCase
from .database import Database, Transaction
from .declarations import VirtualHost
from .paths import Path, paths
from .rules import Published

__all__ = ["AMQPTestCase", "Broker", "Database", "Path", "Published", "Transaction", "VirtualHost", "paths"]
