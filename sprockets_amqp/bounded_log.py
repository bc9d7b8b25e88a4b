"""The package's log: each line names its client, if that has a name, and no peer can flood it."""

import dataclasses
import logging
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from .names import DEFAULT_NAME

if TYPE_CHECKING:
    Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]

#: Lines of one kind in one second.
MOST: Final = 10
SECOND: Final = 1.0
MINUTE: Final = 60.0
#: Subjects that are told apart; when there are more, each is due again.
MOST_SUBJECTS: Final = 1000


def named(logger: logging.Logger, name: str) -> "Logger":
    """Return what logs for a client: the logger itself or, for a client with a name, one that begins lines with it."""
    return logger if name == DEFAULT_NAME else _Named(logger, {"client": name})


class _Named(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the client's name, which is letters, digits and underscores, before the line."""
        return f"{(self.extra or {})['client']}: {msg}", kwargs


@dataclasses.dataclass(slots=True)
class _Count:
    since: float
    passed: int = 1
    held: int = 0


class Quota:
    """Lets the first few of each kind pass in a second and counts the others: pure arithmetic on a given clock.

    >>> quota = Quota(clock=lambda: 0.0, most=2)
    >>> [quota.take("bark") for _ in range(4)], quota.take("bite")
    ([(True, 0), (True, 0), (False, 1), (False, 2)], (True, 0))
    """

    def __init__(self, clock: Callable[[], float], most: int = MOST) -> None:
        self._clock = clock
        self._most = most
        self._counts: dict[str, _Count] = {}

    def take(self, kind: str) -> tuple[bool, int]:
        """Return whether one more of this kind passes, and how many did not: in this second, else in the one before."""
        now = self._clock()
        count = self._counts.get(kind)
        if count is None or now - count.since >= SECOND:
            self._counts[kind] = _Count(now)
            return True, count.held if count is not None else 0
        if count.passed < self._most:
            count.passed += 1
            return True, 0
        count.held += 1
        return False, count.held


class Seldom:
    """Says whether something about a subject is due, which it is once a minute; of subjects there may be many."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def is_due(self, subject: str) -> bool:
        """Return whether it is due, and count it."""
        now = self._clock()
        if now < self._until.get(subject, 0.0):
            return False
        if len(self._until) >= MOST_SUBJECTS:
            self._until.clear()
        self._until[subject] = now + MINUTE
        return True


class BoundedLog:
    """Logs the first lines of each kind in a second, then one saying that more follow, and later how many did.

    The kind is the message without its arguments.
    """

    def __init__(self, logger: "Logger", clock: Callable[[], float], most: int = MOST) -> None:
        self._logger = logger
        self._quota = Quota(clock, most)

    def log(self, level: int, message: str, *args: Any, exc_info: bool = False) -> None:
        """Log a line, with the current traceback if ``exc_info``, or count it."""
        passes, held = self._quota.take(message)
        if passes and held:
            self._logger.log(level, "%d more were not logged: %s", held, message, stacklevel=2)
        if passes:
            self._logger.log(level, message, *args, exc_info=exc_info or None, stacklevel=2)
        elif held == 1:
            self._logger.log(level, "more of these in this second are not logged: %s", message, stacklevel=2)
