"""Metrics for Prometheus: what they say in each state and of each outcome, and the documented queries and alerts."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from examples.observed import ObservedApplication
from sprockets_amqp import Outcome, State, errors
from sprockets_amqp.telemetry.prometheus import ClientMetrics
from sprockets_amqp.testing import Broker
from tests.support.consume import declare_queue
from tests.support.http import fetch, served
from tests.support.memory import Broker as HandDriven
from tests.support.memory import in_memory
from tests.support.prometheus import Prometheus
from tools import dashboard
from tools.rabbitmq import Node

in_hand = in_memory
DOCUMENTED: Final = Path(__file__).parent.parent / "docs" / "telemetry.md"


def documented(language: str) -> str:
    """The only block of this language in the documentation."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENTED.read_text(), re.MULTILINE | re.DOTALL)
    return str(text)


def queries() -> list[str]:
    """The documented queries, in order."""
    return [line for line in documented("promql").splitlines() if line and not line.startswith("#")]


def alerts() -> list[str]:
    """The names of the documented alerts, in order."""
    return re.findall(r"alert: (\w+)", documented("yaml"))


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Samples:
    """Each sample of an exposition, by its name and its sorted labels; never one twice."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    samples = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}
    assert len(samples) == len(found)
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    """One sample of the default client's."""
    return samples[f"amqp_client_{name}", tuple(sorted({"client": "amqp", **labels}.items()))]


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry of the test's own."""
    return CollectorRegistry()


def scraped(registry: CollectorRegistry) -> Samples:
    """What a scrape would get."""
    return parsed(generate_latest(registry).decode())


# What they say


def lit(samples: Samples) -> list[str]:
    """The states that are shown as the present one."""
    states = [dict(labels)["state"] for (name, labels) in samples if name == "amqp_client_state"]
    assert sorted(states) == sorted(state.name.lower() for state in State)
    return [state for state in states if value(samples, "state", state=state) == 1]


def test_one_state_is_1(in_hand: HandDriven, registry: CollectorRegistry) -> None:
    """The present documented one, whatever its substate; reconnects are counted."""
    client = in_hand.client()
    ClientMetrics({"amqp": client}, registry)
    seen = [lit(scraped(registry))]
    in_hand.clock.turn()
    seen.append(lit(scraped(registry)))
    in_hand.open()
    seen.append(lit(scraped(registry)))
    in_hand.peer.lose()
    seen.append(lit(scraped(registry)))
    assert seen == [["idle"], ["connecting"], ["ready"], ["closed"]]
    in_hand.clock.advance(1.1)
    assert value(scraped(registry), "reconnects_total") == 0
    in_hand.open()
    assert value(scraped(registry), "reconnects_total") == 1


