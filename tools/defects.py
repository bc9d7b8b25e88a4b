"""Defects of the declaration: each part of it taken out or changed; and which of them the checker finds.

`python -m tools.defects` has the checker look for each, and keeps what it finds; it takes minutes.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sprockets_amqp.connection.lifecycle import Lifecycle
from sprockets_amqp.connection.outage import OutageModel
from sprockets_amqp.connection.renewal import RenewalModel
from sprockets_amqp.delivery.check import CheckModel
from sprockets_amqp.model import Model  # noqa: TC001 - get_type_hints() of a NamedTuple needs it
from sprockets_amqp.outbox.ledger import Ledger
from sprockets_amqp.outbox.model import OutboxModel
from sprockets_amqp.proof.explore import Graph, explore
from sprockets_amqp.proof.judge import Finding, found_at, found_at_last, not_reached_at_last, without_pause
from sprockets_amqp.proof.ledger import found_in_ledger
from sprockets_amqp.proof.reaction import Reactions
from sprockets_amqp.states import (
    CONNECTION,
    LEDGER,
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
from sprockets_amqp.states.properties import LEADS_TO, PACED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sprockets_amqp.states.events import Event
    from sprockets_amqp.states.world import World

#: What the checker found, by the defect; null: nothing.
FOUND: Final = Path(__file__).parent.parent / "tests/data/defects.json"


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
OF_THE_CONNECTION: Final = ("sends", "outage", "connected", "logged_in", "has_channel", "at_rest")
MARKS: Final[dict[type, tuple[str, ...]]] = {
    State: OF_THE_CONNECTION,
    Connecting: OF_THE_CONNECTION,
    Closing: OF_THE_CONNECTION,
    Closed: OF_THE_CONNECTION,
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


def first_finding(machines: Iterable[Machine]) -> Finding | None:
    """Return the first thing that does not hold of these machines; None if all does.

    It looks where less can happen first: without an outbox, without checks, without credentials that expire.
    """
    machines = tuple(machines)
    for given, allows in _PARTS:
        reactions = Reactions(machines)
        begins = [world for world in reactions.beginnings() if world.given is given]
        finding, graph = _first(reactions, begins, allows)
        if finding is not None:
            return finding
        claims = [each for claim in LEADS_TO for each in not_reached_at_last(graph, claim)]
        claims += [each for claim in PACED for each in without_pause(graph, claim)]
        # What nothing begins here may begin where more happens.
        finding = next((each for each in claims if each.path or each.cycle), None)
        if finding is not None:
            return finding
    reactions = Reactions(machines)
    finding, graph = _first(reactions, reactions.beginnings(), lambda _: True)
    return finding or next(found_at_last(graph), None)


def _first(reactions: Reactions, begins: list[World], allows: Callable[[Event], bool]) -> tuple[Finding | None, Graph]:
    found: list[Finding] = []

    def visit(graph: Graph, number: int) -> bool:
        found.extend(found_at(graph, number))
        return not found

    graph = explore(reactions, begins, allows, visit)
    return next(iter(found), None), graph


def lasts(event: Event) -> bool:
    """Return whether no credentials expire because of an event."""
    return callable(event.then) or not event.then.get("expires")


def _checks_nothing(event: Event) -> bool:
    return event.machine != "check"


#: Whether there is an outbox, and what happens.
_PARTS: Final[tuple[tuple[bool, Callable[[Event], bool]], ...]] = (
    (False, lambda event: lasts(event) and _checks_nothing(event)),
    (False, _checks_nothing),
    (False, lasts),
    (True, lambda event: lasts(event) and _checks_nothing(event)),
)


def found_by_the_checker(defect: Defect) -> str | None:
    """Have the checker look for a defect; return what does not hold because of it."""
    if defect.model is Ledger:
        finding = next(found_in_ledger(defect.machine), None)
    else:
        finding = first_finding(defect.machine if each.name == defect.machine.name else each for each in MACHINES)
    return finding.words if finding is not None else None


def read() -> dict[str, str | None]:
    """Return what the checker found, by the defect."""
    found: dict[str, str | None] = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    return found


def table() -> str:
    """Write a table of how many of the defects the checker finds, for each machine."""
    found, lines = read(), ["| machine | defects | found by the checker |", "| --- | --- | --- |"]
    for machine in (*MACHINES, LEDGER):
        labels = [str(defect) for defect in DEFECTS if defect.machine.name == machine.name]
        lines.append(f"| {machine.name} | {len(labels)} | {sum(bool(found.get(each)) for each in labels)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Have the checker look for every defect."""
    defects = DEFECTS
    with multiprocessing.Pool() as pool:
        found = pool.map(_find, range(len(defects)), chunksize=4)
    FOUND.write_text(json.dumps(dict(zip(map(str, defects), found, strict=True)), indent=1) + "\n")
    print(table(), end="")


def _find(number: int) -> str | None:
    # A defect cannot be pickled: actions and guards are looked up by name, but conditions are functions.
    return found_by_the_checker(DEFECTS[number])


if __name__ == "__main__":
    main()
