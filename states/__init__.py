"""The declared lifecycle: the one place that decides what may happen to the connection when."""

from .connection import DESCRIPTIONS, DOCUMENTED, STATES, TRANSITIONS, Closed, Closing, Connecting, State, Substate
from .outage import OUT, OUTAGE_STATES, OUTAGE_TRANSITIONS, PUBLISH_OUTCOMES, Outage, PublishOutcome
from .vocabulary import Declared, Row

__all__ = [
    "DESCRIPTIONS",
    "DOCUMENTED",
    "OUT",
    "OUTAGE_STATES",
    "OUTAGE_TRANSITIONS",
    "PUBLISH_OUTCOMES",
    "STATES",
    "TRANSITIONS",
    "Closed",
    "Closing",
    "Connecting",
    "Declared",
    "Outage",
    "PublishOutcome",
    "Row",
    "State",
    "Substate",
]
