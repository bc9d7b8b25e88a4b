"""docs/proved.md: what it names is there, and its numbers are those that were kept."""

import re
import subprocess
from typing import Final

from sprockets_amqp.states import MACHINES
from tests.support.documents import Document
from tools.documents import ROOT

PAGE: Final = Document("docs/proved.md")
COMMANDS: Final = Document("docs/command-line.md")

TESTED: Final = {("What is proved", "sh")}


def test_the_command_is_one_of_the_command_line() -> None:
    """Its page runs it."""
    (command,) = PAGE.commands("What is proved")
    assert command in COMMANDS.commands("verify")


def test_the_machines_are_counted() -> None:
    """And named."""
    assert f"{['', 'One', 'Two', 'Three', 'Four', 'Five', 'Six'][len(MACHINES)]} machines are declared" in PAGE.text
    for machine in MACHINES:
        assert machine.name in PAGE.section("What is explored")


def test_the_targets_of_make_are_there() -> None:
    """What the page says of `make` can be typed."""
    targets = set(re.findall(r"`make (\w+)`", PAGE.text))
    assert targets >= {"held", "test", "simulate"}
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)
