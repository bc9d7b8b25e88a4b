"""The generated parts of the README: `python -m tools.readme` brings them up to date."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks import report, results
from sprockets_amqp.drawing import diagrams
from tools import faults, matrix, starts

ROOT: Final = Path(__file__).parent.parent
README: Final = ROOT / "README.md"

#: What stands between `<!-- name -->` and `<!-- /name -->`.
GENERATED: Final[dict[str, Callable[[], str]]] = {
    "application": lambda: f"```python\n{(ROOT / 'examples/application.py').read_text()}```\n",
    "testing": lambda: f"```python\n{tests_shown()}```\n",
    "systems": lambda: matrix.table(matrix.recorded()),
    "starts": starts.table,
    "states": diagrams.states_table,
    "substates": diagrams.substates_table,
    "transitions": diagrams.table,
    "mermaid": lambda: f"```mermaid\n{diagrams.mermaid()}```\n",
    "faults": faults.table,
    "benchmarks": lambda: report.summary(results.read(ROOT / "benchmarks/results.json")),
}


def tests_shown() -> str:
    """Return the first tests of the example, from its imports on."""
    text = (ROOT / "examples/test_application.py").read_text()
    return text[text.index("import pytest") : text.index("\n\ndef test_a_full_queue")]


def generated(text: str) -> str:
    """The text with its generated parts as they should be."""
    for name, generate in GENERATED.items():
        before, _, rest = text.partition(f"<!-- {name} -->\n")
        _, mark, after = rest.partition(f"<!-- /{name} -->")
        assert mark, f"README.md has no part {name}"
        text = f"{before}<!-- {name} -->\n\n{generate()}\n{mark}{after}"
    return text


if __name__ == "__main__":
    README.write_text(generated(README.read_text()))
