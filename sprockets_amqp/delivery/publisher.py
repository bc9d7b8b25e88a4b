"""The way of a publish: the line in which it waits, its limits and deadlines, the wire, and its one end.

The lifecycle decides whether a message may go out, may wait or is refused. This module decides the flow of messages
while the connection is ready: at most `max_unconfirmed` are unconfirmed, one exchange is checked at a time, which does
not delay other exchanges, and one suspect is sent at a time.
"""

import asyncio
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final

from sprockets_amqp.errors import AMQPException, NotReadyError, OutcomeUnknown
from sprockets_amqp.observers import Watch
from sprockets_amqp.settings import Settings
from sprockets_amqp.wire.replies import describe

from .check import CHECK_LIMIT
from .counters import Counters
from .exchanges import Exchanges
from .flight import Flight
from .message import Message, encode
from .options import Options, defaults
from .publish import Publish, Result
from .reports import Reports
from .surroundings import Gate, Keeper, Wire
from .validation import check_copies
from .waiting import Waiting

#: Seconds to wait until nothing is unconfirmed, before the channel is replaced; after that it is not.
CLEAR_LIMIT: Final = 2.0


class Publisher:
    """Accepts messages, sends them in order while the lifecycle allows it, and ends each exactly once.

    Attributes:
        counters: what became of messages.
        line: what waits.
        flight: what is on the wire.
        keeper: who keeps what would be lost.
    """

    def __init__(
        self,
        gate: Gate,
        link: Wire,
        exchanges: Exchanges,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        name: str,
    ) -> None:
        self.counters = Counters()
        self._loop = loop
        self._gate = gate
        self._link = link
        self._settings = settings
        self._usual = defaults(settings)
        self._exchanges = exchanges
        self.line = Waiting(settings, exchanges, self._expire, self._see_drained, loop)
        self.keeper = Keeper()
        self._reports = reports = Reports(loop, confirmed=settings.enable_confirmations)
        self.flight = Flight(
            settings, self.counters, reports, self.end, self._on_settled, self.send_waiting, self._clear, loop, name
        )
        #: Why the channel is replaced once nothing is unconfirmed, while nothing goes out; empty: it is not.
        self._clears = ""
        self._clear_limit: asyncio.TimerHandle | None = None
        #: Whether the next message, or the end of all, waits until the socket has taken everything.
        self._awaits_socket = False
        #: What is called once nothing waits and nothing is unconfirmed.
        self._when_drained: Callable[[], object] | None = None

    @property
    def unconfirmed(self) -> int:
        """How many messages are on the wire, neither acknowledged nor lost."""
        return len(self.flight.entries)

    @property
    def waiting(self) -> int:
        """How many messages are in line, except kept ones."""
        return len(self.line) - self.keeper.in_line

    @property
    def pending(self) -> "list[asyncio.Future[Result]]":
        """The futures of messages that have not ended, on the wire or in line."""
        publishes = (*self.flight.entries.values(), *self.line.in_order())
        return [each.future for each in publishes if not each.future.done()]

    # Called by the application

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | bytearray | memoryview | str,
        properties: Mapping[str, Any] | None,
        options: Options,
        watch: Watch | None = None,
    ) -> "asyncio.Future[Result]":
        """Send a message, put it in line, or have it kept; see `Client.publish`. Its end is reported to ``watch``."""
        app_id = self._settings.default_app_id
        message, timeout, invalid = encode(exchange, routing_key, body, properties, app_id, options, self._usual)
        future: asyncio.Future[Result] = asyncio.Future(loop=self._loop)
        publish = Publish(message, future)
        if watch is not None:
            self._reports.begin(publish, watch)
        invalid = invalid or (check_copies(message.copies, self._settings) if message.copies else None)
        if invalid is not None:
            self.end(publish, invalid)
        elif (
            self._gate.sends_new
            and (not self.line or self.line.lets_pass(publish))
            and self._has_room()
            and self._exchanges.knows(message)
        ):
            self._send(publish)
        else:
            self._wait(publish, timeout if timeout is not None else self._settings.timeout)
        return future

    # Called by the declared transitions

    def settle_unconfirmed(self, cause: BaseException) -> None:
        """End unconfirmed messages, or keep them to be sent again: their channel is gone, and their outcome unknown."""
        # It may be the check that RabbitMQ could not handle.
        was_checking = self._exchanges.checking is not None
        self._exchanges.forget(cause, [each.message for each in self.flight.entries.values()])
        self._when_drained = None
        self._awaits_socket = False
        self._stop_clearing()
        lost = self.flight.lose(cause, checking=was_checking)
        self.keeper.unload()
        callers = [each for each in lost if each.kept is None]
        # What is kept comes first: it decides whether the others may wait.
        for publish in lost:
            if publish.kept is not None:
                self.end(publish, OutcomeUnknown(describe(cause)), cause)
        is_republished = self._settings.republish_unconfirmed and self._gate.accepts
        again = self.flight.blameless([each for each in callers if each.waits], cause) if is_republished else {}
        for publish in callers:
            if publish not in again:
                self.end(publish, OutcomeUnknown(describe(cause)), cause)
        self.line.release_all()
        for publish in reversed(list(again)):
            publish.returned = None
            self.line.wait(publish, self._settings.timeout, first=True)

    def send_waiting(self) -> None:
        """Send waiting messages, in order, as far as the lifecycle, the limits and RabbitMQ's answers allow."""
        if self._link.held:
            # pika is handling an event; when it has, the lifecycle knows what the event means.
            self._loop.call_soon(self._send_after_hold)
            return
        if self._clears and not self._gate.sends_stored:
            # A client that is closing does not wait for another channel.
            self._stop_clearing()
        elif self._clears and not self.flight.entries:
            self._gate.replace_channel(self._clears)
        self.keeper.refill()
        if not self.flight.entries and self.line and self._exchanges.checking is None and self._may_send():
            self._check_suspect()
        while self.line and self._may_send():
            publish = self.line.next()
            if publish is None:
                break
            if publish.future.done():
                self.line.leave(publish)
            elif self._exchanges.knows(publish.message):
                self.line.leave(publish)
                self._send(publish)
            else:
                self.line.hold(publish, first=self._exchanges.knew(publish.message))
        if self.line and self._exchanges.checking is None and self._may_send():
            self._check_next()
        self._see_drained()

    def _send_after_hold(self) -> None:
        # Still held, the connection is being dropped.
        if not self._link.held:
            self.send_waiting()

    def give_up_waiting(self) -> None:
        """End every waiting publish."""
        for publish in self.line.in_order():
            self.give_up(publish, self._gate.condition)

    def give_up_unconfirmed(self) -> None:
        """End what is unconfirmed, for its callers wait no longer; RabbitMQ may still confirm it."""
        for publish in list(self.flight.entries.values()):
            if publish.waits:
                self.end(publish, OutcomeUnknown(f"it was sent, and then {self._gate.condition}"), on_wire=True)

    # Called by the keeper

    def wait_again(self, publish: Publish, deadline: float, why_not: str) -> None:
        """Put a publish that cannot be kept back in line; end it if it may not wait."""
        if publish.future.done():
            return
        full = self.line.why_full(publish.message)
        if self._gate.accepts and not full:
            self.line.wait(publish, max(0.0, deadline - self._loop.time()))
            self.send_waiting()
        else:
            self.give_up(publish, why_not if not self._gate.accepts else full)

    def enter(self, publish: Publish) -> None:
        """Put a kept publish in line; `send_waiting` sends it."""
        if publish.blamed:
            self.flight.suspect(publish)
        self.line.enter(publish)

    def drop(self, publish: Publish) -> None:
        """Forget a kept publish: it has ended, or comes again."""
        self.line.leave(publish)
        publish.future.cancel()

    # Called by the client

    def call_when_drained(self, callback: Callable[[], object]) -> None:
        """Call back once, when nothing waits and all is confirmed or, without confirms, sent; never if it is lost."""
        self._when_drained = callback
        self._see_drained()

    def _see_drained(self) -> None:
        if self._when_drained is None or self.line or self.flight.entries:
            return
        if self._link.unsent and not self._settings.enable_confirmations:
            self._await_socket()
            return
        callback, self._when_drained = self._when_drained, None
        callback()

    def _on_settled(self) -> None:
        if self.line or self._clears:
            self.send_waiting()
        elif self._when_drained is not None:
            self._see_drained()

    # The line

    def _wait(self, publish: Publish, timeout: float) -> None:
        message, outcome = publish.message, self._gate.publish_outcome
        if len(message.body) > self._link.body_limit:
            self.end(publish, message.too_large(self._link.body_limit, 0))
        elif outcome == "is stored":
            problem = self.keeper.keep(publish, self._loop.time() + timeout)
            if problem:
                self.refuse(publish, problem)
        elif outcome == "is refused":
            self.give_up(publish, self._gate.condition)
        elif not (may_send := self._may_send() or (self._link.held and self._gate.sends)) and self._gate.in_setup:
            self.give_up(publish, "nothing is published before setup has ended: use on_ready_callback")
        elif problem := self.line.why_full(message):
            self.give_up(publish, problem)
        elif timeout <= 0 and not may_send:
            self.give_up(publish, self._reason_to_wait())
        else:
            # When ready, it waits only for RabbitMQ's answer about an exchange.
            self.line.wait(publish, max(timeout, CHECK_LIMIT) if may_send else timeout)
            self.send_waiting()

    def _expire(self, publish: Publish) -> None:
        late = "" if self._gate.sends else ", and did not become ready in time"
        self.give_up(publish, f"{self._reason_to_wait()}{late}")
        self.send_waiting()

    def _reason_to_wait(self) -> str:
        if not self._gate.sends:
            return self._gate.condition
        if self._clears:
            return f"{self._clears}, and another channel is about to be opened"
        if len(self.flight.entries) >= self._settings.max_unconfirmed:
            return f"the number of unconfirmed messages has reached max_unconfirmed ({len(self.flight.entries)})"
        checked = self._exchanges.checking
        if checked is not None:
            return f"RabbitMQ has not answered whether it accepts messages for exchange {checked.message.exchange!r}"
        return "connection is Ready, but the messages before this one have not been sent"

    def give_up(self, publish: Publish, why: str) -> None:
        """End a publish that may not wait any longer."""
        self.line.leave(publish)
        self.end(publish, publish.given_up(why))

    def refuse(self, publish: Publish, why: str) -> None:
        """End a publish that may not wait any longer, and is not kept instead."""
        self.line.leave(publish)
        self.tell(publish, publish.given_up(why))

    def _check_suspect(self) -> None:
        """Make the check that may have cost the last connection, while nothing else is in flight."""
        suspect = self._exchanges.suspect()
        if suspect is not None and suspect in self.line:
            self.line.hold(suspect)
            self._check(suspect)

    def _check_next(self) -> None:
        publish = self.line.next_held()
        while publish is not None and publish.future.done():
            self.line.leave(publish)
            publish = self.line.next_held()
        if publish is not None:
            self._check(publish)

    def _check(self, publish: Publish) -> None:
        # The answer may be outdated for messages published after the check: they get a check of their own.
        self._exchanges.check(publish, functools.partial(self._on_answer, publish, self.line.last))
        self._set_window()

    def _on_answer(
        self, asked: Publish, last: int, refusal: tuple[int, str] | None, holds: Callable[[Message], bool]
    ) -> None:
        self._set_window()
        if refusal is not None:
            if self._gate.disowns(*refusal):
                return
            of_lane = itertools.takewhile(lambda each: each[1] <= last, self.line.lane(asked))
            for publish in [publish for publish, _ in of_lane if holds(publish.message)]:
                self.line.leave(publish)
                self.end(publish, publish.refused(*refusal))
        self.line.release(asked)
        self.send_waiting()

    # The wire

    def _may_send(self) -> bool:
        return self._gate.sends and self._has_room()

    def _has_room(self) -> bool:
        has_room = self.flight.has_room and not self._link.held
        return has_room and (self._settings.enable_confirmations or not self._congested())

    def _congested(self) -> bool:
        if self._link.congested:
            self._await_socket()
        return self._awaits_socket

    def _await_socket(self) -> None:
        if not self._awaits_socket:
            self._awaits_socket = True
            self._link.call_when_sent(self._go_on)

    def _go_on(self) -> None:
        self._awaits_socket = False
        self.send_waiting()

    def _send(self, publish: Publish) -> None:
        link, message = self._link, publish.message
        body, properties = message.body, message.properties
        if len(body) > link.body_limit or len(properties) > link.header_limit:
            self.end(publish, message.too_large(link.body_limit, link.header_limit))
            return
        link.publish(message.method, properties, body)
        counters = self.counters
        counters.published += 1
        if publish.sent_at:
            counters.republished += 1
            if publish in self._reports:
                self._reports[publish].resends += 1
        publish.sent_at = self._loop.time()
        if publish.kept is not None:
            publish.kept.on_sent()
        if self._settings.enable_confirmations:
            self.flight.add(publish)
        else:
            self.end(publish)

    # The end

    def _set_window(self) -> None:
        self.flight.set_window(closed=bool(self._clears) or self._exchanges.checking_alone)

    def _clear(self, why: str) -> None:
        """Send nothing until nothing is unconfirmed, then have the channel replaced; not for what stays unconfirmed.

        Nor if nothing may wait: then it would be an outage.
        """
        oldest = next(iter(self.flight.entries.values()), None)
        stays = oldest is not None and self._loop.time() - oldest.sent_at > CLEAR_LIMIT
        if not (self._clears or stays or self._settings.timeout == 0):
            self._clears = why
            self._clear_limit = self._loop.call_later(CLEAR_LIMIT, self._give_up_clearing)
            self._set_window()

    def _stop_clearing(self) -> None:
        self._clears = ""
        if self._clear_limit is not None:
            self._clear_limit.cancel()
            self._clear_limit = None
        self._set_window()

    def _give_up_clearing(self) -> None:
        self._stop_clearing()
        self.send_waiting()

    def end(
        self,
        publish: Publish,
        error: AMQPException | None = None,
        cause: BaseException | None = None,
        *,
        on_wire: bool = False,
    ) -> None:
        """End a publish: every end passes through here, and a kept one's end is its keeper's affair.

        Args:
            publish: the publish.
            error: what it ends with; None: it was confirmed or, without confirms, handed over.
            cause: the exception behind the error.
            on_wire: whether RabbitMQ may still confirm it.
        """
        if error is not None and cause is not None:
            error.__cause__ = cause
        if error is None and publish.kept is None and not self._reports and not publish.future.done():
            # Most ends: a call less for each.
            publish.future.set_result(None)
        elif publish.kept is not None:
            publish.kept.on_end(publish, error, on_wire=on_wire)
        elif error is None or publish.future.done() or not self.keeper.takes(publish, error, on_wire=on_wire):
            self.tell(publish, error)

    def tell(self, publish: Publish, error: AMQPException | None = None, result: Result = None) -> None:
        """Tell the caller how a publish has ended, unless it was cancelled."""
        if self._reports:
            self._reports.end(publish, error, result)
        if publish.future.done():
            return
        if error is None:
            publish.future.set_result(result)
        else:
            self.counters.failed += 1
            self.counters.not_ready += isinstance(error, NotReadyError)
            message = publish.message
            publish.future.set_exception(error.about(message.message_id, message.exchange, message.routing_key))
