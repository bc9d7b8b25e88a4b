"""The picture shows the declaration, all of it, can be read, and is lit by a page."""

import enum
import re
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from sprockets_amqp.drawing import diagrams, layout, places
from sprockets_amqp.drawing.declared import Arrow, arrows, name, outcome
from sprockets_amqp.drawing.layout import CHARACTER, LINE, PADDING, Frame, Layout
from sprockets_amqp.drawing.picture import layout_of
from sprockets_amqp.states import (
    CONNECTION,
    DOCUMENTED,
    MACHINES,
    Closed,
    Closing,
    Connecting,
    Machine,
    PublishOutcome,
    State,
    Substate,
)
from tests.support.declaration import BOXES, DECLARED, EXPECTED, FRAMES, identifier, timed

COMMITTED = Path(__file__).parent.parent / "diagrams"
NAMESPACE = "{http://www.w3.org/2000/svg}"
LAYOUT = layout_of(CONNECTION)
#: What usually becomes of a publish in each state that lasts.
OUTCOMES = {each.state: each.publish for each in DECLARED if each.publish}


@pytest.fixture
def drawing() -> ET.Element:
    """The picture as a parsed document."""
    return _parsed(diagrams.svg_file())


# Everything is shown


def test_the_picture_shows_every_state_and_every_arrow_with_its_triggers(drawing: ET.Element) -> None:
    """Read back from the SVG, groups and labels are those of the declaration."""
    groups = {group.get("id"): group for group in drawing.iter(f"{NAMESPACE}g")}
    assert {f"state-{identifier(each.state)}" for each in DECLARED} == {key for key in groups if "state-" in str(key)}
    for source, dest, trigger, guard in EXPECTED:
        group = groups[f"arrow-{identifier(source)}-{identifier(dest)}"]
        said = ["".join(text.itertext()) for text in group.iter(f"{NAMESPACE}text")]
        line = f"◷ {trigger}" if trigger in timed(source) else trigger
        assert line in said
        assert not guard or said.index(f"[{guard}]") > said.index(line)
    ways = {f"arrow-{identifier(source)}-{identifier(dest)}" for source, dest, _, _ in EXPECTED}
    assert ways == {key for key, group in groups.items() if group.get("class", "").startswith("arrow")}


def test_substates_stand_inside_their_state_with_their_names_and_what_they_mean(drawing: ET.Element) -> None:
    """So do they in the document: whoever moves or hides a state's group has its substates with it."""
    for each in DECLARED:
        [group] = [
            group for group in drawing.iter(f"{NAMESPACE}g") if group.get("id") == f"state-{identifier(each.state)}"
        ]
        assert group.findtext(f"{NAMESPACE}title") == each.meaning
        said = " ".join("".join(text.itertext()) for text in group.findall(f"{NAMESPACE}text"))
        assert (each.state.name.capitalize() if isinstance(each.state, State) else each.state.value) in said
        inside = [part.get("id") for part in group.findall(f"{NAMESPACE}g")]
        assert inside == [f"state-{identifier(substate.state)}" for substate in each.substates]
        for substate in each.substates:
            assert _within(LAYOUT.frame(substate.state), LAYOUT.frame(each.state))


@pytest.mark.parametrize("state", BOXES)
def test_the_colour_of_a_box_is_what_becomes_of_a_publish(drawing: ET.Element, state: Substate) -> None:
    """A closed connection that retries takes a publish, one that was stopped refuses it: their colours differ."""
    [group] = [group for group in drawing.iter(f"{NAMESPACE}g") if group.get("id") == f"state-{identifier(state)}"]
    [box] = [part.get("class", "").split() for part in group if "box" in part.get("class", "").split()]
    assert OUTCOMES[state].replace(" ", "-") in box


def test_what_is_pulled_by_a_timer_is_marked_and_explained(drawing: ET.Element) -> None:
    """An arrow has the mark where its state, or one of its substates, has a timeout with that trigger."""
    marked = {(arrow.source, line[2:]) for arrow in arrows() for line in arrow.lines if line.startswith("◷ ")}
    assert marked == {(source, trigger) for source, _, trigger, _ in EXPECTED if trigger in timed(source)}
    assert {trigger for _, trigger in marked} == {each.timeout.trigger for each in DECLARED if each.timeout}
    [legend] = [group for group in drawing.iter(f"{NAMESPACE}g") if group.get("class") == "legend"]
    said = ["".join(text.itertext()) for text in legend.iter(f"{NAMESPACE}text")]
    assert said[said.index("◷") + 1].startswith("also pulled by a timer")


# It can be read


