"""The declared machines: the one place that decides what may happen to the connection, and when."""

from .connection import CONNECTION, DESCRIPTIONS, DOCUMENTED, Closed, Closing, Connecting, State, Substate
from .outage import OUTAGE, Outage
from .outbox import OUTBOX, Outbox
from .renewal import RENEWAL, Renewal
from .vocabulary import Action, Declared, Follow, Limit, Machine, PublishOutcome, Row

#: Every machine; the first leads, the others follow it.
MACHINES = (CONNECTION, OUTAGE, RENEWAL, OUTBOX)

__all__ = [
    "CONNECTION",
    "DESCRIPTIONS",
    "DOCUMENTED",
    "MACHINES",
    "OUTAGE",
    "OUTBOX",
    "RENEWAL",
    "Action",
    "Closed",
    "Closing",
    "Connecting",
    "Declared",
    "Follow",
    "Limit",
    "Machine",
    "Outage",
    "Outbox",
    "PublishOutcome",
    "Renewal",
    "Row",
    "State",
    "Substate",
]
