"""The command verify: prove what must hold of the declared machines."""

import argparse
from pathlib import Path
from typing import Final

from sprockets_amqp.drawing import ways
from sprockets_amqp.proof import verify

from .command import FAILED, OK

SUMMARY: Final = "prove what must hold of the declared machines, in everything that can happen"
STATUS: Final = "Exit status: 0 everything holds, 1 something does not, 2 bad usage."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        default=Path("diagrams"),
        help="where the way to what does not hold is drawn; default: diagrams",
    )
    parser.add_argument("--list", action="store_true", help="print the properties, and prove nothing")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    if options.list:
        print("\n".join(each.words for each in verify.PROPERTIES))
        return OK
    proof = verify.prove()
    print(proof.summary)
    for finding in proof.findings:
        print(f"\nDoes not hold: {ways.told(finding)}", end="")
    for number, finding in enumerate((each for each in proof.findings if each.path), 1):
        options.output.mkdir(parents=True, exist_ok=True)
        path = options.output / f"violation-{number}.mmd"
        path.write_text(ways.drawn(finding), encoding="utf-8")
        print(f"drawn: {path}")
    return FAILED if proof.findings else OK