def test_no_label_lies_on_another_or_on_a_state() -> None:
    """With the widest of common fonts, labels, names and lit boxes are apart, inside the picture."""
    frames = [*_labels(), *_headings(), *((state.name, _lit(state)) for state in BOXES), *_echoes()]
    assert [(one, other) for (one, a), (other, b) in combinations(frames, 2) if _overlap(a, b)] == []
    legend = places.HEIGHT - 79
    assert [one for one, a in frames if min(a.left, a.top) < 0 or a.right > places.WIDTH or a.bottom > legend] == []


def test_no_label_lies_on_the_edge_of_a_state() -> None:
    """Inside a state's frame stand its own substates, their names and arrows; all else is outside, lit or not."""
    boxes = [(state.name, _lit(state)) for state in BOXES]
    for around in FRAMES:
        edges, lit = LAYOUT.frame(around), _lit(around)
        astride = [
            one
            for one, a in (*_labels(), *_headings(), *boxes, *_echoes())
            if _overlap(a, lit) and not _within(a, edges)
        ]
        assert astride == []
        own = {arrow.id for arrow in arrows() if around in {DOCUMENTED[arrow.source], DOCUMENTED[arrow.dest]}}
        assert {one for one, a in _labels() if _within(a, edges)} <= own
        assert {state for state in BOXES if _within(_lit(state), edges)} == {
            state for state in BOXES if DOCUMENTED[state] is around
        }


def test_no_arrow_runs_through_a_label_or_a_state() -> None:
    """Lines end at the edges of states, and leave every label free; only a state that they lead into do they enter."""
    frames = [*_labels(), *_headings(), *_echoes()]
    for arrow in arrows():
        strange = [state for state in FRAMES if state not in {DOCUMENTED[arrow.source], DOCUMENTED[arrow.dest]}]
        around = [*frames, *((state.name, LAYOUT.frame(state)) for state in (*BOXES, *strange))]
        assert [one for line in _lines(arrow) for one, a in around if _overlap(line, a)] == [], arrow.id


def test_no_two_arrows_cross() -> None:
    """The lines of the picture can be followed without guessing."""
    assert [
        (one.id, other.id)
        for one, other in combinations(arrows(), 2)
        for a in _lines(one)
        for b in _lines(other)
        if a.left <= b.right and b.left <= a.right and a.top <= b.bottom and b.top <= a.bottom
    ] == []


def test_arrows_lead_from_their_source_to_their_dest() -> None:
    """Each way begins at an edge of its source and ends at one of its dest; the way to ready is one straight line."""
    for arrow in arrows():
        points = LAYOUT.route(arrow).points
        ends = [LAYOUT.frame(arrow.dest), *(places.ECHOES[state] for state in places.ECHOES if state is arrow.dest)]
        assert _touches(points[0], LAYOUT.frame(arrow.source)), arrow.id
        assert any(_touches(points[-1], end) for end in ends), arrow.id
    way = [State.IDLE, Connecting.OPENING_CONNECTION, Connecting.OPENING_CHANNEL, State.READY]
    assert {LAYOUT.frame(state).centre[1] for state in way} == {88}
    assert {(arrow.source, arrow.dest) for arrow in arrows() if arrow.happy} == set(pairwise(way))
    assert {point[1] for arrow in arrows() if arrow.happy for point in LAYOUT.route(arrow).points} == {88}


def test_every_place_and_way_is_that_of_something_declared() -> None:
    """What was taken out of the declaration leaves nothing in the picture's layout."""
    assert {*places.PLACES, *places.ECHOES} <= {each.state for each in DECLARED}
    assert set(places.ROUTES) == {(source, dest) for source, dest, _, _ in EXPECTED}


@pytest.mark.parametrize("homeless", [Closing.DRAINING, State.BLOCKED, *Closed])
def test_what_has_no_place_in_the_picture_is_drawn_all_the_same(
    monkeypatch: pytest.MonkeyPatch, homeless: Substate
) -> None:
    """A state, substate or arrow that is new stands in a row of its own until it is given a place."""
    monkeypatch.delitem(places.PLACES, homeless)
    for key in [key for key in places.ROUTES if homeless in key]:
        monkeypatch.delitem(places.ROUTES, key)
    drawn = diagrams.svg()
    assert f'id="state-{identifier(homeless)}"' in drawn
    ids = [f'id="arrow-{identifier(source)}-{identifier(dest)}"' for source, dest, _, _ in EXPECTED]
    assert [each for each in ids if each not in drawn] == []
    assert LAYOUT.frame(homeless).top > places.HEIGHT
    height = float(_parsed(drawn).get("viewBox", "").split()[3])
    assert LAYOUT.frame(homeless).bottom < height


