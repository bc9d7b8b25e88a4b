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
    found: dict[str, Any] = {**usual}
    for name, value in options.items():
        convert = _CONVERTERS.get(name)
        if convert is None:
            raise TypeError(f"publish() has no option {name!r}; the options are {', '.join(sorted(OPTIONS))}")
        if (right := convert(name, value)) is not None:
            found[name] = right
    return cast("Options", found)


def _duration(name: str, value: object) -> float | None:
    """Return a number that the loop's clock can be added to; math.inf is one."""
    if value is None or (
        isinstance(value, int | float) and (abs(value) <= sys.float_info.max or abs(value) == math.inf)
    ):
        return value
    raise InvalidMessage(name, f"must be a number of seconds, not {quoted(value)}")


def _flag(name: str, value: object) -> bool:
    if value is True or value is False:
        return value
    if value is None or isinstance(value, int):
        return bool(value)
    raise InvalidMessage(name, f"must be True or False, not {quoted(value)}")


#: How a value of each type is checked, and so that of each option.
_CONVERT: Final[dict[object, Callable[[str, object], object]]] = {float | None: _duration, bool: _flag}
_CONVERTERS: Final = {name: _CONVERT[kind] for name, kind in Options.__annotations__.items()}
