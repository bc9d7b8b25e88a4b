"""The chart: what a publish costs, by peer, by size and by window. It follows the reader's light or dark setting."""

# Only `make bench` installs what is imported here.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.cases import HANDLER, HEADLINE, Case, Measure, size_name
from benchmarks.peers import BARE, BASELINE, LIBRABBITMQ, OURS, PEERS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.results import Results

#: Drawn in these, which the SVG's style sheet then replaces: name, in light, in dark.
_INK, _DIM, _FAINT, _PAPER = "#010101", "#020202", "#030303", "#fefefe"
_THEME = {
    _INK: ("ink", "#1f2328", "#e6edf3"),
    _DIM: ("dim", "#59636e", "#9198a1"),
    _FAINT: ("faint", "#d0d7de", "#3d444d"),
    _PAPER: ("paper", "#ffffff", "#0d1117"),
}
#: Read well on both papers.
_COLOURS = {OURS: "#2f81f7", BASELINE: "#c98a06", LIBRABBITMQ: "#8b949e", "aiormq": "#2da44e", "aio-pika": "#e5534b"}
_NAMES = {peer: peer for peer in PEERS} | {BASELINE: "pika by hand", LIBRABBITMQ: "librabbitmq (C)"}
_DRAWN = [peer for peer in PEERS if peer != BARE]
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sprockets_amqp",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.facecolor": "none",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _FAINT,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "figure.facecolor": _PAPER,
    "savefig.facecolor": _PAPER,
}
_ALT = "Bar and line charts that compare what a publish costs with sprockets_amqp and with other clients."


def draw(results: Results, path: Path) -> None:
    """Write the chart as SVG; a panel that nothing was measured for stays empty."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 7))
        figure.text(0.03, 0.95, "What a confirmed publish costs", fontsize=15, fontweight="bold")
        figure.text(0.03, 0.915, f"{HEADLINE.title} unless it says otherwise; medians", color=_DIM)
        bars = figure.subplots(1, 3, sharey=True, gridspec_kw=_place(0.56, 0.82, 0.14, 0.98, 0.12))
        _bars(bars[0], results, HEADLINE, "cpu", "Processor time per message, µs")
        bars[0].get_yticklabels()[_DRAWN.index(OURS)].set_fontweight("bold")
        _bars(bars[1], results, HEADLINE, "rate", "Messages per second")
        _bars(bars[2], results, HANDLER, "adds", "Added to a Tornado request, µs")
        sizes, windows = _series(results)
        lines = figure.subplots(1, 2, sharey=True, gridspec_kw=_place(0.07, 0.44, 0.06, 0.86, 0.06))
        _lines(lines[0], results, sizes, [_size_label(case) for case in sizes])
        lines[0].set_title("Processor time per message by size, µs")
        _lines(lines[1], results, windows, [f"{case.window:,}" for case in windows])
        lines[1].set_title("… and by messages in flight")
        _name_lines(lines[1])
        figure.savefig(path, format="svg", metadata={"Date": None, "Title": _ALT})
    path.write_text(_themed(path.read_text()))


def _place(bottom: float, top: float, left: float, right: float, between: float) -> dict[str, float]:
    return {"bottom": bottom, "top": top, "left": left, "right": right, "wspace": between}


def _series(results: Results) -> tuple[list[Case], list[Case]]:
    of_these = [case for case in results.cases("pipelined", "one at a time") if case.given == HEADLINE.given]
    plain = [case for case in of_these if not case.tls]
    sizes = [case for case in plain if case.size != HEADLINE.size or case.window == HEADLINE.window]
    windows = [case for case in plain if case.size == HEADLINE.size]
    return sorted(sizes, key=lambda case: case.size), sorted(windows, key=lambda case: case.window)


def _size_label(case: Case) -> str:
    return size_name(case.size) + ("" if case.window == HEADLINE.window else f"\n{case.window} in flight")


def _bars(axes: Axes, results: Results, case: Case, measure: Measure, title: str) -> None:
    axes.set_title(title)
    values = [results.median(case, peer, measure) for peer in _DRAWN]
    widths = [value or 0 for value in values]
    bars = axes.barh([_NAMES[peer] for peer in _DRAWN], widths, color=[_COLOURS[peer] for peer in _DRAWN], height=0.62)
    axes.bar_label(bars, ["-" if value is None else _short(value) for value in values], padding=4)
    axes.set_ylim(len(_DRAWN) - 0.5, -0.5)
    axes.margins(x=0.2)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)


def _lines(axes: Axes, results: Results, cases: Sequence[Case], labels: Sequence[str]) -> None:
    for peer in _DRAWN:
        values = [results.median(case, peer, "cpu") for case in cases]
        points = [(at, value) for at, value in enumerate(values) if value is not None]
        if points:
            width = 3 if peer == OURS else 1.8
            axes.plot(*zip(*points, strict=True), color=_COLOURS[peer], label=_NAMES[peer], lw=width, marker="o", ms=5)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: _short(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(range(len(cases)), labels)
    axes.grid(visible=True, axis="y")
    axes.tick_params(which="both", length=0)
    axes.spines["left"].set_visible(False)


def _name_lines(axes: Axes) -> None:
    """Write each line's name at its end, moved apart where two would touch."""
    ends = {
        line: axes.transLimits.transform(axes.transScale.transform(line.get_xydata()))[-1][1] for line in axes.lines
    }
    lowest = -1.0
    for line in sorted(ends, key=ends.__getitem__):
        lowest = max(ends[line], lowest + 0.08)
        weight = "bold" if line.get_label() == OURS else "normal"
        axes.text(
            1.02,
            lowest,
            str(line.get_label()),
            transform=axes.transAxes,
            va="center",
            color=line.get_color(),
            fontweight=weight,
        )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}".removesuffix(".0")


def _themed(svg: str) -> str:
    """Replace the colours by variables of a style sheet; without one, the light colours hold."""
    for colour, (name, light, _) in _THEME.items():
        svg = svg.replace(colour, f"var(--{name}, {light})")
    themes = [";".join(f"--{row[0]}:{row[column]}" for row in _THEME.values()) for column in (1, 2)]
    style = f"<style>:root{{{themes[0]}}}@media(prefers-color-scheme:dark){{:root{{{themes[1]}}}}}</style>"
    return svg.replace("<metadata>", f"{style}\n <metadata>", 1)
