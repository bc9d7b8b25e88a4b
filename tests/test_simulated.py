"""The simulation: what it is told to hold holds, a seed is a schedule, and what is wrong is found."""

import pytest

from tools import planted
from tools.simulate import simulate

#: Defects of different kinds that few seeds find; `python -m tools.planted` has the others.
SOON = (
    "closed keeps the connection",
    "a multiple confirm leaves out the last",
    "a timer in line is not cancelled",
    "one more than max_unconfirmed",
    "given up, although it was sent before",
    "what another client left is thrown away",
)


def test_everything_holds_in_some_schedules() -> None:
    """`make simulate` runs more of them."""
    assert [problem for seed in range(60) if (problem := simulate(seed))] == []


def test_a_seed_is_replayed() -> None:
    """Step by step, with the states, and the same each time."""
    for seed in range(5):
        first: list[str] = []
        again: list[str] = []
        simulate(seed, first.append)
        simulate(seed, again.append)
        assert first == again
        assert all("unconfirmed" in line for line in first)


@pytest.mark.parametrize("label", SOON)
def test_a_defect_is_found(label: str) -> None:
    """Planted in a copy of the package, within a few seeds."""
    (defect,) = (each for each in planted.DEFECTS if each.label == label)
    seeds, _, problem = planted.planted(defect, 600).partition("\t")
    assert seeds and problem


@pytest.mark.parametrize("defect", planted.DEFECTS, ids=lambda defect: defect.label)
def test_each_defect_can_be_planted(defect: planted.Defect) -> None:
    """What it takes the place of is there, once."""
    assert (planted.ROOT / defect.file).read_text().count(defect.right) == 1
