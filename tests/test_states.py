"""The declaration decides: each part of it does something that can be seen, and nothing else decides.

What is expected comes from behaviour alone: `BEHAVIOURS` are the tests against the broker in memory, which look at
what reached the broker, at what became of futures, at what was told and at which timers run. With any part of the
declaration taken out, one of them fails.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import pytest
from transitions import EventData, MachineError, Transition

from sprockets_amqp.connection import lifecycle, outage, renewal
from sprockets_amqp.connection.lifecycle import Lifecycle
from sprockets_amqp.connection.outage import OutageModel
from sprockets_amqp.connection.renewal import RenewalModel
from sprockets_amqp.model import Trigger
from sprockets_amqp.outbox import model as outbox
from sprockets_amqp.outbox.model import OutboxModel
from sprockets_amqp.states import (
    DESCRIPTIONS,
    DOCUMENTED,
    LOGGED_IN,
    OUT,
    OUTAGE_STATES,
    OUTAGE_TRANSITIONS,
    OUTBOX_OUTCOMES,
    OUTBOX_STATES,
    OUTBOX_TRANSITIONS,
    PUBLISH_OUTCOMES,
    RENEWAL_STATES,
    RENEWAL_TRANSITIONS,
    STATES,
    TRANSITIONS,
    Closed,
    Closing,
    Connecting,
    Declared,
    Outage,
    Outbox,
    Row,
    State,
)
from tests import (
    test_access,
    test_connecting,
    test_draining,
    test_exchanges,
    test_lifecycle,
    test_outbox,
    test_publishing,
    test_stopping,
    test_substates,
)
from tests.support.memory import Broker

Behaviour = Callable[[Broker, pytest.MonkeyPatch], None]
EXECUTE: Final = Transition.execute


def _behaviours(module: Any) -> Iterator[Behaviour]:
    """Yield the tests of a module that need no more than a broker in memory, with each of their parameters."""
    for name, test in vars(module).items():
        wanted = set(inspect.signature(test).parameters) if name.startswith("test_") else {"no test"}
        cases: list[dict[str, object]] = [{}]
        for mark in getattr(test, "pytestmark", []):
            if mark.name == "parametrize" and isinstance(mark.args[0], str) and "," not in mark.args[0]:
                cases = [{**case, mark.args[0]: value} for case in cases for value in mark.args[1]]
        yield from (
            _behaviour(test, case, wanted)
            for case in cases
            if "broker" in wanted and wanted <= {"broker", "monkeypatch", *case}
        )


def _behaviour(test: Callable[..., None], case: dict[str, object], wanted: set[str]) -> Behaviour:
    def run(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        test(broker, **case, **({"monkeypatch": monkeypatch} if "monkeypatch" in wanted else {}))

    return run


#: Those that notice most come first.
MODULES: Final = (
    test_substates,
    test_lifecycle,
    test_stopping,
    test_draining,
    test_connecting,
    test_publishing,
    test_exchanges,
    test_access,
    test_outbox,
)
BEHAVIOURS: Final = [each for module in MODULES for each in _behaviours(module)]


def fails(behaviour: Behaviour) -> bool:
    """Run a behaviour; return whether it fails."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        broker = Broker().install()
        broker.missing.add("missing")
        try:
            behaviour(broker, monkeypatch)
            broker.shut_down()
            assert broker.clock.escaped == []
        except (Exception, pytest.fail.Exception):
            return True
        finally:
            broker.close()
    return False


@functools.cache
def places() -> dict[Behaviour, set[str]]:
    """Which triggers each behaviour pulls, and from which states, and the states that it reaches."""
    return {behaviour: _places(behaviour) for behaviour in BEHAVIOURS}


def _places(behaviour: Behaviour) -> set[str]:
    found: set[str] = set()

    def execute(transition: Any, event: EventData) -> bool:
        model: Any = event.model
        trigger, source = event.event.name, model.state
        done = EXECUTE(transition, event)
        pulled = (f"{trigger} from {each}" for each in (source, DOCUMENTED.get(source)))
        found.update((trigger, *pulled, str(model.state), str(DOCUMENTED.get(model.state))))
        return done

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Transition, "execute", execute)
        assert not fails(behaviour)
    return found


def is_noticed(defect: "Defect") -> bool:
    """Run the behaviours until one fails: first those that come past the defect; of these, what noticed another."""
    what, _, source = defect.label.partition(" from ")
    place = what.split()[0].rstrip(",") + (f" from {source}" if source else "")
    for behaviour in sorted(BEHAVIOURS, key=lambda each: place not in places()[each]):
        if fails(behaviour):
            BEHAVIOURS.remove(behaviour)
            BEHAVIOURS.insert(0, behaviour)
            return True
    return False


# Everything that is declared does something


class Defect(NamedTuple):
    """What is changed, and what stands instead, by the names under which the models find their declaration."""

    label: str
    module: Any
    name: str
    declaration: Any

    def __str__(self) -> str:
        return self.label


def _changed(thing: Any, part: str, value: object) -> Any:
    return dataclasses.replace(thing, **{part: value})


