"""A machine as a picture, SVG or PNG: states and arrows come from the declaration, their places from its layout."""

import enum
import hashlib
import importlib
import struct
import textwrap
import zlib
from html import escape
from typing import Final, get_args

from sprockets_amqp.states import CONNECTION, DOCUMENTED, Declared, Machine, PublishOutcome, State, Substate

from .declared import TIMER, Arrow, arrows, full_name, label, name, outcome, slug
from .ladder import ladder
from .layout import CHARACTER, CORNER, HALO, INNER_HALO, LINE, PADDING, Frame, Layout, Point
from .places import ECHOES, HEIGHT, PLACES, ROUTES, WIDTH

#: The picture's style sheet, for a page that shows it inline; the highlighted state has the class ``present``.
STYLE: Final = """\
.lifecycle { font: 14px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
.lifecycle text { fill: #1f2328; }
.lifecycle .paper { fill: #ffffff; stroke: #d1d9e0; }
.lifecycle .line { fill: none; stroke: #6e7781; stroke-width: 1.5; }
.lifecycle .head { fill: #6e7781; }
.lifecycle .happy .line { stroke: #1a7f37; stroke-width: 4; }
.lifecycle .happy-head { fill: #1a7f37; }
.lifecycle .name { font-size: 20px; font-weight: bold; }
.lifecycle .words { font-weight: 500; }
.lifecycle .outcome { font-size: 12px; font-weight: normal; }
.lifecycle .label { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.lifecycle .guard { font-style: italic; fill: #59636e; }
.lifecycle .timer { font-size: 17px; font-weight: bold; fill: #0969da; }
.lifecycle .box { stroke-width: 2.5; }
.lifecycle .substate > .box { stroke-width: 1.25; }
.lifecycle .around { fill-opacity: 0.4; }
.lifecycle .echo > .box { stroke-width: 1.25; stroke-dasharray: 5 3; }
.lifecycle .halo { fill: none; stroke: none; stroke-width: 5; }
.lifecycle .substate > .halo { stroke-width: 4; }
.lifecycle .present > .halo { stroke: #0969da; }
.lifecycle .taken .line { stroke: #0969da; stroke-width: 4; }
.lifecycle .box.mixed { fill: #ffffff; stroke: #6e7781; }
.lifecycle .box.goes-out { fill: #d2f5da; stroke: #1a7f37; }
.lifecycle .box.waits { fill: #fff3b8; stroke: #9a6700; }
.lifecycle .box.is-refused { fill: #ffe3e0; stroke: #cf222e; }
.lifecycle .box.is-stored { fill: #f3e5ff; stroke: #8250df; }
@media (prefers-color-scheme: dark) {
  .lifecycle text { fill: #f0f6fc; }
  .lifecycle .paper { fill: #0d1117; stroke: #3d444d; }
  .lifecycle .line { stroke: #9198a1; }
  .lifecycle .head { fill: #9198a1; }
  .lifecycle .happy .line { stroke: #3fb950; }
  .lifecycle .happy-head { fill: #3fb950; }
  .lifecycle .guard { fill: #a9b1ba; }
  .lifecycle .timer { fill: #79b8ff; }
  .lifecycle .present > .halo { stroke: #58a6ff; }
  .lifecycle .taken .line { stroke: #58a6ff; }
  .lifecycle .box.mixed { fill: #0d1117; stroke: #9198a1; }
  .lifecycle .box.goes-out { fill: #12432a; stroke: #3fb950; }
  .lifecycle .box.waits { fill: #463809; stroke: #d29922; }
  .lifecycle .box.is-refused { fill: #5a1e22; stroke: #f85149; }
  .lifecycle .box.is-stored { fill: #3b1d66; stroke: #be8fff; }
}
"""


