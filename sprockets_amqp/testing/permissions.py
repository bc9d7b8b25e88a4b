"""What clients may do, as ``rabbitmqctl set_permissions`` and ``set_topic_permissions`` say it.

https://www.rabbitmq.com/docs/access-control#authorisation
"""

import re

from pika.spec import ACCESS_REFUSED

from .rules import Refused

VERBS = ("configure", "write", "read")


class Permissions:
    """What clients may do in a virtual host: patterns, of which the empty one matches nothing."""

    def __init__(self) -> None:
        self._patterns = dict.fromkeys(VERBS, re.compile(""))
        self._topics: dict[str, dict[str, re.Pattern[str]]] = {}

    def set(self, **patterns: str) -> None:
        """Allow what the patterns match. Raises ValueError for one that is no pattern."""
        self._patterns = {verb: _pattern(pattern) for verb, pattern in patterns.items()}

    def set_topic(self, exchange: str, **patterns: str) -> None:
        """Allow the routing keys that the patterns match, for one exchange."""
        self._topics[exchange] = {verb: _pattern(pattern) for verb, pattern in patterns.items()}

    def check(self, verb: str, name: str, where: str, user: str) -> None:
        """Raise Refused if clients may not do something with an exchange or a queue."""
        if not self._patterns[verb].search(name):
            raise _refused(verb, where, user)

    def check_topic(self, verb: str, exchange: str, routing_key: str, where: str, user: str) -> None:
        """Raise Refused if clients may not write, or read, a routing key."""
        patterns = self._topics.get(exchange)
        if patterns is not None and not patterns[verb].search(routing_key):
            raise _refused(verb, f"topic '{routing_key}' in {where}", user)


def _refused(verb: str, where: str, user: str) -> Refused:
    return Refused(ACCESS_REFUSED, f"ACCESS_REFUSED - {verb} access to {where} refused for user '{user}'")


def _pattern(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern or "^$")
    except re.error as error:
        raise ValueError(f"{pattern!r:.80} is no regular expression: {error}") from None
