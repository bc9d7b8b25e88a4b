"""The declaration in states/, pair by pair, against the table that was agreed on."""

import ast
import asyncio
import copy
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import pytest
from transitions import EventData, MachineError

import sprockets_amqp
from sprockets_amqp import lifecycle as lifecycle_module
from sprockets_amqp.hooks import Hooks
from sprockets_amqp.lifecycle import Lifecycle, Trigger
from sprockets_amqp.settings import Settings
from sprockets_amqp.states import (
    CLOSABLE,
    DESCRIPTIONS,
    PUBLISH_OUTCOMES,
    PUBLISHABLE,
    REFUSED,
    TRANSITIONS,
    Row,
    State,
)

if TYPE_CHECKING:
    from tornado.ioloop import IOLoop

    from sprockets_amqp.client import Client

IDLE, CONNECTING, READY, BLOCKED, CLOSING, CLOSED = State

PACKAGE: Final = Path(sprockets_amqp.__file__).parent
CALLBACK_KINDS: Final = ("prepare", "before", "after")


class Agreed(NamedTuple):
    """One line of the agreed table: where a trigger leads (None: it stays) and what the client does on the way."""

    trigger: str
    sources: tuple[State, ...]
    dest: State | None
    does: str = ""
    #: Whether RabbitMQ is blocking, where that matters.
    blocking: bool | None = None


#: Written down apart from the declaration, from the agreement: the order of `does` is the order of the calls.
AGREED: Final = [
    Agreed("connect", (IDLE, CLOSED), CONNECTING, "_cancel_reconnect _watch_outage _open_connection"),
    Agreed("connection_opened", (CONNECTING,), None, "_open_channel"),
    Agreed("channel_opened", (CONNECTING,), BLOCKED, "_end_connecting", blocking=True),
    Agreed("channel_opened", (CONNECTING,), READY, "_end_connecting _end_outage _send_waiting", blocking=False),
    Agreed("connection_blocked", (READY,), BLOCKED, "_remember_alarm _watch_outage"),
    Agreed("connection_blocked", (CONNECTING, BLOCKED), None, "_remember_alarm"),
    Agreed("flow_stopped", (READY,), BLOCKED, "_remember_flow _watch_outage"),
    Agreed("flow_stopped", (CONNECTING, BLOCKED), None, "_remember_flow"),
    Agreed("connection_unblocked", (BLOCKED,), READY, "_forget_alarm _end_outage _send_waiting", blocking=False),
    Agreed("connection_unblocked", (BLOCKED,), None, "_forget_alarm _forget_alarm", blocking=True),
    Agreed("connection_unblocked", (CONNECTING,), None, "_forget_alarm"),
    Agreed("flow_resumed", (BLOCKED,), READY, "_forget_flow _end_outage _send_waiting", blocking=False),
    Agreed("flow_resumed", (BLOCKED,), None, "_forget_flow _forget_flow", blocking=True),
    Agreed("flow_resumed", (CONNECTING,), None, "_forget_flow"),
    Agreed("channel_closed", (READY, BLOCKED), CONNECTING, "_settle_unconfirmed _watch_outage _reopen_channel"),
    Agreed("channel_closed", (CONNECTING,), None, "_settle_unconfirmed _reopen_channel"),
    Agreed("channel_closed", (CLOSING,), None, "_settle_unconfirmed"),
    Agreed("connection_failed", (CONNECTING,), CLOSED, "_end_connecting _drop_connection _schedule_reconnect"),
    Agreed(
        "connection_closed",
        (CONNECTING, READY, BLOCKED),
        CLOSED,
        "_end_connecting _drop_connection _settle_unconfirmed _watch_outage _schedule_reconnect",
    ),
    Agreed("connection_closed", (CLOSING,), CLOSED, "_end_closing _drop_connection _settle_unconfirmed"),
    Agreed("failure_persisted", (IDLE, CONNECTING, BLOCKED, CLOSED), None, "_remember_failure _refuse_waiting"),
    Agreed("close", (READY, BLOCKED), CLOSING, "_end_outage _refuse_waiting _drain"),
    Agreed("drained", (CLOSING,), None, "_close_connection"),
    Agreed("close_expired", (CLOSING,), CLOSED, "_end_closing _drop_connection _settle_unconfirmed"),
    Agreed(
        "stop",
        (IDLE, CONNECTING, CLOSED),
        CLOSED,
        "_cancel_reconnect _end_connecting _end_outage _drop_connection _refuse_waiting",
    ),
]
TRIGGERS: Final = sorted({line.trigger for line in AGREED})


