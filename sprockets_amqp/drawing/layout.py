"""Where everything goes in the picture of the lifecycle.

It is laid out by hand, because no layout program puts the way to ready in one line and keeps labels apart. Nothing that
is declared can be missing: states without a place share an extra row, and an arrow without a route is straight.
"""

import enum
from dataclasses import dataclass
from typing import Final, Literal

from sprockets_amqp.states import Closed, Closing, Connecting, State

from .declared import Arrow, name, outcome, states, substates

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


@dataclass(frozen=True)
class Route:
    """Where an arrow runs, and where its label is: the baseline of its first line, or of its last with ``up``."""

    points: tuple[Point, ...]
    label: Point
    anchor: Literal["start", "middle", "end"] = "start"
    up: bool = False


WIDTH: Final = 1600
HEIGHT: Final = 1002
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

#: States with substates are as large as their substates require.
PLACES: Final[dict[enum.Enum, Frame]] = {
    State.IDLE: Frame(24, 59, 154, 117),
    Connecting.ASKING: Frame(318, 160, 422, 204),
    Connecting.OPENING_CONNECTION: Frame(318, 62, 510, 114),
    Connecting.RETRYING_NODE: Frame(478, 252, 630, 296),
    Connecting.SETTING_UP: Frame(822, 160, 922, 204),
    Connecting.OPENING_CHANNEL: Frame(1012, 66, 1192, 110),
    Connecting.RETRYING_CHANNEL: Frame(1032, 252, 1192, 296),
    State.READY: Frame(1354, 59, 1500, 117),
    State.BLOCKED: Frame(1100, 380, 1250, 438),
    Closed.RETRYING: Frame(376, 546, 546, 590),
    Closed.STOPPED: Frame(376, 652, 546, 696),
    Closing.DRAINING: Frame(1350, 556, 1510, 600),
    Closing.PAUSED: Frame(980, 556, 1120, 600),
    Closing.CONFIRMING: Frame(1125, 690, 1315, 734),
    Closing.CLOSING_CONNECTION: Frame(1112, 820, 1328, 864),
}

#: States that are drawn a second time, for arrows that could not reach them without crossing others.
ECHOES: Final[dict[enum.Enum, Frame]] = {
    Closed.STOPPED: Frame(24, 208, 154, 242),
    State.BLOCKED: Frame(1224, 170, 1314, 204),
}

_S = State

