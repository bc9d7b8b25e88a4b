"""A model of a declared machine: it pulls triggers, and limits how long a state may last.

If states have substates, the machine is a `transitions.extensions.HierarchicalMachine`: the model's states are then the
documented ones, and a row may name them. It takes some 50 µs a trigger, and triggers are rare; a `transitions.Machine`,
for states without substates, takes 10.
"""

import asyncio
import enum
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from transitions import EventData, Machine, MachineError
from transitions.extensions import HierarchicalMachine
from transitions.extensions.nesting import NestedState

from .bounded_log import named
from .states import Declared, Row

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

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._ignored = named(LOGGER, name)
        #: What will happen unless the state is left first.
        self._scheduled: dict[enum.Enum, list[asyncio.Handle]] = {}

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

    def call_all_off(self) -> None:
        """Cancel everything that was scheduled."""
        for state in tuple(self._scheduled):
            self._call_off(state)

    def _run(self, states: Sequence[Declared], rows: Sequence[Row], initial: enum.Enum, **options: Any) -> None:
        """Build the declared machine; ``options`` are those of `transitions.Machine`."""
        _calm_transitions_log()
        machine = _Hierarchy if any(declared.substates for declared in states) else Machine
        machine(
            model=self,
            states=[self._state(declared) for declared in states],
            transitions=[_transition(row) for row in rows],
            initial=initial,
            auto_transitions=False,
            send_event=True,
            **options,
        )

    def _state(self, declared: Declared) -> dict[str, Any]:
        timeout = [functools.partial(self._limit, declared)] if declared.timeout else []
        state = {
            "name": declared.state,
            "on_enter": [*timeout, *declared.on_enter],
            "on_exit": [*declared.on_exit, functools.partial(self._call_off, declared.state)],
        }
        children = [self._state(substate) for substate in declared.substates]
        return {**state, "children": children} if children else state

    def _limit(self, declared: Declared, event: EventData) -> None:
        seconds, reason = getattr(self, declared.timeout)(event)
        self.schedule(declared.state, seconds, self._due(declared.on_timeout), reason)

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
        "before": row.before or None,
    }


def _calm_transitions_log() -> None:
    # It logs each callback at INFO; this package logs one line per transition. An application's own level wins.
    logger = logging.getLogger("transitions")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
