"""Where everything stands in the picture of the lifecycle.

It is set out here by hand, because no layout program puts the way to ready in one line and keeps labels apart. A state
without a place stands in a row of its own, an arrow without a route is straight: nothing that is declared can be
missing.
"""

import enum
from dataclasses import dataclass
from typing import Final, Literal

from sprockets_amqp.states import Closed, Closing, Connecting, State

from .declared import Arrow, name, outcome, states, substates

Point = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """A rectangle, by its edges, in the SVG's units, as are all measures here."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def centre(self) -> Point:
        """The point in its middle."""
        return ((self.left + self.right) / 2, (self.top + self.bottom) / 2)


@dataclass(frozen=True)
class Route:
    """Where an arrow runs, and where its label stands: its first line's baseline, or its last's where it grows up."""

    points: tuple[Point, ...]
    label: Point
    anchor: Literal["start", "middle", "end"] = "start"
    up: bool = False


WIDTH: Final = 1140
HEIGHT: Final = 762
LINE: Final = 17
#: From a box to the ring around it that says that it is the present state; a substate's is nearer.
HALO: Final = 6
INNER_HALO: Final = 4
#: Of a character in labels: monospaced fonts are at most 0.61 of their size wide, others are so on average.
CHARACTER: Final = 14 * 0.61
CORNER: Final = 12
#: From substates to the edge of their state, and to its top, where its name stands.
PADDING: Final = 16
HEADING: Final = 38

#: States with substates are as large as these ask for.
PLACES: Final[dict[enum.Enum, Frame]] = {
    State.IDLE: Frame(24, 59, 154, 117),
    Connecting.OPENING_CONNECTION: Frame(258, 66, 362, 110),
    Connecting.OPENING_CHANNEL: Frame(528, 66, 708, 110),
    Connecting.RETRYING_CHANNEL: Frame(548, 182, 708, 226),
    State.READY: Frame(880, 59, 1040, 117),
    State.BLOCKED: Frame(640, 310, 790, 368),
    Closed.RETRYING: Frame(346, 476, 516, 520),
    Closed.STOPPED: Frame(346, 582, 516, 626),
    Closing.DRAINING: Frame(832, 476, 1050, 520),
    Closing.CLOSING_CONNECTION: Frame(832, 582, 1050, 626),
}

#: States that are drawn once more, for arrows that could not reach them without crossing others.
ECHOES: Final[dict[enum.Enum, Frame]] = {Closed.STOPPED: Frame(24, 188, 154, 222)}

_S = State

ROUTES: Final[dict[tuple[enum.Enum, enum.Enum], Route]] = {
    # Up
    (_S.IDLE, Connecting.OPENING_CONNECTION): Route(((154, 88), (258, 88)), (198, 77), "middle", up=True),
    (Connecting.OPENING_CONNECTION, Connecting.OPENING_CHANNEL): Route(
        ((362, 88), (528, 88)), (444, 77), "middle", up=True
    ),
    (Connecting.OPENING_CHANNEL, _S.READY): Route(((708, 88), (880, 88)), (799, 77), "middle", up=True),
    (_S.CLOSED, Connecting.OPENING_CONNECTION): Route(((350, 438), (350, 110)), (360, 176)),
    # A channel that is lost
    (Connecting.OPENING_CHANNEL, Connecting.RETRYING_CHANNEL): Route(((562, 110), (562, 182)), (571, 134)),
    (Connecting.RETRYING_CHANNEL, Connecting.OPENING_CHANNEL): Route(((696, 182), (696, 110)), (687, 167), "end"),
    (_S.READY, Connecting.RETRYING_CHANNEL): Route(((906, 117), (906, 204), (708, 204)), (896, 194), "end"),
    (_S.BLOCKED, Connecting.RETRYING_CHANNEL): Route(((640, 326), (612, 326), (612, 226)), (622, 280)),
    # Blocked
    (Connecting.OPENING_CHANNEL, _S.BLOCKED): Route(((540, 110), (540, 352), (640, 352)), (530, 310), "end"),
    (_S.READY, _S.BLOCKED): Route(((956, 117), (956, 326), (790, 326)), (946, 280), "end"),
    (_S.BLOCKED, _S.READY): Route(((790, 352), (1004, 352), (1004, 117)), (994, 372), "end"),
    # A connection that is lost
    (_S.CONNECTING, Closed.RETRYING): Route(((284, 242), (284, 490), (346, 490)), (274, 356), "end"),
    (_S.BLOCKED, Closed.RETRYING): Route(((700, 368), (700, 498), (516, 498)), (690, 488), "end"),
    (_S.READY, Closed.RETRYING): Route(
        ((1040, 78), (1110, 78), (1110, 688), (284, 688), (284, 506), (346, 506)), (681, 678), "middle"
    ),
    # Down
    (_S.READY, Closing.DRAINING): Route(((1040, 98), (1084, 98), (1084, 498), (1050, 498)), (1074, 280), "end"),
    (_S.BLOCKED, Closing.DRAINING): Route(((744, 368), (744, 498), (832, 498)), (754, 488)),
    (Closing.DRAINING, Closing.CLOSING_CONNECTION): Route(((856, 520), (856, 582)), (866, 547)),
    (_S.CLOSING, Closed.STOPPED): Route(((816, 604), (516, 604)), (681, 624), "middle"),
    (_S.IDLE, Closed.STOPPED): Route(((89, 117), (89, 188)), (99, 158)),
    (_S.CONNECTING, Closed.STOPPED): Route(((242, 205), (154, 205)), (196, 195), "middle"),
    (Closed.RETRYING, Closed.STOPPED): Route(((431, 520), (431, 582)), (441, 556)),
}


def frame(state: enum.Enum) -> Frame:
    """Return the edges of the state's box; of a state with substates, around theirs."""
    if state in PLACES:
        return PLACES[state]
    if inner := [PLACES[each] for each in substates(state) if each in PLACES]:
        return Frame(
            min(each.left for each in inner) - PADDING,
            min(each.top for each in inner) - HEADING,
            max(each.right for each in inner) + PADDING,
            max(each.bottom for each in inner) + PADDING,
        )
    left = 24 + 190 * _homeless().index(state)
    return Frame(left, HEIGHT + 12, left + 170, HEIGHT + 70)


