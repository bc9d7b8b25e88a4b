"""Traces are held against the declaration: what is declared passes, and nothing else does."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from sprockets_amqp import cli
from sprockets_amqp.drawing.declared import full_name
from sprockets_amqp.model import Model
from sprockets_amqp.proof.reaction import Reactions
from sprockets_amqp.recording.judge import Judge
from sprockets_amqp.recording.trace import Line, Pull, Trace, initial_states, written
from sprockets_amqp.states import CONNECTION, OUTAGE, OUTBOX, Closed, Connecting, Machine, Outage, State
from tools import recorded, simulate

OPENING: Final = "connecting (opening the connection)"
CHANNEL: Final = "connecting (opening the channel)"
BEGAN: Final = Pull("outage", "outage_began", "calm", "counting")
ENDED: Final = Pull("outage", "outage_ended", "counting", "calm")


def pull(trigger: str, source: str, dest: str = "", *then: Pull) -> Pull:
    """A trigger of the connection's."""
    return Pull("connection", trigger, source, dest, "", then)


#: What changes nothing: there is no outbox, nothing to renew, and no check.
STARTED: Final = Pull("outbox", "client_started", "off")
STOPPED: Final = Pull("outbox", "client_stopped", "off")
ACCEPTED: Final = Pull("renewal", "login_accepted", "nothing to renew")
GONE: Final = (
    Pull("renewal", "login_ended", "nothing to renew"),
    Pull("check", "publishing_ended", "no channel"),
    Pull("check", "connection_ended", "no channel"),
)
CONNECT: Final = pull("connect", "idle", OPENING, BEGAN, STARTED)
OPENED: Final = pull("connection_opened", OPENING, CHANNEL, ACCEPTED)
READY: Final = pull("channel_opened", CHANNEL, "ready", ENDED)
CHECKED: Final = Pull("check", "check_requested", "no channel", "running (opening)")
LOST: Final = pull("connection_closed", "ready", "closed (retrying)", BEGAN, *GONE)
STOP: Final = pull("stop", "closed (retrying)", "closed (stopped)", ENDED, STOPPED)


def trace(*steps: Pull | dict[str, int], part: int = 1, states: dict[str, str] | None = None) -> Trace:
    """A trace with these steps and counters."""
    start = Line(0.0, states=states or initial_states(), client="amqp", process=1, run="amqp-1", part=part)
    lines = [
        Line(1.0 + at, each) if isinstance(each, Pull) else Line(1.0 + at, counters=each)
        for at, each in enumerate(steps)
    ]
    return Trace("amqp", 1, [start, *lines])


@pytest.fixture
def judge() -> Judge:
    """One for all tests: the more it has judged, the faster it is."""
    return recorded.judge()


# What is declared


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (CONNECT, OPENED, READY, LOST),
        # Ignored: the caller gets an error; a trigger that may come there, and means nothing.
        (pull("close", "idle"), CONNECT, pull("connect", OPENING), STOP._replace(source=OPENING)),
        # Nothing is recorded of publishes, but that they wait, or are on the wire.
        (CONNECT, {"waiting": 3}, OPENED, READY, {"waiting": 3, "unconfirmed": 4}, LOST, {"waiting": 7}),
        # What a publisher asks for in the course of something else.
        (CONNECT, OPENED, READY._replace(then=(CHECKED, ENDED))),
    ],
)
def test_what_is_declared_passes(judge: Judge, steps: tuple[Pull | dict[str, int], ...]) -> None:
    """Whatever is not recorded may have happened as well."""
    assert judge.judge(trace(*steps)) is None


@pytest.mark.xdist_group("judge")
def test_a_trace_that_begins_in_the_middle_may_begin_anywhere(judge: Judge) -> None:
    """Where the states can be reached together."""
    states = {**initial_states(), "connection": "ready"}
    assert judge.judge(trace(LOST, part=7, states=states)) is None
    impossible = {**states, "outage": "persistent"}
    found = judge.judge(trace(part=7, states=impossible))
    assert found is not None and found.words.startswith("these states cannot be reached together: connection ready")


# What is not