ROUTES: Final[dict[tuple[enum.Enum, enum.Enum], Route]] = {
    # Up
    (_S.IDLE, Connecting.OPENING_CONNECTION): Route(((154, 88), (318, 88)), (228, 77), "middle", up=True),
    (_S.IDLE, Connecting.ASKING): Route(((154, 106), (180, 106), (180, 182), (318, 182)), (190, 152)),
    (_S.CLOSED, Connecting.OPENING_CONNECTION): Route(((460, 508), (460, 114)), (470, 400)),
    (_S.CLOSED, Connecting.ASKING): Route(((406, 508), (406, 204)), (398, 400), "end"),
    (Connecting.ASKING, Connecting.OPENING_CONNECTION): Route(((334, 160), (334, 114)), (342, 145)),
    (Connecting.OPENING_CONNECTION, Connecting.OPENING_CHANNEL): Route(
        ((510, 88), (1012, 88)), (752, 77), "middle", up=True
    ),
    (Connecting.OPENING_CONNECTION, Connecting.SETTING_UP): Route(
        ((510, 96), (856, 96), (856, 160)), (846, 119), "end"
    ),
    # Trying the node again
    (Connecting.OPENING_CONNECTION, Connecting.RETRYING_NODE): Route(((490, 114), (490, 252)), (498, 160)),
    (Connecting.RETRYING_NODE, Connecting.OPENING_CONNECTION): Route(
        ((630, 274), (690, 274), (690, 104), (510, 104)), (680, 232), "end"
    ),
    (Connecting.SETTING_UP, Connecting.OPENING_CHANNEL): Route(((922, 182), (1024, 182), (1024, 110)), (930, 172)),
    (Connecting.OPENING_CHANNEL, _S.READY): Route(((1192, 88), (1354, 88)), (1281, 77), "middle", up=True),
    # Losing a channel
    (Connecting.OPENING_CHANNEL, Connecting.RETRYING_CHANNEL): Route(((1040, 110), (1040, 252)), (1048, 140)),
    (Connecting.RETRYING_CHANNEL, Connecting.OPENING_CHANNEL): Route(((1178, 252), (1178, 110)), (1170, 225), "end"),
    (Connecting.RETRYING_CHANNEL, Connecting.SETTING_UP): Route(
        ((1032, 274), (872, 274), (872, 204)), (952, 264), "middle", up=True
    ),
    (_S.READY, Connecting.RETRYING_CHANNEL): Route(((1382, 117), (1382, 274), (1192, 274)), (1372, 264), "end"),
    (_S.BLOCKED, Connecting.RETRYING_CHANNEL): Route(((1100, 396), (1072, 396), (1072, 296)), (1082, 350)),
    # Blocked
    (Connecting.OPENING_CHANNEL, _S.BLOCKED): Route(((1192, 102), (1240, 102), (1240, 170)), (1250, 142)),
    (_S.READY, _S.BLOCKED): Route(((1416, 117), (1416, 396), (1250, 396)), (1406, 350), "end"),
    (_S.BLOCKED, _S.READY): Route(((1250, 422), (1464, 422), (1464, 117)), (1454, 442), "end"),
    # Losing a connection
    (_S.CONNECTING, Closed.RETRYING): Route(((316, 312), (316, 560), (376, 560)), (306, 426), "end"),
    (_S.BLOCKED, Closed.RETRYING): Route(
        ((1100, 424), (920, 424), (920, 568), (546, 568)), (995, 414), "middle", up=True
    ),
    (_S.READY, Closed.RETRYING): Route(
        ((1500, 78), (1570, 78), (1570, 906), (316, 906), (316, 576), (376, 576)), (840, 896), "middle", up=True
    ),
    # Down
    (_S.READY, Closing.DRAINING): Route(((1500, 98), (1544, 98), (1544, 568), (1510, 568)), (1534, 350), "end"),
    (_S.BLOCKED, Closing.PAUSED): Route(
        ((1110, 438), (1110, 490), (940, 490), (940, 578), (980, 578)), (1100, 480), "end"
    ),
    (Closing.DRAINING, Closing.PAUSED): Route(((1350, 568), (1120, 568)), (1235, 560), "middle"),
    (Closing.PAUSED, Closing.DRAINING): Route(((1120, 588), (1350, 588)), (1235, 606), "middle"),
    (Closing.DRAINING, Closing.CONFIRMING): Route(((1400, 600), (1400, 706), (1315, 706)), (1390, 650), "end"),
    (Closing.PAUSED, Closing.CONFIRMING): Route(((1060, 600), (1060, 706), (1125, 706)), (1070, 650)),
    (Closing.DRAINING, Closing.CLOSING_CONNECTION): Route(((1470, 600), (1470, 850), (1328, 850)), (1460, 800), "end"),
    (Closing.PAUSED, Closing.CLOSING_CONNECTION): Route(((1004, 600), (1004, 850), (1112, 850)), (1014, 770)),
    (Closing.CONFIRMING, Closing.CLOSING_CONNECTION): Route(((1220, 734), (1220, 820)), (1230, 762)),
    (_S.CLOSING, Closed.STOPPED): Route(((964, 674), (546, 674)), (864, 694), "middle"),
    (_S.IDLE, Closed.STOPPED): Route(((89, 117), (89, 208)), (99, 168)),
    (_S.CONNECTING, Closed.STOPPED): Route(((302, 225), (154, 225)), (228, 215), "middle"),
    (Closed.RETRYING, Closed.STOPPED): Route(((461, 590), (461, 652)), (471, 626)),
}


def frame(state: enum.Enum) -> Frame:
    """Return the edges of the state's box, which encloses the boxes of its substates."""
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
    """Return the picture's height, with an extra row if a state has no place."""
    return HEIGHT + 100 if _homeless() else HEIGHT


def _homeless() -> list[enum.Enum]:
    placed = {*PLACES, *(state for state in states() if PLACES.keys() & substates(state))}
    return [state for state in states() if state not in placed]


def heading_frame(state: State) -> Frame:
    """Return the most room that the heading of a state with substates takes: name and what becomes of a publish."""
    edges = frame(state)
    # Average widths of letters of size 20 (bold) and 12 in DejaVu Sans, the widest of the common fonts.
    width = len(name(state)) * 13 + (len(f"publish {outcome(state)}") * 6.5 + 8 if uniform(state) else 0)
    return Frame(edges.left + PADDING, edges.top + 8, edges.left + PADDING + width, edges.top + 30)


def uniform(state: enum.Enum) -> bool:
    """Whether the same becomes of a publish in all substates of the state."""
    return " or " not in outcome(state)


def route(arrow: Arrow) -> Route:
    """Return the arrow's route: a straight line if it has none of its own."""
    key = (arrow.source, arrow.dest)
    if key in ROUTES:
        return ROUTES[key]
    (x1, y1), (x2, y2) = (frame(end).centre for end in key)
    return Route(((x1, y1), (x2, y2)), ((x1 + x2) / 2, (y1 + y2) / 2), "middle")


def label_frame(arrow: Arrow) -> Frame:
    """Return the most room that the arrow's label takes."""
    way, lines = route(arrow), arrow.lines
    width = max(map(len, lines)) * CHARACTER
    left = way.label[0] - {"start": 0, "middle": width / 2, "end": width}[way.anchor]
    top = first_baseline(arrow) - 12
    return Frame(left, top, left + width, top + LINE * len(lines))


def first_baseline(arrow: Arrow) -> float:
    """Return the baseline of the label's first line."""
    way = route(arrow)
    return way.label[1] - LINE * (len(arrow.lines) - 1) if way.up else way.label[1]
