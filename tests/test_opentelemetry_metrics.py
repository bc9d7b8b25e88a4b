"""Metrics of clients, as OpenTelemetry's SDK gets them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from sprockets_amqp import Client, State
from sprockets_amqp.telemetry.opentelemetry import BUCKETS, measure_clients
from tests.support.memory import Broker, in_memory
from tests.support.observing import Seen
from tests.test_observed_ends import WAYS, Scenario
from tools.rabbitmq import Node

broker = in_memory
DOCUMENTED: Final = Path(__file__).parent.parent / "docs" / "telemetry.md"

#: A metric's points: their attributes, and their values.
Points = dict[frozenset[tuple[str, Any]], Any]


class Meters:
    """A provider whose metrics are read when a test asks."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def metrics(self) -> dict[str, Any]:
        """Each metric, by name."""
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str) -> Points:
        """The points of a metric: the value, or the sum of a histogram."""
        metric = self.metrics().get(name)
        if metric is None:
            return {}
        return {
            frozenset(point.attributes.items()): getattr(point, "value", getattr(point, "sum", None))
            for point in metric.data.data_points
        }


@pytest.fixture
def meters() -> Iterator[Meters]:
    """What reads metrics."""
    made = Meters()
    yield made
    made.provider.shutdown()


def confirm(broker: Broker) -> None:
    """Have what was published arrive and be confirmed, and its end told."""
    broker.clock.turn()
    broker.peer.deliver()
    broker.peer.confirm_all()
    broker.clock.turn()


def own(meters: Meters, name: str, client: str = "amqp") -> Any:
    """The value of one of the client's own metrics."""
    return meters.points(f"sprockets_amqp.client.{name}")[frozenset({("sprockets_amqp.client", client)})]


SENT: Final = "messaging.client.sent.messages"
DURATION: Final = "messaging.client.operation.duration"
PUBLISH: Final = {
    "messaging.system": "rabbitmq",
    "messaging.operation.name": "publish",
    "messaging.operation.type": "send",
    "server.address": "node",
    "server.port": 5673,
}


def test_publishes_are_measured_as_the_conventions_have_it(broker: Broker, meters: Meters) -> None:
    """How long each took, in their buckets; and how many were sent, by exchange and error."""
    client = broker.ready("amqp://node:5673")
    measure_clients({"amqp": client}, meters.provider)
    futures = [client.publish(exchange, "key", b"") for exchange in ("", "amq.topic", "amq.topic", "missing")]
    futures.append(client.publish("amq.topic", "key", b"", {"colour": "red"}))
    for future in futures:
        future.add_done_callback(lambda ended: ended.exception())
    broker.clock.advance(2)
    for _ in range(20):
        confirm(broker)
    sent = {**PUBLISH, "messaging.destination.template": "amq.topic"}
    default = {**PUBLISH, "messaging.destination.template": "amq.default"}
    assert meters.points(SENT) == {frozenset(sent.items()): 2, frozenset(default.items()): 1}
    failed = [{**PUBLISH, "error.type": name} for name in ("ExchangeRefused", "InvalidMessage")]
    took = meters.points(DURATION)
    assert set(took) == {frozenset(each.items()) for each in (sent, default, *failed)}
    assert took[frozenset(sent.items())] == 4
    histogram, counter = meters.metrics()[DURATION], meters.metrics()[SENT]
    assert (histogram.unit, counter.unit, counter.data.is_monotonic) == ("s", "{message}", True)
    assert tuple(histogram.data.data_points[0].explicit_bounds) == BUCKETS


@pytest.mark.parametrize(("way", "told", "sends"), WAYS, ids=[way.__name__ for way, *_ in WAYS])
def test_every_end_is_measured_once(broker: Broker, meters: Meters, way: Scenario, told: str, sends: int) -> None:
    """With the class of the error, where there is one; what was never sent is not counted as sent."""

    class Measures(Seen):
        def of(self, client: Client) -> Seen:
            measure_clients({"amqp": client}, meters.provider)
            return self

    future = way(broker, Measures())
    broker.clock.turn()
    broker.open().clock.advance(100)
    (point,) = meters.metrics()[DURATION].data.data_points
    error = None if future.cancelled() else future.exception()
    assert (point.count, point.attributes.get("error.type")) == (1, type(error).__name__ if error else None)
    assert sum(meters.points(SENT).values()) == (1 if sends and told != "stored" else 0)
    assert ("messaging.destination.template" in point.attributes) is bool(sends)


