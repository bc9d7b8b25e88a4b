"""docs/telemetry.md: tests/test_prometheus.py runs the queries and alerts, tests/test_observers.py the observer."""

import re
from importlib.metadata import metadata
from typing import Final

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sprockets_amqp import Client, MessageNacked
from sprockets_amqp.telemetry.opentelemetry import trace_publishes
from sprockets_amqp.testing import Broker
from tests.support.documents import Document

TELEMETRY: Final = Document("docs/telemetry.md")

TESTED: Final = {
    ("Seven alerts to start with", "yaml"),
    ("Five queries to start with", "promql"),
    ("Observers of your own", "python"),
    ("OpenTelemetry", "sh"),
    ("Prometheus", "sh"),
}


def test_the_extras_are_those_of_the_package() -> None:
    """What pip is told to install is declared."""
    extras = metadata("sprockets_amqp").get_all("Provides-Extra")
    commands = [line for heading in ("Prometheus", "OpenTelemetry") for line in TELEMETRY.commands(heading)]
    asked = {
        command.partition("[")[2].partition("]")[0]
        for command in commands
        if command.startswith("pip install 'sprockets_amqp[")
    }
    assert asked and asked <= set(extras or ())


def test_the_attributes_are_those_of_a_span(amqp_broker: Broker) -> None:
    """One that ended well and one that did not have all of them together, and no other."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    client = Client("amqp://broker", on_return_callback=lambda *_: None)
    trace_publishes(client, provider)

    async def publish() -> None:
        await client.publish("amq.topic", "key", b"", {"correlation_id": "c"})
        amqp_broker.nack_next()
        with pytest.raises(MessageNacked):
            await client.publish("amq.topic", "key", b"")

    amqp_broker.run(publish())
    spans = exporter.get_finished_spans()
    found = {name for span in spans for name in span.attributes or {}}
    # Those of a socket: tests/test_opentelemetry.py sees them on RabbitMQ.
    found |= {"network.peer.address", "network.peer.port"}
    cells = [row[0] for row in TELEMETRY.rows("OpenTelemetry")]
    assert {name for cell in cells for name in re.findall(r"[a-z_]+\.[a-z_.]+", cell)} == found
    provider.shutdown()
