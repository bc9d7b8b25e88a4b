"""Paths through everything that can happen, the shortest first."""

import functools
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from sprockets_amqp.states.world import World

from .explore import Edge, Graph
from .reaction import Step


class Leg(NamedTuple):
    """A step, and what follows from it before anything else happens.

    Attributes:
        source: the world before, by its number.
        edge: the step.
        steps: the step, and those that follow.
        dest: the world once nothing is due any more.
    """

    source: int
    edge: Edge
    steps: tuple[Step, ...]
    dest: int


Place = TypeVar("Place", bound=Hashable)
#: A leg, what it covers, and where it leads.
Way = tuple[Leg, Collection[Hashable], Place]
#: Returns the shortest way to where a leg begins.
Back = Callable[[], list[Way[Place]]]


class Map:
    """The worlds in which nothing is due at once, and the legs between them.

    Args:
        graph: everything that can happen.
        allows: which steps are taken, by the world before; all of them if it is not given.
    """

    def __init__(self, graph: Graph, allows: Callable[[World, Edge], bool] = lambda _world, _edge: True) -> None:
        self._graph = graph
        self._allows = allows
        self._settled: dict[int, tuple[tuple[Step, ...], int]] = {}
        self._legs: dict[int, list[Leg]] = {}

    def settled(self, number: int) -> tuple[tuple[Step, ...], int]:
        """Return the steps that are due at once in a world, and the world that they lead to."""
        found = self._settled.get(number)
        if found is None:
            soon = next((each for each in self._graph.edges[number] if each.step.event.kind == "soon"), None)
            if soon is None:
                found = (), number
            else:
                steps, dest = self.settled(soon.dest)
                found = (soon.step, *steps), dest
            self._settled[number] = found
        return found

    def legs(self, number: int) -> list[Leg]:
        """Return the legs from a world in which nothing is due at once; from any other there are none."""
        found = self._legs.get(number)
        if found is None:
            world, edges = self._graph.worlds[number], self._graph.edges[number]
            is_settled = self.settled(number)[1] == number
            found = self._legs[number] = [
                self._leg(number, edge) for edge in edges if is_settled and self._allows(world, edge)
            ]
        return found

    def _leg(self, number: int, edge: Edge) -> Leg:
        steps, dest = self.settled(edge.dest)
        return Leg(number, edge, (edge.step, *steps), dest)


def search(start: Place, ways: Callable[[Place], Iterable[Way[Place]]]) -> Iterator[tuple[Way[Place], Back[Place]]]:
    """Yield each way from each place that can be reached, the nearest first, with what returns how it is reached.

    Args:
        start: where to begin.
        ways: the ways from a place.
    """
    came: dict[Place, tuple[Place, Way[Place]] | None] = {start: None}
    todo = deque([start])

    def back(place: Place) -> list[Way[Place]]:
        found: list[Way[Place]] = []
        while (parent := came[place]) is not None:
            place, way = parent
            found.append(way)
        return found[::-1]

    while todo:
        place = todo.popleft()
        for way in ways(place):
            yield way, functools.partial(back, place)
            dest = way[2]
            if dest not in came:
                came[dest] = place, way
                todo.append(dest)
