"""The declaration decides: each part of it does something that can be seen, and nothing else decides.

What is expected comes from behaviour alone: `BEHAVIOURS` are the tests against the broker in memory, which look at
what reached the broker, at what became of futures, at what was told and at which timers run. With any part of the
declaration taken out, one of them fails.
"""

import contextlib
import dataclasses
import functools
import gc
import inspect
import signal
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import pytest
from transitions import EventData, MachineError, Transition

from sprockets_amqp.connection.lifecycle import Lifecycle
from sprockets_amqp.connection.outage import OutageModel
from sprockets_amqp.connection.renewal import RenewalModel
from sprockets_amqp.delivery.check import CheckModel
from sprockets_amqp.model import Model, Trigger
from sprockets_amqp.outbox.ledger import Ledger
from sprockets_amqp.outbox.model import OutboxModel
from sprockets_amqp.states import (
    CONNECTION,
    DESCRIPTIONS,
    DOCUMENTED,
    MACHINES,
    Check,
    Closed,
    Closing,
    Connecting,
    Declared,
    Machine,
    Outage,
    Outbox,
    Place,
    Row,
    Running,
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
    test_refusals,
    test_stopping,
    test_substates,
)
from tests.support.memory import Broker

Behaviour = Callable[[Broker, pytest.MonkeyPatch], None]
EXECUTE: Final = Transition.execute
MOVE: Final = Ledger.move


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
    test_refusals,
    test_access,
    test_outbox,
)
BEHAVIOURS: Final = [each for module in MODULES for each in _behaviours(module)]


