"""The house: pika has one door, nothing is decided beside the declaration, and what is not used is not loaded.

That knowledge points one way, `lint-imports` checks; its contracts are in pyproject.toml.
"""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

PACKAGE: Final = Path(__file__).parent.parent / "sprockets_amqp"
SOURCES: Final = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    # states/ is a symbolic link, which rglob does not follow.
    for path in sorted([*PACKAGE.rglob("*.py"), *(PACKAGE / "states").glob("*.py")])
}
#: What registers a callback with pika, or has it do something on the wire.
ACTIONS: Final = {"channel", "confirm_delivery", "basic_publish", "tx_select", "tx_rollback", "update_secret"}


def tree(module: str) -> ast.Module:
    """Parse a module of the package."""
    return ast.parse(SOURCES[module].read_text())


# pika has one door


def actions(source: ast.Module) -> set[str]:
    """Name what a module calls that registers with pika, or acts on the wire."""
    called = {
        node.func.attr
        for node in ast.walk(source)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    ending = {
        node.attr
        for node in ast.walk(source)
        if isinstance(node, ast.Attribute)
        and node.attr in {"close", "abort"}
        and getattr(node.value, "attr", getattr(node.value, "id", "")) in {"connection", "_connection", "channel"}
    }
    return ending | {
        name for name in called if name in ACTIONS or (name.startswith("add_on_") and name.endswith("_callback"))
    }


def test_only_the_link_registers_with_pika_and_acts_on_the_wire() -> None:
    """Every event of pika's enters there, and every action leaves there, but for those of `setup` and of checks."""
    users = {module: used for module in SOURCES if (used := actions(tree(module)))}
    assert set(users) == {
        "sprockets_amqp.connection.link",
        "sprockets_amqp.connection.topology",
        "sprockets_amqp.delivery.check",
    }
    assert users["sprockets_amqp.connection.link"] >= {"channel", "confirm_delivery", "add_on_return_callback"}


def test_every_connection_is_made_by_the_link() -> None:
    """Nobody else calls the class."""
    makers = {
        module
        for module in SOURCES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"Connection", "TornadoConnection"}
    }
    assert makers == {"sprockets_amqp.connection.link"}


# Nothing is decided beside the declaration


STATES: Final = {"state", "substate", "documented"}


