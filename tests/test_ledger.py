"""The ledger of the outbox: where each message is, and that every number is what a list would count."""

import dataclasses
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from sprockets_amqp.outbox.ledger import Key, Ledger, Row
from sprockets_amqp.states import LEDGER, Place

MARKS = ("stored", "unsent", "in_line", "writing", "on_disk", "room", "aside")


def moved(*moves: str) -> Ledger[Row]:
    """Make a ledger with one message, of 10 octets, and have it make these moves."""
    ledger: Ledger[Row] = Ledger()
    first, *others = moves
    ledger.keep((0, 1), Row(10), first)
    for move in others:
        ledger.move((0, 1), move)
    return ledger


def counts(ledger: Ledger[Row]) -> set[str]:
    """Return the marks under which the one message is counted, with its octets."""
    assert all(ledger.octets(mark) == 10 * ledger.count(mark) for mark in MARKS)
    return {mark for mark in MARKS if ledger.count(mark) == 1}


#: What a message does, whether it is in memory then, and under which marks it is counted.
CASES = [
    ("kept", True, {"stored", "unsent", "writing", "room"}),
    ("kept entered", True, {"stored", "unsent", "in_line", "writing", "room"}),
    ("kept entered sent", True, {"stored", "writing", "room"}),
    ("kept_on_wire", True, {"stored", "writing", "room"}),
    ("kept entered lost", True, {"stored", "unsent", "writing", "room"}),
    ("kept_on_wire lost", True, {"stored", "unsent", "writing", "room"}),
    ("kept written", False, {"stored", "unsent", "room"}),
    ("kept entered written", True, {"stored", "unsent", "in_line", "on_disk", "room"}),
    ("kept_on_wire written", True, {"stored", "on_disk", "room"}),
    ("kept entered written lost", False, {"stored", "unsent", "room"}),
    ("kept entered written sent", True, {"stored", "on_disk", "room"}),
    ("kept_on_wire written lost", False, {"stored", "unsent", "room"}),
    ("kept unwritten", False, set()),
    ("kept entered unwritten", False, set()),
    ("kept_on_wire unwritten", False, set()),
    ("kept ended", True, {"on_disk"}),
    ("kept entered ended", True, {"on_disk"}),
    ("kept_on_wire ended", True, {"on_disk"}),
    ("kept_on_wire ended unwritten", False, set()),
    ("kept_on_wire written ended", True, {"on_disk"}),
    ("kept_on_wire written ended deleted", False, set()),
    ("kept_on_wire written nacked", True, {"stored", "on_disk", "room"}),
    ("kept_on_wire written nacked due", False, {"stored", "unsent", "room"}),
    ("kept entered refused", True, {"writing", "room", "aside"}),
    ("kept entered refused written", True, {"on_disk", "room", "aside"}),
    ("kept entered refused unwritten", False, set()),
    ("kept entered written refused", True, {"on_disk", "room", "aside"}),
    ("kept_on_wire written refused", True, {"on_disk", "room", "aside"}),
]


@pytest.mark.parametrize(("moves", "there", "counted"), CASES)
def test_a_message_counts_where_it_is(moves: str, there: bool, counted: set[str]) -> None:
    """What is on disk alone is counted, and takes no memory."""
    ledger = moved(*moves.split())
    assert (bool(ledger.rows), counts(ledger)) == (there, counted)


def seen(moves: str, there: bool, counted: set[str]) -> bool:
    """Return whether a message that moves so is where it should be."""
    try:
        ledger = moved(*moves.split())
        return (bool(ledger.rows), counts(ledger)) == (there, counted)
    except (LookupError, AssertionError):
        return False


@pytest.mark.parametrize("place", [each for each in Place if each is not Place.NEW])
@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_too_many_or_too_few_is_seen(monkeypatch: pytest.MonkeyPatch, place: Place, mark: str) -> None:
    """Of each place."""
    states = [
        dataclasses.replace(each, marks=tuple({*each.marks} ^ {mark})) if each.state is place else each
        for each in LEDGER.states
    ]
    assert all(seen(*case) for case in CASES)
    monkeypatch.setattr(Ledger, "machine", dataclasses.replace(LEDGER, states=tuple(states)))
    assert not all(seen(*case) for case in CASES)


def test_a_message_that_was_set_aside_stays_counted_when_it_is_forgotten() -> None:
    """It takes room on the disk, and none in memory."""
    ledger = moved("kept_on_wire", "written", "refused")
    ledger.forget((0, 1))
    assert (ledger.rows, ledger.at(Place.ASIDE), ledger.octets("room")) == ({}, 1, 10)