def names_in(row: Row, kind: str) -> list[str]:
    """Name the methods that a row has under one key."""
    value = cast("Any", row).get(kind, [])
    return [value] if isinstance(value, str) else value


def callbacks_of(row: Row) -> list[str]:
    """Name what a row calls."""
    return [name for kind in CALLBACK_KINDS for name in names_in(row, kind)]


class Recorder(Lifecycle):
    """The real model; only what drives pika and the publisher writes down its name instead."""

    calls: list[str]
    raining = False

    @property
    def blocking(self) -> bool:
        """Whether RabbitMQ is blocking, as the walk says."""
        return self.raining


def _recorder(name: str) -> Any:
    return lambda model, _event: model.calls.append(name)


for _name in {name for row in TRANSITIONS for name in callbacks_of(row)}:
    setattr(Recorder, _name, _recorder(_name))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Build models from given rows."""
    loop = asyncio.new_event_loop()

    def build(rows: list[Row]) -> Recorder:
        monkeypatch.setattr(lifecycle_module, "TRANSITIONS", rows)
        return Recorder(cast("Client", None), Settings(), Hooks(loop), cast("IOLoop", None))

    yield build
    loop.close()


def agreed(state: State, trigger: str, blocking: bool) -> tuple[State, list[str]] | None:
    """Look up where a trigger leads and what is called on the way; None: it is not known in that state."""
    lines = [
        line
        for line in AGREED
        if line.trigger == trigger and state in line.sources and line.blocking in (None, blocking)
    ]
    assert len(lines) <= 1, f"the agreement contradicts itself: {lines}"
    return (lines[0].dest or state, lines[0].does.split()) if lines else None


def pull(model: Recorder, state: State, trigger: str, blocking: bool) -> tuple[State, list[str]] | None:
    """Pull a trigger in a state; tells what came of it, None where it was refused and nothing was touched."""
    model.state, model.calls, model.raining = state, [], blocking
    try:
        if not getattr(model, trigger)():
            model.calls.append("no guard let it pass")
    except (MachineError, AttributeError):
        assert model.state is state
        assert model.calls == []
        return None
    return model.state, model.calls


def differences(model: Recorder) -> list[str]:
    """Walk every (state, trigger) pair, with and without RabbitMQ blocking."""
    return [
        f"{trigger} in {state.name}, blocking={blocking}: {found}, not {wanted}"
        for state in State
        for trigger in TRIGGERS
        for blocking in (False, True)
        if (found := pull(model, state, trigger, blocking)) != (wanted := agreed(state, trigger, blocking))
    ]


def test_every_state_and_trigger_does_what_was_agreed(recorder: Any) -> None:
    """Each pair leads where the table says, calls what it says, and an undeclared one changes nothing."""
    assert differences(recorder(TRANSITIONS)) == []


def test_the_triggers_are_those_of_the_agreement() -> None:
    """The declaration has no trigger that the walk would not pull."""
    assert {row["trigger"] for row in TRANSITIONS} == set(TRIGGERS)


def test_an_undeclared_trigger_raises_and_leaves_the_state_alone(recorder: Any) -> None:
    """Asking for what the state does not have is a MachineError, and feeding it is ignored."""
    model = recorder(TRANSITIONS)
    with pytest.raises(MachineError):
        model.close()
    assert model.feed(model.close) is False
    assert model.state is State.IDLE


@pytest.mark.parametrize("index", range(len(TRANSITIONS)))
def test_a_missing_row_is_noticed(recorder: Any, index: int) -> None:
    """Without any single row of the declaration, the walk finds a difference."""
    assert differences(recorder(TRANSITIONS[:index] + TRANSITIONS[index + 1 :])) != []


@pytest.mark.parametrize(
    ("index", "source"), [(index, source) for index, row in enumerate(TRANSITIONS) for source in row["source"]]
)
def test_a_missing_source_is_noticed(recorder: Any, index: int, source: State) -> None:
    """Without any single state that a row starts from, the walk finds a difference."""
    rows = copy.deepcopy(TRANSITIONS)
    rows[index]["source"].remove(source)
    assert differences(recorder([row for row in rows if row["source"]])) != []


@pytest.mark.parametrize(
    ("index", "kind", "name"),
    [
        (index, kind, name)
        for index, row in enumerate(TRANSITIONS)
        for kind in ("prepare", "before", "after", "conditions", "unless")
        for name in names_in(row, kind)
    ],
)
def test_a_missing_callback_or_guard_is_noticed(recorder: Any, index: int, kind: str, name: str) -> None:
    """Without any single callback or guard of a row, the walk finds a difference."""
    rows = copy.deepcopy(TRANSITIONS)
    cast("Any", rows[index])[kind] = [other for other in names_in(rows[index], kind) if other != name]
    assert differences(recorder(rows)) != []


def test_the_annotations_are_the_triggers() -> None:
    """What Lifecycle annotates as a trigger is what the declaration adds, and nothing of that name is in the way."""
    annotated = {name for name, kind in Lifecycle.__annotations__.items() if kind is Trigger}
    assert annotated == set(TRIGGERS)
    assert annotated.isdisjoint(vars(Lifecycle))


def test_every_callback_and_guard_exists() -> None:
    """Each name in the declaration is a method of the model, and each guard one of its properties."""
    for row in TRANSITIONS:
        for name in callbacks_of(row):
            assert callable(getattr(Lifecycle, name, None)), name
        for guard in (row.get("conditions"), row.get("unless")):
            assert guard is None or isinstance(getattr(Lifecycle, guard), property), guard


def test_every_callback_is_declared() -> None:
    """A method of the model that takes an event is named by the declaration, or by every transition."""
    takes_event = {
        name
        for name, method in inspect.getmembers(Lifecycle, inspect.isfunction)
        if any(parameter.annotation is EventData for parameter in inspect.signature(method).parameters.values())
    }
    declared = {name for row in TRANSITIONS for name in callbacks_of(row)}
    assert takes_event - {"_note", "_announce"} <= declared


def test_the_values_are_those_of_existing_code() -> None:
    """Existing code compares 1 to 6, and shows the descriptions to people."""
    assert {state.name: state.value for state in State} == {
        "IDLE": 1,
        "CONNECTING": 2,
        "READY": 3,
        "BLOCKED": 4,
        "CLOSING": 5,
        "CLOSED": 6,
    }
    assert [DESCRIPTIONS[state] for state in State] == ["Idle", "Connecting", "Ready", "Blocked", "Closing", "Closed"]


def test_the_purposes_are_those_agreed() -> None:
    """Messages go out when ready, the client is closable when connected, and refuses when it is closing or closed."""
    assert {State.READY} == PUBLISHABLE
    assert {State.READY, State.BLOCKED} == CLOSABLE
    assert {State.CLOSING, State.CLOSED} == REFUSED
    assert {state for state, outcome in PUBLISH_OUTCOMES.items() if outcome == "goes out"} == PUBLISHABLE
    assert {state for state, outcome in PUBLISH_OUTCOMES.items() if outcome == "is refused"} <= REFUSED
    assert set(PUBLISH_OUTCOMES) == set(State)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("scheduled", [False, True])
def test_what_the_model_says_of_a_state(recorder: Any, state: State, scheduled: bool) -> None:
    """Publishable and closable are the state's; closed recovers only where an attempt is scheduled."""
    model = recorder(TRANSITIONS)
    model.state = state
    if scheduled:
        model._reconnect_timer = object()
    assert model.publishable is (state is State.READY)
    assert model.closable is (state in {State.READY, State.BLOCKED})
    assert model.recovers is (scheduled or state not in {State.CLOSING, State.CLOSED})
    assert model.awaitable is model.recovers
    model._persistent = True
    assert not model.awaitable