def test_the_clients_own_metrics(broker: Broker, meters: Meters) -> None:
    """Its state, what waits and what is unconfirmed, as they are when they are read; by the client's name."""
    client = broker.client(max_unconfirmed=1, on_return_callback=lambda *_: None)
    other = broker.client(name="audit")
    measure_clients({"amqp": client, "audit": other}, meters.provider)

    def lit() -> list[str]:
        points = meters.points("sprockets_amqp.client.state")
        assert len(points) == 2 * len(State)
        here = [dict(labels) for labels, value in points.items() if value == 1]
        return [each["sprockets_amqp.state"] for each in here if each["sprockets_amqp.client"] == "amqp"]

    assert lit() == ["idle"]
    broker.unroutable.add("nowhere")
    futures = [client.publish("", "nowhere", b"") for _ in range(3)]
    broker.open()
    assert lit() == ["ready"]
    assert (own(meters, "waiting"), own(meters, "unconfirmed"), own(meters, "waiting", "audit")) == (2, 1, 0)
    for _ in futures:
        for peer in broker.peers:
            peer.confirm_all()
        broker.clock.turn()
    assert (own(meters, "waiting"), own(meters, "unconfirmed"), own(meters, "returned")) == (0, 0, 3)
    for peer in broker.peers:
        peer.lose()
    broker.clock.advance(1.1)
    broker.open()
    assert (own(meters, "reconnects"), lit()) == (1, ["ready"])


def test_it_lasts_until_it_is_cancelled(broker: Broker, meters: Meters) -> None:
    """Nothing is measured after that."""
    client = broker.ready()
    measurement = measure_clients({"amqp": client}, meters.provider)
    assert own(meters, "waiting") == 0
    measurement.cancel()
    client.publish("", "q", b"")
    confirm(broker)
    assert meters.points(SENT) == meters.points("sprockets_amqp.client.state") == {}


def test_without_an_sdk_nothing_is_measured(broker: Broker) -> None:
    """A library may call it, whether its application measures or not."""
    client = broker.ready()
    measure_clients({"amqp": client}, NoOpMeterProvider())
    future = client.publish("", "q", b"")
    confirm(broker)
    assert future.result() is None


def test_the_documentation_names_every_metric(broker: Broker, meters: Meters) -> None:
    """With its instrument and its unit."""
    client = broker.ready()
    measure_clients({"amqp": client}, meters.provider)
    client.publish("", "q", b"")
    confirm(broker)
    kinds = {"Gauge": "gauge", "Sum": "counter", "Histogram": "histogram"}
    metrics = {
        metric.name: f"{kinds[type(metric.data).__name__]}, `{metric.unit}`" for metric in meters.metrics().values()
    }
    part = DOCUMENTED.read_text().partition("### Metrics by OpenTelemetry")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| `([\w.]+)` \| ([^|]+) \|", part, re.MULTILINE)) == metrics


FORKS: Final = """
import asyncio, os, threading
import sprockets_amqp as amqp
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sprockets_amqp.telemetry.opentelemetry import measure_clients

client = amqp.Client("amqp://127.0.0.1:1")
reader = InMemoryMetricReader()
measure_clients({"amqp": client}, MeterProvider([reader]))

def read():
    data = reader.get_metrics_data()
    names = [metric.name for each in data.resource_metrics for scope in each.scope_metrics for metric in scope.metrics]
    print("sprockets_amqp.client.state" in names, flush=True)

def in_thread():
    thread = threading.Thread(target=read)
    thread.start()
    thread.join()

async def use():
    client.publish("", "q", b"", timeout=0).exception()
    in_thread()
    await client.shutdown(0.1)

asyncio.run(use())
if os.fork() == 0:
    # The SDK reads in a thread of its own, which must not be the first to use the client.
    read_before = reader.get_metrics_data()
    print(read_before is None or "client.state" not in str(read_before), client.is_bound, flush=True)
    asyncio.run(use())
    os._exit(0)
os.wait()
"""


def test_a_reader_in_a_forked_process_uses_no_client() -> None:
    """Before the application has used it there: it would be bound to the reader's thread."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, check=False, timeout=60, env={**os.environ}
    )
    assert done.stdout.split() == ["True", "True", "False", "True"], done.stdout + done.stderr


async def test_on_rabbitmq(node: Node, meters: Meters) -> None:
    """What was sent, and how long it took."""
    async with Client(node.url) as client:
        measure_clients({"amqp": client}, meters.provider)
        await client.wait_for(State.READY, 30)
        for _ in range(10):
            await client.publish("amq.topic", "key", b"", mandatory=False)
        (sent,) = meters.points(SENT).items()
        assert (dict(sent[0])["server.port"], sent[1]) == (node.port, 10)
        (took,) = meters.points(DURATION).values()
        assert took > 0