def svg(present: Substate | None = None, publish: PublishOutcome | None = None, machine: Machine = CONNECTION) -> str:
    """Draw a machine for a page that serves `STYLE`; ``present`` is highlighted, together with its state.

    Where ``publish`` is given, the highlighted boxes say that, rather than what usually becomes of a publish: in a
    persistent outage, or with an outbox, it is something else.

    Each state is a group with an id (``state-closed``), as is each substate (``state-closed-retrying``) and each arrow
    (``arrow-ready-blocked``): to highlight another, move the class ``present``. A group's ``data-publish`` is what
    usually becomes of a publish there. In pictures of other machines, ids begin with the machine: ``check-state-idle``.
    A document can hold a picture only once, or the ids are no longer unique.
    """
    lit: Lit = {present: publish, DOCUMENTED[present]: publish} if present else {}
    return _Picture(machine, lit).document("", "")


def svg_file(machine: Machine = CONNECTION) -> str:
    """Draw a machine as a standalone file, with its style and size."""
    picture = _Picture(machine, {})
    size = f' width="{picture.layout.width:g}" height="{picture.layout.floor:g}"'
    return picture.document(size, f"<style>\n{STYLE}</style>\n")


def png() -> bytes:
    """Render `svg_file` of the connection at twice its size; it contains the SVG's SHA-256, written by `stamp`.

    Raises RuntimeError, naming what to install, if resvg or fonts are missing.
    """
    try:
        resvg = importlib.import_module("resvg_py")
    except ImportError as error:
        raise RuntimeError("PNG needs resvg: pip install 'sprockets_amqp[diagrams]'") from error
    source = svg_file()
    if resvg.svg_to_bytes(_PROBE.format("Ready")) == resvg.svg_to_bytes(_PROBE.format("")):
        raise RuntimeError("PNG needs fonts, but resvg finds none: on Debian, apt-get install fonts-dejavu-core")
    image: bytes = resvg.svg_to_bytes(source, zoom=2)
    # After the signature (8 bytes) and the header (25).
    return image[:33] + stamp(source) + image[33:]


def layout_of(machine: Machine) -> Layout:
    """Return where everything goes: the connection is laid out by hand."""
    if machine.name == CONNECTION.name:
        return Layout(machine, WIDTH, HEIGHT, PLACES, ROUTES, ECHOES)
    return ladder(machine)


_PROBE: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="20">'
    '<text y="15" font-family="DejaVu Sans, sans-serif">{}</text></svg>'
)


def stamp(source: str) -> bytes:
    """Return the PNG chunk that says which SVG an image was rendered from."""
    body = b"tEXtSource\0sha256:" + hashlib.sha256(source.encode()).hexdigest().encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def describe(machine: Machine = CONNECTION) -> str:
    """Describe the picture in words, for readers who cannot see it."""
    said = {state: outcome(machine, state) for state in machine.declared}
    outcomes = [f"In {full_name(state)}, a publish {each}." for state, each in said.items() if each]
    told = [f"{full_name(arrow.source)} to {full_name(arrow.dest)}: {_told(arrow)}." for arrow in arrows(machine)]
    return " ".join([*outcomes, *told])


def _told(arrow: Arrow) -> str:
    return ", ".join(
        f"{line.removeprefix(TIMER).strip()} (also by a timer)" if line.startswith(TIMER) else line
        for line in arrow.lines
    )


# How it is drawn


#: The highlighted states, each with what becomes of a publish there now; None: what usually does.
Lit = dict[enum.Enum, PublishOutcome | None]


