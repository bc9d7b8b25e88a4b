"""docs/telemetry.md: tests/test_prometheus.py runs the queries and alerts, tests/test_observers.py the observer."""

from importlib.metadata import metadata
from typing import Final

from tests.support.documents import Document

TELEMETRY: Final = Document("docs/telemetry.md")

TESTED: Final = {
    ("Six alerts to start with", "yaml"),
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