WRONG: Final[dict[str, tuple[tuple[Pull | dict[str, int], ...], str]]] = {
    "an unknown machine": ((Pull("engine", "start", "off", "on"),), "the declaration has no machine 'engine'"),
    "an unknown trigger": ((pull("explode", "idle", OPENING),), "the connection has no trigger 'explode'"),
    "an unknown state": ((pull("connect", "idle", "broken"),), "the connection has no state 'broken'"),
    "a state that was set by hand": (
        (CONNECT, OPENED._replace(source="ready", dest=CHANNEL)),
        f"the connection was left in {OPENING}, and is found in ready",
    ),
    "a row that there is not": (
        (CONNECT, OPENED._replace(dest="ready")),
        f"no row of the connection leads from {OPENING} to ready by connection_opened",
    ),
    "a row that was not used": (
        (CONNECT, OPENED._replace(dest="", then=())),
        "connection.connection_opened changed nothing",
    ),
    "a machine that did not follow": (
        (CONNECT, OPENED, READY._replace(then=())),
        "what follows connection.channel_opened here is: outage.outage_ended",
    ),
    "a machine that followed and did nothing": (
        (CONNECT, OPENED, READY._replace(then=(ENDED._replace(dest=""),))),
        "what connection.channel_opened does here is: connection.channel_opened to ready, then outage.outage_ended",
    ),
    "a machine that followed for no reason": (
        (CONNECT, OPENED._replace(then=(ENDED, ACCEPTED))),
        "outage.outage_ended is not pulled in the course of connection.connection_opened",
    ),
    "machines that followed in another order": (
        (CONNECT, OPENED, READY, LOST._replace(then=(*GONE, BEGAN))),
        "what follows connection.connection_closed here is: outage.outage_began, renewal.login_ended, check.publishing",
    ),
    "something in the course of what changes nothing": (
        (CONNECT, pull("close", OPENING, "", CHECKED)),
        "check.check_requested is not pulled in the course of connection.close",
    ),
    "something else in the course of it": (
        (CONNECT, OPENED, READY._replace(then=(Pull("connection", "stop", "ready"), ENDED))),
        "connection.stop is not pulled in the course of connection.channel_opened",
    ),
    "counters that fall": (
        (CONNECT, OPENED, READY, {"published": 5, "failed": 3}, {"published": 5, "failed": 2}),
        "failed fell from 3 to 2",
    ),
    "messages that were published without a channel": (
        (CONNECT, {"published": 1}),
        "messages were published, and there was no channel",
    ),
    "messages that were published after the channel was lost": (
        (CONNECT, OPENED, READY, LOST, {"published": 5}, {"published": 6}),
        "messages were published, and there was no channel",
    ),
    "confirms of nothing": (
        (CONNECT, OPENED, READY, {"published": 1, "confirmed": 1, "nacked": 1}),
        "more messages were confirmed or nacked than published",
    ),
    "messages that were set aside without an outbox": (
        (CONNECT, {"set_aside": 2}),
        "set_aside is 2, and there is no outbox",
    ),
    "an event that cannot happen there": (
        # The channel for checks is opened before anybody asked for one: the row is there, and the event is not.
        (CONNECT, OPENED, READY, CHECKED, Pull("check", "old_channel_closed", "running (opening)")),
        "check.old_channel_closed changed nothing, where a row applies, or where it cannot happen",
    ),
    "an answer without a question": (
        (CONNECT, pull("connection_blocked", OPENING)),
        "connection.connection_blocked changed nothing, where a row applies, or where it cannot happen",
    ),
    "messages that wait where nothing can": (
        (CONNECT, OPENED, READY, LOST, STOP, {"waiting": 1}),
        "1 messages wait, where nothing can wait",
    ),
    "messages on the wire without a channel": (
        (CONNECT, OPENED, READY, LOST, {"unconfirmed": 2}),
        "2 messages are unconfirmed, where nothing can be",
    ),
    "stored messages without an outbox": (
        (CONNECT, {"stored": 2}),
        "stored is 2, and there is no outbox",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_declared_is_found(judge: Judge, what: str) -> None:
    """At its line, and in words."""
    steps, words = WRONG[what]
    found = judge.judge(trace(*steps))
    assert found is not None
    assert found.words.startswith(words), found.words
    assert found.number == len(steps)


def test_files_that_do_not_fit_each_other_are_found(judge: Judge) -> None:
    """What one ends with, the next begins with."""
    whole = trace(CONNECT)
    whole.lines.append(Line(9.0, states=initial_states(), client="amqp", process=1, run="amqp-1", part=2))
    found = judge.judge(whole)
    assert found is not None and found.words.startswith("the last file ended in other states: connection connecting")


# Every step that the declaration has


def recorded_as(judge: Judge, rows: tuple[tuple[str, Any], ...], states: dict[str, str]) -> Pull:
    """The rows of a step as a recorder has them: with what is asked for, and what follows and changes nothing."""
    pulls = {name: Pull(name, row.trigger, states[name], full_name(row.dest)) for name, row in rows}
    first = pulls.pop("connection" if "connection" in pulls else rows[0][0])
    follows = judge._follows(first)
    after = dict(states)
    then = [each for each in pulls.values() if (each.machine, each.trigger) not in follows]
    after |= {each.machine: each.dest for each in then}
    for name, trigger in follows:
        its = pulls.get(name)
        pull = its if its is not None and its.trigger == trigger else Pull(name, trigger, after[name])
        then.append(pull._replace(source=after[name]))
        after[name] = pull.dest or after[name]
    return first._replace(then=tuple(then))


@pytest.mark.xdist_group("judge")
def test_each_step_that_is_explored_is_one_that_is_recognised(judge: Judge) -> None:
    """From worlds that are known by their states alone: what the explorer does there, the judge takes for declared."""
    reactions = Reactions()
    names = list(reactions.machines)
    assert judge.judge(trace(part=2)) is None
    taken = 0
    for key, worlds in sorted(judge._all.items())[::20]:
        states = dict(zip(names, key, strict=True))
        for world in itertools.islice(worlds, 3):
            steps = [step for event, _ in reactions.events(world) for step in reactions.react(world, event)]
            for rows in {step.rows for step in steps if step.rows}:
                if len({name for name, _ in rows}) == len(rows):
                    whole = trace(recorded_as(judge, rows, states), part=2, states=states)
                    assert judge.judge(whole) is None
                    taken += 1
    assert taken > 500


# Real clients


def _without(machine: Machine, trigger: str, dest: Any) -> Machine:
    rows = [row for row in machine.rows if (row.trigger, row.dest) != (trigger, dest)]
    assert len(rows) < len(machine.rows)
    return dataclasses.replace(machine, rows=rows)


def _led_elsewhere(machine: Machine, trigger: str, source: Any, dest: Any) -> Machine:
    rows = [
        dataclasses.replace(row, dest=dest) if row.trigger == trigger and source in row.source else row
        for row in machine.rows
    ]
    assert rows != list(machine.rows)
    return dataclasses.replace(machine, rows=rows)


DEFECTS: Final[dict[str, tuple[Machine, Callable[[Machine], Machine]]]] = {
    "an outage does not become persistent": (
        OUTAGE,
        lambda machine: _without(machine, "outage_lasted", Outage.PERSISTENT),
    ),
    "a lost connection is taken for a stop": (
        CONNECTION,
        lambda machine: _led_elsewhere(machine, "connection_closed", State.READY, Closed.STOPPED),
    ),
    "an alarm is not noticed": (CONNECTION, lambda machine: _without(machine, "connection_blocked", State.BLOCKED)),
    "a channel is opened without a delay": (
        CONNECTION,
        lambda machine: _led_elsewhere(machine, "channel_closed", State.READY, Connecting.OPENING_CHANNEL),
    ),
    "the outage follows another mark": (
        OUTAGE,
        lambda machine: dataclasses.replace(
            machine, follows=[dataclasses.replace(follow, mark="connected") for follow in machine.follows]
        ),
    ),
    "the outbox does not close": (
        OUTBOX,
        lambda machine: dataclasses.replace(
            machine, rows=[row for row in machine.rows if row.trigger != "client_stopped"]
        ),
    ),
}


@pytest.mark.planted
@pytest.mark.parametrize("what", DEFECTS)
def test_a_planted_defect_is_found_in_a_trace(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Of a client to which anything may happen: see tools/simulate.py."""
    machine, change = DEFECTS[what]
    for model in Model.__subclasses__():
        if model.machine is machine:
            monkeypatch.setattr(model, "machine", change(machine))
    for seed in range(200):
        with recorded.recording() as recordings:
            world = simulate.World(seed)
            with contextlib.suppress(Exception):
                world.run()
            with contextlib.suppress(Exception):
                world.close()
        if recordings.problems():
            return
    pytest.fail("no trace shows it")


@pytest.mark.planted
def test_the_simulation_fails_where_a_trace_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """It judges what it has recorded."""
    monkeypatch.setattr(recorded, "problem_of", lambda _trace: "something is wrong")
    assert simulate.simulate(0).endswith("something is wrong")


# The command


def write(path: Path, whole: Trace) -> None:
    """Write a trace into a file."""
    path.write_bytes(b"".join(map(written, whole.lines)))


def test_the_command_says_what_is_wrong_and_shows_what_is_around_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says of each other trace that it is right."""
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    write(good, trace(CONNECT, OPENED, READY, LOST))
    assert cli.main(["verify", str(good)]) == 0
    assert capsys.readouterr().out == (
        "amqp 1: 4 steps, each of them declared, and all that must hold along them holds\n"
    )
    hostile = READY._replace(then=(), reason="\x1b[31m")
    write(bad, trace(CONNECT, {"failed": 2}, OPENED, hostile, LOST))
    assert cli.main(["verify", str(bad)]) == 1
    first, *around = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "amqp 1: does not hold: what follows connection.channel_opened here is: outage.outage_ended"
    )
    assert [line[15:] for line in around if line.startswith(">")] == [
        f"connection.channel_opened: {CHANNEL} -> ready; \\x1b[31m"
    ]
    assert [line for line in around if "2 failed" in line]


@pytest.mark.parametrize(("content", "status"), [(b"nonsense\n", 2), (None, 1)])
def test_what_is_no_trace_is_bad_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, status: int
) -> None:
    """And a file that is not there is a failure."""
    path = tmp_path / "trace.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["verify", str(path)]) == status
    assert str(path) in capsys.readouterr().err
