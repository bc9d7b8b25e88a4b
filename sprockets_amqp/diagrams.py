"""The declared lifecycle as Mermaid, DOT, SVG and PNG, and as tables for people.

Everything is drawn from `states/connection.py`; `diagrams/` holds what `write` made of it. A page that shows the
picture inline puts `svg(client.state)` into its HTML and serves `STYLE` as a style sheet.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .declared import PHRASES, Arrow, arrows, callbacks, guard, meanings, name, outcome
from .picture import STYLE, describe, png, svg, svg_file
from .states import DESCRIPTIONS, PUBLISH_OUTCOMES, TRANSITIONS, PublishOutcome, Row, State

__all__ = ["STYLE", "describe", "dot", "mermaid", "page", "png", "states_table", "svg", "svg_file", "table", "write"]

#: Fill and line by what becomes of a publish, readable with dark text on light and dark pages.
COLOURS: Final[dict[PublishOutcome, tuple[str, str]]] = {
    "goes out": ("#d2f5da", "#1a7f37"),
    "waits": ("#fff3b8", "#9a6700"),
    "is refused": ("#ffe3e0", "#cf222e"),
}
INK: Final = "#1f2328"


def write(folder: Path) -> list[Path]:
    """Write ``lifecycle`` as .mmd, .dot, .svg, .md and .png into the folder, which is made where it is missing.

    Returns the paths. Raises RuntimeError, with what to install, where the PNG can't be rendered: the others are
    written by then. OSError where the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {".mmd": mermaid(), ".dot": dot(), ".svg": svg_file(), ".md": page()}
    paths = [folder / f"lifecycle{suffix}" for suffix in (*texts, ".png")]
    for path, text in zip(paths, texts.values(), strict=False):
        path.write_text(text, encoding="utf-8")
    paths[-1].write_bytes(png())
    return paths


def mermaid() -> str:
    """Draw the lifecycle as a Mermaid state diagram, which GitHub renders in Markdown."""
    # Mermaid sets out what comes first first: so labels stay apart, and a README's column is wide enough.
    in_order = sorted(arrows(), key=lambda arrow: not arrow.happy)
    return _lines(
        "stateDiagram-v2",
        "    direction TB",
        *(
            f"    classDef {_identifier(kind)} fill:{fill},stroke:{line},stroke-width:2px,color:{INK}"
            for kind, (fill, line) in COLOURS.items()
        ),
        *(f"    {name(state)} : {DESCRIPTIONS[state]}<br/>publish {outcome(state)}" for state in State),
        f"    [*] --> {name(State.IDLE)}",
        *(f"    {name(arrow.source)} --> {name(arrow.dest)} : {'<br/>'.join(arrow.lines)}" for arrow in in_order),
        *(f"    class {name(state)} {_identifier(PUBLISH_OUTCOMES[state])}" for state in State),
    )


def dot() -> str:
    """Draw the lifecycle in Graphviz's language."""
    return _lines(
        "digraph lifecycle {",
        '    graph [rankdir=LR, nodesep=0.6, ranksep=1.2, fontname="sans-serif"]',
        '    node [shape=box, style="rounded,filled", penwidth=2, fontname="sans-serif"]',
        '    edge [fontname="monospace", fontsize=11, color="#6e7781"]',
        *(_dot_node(state) for state in State),
        *(_dot_edge(arrow) for arrow in arrows()),
        "}",
    )


def table() -> str:
    """Write each declared row in a Markdown table; where ``to`` says so, the state stays."""
    return _table(("trigger", "from", "to", "guard", "does"), map(_row, TRANSITIONS))


def states_table() -> str:
    """Write the states in a Markdown table: their value, their meaning, and what becomes of a publish."""
    meaning = meanings()
    return _table(
        ("state", "value", "meaning", "a publish"),
        ((f"`{name(state)}`", str(state.value), meaning[state], outcome(state)) for state in State),
    )


def page() -> str:
    """Write the lifecycle as a page of Markdown: the picture, the tables, and the Mermaid diagram."""
    return (
        "# The life of the connection\n\n"
        "Generated from `states/connection.py` by `python -m sprockets_amqp diagram`: change that, not this.\n\n"
        f"![{describe()}](lifecycle.svg)\n\n"
        f"{states_table()}\nAn event that has no row for the present state changes nothing.\n\n"
        f"{table()}\n```mermaid\n{mermaid()}```\n"
    )


def _dot_node(state: State) -> str:
    fill, line = COLOURS[PUBLISH_OUTCOMES[state]]
    label = f"{DESCRIPTIONS[state]}\\npublish {outcome(state)}"
    return f'    {name(state)} [label="{label}", fillcolor="{fill}", color="{line}", fontcolor="{INK}"]'


def _dot_edge(arrow: Arrow) -> str:
    happy = ', penwidth=3, color="#1a7f37", weight=10' if arrow.happy else ""
    label = "\\n".join(arrow.lines)
    return f'    {name(arrow.source)} -> {name(arrow.dest)} [label="{label}"{happy}]'


def _row(row: Row) -> tuple[str, ...]:
    dest = f"`{name(row['dest'])}`" if row["dest"] is not None else "stays"
    does = ", ".join(PHRASES.get(callback, callback) for callback in callbacks(row))
    when = guard(row).replace("blocking", "`blocking`")
    return f"`{row['trigger']}`", ", ".join(f"`{name(source)}`" for source in row["source"]), dest, when, does


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    ruled = [head, ("---",) * len(head), *rows]
    return _lines(*("| " + " | ".join(cells) + " |" for cells in ruled))


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"


def _identifier(kind: PublishOutcome) -> str:
    return kind.replace(" ", "_")
