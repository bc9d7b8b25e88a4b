"""The table of systems on which the tests are run, and what `make matrix` says where it can make none."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tools import matrix

ROOT: Final = Path(__file__).parent.parent

RESULTS: Final = """<testsuites><testsuite tests="10" failures="1" errors="2" skipped="3"/></testsuites>"""


@pytest.mark.parametrize(
    ("status", "demo", "expected"),
    [
        (1, 0, {"passed": 4, "failed": 3}),
        (1, 2, {"passed": 4, "failed": 4}),
    ],
)
def test_what_failed_is_counted(tmp_path: Path, status: int, demo: int, expected: dict[str, int]) -> None:
    """Failures and errors of tests, and a demo that failed; what was skipped has not passed."""
    results = tmp_path / "results.xml"
    results.write_text(RESULTS)
    assert matrix.count(results, status, demo) == expected


def test_a_run_that_ended_without_a_result_has_failed(tmp_path: Path) -> None:
    """Where the installation failed, or pytest itself."""
    assert matrix.count(tmp_path / "none.xml", 2, 0) == {"passed": 0, "failed": 1}
    results = tmp_path / "results.xml"
    results.write_text('<testsuites><testsuite tests="5" failures="0" errors="0" skipped="0"/></testsuites>')
    assert matrix.count(results, 3, 0) == {"passed": 5, "failed": 1}
    assert matrix.count(results, 0, 0) == {"passed": 5, "failed": 0}


def test_the_lowest_versions_are_those_of_setup_cfg() -> None:
    """Of what is needed at run time and by the extras that users install."""
    assert {each.partition("==")[0] for each in matrix.lowest().split()} == {
        *("pika", "tornado", "transitions", "rich", "resvg-py")
    }
    config = (ROOT / "setup.cfg").read_text()
    assert all(each.replace("==", " >=") in config for each in matrix.lowest().split())


def test_a_run_replaces_the_row_of_its_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others stay, in the order in which they are listed, one a line."""
    monkeypatch.setattr(matrix, "RECORD", tmp_path / "matrix.json")
    matrix.record([{"system": "debian-13", "passed": 1}, {"system": "debian-12", "passed": 2}])
    matrix.record([{"system": "debian-13", "passed": 3}])
    rows = [{"system": "debian-12", "passed": 2}, {"system": "debian-13", "passed": 3}]
    assert matrix.recorded() == rows
    assert matrix.RECORD.read_text().splitlines() == ["[", f"{json.dumps(rows[0])},", json.dumps(rows[1]), "]"]
    assert matrix.table(rows).splitlines()[2] == "| debian-12 |  |  |  |  | 2 |  |  |"


def test_a_system_that_is_none_is_refused() -> None:
    """With the names of those that there are."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.matrix", "windows"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "debian-unstable" in done.stderr


def test_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what to do: everybody needs debootstrap, and nobody but root can use it."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(matrix.CannotRun, match="apt-get install debootstrap"):
        matrix.check_machine()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(matrix.CannotRun, match="sudo make matrix, or make test"):
        matrix.check_machine()
