"""The declared lifecycle: the one place that decides what may happen to the connection when."""

from .connection import DESCRIPTIONS, DOCUMENTED, STATES, TRANSITIONS, Closed, Closing, Connecting, State, Substate
from .outage import OUT, OUTAGE_STATES, OUTAGE_TRANSITIONS, PUBLISH_OUTCOMES, Outage, PublishOutcome
from .renewal import LOGGED_IN, RENEWAL_STATES, RENEWAL_TRANSITIONS, Renewal
from .vocabulary import Declared, Row

__all__ = [
    "DESCRIPTIONS",
    "DOCUMENTED",
    "LOGGED_IN",
    "OUT",
    "OUTAGE_STATES",
    "OUTAGE_TRANSITIONS",
    "PUBLISH_OUTCOMES",
    "RENEWAL_STATES",
    "RENEWAL_TRANSITIONS",
    "STATES",
    "TRANSITIONS",
    "Closed",
    "Closing",
    "Connecting",
    "Declared",
    "Outage",
    "PublishOutcome",
    "Renewal",
    "Row",
    "State",
    "Substate",
]
