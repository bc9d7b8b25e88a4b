"""Which destinations RabbitMQ nacks without end, and when a new channel may help: arithmetic on a given clock.

In RabbitMQ, each channel remembers which node leads a quorum queue. If another node does by now, and the channel misses
that, every message to the queue is nacked on this channel, and on a new one it is not. A queue that is full nacks as
well, and there a new channel changes nothing: so it is tried ever more rarely.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from .publish import Publish

#: Seconds for which everything to one destination is nacked before the channel is replaced; doubled each time that this
#: has not helped, up to the longest.
LASTING: Final = 10.0
LONGEST: Final = 600.0
#: How many messages must have been nacked.
LEAST: Final = 3
#: How many destinations are told apart; of more, those are forgotten that were nacked longest ago.
MOST: Final = 1000

#: An exchange and a routing key.
Destination = tuple[str, str]


class Nacks:
    """The runs of nacks: for each destination since when, and how many, with no ack in between."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._runs: OrderedDict[Destination, tuple[float, int]] = OrderedDict()
        self._lasting = LASTING
        #: When the channel was last replaced, and because of which destination; None: whether that has helped is known.
        self._replaced_at = float("-inf")
        self._tried: Destination | None = None

    def __bool__(self) -> bool:
        """Whether an ack is news."""
        return bool(self._runs) or self._tried is not None

    def acked(self, settled: Iterable[Publish]) -> None:
        """Take note of messages that were acked."""
        if self._tried is not None and self._clock() - self._replaced_at > LASTING:
            self._tried = None
        for publish in settled:
            destination = _destination(publish)
            self._runs.pop(destination, None)
            if destination == self._tried:
                # That is what the new channel was for.
                self._tried = None
                self._lasting = LASTING

    def nacked(self, settled: Iterable[Publish]) -> str:
        """Take note of messages that were nacked; say why the channel should be replaced now, if it should."""
        now = self._clock()
        if now - self._replaced_at > 2 * self._lasting:
            self._lasting = LASTING
        for publish in settled:
            destination = _destination(publish)
            if destination == self._tried:
                self._tried = None
            since, count = self._runs.pop(destination, (now, 0))
            self._runs[destination] = since, count + 1
            if count + 1 >= LEAST and now - max(since, self._replaced_at) >= self._lasting:
                self._replaced_at, self._tried = now, destination
                self._lasting = min(2 * self._lasting, LONGEST)
                self._runs.clear()
                exchange, key = destination
                return f"RabbitMQ has nacked {count + 1} messages in a row to {exchange!r} with routing key {key!r}"
        while len(self._runs) > MOST:
            self._runs.popitem(last=False)
        return ""

    def forget(self) -> None:
        """Forget the runs: the channel is gone."""
        self._runs.clear()


def _destination(publish: Publish) -> Destination:
    return publish.message.exchange, publish.message.routing_key