#: Seconds of this process's time that a behaviour may take.
LONGEST: Final = 5.0


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raise where a behaviour waits for ever for what a defect prevents: after seconds of this process's time."""

    def interrupt(*_: object) -> None:
        raise TimeoutError("what the behaviour waits for never happens")

    before = signal.signal(signal.SIGVTALRM, interrupt)
    # Again and again: a loop's callbacks may catch the first.
    signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST, LONGEST / 10)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def fails(behaviour: Behaviour) -> bool:
    """Run a behaviour; return whether it fails."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        broker = Broker().install()
        broker.missing.add("missing")
        try:
            with _limited():
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

    def move(ledger: Ledger[Any], key: Any, name: str) -> Place:
        place = ledger.rows[key].place
        dest = MOVE(ledger, key, name)
        found.update((name, str(dest), f"{name} from {place}"))
        return dest

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Transition, "execute", execute)
        monkeypatch.setattr(Ledger, "move", move)
        assert not fails(behaviour)
    return found


def is_noticed(defect: "Defect") -> bool:
    """Run the behaviours until one fails: first those that come past the defect; of these, what noticed another."""
    what, _, source = defect.label.partition(" from ")
    place = what.split()[0].rstrip(",:") + (f" from {source}" if source else "")
    for behaviour in sorted(BEHAVIOURS, key=lambda each: place not in places()[each]):
        if fails(behaviour):
            BEHAVIOURS.remove(behaviour)
            BEHAVIOURS.insert(0, behaviour)
            return True
    return False


# Everything that is declared does something


class Defect(NamedTuple):
    """What is changed, and the machine that a model then runs."""

    label: str
    model: type[Model | Ledger[Any]]
    machine: Machine

    def __str__(self) -> str:
        return self.label


#: The models of the machines.
MODELS: Final[list[type[Model]]] = [Lifecycle, OutageModel, RenewalModel, OutboxModel, CheckModel]

#: The parts of a state that do something, and what stands in place of each part that is taken out.
Change = tuple[str, Declared]


#: The ledger looks its moves up in the declaration, as models pull triggers.
DECLARED: Final[list[type[Model | Ledger[Any]]]] = [*MODELS, Ledger]


def _changed(thing: Any, **parts: object) -> Any:
    return dataclasses.replace(thing, **parts)


def _changes(declared: Declared) -> Iterator[Change]:
    """Yield the state with one part of it taken out or changed, for each part."""
    yield from _fewer_actions(declared)
    if declared.timeout:
        yield f"{declared.state} timeout", _changed(declared, timeout=None)
    for other in _other_outcomes(declared):
        yield f"{declared.state}: {other}", _changed(declared, publish=other)
    for usual in ("goes out", "waits", "is refused"):
        made = declared.makes.get(usual, usual)
        for other in _other_makes(declared.state, usual, made):
            yield f"{declared.state}, {usual}: {other}", _changed(declared, makes={**declared.makes, usual: other})
    if not declared.substates:
        yield from _other_marks(declared)
    for index, substate in enumerate(declared.substates):
        for label, changed in _changes(substate):
            substates = (*declared.substates[:index], changed, *declared.substates[index + 1 :])
            yield label, _changed(declared, substates=substates)


def _fewer_actions(declared: Declared) -> Iterator[Change]:
    for kind in ("on_enter", "on_exit"):
        actions = getattr(declared, kind)
        for index, action in enumerate(actions):
            less = (*actions[:index], *actions[index + 1 :])
            yield f"{declared.state} {kind} {action.name}", _changed(declared, **{kind: less})


def _other_marks(declared: Declared) -> Iterator[Change]:
    for mark in MARKS.get(type(declared.state), ()):
        if (declared.state, mark) not in UNSEEN:
            marks = {*declared.marks} ^ {mark}
            yield f"{declared.state} {mark} or not", _changed(declared, marks=tuple(marks))


#: The marks of the states of each kind; those of the ledger's places are its own tests' affair.
_OF_THE_CONNECTION: Final = ("sends", "outage", "connected", "logged_in", "has_channel", "at_rest")
MARKS: Final[dict[type, tuple[str, ...]]] = {
    State: _OF_THE_CONNECTION,
    Connecting: _OF_THE_CONNECTION,
    Closing: _OF_THE_CONNECTION,
    Closed: _OF_THE_CONNECTION,
    Outbox: ("troubled", "finishing"),
    Check: ("on_wire",),
    Running: ("on_wire",),
}
_BEFORE_THE_LOGIN: Final = (Connecting.CALLING, Connecting.OPENING_CONNECTION, Connecting.RETRYING_NODE)
#: Marks that change nothing where they are missing or too many, each with the reason.
UNSEEN: Final[set[tuple[Any, str]]] = {
    # Nothing waits there any more that could go out.
    (Closing.CONFIRMING, "sends"),
    (Closing.CLOSING_CONNECTION, "sends"),
    # It is never entered, and nothing has begun that could end when it is left.
    (State.IDLE, "logged_in"),
    # There is no channel for checks that could end.
    *((state, "connected") for state in (State.IDLE, *_BEFORE_THE_LOGIN)),
    # No check is running where there is no channel to publish on.
    *((state, "has_channel") for state in CONNECTION.lasting if state not in CONNECTION.marked("has_channel")),
    # No message is being checked that could be blamed.
    *((state, "on_wire") for state in (Check.NONE, Check.IDLE, Check.LEAVING, Check.UNAVAILABLE)),
    # Whether the files are being closed is asked of a client that was stopped: there is FINISHING, or OFF.
    *((state, "finishing") for state in Outbox if state not in {Outbox.FINISHING, Outbox.OFF}),
}


def _other_outcomes(declared: Declared) -> list[str]:
    return sorted({"waits", "is refused"} - {declared.publish}) if declared.publish else []


#: What publishes meet in each state that changes what becomes of them. There is no outage where they go out, and none
#: that is persistent begins where they are refused; of a client that is stopping, they are refused.
_EVERY: Final = {"goes out", "waits", "is refused"}
MET: Final[dict[Any, set[str]]] = {
    Outage.CALM: _EVERY,
    Outage.COUNTING: {"waits"},
    Outage.PERSISTENT: {"waits"},
    **dict.fromkeys(Outbox, _EVERY),
    Outbox.FINISHING: {"is refused"},
}


def _other_makes(state: Any, usual: str, made: str) -> Iterator[str]:
    if usual in MET.get(state, ()):
        yield "is refused" if made in {"goes out", "waits"} else "waits"
        if made == "is stored" and usual == "is refused":
            yield "is refused"


def _defects_in_states(model: type[Model | Ledger[Any]]) -> Iterator[Defect]:
    states = model.machine.states
    for index, declared in enumerate(states):
        for label, changed in _changes(declared):
            machine = _changed(model.machine, states=(*states[:index], changed, *states[index + 1 :]))
            yield Defect(label, model, machine)


def _defects_in_rows(model: type[Model | Ledger[Any]]) -> Iterator[Defect]:
    rows = model.machine.rows
    for index, row in enumerate(rows):
        for label, instead in _changes_of_row(row):
            machine = _changed(model.machine, rows=(*rows[:index], *instead, *rows[index + 1 :]))
            yield Defect(label, model, machine)


def _changes_of_row(row: Row) -> Iterator[tuple[str, tuple[Row, ...]]]:
    label = f"{row.trigger} to {row.dest}" + (f" with {row.before.name}" if row.before else "")
    yield label, ()
    for source in row.source if len(row.source) > 1 else ():
        less = tuple(each for each in row.source if each is not source)
        yield f"{label} from {source}", (_changed(row, source=less),)
    if isinstance(row.dest, Place):
        for instead in (Place.GONE, Place.ON_DISK, Place.WRITING_ON_WIRE):
            if instead is not row.dest:
                yield f"{label}: {instead}", (_changed(row, dest=instead),)
    for part, nothing in (("conditions", ""), ("unless", ""), ("before", None)):
        if getattr(row, part):
            yield f"{label} {part}", (_changed(row, **{part: nothing}),)


def _defects_in_following(model: type[Model | Ledger[Any]]) -> Iterator[Defect]:
    follows = model.machine.follows
    for index, follow in enumerate(follows):
        for part in ("entered", "left"):
            if getattr(follow, part):
                less = (*follows[:index], _changed(follow, **{part: ""}), *follows[index + 1 :])
                yield Defect(f"{getattr(follow, part)} not pulled", model, _changed(model.machine, follows=less))


SWAPPED: Final = Defect(
    "blocked after ready",
    Lifecycle,
    _changed(CONNECTION, rows=tuple(sorted(CONNECTION.rows, key=lambda row: bool(row.conditions)))),
)
DEFECTS: Final = [
    *(
        defect
        for model in DECLARED
        for kind in (_defects_in_states, _defects_in_rows, _defects_in_following)
        for defect in kind(model)
    ),
    SWAPPED,
]


@pytest.fixture(scope="module", autouse=True)
def _collected() -> Iterator[None]:
    """Keep what other tests have left out of every garbage collection here: there are thousands."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.xdist_group("declaration")
