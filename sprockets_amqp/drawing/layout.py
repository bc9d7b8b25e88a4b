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


WIDTH: Final = 1380
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
    Connecting.OPENING_CONNECTION: Frame(318, 66, 472, 110),
    Connecting.SETTING_UP: Frame(602, 160, 702, 204),
    Connecting.OPENING_CHANNEL: Frame(792, 66, 972, 110),
    Connecting.RETRYING_CHANNEL: Frame(812, 252, 972, 296),
    State.READY: Frame(1134, 59, 1280, 117),
    State.BLOCKED: Frame(880, 380, 1030, 438),
    Closed.RETRYING: Frame(376, 546, 546, 590),
    Closed.STOPPED: Frame(376, 652, 546, 696),
    Closing.DRAINING: Frame(1130, 556, 1290, 600),
    Closing.PAUSED: Frame(760, 556, 900, 600),
    Closing.CONFIRMING: Frame(905, 690, 1095, 734),
    Closing.CLOSING_CONNECTION: Frame(892, 820, 1108, 864),
}

#: States that are drawn a second time, for arrows that could not reach them without crossing others.
ECHOES: Final[dict[enum.Enum, Frame]] = {
    Closed.STOPPED: Frame(24, 208, 154, 242),
    State.BLOCKED: Frame(1004, 170, 1094, 204),
}

_S = State

ROUTES: Final[dict[tuple[enum.Enum, enum.Enum], Route]] = {
    # Up
    (_S.IDLE, Connecting.OPENING_CONNECTION): Route(((154, 88), (318, 88)), (228, 77), "middle", up=True),
    (_S.IDLE, Connecting.ASKING): Route(((154, 106), (180, 106), (180, 182), (318, 182)), (190, 152)),
    (_S.CLOSED, Connecting.OPENING_CONNECTION): Route(((460, 508), (460, 110)), (470, 400)),
    (_S.CLOSED, Connecting.ASKING): Route(((406, 508), (406, 204)), (398, 400), "end"),
    (Connecting.ASKING, Connecting.OPENING_CONNECTION): Route(((334, 160), (334, 110)), (342, 140)),
    (Connecting.OPENING_CONNECTION, Connecting.OPENING_CHANNEL): Route(
        ((472, 88), (792, 88)), (632, 77), "middle", up=True
    ),
    (Connecting.OPENING_CONNECTION, Connecting.SETTING_UP): Route(((472, 102), (636, 102), (636, 160)), (482, 122)),
    (Connecting.SETTING_UP, Connecting.OPENING_CHANNEL): Route(((702, 182), (804, 182), (804, 110)), (710, 172)),
    (Connecting.OPENING_CHANNEL, _S.READY): Route(((972, 88), (1134, 88)), (1061, 77), "middle", up=True),
    # Losing a channel
    (Connecting.OPENING_CHANNEL, Connecting.RETRYING_CHANNEL): Route(((820, 110), (820, 252)), (828, 140)),
    (Connecting.RETRYING_CHANNEL, Connecting.OPENING_CHANNEL): Route(((958, 252), (958, 110)), (950, 225), "end"),
    (Connecting.RETRYING_CHANNEL, Connecting.SETTING_UP): Route(
        ((812, 274), (652, 274), (652, 204)), (732, 264), "middle", up=True
    ),
    (_S.READY, Connecting.RETRYING_CHANNEL): Route(((1162, 117), (1162, 274), (972, 274)), (1152, 264), "end"),
    (_S.BLOCKED, Connecting.RETRYING_CHANNEL): Route(((880, 396), (852, 396), (852, 296)), (862, 350)),
    # Blocked
    (Connecting.OPENING_CHANNEL, _S.BLOCKED): Route(((972, 102), (1020, 102), (1020, 170)), (1030, 142)),
    (_S.READY, _S.BLOCKED): Route(((1196, 117), (1196, 396), (1030, 396)), (1186, 350), "end"),
    (_S.BLOCKED, _S.READY): Route(((1030, 422), (1244, 422), (1244, 117)), (1234, 442), "end"),
    # Losing a connection
    (_S.CONNECTING, Closed.RETRYING): Route(((316, 312), (316, 560), (376, 560)), (306, 426), "end"),
    (_S.BLOCKED, Closed.RETRYING): Route(
        ((880, 424), (700, 424), (700, 568), (546, 568)), (775, 414), "middle", up=True
    ),
    (_S.READY, Closed.RETRYING): Route(
        ((1280, 78), (1350, 78), (1350, 906), (316, 906), (316, 576), (376, 576)), (620, 896), "middle", up=True
    ),
    # Down
    (_S.READY, Closing.DRAINING): Route(((1280, 98), (1324, 98), (1324, 568), (1290, 568)), (1314, 350), "end"),
    (_S.BLOCKED, Closing.PAUSED): Route(
        ((890, 438), (890, 490), (720, 490), (720, 578), (760, 578)), (880, 480), "end"
    ),
    (Closing.DRAINING, Closing.PAUSED): Route(((1130, 568), (900, 568)), (1015, 560), "middle"),
    (Closing.PAUSED, Closing.DRAINING): Route(((900, 588), (1130, 588)), (1015, 606), "middle"),
    (Closing.DRAINING, Closing.CONFIRMING): Route(((1180, 600), (1180, 706), (1095, 706)), (1170, 650), "end"),
    (Closing.PAUSED, Closing.CONFIRMING): Route(((840, 600), (840, 706), (905, 706)), (850, 650)),
    (Closing.DRAINING, Closing.CLOSING_CONNECTION): Route(((1250, 600), (1250, 850), (1108, 850)), (1240, 800), "end"),
    (Closing.PAUSED, Closing.CLOSING_CONNECTION): Route(((784, 600), (784, 850), (892, 850)), (794, 770)),
    (Closing.CONFIRMING, Closing.CLOSING_CONNECTION): Route(((1000, 734), (1000, 820)), (1010, 762)),
    (_S.CLOSING, Closed.STOPPED): Route(((744, 674), (546, 674)), (644, 694), "middle"),
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
