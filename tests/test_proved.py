"""The declaration is proved, and the checker that proves it finds what is wrong."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import pytest
from transitions.extensions import HierarchicalMachine

from sprockets_amqp import cli, model
from sprockets_amqp.drawing import ways
from sprockets_amqp.proof import verify
from sprockets_amqp.proof.explore import Graph, components, explore
from sprockets_amqp.proof.judge import Finding, found_at
from sprockets_amqp.proof.ledger import found_in_ledger
from sprockets_amqp.proof.reaction import NOTHING, Reactions
from sprockets_amqp.states import (
    CONNECTION,
    LEDGER,
    MACHINES,
    OUTAGE,
    OUTBOX,
    RENEWAL,
    Closed,
    Closing,
    Connecting,
    Declared,
    Follow,
    Ignore,
    Machine,
    Outage,
    Outbox,
    Place,
    Renewal,
    Row,
    State,
)
from sprockets_amqp.states import events as events_module
from sprockets_amqp.states.effects import COUNTED, EFFECTS, FREE, GUARDS, REPUBLISHES, TOUCHES
from sprockets_amqp.states.events import EVENTS
from sprockets_amqp.states.world import World  # noqa: TC001
from tools import defects, proved

#: Of the defects that the checker is said to find, every so many-th is looked for again.
SAMPLE: Final = 25


T = TypeVar("T")


def changed(thing: T, **parts: object) -> T:
    """Change parts of a declaration."""
    made: T = dataclasses.replace(cast("Any", thing), **parts)
    return made


def instead(machine: Machine) -> list[Machine]:
    """Put a machine in the place of the declared one of its name."""
    return [machine if each.name == machine.name else each for each in MACHINES]


def found(machine: Machine) -> Finding:
    """Return what the checker finds."""
    finding = defects.first_finding(instead(machine))
    assert finding is not None
    return finding


def told(machine: Machine) -> str:
    """Return what is said of what the checker finds."""
    return ways.told(found(machine))


# Everything holds


@pytest.mark.xdist_group("proof")
def test_everything_that_must_hold_holds(capsys: pytest.CaptureFixture[str]) -> None:
    """In all that can happen; and the command line says so, in numbers."""
    assert cli.main(["verify"]) == 0
    summary = capsys.readouterr().out
    numbers = proved.read()
    assert f"{numbers['machines']} machines: {numbers['states']:,} states together" in summary
    assert f"{numbers['worlds']:,} with the world around them, {numbers['steps']:,} steps" in summary
    count = len(verify.PROPERTIES)
    assert f"{count} of {count} properties hold" in summary


def test_the_properties_are_sentences_each_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """They are printed without proving anything."""
    assert cli.main(["verify", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [each.words for each in verify.PROPERTIES]
    assert len(set(lines)) == len(lines) > 50
    assert all(line.endswith(".") for line in lines)


def test_what_may_be_ignored_is_declared_in_few_lines() -> None:
    """By group, each with the reason."""
    ignored = [each for machine in MACHINES for each in machine.ignores]
    assert 0 < len(ignored) <= 20
    assert all(each.why for each in ignored)


# What is wrong is found


def closing_again() -> Machine:
    """The time for closing begins again whenever RabbitMQ blocks, or stops blocking."""

    def change(declared: Declared) -> Declared:
        if declared.state is not State.CLOSING:
            return declared
        inner = {Closing.DRAINING, Closing.PAUSED}
        substates = [
            changed(each, timeout=declared.timeout) if each.state in inner else each for each in declared.substates
        ]
        return changed(declared, timeout=None, substates=substates)

    return changed(CONNECTION, states=[change(each) for each in CONNECTION.states])


def connecting_at_once() -> Machine:
    """A connection that is lost is opened again without a delay."""
    drop = CONNECTION.declared[State.CLOSED].on_enter[0]
    rows = [
        changed(row, dest=Connecting.OPENING_CONNECTION, before=drop)
        if (row.trigger, row.dest) == ("connection_closed", Closed.RETRYING)
        else row
        for row in CONNECTION.rows
    ]
    return changed(CONNECTION, rows=rows)


def test_a_livelock_is_found_that_an_end_can_be_reached_from_at_any_time() -> None:
    """Alarms may come and go for ever: the limit is never over, though it runs all the time."""
    finding = found(closing_again())
    assert finding.words == "A client that closes is closed, whatever happens."
    assert [step.event.words for step in finding.cycle] == ["RabbitMQ blocks publishing", "RabbitMQ blocks no longer"]
    assert finding.path[-1].world.connection is Closing.DRAINING


def test_a_busy_loop_is_found() -> None:
    """RabbitMQ accepts each connection, and drops it."""
    finding = found(connecting_at_once())
    assert finding.words == "The client does not connect again and again without a delay."
    assert "the connection is lost" in [step.event.words for step in finding.cycle]
    assert all(step.event.kind not in {"delay", "limit", "request"} for step in finding.cycle)


def test_the_shortest_way_is_told_and_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """In the words of the declaration; the exit status says that something is wrong."""
    monkeypatch.setattr(verify, "prove", lambda: verify.Proof(Graph(Reactions()), [found(closing_again())], 1.0))
    assert cli.main(["verify", "--output", str(tmp_path / "new")]) == 1
    said = capsys.readouterr().out
    assert "\nDoes not hold: A client that closes is closed, whatever happens.\n" in said
    assert "5. the application closes: connection ready -> closing (draining)\n" in said
    assert (
        "again and again:\n      - RabbitMQ blocks publishing: connection closing (draining) -> closing (paused)"
        in said
    )
    drawn = (tmp_path / "new" / "violation-1.mmd").read_text()
    assert said.endswith(f"drawn: {tmp_path / 'new' / 'violation-1.mmd'}\n")
    assert drawn.startswith("stateDiagram-v2\n")
    assert "    w6 --> w7 : RabbitMQ blocks publishing\n" in drawn
    assert "    w7 --> w6 : RabbitMQ blocks no longer\n" in drawn


def without(rows: Sequence[Row], *triggers: str) -> list[Row]:
    """Leave out the rows of some triggers."""
    return [row for row in rows if row.trigger not in triggers]


def test_all_findings_are_told_before_they_are_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A folder that cannot be written to hides none; what is no property is counted besides."""
    findings = [found(connecting_at_once()), Finding("It never happens that it rains."), found(closing_again())]
    monkeypatch.setattr(verify, "prove", lambda: verify.Proof(Graph(Reactions()), findings, 1.0))
    (tmp_path / "file").touch()
    assert cli.main(["verify", "--output", str(tmp_path / "file")]) == 1
    said = capsys.readouterr()
    assert said.out.count("Does not hold: ") == len(findings)
    count = len(verify.PROPERTIES)
    assert f"{count - 2} of {count} properties hold, and 1 more thing is wrong; explored" in said.out
    assert "File exists" in said.err


