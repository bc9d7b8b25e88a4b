"""How one message is delivered: the options of a publish. To add one, declare it in `Options`.

An option that is missing has the value of the setting of the same name; without such a setting, it is True.
"""

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, TypedDict, cast

from sprockets_amqp.errors import InvalidMessage
from sprockets_amqp.settings import Settings
from sprockets_amqp.text import quoted


class Options(TypedDict, total=False):
    """How one message is delivered: keyword arguments of each ``publish``."""

    #: Seconds that it may wait for the client to be ready, instead of the client's ``timeout``; 0: not at all.
    timeout: float | None
    #: Whether RabbitMQ returns it if no queue takes it, rather than dropping it silently. True by default.
    mandatory: bool
    #: Whether it is persistent if its properties have no delivery_mode, instead of the client's ``persistent``.
    persistent: bool


OPTIONS: Final = frozenset(Options.__annotations__)


def defaults(settings: Settings) -> Options:
    """Return each option with the value that it has where it is not given."""
    return cast("Options", {name: getattr(settings, name, True) for name in Options.__annotations__})


def checked(options: Mapping[str, Any], usual: Options) -> Options:
    """Return every option with its value.

    Raises:
        TypeError: an option is unknown.
        InvalidMessage: a value is of the wrong kind.
    """
    for name in options.keys() - OPTIONS:
        raise TypeError(f"publish() has no option {name!r}; the options are {', '.join(sorted(OPTIONS))}")
    values = {name: _CONVERT[Options.__annotations__[name]](name, value) for name, value in options.items()}
    return cast("Options", {**usual, **{name: value for name, value in values.items() if value is not None}})


def _duration(name: str, value: object) -> float | None:
    """Return a number that the loop's clock can be added to; math.inf is one."""
    if value is None or (
        isinstance(value, int | float) and (abs(value) <= sys.float_info.max or abs(value) == math.inf)
    ):
        return value
    raise InvalidMessage(name, f"must be a number of seconds, not {quoted(value)}")


def _flag(name: str, value: object) -> bool:
    if value is None or isinstance(value, int):
        return bool(value)
    raise InvalidMessage(name, f"must be True or False, not {quoted(value)}")


#: How a value of each type is checked.
_CONVERT: Final[dict[object, Callable[[str, object], object]]] = {float | None: _duration, bool: _flag}
