"""The lifecycle as a picture: SVG and PNG.

States and arrows come from the declaration; where they stand is set out here by hand, because no layout program puts
the way to ready in one line and keeps labels apart. A state without a place stands in a row of its own, an arrow
without a route is straight: nothing that is declared can be missing.
"""

import hashlib
import importlib
import struct
import zlib
from dataclasses import dataclass
from html import escape
from typing import Final, Literal, get_args

from .declared import Arrow, arrows, meanings, name, outcome
from .states import DESCRIPTIONS, PublishOutcome, State

Point = tuple[float, float]

WIDTH: Final = 1140
HEIGHT: Final = 610
#: Of a state's box, in the SVG's units, as are all measures here.
BOX: Final = (184, 58)
LINE: Final = 17
#: From a box to the ring around it that says that it is the present state.
HALO: Final = 6
#: Of a character in labels: monospaced fonts are at most 0.61 of their size wide.
CHARACTER: Final = 14 * 0.61
CORNER: Final = 12


@dataclass(frozen=True)
class Route:
    """Where an arrow runs, and where its label stands: its first line's baseline, or its last's where it grows up."""

    points: tuple[Point, ...]
    label: Point
    anchor: Literal["start", "middle", "end"] = "start"
    up: bool = False


PLACES: Final[dict[State, Point]] = {
    State.IDLE: (114, 112),
    State.CONNECTING: (390, 112),
    State.READY: (1000, 112),
    State.BLOCKED: (680, 272),
    State.CLOSED: (390, 424),
    State.CLOSING: (1000, 424),
}

_S = State

ROUTES: Final[dict[tuple[State, State], Route]] = {
    (_S.IDLE, _S.CONNECTING): Route(((206, 112), (298, 112)), (248, 101), "middle", up=True),
    (_S.CONNECTING, _S.READY): Route(((482, 112), (908, 112)), (690, 101), "middle", up=True),
    (_S.READY, _S.CONNECTING): Route(((1000, 83), (1000, 50), (390, 50), (390, 83)), (690, 40), "middle", up=True),
    (_S.CONNECTING, _S.BLOCKED): Route(((410, 141), (410, 286), (588, 286)), (424, 306)),
    (_S.BLOCKED, _S.CONNECTING): Route(((588, 258), (440, 258), (440, 141)), (453, 248), up=True),
    (_S.READY, _S.BLOCKED): Route(((950, 141), (950, 258), (772, 258)), (938, 231), "end"),
    (_S.BLOCKED, _S.READY): Route(((772, 286), (980, 286), (980, 141)), (968, 306), "end"),
    (_S.READY, _S.CLOSING): Route(((1030, 141), (1030, 395)), (1040, 276)),
    (_S.BLOCKED, _S.CLOSING): Route(((710, 301), (710, 410), (908, 410)), (894, 400), "end", up=True),
    (_S.BLOCKED, _S.CLOSED): Route(((650, 301), (650, 410), (482, 410)), (497, 400), up=True),
    (_S.CLOSING, _S.CLOSED): Route(((908, 438), (482, 438)), (695, 458), "middle"),
    (_S.READY, _S.CLOSED): Route(((1092, 112), (1118, 112), (1118, 502), (420, 502), (420, 453)), (695, 522), "middle"),
    (_S.CONNECTING, _S.CLOSED): Route(((345, 141), (345, 395)), (335, 258), "end"),
    (_S.CLOSED, _S.CONNECTING): Route(((380, 395), (380, 141)), (390, 368)),
    (_S.IDLE, _S.CLOSED): Route(((114, 141), (114, 410), (298, 410)), (206, 400), "middle", up=True),
    (_S.CLOSED, _S.CLOSED): Route(((350, 453), (350, 484), (266, 484), (266, 438), (298, 438)), (256, 466), "end"),
}

#: How the picture looks, for a page that shows it inline; the state that is lit has the class ``present``.
STYLE: Final = """\
.lifecycle { font: 14px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
.lifecycle text { fill: #1f2328; }
.lifecycle .paper { fill: #ffffff; stroke: #d1d9e0; }
.lifecycle .line { fill: none; stroke: #6e7781; stroke-width: 1.5; }
.lifecycle .head { fill: #6e7781; }
.lifecycle .happy .line { stroke: #1a7f37; stroke-width: 4; }
.lifecycle .happy-head { fill: #1a7f37; }
.lifecycle .outcome { font-size: 12px; }
.lifecycle .label { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.lifecycle .guard { font-style: italic; fill: #59636e; }
.lifecycle .box { stroke-width: 2; }
.lifecycle .name { font-size: 18px; font-weight: bold; }
.lifecycle .halo { fill: none; stroke: none; stroke-width: 5; }
.lifecycle .present .halo { stroke: #0969da; }
.lifecycle .present .box { stroke-width: 3; }
.lifecycle .box.goes-out { fill: #d2f5da; stroke: #1a7f37; }
.lifecycle .box.waits { fill: #fff3b8; stroke: #9a6700; }
.lifecycle .box.is-refused { fill: #ffe3e0; stroke: #cf222e; }
@media (prefers-color-scheme: dark) {
  .lifecycle text { fill: #f0f6fc; }
  .lifecycle .paper { fill: #0d1117; stroke: #3d444d; }
  .lifecycle .line { stroke: #9198a1; }
  .lifecycle .head { fill: #9198a1; }
  .lifecycle .happy .line { stroke: #3fb950; }
  .lifecycle .happy-head { fill: #3fb950; }
  .lifecycle .guard { fill: #a9b1ba; }
  .lifecycle .present .halo { stroke: #58a6ff; }
  .lifecycle .box.goes-out { fill: #12432a; stroke: #3fb950; }
  .lifecycle .box.waits { fill: #463809; stroke: #d29922; }
  .lifecycle .box.is-refused { fill: #5a1e22; stroke: #f85149; }
}
"""


