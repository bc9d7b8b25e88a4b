"""The words that the declarations are written in: states and rows, as the `transitions` package knows them.

A trigger, an action, a guard and a timeout are names: of what the model in `sprockets_amqp/lifecycle.py` does.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Declared:
    """A state: what it means, what is done whenever it is entered and left, and how long it may last.

    Attributes:
        state: the state, or one of the substates that refine it.
        meaning: what it means, for people.
        on_enter: actions on the way in, in their order; a substate's come after its state's.
        on_exit: actions on the way out; a substate's come before its state's.
        timeout: the model's method that says for how many seconds the state may last.
        on_timeout: the trigger that is pulled then. Leaving the state earlier calls it off.
        substates: the states that refine this one; it is never without one of them.
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
    """A transition: what happened or is asked, in which states, and where it leads.

    Of several rows for one trigger and state the first applies whose guard lets it.

    Attributes:
        trigger: the name of the event.
        source: the states in which it is known; a state stands for all of its substates.
        dest: the state or substate that it leads to.
        conditions: the guard, a property of the model, that has to be true.
        unless: the guard that has to be false.
        before: the action that belongs to the event, rather than to a state that it leaves or enters.
    """

    trigger: str
    source: Sequence[enum.Enum]
    dest: enum.Enum
    conditions: str = ""
    unless: str = ""
    before: str = ""
