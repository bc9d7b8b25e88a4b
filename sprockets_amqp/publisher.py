"""The way of a message: the line in which it waits, its limits and deadlines, the wire, and its one end.

Whether a message may go out, may wait or is refused, the lifecycle is asked; nothing of that is decided here.
"""

import asyncio
import dataclasses
import functools
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from .confirms import Confirms
from .errors import (
    AMQPException,
    ExchangeRefused,
    InvalidMessage,
    MessageNacked,
    MessageReturned,
    NotReadyError,
    OutcomeUnknown,
    describe,
)
from .exchanges import Exchanges
from .message import Message
from .settings import Settings
from .transport import Connection

LOGGER = logging.getLogger(__name__)

#: Seconds that a message of a ready client waits at least for RabbitMQ's word on its exchange.
PROBE_LIMIT: Final = 5.0
#: Seconds between looks at a socket that takes too little: without confirms nothing else tells when it took more.
CONGESTION_INTERVAL: Final = 0.05
#: RabbitMQ's reply code when an operator closes the connection (AMQP 0-9-1, CONNECTION_FORCED): no message's fault.
CONNECTION_FORCED: Final = 320


class Gate(Protocol):
    """What the publisher asks the lifecycle."""

    @property
    def publishable(self) -> bool:
        """Whether a message may go out now."""

    @property
    def awaitable(self) -> bool:
        """Whether a message may wait for that."""

    @property
    def condition(self) -> str:
        """In which state the connection is, and why, for people."""


@dataclasses.dataclass(slots=True)
class Counters:
    """How many messages there were, since the client was made.

    Attributes:
        published: handed to the transport; a message that is republished counts each time.
        confirmed: acknowledged by RabbitMQ.
        returned: returned by RabbitMQ as unroutable.
        nacked: refused by a queue.
        failed: publishes that ended with an error, of any kind.
        republished: sent again after a loss.
        reconnects: connections made again after one was lost.
        unconfirmed: on the wire now.
        waiting: in line now.
    """

    published: int = 0
    confirmed: int = 0
    returned: int = 0
    nacked: int = 0
    failed: int = 0
    republished: int = 0
    reconnects: int = 0
    unconfirmed: int = 0
    waiting: int = 0


