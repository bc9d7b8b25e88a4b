"""What is on the wire: messages that were sent, and neither acknowledged nor lost, and how many there may be."""

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Final, Protocol

from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker
from pika.spec import BasicProperties

from sprockets_amqp.bounded_log import BoundedLog, named
from sprockets_amqp.errors import AMQPException, MessageNacked, MessageReturned, OutcomeUnknown
from sprockets_amqp.settings import Settings
from sprockets_amqp.wire.replies import BLAMELESS, NOT_ALLOWED

from .confirms import Confirms
from .counters import Counters
from .nacks import Nacks
from .publish import Publish, Result
from .reports import Reports

LOGGER = logging.getLogger("sprockets_amqp.delivery.publisher")

#: With how many messages of the same id, address and body a returned one is compared.
MOST_COMPARED: Final = 10
#: The first of RabbitMQ's reply codes that close the connection over an error (AMQP 0-9-1, section 1.2).
HARD_ERRORS: Final = 500


class End(Protocol):
    """Ends a publish: `Publisher.end`."""

    def __call__(self, publish: Publish, error: AMQPException | None = None, *, on_wire: bool = False) -> None:
        """End it; ``on_wire``: RabbitMQ may still confirm it."""


class Flight:
    """The messages on the wire, and their limits: number, octets, and time.

    Args:
        settings: the limits.
        counters: counts what becomes of messages.
        reports: who wants to know of returns.
        end: called with each message that was confirmed, nacked, or not confirmed in time.
        on_settled: called when RabbitMQ has confirmed messages.
        on_room: called when the last suspect has ended.
        on_nacks: called with why the channel should be replaced.
    """

    def __init__(
        self,
        settings: Settings,
        counters: Counters,
        reports: Reports,
        end: End,
        on_settled: Callable[[], object],
        on_room: Callable[[], object],
        on_nacks: Callable[[str], object],
        loop: asyncio.AbstractEventLoop,
        name: str,
    ) -> None:
        self._settings = settings
        self._counters = counters
        self._reports = reports
        self._end = end
        self._on_settled = on_settled
        self._on_room = on_room
        self._on_nacks = on_nacks
        self._loop = loop
        self._log = BoundedLog(named(LOGGER, name), loop.time)
        self._confirms: Confirms[Publish] = Confirms()
        self.nacks = Nacks(loop.time)
        self._enter = self._confirms.add
        #: The messages, by delivery tag, in the order in which they were sent.
        self.entries = self._confirms.entries
        #: The octets of their bodies.
        self.size = 0
        #: How many messages RabbitMQ may have closed the channel over: each of these suspects is sent alone.
        self._suspects = 0
        #: How many messages there may be: max_unconfirmed, or 1 as long as there are suspects, or none while a suspect
        #: is checked.
        self.window = settings.max_unconfirmed
        self._timer: asyncio.TimerHandle | None = None

    @property
    def has_room(self) -> bool:
        """Whether there may be one more."""
        return len(self.entries) < self.window and self.size < self._settings.max_unconfirmed_size

    def add(self, publish: Publish) -> None:
        """Add a publish that was sent."""
        self._enter(publish)
        self.size += len(publish.message.body)
        if self._timer is None:
            self._timer = self._loop.call_later(self._settings.confirm_timeout, self.expire)

    def replace(self, publish: Publish, by: Publish) -> None:
        """Let another publish of the same message be the one that is on the wire, for as long as it may be."""
        for tag, each in self.entries.items():
            if each is publish:
                self.entries[tag] = by
                by.sent_at, by.returned = publish.sent_at, publish.returned
                # A suspect is one until it has ended.
                by.future.add_done_callback(lambda _future: publish.future.cancel())
                break
        if self._timer is not None:
            self._timer.cancel()
        self.expire()

    def lose(self, cause: BaseException, *, checking: bool) -> list[Publish]:
        """Take all messages out: their channel is gone. ``checking``: a check may be to blame."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.size = 0
        self.nacks.begin_again()
        lost = self._confirms.clear()
        if len(lost) == 1 and not checking and _is_broken(cause):
            # Nothing else can be to blame: it is not sent again.
            lost[0].blamed += 1
        return lost

    def set_window(self, *, closed: bool) -> None:
        """Set how many messages there may be; ``closed``: none."""
        self.window = 0 if closed else 1 if self._suspects else self._settings.max_unconfirmed

    def suspect(self, publish: Publish) -> None:
        """Send one message at a time from now on, until this one has ended."""
        self._suspects += 1
        self.window = min(self.window, 1)
        publish.future.add_done_callback(self._clear_suspect)

    def blameless(self, lost: list[Publish], cause: BaseException) -> dict[Publish, None]:
        """Choose what is sent again: everything except a message that RabbitMQ refuses."""
        if not blames(cause):
            return dict.fromkeys(lost)
        again: dict[Publish, None] = {}
        for publish in lost:
            # Refused once along with others, it is sent again alone; refused alone, it is the culprit.
            if publish.blamed == 0:
                publish.blamed = 1
                self.suspect(publish)
                again[publish] = None
        return again

    def _clear_suspect(self, _future: "asyncio.Future[Result]") -> None:
        self._suspects -= 1
        self.set_window(closed=self.window == 0)
        self._on_room()

    # Called when RabbitMQ confirms or returns messages

    def on_confirm(self, delivery_tag: int, multiple: bool, acked: bool) -> None:
        """Settle the messages that an ack or nack covers."""
        settled = self._confirms.settle(delivery_tag, multiple)
        if not settled and not self._confirms.was_issued(delivery_tag):
            self._log.log(logging.WARNING, "RabbitMQ confirmed delivery tag %s, which was never sent", delivery_tag)
        if acked:
            self._counters.confirmed += len(settled)
            if self.nacks:
                self.nacks.acked(settled)
        else:
            self._counters.nacked += len(settled)
            if reason := self.nacks.nacked(settled):
                self._on_nacks(reason)
        for publish in settled:
            self.size -= len(publish.message.body)
            if not acked:
                self._end(publish, MessageNacked())
            elif publish.returned is not None and self._settings.fail_on_return:
                self._end(publish, MessageReturned(*publish.returned))
            else:
                self._end(publish)
        self._on_settled()

    def on_return(
        self, reply: tuple[int, str], exchange: str, routing_key: str, properties: BasicProperties, body: bytes
    ) -> None:
        """Record that a message was unroutable; its ack follows (https://www.rabbitmq.com/docs/publishers#unroutable)."""
        self._counters.returned += 1
        if not self._settings.fail_on_return and not self._reports:
            return
        # Returns come in the order of sending, so of messages that are the same, the next is the one. Ids may repeat,
        # and headers may decide where a message goes. Decoding them takes time, so only so many are compared.
        wanted = exchange, routing_key, body
        alike = functools.partial(_is_like, wanted, properties.message_id)
        found: list[Publish] = []
        for tag, publish in self._confirms.find(alike):
            if len(found) < MOST_COMPARED and publish.message.has(properties):
                self._confirms.found(tag)
                publish.returned = reply
                return
            found.append(publish)
        # RabbitMQ has changed something. Of several, none is taken for the one, nor for one that was routed.
        code, text = reply
        doubt = f"{text}; {len(found)} messages are alike, and it may have been another one of them"
        for publish in found:
            publish.returned = publish.returned or (reply if len(found) == 1 else (code, doubt))

    # Time

    def expire(self) -> None:
        """End publishes unconfirmed for confirm_timeout; the ledger keeps them, so that max_unconfirmed holds."""
        self._timer = None
        limit = self._settings.confirm_timeout
        for publish in self.entries.values():
            # What is kept elsewhere is sent again when its channel is gone, and not before.
            if not publish.waits:
                continue
            remaining = publish.sent_at + limit - self._loop.time()
            if remaining > 0:
                self._timer = self._loop.call_later(remaining, self.expire)
                return
            self._end(publish, OutcomeUnknown(f"no confirmation within {limit:g} s"), on_wire=True)


def blames(cause: BaseException | None, publish: Publish | None = None) -> bool:
    """Return whether RabbitMQ ended a channel or connection over its unconfirmed messages, or over this message alone.

    A message that was refused along with others is sent alone.
    """
    refused = isinstance(cause, ChannelClosedByBroker) or (
        isinstance(cause, ConnectionClosedByBroker) and cause.reply_code not in BLAMELESS
    )
    return refused and (publish is None or publish.blamed > 0)


def _is_broken(cause: BaseException) -> bool:
    """Return whether RabbitMQ closed the connection over something that it could not handle (5xx)."""
    return (
        isinstance(cause, ConnectionClosedByBroker)
        and cause.reply_code >= HARD_ERRORS
        and cause.reply_code != NOT_ALLOWED
    )


def _is_like(wanted: tuple[str, str, bytes], message_id: str | None, publish: Publish) -> bool:
    message = publish.message
    is_wanted = (message.exchange, message.routing_key, message.body) == wanted
    return is_wanted and (message.message_id or "") == (message_id or "")
