"""CONTRIBUTING.md: its commands exist, and its worked example works."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.documents import Document
from tools.documents import ROOT

CONTRIBUTING: Final = Document("CONTRIBUTING.md")

TESTED: Final = {("Commands", "sh"), ("Add a state", "diff")}

#: What a checkout has that no copy needs.
LEFT_OUT: Final = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "_build")


def test_every_command_does_something() -> None:
    """It is a target that runs something in the virtual environment, and has a line in the table."""
    commands = CONTRIBUTING.commands("Commands")
    for command in commands:
        planned = subprocess.run(
            [*shlex.split(command), "--dry-run", "--always-make"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert ".venv/bin/" in planned.stdout, command
    assert {row[0] for row in CONTRIBUTING.rows("Commands")} == {" ".join(each.split()[:2]) for each in commands}


def test_every_command_is_told() -> None:
    """Of what `make` offers nothing is left out, but what the README tells users."""
    (targets,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    told = set(re.findall(r"make ([\w-]+)", CONTRIBUTING.text))
    assert set(targets.split()) - told == {"help", "demo", "clean"}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the project in which the example's changes were made, in their order."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT, folder, symlinks=True, ignore=LEFT_OUT)
    for each in CONTRIBUTING.blocks():
        if each.language == "diff":
            # The numbers of the lines may be others by now.
            subprocess.run(["git", "apply", "--recount"], cwd=folder, input=each.text, text=True, check=True)
    return folder


def run(folder: Path, *arguments: str) -> str:
    """Run a module of the copy; returns what it printed."""
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_state_of_the_example_works(copy: Path) -> None:
    """Its behaviour is tested, each part of its declaration is noticed, and it is in the tables."""
    run(copy, "sprockets_amqp", "diagram")
    assert "| `lasting` |" in (copy / "diagrams" / "lifecycle.md").read_text()
    chosen = "goes_on or LASTING or annotations or every_name or in_words or committed_is_what or persistent"
    told = run(
        *(copy, "pytest", "tests/test_substates.py", "tests/test_states.py", "tests/test_diagrams.py"),
        *("-q", "-k", chosen, "-p", "no:cacheprovider"),
    )
    assert "test_an_outage_that_goes_on" not in told and re.search(r"^\d\d+ passed, ", told, re.MULTILINE), told
