"""Whether what must hold does hold: each property in each world, with the shortest way to where it does not."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from sprockets_amqp.states import Machine
from sprockets_amqp.states.effects import EFFECTS
from sprockets_amqp.states.events import EVENTS
from sprockets_amqp.states.properties import ALWAYS, LEADS_TO, PACED, LeadsTo, Paced
from sprockets_amqp.states.world import World

from .explore import Edge, Graph, components
from .reaction import COUNTING, Step, Timer

#: The steps from each of some worlds to others of them.
Inner = dict[int, list[Edge]]
#: Steps with which a circle that is shown may begin: the rest are like them.
MOST: Final = 200


class Finding(NamedTuple):
    """Something that does not hold.

    Attributes:
        words: what does not.
        path: the shortest way to it.
        cycle: what may go on for ever there, if that is what is wrong.
        stays: whether nothing need happen any more there, and that is what is wrong.
    """

    words: str
    path: tuple[Step, ...] = ()
    cycle: tuple[Step, ...] = ()
    stays: bool = False


def found_at(graph: Graph, number: int) -> Iterator[Finding]:
    """Yield what is wrong in a world, and with what may happen there."""
    world = graph.worlds[number]
    for each in ALWAYS:
        if not each.holds(world):
            yield _finding(graph, number, each.words)
    for step, _dest, _timer in graph.edges[number]:
        if step.wrong:
            yield _finding(graph, number, step.wrong, step)
        if step.unused and not is_ignored(graph.reactions.machines[step.event.machine], world, step):
            words = f"{step.event.learns} may happen, but no row applies, and it is not declared as ignored."
            yield _finding(graph, number, words, step)


def found_at_last(graph: Graph) -> Iterator[Finding]:
    """Yield what does not come about, what is done without a pause, and what is never reached."""
    for leads_to in LEADS_TO:
        yield from not_reached_at_last(graph, leads_to)
    for paced in PACED:
        yield from without_pause(graph, paced)
    yield from _never(graph)


def is_ignored(machine: Machine, world: World, step: Step) -> bool:
    """Return whether it is declared that the event of a step changes nothing in a world."""
    state = getattr(world, machine.name)
    around = {state, machine.outer[state]}
    return any(step.event.trigger in each.triggers and around & set(each.source) for each in machine.ignores)


def _finding(graph: Graph, number: int, words: str, *steps: Step, cycle: tuple[Step, ...] = ()) -> Finding:
    return Finding(words, (*graph.path(number), *steps), cycle)


# What comes about at last


def not_reached_at_last(graph: Graph, claim: LeadsTo) -> Iterator[Finding]:
    """Yield a world in which the rest need not come about: it may stay, or go on in a circle, though all is fair.

    It is fair if nothing that comes about at last could do so all the time, and never does (weak fairness). Of several
    answers to one question, any may come each time.
    """
    begins = [number for number, world in enumerate(graph.worlds) if claim.begins(world) and not claim.reaches(world)]
    if not begins:
        yield Finding(f"{claim.words} (Nothing begins it.)")
        return
    rest = _Rest(graph, claim, begins)
    for number in sorted(rest.worlds):
        if rest.may_stay(number):
            yield _finding(graph, number, claim.words)._replace(stays=True)
            return
    for component in components(sorted(rest.worlds), lambda number: (edge.dest for edge in rest.lasting(number))):
        members = set(component)
        inner = {number: [edge for edge in rest.lasting(number) if edge.dest in members] for number in component}
        if any(inner.values()) and rest.is_fair(inner):
            start, cycle = _circle(inner, rest.is_fair)
            yield _finding(graph, start, claim.words, cycle=cycle)
            return


class _Rest:
    """The worlds that are reached from where something begins before what it leads to is reached."""

    def __init__(self, graph: Graph, claim: LeadsTo, begins: list[int]) -> None:
        happens, self._at_last = frozenset(claim.happens), frozenset(claim.at_last)
        self._edges = [[edge for edge in edges if edge.step.event.kind in happens] for edges in graph.edges]
        goal = [claim.reaches(world) for world in graph.worlds]
        self.worlds, todo = set(begins), deque(begins)
        while todo:
            for edge in self._edges[todo.popleft()]:
                if not goal[edge.dest] and edge.dest not in self.worlds:
                    self.worlds.add(edge.dest)
                    todo.append(edge.dest)

    def may_stay(self, number: int) -> bool:
        """Return whether nothing need happen any more in a world."""
        return not any(edge.dest != number and edge.step.event.kind in self._at_last for edge in self._edges[number])

    def lasting(self, number: int) -> Iterator[Edge]:
        """Yield the steps that may be taken again and again, and lead to another of these worlds."""
        for edge in self._edges[number]:
            if edge.dest in self.worlds and not any(yes and guard in COUNTING for guard, yes in edge.step.assumed):
                yield edge

    def is_fair(self, inner: Inner) -> bool:
        """Return whether these steps may go on for ever."""
        edges = [edge for its in inner.values() for edge in its]
        stopped = {timer for edge in edges for timer in edge.step.left}
        could = set.intersection(*(self._comes_at_last(number, stopped) for number in inner))
        return could <= {_key(edge) for edge in edges}

    def _comes_at_last(self, number: int, stopped: set[Timer]) -> set[object]:
        return {
            _key(edge)
            for edge in self._edges[number]
            if edge.step.event.kind in self._at_last and edge.timer not in stopped
        }


def _key(edge: Edge) -> object:
    """Return what comes at last: one of the answers to a question, whichever it is."""
    return edge.timer or edge.step.event.learns or edge.step.event


def _circle(inner: Inner, is_fair: Callable[[Inner], bool]) -> tuple[int, tuple[Step, ...]]:
    """Return a circle, and where it begins: one that may go on by itself, if there is; else a part of what may."""
    found = [(number, edge) for number, edges in sorted(inner.items()) for edge in edges]
    # Those first in which a timer is stopped that would have ended it.
    first = sorted(found, key=lambda each: not each[1].step.left)[:MOST]
    circles = [
        (number, (edge, *(() if edge.dest == number else _way(edge.dest, number, inner)))) for number, edge in first
    ]
    circles.sort(key=lambda each: len(each[1]))
    for number, edges in circles:
        at = number
        along: Inner = {}
        for edge in edges:
            along.setdefault(at, []).append(edge)
            at = edge.dest
        if is_fair(along):
            return number, tuple(edge.step for edge in edges)
    for number, its in sorted(inner.items()):
        # Several things may go on in one world.
        loops = [edge for edge in its if edge.dest == number]
        if loops and is_fair({number: loops}):
            return number, tuple(edge.step for edge in loops)
    number, edges = circles[0]
    return number, tuple(edge.step for edge in edges)


def _way(start: int, end: int, inner: Inner) -> tuple[Edge, ...]:
    """Return the shortest way from a world to another."""
    came: dict[int, tuple[Edge, ...]] = {}
    todo: deque[tuple[int, tuple[Edge, ...]]] = deque([(start, ())])
    while todo and end not in came:
        number, way = todo.popleft()
        for edge in inner[number]:
            if edge.dest not in came:
                came[edge.dest] = (*way, edge)
                todo.append((edge.dest, came[edge.dest]))
    return came.get(end, ())


# What is done without a pause


def without_pause(graph: Graph, claim: Paced) -> Iterator[Finding]:
    """Yield a circle of answers and faults in which an action is done, with no delay and no request in it."""
    actions = set(claim.actions)
    at_once = [[edge for edge in its if edge.step.event.kind in {"answer", "fault", "soon"}] for its in graph.edges]
    for component in components(range(len(at_once)), lambda number: (edge.dest for edge in at_once[number])):
        members = set(component)
        inner = {number: [edge for edge in at_once[number] if edge.dest in members] for number in component}
        for number, edges in inner.items():
            for edge in edges:
                if actions.intersection(edge.step.acts):
                    back = () if edge.dest == number else _way(edge.dest, number, inner)
                    yield _finding(graph, number, claim.words, cycle=tuple(each.step for each in (edge, *back)))
                    return


# What is never reached


def _never(graph: Graph) -> Iterator[Finding]:
    """Yield each event, state, row, source of a row, action and ignored event that nothing reaches."""
    happened = {step.event.words for step in _steps(graph)}
    for event in EVENTS:
        if event.words not in happened:
            yield Finding(f"It never happens that {event.words}.")
    used = _uses(graph)
    done = {act for step in _steps(graph) for act in step.acts}
    for name, machine in graph.reactions.machines.items():
        reached = {getattr(world, name) for world in graph.worlds}
        yield from (Finding(f"The {name} is never {each.name}.") for each in machine.lasting if each not in reached)
        for row in machine.rows:
            for source in row.source:
                if not any((name, id(row), state) in used for state in _within(machine, source)):
                    words = f"row {row.trigger} to {row.dest.name} is never used from {source.name}"
                    yield Finding(f"The {name}'s {words}.")
        for action in sorted(_declared_actions(machine) | EFFECTS[name].keys()):
            if (name, action) not in done:
                yield Finding(f"The {name}'s action {action} is never done.")
    yield from _never_ignored(graph)


def _never_ignored(graph: Graph) -> Iterator[Finding]:
    happened = {
        (edge.step.event.learns, getattr(graph.worlds[number], edge.step.event.machine))
        for number, edges in enumerate(graph.edges)
        for edge in edges
        if edge.step.unused
    }
    for name, machine in graph.reactions.machines.items():
        for each in machine.ignores:
            for trigger, source in itertools.product(each.triggers, each.source):
                if not any((f"{name}.{trigger}", state) in happened for state in _within(machine, source)):
                    yield Finding(f"{name}.{trigger} never happens in {source.name}, where it is ignored.")


def _steps(graph: Graph) -> Iterable[Step]:
    return (edge.step for edges in graph.edges for edge in edges)


def _uses(graph: Graph) -> set[tuple[str, int, object]]:
    return {
        (name, id(row), getattr(graph.worlds[number], name))
        for number, edges in enumerate(graph.edges)
        for edge in edges
        for name, row in edge.step.rows
    }


def _within(machine: Machine, state: object) -> list[object]:
    return [each for each in machine.lasting if state in {each, machine.outer[each]}]


def _declared_actions(machine: Machine) -> set[str]:
    states = machine.declared.values()
    entering = {action.name for each in states for action in (*each.on_enter, *each.on_exit)}
    return entering | {row.before.name for row in machine.rows if row.before}
