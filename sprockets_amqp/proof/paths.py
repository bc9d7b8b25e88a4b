"""Paths through everything that can happen, which cover all of it."""

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

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


class Map:
    """The worlds in which nothing is due at once, and the ways between them.

    Args:
        graph: everything that can happen.
        allows: which steps are taken, by the world before; all of them if it is not given.
    """

    def __init__(self, graph: Graph, allows: Callable[[World, Edge], bool] = lambda _world, _edge: True) -> None:
        self._graph = graph
        self._allows = allows
        self._settled: dict[int, tuple[tuple[Step, ...], int]] = {}
        self._legs: dict[int, list[Leg]] = {}
        self._keys: dict[int, list[tuple[Leg, Hashable]]] = {}

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
        """Return the ways from a world."""
        found = self._legs.get(number)
        if found is None:
            world = self._graph.worlds[number]
            found = self._legs[number] = [
                self._leg(number, edge)
                for edge in self._graph.edges[number]
                if edge.step.event.kind != "soon" and self._allows(world, edge)
            ]
        return found

    def _leg(self, number: int, edge: Edge) -> Leg:
        steps, dest = self.settled(edge.dest)
        return Leg(number, edge, (edge.step, *steps), dest)

    def _known(self, number: int, key: Callable[[Leg], Hashable]) -> list[tuple[Leg, Hashable]]:
        """Return the ways from a world, each with what it is known by."""
        found = self._keys.get(number)
        if found is None:
            found = self._keys[number] = [(leg, key(leg)) for leg in self.legs(number)]
        return found

    def walk(self, start: int, wanted: set[Hashable], key: Callable[[Leg], Hashable]) -> Iterator[Leg]:
        """Walk from a world by whatever is wanted, always to what is nearest, for as long as something is reached."""
        here = start
        while wanted:
            way = self._nearest(here, wanted, key)
            if way is None:
                return
            for leg in way:
                wanted.discard(key(leg))
                yield leg
            here = way[-1].dest

    def _nearest(self, start: int, wanted: set[Hashable], key: Callable[[Leg], Hashable]) -> list[Leg] | None:
        came: dict[int, Leg | None] = {start: None}
        todo = deque([start])
        while todo:
            number = todo.popleft()
            for leg, known in self._known(number, key):
                if known in wanted:
                    return [*self._back(came, number), leg]
                if leg.dest not in came:
                    came[leg.dest] = leg
                    todo.append(leg.dest)
        return None

    @staticmethod
    def _back(came: dict[int, Leg | None], number: int) -> list[Leg]:
        way: list[Leg] = []
        while (leg := came[number]) is not None:
            way.append(leg)
            number = leg.source
        return way[::-1]
