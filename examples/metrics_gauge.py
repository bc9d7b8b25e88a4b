"""A gauge of the connection's state, and counters of its messages, for Prometheus to scrape from /metrics.

Run it with ``AMQP_URL=amqp://user:password@host:5672/%2f python -m examples.metrics_gauge``, then
``curl http://127.0.0.1:8000/metrics``.
"""

import asyncio
import contextlib
import dataclasses
import os
from collections import Counter
from typing import Any

from tornado.web import Application, RequestHandler

from sprockets_amqp import Client, State, StateChange, install


class Gauge:
    """1 for the state that the connection is in and 0 for the others; and how often it came into each."""

    def __init__(self, client: Client) -> None:
        self.values = {state: int(client.state is state) for state in State}
        self.changes: Counter[State] = Counter()
        client.subscribe(self._on_change)

    def _on_change(self, change: StateChange) -> None:
        self.values[change.source] = 0
        self.values[change.dest] = 1
        self.changes[change.dest] += 1


class Metrics(RequestHandler):
    """Answers Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

    def get(self) -> None:
        """Write the state, the changes and the counters."""
        gauge: Gauge = self.settings["gauge"]
        client: Client = self.settings["client"]
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        for state in State:
            name = state.name.lower()
            self.write(f'amqp_connection_state{{state="{name}"}} {gauge.values[state]}\n')
            self.write(f'amqp_connection_changes_total{{state="{name}"}} {gauge.changes[state]}\n')
        for name, count in dataclasses.asdict(client.counters).items():
            self.write(f"amqp_messages_{name} {count}\n")


def make_application(**amqp_settings: Any) -> Application:
    """Make an application with a client and its metrics."""
    application = Application([("/metrics", Metrics)])
    install(application, **amqp_settings)
    client: Client = application.amqp  # type: ignore[attr-defined]
    application.settings.update(client=client, gauge=Gauge(client))
    return application


async def main() -> None:
    """Serve until Ctrl-C."""
    application = make_application()
    application.settings["client"].subscribe(print)
    application.listen(int(os.environ.get("PORT", "8000")), "127.0.0.1")
    try:
        await asyncio.Event().wait()
    finally:
        await application.settings["client"].shutdown()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
