"""Which exchanges RabbitMQ takes messages for.

A publish to an exchange that does not exist (404), or that the user may not write to (403), closes the channel under
every other message in flight. So RabbitMQ is asked about the first use of an exchange on a channel, and on its
connection before that (see `Link.ask`); what it answered is known until the channel is lost.
"""

import asyncio
import functools
from typing import Final

from .link import Answer, Link
from .message import Message

#: Seconds that RabbitMQ may take to answer; whoever still wants to know asks again.
QUESTION_LIMIT: Final = 5.0


class Exchanges:
    """What is known of the exchanges, and the one question that is under way.

    Where RabbitMQ allows the user no channel to ask on, everything is taken for granted.
    """

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        #: By exchange and user_id.
        self._known: set[tuple[str, str | None]] = {("", None)}
        self._question: Message | None = None
        self._limit: asyncio.TimerHandle | None = None

    @property
    def asking(self) -> Message | None:
        """The message for whose like RabbitMQ is asked; the next question has to wait."""
        return self._question

    def knows(self, message: Message) -> bool:
        """Tell whether RabbitMQ took a message like this before: to its exchange, in the name of its user id."""
        return (message.exchange, message.user_id) in self._known or self._link.refuses_questions

    def ask(self, message: Message, on_answer: Answer) -> None:
        """Ask RabbitMQ whether it takes messages like this one, be it that this one does not wait for it.

        Without an answer within 5 seconds, ``on_answer`` is called as if there were no refusal, and nothing is known.
        It is not called when the channel is lost meanwhile.
        """
        self._question = message
        self._limit = self._loop.call_later(QUESTION_LIMIT, self._give_up, on_answer)
        callback = functools.partial(self._on_answer, message, on_answer)
        self._link.ask(message.exchange, message.routing_key, message.user_id, callback)

    def forget(self) -> None:
        """Know nothing any more: the publishing channel was lost, so something has changed."""
        self._known = {("", None)}
        self._end_question()
        self._link.drop_question()

    def _on_answer(self, message: Message, on_answer: Answer, refusal: tuple[int, str] | None) -> None:
        if message is not self._question:
            # It was given up.
            return
        self._end_question()
        if refusal is None:
            self._known.add((message.exchange, message.user_id))
        on_answer(refusal)

    def _give_up(self, on_answer: Answer) -> None:
        self._end_question()
        self._link.drop_question()
        on_answer(None)

    def _end_question(self) -> None:
        self._question = None
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
