"""What was measured, where it is kept: the results, the tables made from them, and the chart."""

from __future__ import annotations

from pathlib import Path

from benchmarks import report
from benchmarks.results import Record, write

HERE = Path(__file__).parent
RECORD = HERE / "results.json"


def write_all(record: Record, folder: Path) -> None:
    """Write the record, its tables and its chart, which is that of the system that was recorded first."""
    folder.mkdir(parents=True, exist_ok=True)
    write(record, folder / RECORD.name)
    (folder / "results.md").write_text("# What was measured\n\n" + report.render(record))
    # Last, because it needs matplotlib, which `make .venv/.bench` installs: what took an hour is written by now.
    from benchmarks import chart  # noqa: PLC0415

    measured = [results for results in record.values() if results.machine]
    if measured:
        chart.draw(measured[0], folder / "chart.svg")
    print(f"Written to {folder}: results.json, results.md, chart.svg")