def _without(declared: Declared) -> Iterator[tuple[str, Declared]]:
    """Yield the state with one part of it taken out, for each part."""
    for kind in ("on_enter", "on_exit"):
        actions = getattr(declared, kind)
        for index, action in enumerate(actions):
            less = (*actions[:index], *actions[index + 1 :])
            yield f"{declared.state} {kind} {action}", _changed(declared, kind, less)
    if declared.timeout:
        yield f"{declared.state} timeout", dataclasses.replace(declared, timeout="", on_timeout="")
    for index, substate in enumerate(declared.substates):
        for label, less_of_it in _without(substate):
            substates = (*declared.substates[:index], less_of_it, *declared.substates[index + 1 :])
            yield label, dataclasses.replace(declared, substates=substates)


def _defects_in_states(module: Any, name: str, declaration: tuple[Declared, ...]) -> Iterator[Defect]:
    for index, declared in enumerate(declaration):
        for label, less in _without(declared):
            yield Defect(label, module, name, (*declaration[:index], less, *declaration[index + 1 :]))


def _defects_in_rows(module: Any, name: str, rows: tuple[Row, ...]) -> Iterator[Defect]:
    for index, row in enumerate(rows):
        others = rows[:index], rows[index + 1 :]
        yield Defect(f"{row.trigger} to {row.dest}", module, name, (*others[0], *others[1]))
        for source in row.source if len(row.source) > 1 else ():
            less = dataclasses.replace(row, source=tuple(each for each in row.source if each is not source))
            yield Defect(f"{row.trigger} to {row.dest} from {source}", module, name, (*others[0], less, *others[1]))
        for part in ("conditions", "unless", "before"):
            if getattr(row, part):
                less = _changed(row, part, "")
                yield Defect(f"{row.trigger} to {row.dest} {part}", module, name, (*others[0], less, *others[1]))


def _reachable() -> Iterator[tuple[Any, Outage]]:
    """Yield the pairs of states that last: an outage is counted in those of `OUT`, and calm in the others."""
    for state in PUBLISH_OUTCOMES:
        yield from (
            ((state, each) for each in (Outage.COUNTING, Outage.PERSISTENT))
            if state in OUT
            else ((state, Outage.CALM),)
        )


def _defects_in_the_outage() -> Iterator[Defect]:
    for state in DOCUMENTED:
        if state in PUBLISH_OUTCOMES:
            yield Defect(f"{state} out or not", lifecycle, "OUT", OUT ^ {state})
    for state in (*sorted(LOGGED_IN, key=str), Closed.RETRYING):
        yield Defect(f"{state} logged in or not", lifecycle, "LOGGED_IN", LOGGED_IN ^ {state})
    for state, its_outage in _reachable():
        for other in sorted({"waits", "is refused"} - {PUBLISH_OUTCOMES[state][its_outage]}):
            cells = {**PUBLISH_OUTCOMES[state], its_outage: other}
            label = f"{state}, {its_outage}: {other}"
            yield Defect(label, lifecycle, "PUBLISH_OUTCOMES", {**PUBLISH_OUTCOMES, state: cells})


#: What a publish does not meet: in these states it is asked for in a state of the connection that has no other.
UNMET: Final[set[tuple[Outbox, str]]] = {(Outbox.FINISHING, "goes out"), (Outbox.FINISHING, "waits")}


def _defects_of_the_outbox() -> Iterator[Defect]:
    """Yield each cell of its table changed, of those that a publish can meet."""
    for state, made in OUTBOX_OUTCOMES.items():
        for usual, outcome in made.items():
            if (state, usual) not in UNMET:
                other: Any = "is refused" if outcome in {"goes out", "waits"} else "waits"
                cells = {**OUTBOX_OUTCOMES, state: {**made, usual: other}}
                yield Defect(f"{state}, {usual}: {other}", lifecycle, "OUTBOX_OUTCOMES", cells)
        if made["is refused"] == "is stored":
            cells = {**OUTBOX_OUTCOMES, state: {**made, "is refused": "is refused"}}
            yield Defect(f"{state} takes nothing", outbox, "OUTBOX_OUTCOMES", cells)


SWAPPED: Final = [
    Defect(
        "blocked after ready",
        lifecycle,
        "TRANSITIONS",
        tuple(sorted(TRANSITIONS, key=lambda row: bool(row.conditions))),
    ),
]
DEFECTS: Final = [
    *_defects_in_states(lifecycle, "STATES", STATES),
    *_defects_in_states(outage, "OUTAGE_STATES", OUTAGE_STATES),
    *_defects_in_rows(lifecycle, "TRANSITIONS", TRANSITIONS),
    *_defects_in_rows(outage, "OUTAGE_TRANSITIONS", OUTAGE_TRANSITIONS),
    *_defects_in_states(renewal, "RENEWAL_STATES", RENEWAL_STATES),
    *_defects_in_rows(renewal, "RENEWAL_TRANSITIONS", RENEWAL_TRANSITIONS),
    *_defects_in_states(outbox, "OUTBOX_STATES", OUTBOX_STATES),
    *_defects_in_rows(outbox, "OUTBOX_TRANSITIONS", OUTBOX_TRANSITIONS),
    *_defects_in_the_outage(),
    *_defects_of_the_outbox(),
    *SWAPPED,
]


