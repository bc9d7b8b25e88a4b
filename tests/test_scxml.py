"""The machines as SCXML, in another engine: it goes where the declaration goes."""

import re
import xml.etree.ElementTree as ET
from typing import Any, Final

import pytest
from statemachine.io import load

from sprockets_amqp import cli
from sprockets_amqp.drawing.scxml import guards, identifier, scxml
from sprockets_amqp.proof.explore import Edge, Graph
from sprockets_amqp.states import MACHINES
from sprockets_amqp.states.effects import GUARDS
from sprockets_amqp.states.world import World
from tools import held

BACKLOG: Final = "outbox.backlog_began"
SCXML: Final = "{http://www.w3.org/2005/07/scxml}"


def test_the_command_line_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    """All machines, as one document that says where it comes from."""
    assert cli.main(["diagram", "--format", "scxml"]) == 0
    said = capsys.readouterr().out
    assert said == scxml()
    root = ET.fromstring(said)  # noqa: S314 - it is the package's own
    regions = [each.get("id") for each in root.findall(f"{SCXML}parallel/{SCXML}state")]
    assert regions == [machine.name for machine in MACHINES]


def test_everything_declared_is_in_it() -> None:
    """Each state, each row from each of its states, each action, timer and guard."""
    root = ET.fromstring(scxml())  # noqa: S314
    ids = {each.get("id") for each in root.iter(f"{SCXML}state")}
    for machine in MACHINES:
        assert {identifier(machine, state) for state in machine.declared} < ids
        logged = {each.get("label") for each in root.iter(f"{SCXML}log")}
        assert {
            action.name for each in machine.declared.values() for action in (*each.on_enter, *each.on_exit)
        } <= logged
        sent = {each.get("event") for each in root.iter(f"{SCXML}send")}
        limits = [each.timeout for each in machine.declared.values() if each.timeout]
        assert {f"{machine.name}.{limit.trigger}" for limit in limits} <= sent
    assert {each.get("id") for each in root.iter(f"{SCXML}data")} >= set(guards())
    assert len(list(root.iter(f"{SCXML}cancel"))) == len(list(root.iter(f"{SCXML}send")))


def engine() -> Any:
    """Load the document into the other engine, without timers: it would wait for them."""
    document = re.sub(r"<(send|cancel) [^>]*/>", "", scxml())
    return load(document, format="scxml")()


def is_in(machine: Any) -> set[str]:
    """Return the states that the other engine is in, without those around them."""
    around = {"machines", *(each.name for each in MACHINES)}
    around |= {identifier(each, outer.state) for each in MACHINES for outer in each.states if outer.substates}
    return {state.id for state in machine.configuration} - around


def expected(world: World) -> set[str]:
    """Return the states of a world, as the document names them."""
    return {identifier(machine, getattr(world, machine.name)) for machine in MACHINES}


def take(machine: Any, graph: Graph, number: int, edge: Edge) -> None:
    """Have the other engine take a step, with the same answers of guards."""
    step = edge.step
    world = graph.worlds[number]
    changed = step.event.then(world) if callable(step.event.then) else step.event.then
    asked = world._replace(**{name: value for name, value in changed.items() if name in World._fields})  # type: ignore[arg-type]
    answers = {name: guard(asked) for name, guard in GUARDS.items()} | dict(step.assumed)
    for name in guards():
        setattr(machine.model, name, "yes" if answers.get(name) else "no")
    if step.event.learns:
        machine.send(step.event.learns)
    if step.event.learns != BACKLOG and any(f"{name}.{row.trigger}" == BACKLOG for name, row in step.rows):
        # What an action stores, the outbox learns of: actions are only logged there.
        machine.send(BACKLOG)


def test_another_engine_goes_the_same_ways() -> None:
    """The shortest way to each row, and all that comes on it."""
    rows: set[int] = set()
    for part in held.PARTS:
        graph = held.explored(part)
        for number, edges in enumerate(graph.edges):
            for edge in edges:
                new = {id(row) for _, row in edge.step.rows} - rows
                if new:
                    rows |= new
                    go(graph, number, edge)
    assert rows == {id(row) for machine in MACHINES for row in machine.rows}


def go(graph: Graph, number: int, last: Edge) -> None:
    """Go the shortest way to a world, and one step on, with the other engine."""
    way = [last]
    at = number
    while (parent := graph.parents[at]) is not None:
        before, step = parent
        way.append(next(edge for edge in graph.edges[before] if edge.step is step or edge.step == step))
        at = before
    machine, here = engine(), at
    for edge in reversed(way):
        take(machine, graph, here, edge)
        here = edge.dest
        assert is_in(machine) == expected(graph.worlds[here]), edge.step.event.words
