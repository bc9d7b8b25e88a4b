"""What the declarations are made of: machines, their states and rows, in the terms of the `transitions` package.

Triggers, actions, guards and timeouts are declared by name; the machine's model in `sprockets_amqp` implements them.
"""

import enum
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

#: What becomes of a publish: it goes out, waits for a better state, is refused, or is stored in the outbox.
PublishOutcome = Literal["goes out", "waits", "is refused", "is stored"]


class Name(enum.Enum):
    """The names of states. Looking one up takes no call of a Python function, unlike with other enumerations."""

    __hash__ = object.__hash__


class Action(NamedTuple):
    """What is done: the model's method, and what it does, in words."""

    name: str
    words: str


class Limit(NamedTuple):
    """How long a state may last; leaving it earlier cancels the timer.

    It names the model's method that returns the seconds, says what they are, and names the trigger that is pulled then.
    """

    name: str
    words: str
    trigger: str


class Delay(Limit):
    """How long a state lasts if nothing else ends it: what comes next is due then."""

    __slots__ = ()


@dataclass(frozen=True)
class Declared:
    """A state: everything that is known about it.

    Attributes:
        state: the state or substate.
        meaning: what it means, in words.
        on_enter: actions on entering, in order; a substate's come after its parent's.
        on_exit: actions on leaving; a substate's come before its parent's.
        timeout: how long it may last.
        publish: what becomes of a publish in it. Only the connection's states say so.
        makes: what it makes of a publish that would have another outcome; what is not listed is left alone.
        marks: the sets that it belongs to: the machine's docstring says what they mean.
        happy: the state that follows when nothing goes wrong.
        substates: the states that refine this one; the model is always in one of them.
    """

    state: enum.Enum
    meaning: str
    on_enter: Sequence[Action] = ()
    on_exit: Sequence[Action] = ()
    timeout: Limit | None = None
    publish: PublishOutcome | None = None
    makes: Mapping[PublishOutcome, PublishOutcome] = field(default_factory=dict)
    marks: Sequence[str] = ()
    happy: enum.Enum | None = None
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
    before: Action | None = None


@dataclass(frozen=True)
class Follow:
    """What a machine does when the connection enters or leaves the states with a mark: it pulls a trigger of its own.

    Attributes:
        mark: the mark of states of the connection.
        entered: the trigger when a state with it is entered from one without; empty: none.
        left: the trigger when a state without it is entered from one with it; empty: none.
    """

    mark: str
    entered: str = ""
    left: str = ""


class Ignore(NamedTuple):
    """Events that may happen in some states, and change nothing there: which, where, and why that is right."""

    triggers: Sequence[str]
    source: Sequence[enum.Enum]
    why: str


@dataclass(frozen=True)
class Machine:
    """A declared machine; everything that reads the declaration takes one.

    Attributes:
        name: what it is about.
        states: its outermost states, each with its substates.
        rows: its transitions.
        initial: the state in which it begins.
        follows: how it follows the connection, in order.
        ignores: the events that may happen where there is no row for them; all others cannot happen there.
    """

    name: str
    states: Sequence[Declared]
    rows: Sequence[Row]
    initial: enum.Enum
    follows: Sequence[Follow] = ()
    ignores: Sequence[Ignore] = ()

    @functools.cached_property
    def declared(self) -> Mapping[enum.Enum, Declared]:
        """The declaration of each state, followed by those of its substates."""
        return {each.state: each for outer in self.states for each in (outer, *outer.substates)}

    @functools.cached_property
    def outer(self) -> Mapping[enum.Enum, enum.Enum]:
        """The outermost state of each substate; each other state is its own."""
        return {each.state: outer.state for outer in self.states for each in (outer, *outer.substates)}

    @functools.cached_property
    def lasting(self) -> Sequence[enum.Enum]:
        """The states that the model can be in: those without substates."""
        return tuple(state for state, declared in self.declared.items() if not declared.substates)

    def marked(self, mark: str) -> tuple[enum.Enum, ...]:
        """Return the states with the mark."""
        return tuple(state for state, declared in self.declared.items() if mark in declared.marks)

    def made(self, state: enum.Enum, outcome: PublishOutcome) -> PublishOutcome:
        """Return what a state makes of a publish that would have this outcome."""
        return self.declared[state].makes.get(outcome, outcome)

    def sources(self, trigger: str) -> tuple[enum.Enum, ...]:
        """Return the states for which the trigger has a row, as the rows name them."""
        return tuple(dict.fromkeys(source for row in self.rows if row.trigger == trigger for source in row.source))
