"""The ledger of the outbox: where each message is, and how many are where.

It makes the moves that `states/ledger.py` declares. It knows neither pika nor the store, and does no I/O.
"""

import dataclasses
from typing import Any, ClassVar, Generic, TypeVar

from sprockets_amqp.states import LEDGER, Machine, Place

T = TypeVar("T")
#: A message's name in the ledger: its box (0 is the client's own), and its number there.
Key = tuple[int, int]


@dataclasses.dataclass(slots=True)
class Row(Generic[T]):
    """A message in memory: where it is, the octets that it counts for, and whatever belongs to it."""

    place: Place
    size: int
    entry: T


class Ledger(Generic[T]):
    """The messages in memory, each with its place, and the numbers of those that are on disk alone.

    Every number is that of a place, and changes only when a message moves, or when the store has counted.

    >>> ledger = Ledger()
    >>> ledger.keep((0, 1), 300, "first", "kept")
    >>> ledger.move((0, 1), "written")
    <Place.ON_DISK: ('on disk', 'nothing')>
    >>> ledger.count("stored"), list(ledger.rows)
    (1, [])
    """

    machine: ClassVar[Machine] = LEDGER

    def __init__(self) -> None:
        #: The messages that are in memory, in the order in which they came; only this class changes it.
        self.rows: dict[Key, Row[T]] = {}
        self._moves: dict[tuple[Any, str], Any] = {
            (place, each.trigger): each.dest for each in self.machine.rows for place in each.source
        }
        self._marked: dict[str, tuple[Any, ...]] = {
            mark: self.machine.marked(mark) for each in self.machine.states for mark in each.marks
        }
        self.clear()

    def clear(self) -> None:
        """Forget everything: the store is closed."""
        self.rows.clear()
        self._messages = dict.fromkeys(Place, 0)
        self._octets = dict.fromkeys(Place, 0)

    def count(self, mark: str) -> int:
        """Return how many messages are in places with the mark."""
        return sum([self._messages[place] for place in self._marked[mark]])

    def octets(self, mark: str) -> int:
        """Return how many octets they count for."""
        return sum([self._octets[place] for place in self._marked[mark]])

    def at(self, place: Place) -> int:
        """Return how many messages are in a place."""
        return self._messages[place]

    def keys(self, *places: Place) -> list[Key]:
        """Return the messages in memory that are in these places, in the order in which they came."""
        return [key for key, row in self.rows.items() if row.place in places]

    def keep(self, key: Key, size: int, entry: T, move: str) -> None:
        """Enter a message: by its first move, or by one from the disk that has it.

        Raises ValueError if it is there already: a defect.
        """
        if key in self.rows:
            raise ValueError(f"{key} is in the ledger already: {self.rows[key]}")
        place = self._moves.get((Place.NEW, move))
        if place is None:
            place = self._moves[Place.ON_DISK, move]
            self._count(Place.ON_DISK, -1, -size)
        self.rows[key] = Row(place, size, entry)
        self._count(place, 1, size)

    def knows(self, key: Key, move: str) -> bool:
        """Return whether a message is in memory, and in a place from which it can make this move."""
        row = self.rows.get(key)
        return row is not None and (row.place, move) in self._moves

    def move(self, key: Key, move: str) -> Place:
        """Make a move; return where the message is now. Raises KeyError if it is not declared: a defect."""
        row = self.rows[key]
        place: Place = self._moves[row.place, move]
        self._count(row.place, -1, -row.size)
        self._count(place, 1, row.size)
        row.place = place
        if place is Place.ON_DISK or place is Place.GONE:
            del self.rows[key]
        return place

    def forget(self, key: Key) -> None:
        """Let go of a message that the disk has set aside; it stays counted."""
        del self.rows[key]

    def recount(self, to_send: int, set_aside: int, octets: int) -> None:
        """Take over what the store has counted: to be sent or deleted, set aside, and the octets of both."""
        known = [row for row in self.rows.values() if row.place in self._marked["on_disk"]]
        fresh = sum(row.place is Place.ASIDE for row in known)
        self._messages[Place.ON_DISK] = max(0, to_send - len(known))
        self._messages[Place.ASIDE] = set_aside + fresh
        self._octets[Place.ASIDE] = sum(row.size for row in known if row.place is Place.ASIDE)
        # What was set aside before is among these: no message is asked for its size.
        self._octets[Place.ON_DISK] = max(0, octets - sum(row.size for row in known))

    def _count(self, place: Place, messages: int, octets: int) -> None:
        self._messages[place] += messages
        self._octets[place] += octets
