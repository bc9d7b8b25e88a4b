"""The diagrams and tables show the declaration, all of it, and what is committed of them is what it says now."""

import enum
import re
import subprocess
import sys
from pathlib import Path

import pytest
import resvg_py as resvg

from sprockets_amqp.drawing import declared, diagrams, picture, places, tables
from sprockets_amqp.drawing.declared import Arrow, arrows
from sprockets_amqp.states import (
    CONNECTION,
    DOCUMENTED,
    MACHINES,
    OUTAGE,
    OUTBOX,
    Closed,
    Declared,
    Machine,
    State,
)
from tests.support.declaration import BOXES, EXPECTED, cell, identifier

COMMITTED = Path(__file__).parent.parent / "diagrams"
NAMESPACE = "{http://www.w3.org/2000/svg}"

# What is committed


@pytest.mark.parametrize("suffix", ["mmd", "dot", "svg", "md"])
def test_what_is_committed_is_what_the_declaration_says(suffix: str) -> None:
    """A change of states/ that was not drawn again fails here: run `make diagrams`, and look at them."""
    made = {"mmd": diagrams.mermaid, "dot": diagrams.dot, "svg": diagrams.svg_file, "md": diagrams.page}[suffix]
    assert (COMMITTED / f"lifecycle.{suffix}").read_text(encoding="utf-8") == made()


@pytest.mark.parametrize("machine", MACHINES[1:], ids=lambda machine: machine.name)
def test_the_committed_picture_of_each_other_machine_is_what_it_declares(machine: Machine) -> None:
    """Each has a picture, in the folder and on the page."""
    assert (COMMITTED / f"{machine.name}.svg").read_text(encoding="utf-8") == diagrams.svg_file(machine)
    assert f"]({machine.name}.svg)" in diagrams.page()


def test_the_committed_png_was_rendered_from_the_present_picture() -> None:
    """The PNG carries the hash of the SVG that it shows: pixels depend on the machine's fonts."""
    image = (COMMITTED / "lifecycle.png").read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert picture.stamp(diagrams.svg_file()) in image


def test_write_makes_every_file_and_says_which(tmp_path: Path) -> None:
    """The folder is made, and holds what is listed; the PNG is twice as large as the SVG."""
    paths = diagrams.write(tmp_path / "made" / "here")
    others = [f"{machine.name}.svg" for machine in MACHINES[1:]]
    assert [path.name for path in paths] == [
        *(f"lifecycle.{kind}" for kind in ("mmd", "dot", "svg", "md")),
        *others,
        "lifecycle.png",
    ]
    assert sorted((tmp_path / "made" / "here").iterdir()) == sorted(paths)
    header = paths[-1].read_bytes()[16:24]
    assert (int.from_bytes(header[:4]), int.from_bytes(header[4:])) == (2 * places.WIDTH, 2 * places.HEIGHT)


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


def test_a_guard_stands_below_what_it_guards_and_nothing_else() -> None:
    """In a mixed label the unguarded triggers come last: a guard closes the group above it."""
    arrow = Arrow(State.IDLE, State.READY, [("a", ""), ("b", "if blocking"), ("c", ""), ("d", "if blocking")])
    assert arrow.lines == ["b", "d", "[if blocking]", "a", "c"]


def test_what_is_no_longer_declared_is_no_longer_shown() -> None:
    """A row, a timeout or a substate that is taken out is gone everywhere: nothing has a copy of its own."""
    shown = [
        diagrams.svg_file,
        diagrams.mermaid,
        diagrams.dot,
        diagrams.table,
        tables.substates_table,
        tables.actions_table,
    ]
    texts = [draw(CONNECTION) for draw in shown]
    assert [("stopped" in text, "close_expired" in text) for text in texts][:4] == [(True, True)] * 4
    left = [
        Declared(
            each.state,
            each.meaning,
            substates=[Declared(sub.state, sub.meaning) for sub in each.substates if sub.state is not Closed.STOPPED],
        )
        for each in CONNECTION.states
    ]
    rows = [row for row in CONNECTION.rows if row.dest is not Closed.STOPPED]
    less = Machine("connection", left, rows, State.IDLE)
    for text in (draw(less) for draw in shown):
        assert not re.search(r"\bstopped\b(?! the (channel|flow))", text)
        assert "close_expired" not in text
        assert "channel_due` after" not in text
    assert not [line for arrow in arrows(less) for line in arrow.lines if "◷" in line]


MERMAID = re.compile(
    r"    (direction TB|classDef \w+ fill:#\w{6},stroke:#\w{6},stroke-width:2px,color:#\w{6}|class \w+ \w+"
    r'|state "\w+" as \w+ {|    \w+ : [\w <>/]+|}|\w+ : [\w <>/]+|(\[\*\]|\w+) --> \w+( : [\w <>/\[\]◷]+)?)'
)


def test_the_mermaid_diagram_is_well_formed_and_complete() -> None:
    """Each line has one of the forms that Mermaid knows, and each declared trigger stands on its arrow."""
    head, *lines = diagrams.mermaid().splitlines()
    assert head == "stateDiagram-v2"
    assert [line for line in lines if not MERMAID.fullmatch(line)] == []
    for source, dest, trigger, guard in EXPECTED:
        start = f"    {_node(source)} --> {_node(dest)} : "
        [label] = [line.removeprefix(start) for line in lines if line.startswith(start)]
        assert trigger in label.replace("◷ ", "").split("<br/>")
        assert f"[{guard}]" in label or not guard
    for state in CONNECTION.states:
        at = (
            lines.index(f'    state "{state.state.name.capitalize()}" as {_node(state.state)} {{')
            if state.substates
            else 0
        )
        inside = lines[at + 1 : lines.index("    }", at)] if state.substates else []
        assert [line.split(" : ")[0].strip() for line in inside] == [_node(each.state) for each in state.substates]