def test_what_is_on_disk_is_counted_by_the_store_and_entered_when_it_is_read() -> None:
    """The store counts what is in memory, too: that is left out; and what is being written is not on disk yet."""
    ledger = moved("kept_on_wire", "written", "ended")
    ledger.keep((0, 2), Row(20), "kept")
    ledger.recount(5, 2, 700)
    assert (ledger.at(Place.ON_DISK), ledger.at(Place.ASIDE), ledger.octets("room")) == (4, 2, 690 + 20)
    ledger.keep((7, 1), Row(100, Place.ON_DISK), "entered")
    assert (ledger.at(Place.ON_DISK), ledger.count("in_line"), ledger.octets("room")) == (3, 1, 690 + 20)
    ledger.recount(0, 0, 0)
    assert (ledger.at(Place.ON_DISK), ledger.at(Place.ASIDE)) == (0, 0)


def test_a_move_that_is_not_declared_is_a_defect() -> None:
    """It raises, and nothing changes; so does a message that is there already."""
    ledger = moved("kept")
    for move in ("sent", "deleted", "kept"):
        with pytest.raises(KeyError):
            ledger.move((0, 1), move)
        assert not ledger.knows((0, 1), move)
    with pytest.raises(ValueError, match="in the ledger already"):
        ledger.keep((0, 1), Row(10), "kept")
    assert counts(ledger) == {"stored", "unsent", "writing", "room"}
    assert ledger.knows((0, 1), "written") and not ledger.knows((0, 2), "written")


def test_everything_is_forgotten_when_the_store_is_closed() -> None:
    """No number is left."""
    ledger = moved("kept", "entered", "written", "refused")
    ledger.clear()
    assert (ledger.rows, counts(ledger), ledger.at(Place.ASIDE)) == ({}, set(), 0)


def test_messages_are_named_in_the_order_in_which_they_came() -> None:
    """By where they are."""
    ledger: Ledger[Row] = Ledger()
    for number in (3, 1, 2):
        ledger.keep((0, number), Row(1), "kept")
    ledger.move((0, 1), "entered")
    assert ledger.keys(Place.WRITING) == [(0, 3), (0, 2)]
    assert ledger.keys(Place.WRITING, Place.WRITING_IN_LINE) == [(0, 3), (0, 1), (0, 2)]


MOVES = sorted({row.trigger for row in LEDGER.rows})


class AgainstAList(RuleBasedStateMachine):
    """Whatever messages do, each number is what one counts in a list of all of them."""

    messages: Any = Bundle("messages")

    @initialize()
    def begin(self) -> None:
        """Begin with nothing."""
        self.ledger: Ledger[Row] = Ledger()
        #: Each message with its octets and where it is, by what the rows say, read one by one.
        self.all: dict[Key, tuple[int, Place]] = {}

    @rule(target=messages, size=st.integers(1, 9), move=st.sampled_from(["kept", "kept_on_wire"]))
    def keep(self, size: int, move: str) -> Key:
        """Enter a message."""
        key = 0, len(self.all)
        self.ledger.keep(key, Row(size), move)
        self.all[key] = size, self._dest(Place.NEW, move)
        return key

    @rule(key=messages, move=st.sampled_from(MOVES))
    def move(self, key: Key, move: str) -> None:
        """Have a message in memory make a move that it can make."""
        size, place = self.all[key]
        can = any(row.trigger == move and place in row.source for row in LEDGER.rows)
        if place is Place.ON_DISK:
            if can:
                self.ledger.keep(key, Row(size, place), move)
        elif place is not Place.GONE:
            assert self.ledger.knows(key, move) is can
            if can:
                self.ledger.move(key, move)
        if can:
            self.all[key] = size, self._dest(place, move)

    @precondition(lambda self: any(place is Place.ON_DISK for _, place in self.all.values()))
    @rule()
    def count(self) -> None:
        """Have the store count."""
        on_disk = [
            (size, place) for size, place in self.all.values() if place is Place.ON_DISK or "on_disk" in marks(place)
        ]
        self.ledger.recount(len(on_disk), 0, sum(size for size, _ in on_disk))

    @rule(key=consumes(messages))
    def let_go(self, key: Key) -> None:
        """Do no more with a message."""

    @invariant()
    def counts(self) -> None:
        """Each number, and what is in memory."""
        for mark in MARKS:
            found = [size for size, place in self.all.values() if mark in marks(place)]
            assert (self.ledger.count(mark), self.ledger.octets(mark)) == (len(found), sum(found))
        assert self.ledger.rows.keys() == {
            key for key, (_, place) in self.all.items() if place not in {Place.ON_DISK, Place.GONE}
        }
        assert all(self.ledger.rows[key].place is self.all[key][1] for key in self.ledger.rows)

    @staticmethod
    def _dest(place: Place, move: str) -> Any:
        (dest,) = (row.dest for row in LEDGER.rows if row.trigger == move and place in row.source)
        return dest


def marks(place: Place) -> tuple[str, ...]:
    """Return the marks of a place."""
    return tuple(LEDGER.declared[place].marks)


TestAgainstAList = AgainstAList.TestCase
