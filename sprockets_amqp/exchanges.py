"""Which exchanges RabbitMQ takes messages for.

A publish to an exchange that does not exist (404), or that the user may not write to (403), closes the channel under
every other message in flight. So RabbitMQ is asked about the first use of an exchange on a channel, and on its
connection before that (see `Link.ask`); what it answered is known until the channel is lost.
"""

import functools
import logging

from .link import Answer, Link
from .message import Message

LOGGER = logging.getLogger(__name__)


class Exchanges:
    """What is known of the exchanges, and the one question that is under way.

    Where RabbitMQ allows the user no channel to ask on, everything is taken for granted.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._unchecked = False
        #: By exchange and user_id.
        self._known: set[tuple[str, str | None]] = {("", None)}
        #: The message that is asked about.
        self._question: Message | None = None

    @property
    def asking(self) -> Message | None:
        """The message that RabbitMQ is asked about; the next question has to wait."""
        return self._question

    def knows(self, message: Message) -> bool:
        """Tell whether RabbitMQ took a message like this before: to its exchange, in the name of its user id."""
        return (message.exchange, message.user_id) in self._known or self._unchecked

    def ask(self, message: Message, on_answer: Answer) -> None:
        """Ask RabbitMQ whether it would take the message. No answer comes when the channel is lost meanwhile."""
        self._question = message
        callback = functools.partial(self._on_answer, message, on_answer)
        self._link.ask(message.exchange, message.routing_key, message.user_id, callback)

    def give_up(self) -> None:
        """Wait for the answer no longer: nobody is left who wants it."""
        self._question = None
        self._link.drop_question()

    def forget(self) -> None:
        """Know nothing any more: the publishing channel was lost, so something has changed."""
        self._known = {("", None)}
        self.give_up()
        if self._link.refuses_questions and not self._unchecked:
            LOGGER.warning("RabbitMQ allows this user no second channel: exchanges are used unchecked")
            self._unchecked = True

    def _on_answer(self, message: Message, on_answer: Answer, refusal: tuple[int, str] | None) -> None:
        if message is not self._question:
            # It was given up.
            return
        self._question = None
        if refusal is None:
            self._known.add((message.exchange, message.user_id))
        on_answer(refusal)
