"""What must hold in a simulation, from the frames that went each way and from the futures alone."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any, Final

from pika import frame, spec

from sprockets_amqp import (
    STORED,
    AMQPException,
    Client,
    ExchangeRefused,
    InvalidMessage,
    MessageNacked,
    MessageReturned,
    NotReadyError,
    OutcomeUnknown,
    StateChange,
)
from sprockets_amqp.outbox.writer import DISK_LIMIT
from sprockets_amqp.testing.peer import Peer, decode
from tools.history import History, check, outcome_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sprockets_amqp.testing.clock import Clock
    from sprockets_amqp.wire.connection import Connection


#: Seconds that a ready client may wait for RabbitMQ's word on an exchange, and what a limit may be late by.
QUESTION_LIMIT: Final = 5.0
SLACK: Final = 1.0
#: Seconds that closing and connecting may take at the most: draining and its answer; asking for the address, three
#: attempts on one node and the delays between them, setting up, and opening the channel.
LONGEST: Final = {"closing": 10 + 2 + SLACK, "connecting": 10 + 3 * 16 + 2 * 2 + 30 + 16 + SLACK}


class Violation(Exception):
    """Something does not hold; says what."""


@dataclasses.dataclass(eq=False)
class Sending:
    """A message on the wire, once."""

    message_id: str
    at: float
    tag: int
    #: What arrived about it: True for an ack, False for a nack, the first word only.
    confirmed: bool | None = None
    returned: bool = False
    #: Whether its channel or connection is gone.
    lost: bool = False


@dataclasses.dataclass(eq=False)
class Publish:
    """One call of publish()."""

    message_id: str
    exchange: str
    routing_key: str
    body: bytes
    future: asyncio.Future[None]
    number: int
    #: Whether AMQP and RabbitMQ would take it; None: as the connection will have it.
    valid: bool | None
    #: By when it has to have ended, if it is never sent.
    deadline: float
    #: In which of the process's lives it was published.
    life: int
    sendings: list[Sending] = dataclasses.field(default_factory=list)
    judged: bool = False
    #: Whether its caller cancelled it: a disk that was writing it may have it all the same, and it comes late.
    withdrawn: bool = False
    #: Whether the disk had it when the present life began.
    carried: bool = False


class Reader:
    """Reads frames out of octets that come in any pieces."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Any]:
        """Return the frames that are complete."""
        self._buffer += data
        found = []
        consumed, decoded = decode(self._buffer)
        while decoded is not None:
            self._buffer = self._buffer[consumed:]
            found.append(decoded)
            consumed, decoded = decode(self._buffer)
        return found


