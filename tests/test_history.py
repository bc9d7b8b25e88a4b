"""The checker of histories: true ones pass, and whatever is planted in one is found."""

import random
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tools.history import CANCELLED, CONFIRMED, NACKED, RETURNED, STORED, UNKNOWN, UNSENT, History, check

seeds = st.integers(0, 10**6)


class Lived:
    """What a client may live through: messages wait, are lost, sent again or stored, and the process is killed."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.history = History(wire=True)
        self.pending: list[str] = []
        self.disk: set[str] = set()
        self.queue: list[str] = []
        self.ended: set[str] = set()

    def publish(self, name: str) -> None:
        """Publish a message; something happens."""
        self.history.published(name, "lane")
        what = self.choose.choice(("send", "send", "store", "wait", "wait", "refuse", "kill"))
        if what == "refuse":
            self.end(name, UNSENT)
            return
        self.pending.append(name)
        if what == "send":
            self.send(self.choose.randint(0, len(self.pending)))
        elif what == "store":
            self.disk.update(self.pending)
            for each in self.pending:
                self.end(each, STORED)
        elif what == "kill":
            self.history.killed()
            self.ended.update(self.pending)
            self.pending = [each for each in self.pending if each in self.disk]

    def send(self, received: int) -> None:
        """Send what is pending: so much of it is received, some of that is acked, and the rest is lost."""
        self.history.connected()
        acked = received if received == len(self.pending) else self.choose.randint(0, received)
        for name in self.pending:
            self.history.sent(name)
        self.queue += self.pending[:received]
        for name in self.pending[:acked]:
            self.history.acked(name)
            self.end(name, CONFIRMED)
            self.disk.discard(name)
        del self.pending[:acked]

    def end(self, name: str, outcome: str) -> None:
        """End a publish, once."""
        if name not in self.ended:
            self.ended.add(name)
            self.history.ended(name, outcome)


def true_history(seed: int, messages: int = 30) -> History:
    """Make a history in which everything holds."""
    lived = Lived(seed)
    for number in range(messages):
        lived.publish(f"m{number}")
    lived.send(len(lived.pending))
    for each in lived.queue:
        lived.history.delivered(each)
    return lived.history


@given(seed=seeds)
def test_nothing_is_found_in_a_true_history(seed: int) -> None:
    """Whatever the client had to live through."""
    assert check(true_history(seed)) == []


def _promised(history: History) -> list[str]:
    return [name for what, name, detail in history.events if what == "ended" and detail in {CONFIRMED, STORED}]


@given(seed=seeds, data=st.data())
def test_a_loss_is_found(seed: int, data: st.DataObject) -> None:
    """A message that was promised is in no queue."""
    history = true_history(seed)
    assume(_promised(history))
    lost = data.draw(st.sampled_from(_promised(history)))
    history.events = [event for event in history.events if event[:2] != ("delivered", lost)]
    assert any(f"{lost} ended as" in words and "lost" in words for words in check(history))


@given(seed=seeds, data=st.data())
def test_a_swap_on_the_wire_is_found(seed: int, data: st.DataObject) -> None:
    """Two messages leave for the first time, and the later one first."""
    history = true_history(seed)
    first: dict[str, int] = {}
    for at, (what, name, _) in enumerate(history.events):
        if what == "sent" and name not in first:
            first[name] = at
    together = [
        (one, other) for one, other in zip(first, list(first)[1:], strict=False) if first[other] == first[one] + 1
    ]
    assume(together)
    one, _ = data.draw(st.sampled_from(together))
    at = first[one]
    history.events[at], history.events[at + 1] = history.events[at + 1], history.events[at]
    assert f"{one} was sent after a message that was published later" in check(history)


@given(seed=seeds, data=st.data())
def test_a_swap_of_what_is_sent_again_is_found(seed: int, data: st.DataObject) -> None:
    """Two messages that were lost leave on the next connection, and the later one first."""
    history = true_history(seed)
    known: set[str] = set()
    together = []
    for at, ((what, one, _), (then, other, _)) in enumerate(zip(history.events, history.events[1:], strict=False)):
        if what == then == "sent" and {one, other} <= known:
            together.append((at, one))
        known |= {one} if what == "sent" else set()
    assume(together)
    at, one = data.draw(st.sampled_from(together))
    history.events[at], history.events[at + 1] = history.events[at + 1], history.events[at]
    assert f"{one} was sent on a connection after a message that was published later" in check(history)


@given(seed=seeds, data=st.data())
def test_a_swap_in_the_queue_is_found(seed: int, data: st.DataObject) -> None:
    """A message is delivered before one that was promised before it was published."""
    history = true_history(seed)
    pairs, promised = [], list[str]()
    for what, name, detail in history.events:
        if what == "published":
            pairs += [(each, name) for each in promised]
        elif what == "ended" and detail in {CONFIRMED, STORED}:
            promised.append(name)
    delivered = {name for what, name, _ in history.events if what == "delivered"}
    pairs = [pair for pair in pairs if delivered.issuperset(pair)]
    assume(pairs)
    early, late = data.draw(st.sampled_from(pairs))
    at = next(at for at, event in enumerate(history.events) if event[:2] == ("delivered", early))
    history.events.insert(at, ("delivered", late, ""))
    assert any(f"{late} was delivered before a message that was promised" in words for words in check(history))


@given(
    seed=seeds,
    outcome=st.sampled_from([CONFIRMED, STORED, UNSENT, RETURNED, NACKED, UNKNOWN, CANCELLED]),
    data=st.data(),
)
def test_a_second_end_is_found(seed: int, outcome: str, data: st.DataObject) -> None:
    """Whatever the publish ends with then, and whenever."""
    history = true_history(seed)
    ends = [(at, name) for at, (what, name, _) in enumerate(history.events) if what == "ended"]
    assume(ends)
    at, name = data.draw(st.sampled_from(ends))
    history.events.insert(data.draw(st.integers(at + 1, len(history.events))), ("ended", name, outcome))
    assert any(f"{name} ended twice" in words for words in check(history))


@given(seed=seeds, outcome=st.sampled_from([UNSENT, CONFIRMED]), data=st.data())
def test_a_false_end_is_found(seed: int, outcome: str, data: st.DataObject) -> None:
    """Not sent, and it was; confirmed, and it was not when the caller was told."""
    history = true_history(seed)
    ends = {name: at for at, (what, name, _) in enumerate(history.events) if what == "ended"}
    acks = {name: at for at, (what, name, _) in reversed(list(enumerate(history.events))) if what == "acked"}
    sent = {name: at for at, (what, name, _) in reversed(list(enumerate(history.events))) if what == "sent"}
    wrong = [
        (at, name)
        for name, at in ends.items()
        if (sent.get(name, at) < at if outcome == UNSENT else acks.get(name, at) >= at)
    ]
    assume(wrong)
    at, name = data.draw(st.sampled_from(wrong))
    history.events[at] = ("ended", name, outcome)
    assert any(name in words and outcome in words for words in check(history))


@given(seed=seeds, data=st.data())
def test_a_publish_that_never_ends_is_found(seed: int, data: st.DataObject) -> None:
    """Unless its process was killed."""
    history = true_history(seed)
    last = max((at for at, event in enumerate(history.events) if event[0] == "killed"), default=-1)
    begun = {name for what, name, _ in history.events[last + 1 :] if what == "published"}
    ends = [at for at, (what, name, _) in enumerate(history.events) if what == "ended" and name in begun]
    assume(ends)
    at = data.draw(st.sampled_from(ends))
    _, name, _ = history.events.pop(at)
    assert f"{name} never ended" in check(history)


def events(*found: tuple[str, str, str], wire: bool = True) -> list[str]:
    """Check a history of these events."""
    history = History(wire=wire)
    history.events += found
    return check(history)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([("sent", "m", "")], "m was sent, and was never published"),
        ([("published", "m", ""), ("published", "m", "")], "m was published twice"),
        ([("published", "m", ""), ("killed", "", ""), ("ended", "m", STORED)], "after its process was killed"),
        ([("published", "m", ""), ("ended", "m", NACKED), ("sent", "m", "")], "sent after it had ended as nacked"),
        ([("published", "m", ""), ("sent", "m", ""), ("acked", "m", ""), ("sent", "m", "")], "sent again, although"),
        ([("published", "m", ""), ("ended", "m", RETURNED), ("delivered", "m", "")], "delivered, and had ended as ret"),
        (
            [("published", "m", ""), ("ended", "m", UNSENT), ("left", "m", "")],
            "m is left in the outbox, and had ended as",
        ),
    ],
)
def test_what_cannot_be_is_found(found: list[tuple[str, str, str]], words: str) -> None:
    """By name."""
    assert any(words in each for each in events(*found))


def test_what_may_be_is_not_found() -> None:
    """Set aside in place of delivered; sent again after a crash; late, if nobody knows what became of it."""
    assert events(("published", "m", ""), ("ended", "m", STORED), ("left", "m", "aside")) == []
    crash = [("sent", "m", ""), ("acked", "m", ""), ("killed", "", ""), ("sent", "m", ""), ("delivered", "m", "")]
    assert events(("published", "m", ""), ("ended", "m", STORED), *crash) == []
    late = [
        ("published", "m", ""),
        ("ended", "m", UNKNOWN),
        ("published", "n", ""),
        ("sent", "n", ""),
        ("sent", "m", ""),
    ]
    assert events(*late, ("ended", "n", UNKNOWN)) == []


def test_a_long_history_takes_time_in_proportion() -> None:
    """Ten times as long takes about ten times the time: the steps that the checker makes are counted."""
    short, long = (_steps(messages) for messages in (200, 2000))
    assert long < 15 * short


def _steps(messages: int) -> int:
    history = true_history(7, messages)
    count = 0

    def trace(_frame: object, _event: str, _argument: object) -> object:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        check(history)
    finally:
        sys.settrace(before)
    return count
