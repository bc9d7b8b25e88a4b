"""The declaration decides: each part of it does something that can be seen, and nothing else decides.

What is expected comes from behaviour alone: `BEHAVIOURS` are the tests against the broker in memory, which look at
what reached the broker, at what became of futures, at what was told and at which timers run. With any part of the
declaration taken out, one of them fails.
"""

import contextlib
import functools
import gc
import inspect
import signal
import types
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from transitions import EventData, MachineError, Transition

from sprockets_amqp.model import Trigger
from sprockets_amqp.outbox.ledger import Ledger
from sprockets_amqp.states import (
    CONNECTION,
    DESCRIPTIONS,
    DOCUMENTED,
    MACHINES,
    Closed,
    Closing,
    Connecting,
    Machine,
    Place,
    State,
)
from tests import (
    test_access,
    test_connecting,
    test_draining,
    test_exchanges,
    test_lifecycle,
    test_nacks,
    test_outbox,
    test_outbox_recovers,
    test_publishing,
    test_refusals,
    test_stopping,
    test_substates,
)
from tests.support.memory import Broker
from tools.defects import DEFECTS, MODELS, OF_THE_CONNECTION, Defect

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
    test_nacks,
    test_exchanges,
    test_refusals,
    test_access,
    test_outbox,
    test_outbox_recovers,
)
BEHAVIOURS: Final = [each for module in MODULES for each in _behaviours(module)]


#: Seconds of this process's time that a behaviour may take.
LONGEST: Final = 5.0


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raise where a behaviour waits for ever for what a defect prevents: after seconds of this process's time."""

    def interrupt(_number: int, frame: types.FrameType | None) -> None:
        while frame is not None and frame.f_code.co_name not in {"_run_once", "run_forever"}:
            frame = frame.f_back
        # Where asyncio begins or ends to run a loop, it would take it for running ever after.
        if frame is None or frame.f_code.co_name == "_run_once":
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
@pytest.mark.planted
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
    assert marks == set(OF_THE_CONNECTION)


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
