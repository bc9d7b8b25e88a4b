"""What clients do is recorded in memory, and must be what the declaration has: for the simulation, the soak and tests."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

from sprockets_amqp.client import Client
from sprockets_amqp.recording.judge import Judge
from sprockets_amqp.recording.recorder import INTERVAL
from sprockets_amqp.recording.trace import Line, Trace, initial_states


class Recordings:
    """The traces of all clients that are made while it is entered."""

    def __init__(self) -> None:
        self.traces: list[Trace] = []

    def problems(self) -> list[str]:
        """Judge the traces, and say what is wrong with each, and where."""
        return [f"{trace.name}: {problem}" for trace in self.traces if (problem := problem_of(trace))]

    def record(self, client: Client) -> Callable[[Line | None], None]:
        """Begin a trace; return what receives its lines."""
        start = Line(0.0, states=initial_states(), client=client.name, process=os.getpid(), run="memory", part=1)
        trace = Trace(client.name, os.getpid(), [start])
        self.traces.append(trace)
        return lambda line: trace.lines.append(line) if line is not None else None


@functools.cache
def judge() -> Judge:
    """Return the judge of all traces: the more it has judged, the faster it is."""
    return Judge()


def problem_of(trace: Trace) -> str:
    """Say what is wrong with a trace, and what came before it; empty if nothing is."""
    finding = judge().judge(trace)
    if finding is None:
        return ""
    before = "".join(
        f"\n  {line.pull or dict(line.counters)}"
        for line in trace.lines[max(1, finding.number - 12) : finding.number + 1]
    )
    return f"{finding.words}: line {finding.number}{before}"


@contextlib.contextmanager
def recording(interval: float = INTERVAL) -> Iterator[Recordings]:
    """Record every client that is made meanwhile; the counters at such intervals, or 0: at the end."""
    recordings, make = Recordings(), Client._make_runtime  # noqa: SLF001

    def make_and_record(client: Client, io_loop: Any) -> Any:
        runtime = make(client, io_loop)
        runtime.record(recordings.record(client), interval)
        return runtime

    Client._make_runtime = make_and_record  # type: ignore[method-assign,assignment] # noqa: SLF001
    try:
        yield recordings
    finally:
        Client._make_runtime = make  # type: ignore[method-assign] # noqa: SLF001
