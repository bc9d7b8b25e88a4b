"""A store in memory: what it holds is lost with the process. For tests, and for a client without an outbox."""

from collections.abc import Collection, Mapping

from .ledger import Key
from .store import OWN, Changes, Record, Totals, records


class MemoryStore:
    """A `Store` of dictionaries.

    Attributes:
        boxes: the records of each box, by number.
    """

    def __init__(self) -> None:
        self.boxes: dict[int, dict[int, Record]] = {}

    async def open(self) -> None:
        """Own a box."""
        self.boxes.setdefault(OWN, {})

    async def write(self, box: int, changes: Changes) -> None:
        """Change a box."""
        its = self.boxes.setdefault(box, {})
        its.update((values[0], Record._make(values)) for values in records(changes.puts))
        for number in changes.suspects:
            its[number] = its[number]._replace(refusals=its[number].refusals + 1)
        for number, words in changes.set_asides.items():
            its[number] = its[number]._replace(set_aside=words)
        for number in changes.deletes:
            its.pop(number, None)

    async def read(self, limit: int, size: int, without: Collection[Key]) -> list[tuple[Key, Record]]:
        """Return the first messages to be sent."""
        found: list[tuple[Key, Record]] = []
        for box in sorted(self.boxes, key=lambda each: (each == OWN, each)):
            for number, record in sorted(self.boxes[box].items()):
                if len(found) == limit or size <= 0:
                    return found
                if record.set_aside is None and (box, number) not in without:
                    found.append(((box, number), record))
                    size -= record.size
        return found

    async def totals(self) -> Totals:
        """Count what is in all boxes."""
        found = [record for box in self.boxes.values() for record in box.values()]
        aside = sum(record.set_aside is not None for record in found)
        return Totals(len(found) - aside, sum(record.size for record in found), None, aside)

    async def try_out(self) -> None:
        """Memory can always be written to."""

    async def close(self, left: Mapping[int, Changes]) -> None:
        """Keep everything: nothing was left to delete."""

    def abandon(self) -> None:
        """Forget everything: it is the parent's."""
        self.boxes.clear()
