"""What the declarations are made of: states and rows, in the terms of the `transitions` package.

Triggers, actions, guards and timeouts are given by name; the machine's model in `sprockets_amqp` implements them.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Declared:
    """A state: what it means, what is done on entering and leaving it, and how long it may last.

    Attributes:
        state: the state or substate.
        meaning: what it means, for people.
        on_enter: actions on entering, in order; a substate's come after its parent's.
        on_exit: actions on leaving; a substate's come before its parent's.
        timeout: the model's method that returns how many seconds the state may last.
        on_timeout: the trigger that is pulled then; leaving the state earlier cancels it.
        substates: the states that refine this one; the model is always in one of them.
    """

    state: enum.Enum
    meaning: str
    on_enter: Sequence[str] = ()
    on_exit: Sequence[str] = ()
    timeout: str = ""
    on_timeout: str = ""
    substates: Sequence["Declared"] = ()


@dataclass(frozen=True)
class Row:
    """A transition: what happened or was requested, in which states it applies, and where it leads.

    If there are several rows for a trigger and state, the first whose guard allows it applies.

    Attributes:
        trigger: the name of the event.
        source: the states in which it applies; a state stands for all its substates.
        dest: the state or substate that it leads to.
        conditions: the guard, a property of the model, that must be true.
        unless: the guard that must be false.
        before: an action that belongs to the event rather than to the state left or entered.
    """

    trigger: str
    source: Sequence[enum.Enum]
    dest: enum.Enum
    conditions: str = ""
    unless: str = ""
    before: str = ""
