"""A trace: the lines that a recorder writes, and how they are read again.

Each line is a JSON object (https://jsonlines.org). docs/recorder.md documents them.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from sprockets_amqp.drawing.declared import full_name
from sprockets_amqp.states import MACHINES
from sprockets_amqp.text import shown

#: Incremented when lines change in a way that readers must know of.
FORMAT: Final = 1
#: How the names of a recorder's files end.
ENDING: Final = ".jsonl"
#: The longest line in octets; what a file has beyond that is not a trace.
LONGEST: Final = 1024 * 1024


class Pull(NamedTuple):
    """A trigger that was pulled.

    Attributes:
        machine: the machine.
        trigger: the trigger.
        source: the state in which it was pulled, by its full name.
        dest: the state afterwards; empty: no row applied, and nothing was done.
        reason: why, in one line; empty if nobody said.
        then: the triggers that were pulled in the course of it, in order.
    """

    machine: str
    trigger: str
    source: str
    dest: str = ""
    reason: str = ""
    then: tuple["Pull", ...] = ()

    def flat(self) -> Iterator["Pull"]:
        """Yield it and all that was pulled in the course of it."""
        yield self
        for each in self.then:
            yield from each.flat()


@dataclass(frozen=True, slots=True)
class Line:
    """A line: a file's beginning, a trigger that was pulled, or the counters.

    Attributes:
        at: when, in seconds since 1970.
        pull: the trigger.
        counters: the counters, by name.
        states: at a file's beginning, the state of each machine.
        client: at a file's beginning, the client's name.
        process: at a file's beginning, the process's id.
        run: at a file's beginning, what all files of this recorder, and no others, begin their names with.
        part: at a file's beginning, which of these files it is, from 1.
    """

    at: float
    pull: Pull | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    client: str = ""
    process: int = 0
    run: str = ""
    part: int = 0


class NoTraceError(ValueError):
    """A file is not a trace; says which, where and why."""


def initial_states() -> dict[str, str]:
    """Return the full name of the state in which each machine begins."""
    return {machine.name: full_name(machine.initial) for machine in MACHINES}


# Writing


def written(line: Line) -> bytes:
    """Return the line as it is written."""
    document: dict[str, Any] = {"at": round(line.at, 6)}
    if line.pull is not None:
        document |= _document(line.pull)
    elif line.states:
        document |= {"format": FORMAT, "client": line.client, "process": line.process, "run": line.run}
        document |= {"part": line.part, "states": dict(line.states)}
    else:
        document["counters"] = dict(line.counters)
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _document(pull: Pull) -> dict[str, Any]:
    document: dict[str, Any] = {"machine": pull.machine, "trigger": pull.trigger, "from": pull.source}
    if pull.dest:
        document["to"] = pull.dest
    if pull.reason:
        document["reason"] = pull.reason
    if pull.then:
        document["then"] = [_document(each) for each in pull.then]
    return document


# Reading


@dataclass
class Trace:
    """What one client of one process has recorded, as far as its files are there.

    Attributes:
        client: the client's name.
        process: the process's id.
        lines: the lines, in the order in which they were written.
    """

    client: str
    process: int
    lines: list[Line]

    @property
    def is_whole(self) -> bool:
        """Whether it begins where the client began."""
        return self.lines[0].part == 1

    @property
    def name(self) -> str:
        """The client and the process, for people."""
        return f"{self.client} {self.process}"


def read(paths: Iterable[Path]) -> list[Trace]:
    """Read files, and all files of a recorder in folders; return the traces in the order of their beginnings.

    The files of one recorder are one trace, unless one between them is missing: then what follows is another.

    Raises:
        NoTraceError: a file is not a trace, or there is none.
        OSError: a file cannot be read.
    """
    # A file may have no lines yet.
    files = [lines for path, is_given in _files(paths) if (lines := _read(path, is_given))]
    files.sort(key=lambda lines: lines[0].at)
    found: list[Trace] = []
    latest: dict[str, tuple[int, Trace]] = {}
    for lines in files:
        first = lines[0]
        part, trace = latest.get(first.run, (0, None))
        if trace is not None and first.part == part + 1:
            trace.lines.extend(lines)
        else:
            trace = Trace(first.client, first.process, lines)
            found.append(trace)
        latest[first.run] = first.part, trace
    if not found:
        raise NoTraceError(f"{_named(paths)}: nothing is recorded there")
    return found


def _named(paths: Iterable[Path]) -> str:
    return shown(", ".join(map(str, paths)))


def _files(paths: Iterable[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield files, and whether they were given by name."""
    for path in paths:
        if path.is_dir():
            yield from ((each, False) for each in sorted(path.glob(f"*{ENDING}")))
        else:
            yield path, True


