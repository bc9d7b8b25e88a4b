"""The response to an HTTP request whose event could not be published.

It says what happened and what to do. Hosts, exchanges and RabbitMQ's own words are logged, not sent to the caller.
"""

from dataclasses import dataclass
from typing import Any, Final

from sprockets_amqp.errors import (
    AMQPException,
    ExchangeRefused,
    InvalidMessage,
    MessageNacked,
    MessageReturned,
    NotReadyError,
    OutcomeUnknown,
    PublishingFailure,
)

_ANSWERS: Final[dict[type[AMQPException], tuple[int, str]]] = {
    NotReadyError: (503, "The message broker is not available. Nothing was published: try again later."),
    InvalidMessage: (500, "The application created an invalid message. Nothing was published."),
    ExchangeRefused: (502, "The message broker refused the message's exchange. Nothing was published."),
    MessageReturned: (502, "The message broker had no queue for the message and dropped it."),
    MessageNacked: (502, "The message broker did not accept the message: try again later."),
    OutcomeUnknown: (502, "The message broker did not confirm the message: it may or may not have been published."),
    PublishingFailure: (502, "The message could not be published."),
}


@dataclass(frozen=True)
class Answer:
    """The response to a request whose publish failed.

    Attributes:
        status: the HTTP status.
        reason: a sentence for the caller.
        error: what the publish raised.
    """

    status: int
    reason: str
    error: AMQPException

    @property
    def document(self) -> dict[str, Any]:
        """The response's JSON document."""
        message_id: object = self.error.message_id
        return {
            "error": type(self.error).__name__,
            "reason": self.reason,
            # An application that creates an error itself may put any object here.
            "message_id": None if message_id is None else str(message_id),
            "may_have_arrived": self.error.may_have_arrived,
        }


def answer(error: object) -> Answer | None:
    """Return the response to what a handler raised, or None if no publish raised it.

    Of several in a group, as an `asyncio.TaskGroup` raises them, one that may have arrived decides.
    """
    if isinstance(error, BaseExceptionGroup):
        answers = [found for each in error.exceptions if (found := answer(each)) is not None]
        is_known = len(answers) == len(error.exceptions)
        return max(answers, key=lambda found: found.error.may_have_arrived) if is_known else None
    for known in type(error).__mro__:
        if known in _ANSWERS and isinstance(error, AMQPException):
            return Answer(*_ANSWERS[known], error)
    return None
