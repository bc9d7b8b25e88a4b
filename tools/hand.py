"""The hand that drives a real client through steps of the declaration, over the broker in memory.

Time stands still: timers expire when a step says so. What the function, `setup`, the disk and RabbitMQ answer waits
until a step says so, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pika import spec
from pika.exceptions import NoFreeChannels
from pika.frame import Method

from sprockets_amqp import Access, ConnectionStateError
from sprockets_amqp.delivery.message import encode
from sprockets_amqp.outbox import model as outbox_model
from sprockets_amqp.outbox.memory import MemoryStore
from sprockets_amqp.outbox.store import Changes, Totals
from sprockets_amqp.states import Outbox, Place
from sprockets_amqp.states.world import Files, Lane, Line, Publish, World
from tools.memory import Broker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sprockets_amqp.delivery.check import Answer
    from sprockets_amqp.delivery.options import Options
    from sprockets_amqp.model import Model
    from sprockets_amqp.outbox.ledger import Key
    from sprockets_amqp.outbox.store import Record
    from sprockets_amqp.proof.explore import Edge

#: Seconds that no test waits for: time stands still.
LONG: Final = 100_000.0
_OPEN: Final = (Outbox.CLEAR, Outbox.HOLDING)
#: What a publish says that says nothing else.
USUAL: Final[Options] = {"mandatory": True, "persistent": True, "timeout": None}
#: The box of another client, whose messages are found.
OTHER: Final = 7


class Disk(MemoryStore):
    """A store that answers when it is told to.

    Attributes:
        asked: what it was asked, and has not answered; None: nothing.
        unreadable: whether nothing can be read.
        unwritable: whether nothing can be written.
        at_once: whether it answers without being told to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: tuple[str, asyncio.Future[None]] | None = None
        self.unreadable = False
        self.unwritable = False
        self.at_once = False
        #: What it counts, whatever it holds.
        self.same: Totals | None = None

    @property
    def question(self) -> str | None:
        """What it is asked; None: nothing."""
        return self.asked[0] if self.asked is not None else None

    def answer(self) -> None:
        """Answer what it was asked; the client learns of it in its loop's next turns."""
        assert self.asked is not None
        future, self.asked = self.asked[1], None
        if not future.done():
            future.set_result(None)

    def fill(self) -> None:
        """Hold messages that another client has left."""
        message, _, _ = encode("", "q", b"stored", {"message_id": "stored"}, None, {}, USUAL)
        writing = self.write(OTHER, Changes(puts=dict.fromkeys((1, 2), (message, 0))))
        with contextlib.suppress(StopIteration):
            writing.send(None)

    def let_go(self) -> None:
        """Answer at once from now on."""
        self.at_once = True
        if self.asked is not None:
            self.answer()

    async def _ask(self, name: str) -> None:
        if self.at_once:
            return
        future = asyncio.get_running_loop().create_future()
        self.asked = name, future
        await future

    async def open(self) -> None:
        """Open, when told to."""
        await self._ask("open")
        if self.unreadable:
            raise OSError("the disk is broken")
        await super().open()

    async def read(self, *_: object) -> list[tuple[Key, Record]]:
        """Find nothing, so that what is stored is not sent before a step says so; the client looks again then."""
        return []

    async def totals(self) -> Any:
        """Count what is there."""
        if self.unreadable:
            raise OSError("the disk is broken")
        return self.same or await super().totals()

    async def try_out(self) -> None:
        """Say whether it can be written to."""
        if self.unwritable:
            raise OSError("the disk is read-only")

    async def close(self, left: Mapping[int, Changes]) -> None:
        """Close, when told to."""
        await self._ask("close")
        await super().close(left)