def test_a_way_that_is_drawn_has_labels_that_mermaid_reads() -> None:
    """A semicolon or a colon would end one."""
    rows = [row for row in RENEWAL.rows if row.trigger != "renewal_failed"]
    drawn = ways.drawn(found(changed(RENEWAL, rows=rows)))
    assert "after a failure" in drawn
    labels = [line.partition(" : ")[2] for line in drawn.splitlines()]
    assert not any(mark in label for label in labels for mark in ":;")


#: What is wrong with a machine, and what is said of it.
WRONG: Final[dict[str, tuple[Machine, str]]] = {
    "an answer that is not taken note of": (
        changed(
            OUTBOX,
            rows=[row for row in OUTBOX.rows if (row.trigger, row.dest) != ("files_opened", Outbox.CLEAR)],
            ignores=[*OUTBOX.ignores, Ignore(("files_opened",), (Outbox.OPENING, Outbox.FAILING), "no reason")],
        ),
        "A client that closes is closed once all is confirmed, without waiting for a limit.",
    ),
    "an event that guards forbid": (
        changed(
            RENEWAL,
            rows=[row for row in RENEWAL.rows if (row.trigger, row.dest) != ("secret_accepted", Renewal.NONE)],
        ),
        "renewal.secret_accepted may happen, but no row applies, and it is not declared as ignored.",
    ),
    "a limit that begins again whenever a connection comes or goes": (
        changed(
            OUTAGE,
            follows=[*OUTAGE.follows, Follow("connected", entered="outage_changed", left="outage_changed")],
            rows=[*OUTAGE.rows, Row("outage_changed", (Outage.COUNTING,), Outage.COUNTING)],
        ),
        "An outage ends or becomes persistent, whatever happens.",
    ),
    "a guard that asks for what its machine does not touch": (
        changed(
            RENEWAL,
            rows=[changed(row, unless="blocking") if row.trigger == "renewal_due" else row for row in RENEWAL.rows],
        ),
        "renewal.renewal_due may happen, but no row applies, and it is not declared as ignored.",
    ),
    "a missing row": (
        changed(CONNECTION, rows=without(CONNECTION.rows, "access_expired")),
        "connection.access_expired may happen, but no row applies, and it is not declared as ignored.",
    ),
    "an event that is ignored and never happens": (
        changed(CONNECTION, ignores=[*CONNECTION.ignores, Ignore(("drained",), (State.READY,), "no reason")]),
        "connection.drained never happens in READY, where it is ignored.",
    ),
    "a row that nothing reaches": (
        changed(CONNECTION, rows=[*CONNECTION.rows, Row("node_due", (State.READY,), Closing.DRAINING)]),
        "The connection's row node_due to DRAINING is never used from READY.",
    ),
    "a delay that is never over": (
        changed(
            CONNECTION,
            states=[
                changed(each, substates=[changed(sub, timeout=None) for sub in each.substates])
                if each.state is State.CLOSED
                else each
                for each in CONNECTION.states
            ],
        ),
        "A client that is wanted becomes ready, once nothing is wrong any more.",
    ),
    "an order of rows in which a guard is never asked": (
        changed(OUTBOX, rows=sorted(OUTBOX.rows, key=lambda row: bool(row.conditions))),
        "Nothing is left to send while the outbox is clear, unless the client is stopping.",
    ),
}


