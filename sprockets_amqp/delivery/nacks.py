"""Which destinations RabbitMQ nacks without end, and when a new channel may help: arithmetic on a given clock.

In RabbitMQ, each channel remembers which node leads a quorum queue. If another node does by now, and the channel misses
that, every message to the queue is nacked on this channel, and on a new one it is not. A queue that is full nacks as
well, and there a new channel changes nothing: so it is tried ever more rarely.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from .publish import Publish

#: Seconds for which everything to one destination is nacked before the channel is replaced; doubled each time that this
#: has not helped the destination, up to the longest.
LASTING: Final = 10.0
LONGEST: Final = 600.0
#: Seconds between two replacements, whatever they are for: doubled each time that one has not helped, up to this.
LONGEST_PAUSE: Final = 60.0
#: How many messages must have been nacked.
LEAST: Final = 3
#: How many destinations are told apart; of more, those are forgotten that were nacked longest ago.
MOST: Final = 1000

#: An exchange and a routing key.
Destination = tuple[str, str]


@dataclass(slots=True)
class _Run:
    """Nacks in a row: since when, how many, the time of the last one, and for how long they must last."""

    since: float
    count: int = 0
    last: float = 0.0
    lasting: float = LASTING


class Nacks:
    """The runs of nacks of each destination, which one ack ends."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        #: In the order of their last nacks.
        self._runs: OrderedDict[Destination, _Run] = OrderedDict()
        #: When the channel was last replaced, because of which destination (None: it was answered since), and for how
        #: long it is not replaced again.
        self._replaced_at = float("-inf")
        self._tried: Destination | None = None
        self._pause = LASTING

    def __bool__(self) -> bool:
        """Whether an ack is news."""
        return bool(self._runs) or self._tried is not None

    def acked(self, settled: Iterable[Publish]) -> None:
        """Take note of messages that were acked."""
        for publish in settled:
            destination = _destination(publish)
            self._runs.pop(destination, None)
            if destination == self._tried:
                # That is what the new channel was for.
                self._tried, self._pause = None, LASTING
        self._forget_old(self._clock())

    def nacked(self, settled: Iterable[Publish]) -> str:
        """Take note of messages that were nacked; say why the channel should be replaced now, if it should."""
        now = self._clock()
        self._forget_old(now)
        for publish in settled:
            destination = _destination(publish)
            if destination == self._tried:
                self._tried = None
            run = self._runs.pop(destination, None) or _Run(now)
            self._runs[destination] = run
            run.count, run.last = run.count + 1, now
            if run.count >= LEAST and now - run.since >= run.lasting and now - self._replaced_at >= self._pause:
                return self._replace(destination, run, now)
        while len(self._runs) > MOST:
            self._runs.popitem(last=False)
        return ""

    def _replace(self, destination: Destination, run: _Run, now: float) -> str:
        exchange, key = destination
        why = f"RabbitMQ has nacked {run.count} messages in a row to {exchange!r} with routing key {key!r}"
        run.lasting = min(2 * run.lasting, LONGEST)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._replaced_at, self._tried = now, destination
        self.begin_again()
        return why

    def begin_again(self) -> None:
        """Count anew: there is going to be another channel."""
        now = self._clock()
        for run in self._runs.values():
            run.since, run.count = now, 0

    def _forget_old(self, now: float) -> None:
        """Forget what has not been nacked for long: perhaps it is not published to any more."""
        while self._runs:
            destination, run = next(iter(self._runs.items()))
            if now - max(run.last, self._replaced_at) <= max(2 * run.lasting, LONGEST):
                break
            del self._runs[destination]
        if now - self._replaced_at > 2 * LONGEST:
            self._tried, self._pause = None, LASTING


def _destination(publish: Publish) -> Destination:
    return publish.message.exchange, publish.message.routing_key
