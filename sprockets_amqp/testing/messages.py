"""Messages: which properties RabbitMQ takes, and which of them a consumer sees."""

import copy
import re
from collections.abc import Mapping
from typing import Any, Final

from pika import BasicProperties

from .equivalence import precondition_failed, type_name
from .queues import check_time
from .rules import Published

#: The largest body in octets that RabbitMQ 4 takes by default.
LARGEST: Final = 16 * 1024**2
#: Headers that routing keys come from; nobody gets to see the second one.
CC: Final = "CC"
BCC: Final = "BCC"


def check_properties(message: Published) -> None:
    """Raise Refused for properties that RabbitMQ refuses."""
    its = message.properties
    if its.expiration is not None and (why := _bad_expiration(its.expiration)):
        raise precondition_failed(f"invalid expiration '{its.expiration}': {why}")
    headers: Mapping[str, Any] = its.headers or {}
    for name in (CC, BCC):
        if name in headers and not isinstance(headers[name], list):
            what = f'{{unacceptable_type_in_header,"{name}",{type_name(headers[name])}}}'
            raise precondition_failed(f"invalid message: {what}")
    # https://www.rabbitmq.com/docs/validated-user-id
    if its.user_id not in {None, message.user}:
        what = f"user_id property set to '{its.user_id}' but authenticated user was '{message.user}'"
        raise precondition_failed(what)


def _bad_expiration(text: str) -> str:
    number = re.match("[+-]?[0-9]+", text)
    if number is None:
        return "no_integer"
    if rest := text[number.end() :]:
        return f'{{leftover_string,"{rest}"}}'
    return check_time(int(number[0]))


def as_delivered(properties: BasicProperties) -> BasicProperties:
    """Return the properties that a consumer sees: without the header BCC."""
    if BCC not in (properties.headers or {}):
        return properties
    seen = copy.copy(properties)
    seen.headers = {name: value for name, value in (properties.headers or {}).items() if name != BCC}
    return seen
