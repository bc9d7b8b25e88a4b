"""Which messages RabbitMQ accepts, where only RabbitMQ knows.

A publish to an exchange that does not exist (404), or that the user may not write to (403), closes the channel under
every other message in flight. So an exchange is checked before it is first used on a channel (`check`); the answer
holds until that channel is lost.

If RabbitMQ refuses a topic that the user may not write to, that says nothing about other topics: each routing key of
that exchange is checked for a while. A check that cost the connection is made again with nothing else in flight; if
that costs the connection, once more with the message's headers, for there are types of exchanges that fail without one
of them; then it is not made again for a while. It does not have the headers from the start because there are types that
act on them at once, whatever becomes of the transaction: those that drop duplicates would drop the message.

RabbitMQ's reply texts quote names and routing keys, which strangers have chosen. Only their beginning is RabbitMQ's
own; what follows is compared as a whole with the texts about the messages that were in flight.
"""

import asyncio
import functools
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from pika.exceptions import ConnectionClosedByBroker

from sprockets_amqp.bounded_log import BoundedLog, named
from sprockets_amqp.text import SENTENCE_LIMIT, shown
from sprockets_amqp.wire.replies import ACCESS_REFUSED, BLAMELESS, NOT_ALLOWED, reply

from .check import Answer, CheckModel
from .message import Message
from .publish import Publish
from .surroundings import Wire

Value = TypeVar("Value")

LOGGER = logging.getLogger(__name__)

#: Seconds during which a check that cost the connection is not made again, and each routing key of an exchange is
#: checked of which RabbitMQ refused a topic.
COSTLY_LIMIT: Final = 300.0
#: How many entries of each kind are remembered; forgotten ones are checked again.
MEMORY_LIMIT: Final = 10_000

#: What an answer is about: exchange and user_id; where routing keys are checked one by one, those as well.
Subject = str | tuple[str | int | None, ...]
#: Called with RabbitMQ's refusal, or None, and a function that says whether it holds for a message.
Verdict = Callable[[tuple[int, str] | None, Callable[[Message], bool]], None]
#: The default exchange, which always exists and usually may be written to, and its name in permissions and refusals.
DEFAULT_EXCHANGE: Final[Subject] = ""
DEFAULT_NAME: Final = "amq.default"
#: How RabbitMQ's refusals of a topic and of an exchange begin; what follows is quoted.
_OF_TOPIC: Final = re.compile(r"ACCESS_REFUSED - (?:\w+ )?access to topic '")
_OF_EXCHANGE: Final = re.compile(r"ACCESS_REFUSED - (?:\w+ )?access to exchange '")
#: Characters after which RabbitMQ cuts a text.
TEXT_LIMIT: Final = 250
#: RabbitMQ 4.3 cannot refuse in more than 255 octets, and closes the connection with 541 instead. It limits its texts
#: to 255 characters: only a long name that is not ASCII makes more octets of them. One such exchange stands for all,
#: and so does one such user.
LONG_EXCHANGE: Final[Subject] = ("long exchange, not ASCII",)
LONG_USER: Final[Subject] = ("long user_id, not ASCII",)
LONG: Final = 100
#: Stands in place of a routing key, which is a str, where an answer is about headers.
HEADERS: Final = 0


