"""Messages that die in a queue, and what their headers tell of it.

https://www.rabbitmq.com/docs/dlx
"""

import copy
import dataclasses
import datetime as dt
from typing import Any

from .messages import CC, as_delivered
from .rules import Published


@dataclasses.dataclass
class DeadLetter(Published):
    """A message that a broker published for one that died in a queue.

    Attributes:
        deaths: what its header ``x-death`` says, the last one first.
    """

    deaths: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def dead_letter(message: Published, queue: str, reason: str, exchange: str, routing_key: str | None) -> DeadLetter:
    """Return the message that a broker publishes for one that has died in a queue."""
    properties = copy.copy(as_delivered(message.properties))
    headers: dict[str, Any] = dict(properties.headers or {})
    copies = headers.get(CC)
    death: dict[str, Any] = {
        "count": 1,
        "reason": reason,
        "queue": queue,
        "time": dt.datetime.now(dt.UTC).replace(microsecond=0),
        "exchange": message.exchange,
        "routing-keys": [message.routing_key, *(copies if isinstance(copies, list) else [])],
    }
    if properties.expiration is not None:
        death["original-expiration"] = properties.expiration
        properties.expiration = None
    # What an application has put into this header is not believed.
    deaths = message.deaths if isinstance(message, DeadLetter) else []
    before = next((each for each in deaths if (each["queue"], each["reason"]) == (queue, reason)), None)
    if before is not None:
        death = {**before, "count": before["count"] + 1}
    deaths = [death, *(each for each in deaths if each is not before)]
    headers["x-death"] = deaths
    told = {"exchange": message.exchange, "queue": queue, "reason": reason}
    for name, value in told.items():
        headers[f"x-last-death-{name}"] = value
        if not isinstance(message, DeadLetter):
            headers[f"x-first-death-{name}"] = value
    properties.headers = headers
    fields = {each.name: getattr(message, each.name) for each in dataclasses.fields(Published)}
    fields |= {"exchange": exchange, "properties": properties, "mandatory": False, "queues": (), "confirmed": None}
    if routing_key is not None:
        fields["routing_key"] = routing_key
    return DeadLetter(**fields, deaths=deaths)


def died_in(letter: DeadLetter, queue: str) -> bool:
    """Return whether a message has died in a queue before, without anybody having rejected it."""
    return any(death["queue"] == queue for death in letter.deaths)
