"""The outage: the model of the machine that `states/outage.py` declares."""

import asyncio
import logging
from collections.abc import Callable

from transitions import EventData

from sprockets_amqp.bounded_log import named
from sprockets_amqp.delivery.publisher import Publisher
from sprockets_amqp.delivery.surroundings import Gate
from sprockets_amqp.model import Model, Timeout, Trigger
from sprockets_amqp.states import OUTAGE, Outage

LOGGER = logging.getLogger("sprockets_amqp.outage")


class OutageModel(Model):
    """The model: whether the connection behind the gate is out, and has been for too long."""

    machine = OUTAGE
    state: Outage
    # Added by the declaration; tests/test_states.py keeps the two in step.
    outage_began: Trigger
    outage_lasted: Trigger
    outage_ended: Trigger

    def __init__(
        self,
        gate: Gate,
        publisher: Publisher,
        timeout: float,
        on_persistent_failure: Callable[[], object],
        loop: asyncio.AbstractEventLoop,
        name: str,
    ) -> None:
        super().__init__(loop, name)
        self._log = named(LOGGER, name)
        self._gate = gate
        self._publisher = publisher
        self._timeout = timeout
        self._on_persistent_failure = on_persistent_failure
        #: When the present or last one began, in the loop's time.
        self.began = 0.0

    def note_beginning(self, _event: EventData) -> None:
        """Note when publishing became impossible."""
        self.began = self._loop.time()

    def patience(self, _event: EventData) -> Timeout:
        """Return how long an outage may last before it is persistent."""
        return self._timeout, ""

    def tell_persistent_failure(self, _event: EventData) -> None:
        """Report, once in each outage, that it is persistent."""
        gate = self._gate
        self._log.warning(
            "not ready for %g s: %s; a publish now %s", self._timeout, gate.condition, gate.publish_outcome
        )
        self._on_persistent_failure()

    def give_up_waiting(self, _event: EventData) -> None:
        """End waiting messages, or store them."""
        self._publisher.give_up_waiting()

    def give_up_unconfirmed(self, _event: EventData) -> None:
        """End what RabbitMQ has not confirmed: while it is blocking, it may keep its confirms back for hours."""
        self._publisher.give_up_unconfirmed()
