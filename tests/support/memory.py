"""A broker in memory, on a loop whose time the test moves: what a client does then is the same each time.

The client, pika and the frames between them are real; only the sockets and the clock are not. Nothing arrives at the
client until the test lets it.
"""

from __future__ import annotations

import asyncio
import collections
from typing import TYPE_CHECKING, Any, Self

import pytest
from pika import BasicProperties, frame, spec
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowAborted, AMQPConnectionWorkflowFailed

from sprockets_amqp import link
from sprockets_amqp.client import Client
from sprockets_amqp.wire.transport import Connection
from tests.support.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pika.channel import Channel


class Wire:
    """The client's end of a line in memory."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def write(self, data: bytes) -> None:
        """Send."""
        self._peer.receive(data)

    def get_write_buffer_size(self) -> int:
        """Everything is taken at once, unless the line is slow."""
        return sum(size for _, size in self._peer.line) if self._peer.slow else 0

    def abort(self) -> None:
        """Drop the line; pika hears of it in a later turn, or when the test lets it."""
        self._peer.aborted = True
        if not self._peer.broker.clings:
            self._peer.drop_later(None)


class Workflow:
    """Stands where pika resolves names and connects."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def abort(self) -> None:
        """Stop connecting; pika hears of it in a later turn."""
        if not self._peer.lost:
            self._peer.lost = True
            done = self._peer.connection._on_connection_workflow_done
            self._peer.broker.clock.loop.call_soon(done, AMQPConnectionWorkflowAborted("aborted"))


