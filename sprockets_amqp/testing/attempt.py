"""The client's end of a connection to a broker in memory: what it gets in place of a socket."""

import asyncio
import socket
from typing import Any, Final

from sprockets_amqp.wire.network import DNS, TCP

#: Where every node in memory is.
ADDRESS: Final = "127.0.0.1"


class Attempt:
    """The client's attempt to reach the broker."""

    def __init__(self, peer: Any) -> None:
        self._peer = peer
        peer.connection.enter(DNS)
        peer.connection.enter(TCP, ADDRESS, found=ADDRESS)

    def abort(self) -> None:
        """Called when the client stops connecting."""
        self._peer.abandoned()

    def abandon(self, _loop: asyncio.AbstractEventLoop | None) -> None:
        """Called in a forked child, which has no broker in memory: the parent's goes on."""


class Socket(socket.socket):
    """A socket without a connection, for code that sets options on it or asks where it is connected to."""

    def __init__(self, port: int) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self._port = port

    def getpeername(self) -> tuple[str, int]:
        """Return the address of the node in memory."""
        return ADDRESS, self._port

    def getsockname(self) -> tuple[str, int]:
        """Return an address of this machine, with a port that is nobody's."""
        return ADDRESS, 0


class Transport(Attempt):
    """The client's end of the line."""

    def __init__(self, peer: Any) -> None:
        self._peer = peer
        self._socket: Socket | None = None
        self.write = peer.receive
        self.get_write_buffer_size = peer.pending

    @property
    def socket(self) -> "socket.socket | None":
        """The socket, which exists once it was asked for, as long as the connection does."""
        if self._socket is None and not self._peer.lost:
            self._socket = Socket(self._peer.connection.params.port)
        return self._socket

    def end(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

    def abort(self) -> None:
        """Called when the client drops the line."""
        self._peer.dropped()
