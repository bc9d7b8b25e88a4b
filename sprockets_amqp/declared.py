"""The declaration as diagrams and tables need it: its rows bundled into arrows, its names in words."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from .states import PUBLISH_OUTCOMES, REFUSED, TRANSITIONS, Row, State

#: What the declared callbacks do, for people; tests/test_diagrams.py holds the names equal to the declaration's.
PHRASES: Final = {
    "_cancel_reconnect": "cancels the scheduled attempt",
    "_close_connection": "closes the connection",
    "_drain": "waits for the unconfirmed, within a limit",
    "_drop_connection": "lets go of the connection",
    "_end_closing": "ends the limit for closing",
    "_end_connecting": "ends the limit for connecting",
    "_end_outage": "ends the outage",
    "_forget_alarm": "forgets the alarm",
    "_forget_flow": "forgets that flow was stopped",
    "_open_channel": "opens a channel",
    "_open_connection": "opens a connection, within a limit",
    "_refuse_waiting": "refuses what waits",
    "_remember_alarm": "remembers the alarm",
    "_remember_failure": "tells of the persistent failure",
    "_remember_flow": "remembers that flow was stopped",
    "_reopen_channel": "opens a channel again, backing off",
    "_schedule_reconnect": "schedules the next attempt",
    "_send_waiting": "sends what waits, in order",
    "_settle_unconfirmed": "settles the unconfirmed",
    "_watch_outage": "starts the clock of the outage",
}

#: The way to ready that everybody hopes for.
HAPPY: Final = frozenset({(State.IDLE, State.CONNECTING), (State.CONNECTING, State.READY)})


@dataclass(frozen=True)
class Arrow:
    """All rows that lead from one state to another; each trigger stands with its guard, or with an empty one."""

    source: State
    dest: State
    triggers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Name the arrow in documents: ``arrow-idle-connecting``."""
        return f"arrow-{name(self.source)}-{name(self.dest)}"

    @property
    def happy(self) -> bool:
        """Whether it is on the way to ready that everybody hopes for."""
        return (self.source, self.dest) in HAPPY

    @property
    def lines(self) -> list[str]:
        """Write one trigger a line; a guard stands, in brackets, below the triggers that it guards."""
        guards = sorted(dict.fromkeys(guard for _, guard in self.triggers), reverse=True)
        return [line for guard in guards for line in self._guarded(guard)]

    def _guarded(self, guard: str) -> Iterator[str]:
        yield from (trigger for trigger, its_guard in self.triggers if its_guard == guard)
        if guard:
            yield f"[{guard}]"


def arrows() -> list[Arrow]:
    """Bundle the rows that may change the state by source and dest, in the order of the declaration."""
    found: dict[tuple[State, State], Arrow] = {}
    for row in TRANSITIONS:
        dest = row["dest"]
        if dest is None:
            continue
        for source in row["source"]:
            arrow = found.setdefault((source, dest), Arrow(source, dest))
            arrow.triggers.append((row["trigger"], guard(row)))
    return list(found.values())


def guard(row: Row) -> str:
    """Say when the row applies: ``if blocking``, ``unless blocking``, or nothing where it always does."""
    if "conditions" in row:
        return f"if {row['conditions']}"
    return f"unless {row['unless']}" if "unless" in row else ""


def callbacks(row: Row) -> list[str]:
    """List the names of what the row calls, in the order in which it does."""
    named = [row.get("prepare", []), row.get("before", []), row.get("after", [])]
    return [callback for names in named for callback in ([names] if isinstance(names, str) else names)]


def name(state: State) -> str:
    """Name the state as properties of the client and identifiers in documents do."""
    return state.name.lower()


def outcome(state: State) -> str:
    """Say what becomes of a publish in this state."""
    usual = PUBLISH_OUTCOMES[state]
    return f"{usual} or is refused" if state in REFUSED and usual == "waits" else usual


def meanings() -> dict[State, str]:
    """Read what the states mean from the comments of the declaration, where they are documented."""
    found = re.findall(r"((?:^ *#: .*\n)+) *(\w+) = ", inspect.getsource(State), re.MULTILINE)
    return {State[member]: " ".join(re.findall(r"#: (.*)", comment)).replace("``", "`") for comment, member in found}
