"""Tests of the application with Tornado's own test case: `python -m unittest examples.test_application_unittest`."""

from tornado.testing import AsyncHTTPTestCase
from tornado.web import Application

from examples.application import EventsApplication
from sprockets_amqp.testing import AMQPTestCase


class EventsTest(AMQPTestCase, AsyncHTTPTestCase):
    """The application, publishing to a broker in memory."""

    #: Real time passes here: no test should wait longer than this.
    amqp_settings = {"timeout": 0.2, "confirm_timeout": 0.2}

    def get_app(self) -> Application:
        """Make the application as it is in production."""
        return EventsApplication()

    def test_an_event_is_published(self) -> None:
        """The posted event arrives and is confirmed."""
        self.amqp_broker.queue_declare("audit")
        self.amqp_broker.queue_bind("audit", "amq.topic", "event.*")
        self.assertEqual(self.fetch("/events", method="POST", body="{}").code, 202)
        (message,) = self.amqp_broker.messages("audit")
        self.assertEqual((message.body, message.confirmed), (b"{}", True))

    def test_an_outage_is_answered_with_503(self) -> None:
        """The event is not published."""
        self.amqp_broker.stop()
        self.assertEqual(self.fetch("/events", method="POST", body="{}").code, 503)
        self.assertEqual(self.amqp_broker.published, [])

    def test_a_confirmation_that_does_not_come_is_answered_with_502(self) -> None:
        """RabbitMQ may have the event; its id lets consumers recognise a duplicate."""
        self.amqp_broker.swallow_confirms()
        self.assertEqual(self.fetch("/events", method="POST", body="{}").code, 502)