def test_publishes_are_counted_by_outcome(
    in_hand: HandDriven, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """From 0, so that a rate knows of the first one; and those that wait or are unconfirmed are shown."""
    client = in_hand.ready(max_unconfirmed=2)
    ClientMetrics({"amqp": client}, registry)
    before = scraped(registry)
    assert {outcome: value(before, "publishes_total", outcome=outcome) for outcome in Outcome} == dict.fromkeys(
        Outcome, 0.0
    )
    assert value(before, "confirm_seconds_count") == value(before, "line_seconds_count") == 0
    futures = [client.publish("", "q", b"") for _ in range(3)]
    futures.append(client.publish("", "q", b"", {"colour": "red"}))
    in_hand.clock.turn()
    under_way = scraped(registry)
    assert [value(under_way, name) for name in ("unconfirmed", "waiting", "stored")] == [2, 1, 0]
    in_hand.clock.advance(3)
    futures[2].cancel()
    in_hand.clock.advance(2)
    in_hand.peer.confirm_all()
    in_hand.clock.turn()
    after = scraped(registry)
    counted = {outcome: value(after, "publishes_total", outcome=outcome) for outcome in Outcome}
    assert {outcome: count for outcome, count in counted.items() if count} == {
        Outcome.CONFIRMED: 2,
        Outcome.INVALID: 1,
        Outcome.CANCELLED: 1,
    }
    assert isinstance(futures[3].exception(), errors.InvalidMessage)
    assert (value(after, "confirm_seconds_count"), value(after, "confirm_seconds_sum")) == (2, 10.0)
    # The one that was cancelled had waited until then.
    assert (value(after, "line_seconds_count"), value(after, "line_seconds_sum")) == (4, 3.0)
    assert [value(after, "confirm_seconds_bucket", le=le) for le in ("2.5", "5.0")] == [0, 2]
    assert [record for record in caplog.records if record.name == "sprockets_amqp.observers"] == []


def test_each_client_has_its_name(in_hand: HandDriven, registry: CollectorRegistry) -> None:
    """Two clients of one application share the metrics' names, and each has its own values."""
    clients = {"amqp": in_hand.ready(), "audit": in_hand.ready()}
    ClientMetrics(clients, registry)
    clients["audit"].publish("", "q", b"")
    in_hand.open().peer.confirm_all()
    in_hand.clock.turn()
    samples = scraped(registry)
    assert value(samples, "publishes_total", client="amqp", outcome="confirmed") == 0
    assert value(samples, "publishes_total", client="audit", outcome="confirmed") == 1
    assert value(samples, "state", client="audit", state="ready") == 1


def test_there_is_one_in_a_registry(in_hand: HandDriven, registry: CollectorRegistry) -> None:
    """Another is refused, until the first is closed, which then counts no more."""
    client = in_hand.ready()
    first = ClientMetrics({"amqp": client}, registry)
    with pytest.raises(ValueError, match="amqp_client_state"):
        ClientMetrics({"audit": client}, registry)
    first.close()
    second = ClientMetrics({"amqp": client}, registry)
    client.publish("", "q", b"")
    in_hand.open().peer.confirm_all()
    in_hand.clock.turn()
    samples = {family.name: family.samples for family in first.collect()}
    assert {sample.value for sample in samples["amqp_client_publishes"] if sample.name.endswith("total")} == {0}
    assert value(scraped(registry), "publishes_total", outcome="confirmed") == 1
    second.close()
    assert scraped(registry) == {}


FORKS: Final = """
import asyncio, os
import sprockets_amqp as amqp
from prometheus_client import REGISTRY
from sprockets_amqp.telemetry.prometheus import ClientMetrics

async def main(client):
    client.publish("", "q", b"", timeout=0).exception()
    await asyncio.sleep(0)
    await client.shutdown(0.1)
    labels = {"client": "amqp", "outcome": "not_ready"}
    print(REGISTRY.get_sample_value("amqp_client_publishes_total", labels), flush=True)

client = amqp.Client("amqp://127.0.0.1:1")
metrics = ClientMetrics({"amqp": client})
asyncio.run(main(client))
if os.fork() == 0:
    asyncio.run(main(client))
    os._exit(0)
os.wait()
"""


def test_a_forked_process_counts_from_0() -> None:
    """What its parent counted is the parent's to tell."""
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["1.0", "1.0"], done.stderr


def test_the_documentation_names_every_metric_and_outcome(in_hand: HandDriven, registry: CollectorRegistry) -> None:
    """And nothing that is none."""
    ClientMetrics({"amqp": in_hand.client()}, registry)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    names = {f"{each.name}_total" if each.type == "counter" else each.name: each.type for each in families}
    text = DOCUMENTED.read_text()
    rows = re.findall(r"^\| `(amqp_client_\w+)[^`]*` \| (\w+) \|", text, re.MULTILINE)
    assert dict(rows) == {name: kind for name, kind in names.items() if not name.endswith("_created")}
    outcomes = re.findall(r"^\| `(\w+)` \| ", text.partition("## Outcomes")[2].partition("\n## ")[0], re.MULTILINE)
    assert outcomes == list(Outcome)


# In the example


@pytest.fixture
def application(amqp_broker: Broker) -> ObservedApplication:
    """The example, on a broker in memory."""
    amqp_broker.queue_declare("audit")
    amqp_broker.queue_bind("audit", "amq.topic", "event.#")
    return ObservedApplication()


def test_the_example_tells_of_its_events(amqp_broker: Broker, application: ObservedApplication) -> None:
    """A scrape after one that was confirmed and one that a queue refused."""
    assert amqp_broker.fetch(application, "/events", method="POST", body="{}").code == 202
    amqp_broker.nack_next()
    assert amqp_broker.fetch(application, "/events", method="POST", body="{}").code == 502
    answer = amqp_broker.fetch(application, "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    samples = parsed(answer.body.decode())
    assert value(samples, "publishes_total", outcome="confirmed") == 1
    assert value(samples, "publishes_total", outcome="nacked") == 1
    assert value(samples, "confirm_seconds_count") == 2


# In Prometheus


def test_the_alerts_fire_when_they_should(prometheus: None, tmp_path: Path) -> None:
    """After as long as they say, with what an operator needs to know, and not before: as promtool sees them."""
    (tmp_path / "alerts.yml").write_text(documented("yaml"))
    labels = 'client="amqp", instance="host:8000", job="events"'

    def bucket(metric: str, le: str, values: str) -> dict[str, str]:
        return {"series": f'amqp_client_{metric}_bucket{{{labels}, le="{le}"}}', "values": values}

    series = [
        {"series": f'amqp_client_state{{{labels}, state="ready"}}', "values": "1x4 0x20"},
        {"series": f'amqp_client_publishes_total{{{labels}, outcome="confirmed"}}', "values": "0+60x30"},
        {"series": f'amqp_client_publishes_total{{{labels}, outcome="not_ready"}}', "values": "0x4 1x20"},
        {"series": f"amqp_client_reconnects_total{{{labels}}}", "values": "0x4 3x20"},
        {"series": f"amqp_client_set_aside{{{labels}}}", "values": "0x4 1x20"},
        {"series": f"amqp_client_returned_total{{{labels}}}", "values": "0x4 1x20"},
        *(bucket(metric, "1.0", "0x30") for metric in ("confirm_seconds", "line_seconds")),
        *(bucket(metric, "2.5", "0+60x30") for metric in ("confirm_seconds", "line_seconds")),
        *(bucket(metric, "+Inf", "0+60x30") for metric in ("confirm_seconds", "line_seconds")),
    ]
    # An increase of the last 5 or 15 minutes is over after that.
    lasting = {"AmqpNotReady", "AmqpConfirmsSlow", "AmqpLineSlow", "AmqpSetAside"}
    firing = {
        "0m": set[str](),
        "5m": {"AmqpPublishesFail", "AmqpReconnects", "AmqpSetAside", "AmqpUnroutable"},
        "10m": {*lasting, "AmqpReconnects"},
        "24m": lasting,
    }
    assert set().union(*firing.values()) == set(alerts())
    test = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": when,
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)],
            }
            for when, names in firing.items()
        ],
    }
    rules = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yml").write_text(json.dumps(rules))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_of_the_metrics_that_there_are(in_hand: HandDriven, registry: CollectorRegistry) -> None:
    """It is the generated one, and has a panel for each metric, with a place of its own."""
    assert dashboard.PATH.read_text() == dashboard.dashboard(), "run python -m tools.documents"
    model = json.loads(dashboard.PATH.read_text())
    ClientMetrics({"amqp": in_hand.client()}, registry)
    names = [family.name for family in text_string_to_metric_families(generate_latest(registry).decode())]
    asked = [[target["expr"] for target in panel["targets"]] for panel in model["panels"]]
    for name in (name for name in names if not name.endswith("_created")):
        assert sum(any(re.search(rf"\b{name}(_total|_bucket)?{{", query) for query in panel) for panel in asked) == 1
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in model["panels"]}
    assert len(places) == len({panel["id"] for panel in model["panels"]}) == len(asked)
    assert [each["name"] for each in model["templating"]["list"]] == list(dashboard.VARIABLES)


