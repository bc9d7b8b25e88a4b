"""What exists already must be declared in the same way: RabbitMQ's words where it is not.

https://www.rabbitmq.com/docs/queues#property-equivalence
"""

import datetime as dt
import decimal
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pika.spec import PRECONDITION_FAILED

from .rules import Refused

_NAMES: Final = {
    dict: "table",
    list: "array",
    type(None): "void",
    bytes: "binary",
    float: "double",
    decimal.Decimal: "decimal",
    dt.datetime: "timestamp",
}


def precondition_failed(what: str) -> Refused:
    """Return the refusal with which RabbitMQ closes a channel over what is declared or published."""
    return Refused(PRECONDITION_FAILED, f"PRECONDITION_FAILED - {what}")


def type_name(value: object) -> str:
    """Return RabbitMQ's name for the type of a value in a table, as pika encodes it."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "signedint" if -(2**31) <= value < 2**31 else "long"
    return _NAMES.get(type(value), "longstr")


def typed(value: object) -> object:
    """Return a value with the types within: for RabbitMQ, true is not 1."""
    if isinstance(value, dict):
        return {name: typed(each) for name, each in value.items()}
    if isinstance(value, list):
        return [typed(each) for each in value]
    return type_name(value), value


def check_property(name: str, where: str, received: object, current: object) -> None:
    """Raise Refused if a property is not what it was when it was declared."""
    if received != current:
        told, known = (str(each).lower() if isinstance(each, bool) else each for each in (received, current))
        _differs(name, where, f"'{told}'", f"'{known}'")


def check_arguments(where: str, names: Iterable[str], received: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Raise Refused if one of the arguments with these names is not what it was when it was declared."""
    for name in names:
        if name in received and name in current:
            check_property(name, where, received[name], current[name])
        elif name in received or name in current:
            told = [
                f"the value '{_shown(each[name])}' of type '{type_name(each[name])}'" if name in each else "none"
                for each in (received, current)
            ]
            _differs(name, where, *told)


def _shown(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _differs(name: str, where: str, received: str, current: str) -> None:
    raise precondition_failed(f"inequivalent arg '{name}' for {where}: received {received} but current is {current}")
