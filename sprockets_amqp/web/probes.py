"""Readiness and liveness, for whoever routes requests."""

from .handler import Handler
from .status import describe


class Ready(Handler):
    """Readiness: 200 while publishes go out or are stored; 503 while they wait or are refused, and at the end."""

    def get(self) -> None:
        """Answer with the status and, as JSON, what is behind it."""
        status = describe(self.client)
        self.set_status(200 if status["ready"] else 503)
        self.finish(status)

    head = get


class Live(Handler):
    """Liveness: 200 while the client can still recover, 503 once it was closed for good: a restart would help."""

    def get(self) -> None:
        """Answer with the status and, as JSON, what is behind it."""
        status = describe(self.client)
        self.set_status(200 if status["live"] else 503)
        self.finish(status)

    head = get
