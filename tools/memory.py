"""The broker in memory, driven by hand: nothing arrives at the client until somebody lets it."""

from __future__ import annotations

import asyncio
import collections
import inspect
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sprockets_amqp.client import Client
from sprockets_amqp.outbox.sqlite import store
from sprockets_amqp.testing import broker as testing
from sprockets_amqp.testing.clock import Clock
from sprockets_amqp.testing.rules import Published, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from pika.channel import Channel

    from sprockets_amqp.testing.attempt import Attempt
    from sprockets_amqp.testing.peer import Peer

if TYPE_CHECKING:
    from sprockets_amqp.settings import URL


class Disk(Executor):
    """Does at once what a thread would do, so that what happens depends on the test alone."""

    #: What the disk is given waits here, while somebody wants it to.
    waiting: ClassVar[list[Callable[[], object]] | None] = None
    #: Whether it takes nothing any more; it can still be read.
    broken: ClassVar[bool] = False
    #: What was opened.
    folders: ClassVar[set[Any]] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do it."""
        self.folders.add(fn.__self__)  # type: ignore[attr-defined]
        future: Future[Any] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                if self.broken and fn.__name__ in {"write", "try_out"}:
                    raise OSError("the disk is broken")
                future.set_result(fn(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)

        work() if self.waiting is None else self.waiting.append(work)
        return future


class Broker(testing.Broker):
    """All that connects, in order, and what came of it; every exchange exists, and has a queue, unless it is named."""

    automatic = False

    def __init__(self) -> None:
        super().__init__()
        self.tune.channel_max, self.tune.frame_max = 5, 8192
        self._clock = Clock()
        self.clients: list[Client] = []
        #: Exchanges that do not exist, those that questions about are never answered, and routing keys of no queue.
        self.missing = {"missing"}
        self.unanswered: set[str] = set()
        self.unroutable: set[str] = set()
        #: Exchanges that cost the connection, with a question or a message, and topics that the user may not write to.
        self.costly: set[str] = set()
        self.denied: set[str] = set()
        #: What pika raises when it is asked for a channel, if anything.
        self.channel_error: Exception | None = None
        #: How often each message was sent, the broker reading or not; None stands for those that only ask.
        self.sent: collections.Counter[str] = collections.Counter()

    def install(self) -> Self:
        """Be in the place of every RabbitMQ, and a disk that does at once what it is told in that of threads."""
        module: Any = store
        module.ThreadPoolExecutor = lambda *_: Disk()
        Disk.waiting, Disk.broken = None, False
        return super().install()

    def uninstall(self) -> None:
        """Stop serving, and have threads write to the disk again."""
        module: Any = store
        module.ThreadPoolExecutor = ThreadPoolExecutor
        # Those of a client that a test left.
        self.leave_disk()
        super().uninstall()

    # What a process that is killed leaves

    def leave_disk(self) -> None:
        """Close every file; what the disk was given and has not done is never done."""
        Disk.waiting = None
        while Disk.folders:
            Disk.folders.pop().close({})

    def leave_loop(self) -> Clock:
        """Go on with another loop, at the same time; nothing of what the present one has to do ever happens."""
        left, self._clock = self.clock, Clock()
        self._clock.now = left.now
        for task in asyncio.all_tasks(left.loop):
            coroutine: Any = task.get_coro()
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                # Python warns of one that nobody will ever await.
                coroutine.close()
        left.io_loop.close()
        return self._clock

    # The rules

    def reach(self, parameters: object, line: Any, loop: object, behind: object) -> Attempt:
        """Let the test decide whether pika opens channels."""
        channel = line.channel

        def open_channel(*args: Any, **kwargs: Any) -> Channel:
            if self.channel_error is not None:
                raise self.channel_error
            opened: Channel = channel(*args, **kwargs)
            return opened

        line.channel = open_channel
        return super().reach(parameters, line, loop, behind)

    def attempted(self, peer: Peer) -> None:
        """Leave it to the test what becomes of a connection."""

    def judge(self, message: Published) -> None:
        """Refuse what the test has named."""
        if message.exchange in self.costly:
            raise Refused(541, "INTERNAL_ERROR", connection=True)
        if message.exchange in self.missing:
            raise Refused(404, "NOT_FOUND")
        if denied := self.denied.intersection(message.routing_keys):
            topic = f"access to topic '{denied.pop()}' in exchange '{message.exchange}' in vhost '/' refused for user 'guest'"
            raise Refused(403, f"ACCESS_REFUSED - {topic}")

    def accept(self, peer: Peer, channel_number: int, message: Published) -> None:
        """Take a message; the test confirms it."""
        self.published.append(message)
        if message.routing_key in self.unroutable:
            peer.give_back(channel_number, message)

    def answers(self, exchange: str) -> bool:
        """Leave questions unanswered as the test has said."""
        return exchange not in self.unanswered

    def note_sent(self, message_id: str) -> None:
        """Count what was sent."""
        self.sent.update([message_id])

    # What the test does

    @property
    def messages(self) -> list[str]:  # type: ignore[override]
        """The ids of messages as they came."""
        return [str(message.properties.message_id) for message in self.published]

    @property
    def acked(self) -> set[str]:
        """The ids of those that were acknowledged."""
        return {str(message.properties.message_id) for message in self.published if message.confirmed}

    def client(self, url: URL = "amqp://broker", **settings: Any) -> Client:
        """Make a client of this broker; it connects when the loop turns."""
        settings = {"connection_attempts": 1, "reconnect_delay": 1, "max_reconnect_delay": 4, **settings}
        client = Client(url, io_loop=self.clock.io_loop, **settings)
        self.clients.append(client)
        return client

    @property
    def peer(self) -> Peer:
        """The last connection."""
        return self.peers[-1]

    def open(self) -> Self:
        """Take what wants to connect, and answer all that is asked, until nothing is left to do."""
        for _ in range(12):
            self.clock.turn(8)
            for peer in self.peers:
                if not peer.lost and not peer.accepted:
                    peer.accept()
                peer.deliver()
        return self

    def ready(self, url: URL = "amqp://broker", **settings: Any) -> Client:
        """Make a client, and make it ready."""
        client = self.client(url, **settings)
        self.open()
        assert client.ready, client.condition
        return client

    def watch(self, client: Client) -> list[tuple[str, str, str]]:
        """Return the changes from now on, as they are told: source, trigger and dest."""
        told: list[tuple[str, str, str]] = []
        client.subscribe(lambda change: told.append((change.source.name, change.trigger, change.dest.name)))
        return told

    def shut_down(self, timeout: float = 1) -> None:
        """Shut every client down, and see that nothing is left."""
        for client in self.clients:
            task = self.clock.loop.create_task(self._stop(client, timeout))
            self.clock.turn()
            for _ in range(int((3 * timeout + 5) / 0.05)):
                if not task.done():
                    self.clock.advance(0.05)
            task.result()
        self.clock.turn()
        assert self.clock.timers() == []
        assert asyncio.all_tasks(self.clock.loop) == set()

    async def _stop(self, client: Client, timeout: float) -> None:
        await client.shutdown(timeout)
        assert client.closed
        assert not client.recovers
        assert (client.unconfirmed, client.waiting) == (0, 0)
        assert client.connection is None

    def every(self, done: Callable[[Peer], object]) -> None:
        """Do something to each connection that is up."""
        for peer in self.connections:
            done(peer)

    def close(self) -> None:
        """Close the loop. What is left runs once more: it is still this broker that it reaches."""
        try:
            self.clock.close()
        finally:
            self.uninstall()