def _is_state(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
        return any(isinstance(each, ast.Constant) and each.value in STATES for each in node.args)
    return isinstance(node, ast.Attribute) and node.attr in STATES


def _sets_state(node: ast.AST) -> bool:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign | ast.Delete):
        targets = list(node.targets)
    elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.AnnAssign) and node.value is not None):
        targets = [node.target]
    elif isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        named = {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
        return name == "set_state" or name.startswith("to_") or (name in {"setattr", "delattr"} and "state" in named)
    return any(_is_state(part) for target in targets for part in ast.walk(target))


def state_setters(source: ast.Module) -> list[int]:
    """Find the lines that set a state past the declaration."""
    return [node.lineno for node in ast.walk(source) if isinstance(node, ast.stmt | ast.expr) and _sets_state(node)]


def deciders(source: ast.Module) -> Iterator[str]:
    """Name the functions that compare a state, innermost."""
    functions = [node for node in ast.walk(source) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in ast.walk(source):
        if isinstance(node, ast.Match) and _is_state(node.subject):
            parts: list[ast.AST] = [node.subject]
        elif isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        else:
            continue
        if any(_is_state(part) for part in parts):
            around = [function.name for function in functions if node in ast.walk(function)]
            yield around[-1] if around else "<module>"


def test_no_code_assigns_a_state() -> None:
    """The state is set by declared transitions alone: nowhere in the package is it assigned."""
    assert {module: lines for module in SOURCES if (lines := state_setters(tree(module)))} == {}


def test_the_machine_is_built_in_one_place() -> None:
    """Nobody else builds one."""
    users = {
        module
        for module in SOURCES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("transitions")
        and any("Machine" in alias.name and alias.name != "MachineError" for alias in node.names)
    }
    assert users == {"sprockets_amqp.model"}


def test_no_code_decides_by_comparing_states() -> None:
    """States are compared by the properties of the documented API, by wait_for(), and by the model's questions."""
    allowed = {
        "sprockets_amqp.client": {"wait_for"},
        "sprockets_amqp.client_state": {"idle", "connecting", "ready", "blocked", "closing", "closed"},
        # A declared set is asked whether the state is in it.
        "sprockets_amqp.connection.gate": {"sends", "sends_new", "sends_stored"},
        "sprockets_amqp.model": {"knows", "announce_change"},
        # A test waits for a state.
        "sprockets_amqp.testing.paths": {"follow"},
    }
    found = {module: set(deciders(tree(module))) for module in SOURCES}
    assert {module: names for module, names in found.items() if names} == allowed


@pytest.mark.parametrize(
    "code",
    [
        "self.state = 3",
        "lifecycle.state: State = State.READY",
        "a, client._runtime.lifecycle.state = 1, 2",
        "self.state += 1",
        "del self.state",
        "setattr(self, 'state', 3)",
        "machine.set_state('READY')",
        "model.to_ready()",
    ],
)
def test_the_scan_finds_what_sets_a_state(code: str) -> None:
    """Each way around the declaration is seen by the scan."""
    assert set(state_setters(ast.parse(code))) == {1}


@pytest.mark.parametrize(
    "code",
    [
        "if self.state == 3: pass",
        "x = State.READY is self.state",
        "ok = c.substate in REFUSED",
        "match c.state:\n case 1: pass",
        "ok = getattr(self, 'state') is State.READY",
    ],
)
def test_the_scan_finds_what_compares_a_state(code: str) -> None:
    """Each way to ask a state by its value is seen by the scan."""
    indented = "\n ".join(code.splitlines())
    assert set(deciders(ast.parse(f"def decide():\n {indented}"))) == {"decide"}


def test_nothing_reads_source_text_at_run_time() -> None:
    """The package works where its sources are not there, frozen or compiled."""
    for module in SOURCES:
        assert "inspect.getsource" not in SOURCES[module].read_text(), module


# What is not used is not loaded


def python(script: str, *options: str, cwd: Path = PACKAGE.parent) -> subprocess.CompletedProcess[str]:
    """Run a script in a Python of its own, where any warning is an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", script], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_an_import_loads_what_publishing_needs() -> None:
    """And no page, picture, command line or extra."""
    done = python("import sprockets_amqp", "-X", "importtime")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"sprockets_amqp.client", "sprockets_amqp.delivery.publisher", "sprockets_amqp.handlers.mixin"} <= loaded
    rooms = {"web", "drawing", "cli", "testing", "telemetry"}
    extras = ("rich", "resvg_py", "prometheus_client", "opentelemetry", "tests", "tools", "examples")
    parts = [name.split(".") for name in loaded]
    assert [
        part for part in parts if (part[0] == "sprockets_amqp" and rooms & set(part[1:])) or part[0] in extras
    ] == []


def test_a_run_of_pytest_that_does_not_ask_for_the_kit_loads_none_of_it() -> None:
    """Every run loads the plugin where the package is installed, whatever is tested there."""
    script = (
        "import sys\n"
        "from importlib.metadata import entry_points\n"
        "(plugin,) = (each for each in entry_points(group='pytest11') if each.name == 'sprockets_amqp')\n"
        "assert plugin.load().amqp_broker\n"
        "print({'sprockets_amqp', 'pika', 'tornado', 'transitions'} & set(sys.modules))"
    )
    done = python(script)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_the_page_is_loaded_when_it_is_asked_for() -> None:
    """`amqp.web` needs no import of its own; a name that is not there is missed as ever."""
    script = (
        "import sys, sprockets_amqp as amqp\n"
        "assert 'sprockets_amqp.web' not in sys.modules\n"
        "assert len(amqp.web.routes()) == 6 and 'web' in amqp.__all__\n"
        "amqp.wep"
    )
    done = python(script)
    assert "AttributeError: module 'sprockets_amqp' has no attribute 'wep'" in done.stderr.splitlines()[-1]


def test_it_can_be_imported_where_processes_cannot_be_forked() -> None:
    """As on Windows, where the os module has no register_at_fork."""
    done = python("import os; del os.register_at_fork, os.fork; import sprockets_amqp; sprockets_amqp.web.routes()")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_checkout_without_symbolic_links_says_what_is_wrong(tmp_path: Path) -> None:
    """Git writes the target of a link into a file where it may make no links."""
    shutil.copytree(PACKAGE, tmp_path / "sprockets_amqp", ignore=shutil.ignore_patterns("states"))
    (tmp_path / "sprockets_amqp" / "states").write_text("../states")
    # Without site-packages, where an editable installation would find the folder after all.
    done = python("import sprockets_amqp", "-S", cwd=tmp_path)
    assert "core.symlinks" in done.stderr.splitlines()[-1]
