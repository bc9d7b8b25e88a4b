"""A page that replays what was recorded: one file, which needs no network."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tornado.template import Loader

from sprockets_amqp.drawing.picture import STYLE, svg
from sprockets_amqp.recording.told import outcome_in
from sprockets_amqp.recording.trace import Pull, Trace, initial_states
from sprockets_amqp.states import CONNECTION, MACHINES
from sprockets_amqp.text import shown

STATIC: Final = Path(__file__).with_name("static")

#: What is in the page is all there is.
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'"

_TEMPLATES: Final = Loader(str(STATIC), autoescape="xhtml_escape")


def page(traces: Iterable[Trace], since: float, until: float) -> str:
    """Return the page for what happened from one time until another, in seconds since 1970."""
    recorded = {"from": since, "to": until, "traces": [_trace(trace, since, until) for trace in traces]}
    # A script ends with the first "</script", whatever it is part of.
    data = json.dumps(recorded, separators=(",", ":")).replace("<", "\\u003c")
    return (
        _TEMPLATES.load("replay.html")
        .generate(
            policy=POLICY,
            style="".join((_file("page.css"), _file("timeline.css"), _file("replay.css"), STYLE)),
            script=_file("timeline.js") + _file("replay.js"),
            connection=svg(),
            followers={machine.name: svg(machine=machine) for machine in MACHINES if machine is not CONNECTION},
            recorded=data,
        )
        .decode()
    )


def _file(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def _trace(trace: Trace, since: float, until: float) -> dict[str, Any]:
    """Return what the script needs: the states at the beginning, the steps, and the counters where they change."""
    states = {**initial_states(), **{name: shown(state) for name, state in trace.lines[0].states.items()}}
    before, begins = dict(states), max(since, trace.lines[0].at)
    steps: list[dict[str, Any]] = []
    # A client begins with counters that are 0.
    samples: list[tuple[float, dict[str, int]]] = [(trace.lines[0].at, {})] if trace.is_whole else []
    for at, line in trace.moments():
        pulls = list(line.pull.flat()) if line.pull is not None else []
        states |= {pull.machine: shown(pull.dest) for pull in pulls if pull.dest}
        if at < since:
            before = dict(states)
        if line.counters and at <= until:
            counts = {name: count for name, count in line.counters.items() if count}
            if len(samples) > 1 and samples[-1][1] == samples[-2][1] == counts:
                # Where nothing changes, the first and the last will do.
                samples.pop()
            samples.append((at, counts))
        if pulls and since <= at <= until:
            steps.append({"at": at, "outcome": outcome_in(states), "pulls": [_pull(pull) for pull in pulls]})
    return {
        "name": shown(trace.name),
        "begins": begins,
        "states": before,
        "outcome": outcome_in(before),
        "steps": steps,
        "samples": [sample for index, sample in enumerate(samples) if _is_near(samples, index, since)],
    }


def _is_near(samples: list[tuple[float, dict[str, int]]], index: int, since: float) -> bool:
    """Return whether a sample is within the time, or the last one before it."""
    return samples[index][0] >= since or index + 1 == len(samples) or samples[index + 1][0] >= since


def _pull(pull: Pull) -> list[str]:
    return [shown(each) for each in (pull.machine, pull.trigger, pull.source, pull.dest, pull.reason)]