def svg(present: State | None = None) -> str:
    """Draw the lifecycle for a page that serves `STYLE`; `present` is lit.

    Each state is a group with an id (``state-ready``), as is each arrow (``arrow-idle-connecting``): to light another
    state, move the class ``present``. The ids are unique in a document that holds the picture once.
    """
    return _document("", "", present)


def svg_file() -> str:
    """Draw the lifecycle as a file of its own: it has its style and its size."""
    return _document(f' width="{WIDTH}" height="{HEIGHT}"', f"<style>\n{STYLE}</style>\n", None)


def png() -> bytes:
    """Render `svg_file` at twice its size; the SVG's SHA-256 stands in it, as `stamp` writes it.

    Raises RuntimeError, saying what to install, where resvg or fonts are missing.
    """
    try:
        resvg = importlib.import_module("resvg_py")
    except ImportError as error:
        raise RuntimeError("PNG needs resvg: pip install 'sprockets_amqp[diagrams]'") from error
    source = svg_file()
    if resvg.svg_to_bytes(_PROBE.format("Ready")) == resvg.svg_to_bytes(_PROBE.format("")):
        raise RuntimeError("PNG needs fonts, and resvg finds none: on Debian, apt-get install fonts-dejavu-core")
    image: bytes = resvg.svg_to_bytes(source, zoom=2)
    # After the signature (8 bytes) and the header (25).
    return image[:33] + stamp(source) + image[33:]


_PROBE: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="20">'
    '<text y="15" font-family="DejaVu Sans, sans-serif">{}</text></svg>'
)


def stamp(source: str) -> bytes:
    """Write the PNG chunk that says from which SVG an image was rendered."""
    body = b"tEXtSource\0sha256:" + hashlib.sha256(source.encode()).hexdigest().encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def describe() -> str:
    """Tell what the picture shows, for those who do not see it."""
    told = [f"{name(arrow.source)} to {name(arrow.dest)}: {', '.join(arrow.lines)}." for arrow in arrows()]
    return " ".join([*(f"In {name(state)}, a publish {outcome(state)}." for state in State), *told])


# Where everything stands


@dataclass(frozen=True)
class Frame:
    """A rectangle, by its edges."""

    left: float
    top: float
    right: float
    bottom: float


def place(state: State) -> Point:
    """Return the centre of the state's box."""
    if state in PLACES:
        return PLACES[state]
    others = [other for other in State if other not in PLACES]
    return (110 + 200 * others.index(state), HEIGHT + 40)


