"""The declared lifecycle as Mermaid, DOT, SVG and PNG, and as tables for people.

Everything is drawn from `states/`; `write` puts the results into `diagrams/`. To show the picture inline, put
`svg(client.substate)` into a page's HTML and serve `STYLE` as a style sheet.
"""

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sprockets_amqp.states import Declared, State

from .declared import TIMER, Arrow, arrows, label, outcome, slug, states, substates
from .picture import STYLE, describe, png, svg, svg_file
from .tables import (
    actions_table,
    logged_in,
    outage_actions_table,
    outage_began,
    outage_table,
    outages_table,
    outbox_actions_table,
    outbox_outcomes_table,
    outbox_table,
    outboxes_table,
    outcomes_table,
    renewal_actions_table,
    renewal_table,
    renewals_table,
    started,
    states_table,
    substates_table,
    table,
)

__all__ = [
    "STYLE",
    "describe",
    "dot",
    "mermaid",
    "page",
    "png",
    "states_table",
    "substates_table",
    "svg",
    "svg_file",
    "table",
    "write",
]

#: Fill and line colours by what becomes of a publish; dark text on them is readable on light and dark pages.
COLOURS: Final[dict[str, tuple[str, str]]] = {
    "goes out": ("#d2f5da", "#1a7f37"),
    "waits": ("#fff3b8", "#9a6700"),
    "is refused": ("#ffe3e0", "#cf222e"),
    "is stored": ("#ddf4ff", "#0969da"),
}
INK: Final = "#1f2328"


def write(folder: Path) -> list[Path]:
    """Write ``lifecycle`` as .mmd, .dot, .svg, .md and .png into the folder, creating it if necessary.

    Returns the paths. Raises RuntimeError, naming what to install, if the PNG can't be rendered; the other files have
    been written by then. Raises OSError if the folder can't be written to.
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
    # Mermaid lays arrows out in this order, which keeps labels apart and the diagram narrow enough for a README.
    in_order = sorted(arrows(), key=lambda arrow: not arrow.happy)
    return _lines(
        "stateDiagram-v2",
        "    direction TB",
        *(
            f"    classDef {_identifier(kind)} fill:{fill},stroke:{line},stroke-width:2px,color:{INK}"
            for kind, (fill, line) in COLOURS.items()
        ),
        *(line for state, each in states().items() if isinstance(state, State) for line in _mermaid_state(each)),
        f"    [*] --> {_node(State.IDLE)}",
        *(f"    {_node(arrow.source)} --> {_node(arrow.dest)} : {'<br/>'.join(arrow.lines)}" for arrow in in_order),
        *(
            f"    class {_node(state)} {_identifier(outcome(state))}"
            for state, each in states().items()
            if not each.substates
        ),
    )


def page() -> str:
    """Write the lifecycle as a page of Markdown: the picture, the tables, and the Mermaid diagram."""
    return f"""\
# The life of the connection

Generated from `states/` by `python -m sprockets_amqp diagram`: change `states/`, not this file.

![{describe()}](lifecycle.svg)

## States

{states_table()}
Three of them have substates:

{substates_table()}
Actions on entering and leaving each state; leaving a state stops its timer:

{actions_table()}
## Transitions

A state stands for all its substates. An event without a row for the current state changes nothing. An action in the
last column belongs to the event rather than to a state.

{table()}
## Outages

An outage begins when the connection enters one of these states, and ends when it enters any other: {outage_began()}.

{outages_table()}
{outage_actions_table()}
{outage_table()}
What becomes of a publish, by the state of the connection and of the outage:

{outcomes_table()}
## Renewals

If the function given as `url` says how long its answer is valid, the credentials are renewed while the connection is in
one of these states: {logged_in()}.

{renewals_table()}
{renewal_actions_table()}
{renewal_table()}
## The outbox

With the setting `outbox`, the outbox is open while the connection is in one of these states: {started()}.

{outboxes_table()}
{outbox_actions_table()}
{outbox_table()}
What becomes of a publish that would go out, wait or be refused without an outbox:

{outbox_outcomes_table()}
## As a Mermaid diagram

{TIMER} marks a trigger that a timer may also pull.

```mermaid
{mermaid()}```
"""


def _mermaid_state(declared: Declared, indent: str = "    ") -> Iterator[str]:
    if declared.substates:
        yield f'{indent}state "{label(declared.state)}" as {_node(declared.state)} {{'
        for each in declared.substates:
            yield from _mermaid_state(each, indent * 2)
        yield f"{indent}}}"
    else:
        yield f"{indent}{_node(declared.state)} : {label(declared.state)}<br/>publish {outcome(declared.state)}"


def dot() -> str:
    """Draw the lifecycle in Graphviz's language: a state with substates is a cluster."""
    return _lines(
        "digraph lifecycle {",
        '    graph [rankdir=LR, compound=true, nodesep=0.6, ranksep=1.2, fontname="sans-serif"]',
        '    node [shape=box, style="rounded,filled", penwidth=2, fontname="sans-serif"]',
        '    edge [fontname="monospace", fontsize=11, color="#6e7781"]',
        *(line for state, each in states().items() if isinstance(state, State) for line in _dot_state(each)),
        *(_dot_edge(arrow) for arrow in arrows()),
        "}",
    )


def _dot_state(declared: Declared, indent: str = "    ") -> Iterator[str]:
    node, words = _node(declared.state), label(declared.state)
    if declared.substates:
        yield f"{indent}subgraph cluster_{node} {{"
        yield f'{indent * 2}label="{words}"; style=rounded; color="#6e7781"'
        for each in declared.substates:
            yield from _dot_state(each, indent * 2)
        yield f"{indent}}}"
    else:
        fill, line = COLOURS[outcome(declared.state)]
        words = f"{words}\\npublish {outcome(declared.state)}"
        yield f'{indent}{node} [label="{words}", fillcolor="{fill}", color="{line}", fontcolor="{INK}"]'


def _dot_edge(arrow: Arrow) -> str:
    """Draw an arrow; Graphviz needs a node at each end, and cuts the line at the edge of the cluster."""
    source, dest = arrow.source, arrow.dest
    tail = next((each for each in substates(source) if each is not dest), source)
    head = next(iter(substates(dest)), dest)
    marks = {"label": "\\n".join(arrow.lines)}
    if tail is not source and dest not in substates(source):
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
