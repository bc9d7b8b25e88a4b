"""Measure on other systems, each made empty, and record it: ``python -m benchmarks.systems SYSTEM ...``, as root.

``tools/matrix.py`` knows the systems, and makes them. The last commit is measured, not what was changed since.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.record import HERE, RECORD, write_all
from benchmarks.results import read
from tools import matrix

#: Those that the record is of.
SYSTEMS = ("debian-12", "debian-unstable")


def main() -> int:
    """Measure on the systems that are named, one after the other; returns the exit status."""
    known = matrix.systems()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.systems", description=__doc__)
    parser.add_argument("systems", nargs="*", choices=[[], *known], metavar="SYSTEM", help=f"default: {SYSTEMS}")
    parser.add_argument(
        "--run", default="benchmarks", metavar="COMMAND", help='such as "benchmarks.growth --minutes 60"'
    )
    options = parser.parse_args()
    try:
        matrix.check_machine()
        for name in options.systems or SYSTEMS:
            measure(known[name], options.run)
    except matrix.CannotRun as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


def measure(system: matrix.System, command: str) -> None:
    """Measure on a copy of the system, and put what came out, if it is to be written, into the record."""
    with matrix.made(system) as folder:
        # What was recorded, but not committed, stays.
        recorded = folder / "src/benchmarks" / RECORD.name
        recorded.write_bytes(RECORD.read_bytes())
        matrix.say(f"{system.name}: python -m {command}")
        measuring = f".venv/bin/python -m {command} --system {system.name} --output benchmarks"
        status = matrix.inside(
            folder, f"make .venv/.bench && .ci/setup broker postgres compiler && {measuring}"
        ).returncode
        if status:
            raise matrix.CannotRun(f"measuring on {system.name} ended with status {status}; its output is above")
        measured = read(recorded)
    if system.name in measured:
        write_all({**read(RECORD), system.name: measured[system.name]}, HERE)


if __name__ == "__main__":
    sys.exit(main())
