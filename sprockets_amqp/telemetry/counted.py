"""What is told of a client's counters, to Prometheus and to OpenTelemetry alike."""

from collections.abc import Callable
from typing import Final, NamedTuple

from sprockets_amqp.delivery.counters import Counters


class Counted(NamedTuple):
    """One of the counters: its name, what it is, of what, and its value."""

    name: str
    words: str
    unit: str
    value: Callable[[Counters], int]


#: What there is now.
GAUGES: Final = (
    Counted("waiting", "Messages in line.", "message", lambda counters: counters.waiting),
    Counted(
        "unconfirmed",
        "Messages on the wire, neither confirmed nor lost.",
        "message",
        lambda counters: counters.unconfirmed,
    ),
    Counted("stored", "Messages in the outbox, to be sent or confirmed.", "message", lambda counters: counters.stored),
    Counted(
        "set_aside", "Messages in the outbox that are no longer sent.", "message", lambda counters: counters.set_aside
    ),
)
#: What happened so far.
TOTALS: Final = (
    Counted(
        "reconnects", "Connections opened again after one was lost.", "connection", lambda counters: counters.reconnects
    ),
    Counted("returned", "Messages returned as unroutable.", "message", lambda counters: counters.returned),
)
