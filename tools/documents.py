"""The generated parts of README.md and docs/, and the dashboard: `python -m tools.documents` brings them up to date."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from benchmarks import growth_report, report, results
from sprockets_amqp.drawing import diagrams, tables
from sprockets_amqp.states import CHECK, OUTAGE, OUTBOX, RENEWAL
from tools import dashboard, defects, faults, kit_methods, matrix, modules, places, proved, starts

ROOT: Final = Path(__file__).parent.parent
README: Final = ROOT / "README.md"

#: What belongs between `<!-- name -->` and `<!-- /name -->` in any document that has such a pair.
GENERATED: Final[dict[str, Callable[[], str]]] = {
    "application": lambda: f"```python\n{(ROOT / 'examples/application.py').read_text()}```\n",
    "first": lambda: f"```python\n{(ROOT / 'examples/first_event.py').read_text()}```\n",
    "testing": lambda: f"```python\n{tests_shown()}```\n",
    "systems": lambda: matrix.table(matrix.recorded()),
    "starts": starts.table,
    "modules": modules.table,
    "states": tables.states_table,
    "substates": tables.substates_table,
    "transitions": diagrams.table,
    "outages": lambda: tables.states_table(OUTAGE),
    "outcomes": tables.outcomes_table,
    "renewals": lambda: tables.states_table(RENEWAL),
    "outboxes": lambda: tables.states_table(OUTBOX),
    "mermaid": lambda: f"```mermaid\n{diagrams.mermaid()}```\n",
    "checks": lambda: tables.states_table(CHECK) + "\n" + tables.substates_table(CHECK),
    "every_way": lambda: f"```python\n{(ROOT / 'examples/test_every_way.py').read_text()}```\n",
    "kit_methods": kit_methods.table,
    "proved": proved.table,
    "properties": proved.properties,
    "defects": defects.table,
    "places": places.table,
    "faults": faults.table,
    "benchmarks": lambda: report.summary(results.read(ROOT / "benchmarks/results.json")),
    "growth": lambda: growth_report.summary(results.read(ROOT / "benchmarks/results.json")),
}

_PART: Final = re.compile(r"<!-- (?P<name>\w+) -->\n(?P<text>.*?)<!-- /(?P=name) -->", re.DOTALL)


def documents() -> Iterator[Path]:
    """Yield the documents of the project, and every page of the documentation."""
    yield from (README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md")
    yield from sorted((ROOT / "docs").rglob("*.md"))


def tests_shown() -> str:
    """Return the first tests of the example, from its imports on."""
    text = (ROOT / "examples/test_application.py").read_text()
    return text[text.index("import pytest") : text.index("\n\ndef test_a_full_queue")]


def generated(text: str) -> str:
    """Return the document with its generated parts up to date. Raises KeyError for a part that nothing generates."""
    return _PART.sub(
        lambda part: f"<!-- {part['name']} -->\n\n{GENERATED[part['name']]()}\n<!-- /{part['name']} -->", text
    )


def parts(text: str) -> list[str]:
    """Return the names of the document's generated parts."""
    return [part["name"] for part in _PART.finditer(text)]


if __name__ == "__main__":
    for document in documents():
        document.write_text(generated(document.read_text()))
    dashboard.PATH.write_text(dashboard.dashboard())
