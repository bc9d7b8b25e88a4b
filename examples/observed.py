"""An application that operators can see into: metrics for Prometheus at /metrics.

Run it with ``AMQP_URL=amqp://user:password@host:5672/%2f python -m examples.observed``, then
``curl -d '{}' http://127.0.0.1:8000/events`` and ``curl http://127.0.0.1:8000/metrics``.
"""

import asyncio
import contextlib
import os
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from tornado.web import Application, RequestHandler

from examples.application import Events
from sprockets_amqp import Client, install
from sprockets_amqp.telemetry.prometheus import ClientMetrics


class Metrics(RequestHandler):
    """Answers Prometheus."""

    def get(self) -> None:
        """Write what there is now."""
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.write(generate_latest(self.settings["registry"]))


class ObservedApplication(Application):
    """Takes events at /events, and tells of them at /metrics."""

    amqp: Client
    amqp_clients: dict[str, Client]

    def __init__(self, exchange: str = "amq.topic", **amqp_settings: Any) -> None:
        registry = CollectorRegistry()
        handlers = [("/events", Events), ("/metrics", Metrics)]
        super().__init__(handlers, service="observed", version="1.0", exchange=exchange, registry=registry)
        install(self, **amqp_settings)
        ClientMetrics(self.amqp_clients, registry)


async def main() -> None:
    """Serve until Ctrl-C."""
    application = ObservedApplication()
    application.amqp.subscribe(print)
    application.listen(int(os.environ.get("PORT", "8000")), "127.0.0.1")
    try:
        await asyncio.Event().wait()
    finally:
        await application.amqp.shutdown()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