def height() -> float:
    """Return the picture's height: one row more, where something has no place."""
    return HEIGHT + 100 if _homeless() else HEIGHT


def _homeless() -> list[enum.Enum]:
    placed = {*PLACES, *(state for state in states() if PLACES.keys() & substates(state))}
    return [state for state in states() if state not in placed]


def heading_frame(state: State) -> Frame:
    """Return the room that the name of a state with substates takes at most, and beside it what a publish does."""
    edges = frame(state)
    # In DejaVu Sans, the widest of common fonts, letters of 20 (bold) and of 12 are so wide on average.
    width = len(name(state)) * 13 + (len(f"publish {outcome(state)}") * 6.5 + 8 if uniform(state) else 0)
    return Frame(edges.left + PADDING, edges.top + 8, edges.left + PADDING + width, edges.top + 30)


def uniform(state: enum.Enum) -> bool:
    """Whether a publish ends alike in all substates of the state."""
    return " or " not in outcome(state)


def route(arrow: Arrow) -> Route:
    """Return where the arrow runs: straight, where it has no route of its own."""
    key = (arrow.source, arrow.dest)
    if key in ROUTES:
        return ROUTES[key]
    (x1, y1), (x2, y2) = (frame(end).centre for end in key)
    return Route(((x1, y1), (x2, y2)), ((x1 + x2) / 2, (y1 + y2) / 2), "middle")


def label_frame(arrow: Arrow) -> Frame:
    """Return the room that the arrow's label takes at most."""
    way, lines = route(arrow), arrow.lines
    width = max(map(len, lines)) * CHARACTER
    left = way.label[0] - {"start": 0, "middle": width / 2, "end": width}[way.anchor]
    top = first_baseline(arrow) - 12
    return Frame(left, top, left + width, top + LINE * len(lines))


def first_baseline(arrow: Arrow) -> float:
    """Return where the label's first line stands."""
    way = route(arrow)
    return way.label[1] - LINE * (len(arrow.lines) - 1) if way.up else way.label[1]