class Peer:
    """The broker's end of one connection."""

    def __init__(self, broker: Broker, connection: Any) -> None:
        self.broker = broker
        self.connection = connection
        self.outbox: list[bytes] = []
        self.accepted = self.lost = self.stalled = self.slow = self.aborted = self.said_goodbye = False
        #: Frames on their way, with their sizes, and what the client said of itself.
        self.line: collections.deque[tuple[Any, int]] = collections.deque()
        self.client_properties: dict[str, Any] = {}
        #: Channels in confirm mode: how many messages came, and which tags are unconfirmed.
        self.received: dict[int, int] = {}
        self.unconfirmed: dict[int, list[int]] = {}
        self.ids: dict[tuple[int, int], str] = {}
        self.open_channels: set[int] = set()
        #: The number of each channel that was opened, in order.
        self.channels: list[int] = []
        #: Channels for questions on which nothing is answered any more.
        self._mute: set[int] = set()
        self._buffer = b""
        self._content: dict[int, list[Any]] = {}

    # What the test does

    def accept(self) -> None:
        """Take the connection."""
        self.accepted = True
        self.connection._proto_connection_made(Wire(self))

    def refuse(self, error: Exception | None = None) -> None:
        """Take no connection."""
        self.lost = True
        failed = AMQPConnectionWorkflowFailed([error or ConnectionRefusedError(111, "Connection refused")])
        self.connection._on_connection_workflow_done(failed)

    def deliver(self, count: int | None = None) -> None:
        """Let what the broker said arrive: so many frames, or all."""
        count = len(self.outbox) if count is None else count
        data, self.outbox = b"".join(self.outbox[:count]), self.outbox[count:]
        if data and not self.lost:
            self.connection._proto_data_received(data)

    def say(self, channel_number: int, method: Any) -> None:
        """Say something, which arrives when it is delivered."""
        self.outbox.append(frame.Method(channel_number, method).marshal())

    def confirm(self, tag: int, *, channel: int = 1, multiple: bool = False, nack: bool = False) -> None:
        """Confirm what was received."""
        waiting = self.unconfirmed.get(channel, [])
        for each in [each for each in waiting if each == tag or (multiple and each < tag)]:
            waiting.remove(each)
            if not nack:
                self.broker.acked.add(self.ids[channel, each])
        self.say(channel, (spec.Basic.Nack if nack else spec.Basic.Ack)(tag, multiple))

    def confirm_all(self) -> None:
        """Confirm everything, and let it arrive."""
        for channel, tags in self.unconfirmed.items():
            if tags:
                self.confirm(tags[-1], channel=channel, multiple=True)
        self.deliver()

    def close_channel(self, number: int = 1, code: int = 404, text: str = "NOT_FOUND") -> None:
        """Close a channel over an error."""
        self.open_channels.discard(number)
        self._forget(number)
        self.say(number, spec.Channel.Close(code, text, 60, 40))

    def stall(self, *, stalled: bool) -> None:
        """Block, and take nothing from the socket any more; or take it back."""
        self.stalled = stalled
        self.say(0, spec.Connection.Blocked("low on memory") if stalled else spec.Connection.Unblocked())
        self.take()

    def slow_down(self, *, slow: bool) -> None:
        """Take nothing from the line for now, be it that no alarm is told; or take what it holds."""
        self.slow = slow
        self.take()

    def take(self) -> None:
        """Read what is on its way, unless the line is slow or the broker is not reading."""
        while self.line and not self.slow and not self.stalled and not self.lost:
            self._take(self.line.popleft()[0])

    def lose(self, error: BaseException | None = None) -> None:
        """Cut the line."""
        if not self.lost:
            self.lost = True
            self.connection._proto_connection_lost(error or ConnectionResetError(104, "reset"))

    def drop_later(self, error: BaseException | None) -> None:
        """Cut the line in a later turn."""
        if not self.lost:
            self.lost = True
            self.broker.clock.loop.call_soon(self.connection._proto_connection_lost, error)

    # What the broker does

    def receive(self, data: bytes) -> None:
        """Take note of what the client sends, and read it."""
        self._buffer += data
        consumed, decoded = frame.decode_frame(self._buffer)
        while decoded is not None:
            self._buffer = self._buffer[consumed:]
            self.line.append((decoded, consumed))
            if isinstance(decoded, frame.Header):
                self.broker.sent.update([str(decoded.properties.message_id)])
            consumed, decoded = frame.decode_frame(self._buffer)
        self.take()

    def _take(self, decoded: Any) -> None:
        if isinstance(decoded, frame.ProtocolHeader):
            capabilities = {"publisher_confirms": True, "basic.nack": True, "connection.blocked": True}
            self.say(0, spec.Connection.Start(0, 9, {"capabilities": capabilities}, "PLAIN", "en_US"))
        elif isinstance(decoded, frame.Method):
            answer = getattr(self, "_on_" + decoded.method.NAME.replace(".", "_").lower(), None)
            number = decoded.channel_number
            if answer is not None and (number == 0 or number in self.open_channels or "channel" in answer.__name__):
                answer(number, decoded.method)
        elif decoded.channel_number in self._content:
            self._on_content(decoded.channel_number, decoded)

    def _on_connection_startok(self, _number: int, method: Any) -> None:
        self.client_properties = method.client_properties
        self.say(0, self.broker.tune)

    def _on_connection_open(self, _number: int, _method: Any) -> None:
        self.say(0, spec.Connection.OpenOk())

    def _on_connection_close(self, _number: int, _method: Any) -> None:
        self.said_goodbye = True
        self.say(0, spec.Connection.CloseOk())

    def _on_channel_open(self, number: int, _method: Any) -> None:
        assert number not in self.open_channels
        self.open_channels.add(number)
        self.channels.append(number)
        self.say(number, spec.Channel.OpenOk())

    def _on_channel_close(self, number: int, _method: Any) -> None:
        self.open_channels.discard(number)
        self._forget(number)
        self.say(number, spec.Channel.CloseOk())

    def _on_confirm_select(self, number: int, _method: Any) -> None:
        self.received[number], self.unconfirmed[number] = 0, []
        self.say(number, spec.Confirm.SelectOk())

    def _on_tx_select(self, number: int, _method: Any) -> None:
        self.say(number, spec.Tx.SelectOk())

    def _on_tx_rollback(self, number: int, _method: Any) -> None:
        if number not in self._mute:
            self.say(number, spec.Tx.RollbackOk())

    def _on_basic_publish(self, number: int, method: Any) -> None:
        self._content[number] = [method, None, b""]

    def _on_content(self, number: int, decoded: Any) -> None:
        content = self._content[number]
        if isinstance(decoded, frame.Header):
            content[1] = decoded
        else:
            content[2] += decoded.fragment
        if len(content[2]) == content[1].body_size:
            del self._content[number]
            self._on_message(number, content[0], content[1].properties, content[2])

    def _on_message(self, number: int, method: Any, properties: BasicProperties, body: bytes) -> None:
        if method.exchange in self.broker.costly:
            self.say(0, spec.Connection.Close(541, "INTERNAL_ERROR", 0, 0))
        elif method.exchange in self.broker.missing:
            self.close_channel(number)
        elif denied := self.broker.denied.intersection([method.routing_key, *_copied(properties)]):
            text = f"access to topic '{denied.pop()}' in exchange '{method.exchange}' in vhost '/' refused"
            self.close_channel(number, 403, f"ACCESS_REFUSED - {text}"[:255])
        elif number in self.received:
            self.received[number] += 1
            tag = self.received[number]
            self.unconfirmed[number].append(tag)
            self.ids[number, tag] = str(properties.message_id)
            self.broker.messages.append(str(properties.message_id))
            if method.routing_key in self.broker.unroutable:
                self.say(number, spec.Basic.Return(312, "NO_ROUTE", method.exchange, method.routing_key))
                self.outbox.append(frame.Header(number, len(body), properties).marshal())
                if body:
                    self.outbox.append(frame.Body(number, body).marshal())
        elif method.exchange in self.broker.unanswered:
            self._mute.add(number)

    def _forget(self, number: int) -> None:
        self._mute.discard(number)
        self.received.pop(number, None)
        self.unconfirmed.pop(number, None)
        self._content.pop(number, None)