# Nothing but the declaration decides


def _sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.glob("*.py")):
        yield path.name, ast.parse(path.read_text())


def _is_state(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "state"


def _sets_state(node: ast.AST) -> bool:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign | ast.Delete):
        targets = list(node.targets)
    elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.AnnAssign) and node.value is not None):
        targets = [node.target]
    elif isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        named = {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
        return name == "set_state" or name.startswith("to_") or (name in {"setattr", "delattr"} and "state" in named)
    return any(_is_state(part) for target in targets for part in ast.walk(target) if not isinstance(part, ast.Load))


def state_setters(source: ast.Module) -> list[int]:
    """Find the lines that set a state past the declaration."""
    return [cast("Any", node).lineno for node in ast.walk(source) if _sets_state(node)]


def deciders(source: ast.Module) -> set[str]:
    """Name the functions that compare a state, innermost."""
    found = set()
    functions = [node for node in ast.walk(source) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in ast.walk(source):
        if isinstance(node, ast.Match) and _is_state(node.subject):
            parts: list[ast.AST] = [node.subject]
        elif isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        else:
            continue
        if any(_is_state(part) for part in parts):
            around = [function.name for function in functions if node in ast.walk(function)]
            found.add(around[-1] if around else "<module>")
    return found


def test_no_code_assigns_a_state() -> None:
    """The state is set by declared transitions alone: nowhere in the package is it assigned."""
    assert {name: lines for name, source in _sources() if (lines := state_setters(source))} == {}


def test_the_machine_stands_in_one_place() -> None:
    """One model, one machine: nobody else builds one."""
    users = {name for name, source in _sources() for node in ast.walk(source) if getattr(node, "id", "") == "Machine"}
    assert users <= {"lifecycle.py", "diagrams.py"}
    assert "lifecycle.py" in users


def test_no_code_decides_by_comparing_states() -> None:
    """States are compared by the properties of the documented API, by wait_for(), and by the model's questions."""
    allowed = {
        "client.py": {"idle", "connecting", "ready", "blocked", "closing", "closed", "wait_for"},
        "lifecycle.py": {"publishable", "closable", "recovers"},
    }
    for name, source in _sources():
        if name in {"client.py", "lifecycle.py"}:
            assert deciders(source) <= allowed[name], name
        else:
            assert deciders(source) == set(), name


@pytest.mark.parametrize(
    "code",
    [
        "self.state = 3",
        "lifecycle.state: State = State.READY",
        "a, client._lifecycle.state = 1, 2",
        "self.state += 1",
        "del self.state",
        "setattr(self, 'state', 3)",
        "machine.set_state('READY')",
        "model.to_ready()",
    ],
)
def test_the_scan_finds_what_sets_a_state(code: str) -> None:
    """Each way around the declaration is seen by the scan."""
    assert state_setters(ast.parse(code)) == [1]


@pytest.mark.parametrize(
    "code",
    [
        "if self.state == 3: pass",
        "x = State.READY is self.state",
        "ok = c.state in CLOSABLE",
        "match c.state:\n case 1: pass",
    ],
)
def test_the_scan_finds_what_compares_a_state(code: str) -> None:
    """Each way to ask a state by its value is seen by the scan."""
    indented = "\n ".join(code.splitlines())
    assert deciders(ast.parse(f"def decide():\n {indented}")) == {"decide"}