class Hand:
    """A client, and what drives it.

    Args:
        sets_up: whether it has a function `setup`.
        given: whether it has an outbox.
        republishes: whether it sends lost messages again.
        broker: what it connects to; None: a broker in memory of its own.
    """

    def __init__(self, *, sets_up: bool, given: bool, republishes: bool, broker: Any = None) -> None:
        self.broker: Any = broker or Broker().install()
        self.disk = Disk()
        module: Any = outbox_model
        self._store_in = module.store_in
        module.store_in = lambda _folder, _name: self.disk
        self._answers: list[asyncio.Future[Any]] = []
        self._setups: list[asyncio.Future[None]] = []
        self.failures = 0
        self.client = self.broker.client(
            self._address,
            connection_attempts=99,
            timeout=LONG,
            setup=self._set_up if sets_up else None,
            outbox=str(Path(__file__).parent) if given else None,
            republish_unconfirmed=republishes,
            on_persistent_failure_callback=self._fail,
        )
        self.runtime = self.client._runtime  # noqa: SLF001
        runtime = self.runtime
        self.models: dict[str, Model] = {
            "connection": runtime.lifecycle,
            "outage": runtime.lifecycle._outage,  # noqa: SLF001
            "renewal": runtime.renewal,
            "outbox": runtime.outbox,
            "check": runtime.check,
        }
        #: The changes that were told.
        self.told = self.broker.watch(self.client)
        self._publish: asyncio.Future[Any] | None = None
        #: The answers to checks.
        self.answers: list[Answer] = []
        self._stored: list[asyncio.Future[Any]] = []
        self._reasons: set[str] = set()
        address = runtime.lifecycle.address
        # A node is known from the start, so that the function need not be called.
        address._take(self.url(), LONG**2)  # noqa: SLF001
        address.lifetime = float("inf")
        # The first channel that is lost is opened again at once: the others come after a delay.
        address.attempts.next_channel()
        runtime.lifecycle.call_all_off()
        self.turn()

    def close(self) -> None:
        """Leave everything."""
        module: Any = outbox_model
        module.store_in = self._store_in
        for model in self.models.values():
            model.call_all_off()
        loop = self.broker.clock.loop
        for task in asyncio.all_tasks(loop):
            task.cancel()
        self.broker.clock._turns_left = 10_000  # noqa: SLF001
        self.turn()
        self.broker.close()

    def url(self, user: str = "guest") -> str:
        """Return the URL of the broker."""
        return f"amqp://{user}:guest@broker"

    async def _address(self) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers.append(future)
        return await future

    async def _set_up(self, _topology: object) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._setups.append(future)
        await future

    def _fail(self, _client: object) -> None:
        self.failures += 1

    def turn(self) -> None:
        """Let everything happen that takes no time."""
        self.broker.clock._turns_left = 10_000  # noqa: SLF001
        self.broker.clock.turn(20)

    # What is so

    def states(self) -> tuple[Any, ...]:
        """The states of all machines."""
        return tuple(model.state for model in self.models.values())

    def timers(self) -> set[tuple[str, Any]]:
        """The timers of states that run."""
        return {
            (name, state)
            for name, model in self.models.items()
            for state, handles in model._scheduled.items()  # noqa: SLF001
            if any(isinstance(each, asyncio.TimerHandle) and not each.cancelled() for each in handles)
        }

    @property
    def publish_ended(self) -> bool:
        """Whether the publish that is followed has ended for its caller."""
        return self._publish is None or self._publish.done()

    # What happens

    def take(self, before: World, edge: Edge) -> None:
        """Have a step happen, and what follows from it."""
        step, timer = edge.step, edge.timer
        assumed = {**dict(step.assumed), **step.event.assumes}
        lifecycle = self.runtime.lifecycle
        if "calls" in assumed:
            lifecycle.attempts._due = assumed["calls"]  # noqa: SLF001
            self._set_expired(False)
        node = lifecycle.address.parameters
        if "retries_node" in assumed and node is not None:
            node.connection_attempts = 99 if assumed["retries_node"] else 1
        self.broker.channel_error = NoFreeChannels() if step.world.lane is Lane.MISSING else None
        self._before, self._after = before, step.world
        if timer is not None:
            self._expire(*timer, spent=bool(step.rows))
        else:
            does = HANDS[step.event.words]
            # A subclass may do it otherwise.
            getattr(type(self), does.__name__, does)(self)
        self.turn()
        self.broker.channel_error = None
        while step.world.files is Files.CLOSING and self.disk.question == "open":
            # What was begun before ends first; what it finds is another step.
            self._look_away()
        outbox = self.runtime.outbox
        while outbox._writer.next.own.puts and self.disk.question == "open" and outbox.state in _OPEN:  # noqa: SLF001
            # A disk that is slow is another step.
            self._answer_disk()
        for publish in self.runtime.publisher.line.in_order():
            if publish.future in self._stored:
                # It was to be stored, and nobody follows it.
                publish.future.cancel()
                self.turn()

    def _expire(self, name: str, state: Any, *, spent: bool) -> None:
        handles = self.models[name]._scheduled[state]  # noqa: SLF001
        handle = next(each for each in handles if isinstance(each, asyncio.TimerHandle) and not each.cancelled())
        self._run(handle, spent=spent)

    @staticmethod
    def _run(handle: asyncio.TimerHandle, *, spent: bool = True) -> None:
        callback, arguments = handle._callback, handle._args  # type: ignore[attr-defined] # noqa: SLF001
        if spent:
            # One that changes nothing may expire again in the declared world.
            handle.cancel()
        callback(*arguments)

    # The application

    def connect(self) -> None:
        """Ask to connect."""
        try:
            self.client.connect()
        except ConnectionStateError:
            assert self._before.connection is self._after.connection

    def ask_to_close(self) -> None:
        """Ask to close."""
        try:
            self.client.close()
        except ConnectionStateError:
            assert self._before.connection is self._after.connection

    def stop(self) -> None:
        """Do what `shutdown` does to a client without a connection."""
        self.runtime.lifecycle.feed(self.runtime.lifecycle.stop)

    def run_out_of_time(self) -> None:
        """Do what `shutdown` does when its time is over."""
        self.runtime.lifecycle.feed(self.runtime.lifecycle.close_expired, "out of time")

    def publish(self) -> None:
        """Publish a message."""
        self._publish = self.client.publish("", "q", b"")
        self._publish.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    def give_up_publish(self) -> None:
        """Let the time of a waiting publish pass."""
        [publish] = [each for each in self.runtime.publisher.line.in_order() if each.kept is None]
        assert isinstance(publish.timer, asyncio.TimerHandle)
        self._run(publish.timer)

    def give_up_confirm(self) -> None:
        """Let the time for a confirm pass."""
        flight = self.runtime.publisher.flight
        for publish in flight.entries.values():
            publish.sent_at -= LONG
        flight.expire()

    def return_url(self, valid_for: float | None, user: str = "guest") -> None:
        """Answer the call for the URL."""
        self._answers.pop().set_result(Access(self.url(user), valid_for))

    def fail_call(self) -> None:
        """Have the function raise."""
        self._answers.pop().set_exception(RuntimeError("no answer"))

    def end_setup(self, error: Exception | None = None) -> None:
        """Have `setup` end."""
        future = self._setups.pop()
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    # RabbitMQ: what it has said arrives in the order of each channel, and when a step says so

    def _arrive(self, channel: int, *, last: bool = False) -> None:
        """Let what RabbitMQ has said on a channel arrive: all of it, and what is answered then."""
        peer = self.broker.peer
        while frames := [each for each in peer.outbox if int.from_bytes(each[1:3], "big") == channel]:
            held = [each for each in peer.outbox if each not in frames]
            peer.outbox = frames
            peer.deliver()
            peer.outbox = held + peer.outbox
            # The client sends what it has to say in its loop's next turn.
            self.turn()
            if last:
                break

    def _say(self, channel: int, method: Any) -> None:
        """Let RabbitMQ say something that arrives before what it has said."""
        peer = self.broker.peer
        held, peer.outbox = peer.outbox, [Method(channel, method).marshal()]
        peer.deliver()
        peer.outbox = held + peer.outbox

    @property
    def _channel(self) -> int:
        channel = self.runtime.link.channel
        assert channel is not None
        return int(channel.channel_number)

    @property
    def _lane(self) -> int:
        channel = self.runtime.check._channel  # noqa: SLF001
        assert channel is not None
        return int(channel.channel_number)

    def accept(self) -> None:
        """Accept the connection."""
        self._reasons.clear()
        self._shake_hands()

    def _shake_hands(self) -> None:
        self.broker.peer.accept()
        for _ in range(4):
            self.turn()
            self._arrive(0)

    def refuse(self) -> None:
        """Refuse the connection."""
        self.broker.peer.refuse()

    def refuse_login(self) -> None:
        """Refuse the login."""
        self.broker._logs_in = False  # noqa: SLF001
        self._shake_hands()
        self.broker._logs_in = True  # noqa: SLF001

    def lose(self) -> None:
        """Cut the line."""
        self.broker.peer.lose()

    def say_goodbye(self) -> None:
        """Answer connection.close, which pika sends once every channel is closed."""
        for _ in range(4):
            self.broker.peer.deliver()
            self.turn()

    def block(self) -> None:
        """Block with an alarm, or with one reason more."""
        if "alarm" in self._reasons and self._before.channel is Line.OPEN and self._before.link is Line.OPEN:
            self._flow(active=False)
        else:
            self._reasons.add("alarm")
            self._say(0, spec.Connection.Blocked("low on memory"))

    def _unblock(self) -> None:
        self._reasons.discard("alarm")
        self._say(0, spec.Connection.Unblocked())

    def _flow(self, *, active: bool) -> None:
        if active:
            self._reasons.discard("flow")
        else:
            self._reasons.add("flow")
        self._say(self._channel, spec.Channel.Flow(active))

    def unblock(self) -> None:
        """Take every reason back, the one for which it blocks last."""
        if "flow" in self._reasons and "alarm" in self._reasons:
            self._flow(active=True)
        if "flow" in self._reasons:
            self._flow(active=True)
        else:
            self._unblock()

    def unblock_in_part(self) -> None:
        """Take one of two reasons back."""
        if "flow" not in self._reasons:
            self._flow(active=False)
        if "alarm" in self._reasons:
            self._unblock()
        else:
            self._reasons.add("alarm")
            self._say(0, spec.Connection.Blocked("low on memory"))
            self._flow(active=True)

    def open_channel(self) -> None:
        """Open the channel, in confirm mode."""
        self._arrive(self._channel)

    def fail_channel(self) -> None:
        """Be a server that knows no publisher confirms."""

        def confirm_delivery(*_args: object, **_more: object) -> None:
            raise ValueError("no publisher confirms")

        channel: Any = self.runtime.link.channel
        channel.confirm_delivery = confirm_delivery
        self._arrive(self._channel)

    def nack_for_long(self) -> None:
        """Have the publisher find that another channel may help."""
        self.runtime.gate.replace_channel("RabbitMQ has nacked 3 messages in a row")
        self.turn()

    def leave_channel(self) -> None:
        """Answer channel.close."""
        self._arrive(self._channel)

    def close_channel(self, code: int = 406, *, expired: bool = False) -> None:
        """Close the channel; an alarm stays."""
        if self._before.blocks and self._after.blocks and "alarm" not in self._reasons:
            self._reasons.add("alarm")
            self._say(0, spec.Connection.Blocked("low on memory"))
        self._reasons.discard("flow")
        self._close_channel(code, expired=expired)

    def close_stopped_channel(self) -> None:
        """Close a channel whose flow was stopped."""
        if "flow" not in self._reasons:
            self._flow(active=False)
        if "alarm" in self._reasons:
            self._unblock()
        self._reasons.clear()
        self._close_channel(406, expired=False)

    def _close_channel(self, code: int, *, expired: bool) -> None:
        self._set_expired(expired)
        number, peer = self._channel, self.broker.peer
        peer.open_channels.discard(number)
        peer._forget(number)  # noqa: SLF001
        peer.outbox = [each for each in peer.outbox if int.from_bytes(each[1:3], "big") != number]
        self._say(number, spec.Channel.Close(code, "closed by hand", 60, 40))
        for publish in self.runtime.publisher.line.in_order():
            # A message that is refused twice is not sent a third time.
            publish.blamed = 0

    def _set_expired(self, expired: bool) -> None:
        address = self.runtime.lifecycle.address
        if address.expires:
            # Credentials that have expired are not renewed by time, which stands still.
            address._valid_until = address._loop.time() + (0 if expired else address.lifetime)  # noqa: SLF001

    def expire_access(self) -> None:
        """Refuse an exchange, since the credentials have expired."""
        self._set_expired(True)
        self.runtime.gate.disowns(403, "ACCESS_REFUSED")
        self.turn()
        self._set_expired(False)

    def confirm(self) -> None:
        """Confirm what came."""
        peer, number = self.broker.peer, self._channel
        peer.confirm(peer.unconfirmed[number][-1], channel=number, multiple=True)
        self._arrive(number)

    def accept_secret(self) -> None:
        """Accept the new password."""
        self._arrive(0)

    # The disk

    def answer_disk(self, *, holds: bool | None = None, fails: bool = False, unwritable: bool = False) -> None:
        """Have the disk answer: it holds messages or none, or fails."""
        self.turn()
        if self.disk.question is None:
            self._look()
        if self.disk.question == "close":
            # It was stopped meanwhile.
            return
        if holds is not None:
            if not holds and not self._after.holds:
                self.disk.boxes.clear()
            elif not self.disk.boxes.get(OTHER):
                # One may be on the wire already.
                self.disk.fill()
        self.disk.unreadable, self.disk.unwritable = fails, unwritable
        self._answer_disk()
        self.disk.unreadable = self.disk.unwritable = False

    def leave_disk_silent(self) -> None:
        """Have the disk take longer than it may."""
        self.runtime.outbox._writer._tell_silence()  # noqa: SLF001

    def _answer_disk(self) -> None:
        self.disk.answer()
        self.turn()

    def _look_away(self) -> None:
        """Have the disk answer what changes nothing of what is known."""
        ledger = self.runtime.outbox._stock.ledger  # noqa: SLF001
        known = sum(map(ledger.at, ledger.machine.marked("on_disk")))
        self.disk.same = Totals(messages=ledger.at(Place.ON_DISK) + known)
        self._answer_disk()
        self.disk.same = None

    def _look(self) -> None:
        outbox = self.runtime.outbox
        outbox._stop_looking()  # noqa: SLF001
        outbox._look()  # noqa: SLF001
        self.turn()

    def begin_backlog(self) -> None:
        """Have a message be found; on a disk that cannot be written to, only counted."""
        self.answer_disk(holds=True, unwritable=self._before.outbox.name == "FAILING")

    def store(self) -> None:
        """Publish a message that is stored."""
        future = self.client.publish("", "q", b"stored")
        self._stored.append(future)
        future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    def send_last_stored(self) -> None:
        """Have nothing be left to send."""
        for _ in range(3):
            # What has yet to be written is written first.
            if self.runtime.outbox.holds:
                self.answer_disk(holds=False)

    def end_backlog(self) -> None:
        """Have it be said that nothing is left, when that is no longer so."""
        self.runtime.outbox.feed(self.runtime.outbox.backlog_ended)

    def close_files(self) -> None:
        """Close the files, and do all that was to be done before."""
        is_closed = False
        while (name := self.disk.question) is not None and not (is_closed and self._before.files is Files.REOPENING):
            # What it was to open before it was to be closed again is nobody's any more.
            self._look_away()
            is_closed = is_closed or name == "close"

    def ask(self) -> None:
        """Have an exchange be checked."""
        message, _, _ = encode("exchange", "q", b"", None, None, {}, USUAL)
        self.runtime.check.check(message, {}, self.answers.append)

    def answer_check(self) -> None:
        """Let RabbitMQ's answer arrive."""
        self._arrive(self._lane, last=True)

    def close_lane(self, code: int) -> None:
        """Close the channel for checks."""
        number, peer = self._lane, self.broker.peer
        peer.open_channels.discard(number)
        peer._forget(number)  # noqa: SLF001
        peer.outbox = [each for each in peer.outbox if int.from_bytes(each[1:3], "big") != number]
        self._say(number, spec.Channel.Close(code, "closed by hand", 60, 40))

    def close_old_lane(self) -> None:
        """Let the answer to channel.close arrive."""
        check: Any = self.runtime.check
        old = check._old  # noqa: SLF001
        assert old is not None
        while check._old is old:  # noqa: SLF001
            # One that is being opened is closed once it is open.
            self._arrive(int(old.channel_number), last=True)