@pytest.mark.xdist_group("proof")
@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(what: str) -> None:
    """Each kind of it."""
    machine, words = WRONG[what]
    assert words in told(machine)


# Of the defects that the tests plant, the checker finds most


def test_each_defect_was_looked_for() -> None:
    """`python -m tools.defects` keeps what was found."""
    assert list(defects.read()) == [str(each) for each in defects.DEFECTS]


def test_the_checker_alone_finds_most() -> None:
    """Of the defects of all declared machines, the ledger's included."""
    assert sum(map(bool, defects.read().values())) >= 0.6 * len(defects.DEFECTS)


@pytest.mark.xdist_group("proof")
@pytest.mark.parametrize(
    "defect", [each for each in defects.DEFECTS if defects.read().get(str(each))][::SAMPLE], ids=str
)
def test_a_defect_is_found(defect: defects.Defect) -> None:
    """The same is said of it as when it was kept."""
    assert defects.found_by_the_checker(defect) == defects.read()[str(defect)]


# What is declared about the world is complete


def test_every_action_has_an_effect_or_is_said_to_have_none() -> None:
    """One of the five machines cannot do what the checker does not know."""
    for machine in MACHINES:
        states = machine.declared.values()
        actions = {action.name for each in states for action in (*each.on_enter, *each.on_exit)}
        actions |= {row.before.name for row in machine.rows if row.before}
        assert EFFECTS[machine.name].keys() == actions
    silent = {
        name
        for its in EFFECTS.values()
        for name, effect in its.items()
        if effect is EFFECTS["connection"]["tell_ready"]
    }
    assert all(name.startswith(("tell_", "forget_", "note_")) for name in silent)


def test_every_guard_is_decided_by_the_world_or_is_free() -> None:
    """And not both."""
    guards = {guard for machine in MACHINES for row in machine.rows for guard in (row.conditions, row.unless) if guard}
    assert guards == GUARDS.keys() | FREE.keys()
    assert not guards & REPUBLISHES.keys()
    assert not GUARDS.keys() & FREE.keys()
    assert FREE.keys() >= set(COUNTED)
    assert all(FREE.values())


def test_every_event_is_known_by_its_words_and_pulls_what_a_machine_knows() -> None:
    """Rows or ignored events are there for it."""
    assert len({event.words for event in EVENTS}) == len(EVENTS)
    machines = {machine.name: machine for machine in MACHINES}
    for event in EVENTS:
        if event.learns:
            assert event.trigger in {row.trigger for row in machines[event.machine].rows}


def test_every_event_of_the_module_happens() -> None:
    """None is left out of the list of all."""
    groups = [value for value in vars(events_module).values() if isinstance(value, tuple)]
    declared = {each for group in groups for each in group if isinstance(each, events_module.Event)}
    assert declared == set(EVENTS)