def test_a_state_that_has_no_place_with_all_its_substates_is_drawn_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand in one row, none on another."""
    for state in Closing:
        monkeypatch.delitem(places.PLACES, state)
    frames = [LAYOUT.frame(state) for state in (State.CLOSING, *Closing)]
    assert all(frame.top > places.HEIGHT for frame in frames)
    assert not any(_overlap(a, b) for a, b in combinations(frames, 2))


# The others lay themselves out


@pytest.mark.parametrize("machine", MACHINES[1:], ids=lambda machine: machine.name)
def test_a_machine_without_a_layout_lays_itself_out(machine: Machine) -> None:
    """Each state and each arrow with its triggers is there; no label lies on another, on a state, or on a line."""
    drawn, laid = _parsed(diagrams.svg_file(machine)), layout_of(machine)
    groups = {group.get("id"): group for group in drawn.iter(f"{NAMESPACE}g")}
    assert len([each for each in groups if each is not None and each.startswith(f"{machine.name}-state-")]) == len(
        machine.declared
    )
    its_arrows = arrows(machine)
    for row in machine.rows:
        for source in row.source:
            [arrow] = [each for each in its_arrows if (each.source, each.dest) == (source, row.dest)]
            said = " ".join(
                "".join(text.itertext()) for text in groups[f"{machine.name}-{arrow.id}"].iter(f"{NAMESPACE}text")
            )
            assert row.trigger in said and (row.conditions or row.unless) in said
            points = laid.route(arrow).points
            assert _touches(points[0], laid.frame(source)) and _touches(points[-1], laid.frame(row.dest))
    labels = [label_frame(laid, each) for each in its_arrows]
    boxes = [laid.frame(state).grown(2) for state in machine.lasting]
    lines = [
        Frame(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        for each in its_arrows
        for (x1, y1), (x2, y2) in pairwise(laid.route(each).points)
    ]
    assert not any(_overlap(a, b) for a, b in combinations((*labels, *boxes), 2))
    assert not any(_overlap(a, b) for a in labels for b in lines)
    assert max(each.right for each in (*labels, *lines)) < laid.width
    assert max(each.bottom for each in boxes) < laid.height


# On a page


@pytest.mark.parametrize("present", [each.state for each in DECLARED])
def test_the_present_state_and_no_other_is_lit(present: Substate) -> None:
    """Lighting is a class on the state's group, and on the substate's, so that a page can move it."""
    groups = _parsed(diagrams.svg(present)).iter(f"{NAMESPACE}g")
    lit = [group.get("id") for group in groups if "present" in group.get("class", "").split()]
    assert lit == [f"state-{identifier(each)}" for each in dict.fromkeys([DOCUMENTED[present], present])]


@pytest.mark.parametrize("said", ["is refused", "is stored"])
@pytest.mark.parametrize("present", [each.state for each in DECLARED if each.state in OUTCOMES])
def test_the_present_state_says_what_becomes_of_a_publish_now(present: Substate, said: PublishOutcome) -> None:
    """In a persistent outage, or with an outbox, that is not what usually does; the other states are as ever."""
    usual, now = (_parsed(diagrams.svg(present, each)) for each in (None, said))
    changed = set()
    for before, after in zip(usual.iter(f"{NAMESPACE}g"), now.iter(f"{NAMESPACE}g"), strict=True):
        if str(after.get("id")).startswith("state-") and _own(before) != _own(after):
            changed.add(after.get("id"))
            assert any(f"publish {said}" in each or each == said.replace(" ", "-") for each in _own(after))
            assert after.get("data-publish") == before.get("data-publish") != said
    own = {f"state-{identifier(each)}" for each in (present, DOCUMENTED[present])}
    assert changed <= own
    assert f"state-{identifier(present)}" in changed or OUTCOMES[present] == said


def _own(group: ET.Element) -> set[str]:
    """The words and the box's classes of a state, without those of its substates."""
    own = [child for child in group if child.tag != f"{NAMESPACE}g"]
    words = {"".join(child.itertext()) for child in own if child.tag == f"{NAMESPACE}text"}
    return words.union(*(child.get("class", "").split() for child in own if child.tag == f"{NAMESPACE}rect"))


def test_what_is_lit_has_another_colour_than_what_is_stored() -> None:
    """In light and dark, a ring can be told from a box."""
    for style in diagrams.STYLE.split("@media"):
        ring, stored = (
            re.search(rf"{kind} \{{[^}}]*stroke: (#\w+)", style) for kind in (r"\.present > \.halo", r"\.is-stored")
        )
        assert ring is not None and stored is not None and ring[1] != stored[1]


def test_the_inline_picture_needs_no_style_of_its_own() -> None:
    """A strict Content-Security-Policy blocks style elements and attributes: STYLE has the colours, and all of them."""
    drawn = diagrams.svg(Closed.RETRYING)
    assert "<style" not in drawn
    assert "style=" not in drawn
    used = {kind for group in re.findall(r'class="([^"]+)"', drawn) for kind in group.split()}
    assert used - {"state", "arrow", "legend"} <= set(re.findall(r"[.]([a-z-]+)", diagrams.STYLE))


