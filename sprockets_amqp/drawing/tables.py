"""The declaration as Markdown tables."""

import enum
from collections.abc import Iterable, Sequence

from sprockets_amqp.states import (
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
    SENDING,
    STARTED,
    TRANSITIONS,
    Declared,
    Outage,
    PublishOutcome,
    Row,
    State,
)

from .declared import PHRASES, TIMES, guard, name, outcome, states


def states_table() -> str:
    """Write a table of the documented states: value, meaning, and what becomes of a publish."""
    documented = {state: each for state, each in states().items() if isinstance(state, State)}
    return _table(
        ("state", "value", "meaning", "a publish"),
        ((_code(state), str(state.value), each.meaning, outcome(state)) for state, each in documented.items()),
    )


def substates_table() -> str:
    """Write a table of the substates: meaning, and what becomes of a publish."""
    refined = {state: each for state, each in states().items() if not isinstance(state, State)}
    return _table(
        ("state", "substate", "meaning", "a publish"),
        ((_code(DOCUMENTED[state]), name(state), each.meaning, outcome(state)) for state, each in refined.items()),
    )


def table() -> str:
    """Write a table of the connection's transitions; ``does`` lists actions that belong to the event alone."""
    return _rows_table(TRANSITIONS)


def actions_table() -> str:
    """Write a table of the actions on entering and leaving each state, and how long it may last."""
    return _actions_table(states().values())


def outages_table() -> str:
    """Write a table of the outage's states."""
    return _table(("outage", "meaning"), ((_code(each.state), each.meaning) for each in OUTAGE_STATES))


def outage_actions_table() -> str:
    """Write a table of the actions on entering and leaving each state of the outage, and how long it may last."""
    return _actions_table(OUTAGE_STATES)


def outage_table() -> str:
    """Write a table of the outage's transitions."""
    return _rows_table(OUTAGE_TRANSITIONS)


def renewals_table() -> str:
    """Write a table of the renewal's states."""
    return _table(("renewal", "meaning"), ((_code(each.state), each.meaning) for each in RENEWAL_STATES))


def renewal_actions_table() -> str:
    """Write a table of the actions on entering and leaving each state of the renewal, and how long it may last."""
    return _actions_table(RENEWAL_STATES)


def renewal_table() -> str:
    """Write a table of the renewal's transitions."""
    return _rows_table(RENEWAL_TRANSITIONS)


def outboxes_table() -> str:
    """Write a table of the outbox's states."""
    return _table(("outbox", "meaning"), ((_code(each.state), each.meaning) for each in OUTBOX_STATES))


def outbox_actions_table() -> str:
    """Write a table of the actions on entering and leaving each state of the outbox, and how long it may last."""
    return _actions_table(OUTBOX_STATES)


def outbox_table() -> str:
    """Write a table of the outbox's transitions."""
    return _rows_table(OUTBOX_TRANSITIONS)


def outbox_outcomes_table() -> str:
    """Write a table of what each state of the outbox changes about what becomes of a publish."""
    usual: tuple[PublishOutcome, ...] = ("goes out", "waits", "is refused")
    return _table(
        ("outbox", *(f"usually {each}" for each in usual)),
        ((_code(state), *(made[each] for each in usual)) for state, made in OUTBOX_OUTCOMES.items()),
    )


def started() -> str:
    """List the states of the connection in which the outbox is open."""
    return ", ".join(_code(state) for state in PUBLISH_OUTCOMES if state in STARTED)


def logged_in() -> str:
    """List the states of the connection in which credentials are renewed."""
    return ", ".join(_code(state) for state in PUBLISH_OUTCOMES if state in LOGGED_IN)


def outage_began() -> str:
    """List the states of the connection that begin an outage."""
    return ", ".join(_code(state) for state in PUBLISH_OUTCOMES if state in OUT)


def outcomes_table() -> str:
    """Write a table of what becomes of a publish, by the state of the outage, and whether what waits goes out."""
    return _table(
        ("state", *(name(outage) for outage in Outage), "what waits"),
        (
            (_code(state), *(found[outage] for outage in Outage), "goes out" if state in SENDING else "stays in line")
            for state, found in PUBLISH_OUTCOMES.items()
        ),
    )


def _rows_table(rows: Iterable[Row]) -> str:
    return _filled(("trigger", "from", "to", "guard", "does"), map(_row, rows))


def _row(row: Row) -> tuple[str, ...]:
    sources = ", ".join(map(_code, row.source))
    word, _, asked = guard(row).partition(" ")
    when = f"{word} `{asked}`" if asked else ""
    return f"`{row.trigger}`", sources, _code(row.dest), when, PHRASES.get(row.before, row.before)


def _actions_table(declared: Iterable[Declared]) -> str:
    return _filled(
        ("state", "on entry", "on exit", "timer"),
        (_actions(each) for each in declared if each.on_enter or each.on_exit or each.timeout),
    )


def _actions(declared: Declared) -> tuple[str, ...]:
    entry, leave = (
        ", ".join(PHRASES.get(each, each) for each in names) for names in (declared.on_enter, declared.on_exit)
    )
    timer = f"`{declared.on_timeout}` after {TIMES.get(declared.timeout, declared.timeout)}" if declared.timeout else ""
    return _code(declared.state), entry, leave, timer


def _code(state: enum.Enum) -> str:
    """Name a state, followed by the substate, if it is one."""
    documented = DOCUMENTED.get(state, state)
    return f"`{name(documented)}`" + ("" if state is documented else f" {name(state)}")


def _filled(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table, leaving out empty columns."""
    columns = list(zip(head, *rows, strict=True))
    head, *rows = zip(*([column for column in columns if any(column[1:])] or columns), strict=True)
    return _table(head, rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    ruled = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in ruled)
