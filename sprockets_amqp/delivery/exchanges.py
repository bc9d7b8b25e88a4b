"""Which messages RabbitMQ accepts, where only RabbitMQ knows.

A publish to an exchange that does not exist (404), or that the user may not write to (403), closes the channel under
every other message in flight. So before an exchange is first used on a channel, RabbitMQ is asked about it on another
channel (see `Link.ask`); its answer holds until the publishing channel is lost.

If RabbitMQ still closes the channel, over a topic that the user may not write to, it is asked about each routing key of
that exchange from then on. A question that cost the connection is not asked again for a while.
"""

import asyncio
import functools
import logging
from collections import OrderedDict
from typing import Final, TypeVar

from pika.exceptions import ConnectionClosedByBroker

from sprockets_amqp.bounded_log import named
from sprockets_amqp.link import ACCESS_REFUSED, BLAMELESS, NOT_ALLOWED, Answer, Link
from sprockets_amqp.wire.replies import reply

from .message import Message

Value = TypeVar("Value")

LOGGER = logging.getLogger(__name__)

#: Seconds that RabbitMQ may take to answer; after that the question is asked again if it is still needed.
QUESTION_LIMIT: Final = 5.0
#: Seconds during which a question that cost the connection is not asked again.
COSTLY_LIMIT: Final = 300.0
#: How many entries of each kind are remembered; about forgotten ones, RabbitMQ is asked again.
MEMORY_LIMIT: Final = 10_000

#: What an answer is about: exchange and user_id; where routing keys are checked one by one, those as well.
Subject = str | tuple[str | int | None, ...]
#: The default exchange, which always exists and usually may be written to, and its name in permissions and refusals.
DEFAULT_EXCHANGE: Final[Subject] = ""
DEFAULT_NAME: Final = "amq.default"
#: RabbitMQ 4.3 cannot refuse in more than 255 octets, and closes the connection with 541 instead. It limits its words
#: to 255 characters: only a long name that is not ASCII makes more octets of them. One such name stands for all.
LONG_NAME: Final[Subject] = ("long and not ASCII",)
LONG: Final = 100


class Exchanges:
    """What is known about the exchanges, and the one question that is open.

    If RabbitMQ allows the user no channel for questions, everything is assumed to be accepted.
    """

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._log = named(LOGGER, name)
        self._link = link
        self._loop = loop
        self._known: OrderedDict[Subject, None] = OrderedDict.fromkeys([DEFAULT_EXCHANGE])
        #: Whether the default exchange is assumed to be accepted: RabbitMQ has never refused it.
        self._grants_default = True
        #: The exchanges for which RabbitMQ refused a topic: it is asked about each of their routing keys.
        self._judged: set[str] = set()
        #: Questions that may have cost the connection, and how often; those that did, with the reply and until when it
        #: holds.
        self._suspected: OrderedDict[Subject, int] = OrderedDict()
        self._costly: OrderedDict[Subject, tuple[float, tuple[int, str]]] = OrderedDict()
        self._question: Message | None = None
        self._on_answer: Answer | None = None
        self._limit: asyncio.TimerHandle | None = None

    @property
    def asking(self) -> Message | None:
        """The message that RabbitMQ is being asked about; the next question must wait."""
        return self._question

    def knows(self, message: Message) -> bool:
        """Return whether RabbitMQ accepted such a message before: to this exchange, with this user id."""
        return (
            (message.exchange if message.user_id is None else (message.exchange, message.user_id)) in self._known
            or self._link.refuses_questions
            or (message.exchange in self._judged and self.subject(message) in self._known)
        )

    def subject(self, message: Message) -> Subject:
        """Return what RabbitMQ's answer about this message is about: the answer is the same for all that share it."""
        if message.exchange in self._judged:
            # The copies may be long; their hash is not.
            return message.exchange, message.user_id, message.routing_key, hash(message.copies)
        return message.exchange if message.user_id is None else (message.exchange, message.user_id)

    def ask(self, message: Message, on_answer: Answer) -> None:
        """Ask RabbitMQ whether it accepts messages like this one, even if this one does not wait for the answer.

        Without an answer within 5 seconds, ``on_answer`` is called as if there were no refusal, and nothing is
        remembered. It is not called if the channel is lost first, unless the question itself caused the loss.
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
        """Forget all answers: the publishing channel was lost, so something has changed.

        Args:
            cause: why it was lost.
            alone: whether no message was in flight besides the question, if there is one.
        """
        self._learn(*reply(cause))
        self._known = OrderedDict.fromkeys([DEFAULT_EXCHANGE] if self._grants_default else [])
        if isinstance(cause, ConnectionClosedByBroker) and cause.reply_code not in {*BLAMELESS, NOT_ALLOWED}:
            self._suspect(reply(cause), alone=alone)
        self._end_question()
        self._link.drop_question()

    def _answer(self, message: Message, refusal: tuple[int, str] | None) -> None:
        if message is not self._question:
            # The question was given up.
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

    # Learning from a loss

    def _learn(self, reply_code: int, reply_text: str) -> None:
        if reply_code != ACCESS_REFUSED:
            return
        used = {subject if isinstance(subject, str) else str(subject[0]) for subject in self._known}
        # A long routing key leaves no room for the exchange's name: then it may be any of them.
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
            self._log.warning(
                "RabbitMQ closed the connection when asked about exchange %r; it is not asked again for %g s",
                message.exchange,
                COSTLY_LIMIT,
            )
            # Later, because the loss is still being handled.
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
    """Called instead of an answer's callback when a loss ended the question."""