def _read(path: Path, is_given: bool) -> list[Line]:
    try:
        return list(_lines(path))
    except FileNotFoundError:
        if is_given:
            raise
        # Its process has removed it meanwhile.
        return []


def _lines(path: Path) -> Iterator[Line]:
    number, counters = 0, Line(0.0).counters
    with path.open("rb") as file:
        while octets := file.readline(LONGEST + 1):
            number += 1
            if not octets.endswith(b"\n"):
                if len(octets) > LONGEST:
                    raise NoTraceError(f"{shown(path)}, line {number}: it is longer than {LONGEST} octets")
                # The process was killed while it wrote this line, or writes it now.
                return
            try:
                line = _line(json.loads(octets))
                if number == 1 and not line.states:
                    raise NoTraceError("it is not the beginning of a recorder's file")
            except (ValueError, RecursionError) as error:
                what = str(error) if isinstance(error, NoTraceError) else "it is not a line of a recorder"
                raise NoTraceError(
                    f"{shown(path)}, line {number}: {what}: {shown(octets.decode(errors='replace'), 80)}"
                ) from None
            if line.counters == counters:
                # Most of them are, and there may be hundreds of thousands.
                line = replace(line, counters=counters)
            counters = line.counters or counters
            yield line


def _line(document: object) -> Line:
    at = _number(document, "at")
    if _has(document, "format"):
        if (its := _number(document, "format")) != FORMAT:
            raise NoTraceError(f"it is of format {its:g}; this version reads {FORMAT}")
        states = {name: _string(_get(document, "states", dict), name) for name in _get(document, "states", dict)}
        if not states:
            raise NoTraceError("it has no states")
        client, run = _string(document, "client"), _string(document, "run")
        process, part = int(_number(document, "process")), int(_number(document, "part"))
        return Line(at, states=states, client=client, process=process, run=run, part=part)
    if _has(document, "counters"):
        counters = _get(document, "counters", dict)
        return Line(at, counters={name: int(_number(counters, name)) for name in counters})
    return Line(at, _pull(document))


def _pull(document: object) -> Pull:
    machine, trigger, source = (_string(document, name) for name in ("machine", "trigger", "from"))
    dest = _string(document, "to") if _has(document, "to") else ""
    reason = _string(document, "reason") if _has(document, "reason") else ""
    then = _get(document, "then", list) if _has(document, "then") else []
    return Pull(machine, trigger, source, dest, reason, tuple(map(_pull, then)))


def _has(document: object, name: str) -> bool:
    return isinstance(document, dict) and name in document


def _get(document: object, name: str, kind: type) -> Any:
    found = document.get(name) if isinstance(document, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        raise NoTraceError(f"{name} is missing, or is not what it must be")
    return found


def _string(document: object, name: str) -> str:
    return str(_get(document, name, str))


def _number(document: object, name: str) -> float:
    # Larger than what Python makes a time of: it comes from nowhere.
    number: float = _get(document, name, int | float)  # type: ignore[arg-type]
    if not math.isfinite(number) or not 0 <= number < 1e11:
        raise NoTraceError(f"{name} is out of range")
    return number