def test_what_a_machine_touches_is_all_that_decides_about_its_events() -> None:
    """Whatever else is so, the same happens: what the checker need not try again is as if it were tried."""
    graph = explore(Reactions(), allows=lambda event: event.kind != "fault" or event.machine == "check")
    reactions = Reactions()
    for world in graph.worlds[:: max(1, len(graph.worlds) // 400)]:
        for event, _ in reactions.events(world):
            if event.machine in TOUCHES:
                assert reactions.react(world, event) == reactions._react(world, event)


def test_an_action_without_an_effect_changes_nothing() -> None:
    """So a defect may name an action that is not declared."""
    assert NOTHING.then(Reactions().beginnings()[0]) == {}


# The meaning of the declaration is that of transitions


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_a_machine_reacts_as_transitions_runs_it(machine: Machine) -> None:
    """Each trigger in each state, with each answer of its guards: the same actions, in the same order."""
    reactions = Reactions()
    triggers = sorted({row.trigger for row in machine.rows})
    for state, trigger in itertools.product(machine.lasting, triggers):
        moves = reactions.moves(machine.name, state, trigger)
        guards = sorted({guard for move in moves for guard in (move.row.conditions, move.row.unless) if guard})
        for said in itertools.product((True, False), repeat=len(guards)):
            answers = dict(zip(guards, said, strict=True))
            allowed = [move for move in moves if _allows(move.row, answers)]
            recorder = _recorder(machine, state, answers)
            done = bool(moves) and getattr(recorder, trigger)()
            assert done is bool(allowed)
            if allowed:
                declared = [name for (_, name), _ in (*allowed[0].before, *allowed[0].after)]
                assert (recorder.state, recorder.deeds) == (allowed[0].row.dest, declared)


def _allows(row: Row, answers: dict[str, bool]) -> bool:
    return (not row.conditions or answers[row.conditions]) and not (row.unless and answers[row.unless])


def _recorder(machine: Machine, state: Any, answers: dict[str, bool]) -> Any:
    """Make an object that `transitions` drives as declared; it records what it is told to do."""
    deeds: list[str] = []
    states = machine.declared.values()
    actions = {action.name for each in states for action in (*each.on_enter, *each.on_exit)}
    actions |= {row.before.name for row in machine.rows if row.before}
    methods: dict[str, Any] = {name: lambda _self, name=name: deeds.append(name) for name in actions}
    guards = {guard for row in machine.rows for guard in (row.conditions, row.unless) if guard}
    methods |= {name: lambda _self, name=name: answers[name] for name in guards}
    recorder: Any = type("Recorder", (), {**methods, "deeds": deeds})()
    kind = type("Kind", (HierarchicalMachine,), {"state_cls": model._State})
    kind(
        model=recorder,
        states=[_named(each) for each in machine.states],
        transitions=[model._transition(row) for row in machine.rows],
        initial=machine.initial,
        auto_transitions=False,
    )
    deeds.clear()
    recorder.state = state
    return recorder


def _named(declared: Declared) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": declared.state,
        "on_enter": [action.name for action in declared.on_enter],
        "on_exit": [action.name for action in declared.on_exit],
    }
    children = [_named(each) for each in declared.substates]
    return {**made, "children": children} if children else made


# The explorer


def test_components_are_found_without_recursion() -> None:
    """A long chain, a circle, and a world that leads to itself."""
    edges: dict[int, list[int]] = {number: [number + 1] for number in range(5_000)}
    edges[5_000] = [4_990]
    edges[6_000] = [6_000]
    groups = list(components([0, 6_000], lambda number: edges.get(number, [])))
    assert [4_990, *range(4_991, 5_001)] in [sorted(each) for each in groups]
    assert [6_000] in groups
    assert len(groups) == 4_990 + 1 + 1


def test_the_first_way_to_a_world_is_the_shortest() -> None:
    """Worlds are found in the order of the fewest steps."""
    graph = explore(Reactions(), allows=lambda event: event.machine in {"", "connection"})
    lengths = [len(graph.path(number)) for number in range(len(graph.worlds))]
    assert lengths == sorted(lengths)
    number = next(number for number, world in enumerate(graph.worlds) if world.connection is State.READY)
    assert [step.event.words for step in graph.path(number)] == [
        "the application connects",
        "RabbitMQ accepts the connection",
        "RabbitMQ opens the channel",
    ]


def test_an_exploration_ends_where_it_is_told_to() -> None:
    """What is asked of worlds is asked in their order."""
    seen: list[World] = []

    def visit(graph: Graph, number: int) -> bool:
        seen.append(graph.worlds[number])
        return len(seen) < 5

    graph = explore(Reactions(), visit=visit)
    assert (len(seen), len(graph.edges)) == (5, 5)
    assert [finding for number in range(5) for finding in found_at(graph, number)] == []


# A stored message


def test_what_is_wrong_with_a_place_or_a_move_is_said() -> None:
    """Marks, columns, and what is never reached or never goes."""
    assert list(found_in_ledger()) == []
    rows = [row for row in LEDGER.rows if row.trigger != "deleted"]
    said = [each.words for each in found_in_ledger(changed(LEDGER, rows=rows))]
    assert "No message ever makes the move deleted." in said
    wrong = [changed(row, dest=Place.GONE) if row.trigger == "nacked" else row for row in LEDGER.rows]
    said = [each.words for each in found_in_ledger(changed(LEDGER, rows=wrong))]
    assert said[0].startswith("The move nacked makes of a message that is ('on disk', 'on the wire') one that is")
    assert "No message is ever ('on disk', 'deferred')." in said
