"""The layout of a picture that nobody has laid out: states stand in a column, and arrows run on their right.

Each arrow leaves its state in a line of its own, below its label, runs up or down on a track of its own, and enters its
dest in a line of its own. So no label can lie on another, or on a line.
"""

import enum
from collections import defaultdict
from typing import Final

from sprockets_amqp.states import Declared, Machine

from .declared import Arrow, arrows
from .layout import CHARACTER, HEADING, LINE, PADDING, Frame, Layout, Route

#: The least height of a box, and the distances between boxes and between tracks.
BOX: Final = 44
GAP: Final = 20
TRACK: Final = 14
LEFT: Final = 24
WIDTH: Final = 170


class _Column:
    """The column of states, filled from the top: where each is, and the lines in which arrows leave and enter it."""

    def __init__(self, machine: Machine) -> None:
        self.places: dict[enum.Enum, Frame] = {}
        self.leaves: dict[Arrow, float] = {}
        self.enters: dict[Arrow, float] = {}
        self.y = float(GAP)
        self._indent = PADDING if any(each.substates for each in machine.states) else 0
        #: Where the outermost boxes end.
        self.right = LEFT + WIDTH + 2 * self._indent
        self._out: dict[enum.Enum, list[Arrow]] = defaultdict(list)
        self._into: dict[enum.Enum, list[Arrow]] = defaultdict(list)
        for arrow in arrows(machine):
            self._out[arrow.source].append(arrow)
            self._into[arrow.dest].append(arrow)
        for each in machine.states:
            self._place(each, LEFT, self.right)

    def _place(self, declared: Declared, left: float, right: float) -> None:
        state, top = declared.state, self.y
        if declared.substates:
            self.y += HEADING
            for each in declared.substates:
                self._place(each, left + self._indent, right - self._indent)
        for arrow in self._out[state]:
            self.y += LINE * len(arrow.lines) + 6
            self.leaves[arrow] = self.y
        for arrow in self._into[state]:
            self.y += LINE
            self.enters[arrow] = self.y
        self.y = max(self.y + 10, top + BOX)
        self.places[state] = Frame(left, top, right, self.y)
        self.y += GAP


def ladder(machine: Machine) -> Layout:
    """Lay a machine out."""
    column = _Column(machine)
    labels = column.right + 12
    width = max((len(line) for arrow in column.leaves for line in arrow.lines), default=0) * CHARACTER
    # Short ways run inside.
    by_length = sorted(column.leaves, key=lambda arrow: abs(column.leaves[arrow] - column.enters[arrow]))
    routes: dict[tuple[enum.Enum, enum.Enum], Route] = {}
    for number, arrow in enumerate(by_length):
        track = labels + width + 12 + TRACK * number
        out, into = column.leaves[arrow], column.enters[arrow]
        source, dest = column.places[arrow.source].right, column.places[arrow.dest].right
        routes[arrow.source, arrow.dest] = Route(
            ((source, out), (track, out), (track, into), (dest, into)), (labels, out - 5), up=True
        )
    return Layout(machine, labels + width + 24 + TRACK * len(routes), column.y, column.places, routes)
