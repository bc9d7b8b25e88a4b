"""The declaration as Markdown tables."""

import enum
from collections.abc import Iterable, Sequence

from sprockets_amqp.states import CONNECTION, OUTAGE, Action, Declared, Machine, PublishOutcome, Row

from .declared import OUTER, guard, name, outcome


def states_table(machine: Machine = CONNECTION) -> str:
    """Write a table of the outermost states: meaning, and what becomes of a publish."""
    return _filled(
        ("state", "value", "meaning", "a publish"),
        (
            (_code(each.state), _value(each.state), each.meaning, outcome(machine, each.state))
            for each in machine.states
        ),
    )


def substates_table(machine: Machine = CONNECTION) -> str:
    """Write a table of the substates: meaning, and what becomes of a publish."""
    return _filled(
        ("state", "substate", "meaning", "a publish"),
        (
            (_code(outer.state), name(each.state), each.meaning, outcome(machine, each.state))
            for outer in machine.states
            for each in outer.substates
        ),
    )


def rows_table(machine: Machine = CONNECTION) -> str:
    """Write a table of the transitions; ``does`` lists actions that belong to the event alone."""
    return _filled(("trigger", "from", "to", "guard", "does"), map(_row, machine.rows))


def actions_table(machine: Machine = CONNECTION) -> str:
    """Write a table of the actions on entering and leaving each state, and how long it may last."""
    return _filled(
        ("state", "on entry", "on exit", "timer"),
        (_actions(each) for each in machine.declared.values() if each.on_enter or each.on_exit or each.timeout),
    )


def follows_table(machine: Machine) -> str:
    """Write a table of how the machine follows the connection."""
    return _filled(
        ("trigger", "is pulled when the connection", "these states"),
        (
            (f"`{trigger}`", verb, ", ".join(map(_code, CONNECTION.marked(follow.mark))))
            for follow in machine.follows
            for trigger, verb in ((follow.entered, "enters"), (follow.left, "leaves"))
            if trigger
        ),
    )


def makes_table(machine: Machine) -> str:
    """Write a table of what each state makes of a publish that would have another outcome."""
    usual: tuple[PublishOutcome, ...] = ("goes out", "waits", "is refused")
    return _table(
        (machine.name, *(f"usually {each}" for each in usual)),
        ((_code(state), *(machine.made(state, each) for each in usual)) for state in machine.lasting),
    )


def outcomes_table(connection: Machine = CONNECTION) -> str:
    """Write a table of what becomes of a publish, by the state of the outage, and whether what waits goes out."""
    return _table(
        ("state", *map(name, OUTAGE.lasting), "what waits"),
        (
            (
                _code(state),
                *(OUTAGE.made(outage, declared.publish) for outage in OUTAGE.lasting),
                "goes out" if "sends" in declared.marks else "stays in line",
            )
            for state, declared in connection.declared.items()
            if declared.publish
        ),
    )


def _value(state: enum.Enum) -> str:
    return str(state.value) if isinstance(state.value, int) else ""


def _row(row: Row) -> tuple[str, ...]:
    sources = ", ".join(map(_code, row.source))
    word, _, asked = guard(row).partition(" ")
    when = f"{word} `{asked}`" if asked else ""
    return f"`{row.trigger}`", sources, _code(row.dest), when, row.before.words if row.before else ""


def _actions(declared: Declared) -> tuple[str, ...]:
    timer = f"`{declared.timeout.trigger}` after {declared.timeout.words}" if declared.timeout else ""
    return _code(declared.state), _words(declared.on_enter), _words(declared.on_exit), timer


def _words(actions: Iterable[Action]) -> str:
    return ", ".join(action.words for action in actions)


def _code(state: enum.Enum) -> str:
    """Name a state, followed by the substate, if it is one."""
    outer = OUTER.get(state, state)
    return f"`{name(outer)}`" + ("" if state is outer else f" {name(state)}")


def _filled(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table, leaving out empty columns."""
    columns = list(zip(head, *rows, strict=True))
    head, *rows = zip(*([column for column in columns if any(column[1:])] or columns), strict=True)
    return _table(head, rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    ruled = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in ruled)
