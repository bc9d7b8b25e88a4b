"""The ledger of the outbox: where each message is, and how many are where.

It makes the moves that `states/ledger.py` declares. It knows neither pika nor the store, and does no I/O.
"""

from typing import Any, ClassVar, Generic, TypeVar

from sprockets_amqp.states import LEDGER, Machine, Place

#: A message's name in the ledger: its box (0 is the client's own), and its number there.
Key = tuple[int, int]


class Row:
    """A message in memory: where it is, and the octets that it counts for. A subclass has what belongs to it."""

    __slots__ = ("place", "size")

    def __init__(self, size: int, place: Place = Place.NEW) -> None:
        self.size = size
        self.place = place


T = TypeVar("T", bound=Row)


class Ledger(Generic[T]):
    """The messages in memory, each with its place, and how many messages there are in each place.

    Every number is that of a place, and changes only when a message moves, or when the store has counted.

    >>> ledger = Ledger()
    >>> ledger.keep((0, 1), Row(300), "kept")
    >>> ledger.move((0, 1), "written")
    <Place.ON_DISK: ('on disk', 'nothing')>
    >>> ledger.count("stored"), ledger.at(Place.ON_DISK), list(ledger.rows)
    (1, 1, [])
    """

    machine: ClassVar[Machine] = LEDGER

    def __init__(self) -> None:
        #: The messages that are in memory, in the order in which they came; only this class changes it.
        self.rows: dict[Key, T] = {}
        rows, states = self.machine.rows, self.machine.states
        self._moves: dict[tuple[Any, str], Any] = {
            (place, row.trigger): row.dest for row in rows for place in row.source
        }
        self._marked: dict[str, tuple[Any, ...]] = {
            mark: self.machine.marked(mark) for state in states for mark in state.marks
        }
        self.clear()

    def clear(self) -> None:
        """Forget everything: the store is closed."""
        self.rows.clear()
        self._messages = dict.fromkeys(Place, 0)
        self._octets = dict.fromkeys(Place, 0)

    def at(self, place: Place) -> int:
        """Return how many messages are in a place."""
        return self._messages[place]

    def count(self, mark: str) -> int:
        """Return how many messages are in the places with a mark."""
        return sum(map(self._messages.__getitem__, self._marked[mark]))

    def octets(self, mark: str) -> int:
        """Return how many octets they count for."""
        return sum(map(self._octets.__getitem__, self._marked[mark]))

    def keys(self, *places: Place) -> list[Key]:
        """Return the messages in memory that are in these places, in the order in which they came."""
        return [key for key, row in self.rows.items() if row.place in places]

    def keep(self, key: Key, row: T, move: str) -> None:
        """Enter a message by its first move. Raises ValueError if it is there already: a defect."""
        if key in self.rows:
            raise ValueError(f"{key} is in the ledger already: {self.rows[key].place}")
        self.rows[key] = row
        self.move(key, move)

    def knows(self, key: Key, move: str) -> bool:
        """Return whether a message is in memory, and in a place from which it can make this move."""
        row = self.rows.get(key)
        return row is not None and (row.place, move) in self._moves

    def move(self, key: Key, move: str) -> Place:
        """Make a move; return where the message is now. Raises KeyError if it is not declared: a defect."""
        row = self.rows[key]
        was, size, messages, octets = row.place, row.size, self._messages, self._octets
        row.place = place = self._moves[was, move]
        messages[was] -= 1
        octets[was] -= size
        messages[place] += 1
        octets[place] += size
        if place is Place.ON_DISK or place is Place.GONE:
            del self.rows[key]
        return row.place

    def forget(self, key: Key) -> None:
        """Let go of a message that the disk has set aside; it stays counted."""
        self.rows.pop(key, None)

    def find(self, size: int) -> None:
        """Count one more message on the disk."""
        self._messages[Place.ON_DISK] += 1
        self._octets[Place.ON_DISK] += size

    def recount(self, to_send: int, set_aside: int, octets: int) -> None:
        """Take over what the store has counted: to be sent or deleted, set aside, and the octets of both."""
        known = [row for row in self.rows.values() if row.place in self._marked["on_disk"]]
        fresh = [row for row in known if row.place is Place.ASIDE]
        self._messages[Place.ON_DISK] = max(0, to_send - len(known))
        self._messages[Place.ASIDE] = set_aside + len(fresh)
        # The octets of what was set aside before are among these: the store does not tell them apart.
        self._octets[Place.ON_DISK] = max(0, octets - sum(row.size for row in known))
        self._octets[Place.ASIDE] = sum(row.size for row in fresh)