async def every_panel_has_data(prom: Prometheus) -> None:
    """Each query of the dashboard has an answer about the client."""
    filled = {"$client": ".*", "$instance": ".*", "$__rate_interval": "5m"}
    for query in await asyncio.to_thread(dashboard.queries):
        data = await prom.query(re.sub(r"\$\w+", lambda variable: filled[variable[0]], query))
        assert data and all(labels >= {("client", "amqp")} for labels in data), query


async def test_an_outage_is_seen_in_prometheus(node: Node, prometheus: None, tmp_path: Path) -> None:
    """Each documented query has an answer, each panel data, and each alert's condition holds when it should."""
    rules = tmp_path / "alerts.yml"
    rules.write_text(documented("yaml"))
    queue = await declare_queue(node.url)
    settings: dict[str, Any] = {"reconnect_delay": 0.1, "max_reconnect_delay": 0.2, "timeout": 60}
    application = ObservedApplication(url=node.url, exchange=queue.exchange, **settings)
    client = application.amqp

    def publish(timeout: float = 60) -> "asyncio.Future[None]":
        return client.publish(queue.exchange, queue.routing_key, b"", timeout=timeout)

    async with served(application) as base, Prometheus(tmp_path, base.removeprefix("http://"), rules) as prom:
        await publish()
        async with asyncio.timeout(30):
            while not await prom.query('amqp_client_publishes_total{outcome="confirmed"} == 1'):
                await asyncio.sleep(0.05)
        assert await prom.raised() == set()

        await node.stop()
        waits = publish()
        with pytest.raises(errors.NotReadyError):
            await publish(timeout=0)
        samples = parsed((await fetch(f"{base}/metrics")).body.decode())
        assert value(samples, "state", state="ready") == 0
        assert (value(samples, "waiting"), value(samples, "publishes_total", outcome="not_ready")) == (1, 1)
        await prom.until_raised("AmqpNotReady", "AmqpPublishesFail")

        await node.repair()
        await waits
        await prom.until_raised("AmqpLineSlow")
        await prom.until_over("AmqpNotReady")
        for _ in range(2):
            await node.ctl("close_all_connections", "an operator's reason")
            await client.wait_for(State.READY, 30)
        await prom.until_raised("AmqpReconnects")
        await client.publish(queue.exchange, "no queue is bound for this", b"")
        await prom.until_raised("AmqpUnroutable")

        # RabbitMQ is asked about the exchange beforehand.
        await publish()
        node.pause()
        slow = publish()
        await asyncio.sleep(1.1)
        node.resume()
        await slow
        await prom.until_raised("AmqpConfirmsSlow")

        answers = [await prom.query(query) for query in queries()]
        assert len(answers) == 5
        assert all(("client", "amqp") in labels for answer in answers for labels in answer)
        rates, failed, confirm, line, at_risk = answers
        assert {dict(labels)["outcome"] for labels in rates} == set(Outcome)
        (share,), (slowest,), (longest,), (risk,) = (each.values() for each in (failed, confirm, line, at_risk))
        assert 0 < share < 1
        assert slowest > 1 and longest > 1
        await every_panel_has_data(prom)
        assert risk == 0
    await client.shutdown()
    await queue.delete()


async def test_what_the_outbox_sent_is_seen_in_prometheus(node: Node, prometheus: None, tmp_path: Path) -> None:
    """And what RabbitMQ refused of it, until an operator has dropped it."""
    rules = tmp_path / "alerts.yml"
    rules.write_text(documented("yaml"))
    folder = tmp_path / "outbox"
    folder.mkdir()
    settings: dict[str, Any] = {"outbox": folder, "timeout": 0}
    application = ObservedApplication(url="amqp://127.0.0.1:2", **settings)
    for exchange in ("amq.topic", "missing"):
        await application.amqp.publish(exchange, "", b"")
    assert value(scraped(application.settings["registry"]), "publishes_total", outcome="stored") == 2
    await application.amqp.shutdown()

    application = ObservedApplication(url=node.url, **settings)
    async with served(application) as base, Prometheus(tmp_path, base.removeprefix("http://"), rules) as prom:
        await application.amqp.flush(30)
        await prom.until_raised("AmqpSetAside")
        assert list((await prom.query("amqp_client_delivered_total")).values()) == [1]
    await application.amqp.shutdown()