#: What makes each event happen, by its words.
HANDS: Final[dict[str, Any]] = {
    "the application connects": Hand.connect,
    "the application closes": Hand.ask_to_close,
    "the application shuts down": Hand.stop,
    "shutting down may take no longer": Hand.run_out_of_time,
    "a message is published": Hand.publish,
    "the publish may wait no longer": Hand.give_up_publish,
    "the confirm may take no longer": Hand.give_up_confirm,
    "the function returns credentials that expire": lambda hand: hand.return_url(LONG),
    "the function returns a URL": lambda hand: hand.return_url(None),
    "the function raises": Hand.fail_call,
    "`setup` returns": Hand.end_setup,
    "`setup` raises": lambda hand: hand.end_setup(RuntimeError("no setup")),
    "RabbitMQ accepts the connection": Hand.accept,
    "the node is not reached": Hand.refuse,
    "RabbitMQ refuses the login": Hand.refuse_login,
    "the connection is lost": Hand.lose,
    "RabbitMQ answers that the connection is closed": Hand.say_goodbye,
    "RabbitMQ blocks publishing": Hand.block,
    "RabbitMQ blocks no longer": Hand.unblock,
    "of two reasons to block, one is left": Hand.unblock_in_part,
    "RabbitMQ opens the channel": Hand.open_channel,
    "the channel cannot be opened": Hand.fail_channel,
    "RabbitMQ closes the channel": Hand.close_channel,
    "RabbitMQ closes the channel, whose flow it had stopped": Hand.close_stopped_channel,
    "RabbitMQ closes the channel, as the credentials have expired": lambda hand: hand.close_channel(403, expired=True),
    "RabbitMQ refuses an exchange, as the credentials have expired": Hand.expire_access,
    "RabbitMQ has nacked for long, and nothing is unconfirmed": Hand.nack_for_long,
    "RabbitMQ answers that the channel is closed": lambda hand: hand.leave_channel(),
    "RabbitMQ confirms the message": Hand.confirm,
    "the function returns a new password": lambda hand: hand.return_url(LONG),
    "the function returns a password that does not expire": lambda hand: hand.return_url(None),
    "the function returns another user": lambda hand: hand.return_url(LONG, "another"),
    "the function returns another user, whose password does not expire": lambda hand: hand.return_url(None, "another"),
    "the function raises, called again": Hand.fail_call,
    "RabbitMQ accepts the new password": Hand.accept_secret,
    "the files are open, and hold messages": lambda hand: hand.answer_disk(holds=True),
    "the files are open, and hold none": lambda hand: hand.answer_disk(holds=False),
    "the files were looked at again": lambda hand: hand.answer_disk(),
    "the disk fails": lambda hand: hand.answer_disk(fails=True),
    "the disk does not answer": Hand.leave_disk_silent,
    "the disk can be read, but not written": lambda hand: hand.answer_disk(holds=True, unwritable=True),
    "a message is stored, or a stored one that was sent is lost": Hand.begin_backlog,
    "another message is stored": Hand.store,
    "the last stored message is sent": Hand.send_last_stored,
    "what is stored is dropped by hand": Hand.send_last_stored,
    "none was left to send, and another is stored": Hand.end_backlog,
    "the files are closed": Hand.close_files,
    "the files are closed, and opened again": Hand.close_files,
    "an exchange is used for the first time": Hand.ask,
    "RabbitMQ opens the channel for checks": Hand.answer_check,
    "RabbitMQ allows no second channel": lambda hand: hand.close_lane(530),
    "RabbitMQ selects transactions": Hand.answer_check,
    "RabbitMQ knows no transactions": lambda hand: hand.close_lane(540),
    "RabbitMQ accepts the empty message": Hand.answer_check,
    "RabbitMQ closes the channel for checks": lambda hand: hand.close_lane(404),
    "the earlier channel for checks is closed": Hand.close_old_lane,
}
#: Where a publish is, by whether it waits, and whether it is on the wire.
PLACES: Final = {
    Publish.NONE: (0, 0),
    Publish.WAITING: (1, 0),
    Publish.SENT: (0, 1),
    Publish.ANSWERED: (0, 1),
    Publish.KEPT: (0, 1),
}
