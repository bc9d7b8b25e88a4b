"""The renewal of credentials: the model of the machine that `states/renewal.py` declares."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from transitions import EventData

from sprockets_amqp.bounded_log import BoundedLog, named
from sprockets_amqp.errors import AMQPException
from sprockets_amqp.model import Model, Timeout, Trigger
from sprockets_amqp.states import RENEWAL, Renewal

from .address import CALL_LIMIT, Address
from .attempts import Backoff
from .link import Link

LOGGER = logging.getLogger("sprockets_amqp.renewal")

#: The part of the credentials' validity that is reserved for renewing them.
RESERVE: Final = 1 / 3
#: The part of it that is the first delay after a failed renewal.
RETRY: Final = 1 / 30
#: The least seconds between two renewals, however short the validity is.
SHORTEST_DELAY: Final = 0.1


class RenewalModel(Model):
    """The model: whether the open connection's credentials need renewing, and how far that has got."""

    machine = RENEWAL
    state: Renewal
    # Added by the declaration; tests/test_states.py keeps the two in step.
    login_accepted: Trigger
    renewal_due: Trigger
    credentials_given: Trigger
    secret_accepted: Trigger
    renewal_failed: Trigger
    login_ended: Trigger

    def __init__(
        self,
        address: Address,
        link: Link,
        forget_answers: Callable[[], object],
        max_retry_delay: float,
        loop: asyncio.AbstractEventLoop,
        name: str,
    ) -> None:
        super().__init__(loop, name)
        self._forget_answers = forget_answers
        self._address = address
        self._link = link
        self._max_retry_delay = max_retry_delay
        self._retries = Backoff(SHORTEST_DELAY, max_retry_delay)
        self._log = BoundedLog(named(LOGGER, name), loop.time)

    @property
    def expires(self) -> bool:
        """Whether the credentials expire."""
        return self._address.expires

    @property
    def expired(self) -> bool:
        """Whether the credentials have expired, or nearly so: RabbitMQ's clock is another."""
        return self.expires and self._address.valid_for <= self._address.lifetime * RETRY

    @property
    def sendable(self) -> bool:
        """Whether the new password is for the user of the open connection."""
        return self._link.user == self._address.user

    def renewal_delay(self, event: EventData) -> Timeout:
        """Return the delay before the function is called again: most of the validity; after a failure, the back-off."""
        if event.event.name == "renewal_failed":
            return self._retries.next(), ""
        lifetime = self._address.lifetime
        self._retries = Backoff(max(lifetime * RETRY, SHORTEST_DELAY), self._max_retry_delay)
        return max(self._address.valid_for - lifetime * RESERVE, SHORTEST_DELAY), ""

    def call_limit(self, _event: EventData) -> Timeout:
        """Return how long the function may take."""
        return CALL_LIMIT, f"{self._address.function} has not returned within {CALL_LIMIT:g} s"

    def call_again(self, _event: EventData) -> None:
        """Call the function for new credentials."""
        self._address.call(self._on_answer, for_connection=True)

    def stop_call(self, _event: EventData) -> None:
        """Cancel the call."""
        self._address.stop_call()

    def send_secret(self, _event: EventData) -> None:
        """Send RabbitMQ the new password on the open connection."""
        self._link.renew_secret(self._address.password, lambda: self.feed(self.secret_accepted))

    def forget_answers(self, _event: EventData) -> None:
        """Have every exchange checked again: RabbitMQ looks the permissions up again (seen on 4.3.6)."""
        self._forget_answers()

    def tell_other_user(self, _event: EventData) -> None:
        """Log that the open connection keeps its user."""
        self._log.log(
            logging.WARNING,
            "%s returned another user: it takes effect with the next connection; this one keeps its user",
            self._address.function,
        )

    def tell_failure(self, event: EventData) -> None:
        """Log that the renewal failed, and how much time is left."""
        left = self._address.valid_for
        time = f"they are valid for another {left:.1f} s" if left > 0 else f"they expired {-left:.1f} s ago"
        self._log.log(
            logging.WARNING,
            "renewing the credentials failed: %s; %s, and the connection stays open",
            event.kwargs.get("reason", ""),
            time,
        )

    def _on_answer(self, problem: AMQPException | None) -> None:
        if problem is not None:
            self.feed(self.renewal_failed, str(problem))
        else:
            self.feed(self.credentials_given)
