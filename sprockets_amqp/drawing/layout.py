"""Where the states and arrows of a machine are in its picture.

Nothing that is declared can be missing: states without a place share an extra row, and an arrow without a route is
straight.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from sprockets_amqp.states import Machine

from .declared import Arrow, outcome

Point = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """A rectangle, given by its edges. All measures here are in the SVG's units."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def centre(self) -> Point:
        """Its centre."""
        return ((self.left + self.right) / 2, (self.top + self.bottom) / 2)

    def grown(self, by: float) -> "Frame":
        """Return a rectangle around it."""
        return Frame(self.left - by, self.top - by, self.right + by, self.bottom + by)


@dataclass(frozen=True)
class Route:
    """Where an arrow runs, and where its label is: the baseline of its first line, or of its last with ``up``."""

    points: tuple[Point, ...]
    label: Point
    anchor: Literal["start", "middle", "end"] = "start"
    up: bool = False


LINE: Final = 17
#: Distance from a box to the ring that marks the current state; a substate's ring is closer.
HALO: Final = 6
INNER_HALO: Final = 4
#: Width of a character in labels: at most 0.61 of the font size in monospaced fonts, and on average in others.
CHARACTER: Final = 14 * 0.61
CORNER: Final = 12
#: Distance from substates to the edges of their state, and to its top edge, which leaves room for its name.
PADDING: Final = 16
HEADING: Final = 38


@dataclass(frozen=True)
class Layout:
    """The layout of a machine's picture.

    Attributes:
        machine: the machine.
        width: the picture's width.
        floor: the picture's height, without the extra row.
        places: where its states are; states with substates are as large as their substates require.
        routes: where its arrows run.
        echoes: states that are drawn a second time, for arrows that could not reach them without crossing others.
    """

    machine: Machine
    width: float
    floor: float
    places: Mapping[enum.Enum, Frame]
    routes: Mapping[tuple[enum.Enum, enum.Enum], Route]
    echoes: Mapping[enum.Enum, Frame] = field(default_factory=dict)

    @property
    def height(self) -> float:
        """The picture's height, with an extra row if a state has no place."""
        return self.floor + 100 if self._homeless() else self.floor

    def frame(self, state: enum.Enum) -> Frame:
        """Return the edges of the state's box, which encloses the boxes of its substates."""
        if state in self.places:
            return self.places[state]
        if inner := [self.places[each] for each in self._substates(state) if each in self.places]:
            return Frame(
                min(each.left for each in inner) - PADDING,
                min(each.top for each in inner) - HEADING,
                max(each.right for each in inner) + PADDING,
                max(each.bottom for each in inner) + PADDING,
            )
        left = 24 + 190 * self._homeless().index(state)
        return Frame(left, self.floor + 12, left + 170, self.floor + 70)

    def uniform(self, state: enum.Enum) -> bool:
        """Whether the same becomes of a publish in all substates of the state."""
        return " or " not in outcome(self.machine, state)

    def route(self, arrow: Arrow) -> Route:
        """Return the arrow's route: a straight line if it has none of its own."""
        key = (arrow.source, arrow.dest)
        if key in self.routes:
            return self.routes[key]
        (x1, y1), (x2, y2) = (self.frame(end).centre for end in key)
        return Route(((x1, y1), (x2, y2)), ((x1 + x2) / 2, (y1 + y2) / 2), "middle")

    def first_baseline(self, arrow: Arrow) -> float:
        """Return the baseline of the label's first line."""
        way = self.route(arrow)
        return way.label[1] - LINE * (len(arrow.lines) - 1) if way.up else way.label[1]

    def _substates(self, state: enum.Enum) -> list[enum.Enum]:
        return [each.state for each in self.machine.declared[state].substates]

    def _homeless(self) -> list[enum.Enum]:
        states = self.machine.declared
        placed = {*self.places, *(state for state in states if self.places.keys() & self._substates(state))}
        return [state for state in states if state not in placed]