def frame(state: State) -> Frame:
    """Return the edges of the state's box."""
    (x, y), (width, height) = place(state), BOX
    return Frame(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def route(arrow: Arrow) -> Route:
    """Return where the arrow runs: straight, where it has no route of its own."""
    key = (arrow.source, arrow.dest)
    if key in ROUTES:
        return ROUTES[key]
    (x1, y1), (x2, y2) = place(arrow.source), place(arrow.dest)
    return Route(((x1, y1), (x2, y2)), ((x1 + x2) / 2, (y1 + y2) / 2), "middle")


def label_frame(arrow: Arrow) -> Frame:
    """Return the room that the arrow's label takes at most."""
    way, lines = route(arrow), arrow.lines
    width = max(map(len, lines)) * CHARACTER
    left = way.label[0] - {"start": 0, "middle": width / 2, "end": width}[way.anchor]
    top = _first_baseline(way, lines) - 12
    return Frame(left, top, left + width, top + LINE * len(lines))


def _first_baseline(way: Route, lines: list[str]) -> float:
    return way.label[1] - LINE * (len(lines) - 1) if way.up else way.label[1]


# How it is drawn


def _document(size: str, style: str, present: State | None) -> str:
    height = HEIGHT if set(State) <= set(PLACES) else HEIGHT + 100
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="lifecycle" viewBox="0 0 {WIDTH} {height}"{size}',
        '  role="img" aria-labelledby="lifecycle-title lifecycle-description">',
        '<title id="lifecycle-title">The life of the connection to RabbitMQ</title>',
        f'<desc id="lifecycle-description">{escape(describe())}</desc>',
        f"{style}<defs>{_head('head', 9)}{_head('happy-head', 14)}</defs>",
        f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="12"/>',
        *(_state(state, state is present) for state in State),
        *(_arrow(arrow) for arrow in arrows()),
        _legend(),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _head(kind: str, size: int) -> str:
    return (
        f'<marker id="lifecycle-{kind}" viewBox="0 0 10 10" refX="9" refY="5" orient="auto"'
        f' markerUnits="userSpaceOnUse" markerWidth="{size}" markerHeight="{size}">'
        f'<path class="{kind}" d="M0 0 10 5 0 10z"/></marker>'
    )


def _state(state: State, present: bool) -> str:
    edges, (width, height), (x, y) = frame(state), BOX, place(state)
    return (
        f'<g id="state-{name(state)}" class="state{" present" if present else ""}">'
        f"<title>{escape(meanings()[state])}</title>"
        f'<rect class="halo" x="{edges.left - HALO:g}" y="{edges.top - HALO:g}" width="{width + 2 * HALO}"'
        f' height="{height + 2 * HALO}" rx="16"/>{_box(state)}'
        f'<text class="name" x="{x:g}" y="{y - 3:g}" text-anchor="middle">{DESCRIPTIONS[state]}</text>'
        f'<text class="outcome" x="{x:g}" y="{y + 18:g}" text-anchor="middle">publish {outcome(state)}</text></g>'
    )


def _box(state: State) -> str:
    """Draw the box, in two halves where a publish may wait or be refused."""
    halves = outcome(state).split(" or ")
    (x, _), edges = place(state), frame(state)
    sides = ((edges.left, 1), (edges.right, -1)) if len(halves) > 1 else ()
    paths = [
        f'<path class="box {_kind(half)}" d="M{x:g} {edges.top:g}H{side + turn * CORNER:g}'
        f"Q{side:g} {edges.top:g} {side:g} {edges.top + CORNER:g}V{edges.bottom - CORNER:g}"
        f'Q{side:g} {edges.bottom:g} {side + turn * CORNER:g} {edges.bottom:g}H{x:g}"/>'
        for half, (side, turn) in zip(halves, sides, strict=False)
    ]
    width, height = BOX
    return "".join(paths) or (
        f'<rect class="box {_kind(halves[0])}" x="{edges.left:g}" y="{edges.top:g}" width="{width}" height="{height}"'
        f' rx="{CORNER}"/>'
    )


def _kind(said: str) -> str:
    return said.replace(" ", "-")


def _arrow(arrow: Arrow) -> str:
    way, happy = route(arrow), arrow.happy
    y = _first_baseline(way, arrow.lines)
    lines = "".join(
        f'<text class="label{" guard" if line.startswith("[") else ""}" x="{way.label[0]:g}" y="{y + LINE * index:g}"'
        f' text-anchor="{way.anchor}">{escape(line)}</text>'
        for index, line in enumerate(arrow.lines)
    )
    head = "happy-head" if happy else "head"
    return (
        f'<g id="{arrow.id}" class="arrow{" happy" if happy else ""}">'
        f'<path class="line" d="{_path(way.points)}" marker-end="url(#lifecycle-{head})"/>{lines}</g>'
    )


def _path(points: tuple[Point, ...]) -> str:
    """Join the points by lines, rounding the corners."""
    steps = [f"M{points[0][0]:g} {points[0][1]:g}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        (x1, y1), (x2, y2) = _toward(corner, before), _toward(corner, after)
        steps.append(f"L{x1:g} {y1:g}Q{corner[0]:g} {corner[1]:g} {x2:g} {y2:g}")
    return f"{''.join(steps)}L{points[-1][0]:g} {points[-1][1]:g}"


def _toward(start: Point, end: Point) -> Point:
    (x1, y1), (x2, y2) = start, end
    share = CORNER / max(abs(x2 - x1), abs(y2 - y1))
    return (x1 + (x2 - x1) * share, y1 + (y2 - y1) * share)


def _legend() -> str:
    y = HEIGHT - 34
    parts = [f'<text x="24" y="{y + 5}">A publish:</text>']
    for x, kind in zip((112, 220, 303), get_args(PublishOutcome), strict=True):
        parts.append(
            f'<rect class="box {_kind(kind)}" x="{x}" y="{y - 9}" width="24" height="18" rx="5"/>'
            f'<text x="{x + 32}" y="{y + 5}">{kind}</text>'
        )
    parts.append(f'<g class="happy"><path class="line" d="M446 {y}H484" marker-end="url(#lifecycle-happy-head)"/></g>')
    parts.append(f'<text x="493" y="{y + 5}">the way to ready</text>')
    parts.append(f'<text class="label guard" x="648" y="{y + 5}">[guard]</text>')
    parts.append(f'<text x="716" y="{y + 5}">blocking: RabbitMQ raised an alarm or stopped the flow</text>')
    return f'<g class="legend">{"".join(parts)}</g>'
