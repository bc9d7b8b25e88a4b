"""The declared lifecycle: the one place that decides what may happen when."""

from .connection import (
    CLOSABLE,
    DESCRIPTIONS,
    PUBLISH_OUTCOMES,
    PUBLISHABLE,
    REFUSED,
    TRANSITIONS,
    PublishOutcome,
    Row,
    State,
)

__all__ = [
    "CLOSABLE",
    "DESCRIPTIONS",
    "PUBLISHABLE",
    "PUBLISH_OUTCOMES",
    "REFUSED",
    "TRANSITIONS",
    "PublishOutcome",
    "Row",
    "State",
]