class _Picture:
    """One picture of a machine."""

    def __init__(self, machine: Machine, lit: Lit) -> None:
        self.layout = layout_of(machine)
        self._machine = machine
        self._lit = lit
        #: What its ids begin with: a document may hold a picture of each machine.
        self._ids = "" if machine.name == CONNECTION.name else f"{machine.name}-"

    def document(self, size: str, style: str) -> str:
        """Draw the document."""
        machine, layout, ids = self._machine, self.layout, self._ids
        is_connection = machine.name == CONNECTION.name
        title = "The life of the connection to RabbitMQ" if is_connection else f"The {machine.name}"
        width, height = layout.width, layout.height
        echoes = [
            (machine.declared[state], edges) for state, edges in layout.echoes.items() if state in machine.declared
        ]
        heads = _head(f"{ids}lifecycle-head", "head", 9) + _head(f"{ids}lifecycle-happy-head", "happy-head", 14)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="lifecycle" viewBox="0 0 {width:g} {height:g}"{size}',
            f'  role="img" aria-labelledby="{ids}lifecycle-title {ids}lifecycle-description">',
            f'<title id="{ids}lifecycle-title">{title}</title>',
            f'<desc id="{ids}lifecycle-description">{escape(describe(machine))}</desc>',
            f"{style}<defs>{heads}</defs>",
            f'<rect class="paper" x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" rx="12"/>',
            *(self._state(each) for each in machine.states),
            *(self._echo(declared, edges) for declared, edges in echoes),
            *(self._arrow(arrow) for arrow in arrows(machine)),
            *([_legend()] if is_connection else []),
            "</svg>\n",
        ]
        return "\n".join(parts)

    def _state(self, declared: Declared) -> str:
        state, edges, said = declared.state, self.layout.frame(declared.state), self._said(declared.state)
        x, y = edges.centre
        kind = "name" if isinstance(state, State) else "words"
        if declared.substates:
            beside = f'<tspan class="outcome" dx="8">{said}</tspan>' if said and self.layout.uniform(state) else ""
            texts = [_text("name", edges.left + PADDING, edges.top + 25, label(state) + beside, "start")]
        elif said:
            texts = [_text(kind, x, y - 3, label(state)), _text("outcome", x, y + 18, said)]
        else:
            texts = [_text(kind, x, y + 5, label(state))]
        inside = "".join(self._substate(each, told=self.layout.uniform(state)) for each in declared.substates)
        box = self._box(state, edges, " around" if declared.substates else "")
        return self._group("state", declared, _halo(edges, HALO) + box + "".join(texts) + inside)

    def _substate(self, declared: Declared, *, told: bool) -> str:
        """Draw a substate, with what becomes of a publish unless its state says it already."""
        state, edges = declared.state, self.layout.frame(declared.state)
        said = "" if told else self._said(state).removeprefix("publish ")
        box = _halo(edges, INNER_HALO) + self._box(state, edges)
        return self._group("substate", declared, box + _words(state, edges, said))

    def _echo(self, declared: Declared, edges: Frame) -> str:
        state, (x, y) = declared.state, edges.centre
        words = label(state) if isinstance(state, State) else f"{label(DOCUMENTED[state])}: {name(state)}"
        box = _rectangle(f"box {self._colour(state, None)}", edges, CORNER)
        return f'<g class="echo"><title>{escape(declared.meaning)}</title>{box}{_text("words", x, y + 4.5, words)}</g>'

    def _said(self, state: enum.Enum) -> str:
        said = self._lit.get(state) or outcome(self._machine, state)
        return f"publish {said}" if said else ""

    def _group(self, kind: str, declared: Declared, content: str) -> str:
        state, said = declared.state, outcome(self._machine, declared.state)
        kind += " present" if state in self._lit else ""
        usual = f' data-publish="{said}"' if said else ""
        meaning = escape(declared.meaning)
        return f'<g id="{self._ids}state-{slug(state)}" class="{kind}"{usual}><title>{meaning}</title>{content}</g>'

    def _box(self, state: enum.Enum, edges: Frame, kind: str = "") -> str:
        return _rectangle(f"box {self._colour(state, self._lit.get(state))}{kind}", edges, CORNER)

    def _colour(self, state: enum.Enum, publish: PublishOutcome | None) -> str:
        said = outcome(self._machine, state)
        return _kind(publish or said) if said and self.layout.uniform(state) else "mixed"

    def _arrow(self, arrow: Arrow) -> str:
        way, happy = self.layout.route(arrow), arrow.happy
        y = self.layout.first_baseline(arrow)
        lines = "".join(
            _text(
                f"label{' guard' if line.startswith('[') else ''}",
                way.label[0],
                y + LINE * index,
                escape(line).replace(TIMER, _TIMER_MARK),
                way.anchor,
            )
            for index, line in enumerate(arrow.lines)
        )
        head = "happy-head" if happy else "head"
        return (
            f'<g id="{self._ids}{arrow.id}" class="arrow{" happy" if happy else ""}">'
            f'<path class="line" d="{_path(way.points)}" marker-end="url(#{self._ids}lifecycle-{head})"/>{lines}</g>'
        )