class WatchedPeer(Peer):
    """A broker's end of a connection whose frames are seen, both ways, as they leave and as they arrive."""

    def __init__(self, broker: Any, connection: Connection) -> None:
        super().__init__(broker, connection)
        self._oracle: Oracle = broker.oracle
        self._from_client, self._from_broker = Reader(), Reader()
        #: How many octets the line has taken from the client, and how many were seen.
        self._taken = self._seen = 0
        self._oracle.peers.append(self)
        #: The channels in confirm mode, as the client knows, with what is unconfirmed on each, by tag.
        self.ledgers: dict[int, dict[int, Sending]] = {}
        self._tags: dict[int, int] = {}
        #: Exchanges that are asked about, by channel, and the messages that are coming, by channel.
        self._asked: dict[int, str] = {}
        self._coming: dict[int, Any] = {}
        self._bodies: dict[int, tuple[str, int, bytes]] = {}
        self._returned: dict[int, bool] = {}
        self.blocked = False
        self.stopped: set[int] = set()
        #: Whether what leaves next was handed over before RabbitMQ's word arrived.
        self._grace = False

    # What the client says

    def receive(self, data: bytes) -> None:
        """See what is sent, and read it."""
        self._see_octets(data)
        self._taken += len(data)
        # What waited for the line leaves before what was handed over last.
        self._grace = self._grace and bool(self.connection._sending._pieces)  # noqa: SLF001
        super().receive(data)

    def see_waiting(self) -> None:
        """See what was handed over, and waits because the line is slow: it is sent as well as what is on the line."""
        self._see_octets(b"".join(self.connection._sending._backlog))  # noqa: SLF001

    def _see_octets(self, following: bytes) -> None:
        """See what follows the octets that were taken, and was not seen before."""
        unseen = following[self._seen - self._taken :]
        self._seen += len(unseen)
        for each in self._from_client.feed(unseen):
            self._see_sent(each)

    def _see_sent(self, sent: Any) -> None:
        number = getattr(sent, "channel_number", 0)
        if isinstance(sent, frame.Method) and isinstance(sent.method, spec.Basic.Publish):
            self._coming[number] = sent.method
            if (self.blocked or number in self.stopped) and not self._grace:
                self._oracle.fail(f"channel {number} publishes although RabbitMQ asked it not to")
        elif isinstance(sent, frame.Header) and number in self._coming:
            method = self._coming.pop(number)
            if sent.properties.message_id is not None:
                self._oracle.see_address(str(sent.properties.message_id), method)
                self._see_body(number, str(sent.properties.message_id), sent.body_size, b"")
            if number in self.ledgers:
                self._tags[number] += 1
                sending = Sending(str(sent.properties.message_id), self._oracle.clock.now, self._tags[number])
                self.ledgers[number][sending.tag] = sending
                self._oracle.on_sent(sending)
            elif sent.properties.message_id is None:
                self._asked[number] = str(method.exchange)
            elif not self._oracle.confirms:
                self._oracle.on_sent(Sending(str(sent.properties.message_id), self._oracle.clock.now, 0))
            # What was handed over before the channel's end was heard of leaves for nowhere.
        elif isinstance(sent, frame.Body) and number in self._bodies:
            message_id, size, before = self._bodies.pop(number)
            self._see_body(number, message_id, size, before + sent.fragment)
        elif isinstance(sent, frame.Method) and isinstance(sent.method, spec.Channel.Close):
            self._forget_ledger(number)

    def _see_body(self, number: int, message_id: str, size: int, body: bytes) -> None:
        if len(body) < size:
            self._bodies[number] = (message_id, size, body)
        else:
            self._oracle.see_body(message_id, body)

    # What arrives at the client

    def _arrive(self, data: bytes) -> None:
        self._oracle.poll()
        for each in self._from_broker.feed(data):
            self._see_arriving(each)
        super()._arrive(data)
        self._grace = bool(self.connection._sending._pieces)  # noqa: SLF001
        self._oracle.poll()

    def _see_arriving(self, arriving: Any) -> None:
        number = getattr(arriving, "channel_number", 0)
        if isinstance(arriving, frame.Header) and self._returned.pop(number, False):
            self._see_returned(number, str(arriving.properties.message_id))
        elif isinstance(arriving, frame.Method):
            self._see_method(number, arriving.method)

    def _see_method(self, number: int, method: Any) -> None:
        if isinstance(method, spec.Basic.Ack | spec.Basic.Nack):
            self._see_confirm(number, method.delivery_tag, bool(method.multiple), isinstance(method, spec.Basic.Ack))
        elif isinstance(method, spec.Basic.Return):
            self._returned[number] = True
        elif isinstance(method, spec.Confirm.SelectOk):
            self.ledgers[number], self._tags[number] = {}, 0
            self._oracle.history.connected()
        elif isinstance(method, spec.Channel.Close):
            if number in self._asked:
                self._oracle.refused.add(self._asked.pop(number))
            self._forget_ledger(number)
        elif isinstance(method, spec.Connection.Close):
            # A question may cost the connection: the client blames the one that it has handed over.
            self._oracle.costs.add(method.reply_code)
            self._oracle.suspects_until = self._oracle.clock.now + QUESTION_LIMIT
        elif isinstance(method, spec.Connection.Blocked | spec.Connection.Unblocked):
            self.blocked = isinstance(method, spec.Connection.Blocked)
        elif isinstance(method, spec.Channel.Flow):
            (self.stopped.discard if method.active else self.stopped.add)(number)

    def _see_confirm(self, number: int, tag: int, multiple: bool, acked: bool) -> None:
        ledger = self.ledgers.get(number, {})
        if not 0 < tag <= self._tags.get(number, 0):
            return
        for each in [each for each in ledger if each == tag or (multiple and each < tag)]:
            sending = ledger.pop(each)
            sending.confirmed = acked
            (self._oracle.history.acked if acked else self._oracle.history.nacked)(sending.message_id)

    def _see_returned(self, number: int, message_id: str) -> None:
        for sending in self.ledgers.get(number, {}).values():
            if sending.message_id == message_id and not sending.returned:
                sending.returned = True
                return

    # The end of the line

    def lose(self, error: Exception | None = None) -> None:
        """Cut the line."""
        self._oracle.poll()
        if not self.lost:
            self.end_ledgers()
        super().lose(error)

    def drop_later(self, error: Exception | None) -> None:
        """Cut the line in a later turn."""
        self.end_ledgers()
        super().drop_later(error)

    def end_ledgers(self) -> None:
        """Record that nothing more will arrive."""
        for number in list(self.ledgers):
            self._forget_ledger(number)

    def _forget_ledger(self, number: int) -> None:
        for sending in self.ledgers.pop(number, {}).values():
            sending.lost = True
        self._asked.pop(number, None)
        self.stopped.discard(number)


