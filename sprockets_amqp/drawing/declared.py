"""The declaration as pictures and tables need it: its rows bundled into arrows, its names in words.

Unless a docstring says otherwise, a state is an outermost state or a substate.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from sprockets_amqp.states import CONNECTION, DESCRIPTIONS, MACHINES, Machine, Row, State

#: Marks a trigger that a timer may pull.
TIMER: Final = "◷"
#: The outermost state of each state of each machine.
OUTER: Final = {state: outer for machine in MACHINES for state, outer in machine.outer.items()}


@dataclass(frozen=True)
class Arrow:
    """All rows from one state to another: their triggers, each with its guard or an empty string.

    Attributes:
        happy: whether it is part of the path on which nothing goes wrong.
        timed: the triggers that a timer may pull, too.
    """

    source: enum.Enum
    dest: enum.Enum
    triggers: list[tuple[str, str]] = field(default_factory=list, compare=False)
    happy: bool = False
    timed: frozenset[str] = frozenset()

    @property
    def id(self) -> str:
        """Its id in documents: ``arrow-idle-connecting-opening-the-connection``."""
        return f"arrow-{slug(self.source)}-{slug(self.dest)}"

    @property
    def lines(self) -> list[str]:
        """Its triggers, one per line; a guard, in brackets, follows the triggers that it guards."""
        guards = sorted(dict.fromkeys(guard for _, guard in self.triggers), reverse=True)
        return [line for guard in guards for line in self._guarded(guard)]

    def _guarded(self, guard: str) -> Iterator[str]:
        for trigger, its_guard in self.triggers:
            if its_guard == guard:
                yield f"{TIMER} {trigger}" if trigger in self.timed else trigger
        if guard:
            yield f"[{guard}]"


def arrows(machine: Machine = CONNECTION) -> list[Arrow]:
    """Bundle the rows by source and dest, in the order of the declaration."""
    found: dict[tuple[enum.Enum, enum.Enum], Arrow] = {}
    for row in machine.rows:
        for source in row.source:
            declared = machine.declared.get(source)
            arrow = found.setdefault(
                (source, row.dest),
                Arrow(
                    source,
                    row.dest,
                    happy=declared is not None and declared.happy is row.dest,
                    timed=frozenset(timers(machine, source)),
                ),
            )
            arrow.triggers.append((row.trigger, guard(row)))
    return list(found.values())


def timers(machine: Machine, state: enum.Enum) -> set[str]:
    """Name the triggers that a timer may pull while the machine is in the state."""
    outer = machine.outer.get(state)
    around = {state, outer} | ({each.state for each in machine.declared[state].substates} if outer else set())
    return {
        each.timeout.trigger for known, each in machine.declared.items() if known in around and each.timeout is not None
    }


def guard(row: Row) -> str:
    """Say when the row applies: ``if blocking``, ``unless blocking``, or the empty string if it always does."""
    if row.conditions:
        return f"if {row.conditions}"
    return f"unless {row.unless}" if row.unless else ""


def name(state: enum.Enum) -> str:
    """Name a documented state as the client's properties do, and any other by its value."""
    return state.name.lower() if isinstance(state, State) else str(state.value)


def label(state: enum.Enum) -> str:
    """Name a state as existing code shows it."""
    return DESCRIPTIONS[state] if isinstance(state, State) else name(state)


def substate_name(state: enum.Enum) -> str:
    """Name a substate; the empty string for a documented state."""
    return "" if isinstance(state, State) else name(state)


def full_name(state: enum.Enum) -> str:
    """Name the state and, in brackets, the substate: ``closed (retrying)``."""
    outer = OUTER.get(state, state)
    return name(state) if state is outer else f"{name(outer)} ({name(state)})"


def slug(state: enum.Enum) -> str:
    """Name the state in identifiers: ``closed-retrying``."""
    return full_name(state).replace(" (", "-").replace(" ", "-").rstrip(")")


def outcome(machine: Machine, state: enum.Enum) -> str:
    """Say what usually becomes of a publish in the state or its substates; empty if the machine does not say."""
    declared = machine.declared[state]
    return " or ".join(dict.fromkeys(each.publish for each in declared.substates or (declared,) if each.publish))
