"""A trace, told to people: its changes, and what publishes became meanwhile."""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from sprockets_amqp.drawing.declared import full_name
from sprockets_amqp.states import CONNECTION, MACHINES
from sprockets_amqp.states.world import Facts
from sprockets_amqp.text import shown

from .recorder import INTERVAL
from .trace import GAUGES, STATES, Line, Pull, Trace

#: Seconds without the counters after which something is wrong: with the loop, or with the machine.
SILENCE: Final = 4 * INTERVAL
#: Seconds after which publishes that fail are told of again, while nothing else happens.
PACE: Final = 10.0
_AT_REST: Final = frozenset(map(full_name, CONNECTION.marked("at_rest")))
_FACTS: Final = Facts({machine.name: machine for machine in MACHINES})


def told(traces: Iterable[Trace], since: float, until: float, *, everything: bool = False) -> Iterator[str]:
    """Yield what happened from one time until another, in the order of time.

    Args:
        traces: what was recorded; where there are several, each line begins with whose it is.
        since: the beginning, in seconds since 1970.
        until: the end.
        everything: whether to tell every trigger of every machine, rather than the changes of the connection's state.
    """
    traces = list(traces)
    width = max(len(shown(trace.name)) for trace in traces) if len(traces) > 1 else 0
    lines = [_told(trace, since, until, everything) for trace in traces]
    day = ""
    # Of the same time, the lines of one trace stay together, in their order.
    for at, number, text in heapq.merge(*map(_numbered, lines, range(len(lines))), key=lambda line: line[:2]):
        # In the hour that comes twice in autumn, times are told apart by this, too.
        today = f"-- {datetime.fromtimestamp(at).astimezone():%Y-%m-%d, UTC%z}"
        if today != day:
            yield today
        day = today
        name = shown(traces[number].name)
        whose = f" {name:<{width}}" if width else ""
        yield f"{_clock(at)}{whose} {text}".rstrip()


def _numbered(lines: Iterator[tuple[float, str]], number: int) -> Iterator[tuple[float, int, str]]:
    for at, text in lines:
        yield at, number, text


def surroundings(trace: Trace, index: int, before: int = 8, after: int = 3) -> Iterator[str]:
    """Yield the lines around one of a trace, which is marked."""
    for number in range(max(0, index - before), min(len(trace.lines), index + after + 1)):
        line = trace.lines[number]
        mark = ">" if number == index else " "
        texts = list(_every_line(line)) or [f"counters: {_became({}, line.counters) or 'all are 0'}"]
        yield from (f"{mark} {_clock(line.at)} {text}" for text in texts)


def _clock(at: float) -> str:
    time = datetime.fromtimestamp(at).astimezone()
    return f"{time:%H:%M:%S}.{time.microsecond // 1000:03}"


def outcome_in(states: Mapping[str, str]) -> str:
    """Say what became of a publish in these states; empty if one of them is not known here."""
    found = [STATES[name].get(states.get(name, "")) for name in ("connection", "outage", "outbox")]
    return _FACTS.outcome(*found) if None not in found else ""


def _told(trace: Trace, since: float, until: float, everything: bool) -> Iterator[tuple[float, str]]:
    before: Mapping[str, int] = {}
    counters: Mapping[str, int] = {}
    states = dict(trace.lines[0].states)
    last = noted = trace.lines[0].at
    for at, line in trace.moments():
        if at > until:
            break
        source = dict(states)
        states |= {pull.machine: pull.dest for pull in (line.pull.flat() if line.pull else ()) if pull.dest}
        lines: list[str] = []
        if at >= since:
            if at - last > SILENCE and source.get("connection") not in _AT_REST and not line.states:
                lines.append(f"nothing was recorded for {at - last:.1f} s: the loop was blocked, or the machine slept")
            lines += _every_line(line) if everything else _changes(line, source, states)
            now = outcome_in(states)
            if now != outcome_in(source):
                lines.append(f"  a publish now {now}")
            # They fail while nothing else happens.
            failed = line.counters.get("failed", 0) > before.get("failed", 0)
            if lines or (failed and at - noted >= PACE):
                became = _became(before, counters if lines else line.counters)
                yield from ((at, text) for text in ([f"  {became}"] if became else []) + lines)
                before, noted = (counters if lines else line.counters), at
        else:
            before = line.counters or before
        last, counters = at, line.counters or counters
    if last >= since:
        if became := _became(before, counters):
            yield (last, f"  {became}")
        if at == last:
            yield (last, f"the end of what is recorded: the connection is {shown(states.get('connection'))}")


def _changes(line: Line, source: Mapping[str, str], dest: Mapping[str, str]) -> Iterator[str]:
    """Yield what changed for the application: the connection's documented state, or what becomes of a publish."""
    if line.states:
        if line.part == 1:
            yield f"client {shown(line.client)} begins in process {line.process}"
        return
    pull = line.pull
    if pull is None:
        return
    was, now = (states.get("connection", "").partition(" (")[0] for states in (source, dest))
    if pull.machine == "connection" and was != now:
        yield shown(f"{f'{was} -> {now}':<24} {pull.trigger:<20} {pull.reason}".rstrip())
    elif outcome_in(source) != outcome_in(dest):
        change = f"{pull.machine} {pull.source} -> {pull.dest}"
        yield shown(f"{change:<24} {pull.trigger:<20} {pull.reason}".rstrip())


def _every_line(line: Line) -> Iterator[str]:
    if line.states:
        states = ", ".join(f"{name} {state}" for name, state in line.states.items())
        yield shown(f"file {line.part} of client {line.client}, process {line.process}: {states}")
    elif line.pull is not None:
        yield from _every(line.pull, "")


def _every(pull: Pull, indent: str) -> Iterator[str]:
    change = f"{pull.source} -> {pull.dest}" if pull.dest else f"ignored while {pull.source}"
    line = f"{indent}{pull.machine}.{pull.trigger}: {change}"
    yield shown(f"{line}; {pull.reason}" if pull.reason else line)
    for each in pull.then:
        yield from _every(each, f"{indent}  ")


def _became(before: Mapping[str, int], counters: Mapping[str, int]) -> str:
    """Say what publishes became since then, and how many there are now that have not ended."""
    grown = {name: count - before.get(name, 0) for name, count in counters.items() if name not in GAUGES}
    since = [f"{count} {_words(name)}" for name, count in grown.items() if count]
    now = [f"{counters[name]} {_words(name)}" for name in GAUGES if counters.get(name)]
    return shown("; ".join(filter(None, (", ".join(since), f"now {', '.join(now)}" if now else ""))))


def _words(name: str) -> str:
    return name.replace("_", " ")