class Publisher:
    """Takes messages in, sends them in order while the lifecycle lets it, and ends each exactly once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, gate: Gate, settings: Settings) -> None:
        self.counters = Counters()
        self._loop = loop
        self._gate = gate
        self._settings = settings
        self._window = settings.max_unconfirmed
        self._line: OrderedDict[Message, None] = OrderedDict()
        self._confirms: Confirms[Message] = Confirms()
        #: How many messages RabbitMQ may have closed the channel over: each of them is sent alone.
        self._suspects = 0
        self._connection: Connection | None = None
        self._exchanges: Exchanges | None = None
        self._channel_number = 0
        self._body_limit = self._header_limit = 0
        self._asking = False
        self._confirm_timer: asyncio.TimerHandle | None = None
        self._congestion_timer: asyncio.TimerHandle | None = None

    @property
    def unconfirmed(self) -> int:
        """How many messages are on the wire, neither acknowledged nor lost."""
        return len(self._confirms)

    @property
    def waiting(self) -> int:
        """How many messages are in line."""
        return len(self._line)

    # What the application asks

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | str,
        properties: Mapping[str, Any] | None,
        timeout: float | None,
        mandatory: bool,
    ) -> "asyncio.Future[None]":
        """Send a message, or put it in line; see `Client.publish`."""
        future = self._loop.create_future()
        try:
            limit = self._settings.timeout if timeout is None else _checked_limit(timeout)
            message = Message(future, exchange, routing_key, body, properties, self._settings.default_app_id, mandatory)
        except InvalidMessage as error:
            self.counters.failed += 1
            future.set_exception(error)
            return future
        exchanges = self._exchanges
        if not self._line and self._may_send() and exchanges is not None and exchanges.knows(message):
            self._send(message)
        else:
            self._wait(message, limit)
        return future

    # What the declared transitions do

    def attach(self, connection: Connection, channel_number: int, exchanges: Exchanges) -> None:
        """Send on this channel from now on."""
        self._connection = connection
        self._channel_number = channel_number
        self._exchanges = exchanges
        self._body_limit = self._settings.max_message_size or connection.body_limit
        self._header_limit = connection.header_limit

    def detach(self, reason: BaseException) -> None:
        """Settle what is unconfirmed: the channel is gone, and nobody knows what became of it."""
        self._connection = self._exchanges = None
        self._asking = False
        for timer in (self._confirm_timer, self._congestion_timer):
            if timer is not None:
                timer.cancel()
        self._confirm_timer = self._congestion_timer = None
        lost = [message for message in self._confirms.clear() if not message.future.done()]
        keep = self._kept(lost, reason) if self._settings.republish_unconfirmed and self._gate.awaitable else []
        for message in lost:
            if message not in keep:
                self._fail(message, OutcomeUnknown(describe(reason)), reason)
        for message in reversed(list(keep)):
            self._enter(message, self._settings.timeout)
            self._line.move_to_end(message, last=False)

    def send_waiting(self) -> None:
        """Send what waits, in order, as far as the lifecycle, the limits and RabbitMQ's word on exchanges let it."""
        while self._line and not self._asking and self._may_send() and self._exchanges is not None:
            message = next(iter(self._line))
            if not message.future.done() and not self._exchanges.knows(message):
                self._ask(message)
                return
            self._leave(message)
            if not message.future.done():
                self._send(message)

    def refuse_waiting(self) -> None:
        """End everything that waits: the connection is known to be gone for longer than anybody should wait."""
        while self._line:
            self._give_up(next(iter(self._line)), self._gate.condition)

    def call_when_drained(self, callback: Callable[[], object] | None) -> None:
        """Call back in a turn of the loop after the last message was settled; None takes the request back."""
        if callback is None:
            self._confirms.call_when_empty(None)
        elif self._confirms:
            self._confirms.call_when_empty(functools.partial(self._loop.call_soon, callback))
        else:
            self._loop.call_soon(callback)

    # What RabbitMQ says

    def on_confirm(self, delivery_tag: int, multiple: bool, acked: bool) -> None:
        """Settle what an ack or nack is about."""
        settled = self._confirms.settle(delivery_tag, multiple)
        if not settled and not self._confirms.was_issued(delivery_tag):
            LOGGER.warning("RabbitMQ confirmed delivery tag %s, which was never sent", delivery_tag)
        if acked:
            self.counters.confirmed += len(settled)
        else:
            self.counters.nacked += len(settled)
        for message in settled:
            future = message.future
            if not acked:
                self._fail(message, MessageNacked())
            elif message.returned is not None:
                self._fail(message, MessageReturned(*message.returned))
            elif not future.done():
                future.set_result(None)
        if self._line:
            self.send_waiting()

    def on_return(self, reply: tuple[int, str], exchange: str, routing_key: str, message_id: str | None) -> None:
        """Note that a message was unroutable; its ack follows (https://www.rabbitmq.com/docs/publishers#unroutable)."""
        self.counters.returned += 1
        if not self._settings.fail_on_return:
            return
        # Returns come in the order of sending, so the first of that name is it, even if names repeat.
        for message in self._confirms:
            if message.returned is None and (message.message_id, message.exchange, message.routing_key) == (
                message_id,
                exchange,
                routing_key,
            ):
                message.returned = reply
                return

    # The line

    def _wait(self, message: Message, timeout: float) -> None:
        ready = self._gate.publishable
        if not self._gate.awaitable:
            self._give_up(message, self._gate.condition)
        elif len(self._line) >= self._settings.max_waiting:
            self._give_up(message, f"{len(self._line)} messages are waiting already (max_waiting)")
        elif timeout <= 0 and not (ready and self._may_send()):
            self._give_up(message, self._reason_to_wait())
        else:
            self._enter(message, max(timeout, PROBE_LIMIT) if ready and self._may_send() else timeout)
            self.send_waiting()

    def _enter(self, message: Message, timeout: float) -> None:
        self._line[message] = None
        message.timer = self._loop.call_later(timeout, self._expire, message)
        message.future.add_done_callback(lambda _future: self._leave(message))

    def _leave(self, message: Message) -> None:
        self._line.pop(message, None)
        if message.timer is not None:
            message.timer.cancel()
            message.timer = None

    def _expire(self, message: Message) -> None:
        self._give_up(message, f"{self._reason_to_wait()}, and did not become ready in time")
        self.send_waiting()

    def _reason_to_wait(self) -> str:
        if not self._gate.publishable:
            return self._gate.condition
        if len(self._confirms) >= self._window:
            return f"{len(self._confirms)} messages are unconfirmed (max_unconfirmed)"
        return "connection is Ready, but the messages before this one had not gone out"

    def _give_up(self, message: Message, why: str) -> None:
        self._leave(message)
        if message.sent_at:
            self._fail(message, OutcomeUnknown(f"it was sent and the connection lost; then {why}"))
        else:
            self._fail(
                message, NotReadyError(f"{why}; message {message.message_id} was not sent: retry, or answer 503")
            )

    def _ask(self, message: Message) -> None:
        assert self._exchanges is not None
        self._asking = True
        # What is published after the question may know better than the answer: it gets a question of its own.
        alike = [
            other for other in self._line if other.exchange == message.exchange and other.user_id == message.user_id
        ]
        self._exchanges.ask(message, functools.partial(self._on_answer, alike))

    def _on_answer(self, alike: list[Message], refusal: tuple[int, str] | None) -> None:
        self._asking = False
        if refusal is not None:
            for message in alike:
                if message in self._line:
                    self._leave(message)
                    self._fail(message, ExchangeRefused(*refusal))
        # Later: pika still holds the number of the channel that a refusal closed, and the next question needs one.
        self._loop.call_soon(self.send_waiting)

    # The wire

    def _may_send(self) -> bool:
        if not self._gate.publishable or len(self._confirms) >= (1 if self._suspects else self._window):
            return False
        return self._settings.enable_confirmations or not self._congested()

    def _congested(self) -> bool:
        assert self._connection is not None
        if self._connection.congested and self._congestion_timer is None:
            self._congestion_timer = self._loop.call_later(CONGESTION_INTERVAL, self._look_again)
        return self._congestion_timer is not None

    def _look_again(self) -> None:
        self._congestion_timer = None
        self.send_waiting()

    def _send(self, message: Message) -> None:
        connection = self._connection
        assert connection is not None
        if len(message.body) > self._body_limit or len(message.properties) > self._header_limit:
            self._fail(message, self._too_large(message))
            return
        connection.publish(self._channel_number, message.method, message.properties, message.body)
        counters = self.counters
        counters.published += 1
        if message.sent_at:
            counters.republished += 1
        message.sent_at = self._loop.time()
        if not self._settings.enable_confirmations:
            message.future.set_result(None)
            return
        self._confirms.add(message)
        if self._confirm_timer is None:
            self._confirm_timer = self._loop.call_later(self._settings.confirm_timeout, self._expire_unconfirmed)

    def _too_large(self, message: Message) -> InvalidMessage:
        if len(message.body) > self._body_limit:
            problem = f"has {len(message.body)} bytes, more than the {self._body_limit} that RabbitMQ takes"
            return InvalidMessage("body", f"{problem} (max_message_size)")
        problem = f"take {len(message.properties)} bytes, more than the {self._header_limit} of one frame"
        return InvalidMessage("properties", problem)

    def _expire_unconfirmed(self) -> None:
        """End what was unconfirmed for confirm_timeout; the ledger keeps it, so that max_unconfirmed holds."""
        self._confirm_timer = None
        limit = self._settings.confirm_timeout
        for message in self._confirms:
            if message.future.done():
                continue
            remaining = message.sent_at + limit - self._loop.time()
            if remaining > 0:
                self._confirm_timer = self._loop.call_later(remaining, self._expire_unconfirmed)
                return
            self._fail(message, OutcomeUnknown(f"no confirmation within {limit:g} s"))

    # The end

    def _kept(self, lost: list[Message], reason: BaseException) -> dict[Message, None]:
        """Choose what is sent again: all of it, but for a message that RabbitMQ refuses."""
        refused = isinstance(reason, ChannelClosedByBroker) or (
            isinstance(reason, ConnectionClosedByBroker) and reason.reply_code != CONNECTION_FORCED
        )
        if not refused:
            return dict.fromkeys(lost)
        keep: dict[Message, None] = {}
        for message in lost:
            # Refused once in company, it is sent again alone; refused alone, it is the one.
            if message.refusals == 0:
                message.refusals = 1
                self._suspects += 1
                message.future.add_done_callback(self._clear_suspect)
                keep[message] = None
        return keep

    def _clear_suspect(self, _future: "asyncio.Future[None]") -> None:
        self._suspects -= 1
        self.send_waiting()

    def _fail(self, message: Message, error: AMQPException, cause: BaseException | None = None) -> None:
        if message.future.done():
            return
        self.counters.failed += 1
        error.__cause__ = cause
        message.future.set_exception(error.about(message.message_id, message.exchange, message.routing_key))


def _checked_limit(timeout: object) -> float:
    if not isinstance(timeout, (int, float)) or math.isnan(timeout):
        raise InvalidMessage("timeout", f"must be a number of seconds, not {timeout!r:.80}")
    return timeout
