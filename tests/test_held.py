"""The real client is held to the declaration: it takes each step that is declared, and no other."""

import functools
from typing import Any

import pytest

from sprockets_amqp.connection.lifecycle import Lifecycle
from sprockets_amqp.connection.outage import OutageModel
from sprockets_amqp.delivery.check import CheckModel
from sprockets_amqp.delivery.publisher import Publisher
from sprockets_amqp.states import MACHINES
from sprockets_amqp.states.events import EVENTS
from tools import held
from tools.hand import HANDS

ROWS = {id(row) for machine in MACHINES for row in machine.rows}


@functools.cache
def walked(part: held.Part, *, pairs: bool = False) -> held.Held:
    """Walk a part once."""
    return held.held(part, pairs=pairs)


@pytest.mark.xdist_group("held")
@pytest.mark.parametrize("part", held.PARTS, ids=lambda part: part.words)
def test_every_step_is_taken(part: held.Part) -> None:
    """Of each machine together with the connection and the outage; `make held` walks the product of all."""
    result = walked(part)
    assert result.wanted == set()
    assert result.steps >= result.total > 1_000


@pytest.mark.xdist_group("held")
@pytest.mark.parametrize("part", held.PAIRS, ids=lambda part: part.words)
def test_every_pair_of_steps_of_the_connection_is_taken(part: held.Part) -> None:
    """One after the other, whatever comes between them."""
    result = walked(part, pairs=True)
    assert result.wanted == set()
    assert result.total > 200


@pytest.mark.xdist_group("held")
def test_every_row_and_every_pair_of_a_state_and_an_event_is_met() -> None:
    """Whatever the parts leave out, they leave out none of these."""
    parts = [walked(part) for part in held.PARTS]
    assert set.union(*(part.rows for part in parts)) == ROWS
    met = set.union(*(part.events for part in parts))
    possible = {
        (edge.step.event.learns, getattr(world, edge.step.event.machine))
        for part in parts
        for world, edges in zip(part.graph.worlds, part.graph.edges, strict=True)
        for edge in edges
        if edge.step.event.kind != "soon" and edge.step.event.machine
    }
    assert met == possible


def test_there_is_a_hand_for_every_event() -> None:
    """Except for those that the client causes itself, and for what cannot be caused at will."""
    by_itself = {event.words for event in EVENTS if event.kind == "soon"}
    assert HANDS.keys() == {event.words for event in EVENTS} - by_itself - held.NOT_AT_WILL


# A client that does something else is caught


def _forgets_failure(model: Any, _event: object) -> None:
    """A persistent failure that nobody is told of."""


def _leaves_channel(model: Any, event: Any) -> None:
    """A lost channel whose messages stay unconfirmed."""
    model._link.drop_channel()


def _never_ends(publisher: Any) -> None:
    """Waiting publishes that nobody ends."""


def _keeps_timers(model: Any, state: object, event: object = None) -> None:
    """Timers that would fire in another state."""


def _tells_nobody(publisher: Any, *_args: object, **_more: object) -> None:
    """Publishes whose callers never learn how they ended."""


#: What is wrong with the client, and what is said of it.
WRONG: dict[str, tuple[Any, str, Any, str]] = {
    "a callback is not called": (OutageModel, "tell_persistent_failure", _forgets_failure, "failures: 0, and not 1"),
    "messages are not settled": (Lifecycle, "drop_channel", _leaves_channel, "waiting, unconfirmed: "),
    "publishes are not ended": (Publisher, "give_up_waiting", _never_ends, "waiting, unconfirmed: "),
    "timers are left behind": (OutageModel, "_call_off", _keeps_timers, "timers: "),
    "callers are not told": (Publisher, "tell", _tells_nobody, "the publish has ended: False, and not True"),
    "those who asked are not told": (CheckModel, "_answer", _tells_nobody, "answers to checks: [], and not "),
    "a guard is always true": (Lifecycle, "blocking", property(lambda _: True), "states: "),
}


@pytest.mark.planted
@pytest.mark.parametrize("what", WRONG)
def test_a_client_that_does_something_else_is_caught(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """The shortest way to it is told, as it was walked."""
    owner, name, wrong, words = WRONG[what]
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises(held.Mismatch) as caught:
        held.held(held.PARTS[0])
    assert words in str(caught.value)
    assert "at last:\n  " in str(caught.value)
