"""The line in which messages wait: one lane for each exchange and user id, and which message is next.

Messages leave in the order in which they came, except that a lane is held while RabbitMQ is asked about it, and other
lanes overtake it. The cost of each operation does not grow with the number of waiting messages.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterator

from .publish import Publish

Name = tuple[str, str]


class _Lane:
    """The publishes of one lane, each with its number in the line."""

    __slots__ = ("entry", "messages")

    def __init__(self) -> None:
        self.messages: OrderedDict[Publish, int] = OrderedDict()
        #: The number by which the lane takes its turn; None while it is held.
        self.entry: int | None = None


class Line(dict[Publish, int]):
    """Every waiting message with its number: the lower, the sooner."""

    def __init__(self) -> None:
        super().__init__()
        self._lanes: dict[Name, _Lane] = {}
        self._held: OrderedDict[Name, None] = OrderedDict()
        #: The lanes' turns, as a heap; outdated ones are dropped when they are met.
        self._turns: list[tuple[int, Name]] = []
        self._last = 0
        self._first = 0
        #: The octets of all waiting messages.
        self.size = 0

    @property
    def last(self) -> int:
        """The number of the message that came last."""
        return self._last

    def enter(self, publish: Publish, *, first: bool = False) -> None:
        """Put a message at the end of the line, or before all others."""
        if first:
            self._first -= 1
        else:
            self._last += 1
        number = self[publish] = self._first if first else self._last
        self.size += publish.message.size
        name = _name(publish)
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane()
            self._take_turn(name, lane, number)
        elif first and lane.entry is not None:
            self._take_turn(name, lane, number)
        lane.messages[publish] = number
        if first:
            lane.messages.move_to_end(publish, last=False)

    def leave(self, publish: Publish) -> None:
        """Take a message out, if it is in line."""
        if self.pop(publish, None) is None:
            return
        self.size -= publish.message.size
        name = _name(publish)
        lane = self._lanes[name]
        del lane.messages[publish]
        if not lane.messages:
            del self._lanes[name]
            self._held.pop(name, None)

    def lets_pass(self, publish: Publish) -> bool:
        """Return whether a new message may pass all others: every lane is held, and its own is not among them."""
        return _name(publish) not in self._lanes and self.next() is None

    def next(self) -> Publish | None:
        """Return the message whose turn it is, or None if every lane is held."""
        while self._turns:
            number, name = self._turns[0]
            lane = self._lanes.get(name)
            if lane is None or lane.entry != number:
                heapq.heappop(self._turns)
                continue
            publish, actual = next(iter(lane.messages.items()))
            if actual == number:
                return publish
            lane.entry = actual
            heapq.heapreplace(self._turns, (actual, name))
        return None

    def hold(self, publish: Publish, *, first: bool = False) -> None:
        """Hold the lane of a message until RabbitMQ has answered about it, behind or before lanes already held."""
        name = _name(publish)
        self._lanes[name].entry = None
        self._held[name] = None
        if first:
            self._held.move_to_end(name, last=False)

    def next_held(self) -> Publish | None:
        """Return the first message of the lane that has been held longest, or None."""
        for name in self._held:
            return next(iter(self._lanes[name].messages))
        return None

    def release(self, publish: Publish) -> None:
        """Release the lane of a message, if it is held."""
        self._release(_name(publish))

    def release_all(self) -> None:
        """Release every lane."""
        for name in list(self._held):
            self._release(name)

    def lane(self, publish: Publish) -> Iterator[tuple[Publish, int]]:
        """Iterate over the lane of a message, in order, with the messages' numbers."""
        lane = self._lanes.get(_name(publish))
        return iter(lane.messages.items() if lane is not None else ())

    def in_order(self) -> list[Publish]:
        """Return all waiting messages, in order."""
        return sorted(self, key=self.__getitem__)

    def _release(self, name: Name) -> None:
        if name in self._held:
            del self._held[name]
            lane = self._lanes[name]
            self._take_turn(name, lane, next(iter(lane.messages.values())))

    def _take_turn(self, name: Name, lane: _Lane, number: int) -> None:
        lane.entry = number
        heapq.heappush(self._turns, (number, name))
        if len(self._turns) > 2 * len(self._lanes) + 64:
            # Lanes came and went without any of them taking a turn.
            self._turns = [(lane.entry, name) for name, lane in self._lanes.items() if lane.entry is not None]
            heapq.heapify(self._turns)


def _name(publish: Publish) -> Name:
    message = publish.message
    return message.exchange, message.user_id or ""
