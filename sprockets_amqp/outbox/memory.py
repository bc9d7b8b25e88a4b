"""A store in memory: what it holds is lost with the process. For tests, and for a client without an outbox."""

from collections.abc import Callable, Collection, Mapping

from .ledger import Key
from .store import OWN, Changes, Record, Totals, values_of


class MemoryStore:
    """A `Store` of dictionaries.

    Attributes:
        boxes: the records of each box, by number.
    """

    medium = "memory"

    def __init__(self) -> None:
        self.boxes: dict[int, dict[int, Record]] = {}

    def watch(self, on_news: Callable[[], object], on_loss: Callable[[], object]) -> None:
        """Nobody else stores anything."""

    async def open(self) -> None:
        """Own a box."""
        self.boxes.setdefault(OWN, {})

    async def write(self, box: int, changes: Changes) -> None:
        """Change a box."""
        its = self.boxes.setdefault(box, {})
        its.update((values[0], Record._make(values)) for values in values_of(changes.puts))
        for number in its.keys() & set(changes.suspects):
            refusals = its[number].refusals + changes.suspects.count(number)
            its[number] = its[number]._replace(refusals=refusals)
        for number in its.keys() & changes.set_asides.keys():
            its[number] = its[number]._replace(set_aside=changes.set_asides[number])
        for number in changes.deletes:
            its.pop(number, None)

    async def read(self, limit: int, size: int, without: Collection[Key]) -> list[tuple[Key, Record]]:
        """Return the first messages to be sent."""
        found: list[tuple[Key, Record]] = []
        for box in sorted(self.boxes, key=self._turn):
            for number, record in sorted(self.boxes[box].items()):
                if len(found) == limit or size <= 0:
                    return found
                if record.set_aside is None and (box, number) not in without:
                    found.append(((box, number), record))
                    size -= record.size
        return found

    async def totals(self) -> Totals:
        """Count what is in all boxes."""
        return _totals([record for box in self.boxes.values() for record in box.values()])

    async def try_out(self) -> None:
        """Memory can always be written to."""

    async def share(self) -> None:
        """Nobody else sends what is here."""

    async def close(self, left: Mapping[int, Changes]) -> None:
        """Give up the boxes: what is left in them is another's."""
        for box, changes in left.items():
            for number in changes.deletes:
                self.boxes.get(box, {}).pop(number, None)
        self.give_up()

    def give_up(self) -> None:
        """Have no owner any more, as if the process were killed: the next one begins with an empty box."""
        left = [self.boxes[number] for number in sorted(self.boxes, key=self._turn) if self.boxes[number]]
        self.boxes = dict(enumerate(left, OWN + 1))

    async def names(self) -> list[str]:
        """Return the numbers of the boxes."""
        return [str(box) for box in sorted(self.boxes)]

    async def look(self, name: str) -> tuple[Totals, list[int], bool]:
        """Count what is in a box: the client's own has an owner."""
        its = self._box(name)
        aside = [number for number, record in sorted(its.items()) if record.set_aside is not None]
        return _totals(its.values()), aside, self._is_owned(name)

    async def find(self, name: str, numbers: Collection[int]) -> list[Record]:
        """Return messages in a box."""
        return [self._box(name)[number] for number in numbers if number in self._box(name)]

    async def retry(self, name: str, numbers: Collection[int]) -> set[int]:
        """Have messages sent that were set aside."""
        its = self._box(name)
        found = {number for number in numbers if number in its and its[number].set_aside is not None}
        its.update((number, its[number]._replace(set_aside=None, refusals=0)) for number in found)
        return found

    async def drop(self, name: str, numbers: Collection[int]) -> set[int]:
        """Delete messages."""
        its = self._box(name)
        return {number for number in numbers if its.pop(number, None) is not None}

    def _turn(self, box: int) -> tuple[bool, bool, int]:
        """Return when it is a box's turn: its own comes last."""
        return False, box == OWN, box

    def _is_owned(self, name: str) -> bool:
        return int(name) == OWN

    def _box(self, name: str) -> dict[int, Record]:
        if not name.isdecimal() or int(name) not in self.boxes:
            raise FileNotFoundError(name)
        return self.boxes[int(name)]

    def abandon(self) -> None:
        """Forget everything: it is the parent's."""
        self.boxes.clear()


def _totals(records: Collection[Record]) -> Totals:
    aside = sum(record.set_aside is not None for record in records)
    first = min((each for each in records if each.set_aside is None), default=None)
    return Totals(len(records) - aside, sum(each.size for each in records), first and first.stored_at, aside)
