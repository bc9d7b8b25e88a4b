"""Whether what must hold of a stored message does: in every place, by every move."""

from collections.abc import Iterator

from sprockets_amqp.states import LEDGER, Machine
from sprockets_amqp.states.stored import MAY, MOVED, MOVED_FROM, PLACED

from .judge import Finding

#: What the disk has of a message, and what else there is of it.
Columns = tuple[str, str]
#: A move, from where, and where it leads.
Move = tuple[str, Columns, Columns]


def found_in_ledger(ledger: Machine = LEDGER) -> Iterator[Finding]:
    """Yield what does not hold: of a place, of a move, of the places that can be reached, and of those that end."""
    for claim in PLACED:
        if not all(claim.holds(place) for place in ledger.states):
            yield Finding(claim.words)
    moves: list[Move] = [(row.trigger, source.value, row.dest.value) for row in ledger.rows for source in row.source]
    places = {place.state.value for place in ledger.states}
    yield from _wrong_moves(moves)
    yield from _missing_moves(moves, places)
    for place in sorted(places - _reached({ledger.initial.value}, [(source, dest) for _, source, dest in moves])):
        yield Finding(f"No message is ever {place}.")
    # What was set aside stays, until a person decides.
    ends = {("nothing", "nothing"), ("set aside", "nothing")}
    for place in sorted(places - _reached(ends, [(dest, source) for _, source, dest in moves])):
        yield Finding(f"A message that is {place} never goes.")


def _wrong_moves(moves: list[Move]) -> Iterator[Finding]:
    for trigger, source, dest in moves:
        said = MOVED_FROM.get((trigger, source)) or MOVED.get(trigger, ("", ""))
        if dest != tuple(new or old for new, old in zip(said, source, strict=True)):
            yield Finding(f"The move {trigger} makes of a message that is {source} one that is {dest}.")


def _missing_moves(moves: list[Move], places: set[Columns]) -> Iterator[Finding]:
    known = {(trigger, source) for trigger, source, _ in moves}
    for source in sorted(places):
        for trigger in (trigger for column in source for trigger in MAY.get(column, ())):
            if (trigger, source) not in known:
                yield Finding(f"A message that is {source} cannot make the move {trigger}.")
    for trigger in sorted(MOVED.keys() - {trigger for trigger, _ in known}):
        yield Finding(f"No message ever makes the move {trigger}.")


def _reached(begins: set[Columns], ways: list[tuple[Columns, Columns]]) -> set[Columns]:
    found, before = set(begins), -1
    while before != len(found):
        before = len(found)
        found |= {dest for source, dest in ways if source in found}
    return found