class Broker:
    """All that connects, in order, and what came of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.peers: list[Peer] = []
        self.clients: list[Client] = []
        #: Exchanges that do not exist, those that questions about are never answered, and routing keys of no queue.
        self.missing = {"missing"}
        self.unanswered: set[str] = set()
        self.unroutable: set[str] = set()
        #: Exchanges that cost the connection, with a question or a message, and topics that the user may not write to.
        self.costly: set[str] = set()
        self.denied: set[str] = set()
        #: The limits that it proposes: channels, octets of a frame, seconds between heartbeats.
        self.tune = spec.Connection.Tune(5, 4096, 0)
        #: What pika raises when it is asked for a channel, if anything.
        self.channel_error: Exception | None = None
        #: Whether a line that the client drops stays until the test cuts it.
        self.clings = False
        #: How often each message was sent, the broker reading or not; None stands for those that only ask.
        self.sent: collections.Counter[str] = collections.Counter()
        #: The ids of messages as they came, and those that were acknowledged.
        self.messages: list[str] = []
        self.acked: set[str] = set()
        broker = self

        class InMemory(Connection):
            """The client's connection; who connects it is the test."""

            def _adapter_connect_stream(self) -> None:
                broker.peers.append(Peer(broker, self))
                self._connection_workflow: Any = Workflow(broker.peer)

            def channel(self, *args: Any, **kwargs: Any) -> Channel:
                if broker.channel_error is not None:
                    raise broker.channel_error
                return super().channel(*args, **kwargs)

        monkeypatch.setattr(link, "Connection", InMemory)

    def client(self, url: str = "amqp://broker", **settings: Any) -> Client:
        """Make a client of this broker; it connects when the loop turns."""
        settings = {"reconnect_delay": 1, "max_reconnect_delay": 4, **settings}
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

    def ready(self, url: str = "amqp://broker", **settings: Any) -> Client:
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
            self.clock.run(self._stop(client, timeout), 3 * timeout + 5)
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
        for peer in self.peers:
            if peer.accepted and not peer.lost:
                done(peer)

    def close(self) -> None:
        """Close the loop."""
        self.clock.close()


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker in memory; at the end every client is shut down, and nothing escaped or is left."""
    broker = Broker(monkeypatch)
    yield broker
    broker.shut_down()
    assert broker.clock.escaped == []
    broker.close()


def _copied(properties: BasicProperties) -> list[str]:
    """The routing keys in the headers of a message."""
    return [str(key) for keys in (properties.headers or {}).values() if isinstance(keys, list) for key in keys]


def outcome(future: asyncio.Future[None]) -> object:
    """Return None for a success, else the exception's class; fails when the future did not end."""
    assert future.done()
    error = future.exception()
    return type(error) if error else None
