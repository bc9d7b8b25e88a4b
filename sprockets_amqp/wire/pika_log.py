"""pika's log: one line for a failed attempt to connect, rather than one from each of pika's layers.

And only so many lines a second about unexpected frames, and none at INFO, where pika tells each step of its own.
"""

import logging
import time
from typing import Final

from sprockets_amqp.bounded_log import Quota

from .pika_insides import CHATTY, RETOLD, STRAY, retold, stray


class _Once(logging.Filter):
    """Lets pass what says something new, or everything if the application configures pika's log itself."""

    def __init__(self) -> None:
        super().__init__()
        self._quota = Quota(time.monotonic)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno <= logging.INFO:
            return _decided(logging.getLogger(record.name))
        if stray(record):
            return _decided(logging.getLogger(record.name)) or self._bounded(record)
        return not retold(record) or _decided(logging.getLogger(record.name))

    def _bounded(self, record: logging.LogRecord) -> bool:
        passes, held = self._quota.take(record.msg)
        if passes and held:
            record.msg += f" ({held} more were not logged)"
        elif held == 1:
            record.msg += " (more of these in this second are not logged)"
        return passes or held == 1


#: One object, so that each logger has it once.
_ONCE: Final = _Once()


def tell_once() -> None:
    """Make pika's loggers report each failed attempt once, and no steps that succeed.

    Nothing that only one line says is left out.

    This concerns everything in the process that uses pika. An application that set a level or a handler on ``pika`` or
    a logger below it, or that logs at DEBUG, gets everything that pika logs.
    """
    for name in {*RETOLD, *STRAY, *CHATTY}:
        logging.getLogger(name).addFilter(_ONCE)


def _decided(logger: logging.Logger) -> bool:
    if logger.isEnabledFor(logging.DEBUG):
        return True
    found: logging.Logger | None = logger
    while found is not None and found is not logging.root:
        if found.level or any(not isinstance(handler, logging.NullHandler) for handler in found.handlers):
            return True
        found = found.parent
    return False
