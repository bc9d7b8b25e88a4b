"""A model of a declared machine: it pulls triggers, limits how long a state may last, and leads other machines.

If states have substates, the machine is a `transitions.extensions.HierarchicalMachine`: the model's states are then the
documented ones, and a row may name them. It takes some 50 µs a trigger, and triggers are rare; a `transitions.Machine`,
for states without substates, takes 10.
"""

import asyncio
import enum
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import transitions
from transitions import EventData, MachineError
from transitions.extensions import HierarchicalMachine
from transitions.extensions.nesting import NestedState

from .bounded_log import named
from .states import Action, Declared, Follow, Machine, PublishOutcome, Row

LOGGER = logging.getLogger(__name__)


class Trigger(Protocol):
    """A method that the declaration adds to the model; it returns False if no guard let a row apply."""

    def __call__(self, **facts: Any) -> bool:
        """Pull it. Raises `transitions.MachineError` in a state that has no row for it."""


#: What a declared timeout returns: how many seconds the state may last, and the reason to give when they are over; or
#: what returns the error to give then.
Timeout = tuple[float, str | Callable[[], Exception]]


class _State(NestedState):
    # The default, an underscore, occurs in the names of states.
    separator = "."


class _Hierarchy(HierarchicalMachine):
    state_cls = _State


class Model:
    """The object on which triggers are pulled, and on which declared actions, guards and timeouts are looked up."""

    #: What it runs.
    machine: ClassVar[Machine]
    #: Only the declared transitions set it.
    state: enum.Enum

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        _calm_transitions_log()
        machine = self.machine
        self._loop = loop
        self._ignored = named(LOGGER, name)
        #: What will happen unless the state is left first.
        self._scheduled: dict[enum.Enum, list[asyncio.Handle]] = {}
        #: The state that the last transition left, or is about to leave.
        self._previous = machine.initial
        self._followers: list[tuple[frozenset[enum.Enum], Model, Follow]] = []
        self._known = {row.trigger: _inner(machine, row.trigger) for row in machine.rows}
        kind = _Hierarchy if any(each.substates for each in machine.states) else transitions.Machine
        self._machinery = kind(
            model=self,
            states=[self._state(each) for each in machine.states],
            transitions=[_transition(row) for row in machine.rows],
            initial=machine.initial,
            auto_transitions=False,
            send_event=True,
            before_state_change="note_change",
            after_state_change="announce_change",
        )

    @property
    def declared(self) -> Declared:
        """What is declared about the present state."""
        return self.machine.declared[self.state]

    def made(self, outcome: PublishOutcome) -> PublishOutcome:
        """Return what the present state makes of a publish that would have this outcome."""
        return self.machine.made(self.state, outcome)

    def knows(self, trigger: str) -> bool:
        """Return whether the present state has a row for the trigger."""
        return self.state in self._known.get(trigger, ())

    def feed(
        self, trigger: Trigger, reason: str | Callable[[], Exception] = "", cause: BaseException | None = None
    ) -> bool:
        """Pull the trigger for something that happened; return False if this state has no row for it."""
        if not isinstance(reason, str):
            cause = reason()
            reason = str(cause)
        try:
            return trigger(reason=reason, cause=cause)
        except MachineError as error:
            self._ignored.debug("ignored: %s", error)
            return False

    def schedule(self, state: enum.Enum, delay: float, trigger: Trigger, *facts: Any) -> None:
        """Pull a trigger after ``delay`` seconds, unless the state is left first: actions schedule, they never pull."""
        handle: asyncio.Handle
        if delay:
            handle = self._loop.call_later(delay, self.feed, trigger, *facts)
        else:
            handle = self._loop.call_soon(self.feed, trigger, *facts)
        self._scheduled.setdefault(state, []).append(handle)

    def lead(self, *followers: "Model") -> None:
        """Have these follow this machine as they declare, in this order."""
        for follower in followers:
            for follow in follower.machine.follows:
                self._followers.append((frozenset(self.machine.marked(follow.mark)), follower, follow))

    def watch(self, on_begin: Callable[[EventData], None], on_end: Callable[[EventData], None]) -> None:
        """Call these with each trigger that is pulled: before its rows are tried, and when all that it does is done.

        The first is not called where the state has no row for the trigger; it may be called once more for each state
        around the present one.
        """
        self._machinery.prepare_event.append(on_begin)
        self._machinery.finalize_event.append(on_end)

    def call_all_off(self) -> None:
        """Cancel everything that was scheduled."""
        for state in tuple(self._scheduled):
            self._call_off(state)

    # What the machine does at every transition

    def note_change(self, _event: EventData) -> None:
        """Keep the state that is left."""
        self._previous = self.state

    def announce_change(self, event: EventData) -> None:
        """Pull the triggers of the machines that follow this one."""
        for states, follower, follow in self._followers:
            is_marked = self.state in states
            trigger = follow.entered if is_marked else follow.left
            if is_marked is not (self._previous in states) and trigger:
                follower.feed(getattr(follower, trigger), event.kwargs.get("reason", ""), event.kwargs.get("cause"))

    # How the declaration becomes that of `transitions`

    def _state(self, declared: Declared) -> dict[str, Any]:
        timeout = [functools.partial(self._limit, declared)] if declared.timeout else []
        state = {
            "name": declared.state,
            "on_enter": [*timeout, *_names(declared.on_enter)],
            "on_exit": [*_names(declared.on_exit), functools.partial(self._call_off, declared.state)],
        }
        children = [self._state(substate) for substate in declared.substates]
        return {**state, "children": children} if children else state

    def _limit(self, declared: Declared, event: EventData) -> None:
        assert declared.timeout is not None
        seconds, reason = getattr(self, declared.timeout.name)(event)
        self.schedule(declared.state, seconds, self._due(declared.timeout.trigger), reason)

    def _due(self, name: str) -> Trigger:
        """Return what pulls the trigger of this name when a timeout expires."""
        trigger: Trigger = getattr(self, name)
        return trigger

    def _call_off(self, state: enum.Enum, _event: EventData | None = None) -> None:
        for handle in self._scheduled.pop(state, ()):
            handle.cancel()


def _transition(row: Row) -> dict[str, Any]:
    return {
        "trigger": row.trigger,
        "source": list(row.source),
        "dest": row.dest,
        "conditions": row.conditions or None,
        "unless": row.unless or None,
        "before": row.before.name if row.before else None,
    }


def _names(actions: Sequence[Action]) -> list[str]:
    return [action.name for action in actions]


def _inner(machine: Machine, trigger: str) -> frozenset[enum.Enum]:
    sources = machine.sources(trigger)
    return frozenset(each for each in machine.lasting if each in sources or machine.outer[each] in sources)


def _calm_transitions_log() -> None:
    # It logs each callback at INFO; this package logs one line per transition. An application's own level wins.
    logger = logging.getLogger("transitions")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