class Oracle:
    """What was published, what became of it, and what must hold of both."""

    def __init__(
        self,
        clock: Clock,
        *,
        confirms: bool,
        republish: bool,
        stores: bool,
        fail_on_return: bool,
        window: int,
        max_waiting: int,
        confirm_timeout: float,
    ) -> None:
        self.clock = clock
        self.confirms = confirms
        self.republish = republish
        self.stores = stores
        self.fail_on_return = fail_on_return
        self.window = window
        self.max_waiting = max_waiting
        self.confirm_timeout = confirm_timeout
        self.step = "the beginning"
        self.violations: list[str] = []
        #: In which passing state the client is, and since when.
        self._stuck = ("", 0.0)
        self._last_changes: tuple[StateChange, ...] = ()
        #: Exchanges that RabbitMQ refused when it was asked, as the client was told.
        self.refused: set[str] = set()
        #: The reply codes with which connections were closed.
        self.costs: set[int | None] = set()
        #: Until when the client may ask alone about what cost the connection, with nothing else in flight.
        self.suspects_until = 0.0
        #: The broker's ends of all connections.
        self.peers: list[WatchedPeer] = []
        self._publishes: dict[str, Publish] = {}
        #: The same for a checker that knows nothing of the client, nor of this.
        self.history = History(wire=True)
        #: In which of its lives the process is: each ends with a kill.
        self._life = 0
        #: The life and number of what was sent last for the first time, by exchange.
        self._order: dict[str, tuple[int, int]] = {}
        #: Whether what earlier lives left may come later: the disk has failed in this one, or it is in several files.
        self._mixed = False
        self._client: Client

    def watch(self, client: Client) -> None:
        """Take the client that is simulated."""
        self._client = client

    @property
    def pending(self) -> list[Publish]:
        """Those that have not ended."""
        return [publish for publish in self._publishes.values() if not publish.future.done()]

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: dict[str, Any],
        timeout: float | None,
        *,
        valid: bool | None = True,
    ) -> Publish:
        """Publish a message with a name of its own."""
        number = len(self._publishes)
        message_id = f"m{number}"
        longest = self._client.settings.timeout if timeout is None else timeout
        # What was handed over when the line was lost, and never left, begins to wait anew.
        again = 3 * self._client.settings.timeout if self.republish else 0
        deadline = self.clock.now + max(longest, QUESTION_LIMIT) + again + SLACK
        self.history.published(message_id, exchange)
        # It is known before it can be sent.
        nothing: asyncio.Future[None] = asyncio.Future(loop=self.clock.loop)
        publish = Publish(message_id, exchange, routing_key, body, nothing, number, valid, deadline, self._life)
        self._publishes[message_id] = publish
        publish.future = self._client.publish(
            exchange, routing_key, body, {"message_id": message_id, **properties}, timeout=timeout
        )
        return publish

    def see_address(self, message_id: str, method: Any) -> None:
        """Hold the address on the wire against what was published."""
        publish = self._publishes[message_id]
        if (method.exchange, method.routing_key) != (publish.exchange, publish.routing_key):
            self.fail(f"{message_id} goes to {method.exchange!r} with {method.routing_key!r}")

    def see_body(self, message_id: str, body: bytes) -> None:
        """Hold the body on the wire against what was published."""
        if body != self._publishes[message_id].body:
            self.fail(f"{message_id} has another body on the wire: {body[:20]!r}")

    def on_sent(self, sending: Sending) -> None:
        """Record a message on the wire."""
        publish = self._publishes[sending.message_id]
        self.history.sent(sending.message_id)
        if publish.life < self._life:
            if not publish.carried:
                self.fail(f"{publish.message_id} is sent, and was not on the disk when the process started")
        elif publish.judged and not publish.future.cancelled() and self.confirms and not self._comes_later(publish):
            self.fail(f"{publish.message_id} is sent after its end")
        if not publish.sendings:
            self._see_order(publish)
        elif not self.republish:
            self.fail(f"{publish.message_id} is sent twice")
        publish.sendings.append(sending)
        if self.confirms and len(self._unconfirmed()) > self.window:
            self.fail(f"more than {self.window} are unconfirmed")

    def _see_order(self, publish: Publish) -> None:
        """Messages leave in the order in which they were published, but for one that the disk kept for too long."""
        if publish.judged and not publish.future.cancelled() and publish.future.exception() is not None:
            return
        if publish.withdrawn:
            return
        place, last = (publish.life, publish.number), self._order.get(publish.exchange, (-1, -1))
        if place < last and (publish.life == last[0] or not self._mixed):
            self.fail(f"{publish.message_id} leaves after m{last[1]}, which was published later")
        self._order[publish.exchange] = place

    def _comes_later(self, publish: Publish) -> bool:
        """Return whether a publish that has ended may be sent: it was stored, or nobody knows whether it was."""
        error = publish.future.exception()
        return self.stores and (
            isinstance(error, OutcomeUnknown) or (error is None and publish.future.result() is STORED)
        )

    def end_life(self, clock: Clock, on_disk: set[str], files: int) -> None:
        """Record that the process was killed, and starts again on another loop: what had not ended never will."""
        self.clock = clock
        self._life += 1
        self.history.killed()
        self._stuck, self._mixed = ("", 0.0), self._mixed or files > 1
        for publish in self._publishes.values():
            if not publish.judged:
                publish.judged = True
                publish.future = asyncio.Future(loop=clock.loop)
                publish.future.cancel()
            publish.carried = publish.message_id in on_disk

    def see_stored(self, on_disk: set[str]) -> None:
        """Nothing is lost of what was stored: RabbitMQ has confirmed it, or it is on the disk; nothing else is there."""
        self.poll()
        for publish in self._publishes.values():
            future = publish.future
            if not future.done() or future.cancelled():
                continue
            error = future.exception()
            confirmed = any(each.confirmed for each in publish.sendings)
            is_there = publish.message_id in on_disk
            if error is None and future.result() is STORED and not is_there and not confirmed:
                self.fail(f"{publish.message_id} was stored, and is neither on the disk nor confirmed")
            if is_there and (isinstance(error, NotReadyError) or publish.valid is False):
                self.fail(f"{publish.message_id} was not to be sent, and is on the disk: {error}")

    def _unconfirmed(self) -> list[Sending]:
        return [
            each
            for publish in self._publishes.values()
            for each in publish.sendings
            if each.confirmed is None and not each.lost
        ]

    def see_idle(self, peers: list[WatchedPeer]) -> None:
        """Nothing is left to do but to wait: what goes to the default exchange, which is known, has gone out."""
        if self.republish or not self.confirms or self.clock.now <= self.suspects_until:
            return
        waits = [each for each in self.pending if each.exchange == "" and each.valid and not each.sendings]
        for peer in peers:
            for number, ledger in peer.ledgers.items():
                open_to_all = not peer.blocked and number not in peer.stopped and not peer.outbox
                if waits and open_to_all and len(ledger) < self.window and not self._handed_over:
                    self.fail(f"{waits[0].message_id} waits, and nothing is in its way")

    def _see_stuck(self) -> None:
        name = "closing" if self._client.closing else "connecting" if self._client.connecting else ""
        # Between two looks it may have been in another state.
        changes = self._client.history[-1:]
        if (name, changes) != (self._stuck[0], self._last_changes):
            self._stuck, self._last_changes = (name, self.clock.now), changes
        elif name and self.clock.now - self._stuck[1] > LONGEST[name]:
            self.fail(f"it is {name} for {self.clock.now - self._stuck[1]:g} s")

    def fail(self, what: str) -> None:
        """Record what does not hold: pika and the loop would swallow what is raised."""
        self.violations.append(what)

    def look(self) -> None:
        """Judge what has ended. Raises Violation where something did not hold."""
        self.poll()
        if self.violations:
            raise Violation(self.violations[0])

    def poll(self) -> None:
        """Judge what has ended since the last look, with what has arrived until now."""
        for peer in self.peers:
            if not peer.lost:
                peer.see_waiting()
        for publish in self._publishes.values():
            if publish.judged:
                continue
            if publish.future.done():
                publish.judged = True
                self.history.ended(publish.message_id, outcome_of(publish.future))
                self._judge(publish)
            else:
                self._see_lateness(publish)
        self._see_stuck()
        self._mixed = self._mixed or bool(self._client.outbox_trouble)
        self.history.ordered = self.history.ordered and not self._mixed
        if self._client.waiting > self.max_waiting + (self.window if self.republish else 0):
            self.fail(f"{self._client.waiting} wait, and {self.max_waiting} may")

    def _see_lateness(self, publish: Publish) -> None:
        last = publish.sendings[-1] if publish.sendings else None
        now = self.clock.now - (DISK_LIMIT if self.stores else 0)
        if last is None and now > publish.deadline and not self._handed_over:
            self.fail(f"{publish.message_id} waits for longer than it may")
        if last is not None and not last.lost and now > last.at + self.confirm_timeout + SLACK:
            self.fail(f"{publish.message_id} is unconfirmed for longer than confirm_timeout")

    @property
    def _handed_over(self) -> bool:
        """Whether something was handed to a line that takes nothing."""
        connection = self._client.connection
        return connection is not None and bool(connection._sending._pieces)  # noqa: SLF001

    def _judge(self, publish: Publish) -> None:
        if publish.future.cancelled():
            publish.withdrawn = True
            return
        error = publish.future.exception()
        sendings = publish.sendings
        if isinstance(error, AMQPException) and error.message_id != publish.message_id:
            self.fail(f"{publish.message_id} ended with the error of {error.message_id}")
        if not (self._is_true(publish, error) if error is not None else self._is_taken(publish)):
            self.fail(f"{publish.message_id} to {publish.exchange!r} ended with {error!r}; its way: {sendings}")

    def _is_taken(self, publish: Publish) -> bool:
        if not self.confirms:
            # It was handed to the transport, and leaves with what this turn of the loop sends.
            return True
        if publish.future.result() is STORED:
            return self.stores and publish.valid is not False
        last = publish.sendings[-1] if publish.sendings else None
        returned = last is not None and last.returned and bool(last.confirmed) and self.fail_on_return
        return any(each.confirmed for each in publish.sendings) and not returned

    def _is_true(self, publish: Publish, error: BaseException) -> bool:
        sendings = publish.sendings
        last = sendings[-1] if sendings else None
        match error:
            case InvalidMessage():
                return not sendings and publish.valid is not True
            case NotReadyError():
                return not sendings and publish.valid is not False
            case ExchangeRefused():
                asked = publish.exchange in self.refused or error.reply_code in self.costs
                return not sendings and asked
            case MessageNacked():
                return last is not None and last.confirmed is False
            case MessageReturned():
                return last is not None and last.returned and last.confirmed is True and self.fail_on_return
            case OutcomeUnknown():
                # What was handed over in the turn in which the line was lost never left, but who could tell.
                silent = all(each.confirmed is None for each in sendings)
                late = last is not None and self.clock.now - last.at >= self.confirm_timeout - 1e-6
                return silent and (
                    late or self._patience_is_over or all(each.lost or self._leaving for each in sendings)
                )
            case _:
                return False

    @property
    def _patience_is_over(self) -> bool:
        """Whether RabbitMQ has been blocking for longer than a publish may wait."""
        return self._client.blocked and self._client.publish_outcome != "waits"

    @property
    def _leaving(self) -> bool:
        """Whether the client was asked to stop, or is about to tell that the connection is gone."""
        return self._client.connection is None or self._client.closing or self._client.closed

    def finish(self, delivered: Iterable[str], left: set[str], aside: set[str]) -> None:
        """See that everything has ended, once, with what RabbitMQ has, and what the disk has, and what it set aside."""
        self.poll()
        for name in left:
            self.history.left(name, "aside" if name in aside else "")
        for name in delivered:
            self.history.delivered(name)
        if self.confirms:
            self.violations += check(self.history)
        for publish in self._publishes.values():
            if not publish.future.done():
                self.fail(f"{publish.message_id} never ended")
        client = self._client
        if (client.unconfirmed, client.waiting, client.connection) != (0, 0, None):
            self.fail(f"left: {client.unconfirmed} unconfirmed, {client.waiting} waiting, {client.connection}")
        if not client.closed or client.recovers:
            self.fail(f"shut down, it is {client.condition}")
        refused = client.publish("", "q", b"late")
        if not isinstance(refused.exception(), NotReadyError):
            self.fail("shut down, it takes a message")
