"""Which node is tried next, and after what delay: pure arithmetic, without a clock or I/O."""

import random
from collections import deque
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

Node = TypeVar("Node")

#: Seconds before a channel that did not last is reopened for the second time; doubled up to reconnect_delay.
CHANNEL_DELAY: Final = 0.1


class Backoff:
    """Delays in seconds that double from the first up to a limit, each randomly shortened by up to half.

    With ``at_once`` the first delay, and the first after each reset, is 0.
    """

    def __init__(self, first: float, limit: float, *, at_once: bool = False) -> None:
        self._first = first
        self._limit = max(first, limit)
        self._at_once = at_once
        self._attempts = 0

    def next(self) -> float:
        """Return the delay before the next attempt."""
        doublings = self._attempts - self._at_once
        self._attempts += 1
        if doublings < 0:
            return 0.0
        # Beyond 64 doublings even a delay of a nanosecond has reached any limit.
        return min(self._limit, self._first * 2.0 ** min(doublings, 64)) * random.uniform(0.5, 1)

    def reset(self) -> None:
        """Start again with the first delay: an attempt succeeded and lasted."""
        self._attempts = 0


class Attempts(Generic[Node]):
    """The attempts to connect: each node is tried once a round, with a delay only between rounds.

    The delays start again once a channel has been open for ``reconnect_delay`` seconds; otherwise a broker that accepts
    connections and drops them at once would be tried without pause.

    >>> attempts = Attempts(["one", "two"], reconnect_delay=5, max_reconnect_delay=60)
    >>> attempts.node, attempts.next(), attempts.node
    ('one', 0.0, 'two')
    >>> 2.5 <= attempts.next() <= 5, attempts.node
    (True, 'one')
    """

    def __init__(self, nodes: Iterable[Node], reconnect_delay: float, max_reconnect_delay: float) -> None:
        self._nodes = deque(nodes)
        self._untried = len(self._nodes) - 1
        self._due = True
        #: How often the node was tried since its turn began.
        self._tries = 0
        self._lasting = reconnect_delay
        self._connections = Backoff(reconnect_delay, max_reconnect_delay)
        self._channels = Backoff(CHANNEL_DELAY, reconnect_delay, at_once=True)

    @property
    def node(self) -> Node | None:
        """The node that is connected or tried next; None if none is known."""
        return self._nodes[0] if self._nodes else None

    @property
    def due(self) -> bool:
        """Whether to look the nodes up: each has been tried, or one connected, since they were last replaced."""
        return self._due

    def replace(self, nodes: Iterable[Node]) -> None:
        """Start a round with other nodes; those already known keep their order and come first."""
        found = {node: node for node in nodes}
        known = [found.pop(node) for node in self._nodes if node in found]
        self._nodes = deque([*known, *found.values()])
        self._untried = len(self._nodes) - 1
        self._due = False

    @property
    def tries(self) -> int:
        """How often the node was tried since its turn began."""
        return self._tries

    def count(self) -> None:
        """Record that the node is tried."""
        self._tries += 1

    def next(self) -> float:
        """Go on to the next node; return the seconds to wait before trying it."""
        self._nodes.rotate(-1)
        if self._untried > 0:
            self._untried -= 1
            return 0.0
        self._untried = len(self._nodes) - 1
        self._due = True
        return self._connections.next()

    def next_channel(self) -> float:
        """Return the seconds to wait before a lost channel is reopened on its connection."""
        return self._channels.next()

    def lost(self, lasted: float) -> None:
        """Record the loss of a channel that was open for ``lasted`` seconds, or of an attempt to open one (0)."""
        self._tries = 0
        self._due = self._due or lasted > 0
        if lasted >= self._lasting:
            self._untried = len(self._nodes) - 1
            self._connections.reset()
            self._channels.reset()
