"""Everything that can happen: the graph of all worlds that events reach, and of the steps between them."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from sprockets_amqp.states.events import Event
from sprockets_amqp.states.world import World

from .reaction import Reactions, Step, Timer


class Edge(NamedTuple):
    """A step from a world to another, by their numbers; the timer, if it is one that expires."""

    step: Step
    dest: int
    timer: Timer | None


@dataclasses.dataclass
class Graph:
    """The worlds that can be reached, in the order of the fewest steps, and what may happen in each.

    Attributes:
        reactions: how the machines react.
        worlds: the worlds.
        edges: the steps from each world.
        parents: how each world was reached first: from which, and by which step; None where it begins.
    """

    reactions: Reactions
    worlds: list[World] = dataclasses.field(default_factory=list)
    edges: list[list[Edge]] = dataclasses.field(default_factory=list)
    parents: list[tuple[int, Step] | None] = dataclasses.field(default_factory=list)

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return sum(map(len, self.edges))

    def path(self, number: int) -> list[Step]:
        """Return the shortest way to a world."""
        found: list[Step] = []
        while (parent := self.parents[number]) is not None:
            number, step = parent
            found.append(step)
        return found[::-1]


#: Called with each world, its number and its edges as they are found; returns whether to go on.
Visit = Callable[[Graph, int], bool]


def explore(
    reactions: Reactions,
    beginnings: Iterable[World] | None = None,
    allows: Callable[[Event], bool] = lambda _: True,
    visit: Visit = lambda _graph, _number: True,
) -> Graph:
    """Explore everything that can happen.

    Args:
        reactions: how the machines react.
        beginnings: where it may begin; None: wherever it may.
        allows: which events happen at all.
        visit: called with each world once its steps are known.
    """
    graph = Graph(reactions)
    numbers: dict[World, int] = {}

    def number_of(world: World, parent: tuple[int, Step] | None) -> int:
        found = numbers.get(world)
        if found is None:
            found = numbers[world] = len(graph.worlds)
            graph.worlds.append(world)
            graph.parents.append(parent)
        return found

    for world in reactions.beginnings() if beginnings is None else beginnings:
        number_of(world, None)
    number = 0
    while number < len(graph.worlds):
        edges = [
            Edge(step, number_of(step.world, (number, step)), timer)
            for event, timer, step in _steps(reactions, graph.worlds[number])
            if allows(event)
        ]
        graph.edges.append(edges)
        if not visit(graph, number):
            break
        number += 1
    return graph


def _steps(reactions: Reactions, world: World) -> Iterator[tuple[Event, Timer | None, Step]]:
    for event, timer in reactions.events(world):
        for step in reactions.react(world, event):
            yield event, timer, step


def components(nodes: Iterable[int], successors: Callable[[int], Iterable[int]]) -> Iterator[list[int]]:
    """Yield the strongly connected components of a graph (Tarjan, 1972), without recursion."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in nodes:
        if root in index:
            continue
        work = [(root, iter(successors(root)))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, following = work[-1]
            for each in following:
                if each not in index:
                    index[each] = low[each] = len(index)
                    stack.append(each)
                    on_stack.add(each)
                    work.append((each, iter(successors(each))))
                    break
                if each in on_stack:
                    low[node] = min(low[node], index[each])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    at = stack.index(node) if stack[-1] != node else len(stack) - 1
                    found, stack[at:] = stack[at:], []
                    on_stack.difference_update(found)
                    yield found
