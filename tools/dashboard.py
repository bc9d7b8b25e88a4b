"""The dashboard for Grafana, `examples/grafana.json`: a panel for each metric of `ClientMetrics`, so none is missing.

`python -m tools.documents` writes it. Its form is that of Grafana's export for sharing
(https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/), which asks for the
data source when it is imported.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry, Metric

from sprockets_amqp import Client
from sprockets_amqp.telemetry.prometheus import ClientMetrics

PATH: Final = Path(__file__).parent.parent / "examples" / "grafana.json"
SOURCE: Final = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
#: The variables at the top of the dashboard, by which each query is filtered.
VARIABLES: Final = ("client", "instance")
FILTER: Final = ", ".join(f'{name}=~"${name}"' for name in VARIABLES)
QUANTILES: Final = (0.5, 0.99)
#: Panels in a row, and the size of one; Grafana's grid has 24 columns.
COLUMNS: Final = 3
WIDTH: Final = 24 // COLUMNS
HEIGHT: Final = 8


class Panel(NamedTuple):
    """What one panel shows: the metric's words, its unit, and its queries, each with the text of the legend."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]


def metrics() -> list[Metric]:
    """Return the metrics of a client that has done nothing yet."""

    async def collect() -> list[Metric]:
        async with Client("amqp://127.0.0.1:1") as client:
            return list(ClientMetrics({"amqp": client}, CollectorRegistry()).collect())

    return asyncio.run(collect())


def panel(metric: Metric) -> Panel:
    """Return the panel of a metric, by its type and its labels."""
    title = metric.documentation.rstrip(".")
    labels = [name for name in metric.samples[0].labels if name not in {"client", "le"}]
    by = ", ".join(("client", *labels))
    legend = " ".join(f"{{{{{name}}}}}" for name in ("client", *labels))
    match metric.type:
        case "counter":
            query = f"sum by ({by}) (rate({metric.name}_total{{{FILTER}}}[$__rate_interval]))"
            return Panel(f"{title}, per second", "ops", ((query, legend),))
        case "histogram":
            buckets = f"sum by (client, le) (rate({metric.name}_bucket{{{FILTER}}}[$__rate_interval]))"
            asked = [(f"histogram_quantile({each}, {buckets})", f"{legend} {each:.0%}") for each in QUANTILES]
            return Panel(f"{title}, median and 99th percentile", "s", tuple(asked))
    if labels:
        # One for each label's value: how many clients are there.
        return Panel("Clients in each state", "short", ((f"sum by ({by}) ({metric.name}{{{FILTER}}})", legend),))
    return Panel(title, "short", ((f"sum by ({by}) ({metric.name}{{{FILTER}}})", legend),))


def dashboard() -> str:
    """Return the dashboard as JSON."""
    return json.dumps(_model([panel(metric) for metric in metrics()]), indent=1) + "\n"


def queries() -> list[str]:
    """Return every query of the dashboard."""
    return [query for metric in metrics() for query, _ in panel(metric).queries]


def _model(panels: list[Panel]) -> dict[str, Any]:
    return {
        "__inputs": [
            {
                "name": "DS_PROMETHEUS",
                "label": "Prometheus",
                "type": "datasource",
                "pluginId": "prometheus",
                "pluginName": "Prometheus",
            }
        ],
        "__requires": [
            {"type": "grafana", "id": "grafana", "name": "Grafana", "version": "10.0.0"},
            {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"},
            {"type": "panel", "id": "timeseries", "name": "Time series", "version": ""},
        ],
        "uid": "sprockets-amqp",
        "title": "sprockets_amqp",
        "tags": ["rabbitmq", "amqp"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_variable(name) for name in VARIABLES]},
        "panels": list(_panels(panels)),
    }


def _variable(name: str) -> dict[str, Any]:
    query = f"label_values(amqp_client_state, {name})"
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _panels(panels: list[Panel]) -> Iterator[dict[str, Any]]:
    for number, each in enumerate(panels):
        row, column = divmod(number, COLUMNS)
        yield {
            "id": number + 1,
            "type": "timeseries",
            "title": each.title,
            "datasource": SOURCE,
            "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
            "fieldConfig": {"defaults": {"unit": each.unit, "min": 0}, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
            "targets": [
                {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": legend}
                for index, (query, legend) in enumerate(each.queries)
            ],
        }
