"""The application in every way that its connection can go: `python -m pytest examples/test_every_way.py`."""

import pytest
from tornado.web import Application, RequestHandler

from examples.application import Events
from sprockets_amqp import install
from sprockets_amqp.testing import Broker, Path, paths


class Forgetful(Events):
    """A handler with a bug: it answers before RabbitMQ has the event."""

    async def post(self) -> None:
        """Publish the request's body, and do not wait."""
        self.amqp_publish("amq.topic", "event.posted", self.request.body)
        self.set_status(202)


def lost_events(broker: Broker, path: Path, handler: type[RequestHandler]) -> set[bytes]:
    """Post an event whenever something has happened; return those that were accepted and never arrived."""
    broker.queue_declare("audit")
    broker.queue_bind("audit", "amq.topic", "event.#")
    application = Application([("/events", handler)], exchange="amq.topic")
    install(application)
    accepted = set()
    for number, _ in enumerate(path.follow(broker)):
        body = b'{"number": %d}' % number
        if broker.fetch(application, "/events", method="POST", body=body).code == 202:
            accepted.add(body)
    return accepted - {message.body for message in broker.messages("audit")}


@pytest.mark.parametrize("path", paths(), ids=str)
def test_no_accepted_event_is_lost(amqp_broker: Broker, path: Path) -> None:
    """Whatever happens to the connection."""
    assert lost_events(amqp_broker, path, Events) == set()


def test_a_handler_that_does_not_wait_is_caught() -> None:
    """All is well while the connection is; in some of the ways that it can go, events are lost."""
    for path in paths():
        with Broker().own_loop() as broker:
            if lost_events(broker, path, Forgetful):
                return
    pytest.fail("no event was lost")
