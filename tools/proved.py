"""What was proved, in numbers: `python -m tools.held --record` keeps them, and documents quote them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sprockets_amqp.proof.verify import PROPERTIES, Proof
from sprockets_amqp.states import MACHINES

NUMBERS: Final = Path(__file__).parent.parent / "tests/data/proved.json"


def read() -> dict[str, int]:
    """Return the numbers that were kept."""
    found: dict[str, int] = json.loads(NUMBERS.read_text())
    return found


def record(numbers: Mapping[str, int]) -> None:
    """Keep the numbers."""
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n")


def of_proof(proof: Proof) -> dict[str, int]:
    """Return the numbers of a proof."""
    return {
        "machines": len(MACHINES),
        "states": proof.states,
        "worlds": len(proof.graph.worlds),
        "steps": proof.graph.steps,
        "properties": len(PROPERTIES),
    }


def table() -> str:
    """Write a table of what was explored, and of what the real client was taken through."""
    numbers = read()
    rows = {
        "machines that are explored together": "machines",
        "combinations of their states that can be reached": "states",
        "the same, told apart by what is so around them": "worlds",
        "steps from one of those to the next": "steps",
        "properties that hold": "properties",
        "kinds of steps that can be caused from outside, each taken by a real client": "held",
        "steps that the client took for that": "walked",
        "pairs of steps of the connection, one after the other, that it took": "pairs",
    }
    lines = "".join(f"| {words} | {numbers[name]:,} |\n" for words, name in rows.items())
    return f"| | |\n| --- | --- |\n{lines}"


def properties() -> str:
    """Write the properties as a list."""
    return "".join(f"- {each.words}\n" for each in PROPERTIES)