def test_the_behaviours_are_what_the_declaration_says() -> None:
    """As it is declared, none of them fails."""
    assert len(places()) > 40


def test_a_behaviour_that_waits_for_ever_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect may prevent what it waits for."""

    def waits(broker: Broker, _monkeypatch: pytest.MonkeyPatch) -> None:
        while True:
            broker.clock.advance(0.1)

    monkeypatch.setattr(f"{__name__}.LONGEST", 0.1)
    assert fails(waits)


# One worker learns from all of them what notices most.
@pytest.mark.xdist_group("declaration")
@pytest.mark.parametrize("defect", DEFECTS, ids=str)
def test_a_defect_of_the_declaration_is_seen(monkeypatch: pytest.MonkeyPatch, defect: Defect) -> None:
    """Without a row, a source, a guard, an action or a timeout, or with a publish treated otherwise, a test fails."""
    # Behaviours are watched as it is declared.
    places()
    monkeypatch.setattr(defect.model, "machine", defect.machine)
    assert is_noticed(defect)


# The model has what is declared, and nothing else


def test_every_machine_has_its_model() -> None:
    """In the order of the declaration."""
    assert [model.machine for model in MODELS] == list(MACHINES)


@pytest.mark.parametrize("model", MODELS)
def test_the_annotations_are_the_triggers(model: Any) -> None:
    """What a model annotates as a trigger is what rows declare, and what timeouts and following pull."""
    annotated = {name for name, kind in model.__annotations__.items() if kind is Trigger}
    machine: Machine = model.machine
    assert annotated == {row.trigger for row in machine.rows}
    assert {each.timeout.trigger for each in machine.declared.values() if each.timeout} <= annotated
    assert {trigger for each in machine.follows for trigger in (each.entered, each.left)} - {""} <= annotated
    assert annotated.isdisjoint(name for base in model.__mro__ for name in vars(base))


@pytest.mark.parametrize("model", MODELS)
def test_every_name_is_a_method_of_the_model_and_every_method_is_declared(model: Any) -> None:
    """Actions and timeouts take an event, guards are properties; no such method is left over."""
    machine: Machine = model.machine
    states = machine.declared.values()
    named = {action.name for each in states for action in (*each.on_enter, *each.on_exit)}
    named |= {each.timeout.name for each in states if each.timeout}
    named |= {row.before.name for row in machine.rows if row.before}
    takes_event = {
        name
        for name, method in vars(model).items()
        if inspect.isfunction(method) and EventData in [each.annotation for each in _parameters(method)]
    }
    at_every_transition = {"note_change", "announce_change"}
    private = {name for name in takes_event if name.startswith("_")}
    assert takes_event - at_every_transition - private == named
    for guard in {row.conditions for row in machine.rows} | {row.unless for row in machine.rows}:
        assert not guard or isinstance(getattr(model, guard), property)


def test_what_a_machine_follows_is_a_mark_of_the_connection() -> None:
    """A mark that no state has would be followed in vain."""
    for machine in MACHINES:
        for follow in machine.follows:
            assert 0 < len(CONNECTION.marked(follow.mark)) < len(CONNECTION.lasting)
    marks = {mark for each in CONNECTION.declared.values() for mark in each.marks}
    assert marks == set(_OF_THE_CONNECTION)


def _parameters(method: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(method).parameters.values())


def test_an_undeclared_trigger_raises_and_leaves_the_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for what the state does not have is a MachineError, and feeding it is ignored."""
    broker = Broker().install()
    model = broker.client()._runtime.lifecycle
    with pytest.raises(MachineError):
        model.close()
    assert model.feed(model.close) is False
    assert model.state is State.IDLE
    broker.shut_down()
    broker.close()


def test_the_values_are_those_of_existing_code() -> None:
    """Existing code compares 1 to 6, and shows the descriptions to people."""
    values = {"IDLE": 1, "CONNECTING": 2, "READY": 3, "BLOCKED": 4, "CLOSING": 5, "CLOSED": 6}
    assert {state.name: state.value for state in State} == values
    assert [DESCRIPTIONS[state] for state in State] == ["Idle", "Connecting", "Ready", "Blocked", "Closing", "Closed"]


def test_the_documented_states_are_the_outermost() -> None:
    """Each substate refines one of them, and only states that can last are in the table of publishes."""
    assert [declared.state for declared in CONNECTION.states] == list(State)
    assert {state for state, each in CONNECTION.declared.items() if not each.publish} == {
        declared.state for declared in CONNECTION.states if declared.substates
    }
    for substates, state in ((Connecting, State.CONNECTING), (Closing, State.CLOSING), (Closed, State.CLOSED)):
        assert {DOCUMENTED[substate] for substate in substates} == {state}
