"""An observer that keeps what it is told."""

from collections.abc import Callable
from typing import Any

from sprockets_amqp import Client, Delivery, Outcome, Publish, PublishEnd


class Seen:
    """An observer that keeps what it is told, and may add headers."""

    def __init__(self, **headers: Any) -> None:
        self.headers = headers
        self.begun: list[Publish] = []
        self.ends: list[PublishEnd] = []
        self.deliveries: list[Delivery] = []

    def publishing(self, publish: Publish) -> Callable[[PublishEnd], object]:
        """Keep it."""
        self.begun.append(publish)
        publish.headers.update(self.headers)
        return self.ends.append

    def delivered(self, delivery: Delivery) -> None:
        """Keep it."""
        self.deliveries.append(delivery)

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcomes so far."""
        return [end.outcome for end in self.ends]

    def of(self, client: Client) -> "Seen":
        """Observe a client."""
        client.observe(self)
        return self