def test_dark_and_light_colours_are_far_enough_from_their_ground() -> None:
    """Text has at least the contrast of 4.5 to 1 that WCAG asks for, on paper and on every state.

    Where a state with substates lets the paper through, its ground is between the two.
    """
    light, dark = diagrams.STYLE.split("@media")
    for style, ink in ((light, "#1f2328"), (dark, "#f0f6fc")):
        assert f".lifecycle text {{ fill: {ink}; }}" in style
        grounds = re.findall(r"\.(?:paper|box\.[a-z-]+) \{ fill: (#\w{6})", style)
        assert len(grounds) == 6
        assert [ground for ground in grounds if _contrast(ink, ground) < 4.5] == []


def test_those_who_do_not_see_the_picture_are_told_what_it_shows(drawing: ET.Element) -> None:
    """Title and description are what a screen reader reads; the description has every state and every arrow."""
    assert drawing.get("role") == "img"
    told = " ".join(drawing.findtext(f"{NAMESPACE}{part}", "") for part in ("title", "desc"))
    named = {part.get("id") for part in drawing if part.tag in {f"{NAMESPACE}title", f"{NAMESPACE}desc"}}
    assert set(drawing.get("aria-labelledby", "").split()) == named
    for state, said in OUTCOMES.items():
        assert f"In {_spoken(state)}, a publish {said}." in told
    for source, dest, trigger, _ in EXPECTED:
        by_timer = r" \(also by a timer\)" if trigger in timed(source) else r"(?! \()"
        ends = re.escape(f"{_spoken(source)} to {_spoken(dest)}: ")
        assert re.search(rf"{ends}[^.]*\b{trigger}\b{by_timer}", told)


def _parsed(drawn: str) -> ET.Element:
    return ET.fromstring(drawn)  # noqa: S314 - our own drawing


def _overlap(a: Frame, b: Frame) -> bool:
    return a.left < b.right and b.left < a.right and a.top < b.bottom and b.top < a.bottom


def _within(inner: Frame, outer: Frame) -> bool:
    across = outer.left <= inner.left and inner.right <= outer.right
    return across and outer.top <= inner.top and inner.bottom <= outer.bottom


def _lit(state: enum.Enum) -> Frame:
    # With half of the ring's width.
    out = layout.HALO + 2.5 if isinstance(state, State) else layout.INNER_HALO + 2
    frame = LAYOUT.frame(state)
    return Frame(frame.left - out, frame.top - out, frame.right + out, frame.bottom + out)


def heading_frame(laid: Layout, state: enum.Enum) -> Frame:
    """The most room that the heading of a state with substates takes: name and what becomes of a publish."""
    edges, said = laid.frame(state), outcome(laid.machine, state)
    # Average widths of letters of size 20 (bold) and 12 in DejaVu Sans, the widest of the common fonts.
    width = len(name(state)) * 13 + (len(f"publish {said}") * 6.5 + 8 if said and laid.uniform(state) else 0)
    left = edges.left + PADDING
    return Frame(left, edges.top + 8, left + width, edges.top + 30)


def label_frame(laid: Layout, arrow: Arrow) -> Frame:
    """The most room that the arrow's label takes."""
    way, lines = laid.route(arrow), arrow.lines
    width = max(map(len, lines)) * CHARACTER
    left = way.label[0] - {"start": 0, "middle": width / 2, "end": width}[way.anchor]
    top = laid.first_baseline(arrow) - 12
    return Frame(left, top, left + width, top + LINE * len(lines))


def _labels() -> list[tuple[str, Frame]]:
    return [(arrow.id, label_frame(LAYOUT, arrow)) for arrow in arrows()]


def _headings() -> list[tuple[str, Frame]]:
    return [(f"name of {state.name}", heading_frame(LAYOUT, state)) for state in FRAMES]


def _echoes() -> list[tuple[str, Frame]]:
    return [(f"echo of {state.name}", frame) for state, frame in places.ECHOES.items()]


def _lines(arrow: Arrow) -> Iterator[Frame]:
    for (x1, y1), (x2, y2) in pairwise(LAYOUT.route(arrow).points):
        yield Frame(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))


def _touches(point: tuple[float, float], frame: Frame) -> bool:
    x, y = point
    across, down = frame.left <= x <= frame.right, frame.top <= y <= frame.bottom
    return across and down and (x in {frame.left, frame.right} or y in {frame.top, frame.bottom})


def _spoken(state: enum.Enum) -> str:
    documented = DOCUMENTED[state].name.lower()
    return documented if isinstance(state, State) else f"{documented} ({state.value})"


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (((s + 0.055) / 1.055) ** 2.4 if s > 0.03928 else s / 12.92 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
