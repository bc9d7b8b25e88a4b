"""The declared machines as W3C SCXML (https://www.w3.org/TR/scxml/): other engines and tools read it."""

import enum
from collections.abc import Iterable, Iterator
from typing import Final
from xml.sax.saxutils import quoteattr

from sprockets_amqp.states import CONNECTION, MACHINES, Action, Declared, Limit, Machine, Row

from .declared import slug

HEAD: Final = """\
<?xml version="1.0" encoding="UTF-8"?>
<!-- Generated from states/: change states/, not this file. Guards are data, 'yes' or 'no'; times are data, too. Each
     machine has a region; the connection raises the events of those that follow. Actions are logged, and pull nothing:
     outbox.backlog_began, with which the outbox learns of what one of them stores, is not in here. -->
<scxml xmlns="http://www.w3.org/2005/07/scxml" version="1.0" datamodel="ecmascript" name="sprockets_amqp"
       initial="machines">
"""


def scxml() -> str:
    """Write all machines as one document: parallel regions, with the connection first.

    An event is named after its machine: ``connection.connect``. Each state lists the transitions of the state around
    it, too: what the other machines follow depends on where the connection comes from.
    """
    return HEAD + "".join(
        f"{line}\n"
        for line in (
            "  <datamodel>",
            *(f"    <data id={quoteattr(guard)} expr={quoteattr(_text('no'))}/>" for guard in guards()),
            *(f"    <data id={quoteattr(name)} expr={quoteattr(_text('1s'))}/>" for name in _times()),
            "  </datamodel>",
            '  <parallel id="machines">',
            *(f"    {line}" for machine in MACHINES for line in _region(machine)),
            "  </parallel>",
            "</scxml>",
        )
    )


def guards() -> list[str]:
    """Name every guard, in alphabetical order."""
    rows = [row for machine in MACHINES for row in machine.rows]
    return sorted({guard for row in rows for guard in (row.conditions, row.unless) if guard})


def identifier(machine: Machine, state: enum.Enum) -> str:
    """Name a state in the document: ``connection_closed_retrying``."""
    return f"{machine.name}_{slug(state).replace('-', '_')}"


def _times() -> list[str]:
    limits = [each.timeout for machine in MACHINES for each in machine.declared.values() if each.timeout]
    return sorted({limit.name for limit in limits})


def _region(machine: Machine) -> Iterator[str]:
    yield f"<state id={quoteattr(machine.name)} initial={quoteattr(identifier(machine, machine.initial))}>"
    for each in machine.states:
        yield from (f"  {line}" for line in _state(machine, each))
    yield "</state>"


def _state(machine: Machine, declared: Declared) -> Iterator[str]:
    name = identifier(machine, declared.state)
    first = f" initial={quoteattr(identifier(machine, declared.substates[0].state))}" if declared.substates else ""
    yield f"<state id={quoteattr(name)}{first}>"
    timer, stop = _timer(name, machine, declared.timeout)
    yield from _content("onentry", [*timer, *_logs(declared.on_enter)])
    yield from _content("onexit", [*_logs(declared.on_exit), *stop])
    for each in declared.substates:
        yield from (f"  {line}" for line in _state(machine, each))
    if not declared.substates:
        for row in _rows(machine, declared.state):
            yield from (f"  {line}" for line in _transition(machine, declared.state, row))
    yield "</state>"


def _rows(machine: Machine, state: enum.Enum) -> list[Row]:
    """Return the rows for a state, with those of the state around it behind its own."""
    around = dict.fromkeys((state, machine.outer[state]))
    return [row for each in around for row in machine.rows if each in row.source]


def _transition(machine: Machine, source: enum.Enum, row: Row) -> Iterator[str]:
    asked, answer = (row.conditions, "yes") if row.conditions else (row.unless, "no")
    condition = f" cond={quoteattr(f'{asked} == {_text(answer)}')}" if asked else ""
    head = f"transition event={quoteattr(f'{machine.name}.{row.trigger}')}{condition}"
    head += f" target={quoteattr(identifier(machine, row.dest))}"
    follows = _follows(source, row.dest) if machine is CONNECTION else []
    content = [*_logs([row.before] if row.before else []), *(f"<raise event={quoteattr(each)}/>" for each in follows)]
    yield from _content(head, content) if content else (f"<{head}/>",)


def _follows(source: enum.Enum, dest: enum.Enum) -> list[str]:
    """Name the events of the machines that follow the connection from one state to another."""
    found = []
    for machine in MACHINES:
        for follow in machine.follows:
            was, is_now = (follow.mark in CONNECTION.declared[each].marks for each in (source, dest))
            trigger = follow.entered if is_now else follow.left
            if was is not is_now and trigger:
                found.append(f"{machine.name}.{trigger}")
    return found


def _timer(name: str, machine: Machine, timeout: Limit | None) -> tuple[list[str], list[str]]:
    if timeout is None:
        return [], []
    sent, event = quoteattr(f"timer_{name}"), quoteattr(f"{machine.name}.{timeout.trigger}")
    return [f"<send id={sent} event={event} delayexpr={quoteattr(timeout.name)}/>"], [f"<cancel sendid={sent}/>"]


def _logs(actions: Iterable[Action]) -> list[str]:
    return [f"<log label={quoteattr(each.name)} expr={quoteattr(_text(each.words))}/>" for each in actions]


def _content(head: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield f"<{head}>"
        yield from (f"  {line}" for line in lines)
        yield f"</{head.partition(' ')[0]}>"


def _text(words: str) -> str:
    """Write a string so that ECMAScript, Python and others read it."""
    return f"'{words}'"
