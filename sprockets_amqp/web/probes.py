"""Readiness and liveness probes, for load balancers and Kubernetes."""

from .handler import Handler
from .status import describe


class Ready(Handler):
    """Readiness: 200 while publishes go out or are stored; 503 while they wait or are refused, and during shutdown."""

    def get(self) -> None:
        """Answer with the status code, and the details as JSON."""
        status = describe(self.client)
        self.set_status(200 if status["ready"] else 503)
        self.finish(status)

    head = get


class Live(Handler):
    """Liveness: 200 while the client can still recover; 503 once it was closed for good, when a restart would help."""

    def get(self) -> None:
        """Answer with the status code, and the details as JSON."""
        status = describe(self.client)
        self.set_status(200 if status["live"] else 503)
        self.finish(status)

    head = get
