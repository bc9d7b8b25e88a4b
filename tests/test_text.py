"""Text from outside is one line, bounded, and harmless, whatever it was."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprockets_amqp import text
from sprockets_amqp.text import LIMIT, shown


@pytest.mark.parametrize(
    "ordinary", ["", "NOT_FOUND - no exchange 'events' in vhost '/'", "Größe 寿司 🍣", "x" * LIMIT]
)
def test_what_is_printable_stays_as_it_is(ordinary: str) -> None:
    """Of any script."""
    assert shown(ordinary) == ordinary


@pytest.mark.parametrize(
    ("odd", "line"),
    [
        ("one\ntwo\r\nthree\ttab", r"one\ntwo\r\nthree\ttab"),
        ("\x1b[2J\x07\x7f", r"\x1b[2J\x07\x7f"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("\u2028 \u2029", r"\u2028 \u2029"),
        ("\u202egnp.exe\u2066\u200f", r"\u202egnp.exe\u2066\u200f"),
        ("\udcff", r"\udcff"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_what_is_not_printable_is_escaped(odd: str, line: str) -> None:
    """Line ends, C0, DEL, C1, Unicode's line ends, directions of writing, surrogates, and tags."""
    assert shown(odd) == line


@pytest.mark.parametrize(("value", "line"), [(None, "None"), (7, "7"), (b"\xff\n", r"b'\xff\n'")])
def test_what_is_no_text_is_shown_as_text(value: object, line: str) -> None:
    """pika gives bytes where RabbitMQ's words are no UTF-8."""
    assert shown(value) == line


@given(st.text(), st.integers(min_value=10, max_value=50))
def test_whatever_comes_is_one_bounded_line(anything: str, limit: int) -> None:
    """And can be written as UTF-8."""
    line = shown(anything, limit)
    assert len(line) <= limit
    assert line.isprintable()
    line.encode()
    assert len(line.splitlines()) <= 1


def test_what_is_cut_says_so() -> None:
    """With three dots, at the limit."""
    assert shown("x" * 10_000_000, 10) == "xxxxxxx..."
    assert shown("\n" * 10_000_000, 10) == r"\n\n\n\..."


def test_its_examples_are_right() -> None:
    """What the docstring shows is what happens."""
    assert doctest.testmod(text) == doctest.TestResults(failed=0, attempted=2)
