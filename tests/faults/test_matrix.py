"""The matrix is complete, and the README has it."""

from tests.faults import matrix


def test_every_fault_has_a_test() -> None:
    """No row is missing, and no test causes a fault that is not listed."""
    assert set(matrix.seen()) == set(matrix.FAULTS)


def test_the_readme_has_the_matrix() -> None:
    """`python -m tests.faults.matrix` brings the README up to date."""
    assert matrix.in_readme() == matrix.table()
