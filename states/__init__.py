"""The declared machines: the one place that decides what may happen to the connection, and when."""

from .check import CHECK, Check, Running
from .connection import CONNECTION, DESCRIPTIONS, DOCUMENTED, Closed, Closing, Connecting, State, Substate
from .ledger import LEDGER, Place
from .outage import OUTAGE, Outage
from .outbox import OUTBOX, Outbox
from .renewal import RENEWAL, Renewal
from .vocabulary import Action, Declared, Delay, Follow, Ignore, Limit, Machine, PublishOutcome, Row

#: Every machine; the first leads, the others follow it.
MACHINES = (CONNECTION, OUTAGE, RENEWAL, OUTBOX, CHECK)

__all__ = [
    "CHECK",
    "CONNECTION",
    "DESCRIPTIONS",
    "DOCUMENTED",
    "LEDGER",
    "MACHINES",
    "OUTAGE",
    "OUTBOX",
    "RENEWAL",
    "Action",
    "Check",
    "Closed",
    "Closing",
    "Connecting",
    "Declared",
    "Delay",
    "Follow",
    "Ignore",
    "Limit",
    "Machine",
    "Outage",
    "Outbox",
    "Place",
    "PublishOutcome",
    "Renewal",
    "Row",
    "Running",
    "State",
    "Substate",
]
