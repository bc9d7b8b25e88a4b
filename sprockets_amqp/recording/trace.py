"""A trace: the lines that a recorder writes, and how they are read again.

Each line is a JSON object (https://jsonlines.org). docs/recorder.md documents them.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from sprockets_amqp.drawing.declared import full_name
from sprockets_amqp.states import MACHINES
from sprockets_amqp.text import shown

#: Incremented when lines change in a way that readers must know of.
FORMAT: Final = 1
#: The name of a file: the client, when its recorder was made, the process, and a number.
NAME: Final = re.compile(r"(?P<run>(?P<client>\w+)-\d{8}T\d{6}\.\d{6}-\d+)-\d{6}\.jsonl")
#: The states of each machine, by their full names.
STATES: Final = {machine.name: {full_name(state): state for state in machine.lasting} for machine in MACHINES}
#: Counters that say how many there are, rather than how many there were.
GAUGES: Final = ("unconfirmed", "waiting", "stored", "set_aside")
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
        number: which of those with this client and process it is, from 1; 0: it is the only one.
    """

    client: str
    process: int
    lines: list[Line]
    number: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether it begins where the client began."""
        return self.lines[0].part == 1

    @property
    def name(self) -> str:
        """The client and the process, for people."""
        return f"{self.client} {self.process}{f' #{self.number}' if self.number else ''}"

    def moments(self) -> Iterator[tuple[float, Line]]:
        """Yield the lines with their times. Where the clock was set back, time goes on from there."""
        last, ahead = 0.0, 0.0
        for line in self.lines:
            ahead = max(ahead, last - line.at)
            last = line.at + ahead
            yield last, line


def read(paths: Iterable[Path], on_damage: Callable[[str], object] | None = None) -> list[Trace]:
    """Read files, and all files of a recorder in folders; return the traces in the order of their beginnings.

    The files of one recorder are one trace, unless one between them is missing: then what follows is another.

    Args:
        paths: the files and folders.
        on_damage: called with what is wrong where a file cannot be read further; what comes before it is read.

    Raises:
        NoTraceError: a file is not a trace, or there is none.
        OSError: a file cannot be read.
    """
    paths = list(paths)
    # A file may have no lines yet.
    files = [lines for path, is_given in _files(paths) if (lines := _read(path, is_given, on_damage))]
    # The clock may have been set back between two files.
    files.sort(key=lambda lines: (lines[0].run, lines[0].part))
    found: list[Trace] = []
    before = Line(0.0)
    for lines in files:
        first = lines[0]
        if first.run == before.run and first.part == before.part + 1:
            found[-1].lines.extend(lines)
        else:
            found.append(Trace(first.client, first.process, lines))
        before = first
    if not found:
        raise NoTraceError(f"{_named(paths)}: nothing is recorded there")
    found.sort(key=lambda trace: trace.lines[0].at)
    for name in {trace.name for trace in found}:
        same = [trace for trace in found if trace.name == name]
        for number, trace in enumerate(same, 1):
            trace.number = number if len(same) > 1 else 0
    return found


def _named(paths: Iterable[Path]) -> str:
    return shown(", ".join(map(str, paths)))


def _files(paths: Iterable[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield files, each once, and whether they were given by name."""
    known: set[Path] = set()
    for path in paths:
        is_folder = path.is_dir()
        for each in sorted(path.iterdir()) if is_folder else (path,):
            is_wanted = not is_folder or (NAME.fullmatch(each.name) is not None and each.is_file())
            if is_wanted and each.resolve() not in known:
                known.add(each.resolve())
                yield each, not is_folder


def _read(path: Path, is_given: bool, on_damage: Callable[[str], object] | None) -> list[Line]:
    if path.exists() and not path.is_file():
        raise NoTraceError(f"{shown(path)}: it is not a file")
    lines: list[Line] = []
    try:
        lines.extend(_lines(path))
    except FileNotFoundError:
        if is_given:
            raise
        # Its process has removed it meanwhile.
    except NoTraceError as error:
        if not lines or on_damage is None:
            raise
        on_damage(str(error))
    return lines


def _lines(path: Path) -> Iterator[Line]:
    counters: Mapping[str, int] = {}
    with path.open("rb") as file:
        for number in itertools.count(1):
            octets = file.readline(LONGEST + 1)
            if not octets.endswith(b"\n"):
                if len(octets) > LONGEST:
                    raise NoTraceError(f"{shown(path)}, line {number}: it is longer than {LONGEST} octets")
                # It is the end; or the process was killed while it wrote this line, or writes it now.
                return
            try:
                line = _line(json.loads(octets))
                if number == 1 and not line.states:
                    raise NoTraceError("it is not the beginning of a recorder's file")
            except (ValueError, RecursionError) as error:
                what = str(error) if isinstance(error, NoTraceError) else "it is not a line of a recorder"
                text = shown(octets.decode(errors="replace"), 80)
                raise NoTraceError(f"{shown(path)}, line {number}: {what}: {text}") from None
            if line.counters == counters:
                # Most of them are, and there may be hundreds of thousands.
                line = replace(line, counters=counters)
            counters = line.counters or counters
            yield line


def _line(document: object) -> Line:
    at = _number(document, "at")
    counters = _get(document, "counters", dict) if _has(document, "counters") else {}
    line = Line(at, counters={name: int(_number(counters, name)) for name in counters})
    if _has(document, "machine"):
        line = replace(line, pull=_pull(document))
    if _has(document, "format"):
        if (its := _number(document, "format")) != FORMAT:
            raise NoTraceError(f"it is of format {its:g}; this version reads {FORMAT}")
        states = {name: _string(_get(document, "states", dict), name) for name in _get(document, "states", dict)}
        if not states:
            raise NoTraceError("it has no states")
        client, run = _string(document, "client"), _string(document, "run")
        process, part = int(_number(document, "process")), int(_number(document, "part"))
        line = replace(line, states=states, client=client, process=process, run=run, part=part)
    return line


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
    number: float = _get(document, name, int | float)  # type: ignore[arg-type]
    # Not a number, or more than Python makes a time of.
    if not 0 <= number < 1e11:
        raise NoTraceError(f"{name} is out of range")
    return number