def test_graphviz_accepts_the_dot_file_and_reads_every_arrow_from_it() -> None:
    """Graphviz's own parser finds the states and arrows of the declaration; a state with substates is a cluster."""
    done = subprocess.run(["dot", "-Tplain"], input=diagrams.dot(), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    words = [line.split() for line in done.stdout.splitlines()]
    assert {word[1] for word in words if word[0] == "node"} == {_node(state) for state in BOXES}
    edges = re.findall(
        r"^ +(\w+) -> (\w+) \[label=\"([^\"]+)\"(?:.*ltail=\"cluster_(\w+)\")?", diagrams.dot(), re.MULTILINE
    )
    assert len(edges) == len([word for word in words if word[0] == "edge"]) == len(arrows())
    for source, dest, trigger, _ in EXPECTED:
        # An arrow from a state with substates begins at the edge of its cluster, or at the other one where it stays.
        tails = {(_node(source), "")} | {(_node(each), _node(source)) for each in BOXES if DOCUMENTED[each] is source}
        tails |= {(_node(each), "") for each in BOXES if DOCUMENTED[each] is source is DOCUMENTED[dest]}
        assert [
            label
            for tail, head, label, ltail in edges
            if (tail, ltail) in tails and head == _node(dest) and trigger in label
        ]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_the_table_has_a_line_for_each_row(machine: Machine) -> None:
    """Trigger, sources, dest and guard of each declared row stand in its line, in the declaration's order."""
    head, _, *lines = map(_cells, tables.rows_table(machine).splitlines())
    for row, line in zip(machine.rows, lines, strict=True):
        told = dict(zip(head, line, strict=True))
        assert told["trigger"] == f"`{row.trigger}`"
        assert told["from"] == ", ".join(map(cell, row.source))
        assert told["to"] == cell(row.dest)
        assert told.get("guard", "").replace("`", "") == declared.guard(row)
        assert told.get("does", "") == (row.before.words if row.before else "")


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_a_table_tells_what_is_done_on_the_way_in_and_out_and_how_long_a_state_may_last(machine: Machine) -> None:
    """Each state that has actions or a timeout has a line, of any machine."""
    states = machine.declared.values()
    head, _, *lines = map(_cells, tables.actions_table(machine).splitlines())
    told = {line[0]: dict(zip(head, line, strict=True)) for line in lines}
    assert list(told) == [cell(each.state) for each in states if each.on_enter or each.on_exit or each.timeout]
    for each in states:
        line = told.get(cell(each.state), {})
        assert line.get("on entry", "") == ", ".join(action.words for action in each.on_enter)
        assert line.get("on exit", "") == ", ".join(action.words for action in each.on_exit)
        timer = f"`{each.timeout.trigger}` after {each.timeout.words}" if each.timeout else ""
        assert line.get("timer", "") == timer


def test_a_name_has_the_same_words_wherever_a_machine_declares_it() -> None:
    """An action or a timeout that stands beside several states is one thing."""
    for machine in MACHINES:
        states = machine.declared.values()
        named = [action for each in states for action in (*each.on_enter, *each.on_exit)]
        named += [row.before for row in machine.rows if row.before]
        words = {(each.name, each.words) for each in named}
        assert len(words) == len({name for name, _ in words})
        limits = {(each.timeout.name, each.timeout.words) for each in states if each.timeout}
        assert len(limits) == len({name for name, _ in limits})


def test_the_states_are_documented_in_the_table_as_where_they_are_declared() -> None:
    """Each state has its value, its meaning from the declaration, and what becomes of a publish."""
    lines = tables.states_table().splitlines()[2:]
    assert [_cells(line)[:3] for line in lines] == [
        [cell(each.state), str(each.state.value), each.meaning] for each in CONNECTION.states
    ]
    assert (
        "| `ready` | 3 | The channel is open and, if publisher confirms are enabled, in confirm mode. | goes out |"
        in lines
    )
    assert lines[-1].endswith("| waits or is refused |")


def test_the_substates_are_documented_in_a_table_of_their_own() -> None:
    """Each has its state, its words, its meaning, and what becomes of a publish."""
    assert [_cells(line) for line in tables.substates_table().splitlines()[2:]] == [
        [cell(state.state), each.state.value, each.meaning, each.publish]
        for state in CONNECTION.states
        for each in state.substates
    ]


def test_the_page_tells_each_machine_and_what_becomes_of_a_publish() -> None:
    """Its states stand there with their meanings, and each state of the connection with its three outcomes."""
    written = diagrams.page()
    for machine in MACHINES[1:]:
        for each in machine.states:
            assert f"| {cell(each.state)} | {each.meaning} |" in written
        for follow in machine.follows:
            assert f"`{follow.entered or follow.left}` | " in written
    for state, its in CONNECTION.declared.items():
        if its.publish:
            calm, refused = its.publish, "is refused" if its.publish == "waits" else its.publish
            assert f"| {cell(state)} | {calm} | {calm} | {refused} |" in written
    for outbox in OUTBOX.lasting:
        made = [OUTBOX.made(outbox, usual) for usual in ("goes out", "waits", "is refused")]
        assert f"| {cell(outbox)} | {' | '.join(made)} |" in written
    assert [cell(state) for state in OUTAGE.lasting] == ["`calm`", "`counting`", "`persistent`"]


def _cells(line: str) -> list[str]:
    return [part.strip() for part in line.removeprefix("|").removesuffix("|").split(" | ")]


def _node(state: enum.Enum) -> str:
    return identifier(state).replace("-", "_")
