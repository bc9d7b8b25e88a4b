"""Several clients in one application, each with a name."""

import json
import logging
from typing import Any

import pytest
from tornado.web import Application, RequestHandler

import sprockets_amqp as amqp
from sprockets_amqp.testing import Broker
from tests.support.command import run
from tests.support.consume import Queue, declare_queue
from tests.support.http import fetch, served
from tools.rabbitmq import Node


class Handler(amqp.PublishingMixin, RequestHandler):
    """Publishes on the default client."""

    async def post(self) -> None:
        """Publish the body, and tell nothing."""
        await self.amqp_publish("amq.topic", "key", self.request.body, mandatory=False)


class Audited(Handler):
    """Publishes on another one."""

    amqp_name = "audit"


def make_application(**settings: Any) -> Any:
    """Make an application with two clients."""
    application = Application([("/", Handler), ("/audited", Audited), *amqp.web.routes()])
    amqp.install(application, **settings)
    amqp.install(application, name="audit", **settings)
    return application


async def test_each_publishes_to_its_own_broker(broker: Node, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names them, and the handler says which it is."""
    queues: list[Queue] = [await declare_queue(broker.url), await declare_queue(node.url)]
    monkeypatch.setenv("AMQP_URL", broker.url)
    monkeypatch.setenv("AUDIT_URL", node.url)

    class Publishes(amqp.PublishingMixin, RequestHandler):
        async def post(self) -> None:
            queue = queues[self.amqp_name == "audit"]
            await self.amqp_publish(queue.exchange, queue.routing_key, b"", {"message_id": self.amqp_name})

    class Audits(Publishes):
        amqp_name = "audit"

    application: Any = Application([("/", Publishes), ("/audited", Audits)])
    assert amqp.install(application) and amqp.install(application, name="audit")
    async with served(application) as base:
        for path in ("/", "/audited"):
            assert (await fetch(f"{base}{path}", "POST", "")).code == 200
    assert [await queue.message_ids() for queue in queues] == [["amqp"], ["audit"]]
    for name, client in application.amqp_clients.items():
        assert (name, client.counters.confirmed) in {("amqp", 1), ("audit", 1)}
        await client.shutdown()
    for queue in queues:
        await queue.delete()


def test_the_default_one_is_what_it_was(amqp_broker: Broker) -> None:
    """`application.amqp`, and among all of them."""
    application = make_application()
    assert application.amqp is application.amqp_clients["amqp"]
    assert sorted(application.amqp_clients) == ["amqp", "audit"]


def test_one_of_each_name_is_installed(amqp_broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """A second one is refused with a warning that names it."""
    application = make_application()
    before = dict(application.amqp_clients)
    with caplog.at_level(logging.WARNING):
        assert not amqp.install(application, name="audit")
    assert application.amqp_clients == before
    assert caplog.messages[-1].startswith("audit: AMQP is already installed: <Client ")


def test_each_has_probes_and_a_page(amqp_broker: Broker) -> None:
    """Behind its name; the default client's are where they were."""
    application = make_application()
    amqp_broker.run(application.amqp.wait_for(amqp.State.READY))
    amqp_broker.run(application.amqp_clients["audit"].shutdown())

    def get(path: str) -> tuple[int, Any]:
        answer = amqp_broker.fetch(application, path)
        return answer.code, answer.body

    assert [get(path)[0] for path in ("/amqp/ready", "/amqp/live", "/amqp/")] == [200, 200, 200]
    assert [get(f"/amqp/audit{path}")[0] for path in ("/ready", "/live", "/")] == [503, 503, 200]
    assert b"Closed" in get("/amqp/audit/")[1] and b"Ready" in get("/amqp/")[1]
    assert [get(f"/amqp/audit/{path}")[0] for path in ("page.css", "page.js", "lifecycle.css", "icon.svg")] == [200] * 4
    assert get("/amqp/audit")[0] == 200


@pytest.mark.parametrize("path", ["/amqp/nobody/ready", "/amqp/nobody/live", "/amqp/nobody/", "/amqp/nobody/events"])
def test_a_client_that_there_is_not_is_told(amqp_broker: Broker, path: str) -> None:
    """With what to call."""
    answer = amqp_broker.fetch(make_application(), path)
    assert answer.code == 503
    sentence = (
        "the application has no AMQP client 'nobody': call sprockets_amqp.install(application, name='nobody') first"
    )
    assert json.loads(answer.body) == {"ready": False, "live": False, "reason": sentence}


@pytest.mark.parametrize("path", ["/amqp/No-Body/ready", "/amqp/ready/ready", "/amqp/audit/ready/live", "/amqp/a/b/"])
def test_what_is_no_name_is_not_found(amqp_broker: Broker, path: str) -> None:
    """As any other path."""
    assert amqp_broker.fetch(make_application(), path).code == 404


def test_a_handler_without_its_client_says_what_to_call(amqp_broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """By the name that the handler asks for."""
    application = Application([("/audited", Audited)])
    amqp.install(application)
    assert amqp_broker.fetch(application, "/audited", method="POST", body="").code == 500
    assert "call sprockets_amqp.install(application, name='audit') first" in caplog.text


def test_an_outage_of_one_is_not_the_others(amqp_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has limits and a Retry-After of its own."""
    monkeypatch.setenv("AUDIT_RECONNECT_DELAY", "17")
    monkeypatch.setenv("AUDIT_TIMEOUT", "0.5")
    application = make_application()
    amqp_broker.run(application.amqp.wait_for(amqp.State.READY))
    amqp_broker.run(application.amqp_clients["audit"].shutdown())
    answer = amqp_broker.fetch(application, "/audited", method="POST", body="")
    assert (answer.code, answer.headers["Retry-After"]) == (503, "17")
    assert amqp_broker.fetch(application, "/", method="POST", body="").code == 200


@pytest.mark.parametrize("name", ["", "Audit", "1st", "a-b", "a/b", "ready", "live", "events", 5, None])
def test_a_name_is_part_of_paths_and_variables(amqp_broker: Broker, name: Any) -> None:
    """What cannot be is refused before anything is made."""
    application = Application()
    with pytest.raises(ValueError, match="name must be lower-case letters, digits and _, such as 'audit'"):
        amqp.install(application, name=name)
    assert not hasattr(application, "amqp_clients") and not hasattr(application, "amqp")


def test_the_variables_of_the_default_client_are_its_own(amqp_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """AMQP_TIMEOUT and RABBITMQ_TIMEOUT say nothing to another one."""
    monkeypatch.setenv("AMQP_TIMEOUT", "3")
    monkeypatch.setenv("AUDIT_CONFIRM_TIMEOUT", "4")
    application = make_application()
    audit = application.amqp_clients["audit"].settings
    assert (application.amqp.settings.timeout, application.amqp.settings.confirm_timeout) == (3, 30)
    assert (audit.timeout, audit.confirm_timeout) == (10, 4)
    monkeypatch.setenv("AUDIT_TIMEOUT", "long")
    with pytest.raises(ValueError, match="environment variable AUDIT_TIMEOUT"):
        amqp.install(Application(), name="audit")


async def test_the_command_line_looks_at_one_by_its_name(broker: Node) -> None:
    """With its variables."""
    result = await run("check", "--name", "audit", AUDIT_URL=broker.url, AMQP_URL="amqp://127.0.0.1:1")
    assert (result.status, result.out.splitlines()[0]) == (0, "client audit: the URL in AUDIT_URL")
    assert result.out.splitlines()[1] == f"amqp://127.0.0.1:{broker.port}"
    result = await run("check", "--name", "No")
    assert result.status == 2 and "name must be" in result.err
