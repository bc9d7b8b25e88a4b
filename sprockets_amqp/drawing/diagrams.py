"""The declared machines as Mermaid, DOT, SVG and PNG, and as tables.

Everything is drawn from `states/`; `write` puts the results into `diagrams/`. To show the picture inline, put
`svg(client.substate)` into a page's HTML and serve `STYLE` as a style sheet.
"""

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sprockets_amqp.states import CONNECTION, MACHINES, Declared, Machine

from .declared import TIMER, Arrow, arrows, label, outcome, slug
from .picture import STYLE, describe, png, svg, svg_file
from .tables import actions_table, follows_table, makes_table, outcomes_table, rows_table, states_table, substates_table

__all__ = ["STYLE", "describe", "dot", "mermaid", "page", "png", "svg", "svg_file", "table", "write"]

table = rows_table

#: Fill and line colours by what becomes of a publish; dark text on them is readable on light and dark pages.
COLOURS: Final[dict[str, tuple[str, str]]] = {
    "goes out": ("#d2f5da", "#1a7f37"),
    "waits": ("#fff3b8", "#9a6700"),
    "is refused": ("#ffe3e0", "#cf222e"),
    "is stored": ("#ddf4ff", "#0969da"),
}
INK: Final = "#1f2328"


def write(folder: Path) -> list[Path]:
    """Write ``lifecycle`` as .mmd, .dot, .svg, .md and .png into the folder, and the other machines as .svg.

    Returns the paths; the folder is created if necessary. Raises RuntimeError, naming what to install, if the PNG can't
    be rendered; the other files have been written by then. Raises OSError if the folder can't be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "lifecycle.mmd": mermaid(),
        "lifecycle.dot": dot(),
        "lifecycle.svg": svg_file(),
        "lifecycle.md": page(),
        **{f"{machine.name}.svg": svg_file(machine) for machine in MACHINES if machine is not CONNECTION},
    }
    paths = [folder / each for each in (*texts, "lifecycle.png")]
    for path, text in zip(paths, texts.values(), strict=False):
        path.write_text(text, encoding="utf-8")
    paths[-1].write_bytes(png())
    return paths


def mermaid(machine: Machine = CONNECTION) -> str:
    """Draw a machine as a Mermaid state diagram, which GitHub renders in Markdown."""
    # Mermaid lays arrows out in this order, which keeps labels apart and the diagram narrow enough for a README.
    in_order = sorted(arrows(machine), key=lambda arrow: not arrow.happy)
    outcomes = {each.state: outcome(machine, each.state) for each in machine.declared.values() if not each.substates}
    return _lines(
        "stateDiagram-v2",
        "    direction TB",
        *(
            f"    classDef {_identifier(kind)} fill:{fill},stroke:{line},stroke-width:2px,color:{INK}"
            for kind, (fill, line) in COLOURS.items()
        ),
        *(line for each in machine.states for line in _mermaid_state(machine, each)),
        f"    [*] --> {_node(machine.initial)}",
        *(f"    {_node(arrow.source)} --> {_node(arrow.dest)} : {'<br/>'.join(arrow.lines)}" for arrow in in_order),
        *(f"    class {_node(state)} {_identifier(said)}" for state, said in outcomes.items() if said),
    )


def page() -> str:
    """Write the machines as a page of Markdown: pictures, tables, and the Mermaid diagram of the connection."""
    return f"""\
# The life of the connection

Generated from `states/` by `python -m sprockets_amqp diagram`: change `states/`, not this file.

![{describe()}](lifecycle.svg)

{_section(CONNECTION)}
What becomes of a publish, by the state of the connection and of the outage:

{outcomes_table()}
{"".join(_follower(machine) for machine in MACHINES if machine is not CONNECTION)}
## As a Mermaid diagram

{TIMER} marks a trigger that a timer may also pull.

