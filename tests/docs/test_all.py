"""Every page is looked after: generated parts are up to date, each code block has a test, links lead somewhere."""

import importlib
import re
from pathlib import Path
from typing import Final

import pytest

from tests.support.documents import Document
from tools.documents import ROOT, documents, generated

#: What no test need run: what a command prints, and what stands for a file that a test of its own reads.
SHOWN: Final = {"text", "{toctree}", "{include}", "{eval-rst}", "{literalinclude}", "{note}", "{warning}", "{tip}"}
PATHS: Final = [str(path.relative_to(ROOT)) for path in documents()]


def module_of(path: str) -> str:
    """The tests of ``README.md`` are in ``tests.test_readme``, those of ``docs/a-b.md`` in ``tests.docs.test_a_b``."""
    package = "tests.docs" if path.startswith("docs/") else "tests"
    return f"{package}.test_{Path(path).stem.lower().replace('-', '_')}"


@pytest.mark.parametrize("path", PATHS)
def test_the_generated_parts_are_up_to_date(path: str) -> None:
    """Tables, figures and listings are those of the project."""
    text = (ROOT / path).read_text()
    assert text == generated(text), "run python -m tools.documents"


@pytest.mark.parametrize("path", PATHS)
def test_every_block_of_code_has_a_test(path: str) -> None:
    """The document's test module names it in TESTED, and runs it."""
    blocks = {(each.heading, each.language) for each in Document(path).blocks() if each.language not in SHOWN}
    tested = importlib.import_module(module_of(path)).TESTED if blocks else set()
    assert blocks == tested


@pytest.mark.parametrize("path", PATHS)
def test_every_link_into_the_project_leads_somewhere(path: str) -> None:
    """Files exist, and so do headings."""
    for target in re.findall(r"\]\(([^)\s]+)\)", Document(path).text):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        to = ROOT / Path(path).parent / file if file else ROOT / path
        assert to.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", to.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}, target
