"""The declared lifecycle: the one place that decides what may happen to the connection, and when."""

from .connection import DESCRIPTIONS, DOCUMENTED, STATES, TRANSITIONS, Closed, Closing, Connecting, State, Substate
from .outage import OUT, OUTAGE_STATES, OUTAGE_TRANSITIONS, PUBLISH_OUTCOMES, SENDING, Outage, PublishOutcome
from .outbox import OUTBOX_OUTCOMES, OUTBOX_STATES, OUTBOX_TRANSITIONS, STARTED, Outbox
from .renewal import LOGGED_IN, RENEWAL_STATES, RENEWAL_TRANSITIONS, Renewal
from .vocabulary import Declared, Row

__all__ = [
    "DESCRIPTIONS",
    "DOCUMENTED",
    "LOGGED_IN",
    "OUT",
    "OUTAGE_STATES",
    "OUTAGE_TRANSITIONS",
    "OUTBOX_OUTCOMES",
    "OUTBOX_STATES",
    "OUTBOX_TRANSITIONS",
    "PUBLISH_OUTCOMES",
    "RENEWAL_STATES",
    "RENEWAL_TRANSITIONS",
    "SENDING",
    "STARTED",
    "STATES",
    "TRANSITIONS",
    "Closed",
    "Closing",
    "Connecting",
    "Declared",
    "Outage",
    "Outbox",
    "PublishOutcome",
    "Renewal",
    "Row",
    "State",
    "Substate",
]
