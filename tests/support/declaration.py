"""What is declared, read off the declaration in the tests' own way, and how documents name it."""

import enum

from sprockets_amqp.drawing import declared
from sprockets_amqp.states import CONNECTION, DOCUMENTED, MACHINES, Declared, State

#: Every state, and every substate.
DECLARED: list[Declared] = [each for state in CONNECTION.states for each in (state, *state.substates)]
#: Those of them that are boxes in the picture, rather than frames around boxes.
BOXES: list[enum.Enum] = [each.state for each in DECLARED if not each.substates]
FRAMES: list[State] = [DOCUMENTED[each.state] for each in DECLARED if each.substates]

#: Every arrow that the declaration asks for, with its trigger and guard.
EXPECTED = {(source, row.dest, row.trigger, declared.guard(row)) for row in CONNECTION.rows for source in row.source}


def identifier(state: enum.Enum) -> str:
    """What documents call the state: a substate after its state."""
    own = state.name if isinstance(state, State) else f"{DOCUMENTED[state].name}-{state.value}"
    return own.lower().replace(" ", "-")


#: The outermost state of each substate of every machine.
OUTER: dict[enum.Enum, enum.Enum] = {state: outer for machine in MACHINES for state, outer in machine.outer.items()}


def cell(state: enum.Enum) -> str:
    """What tables call the state."""
    outer = OUTER.get(state, state)
    named = outer.name.lower() if isinstance(outer, State) else outer.value
    return f"`{named}`" if state is outer else f"`{named}` {state.value}"


def timed(source: enum.Enum) -> set[str]:
    """What a timer pulls while the connection is in the state, be it in its state's time or in a substate's."""
    return {
        each.timeout.trigger
        for each in DECLARED
        if each.timeout and source in {each.state, DOCUMENTED[each.state], *(sub.state for sub in each.substates)}
    }