@pytest.mark.xdist_group("declaration")
def test_the_behaviours_are_what_the_declaration_says() -> None:
    """As it is declared, none of them fails."""
    assert len(places()) > 40


# One worker learns from all of them what notices most.
@pytest.mark.xdist_group("declaration")
@pytest.mark.parametrize("defect", DEFECTS, ids=str)
def test_a_defect_of_the_declaration_is_seen(monkeypatch: pytest.MonkeyPatch, defect: Defect) -> None:
    """Without a row, a source, a guard, an action or a timeout, or with a publish treated otherwise, a test fails."""
    # Behaviours are watched as it is declared.
    places()
    monkeypatch.setattr(defect.module, defect.name, defect.declaration)
    assert is_noticed(defect)


# The model has what is declared, and nothing else


def _all(declaration: tuple[Declared, ...]) -> Iterator[Declared]:
    for declared in declaration:
        yield declared
        yield from _all(tuple(declared.substates))


#: The models, and the states and rows that are declared for them.
MODELS: Final[list[tuple[Any, Any, Any]]] = [
    (Lifecycle, STATES, TRANSITIONS),
    (OutageModel, OUTAGE_STATES, OUTAGE_TRANSITIONS),
    (RenewalModel, RENEWAL_STATES, RENEWAL_TRANSITIONS),
    (OutboxModel, OUTBOX_STATES, OUTBOX_TRANSITIONS),
]


@pytest.mark.parametrize(("model", "states", "rows"), MODELS)
def test_the_annotations_are_the_triggers(model: Any, states: Any, rows: Any) -> None:
    """What a model annotates as a trigger is what rows declare and timeouts pull, and nothing is in its way."""
    annotated = {name for name, kind in model.__annotations__.items() if kind is Trigger}
    assert annotated == {row.trigger for row in rows}
    assert {declared.on_timeout for declared in _all(states)} - {""} <= annotated
    assert annotated.isdisjoint(name for base in model.__mro__ for name in vars(base))


@pytest.mark.parametrize(("model", "states", "rows"), MODELS)
def test_every_name_is_a_method_of_the_model_and_every_method_is_declared(model: Any, states: Any, rows: Any) -> None:
    """Actions and timeouts take an event, guards are properties; no such method is left over."""
    named = {action for declared in _all(states) for action in (*declared.on_enter, *declared.on_exit)}
    named |= {declared.timeout for declared in _all(states)} | {row.before for row in rows}
    takes_event = {
        name
        for name, method in vars(model).items()
        if inspect.isfunction(method) and EventData in [each.annotation for each in _parameters(method)]
    }
    at_every_transition = {"note_change", "announce_change"}
    private = {name for name in takes_event if name.startswith("_")}
    assert takes_event - at_every_transition - private == named - {""}
    for guard in {row.conditions for row in rows} | {row.unless for row in rows}:
        assert not guard or isinstance(getattr(model, guard), property)


def _parameters(method: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(method).parameters.values())


def test_an_undeclared_trigger_raises_and_leaves_the_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for what the state does not have is a MachineError, and feeding it is ignored."""
    broker = Broker().install()
    model = broker.client()._core.lifecycle
    with pytest.raises(MachineError):
        model.close()
    assert model.feed(model.close) is False
    assert model.state is State.IDLE
    broker.shut_down()
    broker.close()


def test_a_timeout_names_its_trigger_and_the_other_way_round() -> None:
    """One without the other would do nothing, or fail when it is entered."""
    for declared in (*_all(STATES), *_all(OUTAGE_STATES), *_all(RENEWAL_STATES), *_all(OUTBOX_STATES)):
        assert bool(declared.timeout) is bool(declared.on_timeout), declared


def test_the_values_are_those_of_existing_code() -> None:
    """Existing code compares 1 to 6, and shows the descriptions to people."""
    values = {"IDLE": 1, "CONNECTING": 2, "READY": 3, "BLOCKED": 4, "CLOSING": 5, "CLOSED": 6}
    assert {state.name: state.value for state in State} == values
    assert [DESCRIPTIONS[state] for state in State] == ["Idle", "Connecting", "Ready", "Blocked", "Closing", "Closed"]


def test_the_documented_states_are_the_outermost() -> None:
    """Each substate refines one of them, and only states that can last are in the table of publishes."""
    assert [declared.state for declared in STATES] == list(State)
    assert {state for state in DOCUMENTED if state not in PUBLISH_OUTCOMES} == {
        declared.state for declared in STATES if declared.substates
    }
    for substates, state in ((Connecting, State.CONNECTING), (Closing, State.CLOSING), (Closed, State.CLOSED)):
        assert {DOCUMENTED[substate] for substate in substates} == {state}
