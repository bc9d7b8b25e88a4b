"""The diagrams and tables show the declaration, all of it, and what is committed of them is what it says now."""

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import resvg_py as resvg

from sprockets_amqp import declared, diagrams, picture
from sprockets_amqp.declared import Arrow, arrows
from sprockets_amqp.picture import Frame
from sprockets_amqp.states import TRANSITIONS, Row, State

COMMITTED = Path(__file__).parent.parent / "diagrams"
NAMESPACE = "{http://www.w3.org/2000/svg}"

#: Every arrow that the declaration asks for, with its trigger and guard, read off it in this file's own way.
EXPECTED = {
    (source, row["dest"], row["trigger"], declared.guard(row))
    for row in TRANSITIONS
    for source in row["source"]
    if row["dest"] is not None
}


@pytest.fixture
def drawing() -> ET.Element:
    """The picture as a parsed document."""
    return _parsed(diagrams.svg_file())


# What is committed


@pytest.mark.parametrize("suffix", ["mmd", "dot", "svg", "md"])
def test_what_is_committed_is_what_the_declaration_says(suffix: str) -> None:
    """A change of states/ that was not drawn again fails here: run `make diagrams`, and look at them."""
    made = {"mmd": diagrams.mermaid, "dot": diagrams.dot, "svg": diagrams.svg_file, "md": diagrams.page}[suffix]
    assert (COMMITTED / f"lifecycle.{suffix}").read_text(encoding="utf-8") == made()


def test_the_committed_png_was_rendered_from_the_present_picture() -> None:
    """The PNG carries the hash of the SVG that it shows: pixels depend on the machine's fonts."""
    image = (COMMITTED / "lifecycle.png").read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert picture.stamp(diagrams.svg_file()) in image


def test_write_makes_every_file_and_says_which(tmp_path: Path) -> None:
    """The folder is made, and holds what is listed; the PNG is twice as large as the SVG."""
    paths = diagrams.write(tmp_path / "made" / "here")
    assert [path.name for path in paths] == [f"lifecycle.{kind}" for kind in ("mmd", "dot", "svg", "md", "png")]
    assert sorted((tmp_path / "made" / "here").iterdir()) == sorted(paths)
    header = paths[-1].read_bytes()[16:24]
    assert (int.from_bytes(header[:4]), int.from_bytes(header[4:])) == (2 * picture.WIDTH, 2 * picture.HEIGHT)


def test_without_resvg_the_others_are_written_and_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the PNG needs the extra."""
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(RuntimeError, match=r"pip install 'sprockets_amqp\[diagrams\]'"):
        diagrams.write(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".mmd", ".dot", ".svg", ".md"}


def test_without_fonts_no_png_without_words_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install, where text would be left out of the picture."""
    bare = type(
        "Resvg", (), {"svg_to_bytes": staticmethod(lambda text: resvg.svg_to_bytes(text, skip_system_fonts=True))}
    )
    monkeypatch.setitem(sys.modules, "resvg_py", bare)
    with pytest.raises(RuntimeError, match="fonts-dejavu-core"):
        diagrams.png()


# Everything is shown


def test_the_picture_shows_every_state_and_every_arrow_with_its_triggers(drawing: ET.Element) -> None:
    """Read back from the SVG, groups and labels are those of the declaration."""
    groups = {group.get("id"): group for group in drawing.iter(f"{NAMESPACE}g")}
    assert {f"state-{state.name.lower()}" for state in State} <= set(groups)
    for source, dest, trigger, guard in EXPECTED:
        group = groups[f"arrow-{source.name.lower()}-{dest.name.lower()}"]
        said = [text.text for text in group.iter(f"{NAMESPACE}text")]
        assert trigger in said
        assert not guard or said.index(f"[{guard}]") > said.index(trigger)
    assert sum(group.get("class", "").startswith("arrow") for group in groups.values()) == len(arrows())


def test_a_guard_stands_below_what_it_guards_and_nothing_else() -> None:
    """In a mixed label the unguarded triggers come last: a guard closes the group above it."""
    arrow = Arrow(State.IDLE, State.READY, [("a", ""), ("b", "if blocking"), ("c", ""), ("d", "if blocking")])
    assert arrow.lines == ["b", "d", "[if blocking]", "a", "c"]


