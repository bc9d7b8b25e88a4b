"""The broker's end of one connection: it speaks AMQP 0-9-1 in frames with the real client and the real pika.

`Broker` decides what is declared, refused and routed; this module says so on the wire.
"""

import asyncio
import collections
import errno
import struct
from typing import Any

from pika import frame, spec

from sprockets_amqp.wire.connection import Connection

from .attempt import Transport
from .calls import CALLS
from .messages import as_delivered
from .rules import Published, Refused, Rules

#: The capabilities that a server announces in connection.start (AMQP 0-9-1, section 1.4.2.2).
CAPABILITIES = {"publisher_confirms": True, "basic.nack": True, "connection.blocked": True}


#: What a client answers: nothing follows from it here.
ANSWERS = {"Connection.TuneOk", "Connection.CloseOk", "Channel.CloseOk", "Channel.FlowOk"}

#: Type and channel of a method frame, without its size, and its class and method (AMQP 0-9-1, section 4.2.4).
_UPDATE_SECRET = struct.Struct(">BH4xHH")


class Peer:
    """The broker's end of one connection.

    Attributes:
        connection: the client's end.
        accepted: whether the connection was accepted.
        lost: whether the line is gone.
        stalled: whether nothing is read from the line, because of an alarm.
        slow: whether nothing is taken from the line for now, even without an alarm.
        aborted: whether the client dropped the line.
        said_goodbye: whether the client asked to close the connection.
        outbox: frames that were sent and have not arrived.
        line: frames on their way to the broker, with their sizes.
        client_properties: what the client said about itself.
        user: who has logged in.
        vhost: the virtual host that the client has opened.
        received: how many messages were received on each channel in confirm mode.
        unconfirmed: the delivery tags on each of them that are still unconfirmed.
        messages: what was received, by channel and delivery tag.
        open_channels: the numbers of the open channels.
        channels: the number of each channel that was opened, in order.
        secrets: the passwords that were renewed on the connection.
    """

    def __init__(self, broker: Rules, connection: Connection) -> None:
        self.broker = broker
        self.connection = connection
        self.loop: asyncio.AbstractEventLoop = connection.ioloop.asyncio_loop  # type: ignore[attr-defined]
        self.outbox: list[bytes] = []
        self.accepted = self.lost = self.stalled = self.slow = self.aborted = self.said_goodbye = False
        self.line: collections.deque[tuple[Any, int]] = collections.deque()
        self.client_properties: dict[str, Any] = {}
        self.user = ""
        self.vhost = "/"
        self.received: dict[int, int] = {}
        self.unconfirmed: dict[int, list[int]] = {}
        self.messages: dict[tuple[int, int], Published] = {}
        self.open_channels: set[int] = set()
        self.channels: list[int] = []
        self.secrets: list[str] = []
        self._client_end: Transport | None = None
        #: Whether the broker sent connection.close.
        self._closing = False
        #: Channels for questions, which are transactional, and channels on which nothing is answered any more.
        self._asking: set[int] = set()
        self._mute: set[int] = set()
        self._buffer = b""
        self._content: dict[int, list[Any]] = {}
        #: The queue that was declared last on each channel, which an empty name stands for.
        self._declared: dict[int, str] = {}
        #: When the last frame sent arrives.
        self._due = 0.0
        #: Whether the client was told that the line does not take more for now.
        self._paused = False

    @property
    def publishing(self) -> set[int]:
        """The numbers of the channels that messages come on."""
        return self.open_channels - self._asking

    # What the broker does

    def accept(self) -> None:
        """Accept the connection."""
        self.accepted = True
        self._client_end = transport = Transport(self)
        self.connection.connected(transport)

    def refuse(self, error: Exception | None = None) -> None:
        """Refuse the connection."""
        self._leave()
        self.connection.failed(error or ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))

    def deliver(self, count: int | None = None) -> None:
        """Let frames from the broker arrive: ``count`` of them, or all."""
        count = len(self.outbox) if count is None else count
        data, self.outbox = b"".join(self.outbox[:count]), self.outbox[count:]
        if data and not self.lost:
            self._arrive(data)

    def deliver_octets(self, count: int) -> None:
        """Let ``count`` octets arrive, regardless of where frames end."""
        data = b"".join(self.outbox)
        data, self.outbox = data[:count], [data[count:]] if data[count:] else []
        if data and not self.lost:
            self._arrive(data)

    def say(self, channel_number: int, method: Any, *more: Any) -> None:
        """Send a method (and more frames), which arrive when they are delivered."""
        for each in (frame.Method(channel_number, method), *more):
            self._say(each)

    def confirm(self, tag: int, *, channel: int = 1, multiple: bool = False, nack: bool = False) -> None:
        """Confirm or nack messages."""
        waiting = self.unconfirmed.get(channel, [])
        for each in [each for each in waiting if each == tag or (multiple and each < tag)]:
            waiting.remove(each)
            self.messages[channel, each].confirmed = not nack
        self.say(channel, (spec.Basic.Nack if nack else spec.Basic.Ack)(tag, multiple))

    def confirm_all(self) -> None:
        """Confirm everything, and deliver that."""
        for channel, tags in self.unconfirmed.items():
            if tags:
                self.confirm(tags[-1], channel=channel, multiple=True)
        if not self.broker.automatic:
            self.deliver()

    def close_channel(self, number: int = 1, code: int = 404, text: str = "NOT_FOUND") -> None:
        """Close a channel because of an error."""
        self.open_channels.discard(number)
        self._forget(number)
        self.say(number, spec.Channel.Close(code, text[:255], 60, 40))

    def close_connection(self, code: int, text: str) -> None:
        """Close the connection with connection.close; the line is gone when the client has answered."""
        self.say(0, spec.Connection.Close(code, text[:255], 0, 0))
        self._closing = True

    def stall(self, *, stalled: bool, reason: str = "low on memory") -> None:
        """Block the connection and stop reading from the socket; or unblock it and read again."""
        self.stalled = stalled
        self.say(0, spec.Connection.Blocked(reason) if stalled else spec.Connection.Unblocked())
        self.take()

    def slow_down(self, *, slow: bool) -> None:
        """Take nothing from the line for now, even without an alarm; or take what it holds."""
        self.slow = slow
        self.take()

    def take(self) -> None:
        """Read what is on its way, unless the line is slow or the broker is not reading."""
        while self.line and not self.slow and not self.stalled and not self.lost:
            decoded, size = self.line.popleft()
            if self._closing and not _ends(decoded):
                # AMQP 0-9-1, section 1.4.2.10: everything after connection.close is ignored.
                continue
            if self.broker.alarm and _publishes(decoded):
                # RabbitMQ blocks a connection when it publishes during an alarm, and reads no further.
                self.line.appendleft((decoded, size))
                self.stall(stalled=True, reason=self.broker.alarm)
            else:
                self._take(decoded)
        if self._paused and not self.pending():
            self._paused = False
            self.connection.resume_writing()

    def lose(self, error: Exception | None = None) -> None:
        """Cut the line."""
        if not self.lost:
            self._leave()
            self.connection.lost(error or ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))

    def drop_later(self, error: Exception | None) -> None:
        """Cut the line in a later turn."""
        if not self.lost:
            self._leave()
            self.loop.call_soon(self.connection.lost, error)

    def _leave(self) -> None:
        self.lost = True
        if self._client_end is not None:
            self._client_end.end()
        self.broker.left(self)

    # What the client does to the line

    def abandoned(self) -> None:
        """Called when the client stops connecting."""
        self.drop_later(None)

    def dropped(self) -> None:
        """Called when the client drops the line."""
        self.aborted = True
        if not self.broker.clings:
            self.drop_later(None)

    def pending(self) -> int:
        """Return how much waits on the line; nothing does unless it is slow."""
        return sum(size for _, size in self.line) if self.slow else 0

    def receive(self, data: bytes) -> None:
        """Receive what the client sends, and read it."""
        self._buffer += data
        consumed, decoded = decode(self._buffer)
        while decoded is not None:
            self._buffer = self._buffer[consumed:]
            if isinstance(decoded, frame.Heartbeat):
                # RabbitMQ answers heartbeats, whatever else it reads.
                self._say(decoded)
            else:
                self.line.append((decoded, consumed))
            if isinstance(decoded, frame.Header):
                self.broker.note_sent(str(decoded.properties.message_id))
            consumed, decoded = decode(self._buffer)
        self.take()
        if self.pending() and not self._paused:
            self._paused = True
            self.connection.pause_writing()

    def _arrive(self, data: bytes) -> None:
        self.connection.received(data)

    def _say(self, said: Any) -> None:
        self.outbox.append(said.marshal())
        if self.broker.automatic:
            self._deliver_later()

    def _deliver_later(self) -> None:
        now = self.loop.time()
        self._due = max(self._due, now + self.broker.delay)
        if self._due > now:
            self.loop.call_at(self._due, self.deliver, 1)
        else:
            self.loop.call_soon(self.deliver, 1)

    def _take(self, decoded: Any) -> None:
        if isinstance(decoded, frame.ProtocolHeader):
            self.say(0, spec.Connection.Start(0, 9, {"capabilities": CAPABILITIES}, "PLAIN", "en_US"))
        elif isinstance(decoded, frame.Method):
            name, number = decoded.method.NAME, decoded.channel_number
            answer = self._declare if name in CALLS else getattr(self, _handler(name), None)
            if not knows(name):
                # Whoever waits for an answer would wait for ever.
                self.close_connection(540, f"NOT_IMPLEMENTED - the broker in memory does not know {name.lower()}")
            elif answer is not None and (number == 0 or number in self.open_channels or "channel" in answer.__name__):
                try:
                    answer(number, decoded.method)
                except Refused as refused:
                    self._refuse(number, refused)
        elif decoded.channel_number in self._content:
            self._on_content(decoded.channel_number, decoded)

    def _on_connection_startok(self, _number: int, method: Any) -> None:
        self.client_properties = method.client_properties
        # PLAIN: authorisation identity, user and password, each behind a NUL (RFC 4616).
        parts = bytes(method.response).decode(errors="replace").split("\0")
        self.user = parts[1] if method.mechanism == "PLAIN" and len(parts) == 3 else ""
        self.broker.log_in()
        self.say(0, self.broker.tune)

    def _on_connection_open(self, _number: int, method: Any) -> None:
        self.broker.enter(method.virtual_host)
        self.vhost = method.virtual_host
        self.say(0, spec.Connection.OpenOk())

    def _on_connection_updatesecret(self, _number: int, method: Any) -> None:
        self.secrets.append(str(method.new_secret))
        self.say(0, spec.Connection.UpdateSecretOk())

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
        self._asking.add(number)
        self.say(number, spec.Tx.SelectOk())

    def _on_tx_rollback(self, number: int, _method: Any) -> None:
        if number not in self._mute:
            self.say(number, spec.Tx.RollbackOk())

    def _declare(self, number: int, method: Any) -> None:
        if method.NAME != "Queue.Declare" and getattr(method, "queue", None) == "":
            if number not in self._declared:
                raise Refused(spec.NOT_FOUND, "NOT_FOUND - no previously declared queue")
            method.queue = self._declared[number]
            if getattr(method, "routing_key", None) == "":
                method.routing_key = method.queue
        answer = self.broker.declare(self, method)
        if isinstance(answer, spec.Queue.DeclareOk):
            self._declared[number] = answer.queue
        if not getattr(method, "nowait", False):
            self.say(number, answer)

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
            method, header, body = content
            message = Published(method.exchange, method.routing_key, body, header.properties, bool(method.mandatory))
            message.client, message.vhost, message.user = self.connection.client_name, self.vhost, self.user
            try:
                self._on_message(number, message)
            except Refused as refused:
                self._refuse(number, refused)

    def _on_message(self, number: int, message: Published) -> None:
        self.broker.judge(message)
        if number in self._asking:
            if not self.broker.answers(message.exchange):
                self._mute.add(number)
        else:
            if number in self.received:
                self.received[number] += 1
                tag = self.received[number]
                self.unconfirmed[number].append(tag)
                self.messages[number, tag] = message
            self.broker.accept(self, number, message)

    def give_back(self, number: int, message: Published) -> None:
        """Return a message that no queue takes, without the header BCC, which RabbitMQ hides."""
        properties = as_delivered(message.properties)
        size = self.connection.params.frame_max - 8
        self.say(
            number,
            spec.Basic.Return(312, "NO_ROUTE", message.exchange, message.routing_key),
            frame.Header(number, len(message.body), properties),
            *(frame.Body(number, message.body[start : start + size]) for start in range(0, len(message.body), size)),
        )

    def _refuse(self, number: int, refused: Refused) -> None:
        if refused.connection:
            self.close_connection(refused.code, str(refused))
        else:
            self.close_channel(number, refused.code, str(refused))

    def _forget(self, number: int) -> None:
        self._mute.discard(number)
        self._asking.discard(number)
        self.received.pop(number, None)
        self.unconfirmed.pop(number, None)
        self._content.pop(number, None)
        self._declared.pop(number, None)


def knows(name: str) -> bool:
    """Return whether the broker knows a method, by its name in pika: ``Basic.Publish``."""
    return name in CALLS or name in ANSWERS or hasattr(Peer, _handler(name))


def _handler(name: str) -> str:
    return "_on_" + name.replace(".", "_").lower()


def decode(data: bytes) -> tuple[int, Any]:
    """Decode a frame as pika does, and connection.update-secret, which pika can only send."""
    if len(data) < _UPDATE_SECRET.size or _UPDATE_SECRET.unpack_from(data) != (1, 0, 10, 70):
        return frame.decode_frame(data)
    size = struct.unpack_from(">I", data, 3)[0] + 8
    if len(data) < size:
        return 0, None
    end = 15 + struct.unpack_from(">I", data, 11)[0]
    return size, frame.Method(0, spec.Connection.UpdateSecret(data[15:end].decode(), ""))


def _ends(decoded: Any) -> bool:
    return isinstance(decoded, frame.Method) and isinstance(
        decoded.method, spec.Connection.Close | spec.Connection.CloseOk
    )


def _publishes(decoded: Any) -> bool:
    return isinstance(decoded, frame.Method) and isinstance(decoded.method, spec.Basic.Publish)
