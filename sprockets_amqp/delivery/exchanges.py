"""Which messages RabbitMQ takes, where only RabbitMQ knows.

A publish to an exchange that does not exist (404), or that the user may not write to (403), closes the channel under
every other message in flight. So RabbitMQ is asked about the first use of an exchange on a channel, and on its
connection before that (see `Link.ask`); what it answered is known until the channel is lost.

Where it closed the channel all the same, over a topic that the user may not write to, it is asked about each routing
key of that exchange from then on. And a question that cost the connection is not asked again for a while.
"""

import asyncio
import functools
import logging
from collections import OrderedDict
from typing import Final, TypeVar

from pika.exceptions import ConnectionClosedByBroker

from sprockets_amqp.link import BLAMELESS, NOT_ALLOWED, Answer, Link
from sprockets_amqp.wire.replies import reply

from .message import Message

Value = TypeVar("Value")

LOGGER = logging.getLogger(__name__)

#: Seconds that RabbitMQ may take to answer; whoever still wants to know asks again.
QUESTION_LIMIT: Final = 5.0
#: Seconds for which a question that cost the connection is not asked again.
COSTLY_LIMIT: Final = 300.0
#: How much is remembered of each kind; what is forgotten is asked again.
MEMORY_LIMIT: Final = 10_000
#: RabbitMQ's reply code for what the user may not do.
ACCESS_REFUSED: Final = 403

#: What an answer is about: exchange and user_id; where routing keys are judged one by one, those as well.
Subject = tuple[str | int | None, ...]
#: The default exchange, which everybody has and may mostly write to, and its name in permissions and refusals.
DEFAULT_EXCHANGE: Final[Subject] = ("", None)
DEFAULT_NAME: Final = "amq.default"
#: RabbitMQ 4.3 cannot say no in more than 255 octets, and closes the connection with 541 instead. Its words are limited
#: to 255 characters: only a long name that is not ASCII makes more octets of them. One such name stands for all.
LONG_NAME: Final[Subject] = ("long and not ASCII",)
LONG: Final = 100


class Exchanges:
    """What is known of the exchanges, and the one question that is under way.

    Where RabbitMQ allows the user no channel to ask on, everything is taken for granted.
    """

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        self._known: OrderedDict[Subject, None] = OrderedDict.fromkeys([DEFAULT_EXCHANGE])
        #: Whether the default exchange is taken for granted: RabbitMQ never refused it.
        self._grants_default = True
        #: The exchanges where RabbitMQ refused a topic: each of their routing keys is asked about.
        self._judged: set[str] = set()
        #: The questions that may have cost the connection, how often, and which of them did: until when, and the reply.
        self._suspected: OrderedDict[Subject, int] = OrderedDict()
        self._costly: OrderedDict[Subject, tuple[float, tuple[int, str]]] = OrderedDict()
        self._question: Message | None = None
        self._on_answer: Answer | None = None
        self._limit: asyncio.TimerHandle | None = None

    @property
    def asking(self) -> Message | None:
        """The message for whose like RabbitMQ is asked; the next question has to wait."""
        return self._question

    def knows(self, message: Message) -> bool:
        """Tell whether RabbitMQ took a message like this before: to its exchange, in the name of its user id."""
        return (
            (message.exchange, message.user_id) in self._known
            or self._link.refuses_questions
            or (message.exchange in self._judged and self.subject(message) in self._known)
        )

    def subject(self, message: Message) -> Subject:
        """Return what RabbitMQ's answer about this message is about: it is the same for all that share it."""
        if message.exchange in self._judged:
            # The copies may be long; their hash is not.
            return message.exchange, message.user_id, message.routing_key, hash(message.copies)
        return message.exchange, message.user_id

    def ask(self, message: Message, on_answer: Answer) -> None:
        """Ask RabbitMQ whether it takes messages like this one, even where this one does not wait for it.

        Without an answer within 5 seconds, ``on_answer`` is called as if there were no refusal, and nothing is known.
        It is not called when the channel is lost meanwhile, unless the question was what the connection was lost over.
        """
        self._question = message
        self._on_answer = on_answer
        callback = functools.partial(self._answer, message)
        refusal = self._remembered(message)
        if refusal is not None:
            self._loop.call_soon(callback, refusal)
            return
        self._limit = self._loop.call_later(QUESTION_LIMIT, self._give_up)
        self._link.ask(message, callback)

    def forget(self, cause: BaseException, *, alone: bool) -> None:
        """Know nothing any more: the publishing channel was lost, so something has changed.

        Args:
            cause: why it was lost.
            alone: whether no message was in flight beside the question, if there is one.
        """
        self._learn(*reply(cause))
        self._known = OrderedDict.fromkeys([DEFAULT_EXCHANGE] if self._grants_default else [])
        if isinstance(cause, ConnectionClosedByBroker) and cause.reply_code not in {*BLAMELESS, NOT_ALLOWED}:
            self._suspect(reply(cause), alone=alone)
        self._end_question()
        self._link.drop_question()

    def _answer(self, message: Message, refusal: tuple[int, str] | None) -> None:
        if message is not self._question:
            # It was given up.
            return
        if refusal is None:
            _remember(self._known, self.subject(message), None)
        on_answer = self._end_question()
        on_answer(refusal)

    def _give_up(self) -> None:
        on_answer = self._end_question()
        self._link.drop_question()
        on_answer(None)

    def _end_question(self) -> Answer:
        on_answer, self._on_answer = self._on_answer, None
        self._question = None
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        return on_answer or _tell_nobody

    # What was learnt from a loss

    def _learn(self, reply_code: int, reply_text: str) -> None:
        if reply_code != ACCESS_REFUSED:
            return
        used = {str(exchange) for exchange, *_ in self._known}
        # A long routing key leaves no room for the exchange's name: then it may be any.
        named = {exchange for exchange in used if f"'{exchange or DEFAULT_NAME}'" in reply_text} or used
        if " topic '" in reply_text:
            self._judged |= named - {""}
        elif "" in named:
            self._grants_default = False

    def _suspect(self, refusal: tuple[int, str], *, alone: bool) -> None:
        message = self._question
        if message is None or not self._link.asked:
            return
        subject = self._costly_subject(message)
        times = self._suspected.pop(subject, 0) + 1
        if alone or times > 1:
            _remember(self._costly, subject, (self._loop.time() + COSTLY_LIMIT, refusal))
            LOGGER.warning(
                "a question about exchange %r cost the connection: not asked again for %g s",
                message.exchange,
                COSTLY_LIMIT,
            )
            # Later: the loss is being dealt with.
            self._loop.call_soon(self._end_question(), refusal)
        else:
            _remember(self._suspected, subject, times)

    def _remembered(self, message: Message) -> tuple[int, str] | None:
        until, refusal = self._costly.get(self._costly_subject(message), (0.0, None))
        return refusal if self._loop.time() < until else None

    def _costly_subject(self, message: Message) -> Subject:
        words = f"{message.exchange}{message.routing_key}{message.user_id or ''}"
        return LONG_NAME if len(words) > LONG and not words.isascii() else self.subject(message)


def _remember(memory: "OrderedDict[Subject, Value]", subject: Subject, value: Value) -> None:
    memory[subject] = value
    if len(memory) > MEMORY_LIMIT:
        memory.popitem(last=False)


def _tell_nobody(_refusal: tuple[int, str] | None) -> None:
    """The question was ended by a loss."""
