"""The pika connection that the lifecycle opens: AMQP by pika, over a transport that is given to it.

`pika.connection.Connection` speaks AMQP and knows no socket; the methods that it wants of an adapter are here. What
leaves is collected in `sending.py`, what arrives is cut into frames in `reading.py`. The bytes on the wire are those
that pika would send.

The internals of pika that it uses are listed in `pika_insides.py`.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import pika.connection
from pika.connection import Parameters
from pika.exceptions import AMQPConnectionError, AMQPError, ConnectionClosedByBroker, StreamLostError
from tornado.ioloop import IOLoop

from sprockets_amqp.bounded_log import named
from sprockets_amqp.names import DEFAULT_NAME
from sprockets_amqp.text import shown

from .addresses import Address, Unreachable
from .failed import AttemptFailed, plainly
from .login import too_long
from .network import LOGIN, TCP, VHOST, Network, SocketAddress, Transport
from .reading import BODY_LIMIT, OnConfirm, Reading
from .sending import Sending

LOGGER = logging.getLogger(__name__)

#: Characters of a version that are read.
VERSION_LIMIT: Final = 40
#: The least frame_max that RabbitMQ accepts since 4.1, in octets.
SMALLEST_FRAME: Final = 8192


class Connection(pika.connection.Connection):
    """pika's connection, over a transport that a network opens.

    The callbacks are pika's (https://pika.readthedocs.io/en/stable/modules/connection.html): if it cannot be opened,
    on_open_error_callback is called with an `AttemptFailed`. on_back_pressure is called with the connection when more
    than 4 MiB wait for the socket, and again only after all of it has gone. on_hold is called with the connection and
    True while pika handles an event, and for good once it drops the stream: what is published then may meet a channel
    or connection that has been closed. on_step is called with each step of connecting that is done, and what it found.

    Attributes:
        ioloop: the Tornado loop that it runs on.
        client_name: the name of its client, for the log.
        reached: the address that was tried last, or None.
        publish: sends a message on the channel in use: `Sending.publish`.
        call_when_sent: calls back once, when the socket has taken everything: `Sending.call_when_sent`.
    """

    # pika's, but missing from its stubs.
    _body_max_length: int
    bytes_received: int

    def __init__(
        self,
        parameters: Parameters,
        on_open_callback: Callable[[Any], None],
        on_open_error_callback: Callable[[Any, AttemptFailed], None],
        on_close_callback: Callable[[Any, BaseException], None],
        on_back_pressure: Callable[[object], None],
        on_hold: Callable[["Connection", bool], None],
        io_loop: IOLoop,
        network: Network,
        *,
        behind: SocketAddress | None = None,
        on_step: Callable[[str, str], object] | None = None,
        client_name: str = DEFAULT_NAME,
    ) -> None:
        self.ioloop = io_loop
        self.client_name = client_name
        self.reached: SocketAddress | None = None
        self._loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop  # type: ignore[attr-defined]
        self._network = network
        self._behind = behind
        self._on_step = on_step
        self._on_open_error = on_open_error_callback
        #: How far connecting has got, and at which address.
        self._step = self._address = ""
        #: The addresses that were tried, and why those that failed did.
        self._accepting: dict[SocketAddress, BaseException | None] = {}
        self._transport: Transport | None = None
        self._sending = sending = Sending(self._loop, lambda: on_back_pressure(self))
        self._reading = reading = Reading(
            self._take, self._caught, self._give_up, sending.flush_soon, lambda: sending.largest, self._frame_limit
        )
        self.publish, self.call_when_sent = sending.publish, sending.call_when_sent
        #: Called by the transport.
        self.pause_writing, self.resume_writing, self.received = sending.pause, sending.resume, reading.received
        self._on_hold = on_hold
        #: How many of pika's event handlers are running, one within another; whether the stream is being dropped; and
        #: how it ended, if that was not the client's doing.
        self._handlers = 0
        self._ending = False
        self._said: ConnectionClosedByBroker | StreamLostError | None = None
        self._lost = asyncio.Event()
        super().__init__(parameters, on_open_callback, self._tell_open_error, on_close_callback)

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closing" if self.is_closing else "closed" if self.is_closed else self._step
        return f"<Connection {shown(self.params.host)}:{self.params.port} {state}>"

    @property
    def socket(self) -> "socket.socket | None":
        """The socket, to set options on or to ask for its peer and, with TLS, its certificate; None if there is none.

        Do not send or receive on it: the loop does.
        """
        return self._transport.socket if self._transport is not None else None

    @property
    def unsent(self) -> int:
        """How many octets wait for the socket, approximately."""
        return self._sending.unsent

    @property
    def congested(self) -> bool:
        """Whether too much is waiting for the socket."""
        return self._sending.congested

    @property
    def body_limit(self) -> int:
        """The default max_message_size of the connected version of RabbitMQ, in octets; operators may change it.

        https://www.rabbitmq.com/docs/configure#config-items: 128 MiB, and 16 MiB since 4.0.
        """
        major = shown((self.server_properties or {}).get("version", ""), VERSION_LIMIT).partition(".")[0]
        return 16 * 1024**2 if major.isdecimal() and int(major) >= 4 else BODY_LIMIT

    @property
    def header_limit(self) -> int:
        """The most octets of properties that fit in one content header frame, as negotiated; they cannot be split."""
        return self._body_max_length - 12

    def use_channel(self, channel_number: int, on_confirm: OnConfirm | None) -> None:
        """Publish on this channel from now on, and pass its confirms, if it has any, to the callback as they arrive."""
        self._sending.use_channel(channel_number, self._body_max_length)
        self._reading.use_channel(channel_number, on_confirm)

    def abort(self) -> None:
        """Drop the connection now, without waiting for the broker; pika's callbacks may come later."""
        self._forget()
        if not self.is_closed:
            self._terminate_stream(AMQPConnectionError("dropped by the client"))

    def abandon(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """In a forked child, close its descriptors; nothing is sent, and the parent's connection goes on.

        ``loop`` is the inherited loop, if it has a selector of the child's own: it forgets them.
        """
        self._forget()
        transport = self._leave()
        if transport is not None:
            transport.abandon(loop)
        else:
            self._opening.abandon(loop)

    async def wait_closed(self) -> None:
        """Return when every socket is closed."""
        await self._lost.wait()

    # What pika wants of an adapter

    def _adapter_connect_stream(self) -> None:
        self._opening = self._network.reach(self.params, self, self._loop, self._behind)

    def _adapter_disconnect_stream(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        else:
            self._opening.abort()

    def _adapter_emit_data(self, data: bytes) -> None:
        self._sending.emit(data)

    def _adapter_call_later(self, delay: float, callback: Callable[[], object]) -> object:
        def call() -> None:
            with self._held():
                callback()

        return self._loop.call_later(delay, call)

    def _adapter_remove_timeout(self, timeout_id: Any) -> None:
        timeout_id.cancel()

    def _adapter_add_callback_threadsafe(self, callback: Callable[..., object]) -> None:
        self._loop.call_soon_threadsafe(callback)

    def _terminate_stream(self, error: Exception | None) -> None:
        self._ending, self._sending.transport = True, None
        if isinstance(error, ConnectionClosedByBroker):
            self._said = error
        self._on_hold(self, True)
        super()._terminate_stream(error)  # type: ignore[misc]

    # What the network tells while it opens the transport

    def enter(self, step: str, address: str = "", found: str = "") -> None:
        """Take note of the next step of connecting; ``found`` says for people what the one before has found."""
        before, self._step = self._step, step
        self._address = address or self._address
        if before and self._on_step is not None:
            self._on_step(before, found)

    def at(self, address: SocketAddress, error: BaseException | None = None) -> None:
        """Take note of the address that is tried, or why it does not accept the connection."""
        if error is None:
            self.reached = address
        self._accepting[address] = error

    def failed(self, error: Exception) -> None:
        """Called when the transport could not be opened."""
        self._end(error)

    def connected(self, transport: Transport, found: str = "") -> None:
        """Called when the transport is open: AMQP's handshake begins."""
        if self._ending:
            # It was stopped in the meantime.
            transport.abort()
            return
        self._transport = self._sending.transport = transport
        if self._step != LOGIN:
            self.enter(LOGIN, found=found)
        with self._caught():
            self._on_stream_connected()  # type: ignore[attr-defined]

    def failure(self, cause: BaseException) -> AttemptFailed:
        """Return the error that says at which step connecting fails, and why."""
        host, port = self.params.host, self.params.port
        if self._step == TCP and isinstance(cause, TimeoutError) and self._accepting:
            cause = Unreachable([(Address(0, each), error or cause) for each, error in self._accepting.items()])
        said = self._said
        if isinstance(said, StreamLostError) and (hint := self._hint()):
            said = StreamLostError(f"{said}; {hint}")
        return AttemptFailed(self._present_step, host, port, self._address, cause, said)

    def _hint(self) -> str:
        """Say why RabbitMQ may have hung up without a word; empty if nothing is known to be wrong."""
        if self._present_step == LOGIN:
            return too_long(self.params.credentials)
        if self._present_step == VHOST and self.params.frame_max < SMALLEST_FRAME:
            return f"RabbitMQ refuses frame_max={self.params.frame_max} in the URL since 4.1: leave it out"
        return ""

    @property
    def _present_step(self) -> str:
        opens_vhost = self._transport is not None and self.connection_state == self.CONNECTION_TUNE
        return VHOST if opens_vhost else self._step

    def _tell_open_error(self, _connection: object, error: BaseException) -> None:
        self._on_open_error(self, self.failure(error))

    # What arrives, and how it ends

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Hold back what is published, by the handler of a log record for example, while pika handles an event."""
        self._handlers += 1
        self._on_hold(self, True)
        try:
            yield
        finally:
            self._handlers -= 1
            if not self._handlers and not self._ending:
                self._on_hold(self, False)

    @contextlib.contextmanager
    def _caught(self) -> Iterator[None]:
        """Hold back as well, and drop the stream if pika or a callback raises: the loop would only log it."""
        try:
            with self._held():
                yield
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._reading.stop()
        if not isinstance(error, AMQPError):
            named(LOGGER, self.client_name).exception("the connection is dropped, because handling a frame raised")
        if not self._ending:
            self._terminate_stream(error)

    def _take(self, decoded: Any, size: int) -> None:
        self.bytes_received += size
        if decoded is not None:
            self._process_frame(decoded)  # type: ignore[attr-defined]

    def _frame_limit(self) -> int:
        return int(self.params.frame_max)

    def _forget(self) -> None:
        self._sending.forget()
        self._reading.forget()

    def _leave(self) -> Transport | None:
        transport, self._transport, self._sending.transport = self._transport, None, None
        return transport

    def hung_up(self) -> None:
        """Called when the peer has closed its end."""
        if not self._ending:
            self._said = StreamLostError("the other side closed the connection")
            self._ending, self._sending.transport = True, None
            self._on_hold(self, True)

    def lost(self, error: Exception | None) -> None:
        """Called when the transport is gone: pika tells the callbacks."""
        if not self._ending and self._transport is None:
            self._end(ConnectionAbortedError("the application has cancelled the task that connects"))
            return
        if not self._ending:
            why = plainly(error) if error is not None else "the application has closed it"
            self._said = StreamLostError(f"the connection was lost: {why}")
            self._said.__cause__ = error
        self._end(self._said if isinstance(self._said, StreamLostError) else None)

    def _end(self, error: Exception | None) -> None:
        if self._lost.is_set():
            return
        self._lost.set()
        # pika forgets how far the handshake has got.
        self._step = self._present_step
        self._ending = True
        self._leave()
        try:
            with self._held():
                self._on_stream_terminated(error)  # type: ignore[attr-defined]
        except Exception:
            named(LOGGER, self.client_name).exception("a callback raised when the connection ended")
