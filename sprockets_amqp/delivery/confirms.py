"""The ledger of publisher confirms: which delivery tag stands for which message.

It follows https://www.rabbitmq.com/docs/confirms#publisher-confirms: in confirm mode a channel's messages are numbered
from 1 in the order in which they are sent. The ledger knows neither pika nor states, and does no I/O.
"""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Confirms(Generic[T]):
    """The unconfirmed messages of one channel, by delivery tag.

    >>> confirms = Confirms()
    >>> [confirms.add(name) for name in ("first", "second", "third")]
    [1, 2, 3]
    >>> confirms.settle(2, multiple=True)
    ['first', 'second']
    >>> len(confirms.entries)
    1
    """

    def __init__(self) -> None:
        #: The unconfirmed entries, by delivery tag, in the order in which they were sent; only this class changes it.
        self.entries: dict[int, T] = {}
        self._lowest = 1
        self._last = 0
        self._found = 0

    def add(self, entry: T) -> int:
        """Enter the next message sent on the channel; return its delivery tag."""
        tag = self._last = self._last + 1
        self.entries[tag] = entry
        return tag

    def settle(self, delivery_tag: int, multiple: bool) -> list[T]:
        """Take out the entries that an ack or nack covers, in the order in which they were sent.

        A tag that was never issued, 0 included, settles nothing, and neither does one that was settled before: the
        first ack or nack counts. The work is proportional to what is settled, not to what is in flight.
        """
        if not 0 < delivery_tag <= self._last:
            return []
        pop = self.entries.pop
        if multiple:
            settled = [entry for tag in range(self._lowest, delivery_tag + 1) if (entry := pop(tag, None)) is not None]
            self._lowest = max(self._lowest, delivery_tag + 1)
        else:
            entry = pop(delivery_tag, None)
            settled = [] if entry is None else [entry]
            # Each tag is skipped once, so that the next multiple one does not look at it again.
            while self._lowest <= self._last and self._lowest not in self.entries:
                self._lowest += 1
        return settled

    def find(self, is_wanted: Callable[[T], bool]) -> Iterator[tuple[int, T]]:
        """Iterate over the unconfirmed entries that are wanted, with their tags, after the one `found` last."""
        for tag in range(max(self._lowest, self._found + 1), self._last + 1):
            entry = self.entries.get(tag)
            if entry is not None and is_wanted(entry):
                yield tag, entry

    def found(self, delivery_tag: int) -> None:
        """Have `find` go on after this entry: however many are found in this way, each entry is looked at once."""
        self._found = delivery_tag

    def was_issued(self, delivery_tag: int) -> bool:
        """Return whether a message with this tag was sent on the channel, settled or not."""
        return 0 < delivery_tag <= self._last

    def clear(self) -> list[T]:
        """Take out everything, in order, and number from 1 again: the channel is gone."""
        lost = list(self.entries.values())
        self.entries.clear()
        self._lowest, self._last, self._found = 1, 0, 0
        return lost