def _head(its_id: str, kind: str, size: int) -> str:
    return (
        f'<marker id="{its_id}" viewBox="0 0 10 10" refX="9" refY="5" orient="auto"'
        f' markerUnits="userSpaceOnUse" markerWidth="{size}" markerHeight="{size}">'
        f'<path class="{kind}" d="M0 0 10 5 0 10z"/></marker>'
    )


def _words(state: enum.Enum, edges: Frame, said: str) -> str:
    lines = [("words", line) for line in textwrap.wrap(name(state), int((edges.right - edges.left - 8) / CHARACTER))]
    lines += [("outcome", f"publish {said}")] if said else []
    x, y = edges.centre
    top = y + 4.5 - 8 * (len(lines) - 1)
    return "".join(_text(kind, x, top + 16 * index, line) for index, (kind, line) in enumerate(lines))


def _text(kind: str, x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{text}</text>'


def _halo(edges: Frame, out: int) -> str:
    return _rectangle("halo", edges.grown(out), CORNER + out - 2)


def _rectangle(kind: str, edges: Frame, corner: int) -> str:
    return (
        f'<rect class="{kind}" x="{edges.left:g}" y="{edges.top:g}" width="{edges.right - edges.left:g}"'
        f' height="{edges.bottom - edges.top:g}" rx="{corner}"/>'
    )


def _kind(said: str) -> str:
    return said.replace(" ", "-")


_TIMER_MARK: Final = f'<tspan class="timer">{TIMER}</tspan>'


def _path(points: tuple[Point, ...]) -> str:
    """Join the points with lines and round the corners."""
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
    y = HEIGHT - 66
    parts = [f'<text x="24" y="{y + 5}">A publish:</text>']
    places = ((112, y, ""), (220, y, ""), (303, y, ""), (412, y + 23, " in an outbox"))
    for (x, middle, where), kind in zip(places, get_args(PublishOutcome), strict=True):
        parts.append(
            f'<rect class="box {_kind(kind)}" x="{x}" y="{middle - 9}" width="24" height="18" rx="5"/>'
            f'<text x="{x + 32}" y="{middle + 5}">{kind}{where}</text>'
        )
    parts.append(f'<g class="happy"><path class="line" d="M446 {y}H484" marker-end="url(#lifecycle-happy-head)"/></g>')
    parts.append(f'<text x="493" y="{y + 5}">the way to ready</text>')
    parts.append(f'<text class="label" x="648" y="{y + 5}">{_TIMER_MARK}</text>')
    parts.append(f'<text x="664" y="{y + 5}">also pulled by a timer, when a limit or delay expires</text>')
    echo = Frame(112, y + 14, 136, y + 32)
    parts.append(f'<g class="echo">{_rectangle("box mixed", echo, 5)}</g>')
    parts.append(f'<text x="144" y="{y + 28}">the same state, drawn again</text>')
    parts.append(f'<text class="label guard" x="648" y="{y + 28}">[guard]</text>')
    parts.append(
        f'<text x="716" y="{y + 28}">calls: url is a function · sets_up: setup is given · '
        "retries_node: attempts are left · blocking: an alarm or flow</text>"
    )
    parts.append(f'<text x="716" y="{y + 51}">stores: an outbox that works · expired: the credentials have</text>')
    return f'<g class="legend">{"".join(parts)}</g>'