def test_a_row_that_stays_is_no_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without a dest stand in the table only."""
    row: Row = {"trigger": "sighed", "source": [State.READY], "dest": None}
    monkeypatch.setattr(declared, "TRANSITIONS", [row])
    assert arrows() == []


MERMAID = re.compile(
    r"    (direction TB|classDef \w+ fill:#\w{6},stroke:#\w{6},stroke-width:2px,color:#\w{6}|class \w+ \w+"
    r"|\w+ : [\w <>/]+|(\[\*\]|\w+) --> \w+( : [\w <>/\[\]]+)?)"
)


def test_the_mermaid_diagram_is_well_formed_and_complete() -> None:
    """Each line has one of the forms that Mermaid knows, and each declared trigger stands on its arrow."""
    head, *lines = diagrams.mermaid().splitlines()
    assert head == "stateDiagram-v2"
    assert [line for line in lines if not MERMAID.fullmatch(line)] == []
    for source, dest, trigger, guard in EXPECTED:
        start = f"    {source.name.lower()} --> {dest.name.lower()} : "
        [label] = [line.removeprefix(start) for line in lines if line.startswith(start)]
        assert trigger in label.split("<br/>")
        assert f"[{guard}]" in label or not guard


def test_graphviz_accepts_the_dot_file_and_reads_every_arrow_from_it() -> None:
    """Graphviz's own parser finds the states and arrows of the declaration."""
    done = subprocess.run(["dot", "-Tplain"], input=diagrams.dot(), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    words = [line.split() for line in done.stdout.splitlines()]
    assert {word[1] for word in words if word[0] == "node"} == {state.name.lower() for state in State}
    assert {(word[1], word[2]) for word in words if word[0] == "edge"} == {
        (source.name.lower(), dest.name.lower()) for source, dest, _, _ in EXPECTED
    }
    for _, _, trigger, _ in EXPECTED:
        assert trigger in done.stdout


def test_the_table_has_a_line_for_each_row() -> None:
    """Trigger, sources, dest and guard of each declared row stand in its line, in the declaration's order."""
    for row, line in zip(TRANSITIONS, diagrams.table().splitlines()[2:], strict=True):
        trigger, sources, dest, guard, does = line.strip("| ").split(" | ")
        assert trigger == f"`{row['trigger']}`"
        assert sources.split(", ") == [f"`{source.name.lower()}`" for source in row["source"]]
        assert dest == (f"`{row['dest'].name.lower()}`" if row["dest"] is not None else "stays")
        assert guard.replace("`", "").strip() == declared.guard(row)
        assert does


def test_every_declared_callback_is_told_in_words() -> None:
    """The phrases name each callback of the declaration, and no other."""
    assert {callback for row in TRANSITIONS for callback in declared.callbacks(row)} == set(declared.PHRASES)


def test_the_states_are_documented_in_the_table_as_where_they_are_declared() -> None:
    """Each state has its value, its comment from the declaration, and what becomes of a publish."""
    lines = diagrams.states_table().splitlines()[2:]
    assert len(lines) == len(State)
    assert (
        "| `ready` | 3 | The channel is open and, where publisher confirms are used, in confirm mode. | goes out |"
        in lines
    )
    assert lines[-1].endswith("| waits or is refused |")
    assert set(declared.meanings()) == set(State)


# It can be read


def test_no_label_lies_on_another_or_on_a_state() -> None:
    """With the widest of common fonts, the frames of labels and of lit states are apart, and inside the picture."""
    frames = [(arrow.id, picture.label_frame(arrow)) for arrow in arrows()]
    frames += [(state.name, _lit(picture.frame(state))) for state in State]
    assert [(one, other) for (one, a), (other, b) in combinations(frames, 2) if _overlap(a, b)] == []
    legend = picture.HEIGHT - 50
    assert [one for one, a in frames if min(a.left, a.top) < 0 or a.right > picture.WIDTH or a.bottom > legend] == []


def test_no_arrow_runs_through_a_label_or_a_state() -> None:
    """Lines end at the edges of states, and leave every label free."""
    frames = [(arrow.id, picture.label_frame(arrow)) for arrow in arrows()]
    frames += [(state.name, picture.frame(state)) for state in State]
    hits = [(arrow.id, one) for arrow in arrows() for line in _lines(arrow) for one, a in frames if _overlap(line, a)]
    assert hits == []


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
        points = picture.route(arrow).points
        assert _touches(points[0], picture.frame(arrow.source)), arrow.id
        assert _touches(points[-1], picture.frame(arrow.dest)), arrow.id
    assert {picture.place(state)[1] for state in (State.IDLE, State.CONNECTING, State.READY)} == {112}


def test_what_has_no_place_in_the_picture_is_drawn_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state or an arrow that is new in the declaration stands in a row of its own until it is given a place."""
    monkeypatch.delitem(picture.PLACES, State.CLOSING)
    for key in [key for key in picture.ROUTES if State.CLOSING in key]:
        monkeypatch.delitem(picture.ROUTES, key)
    drawn = diagrams.svg()
    assert 'id="state-closing"' in drawn
    assert 'id="arrow-closing-closed"' in drawn
    assert picture.frame(State.CLOSING).top > picture.HEIGHT
    height = float(_parsed(drawn).get("viewBox", "").split()[3])
    assert picture.frame(State.CLOSING).bottom < height


# On a page


@pytest.mark.parametrize("present", list(State))
def test_the_present_state_and_no_other_is_lit(present: State) -> None:
    """Lighting is a class on the state's group, so that a page can move it."""
    groups = _parsed(diagrams.svg(present)).iter(f"{NAMESPACE}g")
    lit = [group.get("id") for group in groups if "present" in group.get("class", "").split()]
    assert lit == [f"state-{present.name.lower()}"]


def test_the_inline_picture_needs_no_style_of_its_own() -> None:
    """A strict Content-Security-Policy blocks style elements and attributes: STYLE has the colours, and all of them."""
    drawn = diagrams.svg(State.READY)
    assert "<style" not in drawn
    assert "style=" not in drawn
    used = {kind for group in re.findall(r'class="([^"]+)"', drawn) for kind in group.split()}
    assert used - {"state", "arrow", "legend"} <= set(re.findall(r"[.]([a-z-]+)", diagrams.STYLE))


def test_dark_and_light_colours_are_far_enough_from_their_ground() -> None:
    """Text has at least the contrast of 4.5 to 1 that WCAG asks for, on paper and on every state."""
    light, dark = diagrams.STYLE.split("@media")
    for style, ink in ((light, "#1f2328"), (dark, "#f0f6fc")):
        assert f".lifecycle text {{ fill: {ink}; }}" in style
        grounds = re.findall(r"\.(?:paper|box\.[a-z-]+) \{ fill: (#\w{6})", style)
        assert len(grounds) == 4
        assert [ground for ground in grounds if _contrast(ink, ground) < 4.5] == []


def test_those_who_do_not_see_the_picture_are_told_what_it_shows(drawing: ET.Element) -> None:
    """Title and description are what a screen reader reads; the description has every arrow."""
    assert drawing.get("role") == "img"
    told = " ".join(drawing.findtext(f"{NAMESPACE}{part}", "") for part in ("title", "desc"))
    named = {part.get("id") for part in drawing if part.tag in {f"{NAMESPACE}title", f"{NAMESPACE}desc"}}
    assert set(drawing.get("aria-labelledby", "").split()) == named
    for source, dest, trigger, _ in EXPECTED:
        assert re.search(rf"{source.name.lower()} to {dest.name.lower()}: [^.]*\b{trigger}\b", told)


def _parsed(drawn: str) -> ET.Element:
    return ET.fromstring(drawn)  # noqa: S314 - our own drawing


def _overlap(a: Frame, b: Frame) -> bool:
    return a.left < b.right and b.left < a.right and a.top < b.bottom and b.top < a.bottom


def _lit(frame: Frame) -> Frame:
    out = picture.HALO + 2.5  # half of the ring's width
    return Frame(frame.left - out, frame.top - out, frame.right + out, frame.bottom + out)


def _lines(arrow: Arrow) -> Iterator[Frame]:
    for (x1, y1), (x2, y2) in pairwise(picture.route(arrow).points):
        yield Frame(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))


def _touches(point: tuple[float, float], frame: Frame) -> bool:
    x, y = point
    across, down = frame.left <= x <= frame.right, frame.top <= y <= frame.bottom
    return across and down and (x in {frame.left, frame.right} or y in {frame.top, frame.bottom})


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (((s + 0.055) / 1.055) ** 2.4 if s > 0.03928 else s / 12.92 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