```mermaid
{mermaid()}```
"""


def _section(machine: Machine) -> str:
    refined = any(each.substates for each in machine.states)
    substates = f"Some of them have substates:\n\n{substates_table(machine)}\n" if refined else ""
    return f"""\
{states_table(machine)}
{substates}Actions on entering and leaving each state; leaving a state stops its timer:

{actions_table(machine)}
An event without a row for the current state changes nothing. A state stands for all its substates. An action in the
last column belongs to the event rather than to a state.

{rows_table(machine)}"""


def _follower(machine: Machine) -> str:
    makes = any(each.makes for each in machine.declared.values())
    made = f"What it makes of a publish that would have another outcome:\n\n{makes_table(machine)}\n" if makes else ""
    return f"""\
## The {machine.name}

![{describe(machine)}]({machine.name}.svg)

It follows the connection:

{follows_table(machine)}
{_section(machine)}
{made}"""


def _mermaid_state(machine: Machine, declared: Declared, indent: str = "    ") -> Iterator[str]:
    if declared.substates:
        yield f'{indent}state "{label(declared.state)}" as {_node(declared.state)} {{'
        for each in declared.substates:
            yield from _mermaid_state(machine, each, indent * 2)
        yield f"{indent}}}"
    else:
        said = outcome(machine, declared.state)
        yield f"{indent}{_node(declared.state)} : {label(declared.state)}{f'<br/>publish {said}' if said else ''}"


def dot(machine: Machine = CONNECTION) -> str:
    """Draw a machine in Graphviz's language: a state with substates is a cluster."""
    return _lines(
        f"digraph {'lifecycle' if machine.name == CONNECTION.name else _identifier(machine.name)} {{",
        '    graph [rankdir=LR, compound=true, nodesep=0.6, ranksep=1.2, fontname="sans-serif"]',
        '    node [shape=box, style="rounded,filled", penwidth=2, fontname="sans-serif"]',
        '    edge [fontname="monospace", fontsize=11, color="#6e7781"]',
        *(line for each in machine.states for line in _dot_state(machine, each)),
        *(_dot_edge(machine, arrow) for arrow in arrows(machine)),
        "}",
    )


def _dot_state(machine: Machine, declared: Declared, indent: str = "    ") -> Iterator[str]:
    node, words = _node(declared.state), label(declared.state)
    if declared.substates:
        yield f"{indent}subgraph cluster_{node} {{"
        yield f'{indent * 2}label="{words}"; style=rounded; color="#6e7781"'
        for each in declared.substates:
            yield from _dot_state(machine, each, indent * 2)
        yield f"{indent}}}"
    elif said := outcome(machine, declared.state):
        fill, line = COLOURS[said]
        words = f"{words}\\npublish {said}"
        yield f'{indent}{node} [label="{words}", fillcolor="{fill}", color="{line}", fontcolor="{INK}"]'
    else:
        yield f'{indent}{node} [label="{words}", fillcolor="#ffffff", color="#6e7781", fontcolor="{INK}"]'


def _dot_edge(machine: Machine, arrow: Arrow) -> str:
    """Draw an arrow; Graphviz needs a node at each end, and cuts the line at the edge of the cluster."""
    source, dest = arrow.source, arrow.dest
    within = {state: [each.state for each in declared.substates] for state, declared in machine.declared.items()}
    tail = next((each for each in within.get(source, ()) if each is not dest), source)
    head = next(iter(within.get(dest, ())), dest)
    marks = {"label": "\\n".join(arrow.lines)}
    if tail is not source and dest not in within[source]:
        marks["ltail"] = f"cluster_{_node(source)}"
    if head is not dest:
        marks["lhead"] = f"cluster_{_node(dest)}"
    if arrow.happy:
        marks |= {"penwidth": "3", "color": "#1a7f37", "weight": "10"}
    written = ", ".join(f'{key}="{mark}"' for key, mark in marks.items())
    return f"    {_node(tail)} -> {_node(head)} [{written}]"


def _node(state: enum.Enum) -> str:
    return _identifier(slug(state))


def _identifier(words: str) -> str:
    return words.replace(" ", "_").replace("-", "_")


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"
