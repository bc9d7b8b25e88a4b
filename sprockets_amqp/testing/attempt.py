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


class Transport(Attempt):
    """The client's end of the line."""

    socket: "socket.socket | None" = None

    def __init__(self, peer: Any) -> None:
        self._peer = peer
        self.write = peer.receive
        self.get_write_buffer_size = peer.pending

    def abort(self) -> None:
        """Called when the client drops the line."""
        self._peer.dropped()
