"""pika's log of an attempt to connect that failed: in one line, rather than in one of each of its layers."""

import logging
from typing import Final

from .pika_insides import RETOLD, retold


class _Once(logging.Filter):
    """Lets pass what tells something new, or all of it where the application decides about pika's log itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not retold(record) or _decided(logging.getLogger(record.name))


#: One object, so that each logger has it once.
_ONCE: Final = _Once()


def tell_once() -> None:
    """Let pika's loggers tell once of each attempt that failed, whoever's: nothing that only one line says is left out.

    An application that set a level or a handler on ``pika``, or on one of the loggers under it, or that logs at DEBUG,
    gets what pika logs.
    """
    for name in RETOLD:
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
