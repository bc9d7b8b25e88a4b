"""The ledger of publisher confirms, with integers only."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sprockets_amqp.delivery.confirms import Confirms


class CountingDict(dict[int, Any]):
    """A dict that counts how often it is touched."""

    touched = 0

    def __getitem__(self, key: int) -> Any:
        """Count a look."""
        self.touched += 1
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        """Count a look."""
        self.touched += 1
        return super().__contains__(key)

    def pop(self, key: int, *default: Any) -> Any:
        """Count a removal."""
        self.touched += 1
        return super().pop(key, *default)

    def get(self, key: int, default: Any = None) -> Any:
        """Count a look."""
        self.touched += 1
        return super().get(key, default)

    def values(self) -> Any:
        """Count each value that is handed out."""
        return self._counted(super().values())

    def _counted(self, values: Any) -> Iterator[Any]:
        for value in values:
            self.touched += 1
            yield value


def ledger(entries: int) -> Confirms[str]:
    """Make a ledger in which m1, m2 and so on are unconfirmed."""
    confirms: Confirms[str] = Confirms()
    for number in range(1, entries + 1):
        assert confirms.add(f"m{number}") == number
    return confirms


def test_tags_are_numbered_from_one_in_the_order_of_sending() -> None:
    """RabbitMQ counts the messages of a channel from 1."""
    confirms = ledger(3)
    assert confirms.add("last") == 4
    assert list(confirms.entries.values()) == ["m1", "m2", "m3", "last"]


def test_single_confirms_settle_out_of_order() -> None:
    """RabbitMQ confirms in any order."""
    confirms = ledger(3)
    assert confirms.settle(3, multiple=False) == ["m3"]
    assert confirms.settle(1, multiple=False) == ["m1"]
    assert list(confirms.entries.values()) == ["m2"]


def test_multiple_settles_all_up_to_the_tag_in_order() -> None:
    """Multiple confirms everything up to and including the tag that was not confirmed before."""
    confirms = ledger(5)
    confirms.settle(2, multiple=False)
    assert confirms.settle(4, multiple=True) == ["m1", "m3", "m4"]
    assert list(confirms.entries.values()) == ["m5"]


@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize("delivery_tag", [0, 4, -1, 2**64 - 1])
def test_tags_that_were_never_given_out_settle_nothing(delivery_tag: int, multiple: bool) -> None:
    """Tag 0, which stands for all where it is a consumer's, and unknown tags settle nothing here."""
    confirms = ledger(3)
    assert confirms.settle(delivery_tag, multiple) == []
    assert len(confirms.entries) == 3
    assert not confirms.was_issued(delivery_tag)


def test_a_second_confirm_settles_nothing() -> None:
    """The first word on a message counts; the tag is still known as one that was given out."""
    confirms = ledger(2)
    confirms.settle(2, multiple=True)
    assert confirms.settle(1, multiple=False) == []
    assert confirms.settle(2, multiple=True) == []
    assert confirms.was_issued(1)


def test_clear_takes_everything_in_order_and_begins_anew() -> None:
    """A new channel counts from 1 again, and late confirms of the old one are of nothing."""
    confirms = ledger(4)
    confirms.settle(2, multiple=False)
    assert confirms.clear() == ["m1", "m3", "m4"]
    assert len(confirms.entries) == 0
    assert confirms.settle(3, multiple=True) == []
    assert confirms.add("new") == 1


@pytest.mark.parametrize("settled", [1, 10, 1000])
def test_multiple_works_in_proportion_to_what_it_settles(settled: int) -> None:
    """What else is in flight costs nothing: one touch for each entry that is settled."""
    confirms = ledger(100_000)
    entries = CountingDict(confirms.entries)
    confirms.entries = entries
    assert len(confirms.settle(settled, multiple=True)) == settled
    assert entries.touched <= settled + 1


