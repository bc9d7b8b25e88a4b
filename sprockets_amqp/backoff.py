"""Delays between attempts."""

import random


class Backoff:
    """Delays in seconds that double up to a limit, with jitter that never makes one longer.

    Each is between half of itself and all of itself at random, so that many clients do not return at the same moment.
    With ``at_once``, the first is 0.
    """

    def __init__(self, first: float, limit: float, *, at_once: bool = False) -> None:
        self._first = first
        self._limit = max(first, limit)
        self._start = -1 if at_once else 0
        self._attempts = self._start

    def next(self) -> float:
        """Return the next delay."""
        attempts = self._attempts
        # Clients try for years: beyond 2 ** 30 every limit is reached.
        self._attempts = min(attempts + 1, 30)
        if attempts < 0:
            return 0.0
        return min(self._limit, self._first * 2.0**attempts) * random.uniform(0.5, 1)

    def reset(self) -> None:
        """Begin anew."""
        self._attempts = self._start
