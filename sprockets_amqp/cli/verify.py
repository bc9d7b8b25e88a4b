"""The command verify: prove what must hold of the declared machines, or hold what was recorded against them."""

import argparse
from pathlib import Path
from typing import Final

from sprockets_amqp.drawing import ways
from sprockets_amqp.proof import verify
from sprockets_amqp.recording.judge import Finding, Judge
from sprockets_amqp.recording.told import surroundings
from sprockets_amqp.recording.trace import Trace
from sprockets_amqp.text import SENTENCE_LIMIT, shown

from .command import FAILED, OK
from .replay import load

SUMMARY: Final = "prove what must hold of the declared machines in everything that can happen, or in what was recorded"
STATUS: Final = "Exit status: 0 everything holds, 1 something does not, 2 bad usage, or not a trace."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        type=Path,
        help="a recorder's file, or its folder: see that each recorded step is one that the declaration has",
    )
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
    if options.files:
        return _judge(load(options.files))
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


def _summary(trace: Trace, finding: Finding | None) -> str:
    if finding is not None:
        return f"does not hold: {shown(finding.words, SENTENCE_LIMIT)}"
    steps = sum(line.pull is not None for line in trace.lines)
    return f"{steps:,} steps, each of them declared, and all that must hold along them holds"


def _judge(traces: list[Trace]) -> int:
    judge = Judge()
    found = [judge.judge(trace) for trace in traces]
    for trace, finding in zip(traces, found, strict=True):
        print(f"{shown(trace.name)}: {_summary(trace, finding)}")
        if finding is not None:
            print("\n".join(surroundings(trace, finding.number)))
    return FAILED if any(found) else OK
