"""Every page is looked after: generated parts are up to date, each code block has a test, links lead somewhere."""

import ast
import builtins
import importlib
import re
from pathlib import Path
from typing import Final

import pytest

from sprockets_amqp import Client
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


#: What stands for something of the reader's own, which no page can define.
READERS_OWN: Final = {
    *("application", "handlers", "Events", "client", "body", "fetch"),
    *("CLIENT_SECRET", "TOKEN_URL", "VAULT_ADDR", "VAULT_TOKEN", "KEY_PASSWORD"),
}


def undefined(text: str) -> set[str]:
    """The names that a block of Python uses and does not define."""
    known, used = set(dir(builtins)), set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Name(name, ast.Load()):
                used.add(name)
            case ast.Name(name) | ast.arg(name) | ast.ExceptHandler(name=str(name)):
                known.add(name)
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                known.add(name)
            case ast.Import(names) | ast.ImportFrom(names=names):
                known.update((each.asname or each.name).partition(".")[0] for each in names)
    return used - known


def test_a_missing_import_is_seen() -> None:
    """Of a module, a class or a function, wherever it is used."""
    text = (
        "import a.b\nasync def f(x: C) -> None:\n    try:\n        y = g(x, a)\n    except E as e:\n        print(e, y)"
    )
    assert undefined(text) == {"C", "g", "E"}


@pytest.mark.parametrize("path", PATHS)
def test_every_block_of_python_stands_alone(path: str) -> None:
    """A reader copies one of them: what it uses it imports, but for what is the reader's own."""
    found = {
        each.heading: undefined(each.text) - READERS_OWN
        for each in Document(path).blocks()
        if each.language == "python"
    }
    assert {heading: names for heading, names in found.items() if names} == {}


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_import_what_is_public(path: Path) -> None:
    """Readers copy them, too; `demo.py` is the project's own, and shows more than an application needs."""
    modules = {str(node.module) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
    ours = {module for module in modules if module.startswith("sprockets_amqp")}
    public = {"", ".testing", ".web", ".telemetry.prometheus", ".telemetry.opentelemetry"}
    assert path.name == "demo.py" or ours <= {f"sprockets_amqp{each}" for each in public}


def test_what_is_said_of_order_is_the_same_everywhere() -> None:
    """On each page that speaks of it, and where publish() is documented."""
    said = "one `user_id`, leave in the order of the calls; between exchanges there is no order"
    texts = [Document(f"docs/{page}.md").text for page in ("publishing", "outbox", "reliability")]
    texts.append(str(Client.publish.__doc__))
    assert [said in " ".join(text.split()) for text in texts] == [True] * 4
    pages = {path: " ".join(Document(path).text.split()) for path in PATHS if path.startswith("docs/")}
    assert len([path for path, text in pages.items() if "order of the calls" in text]) == 3


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