class Exchanges:
    """What is known about the exchanges, and the one check that is in progress."""

    def __init__(self, check: CheckModel, wire: Wire, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._log = BoundedLog(named(LOGGER, name), loop.time)
        self._check = check
        self._wire = wire
        self._loop = loop
        self._known: OrderedDict[Subject, None] = OrderedDict.fromkeys([DEFAULT_EXCHANGE])
        #: Of the exchanges that are judged: routing keys that RabbitMQ accepts, which push no exchange out.
        self._known_keys: OrderedDict[Subject, None] = OrderedDict()
        #: What RabbitMQ accepted on the last connection or channel, and may well accept again: each is checked first,
        #: but only once, or it would hold the others up.
        self._before: set[Subject] = set(self._known)
        #: Whether the default exchange is assumed to be accepted: RabbitMQ has never refused it.
        self._grants_default = True
        #: The exchanges for which RabbitMQ refused a topic, each with the time until which each of their routing keys
        #: is checked.
        self._judged: dict[str, float] = {}
        #: Those whose check without headers cost the connection, each with the time until which checks have them; what
        #: RabbitMQ accepts there holds for messages with the same headers, by name.
        self._needing_headers: OrderedDict[Subject, float] = OrderedDict()
        #: Checks that may have cost the connection, among others in flight; those that did, with the reply and until
        #: when it holds.
        self._suspected: OrderedDict[Subject, Publish] = OrderedDict()
        self._costly: OrderedDict[Subject, tuple[float, tuple[int, str]]] = OrderedDict()
        self._checked: Publish | None = None
        #: The publish that was being checked when all answers were doubted.
        self._doubted: Publish | None = None
        self._verdict: Verdict | None = None

    @property
    def checking(self) -> Publish | None:
        """The publish whose message is being checked; the next check must wait."""
        return self._checked

    @property
    def checking_alone(self) -> bool:
        """Whether that is a suspect, with which nothing else may be in flight."""
        return self._checked is not None and self._costly_subject(self._checked.message) in self._suspected

    def knows(self, message: Message) -> bool:
        """Return whether RabbitMQ accepted such a message before: to this exchange, with this user id."""
        return (
            message.exchange if message.user_id is None else (message.exchange, message.user_id)
        ) in self._known or (
            (message.exchange in self._judged or message.exchange in self._needing_headers)
            and self.subject(message) in self._known_keys
        )

    def knew(self, message: Message) -> bool:
        """Return whether RabbitMQ accepts such a message, or did on the last connection or channel."""
        return self.knows(message) or self.subject(message) in self._before

    @property
    def is_experienced(self) -> bool:
        """Whether RabbitMQ has accepted anything but the default exchange yet."""
        return len(self._before) > 1 or len(self._known) > 1

    def subject(self, message: Message) -> Subject:
        """Return what RabbitMQ's answer about this message is about: the answer is the same for all that share it."""
        until = self._judged.get(message.exchange)
        if until is not None and self._loop.time() >= until:
            del self._judged[message.exchange]
        elif until is not None:
            # The copies may be long; their hash is not.
            return message.exchange, message.user_id, message.routing_key, hash(message.copies)
        if message.exchange in self._needing_headers:
            return message.exchange, message.user_id, HEADERS, hash(tuple(sorted(map(str, message.headers))))
        return message.exchange if message.user_id is None else (message.exchange, message.user_id)

    def suspect(self) -> Publish | None:
        """Return a publish whose check may have cost the connection, and still has to be made; None if none."""
        while self._suspected:
            publish = next(iter(self._suspected.values()))
            if not publish.future.done():
                return publish
            self._suspected.popitem(last=False)
        return None

    def check(self, publish: Publish, verdict: Verdict) -> None:
        """Check whether RabbitMQ accepts messages like this one, even if nobody waits for the answer.

        Without an answer within 5 seconds, ``verdict`` is called as if there were no refusal, and nothing is
        remembered. It is not called if the channel is lost first, unless the check itself caused the loss.
        """
        self._checked, self._verdict, self._doubted = publish, verdict, None
        message = publish.message
        refusal = self._remembered(message)
        if refusal is not None:
            self._loop.call_soon(self._refuse_again, publish, refusal)
        else:
            self._check.check(message, self._headers_for(message), functools.partial(self._on_answer, publish))

    def forget(self, cause: BaseException, in_flight: Sequence[Message]) -> None:
        """Forget all answers: the publishing channel was lost, so something has changed.

        Args:
            cause: why it was lost.
            in_flight: the messages that were unconfirmed.
        """
        self._learn(*reply(cause), in_flight)
        self._forget_answers()
        if isinstance(cause, ConnectionClosedByBroker) and cause.reply_code not in {*BLAMELESS, NOT_ALLOWED}:
            self._suspect(reply(cause), alone=not in_flight)
        self._end_check()

    def doubt(self) -> None:
        """Have each exchange checked again before it is used again, as RabbitMQ may answer otherwise from now on."""
        self._forget_answers()
        self._doubted = self._checked

    def _forget_answers(self) -> None:
        if len(self._known) > 1:
            self._before = set(self._known)
        self._known = OrderedDict.fromkeys([DEFAULT_EXCHANGE] if self._grants_default else [])
        self._known_keys.clear()

    def _on_answer(self, publish: Publish, answer: Answer) -> None:
        if publish is not self._checked:
            # The channel was lost.
            return
        message, refusal = publish.message, answer.refusal
        self._suspected.pop(self._costly_subject(message), None)
        if not answer.in_time:
            # Nothing else waits for it once more.
            self._before.discard(self.subject(message))
            self._end_check()(None, lambda _each: False)
            return
        if refusal is not None and refusal[0] == ACCESS_REFUSED and _OF_TOPIC.match(refusal[1]):
            self._judge(message.exchange)
        subject = self.subject(message)
        self._before.discard(subject)
        if refusal is None and publish is self._doubted:
            # RabbitMQ may have answered before it looked the permissions up again.
            self._end_check()(None, lambda _each: False)
            return
        if refusal is None:
            is_plain = message.exchange not in self._judged and message.exchange not in self._needing_headers
            _remember(self._known if is_plain else self._known_keys, subject, None)
            if message.exchange in self._needing_headers:
                _remember(self._needing_headers, message.exchange, self._loop.time() + COSTLY_LIMIT)
        self._end_check()(refusal, lambda each: self.subject(each) == subject)

    def _refuse_again(self, publish: Publish, refusal: tuple[int, str]) -> None:
        if publish is self._checked:
            message = publish.message
            whole = _any_headers(message)
            subject = whole if whole in self._costly else self._costly_subject(message)
            self._end_check()(refusal, functools.partial(self._is_about, subject))

    def _end_check(self) -> Verdict:
        verdict, self._verdict = self._verdict, None
        self._checked = None
        return verdict or _tell_nobody

    # Learning from a loss

    def _learn(self, reply_code: int, reply_text: str, in_flight: Sequence[Message]) -> None:
        if reply_code != ACCESS_REFUSED:
            return
        # RabbitMQ may take the user's name from a certificate or a token: only RabbitMQ knows it.
        end = f"in vhost '{self._wire.vhost}' refused for user '"
        if start := _OF_TOPIC.match(reply_text):
            said = [(text, each.exchange) for each in in_flight for text in _refusals(each, start[0], end)]
            # One routing key may quote the refusal of another.
            longest = max((text for text, _ in said if reply_text.startswith(text)), key=len, default="")
            exact = {exchange for text, exchange in said if text == longest}
            cut = {exchange for text, exchange in said if _is_cut_from(text, reply_text)}
            # A long routing key may quote another refusal, or leave no room for its exchange's name.
            for exchange in exact | cut or {each.exchange for each in in_flight}:
                self._judge(exchange)
        elif (start := _OF_EXCHANGE.match(reply_text)) and any(not each.exchange for each in in_flight):
            of_default = f"{start[0]}{DEFAULT_NAME}' {end}"
            if reply_text.startswith(of_default) or _is_cut_from(of_default, reply_text):
                self._grants_default = False

    def _judge(self, exchange: str) -> None:
        if exchange:
            self._judged[exchange] = self._loop.time() + COSTLY_LIMIT
            self._forget_plain(exchange)

    def _forget_plain(self, exchange: str) -> None:
        for known in [each for each in self._known if each == exchange or (each[:1] == (exchange,) and len(each) == 2)]:
            del self._known[known]

    def _suspect(self, refusal: tuple[int, str], *, alone: bool) -> None:
        if self._checked is None or not self._check.on_wire:
            return
        message = self._checked.message
        subject = self._costly_subject(message)
        self._suspected.pop(subject, None)
        if not alone:
            _remember(self._suspected, subject, self._checked)
        elif message.headers and message.exchange not in self._needing_headers:
            _remember(self._needing_headers, message.exchange, self._loop.time() + COSTLY_LIMIT)
            self._forget_plain(message.exchange)
            _remember(self._suspected, self._costly_subject(message), self._checked)
        else:
            self._avoid(message, subject, refusal)

    def _avoid(self, message: Message, subject: Subject, refusal: tuple[int, str]) -> None:
        """Make no such check for a while."""
        now = self._loop.time()
        if message.exchange in self._needing_headers and any(
            each[:1] == (message.exchange,) and each[2:] and each[2] == HEADERS and now < until
            for each, (until, _) in self._costly.items()
        ):
            # Other headers did not help either: strangers may choose ever new ones.
            subject = _any_headers(message)
        _remember(self._costly, subject, (now + COSTLY_LIMIT, refusal))
        self._log.log(
            logging.WARNING,
            "RabbitMQ closed the connection over the check of exchange %r; it is not checked again for %g s",
            message.exchange,
            COSTLY_LIMIT,
        )
        # Deferred: the loss is still being handled.
        self._loop.call_soon(self._end_check(), refusal, functools.partial(self._is_about, subject))

    def _headers_for(self, message: Message) -> Mapping[str, Any]:
        """Return the headers that a check of this message has, besides those that hold routing keys."""
        until = self._needing_headers.get(message.exchange)
        if until is not None and self._loop.time() >= until:
            del self._needing_headers[message.exchange]
            until = None
        return message.headers if until is not None else {}

    def _remembered(self, message: Message) -> tuple[int, str] | None:
        if self.subject(message) in self._before:
            # RabbitMQ has accepted this very one.
            return None
        for subject in (self._costly_subject(message), _any_headers(message)):
            until, refusal = self._costly.get(subject, (0.0, None))
            if self._loop.time() < until:
                return refusal
        return None

    def _is_about(self, subject: Subject, message: Message) -> bool:
        return subject in {self._costly_subject(message), _any_headers(message)}

    def _costly_subject(self, message: Message) -> Subject:
        """Return what a check of this message that costs the connection is about."""
        if _is_long(message.user_id or ""):
            return LONG_USER
        if _is_long(message.exchange):
            return LONG_EXCHANGE
        if _is_long(message.routing_key) or message.copies:
            return message.exchange, message.user_id, message.routing_key, hash(message.copies)
        return self.subject(message)


def _any_headers(message: Message) -> Subject:
    return message.exchange, None, HEADERS


def _is_long(name: str) -> bool:
    return not name.isascii() and len(name.encode(errors="replace")) > LONG


def _refusals(message: Message, start: str, end: str) -> list[str]:
    """Return what RabbitMQ says if it refuses one of the message's topics, as it is made safe to show."""
    keys = (message.routing_key, *(route for _, routes in message.copies for route in routes))
    return [shown(f"{start}{key}' in exchange '{message.exchange}' {end}", SENTENCE_LIMIT) for key in keys]


def _is_cut_from(text: str, reply_text: str) -> bool:
    return len(reply_text) > TEXT_LIMIT and text.startswith(reply_text.removesuffix("..."))


def _remember(memory: "OrderedDict[Subject, Value]", subject: Subject, value: Value) -> None:
    memory[subject] = value
    if len(memory) > MEMORY_LIMIT:
        memory.popitem(last=False)


def _tell_nobody(_refusal: tuple[int, str] | None, _holds: Callable[[Message], bool]) -> None:
    """Called instead of a verdict when a loss ended the check."""
