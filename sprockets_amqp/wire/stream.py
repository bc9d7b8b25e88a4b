"""The transport over a socket, plain or with TLS, on any asyncio event loop.

Reading is by `asyncio.BufferedProtocol`, into one buffer: as `asyncio.Protocol`, each read would allocate 256 KiB.
TLS is `ssl.SSLObject` on memory BIOs, which costs less than asyncio's own TLS.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from .forks import close_copy
from .network import Line

#: Octets that are read at a time.
READ_SIZE: Final = 64 * 1024
#: Octets of the largest TLS record (RFC 8446, section 5.1): OpenSSL returns no more at a time.
RECORD_SIZE: Final = 16 * 1024


class TLSSocket(socket.socket):
    """A connected socket whose other end can be asked about, as that of an `ssl.SSLSocket` can."""

    tls: ssl.SSLObject

    def getpeercert(self, binary_form: bool = False) -> Any:
        """Return the peer's certificate: `ssl.SSLSocket.getpeercert`."""
        return self.tls.getpeercert(binary_form)

    def version(self) -> str | None:
        """Return the TLS version: `ssl.SSLSocket.version`."""
        return self.tls.version()

    def cipher(self) -> tuple[str, str, int] | None:
        """Return the cipher: `ssl.SSLSocket.cipher`."""
        return self.tls.cipher()


class Stream(asyncio.BufferedProtocol):
    """A plain transport.

    Attributes:
        socket: the socket.
        up: ends when the line was told that it is connected; or with why it could not be.
        write: sends data.
    """

    write: Callable[[bytes], None]

    def __init__(self, line: Line, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.socket: socket.socket | None = sock
        self.up: asyncio.Future[None] = loop.create_future()
        # asyncio types it as the base of all transports.
        self._transport: Any = None
        self._line: Line | None = line
        self._buffer = bytearray(READ_SIZE)
        self._view = memoryview(self._buffer)

    # The transport

    def get_write_buffer_size(self) -> int:
        """Return how many octets were written but not taken by the socket yet."""
        return int(self._transport.get_write_buffer_size())

    def abort(self) -> None:
        """Drop the line now, whatever is still to be sent."""
        self._transport.abort()

    def abandon(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """In a forked child, close its descriptor; nothing is sent, and the parent's connection goes on."""
        sock, self.socket, self._line = self.socket, None, None
        if loop is not None and self._transport is not None:
            # The child's own selector forgets the descriptor: its number will be another file's.
            self._transport.abort()
        if sock is not None:
            close_copy(sock)

    # asyncio's events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop with its transport."""
        self._transport = transport
        # Told of every octet that the socket does not take at once, and again when it has taken all of them.
        self._transport.set_write_buffer_limits(high=0)
        self._begin()

    def get_buffer(self, _sizehint: int) -> bytearray:
        """Return where to read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the loop when so many octets were read."""
        if self._line is not None:
            self._line.received(bytes(self._view[:nbytes]))

    def eof_received(self) -> None:
        """Called by the loop when the peer has closed its end: what it does not read any more is not sent."""
        if self._line is not None and self.up.done():
            self._line.hung_up()
        self._transport.abort()

    def pause_writing(self) -> None:
        """Called by the loop when the socket does not take more for now."""
        if self._line is not None:
            self._line.pause_writing()

    def resume_writing(self) -> None:
        """Called by the loop when the socket has taken everything."""
        if self._line is not None:
            self._line.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop when the socket is closed."""
        line, self._line, self.socket = self._line, None, None
        if not self.up.done():
            self.up.set_exception(error or ConnectionResetError("the other side closed the connection"))
            # Nobody waits for it if the attempt was stopped.
            self.up.exception()
        elif line is not None:
            line.lost(error)

    def _begin(self) -> None:
        self.write = self._transport.write
        self._come_up()

    def _come_up(self, found: str = "") -> None:
        # The attempt may have been stopped.
        if not self.up.done():
            self.up.set_result(None)
            if self._line is not None:
                self._line.connected(self, found)


class TLSStream(Stream):
    """A transport with TLS.

    Args:
        server_name: whom the certificate must be for, if the context verifies that.
        verified: what is verified about the certificate, for people.

    Raises:
        ValueError: the server's name cannot be used.
        ssl.SSLError: the context cannot be used.
    """

    def __init__(
        self,
        line: Line,
        sock: TLSSocket,
        loop: asyncio.AbstractEventLoop,
        context: ssl.SSLContext,
        server_name: str,
        verified: str,
    ) -> None:
        super().__init__(line, sock, loop)
        self._verified = verified
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        sock.tls = self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        #: Data that TLS does not take while it negotiates anew.
        self._unencrypted = b""
        self._transport_paused = False
        self._shaken = False
        self._error: Exception | None = None

    def get_write_buffer_size(self) -> int:
        """Return how many octets were written but not taken by the socket yet."""
        return super().get_write_buffer_size() + len(self._unencrypted)

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the loop when so many octets were read."""
        self._incoming.write(self._view[:nbytes])
        self._go_on()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop when the socket is closed."""
        super().connection_lost(self._error or error)

    def _begin(self) -> None:
        self.write = self._encrypt
        self._go_on()

    def _go_on(self) -> None:
        """Do what the octets that have arrived allow: shake hands, then read."""
        try:
            if not self._shaken:
                self._tls.do_handshake()
                self._send_encrypted()
                self._shaken = True
                self._come_up(f"{self._tls.version()}, {self._verified}")
            self._read()
        except ssl.SSLWantReadError:
            self._send_encrypted()
        except Exception as error:
            # An alert tells the peer.
            self._send_encrypted()
            self._error = error
            self._transport.abort()

    def _read(self) -> None:
        parts, ended = [], False
        try:
            while part := self._tls.read(RECORD_SIZE):
                parts.append(part)
            ended = True
        except ssl.SSLZeroReturnError:
            ended = True
        finally:
            # What came before the end, or an alert, counts.
            if parts and self._line is not None:
                self._line.received(b"".join(parts))
            self._send_encrypted()
            if self._unencrypted:
                self._encrypt(b"")
        if ended:
            self.eof_received()

    def _encrypt(self, data: bytes) -> None:
        data = self._unencrypted + data
        try:
            while data:
                written = self._tls.write(data)
                data = data[written:]
        except ssl.SSLWantReadError:
            # It negotiates anew: until that is done, nothing more can leave.
            super().pause_writing()
        except ssl.SSLError as error:
            self._error, data = error, b""
            self._transport.abort()
        waited, self._unencrypted = bool(self._unencrypted), data
        self._send_encrypted()
        if waited and not data and not self._transport_paused and self._error is None:
            self.resume_writing()

    def pause_writing(self) -> None:
        """Called by the loop when the socket does not take more for now."""
        self._transport_paused = True
        super().pause_writing()

    def resume_writing(self) -> None:
        """Called by the loop when the socket has taken everything; TLS may still hold some."""
        self._transport_paused = False
        if not self._unencrypted:
            super().resume_writing()

    def _send_encrypted(self) -> None:
        if self._outgoing.pending:
            self._transport.write(self._outgoing.read())
