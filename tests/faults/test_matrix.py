"""The matrix of faults is complete."""

from tools import faults


def test_every_fault_has_a_test() -> None:
    """No row is missing, and no test causes a fault that is not listed."""
    assert set(faults.seen()) == set(faults.FAULTS)
