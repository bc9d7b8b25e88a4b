"""An application that operators can see into: metrics for Prometheus at /metrics, and a trace of each request.

`examples/grafana.json` is a dashboard for these metrics. Whoever has OpenTelemetry's metrics instead gives `meters`.

Each event's span is a child of its request's, and continues in whatever consumes the event. Here spans are printed; a
production application exports them.

Run it with ``AMQP_URL=amqp://user:password@host:5672/%2f python -m examples.observed``, then
``curl -d '{}' http://127.0.0.1:8000/events`` and ``curl http://127.0.0.1:8000/metrics``.
"""

import asyncio
import contextlib
import os
from typing import Any

from opentelemetry.instrumentation.tornado import TornadoInstrumentor
from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from tornado.web import Application, RequestHandler

from examples.application import Events
from sprockets_amqp import Client, install
from sprockets_amqp.telemetry.opentelemetry import measure_clients, trace_publishes
from sprockets_amqp.telemetry.prometheus import ClientMetrics


class Metrics(RequestHandler):
    """Answers Prometheus."""

    def get(self) -> None:
        """Write the current values."""
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.write(generate_latest(self.settings["registry"]))


class ObservedApplication(Application):
    """Takes events at /events, serves metrics at /metrics, and traces both."""

    amqp: Client
    amqp_clients: dict[str, Client]

    def __init__(
        self,
        exchange: str = "amq.topic",
        tracers: TracerProvider | None = None,
        meters: MeterProvider | None = None,
        **amqp_settings: Any,
    ) -> None:
        registry = CollectorRegistry()
        handlers = [("/events", Events), ("/metrics", Metrics)]
        super().__init__(handlers, service="observed", version="1.0", exchange=exchange, registry=registry)
        install(self, **amqp_settings)
        ClientMetrics(self.amqp_clients, registry)
        trace_publishes(self.amqp, tracers)
        measure_clients(self.amqp_clients, meters)


async def main() -> None:
    """Serve until Ctrl-C."""
    tracers = TracerProvider(resource=Resource.create({"service.name": "observed"}))
    tracers.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    TornadoInstrumentor().instrument(tracer_provider=tracers)  # type: ignore[no-untyped-call]
    application = ObservedApplication(tracers=tracers)
    application.amqp.subscribe(print)
    application.listen(int(os.environ.get("PORT", "8000")), "127.0.0.1")
    try:
        await asyncio.Event().wait()
    finally:
        await application.amqp.shutdown()
        tracers.shutdown()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
