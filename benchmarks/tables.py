"""Tables of Markdown whose columns line up, so that a terminal shows them as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ABSENT = "-"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with every column but the first set to the right; nothing for no rows."""
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "".join(_aligned(cells, widths) for cells in (header, rule, *rows))


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return f"| {' | '.join((cells[0].ljust(widths[0]), *rest))} |\n"


def number(value: float | None, form: str, scale: float = 1) -> str:
    """Write a number, or what stands where there is none."""
    return ABSENT if value is None else form.format(value * scale)