def test_out_of_order_confirms_leave_no_trace_behind() -> None:
    """After many pairs that were confirmed the wrong way round, looking through the ledger costs what is in it."""
    confirms: Confirms[int] = Confirms()
    for first in range(1, 10_000, 2):
        confirms.add(first)
        confirms.add(first + 1)
        confirms.settle(first + 1, multiple=False)
        confirms.settle(first, multiple=False)
    confirms.add(10_001)
    entries = CountingDict(confirms.entries)
    confirms.entries = entries
    assert list(confirms.entries.values()) == [10_001]
    assert confirms.settle(10_001, multiple=True) == [10_001]
    assert entries.touched <= 4


def test_finding_goes_on_after_the_last_that_was_found() -> None:
    """Entries that are alike are found one after the other, skipping confirmed ones, and anew on the next channel."""
    confirms: Confirms[str] = Confirms()
    for name in ("a", "b", "a", "a"):
        confirms.add(name)
    confirms.settle(3, multiple=False)
    found = []
    while (next_one := next(confirms.find(lambda name: name == "a"), None)) is not None:
        found.append(next_one)
        confirms.found(next_one[0])
    assert found == [(1, "a"), (4, "a")]
    assert list(confirms.find(lambda name: name == "b")) == []
    confirms.clear()
    confirms.add("a")
    assert list(confirms.find(lambda name: name == "a")) == [(1, "a")]


def test_finding_all_looks_at_each_once() -> None:
    """A thousand returns among a thousand messages in flight cost a thousand looks, not half a million."""
    confirms = ledger(1000)
    entries = CountingDict(confirms.entries)
    confirms.entries = entries
    for number in range(1, 1001):
        tag, name = next(confirms.find(f"m{number}".__eq__))
        assert name == f"m{number}"
        confirms.found(tag)
    assert entries.touched <= 1000


def test_one_slow_confirm_makes_no_look_slow() -> None:
    """While the first message stays unconfirmed and others come and go, looking through costs what is in flight."""
    confirms: Confirms[int] = Confirms()
    confirms.add(1)
    for tag in range(2, 10_000):
        confirms.add(tag)
        confirms.settle(tag, multiple=False)
    entries = CountingDict(confirms.entries)
    confirms.entries = entries
    assert list(confirms.entries.values()) == [1]
    assert entries.touched <= 2


class LedgerComparison(RuleBasedStateMachine):
    """The ledger, beside one that does it the slow and simple way."""

    def __init__(self) -> None:
        super().__init__()
        self.confirms: Confirms[int] = Confirms()
        self.naive: list[tuple[int, int]] = []
        self.last = 0
        self.serial = 0

    @rule(count=st.integers(1, 5))
    def add(self, count: int) -> None:
        """Send a few messages."""
        for _ in range(count):
            self.serial += 1
            self.last += 1
            assert self.confirms.add(self.serial) == self.last
            self.naive.append((self.last, self.serial))

    @rule(data=st.data(), multiple=st.booleans())
    def settle(self, data: st.DataObject, multiple: bool) -> None:
        """Confirm any tag, known or not."""
        tag = data.draw(st.integers(-1, self.last + 2))
        about = [
            (number, serial)
            for number, serial in self.naive
            if 0 < tag <= self.last and (number == tag or (multiple and number < tag))
        ]
        assert self.confirms.settle(tag, multiple) == [serial for _, serial in about]
        self.naive = [entry for entry in self.naive if entry not in about]

    @rule()
    def clear(self) -> None:
        """Lose the channel."""
        assert self.confirms.clear() == [serial for _, serial in self.naive]
        self.naive, self.last = [], 0

    @invariant()
    def same(self) -> None:
        """Both hold the same, in the same order."""
        assert list(self.confirms.entries.values()) == [serial for _, serial in self.naive]
        assert len(self.confirms.entries) == len(self.naive)
        assert all(self.confirms.was_issued(tag) == (0 < tag <= self.last) for tag in range(-1, self.last + 3))


TestLedgerComparison = LedgerComparison.TestCase
TestLedgerComparison.settings = settings(max_examples=settings().max_examples, stateful_step_count=30, deadline=None)
