"""Tests of the application with pytest: `python -m pytest examples/test_application.py`. No RabbitMQ is needed."""

import pytest

from examples.application import EventsApplication
from sprockets_amqp.testing import Broker


@pytest.fixture
def application(amqp_broker: Broker) -> EventsApplication:
    """The application; it publishes to the broker in memory as if that were RabbitMQ."""
    amqp_broker.queue_declare("audit")
    amqp_broker.queue_bind("audit", "amq.topic", "event.#")
    return EventsApplication()


def test_an_event_is_published(amqp_broker: Broker, application: EventsApplication) -> None:
    """The posted event arrives in the queue, persistent and as JSON."""
    answer = amqp_broker.fetch(application, "/events", method="POST", body='{"name": "first"}')
    assert answer.code == 202
    (message,) = amqp_broker.messages("audit")
    assert (message.exchange, message.routing_key, message.body) == ("amq.topic", "event.posted", b'{"name": "first"}')
    assert (message.properties.content_type, message.properties.delivery_mode) == ("application/json", 2)
    assert message.confirmed


def test_an_outage_is_answered_with_503(amqp_broker: Broker, application: EventsApplication) -> None:
    """The request waits ten seconds for RabbitMQ; the test does not."""
    amqp_broker.stop()
    assert amqp_broker.fetch(application, "/events", method="POST", body="{}").code == 503
    amqp_broker.start()
    amqp_broker.advance(60)
    assert amqp_broker.fetch(application, "/events", method="POST", body="{}").code == 202


def test_a_full_queue_is_answered_with_502(amqp_broker: Broker, application: EventsApplication) -> None:
    """RabbitMQ nacks a message that a full queue refuses."""
    amqp_broker.fill("audit")
    assert amqp_broker.fetch(application, "/events", method="POST", body="{}").code == 502


def test_an_exchange_that_is_missing_is_answered_with_502(amqp_broker: Broker) -> None:
    """The log names the exchange."""
    application = EventsApplication(exchange="nowhere")
    assert amqp_broker.fetch(application, "/events", method="POST", body="{}").code == 502
    assert amqp_broker.published == []
