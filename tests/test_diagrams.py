"""The diagrams and tables show the declaration, all of it, and what is committed of them is what it says now."""

import enum
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import resvg_py as resvg

from sprockets_amqp.drawing import declared, diagrams, layout, picture, tables
from sprockets_amqp.drawing.declared import Arrow, arrows
from sprockets_amqp.states import (
    DOCUMENTED,
    OUTAGE_STATES,
    OUTAGE_TRANSITIONS,
    OUTBOX_OUTCOMES,
    OUTBOX_STATES,
    OUTBOX_TRANSITIONS,
    PUBLISH_OUTCOMES,
    RENEWAL_STATES,
    RENEWAL_TRANSITIONS,
    STATES,
    TRANSITIONS,
    Closed,
    Declared,
    Outage,
    Row,
    State,
)
from tests.support.declaration import BOXES, DECLARED, EXPECTED, cell, identifier

COMMITTED = Path(__file__).parent.parent / "diagrams"
NAMESPACE = "{http://www.w3.org/2000/svg}"

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
    assert (int.from_bytes(header[:4]), int.from_bytes(header[4:])) == (2 * layout.WIDTH, 2 * layout.HEIGHT)


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


def test_what_is_no_longer_declared_is_no_longer_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row, a timeout or a substate that is taken out is gone everywhere: nothing has a copy of its own."""
    shown = [diagrams.svg_file, diagrams.mermaid, diagrams.dot, diagrams.page]
    assert [("stopped" in text, "close_expired" in text) for text in (draw() for draw in shown)] == [(True, True)] * 4
    rows = [row for row in TRANSITIONS if row.dest is not Closed.STOPPED]
    left = [
        Declared(
            each.state,
            each.meaning,
            substates=[Declared(sub.state, sub.meaning) for sub in each.substates if sub.state is not Closed.STOPPED],
        )
        for each in STATES
    ]
    outcomes = {state: outcome for state, outcome in PUBLISH_OUTCOMES.items() if state is not Closed.STOPPED}
    for module in (declared, tables):
        monkeypatch.setattr(module, "TRANSITIONS", rows)
        monkeypatch.setattr(module, "PUBLISH_OUTCOMES", outcomes)
    monkeypatch.setattr(declared, "STATES", left)
    for text in (draw() for draw in shown):
        assert not re.search(r"\bstopped\b(?! the (channel|flow))", text)
        assert "close_expired" not in text
        assert "channel_due` after" not in text
    assert not [line for arrow in arrows() for line in arrow.lines if "◷" in line]


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
    for state in STATES:
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


@pytest.mark.parametrize(
    ("rows", "written"),
    [
        (TRANSITIONS, diagrams.table),
        (OUTAGE_TRANSITIONS, tables.outage_table),
        (RENEWAL_TRANSITIONS, tables.renewal_table),
        (OUTBOX_TRANSITIONS, tables.outbox_table),
    ],
)
def test_the_table_has_a_line_for_each_row(rows: tuple[Row, ...], written: Callable[[], str]) -> None:
    """Trigger, sources, dest and guard of each declared row stand in its line, in the declaration's order."""
    head, _, *lines = map(_cells, written().splitlines())
    for row, line in zip(rows, lines, strict=True):
        told = dict(zip(head, line, strict=True))
        assert told["trigger"] == f"`{row.trigger}`"
        assert told["from"] == ", ".join(map(cell, row.source))
        assert told["to"] == cell(row.dest)
        assert told.get("guard", "").replace("`", "") == declared.guard(row)
        assert bool(told.get("does", "")) is bool(row.before)


def test_a_table_tells_what_is_done_on_the_way_in_and_out_and_how_long_a_state_may_last() -> None:
    """Each state that has actions or a timeout has a line, of either machine."""
    for states, written in (
        (DECLARED, tables.actions_table()),
        (OUTAGE_STATES, tables.outage_actions_table()),
        (OUTBOX_STATES, tables.outbox_actions_table()),
    ):
        head, _, *lines = map(_cells, written.splitlines())
        told = {line[0]: dict(zip(head, line, strict=True)) for line in lines}
        assert list(told) == [cell(each.state) for each in states if each.on_enter or each.on_exit or each.timeout]
        for each in states:
            line = told.get(cell(each.state), {})
            assert line.get("on entry", "") == ", ".join(declared.PHRASES[action] for action in each.on_enter)
            assert line.get("on exit", "") == ", ".join(declared.PHRASES[action] for action in each.on_exit)
            timer = f"`{each.on_timeout}` after {declared.TIMES[each.timeout]}" if each.timeout else ""
            assert line.get("timer", "") == timer


def test_every_declared_action_and_timeout_is_told_in_words() -> None:
    """The phrases name each action and timeout of the declarations, and no other."""
    states = [*DECLARED, *OUTAGE_STATES, *RENEWAL_STATES, *OUTBOX_STATES]
    actions = {action for each in states for action in (*each.on_enter, *each.on_exit)}
    rows = (*TRANSITIONS, *OUTAGE_TRANSITIONS, *RENEWAL_TRANSITIONS, *OUTBOX_TRANSITIONS)
    actions |= {row.before for row in rows if row.before}
    assert actions == set(declared.PHRASES)
    assert {each.timeout for each in states if each.timeout} == set(declared.TIMES)


def test_the_states_are_documented_in_the_table_as_where_they_are_declared() -> None:
    """Each state has its value, its meaning from the declaration, and what becomes of a publish."""
    lines = diagrams.states_table().splitlines()[2:]
    assert [_cells(line)[:3] for line in lines] == [
        [cell(each.state), str(each.state.value), each.meaning] for each in STATES
    ]
    assert (
        "| `ready` | 3 | The channel is open and, if publisher confirms are enabled, in confirm mode. | goes out |"
        in lines
    )
    assert lines[-1].endswith("| waits or is refused |")


def test_the_substates_are_documented_in_a_table_of_their_own() -> None:
    """Each has its state, its words, its meaning, and what becomes of a publish."""
    assert [_cells(line) for line in diagrams.substates_table().splitlines()[2:]] == [
        [cell(state.state), each.state.value, each.meaning, PUBLISH_OUTCOMES[each.state][Outage.CALM]]  # type: ignore[index]
        for state in STATES
        for each in state.substates
    ]


def test_the_page_tells_the_outage_and_what_becomes_of_a_publish_in_it() -> None:
    """Its states stand there with their meanings, and each state of the connection with its three outcomes."""
    written = diagrams.page()
    for each in OUTAGE_STATES:
        assert f"| {cell(each.state)} | {each.meaning} |" in written
    for state, outcomes in PUBLISH_OUTCOMES.items():
        assert f"| {cell(state)} | {' | '.join(outcomes[outage] for outage in Outage)} |" in written
    for outbox, made in OUTBOX_OUTCOMES.items():
        assert f"| {cell(outbox)} | {' | '.join(made.values())} |" in written


def _cells(line: str) -> list[str]:
    return [part.strip() for part in line.removeprefix("|").removesuffix("|").split(" | ")]


def _node(state: enum.Enum) -> str:
    return identifier(state).replace("-", "_")
