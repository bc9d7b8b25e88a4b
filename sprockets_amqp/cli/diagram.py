"""The command diagram: draw the declared lifecycle of the connection."""

import argparse
from pathlib import Path
from typing import Final

from sprockets_amqp.drawing import diagrams, scxml

from .command import OK

SUMMARY: Final = "draw the declared lifecycle of the connection"
STATUS: Final = "Exit status: 0 written, 1 a file could not be written, 2 bad usage."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--output", metavar="FOLDER", type=Path, default=Path("diagrams"), help="default: diagrams")
    choices = ("mermaid", "dot", "svg", "table", "scxml")
    words = "print this instead of writing files; scxml: all machines, as W3C SCXML"
    parser.add_argument("--print", "--format", dest="printed", choices=choices, help=words)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    draw = {
        "mermaid": diagrams.mermaid,
        "dot": diagrams.dot,
        "svg": diagrams.svg_file,
        "table": diagrams.table,
        "scxml": scxml.scxml,
    }
    if options.printed:
        print(draw[options.printed](), end="")
        return OK
    for path in diagrams.write(options.output):
        print(path)
    return OK
