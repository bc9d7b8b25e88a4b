"""What opens a transport, and what a transport tells: the seam between AMQP and the way to a node.

`tcp.py` is the way over the network. `sprockets_amqp.testing` brings another one.
"""

import asyncio
import socket
from typing import Final, Protocol

from pika.connection import Parameters

#: The steps of connecting, in the words of `sprockets-amqp check`; the last two are AMQP's handshake.
DNS: Final = "DNS"
TCP: Final = "TCP"
TLS: Final = "TLS"
LOGIN: Final = "login"
VHOST: Final = "vhost"

#: Where a socket is connected to, as `socket.getaddrinfo` returns it.
SocketAddress = tuple[str | int, ...]


class Transport(Protocol):
    """Carries octets to a node; it tells a `Line` what comes back."""

    @property
    def socket(self) -> "socket.socket | None":
        """The socket, or None if there is none."""

    def write(self, data: bytes) -> None:
        """Send the data. What the socket does not take now is kept, and `Line.pause_writing` is called."""

    def get_write_buffer_size(self) -> int:
        """Return how many octets were written but not taken by the socket yet."""

    def abort(self) -> None:
        """Drop the line now; `Line.lost` follows in a later turn of the loop."""

    def abandon(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """In a forked child, close its descriptors without a word to the peer: see `Opening.abandon`."""


class Line(Protocol):
    """Is told what becomes of an attempt to open a transport, and of the transport."""

    def enter(self, step: str, address: str = "", found: str = "") -> None:
        """Take note of the next step; ``found`` says for people what the one before has found."""

    def at(self, address: SocketAddress, error: BaseException | None = None) -> None:
        """Take note of the address that is tried, or why it does not accept the connection.

        If the attempt fails, the next begins at the address behind the last one.
        """

    def failed(self, error: Exception) -> None:
        """Called when the transport could not be opened: nothing else follows."""

    def connected(self, transport: Transport, found: str = "") -> None:
        """Called when the transport is open; ``found`` says for people what the last step has found."""

    def received(self, data: bytes) -> None:
        """Called with what the peer has sent."""

    def hung_up(self) -> None:
        """Called when the peer has closed its end; `lost` follows."""

    def pause_writing(self) -> None:
        """Called when the socket does not take more for now."""

    def resume_writing(self) -> None:
        """Called when the socket has taken everything."""

    def lost(self, error: Exception | None) -> None:
        """Called once, when the transport is gone, or opening it was stopped; with None if that was asked for."""


class Opening(Protocol):
    """An attempt to open a transport."""

    def abort(self) -> None:
        """Stop; `Line.lost` follows in a later turn of the loop, and nothing else."""

    def abandon(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """In a forked child, close its descriptors without a word to the peer, and tell the `Line` nothing more.

        ``loop`` is the inherited loop, if it has a selector of the child's own: it forgets them.
        """


class Network(Protocol):
    """Opens transports."""

    def reach(
        self, parameters: Parameters, line: Line, loop: asyncio.AbstractEventLoop, behind: SocketAddress | None
    ) -> Opening:
        """Start to open a transport, beginning with the address behind this one; raise nothing."""


class Substitute(Network, Protocol):
    """Takes the place of TCP for some nodes, or for all."""

    def serves(self, host: str, port: int) -> bool:
        """Return whether it opens transports to this node."""


#: What takes the place of TCP, the latest last.
_others: Final[list[Substitute]] = []


def use(network: Substitute) -> None:
    """Open transports with this network from now on, to the nodes that it serves."""
    leave(network)
    _others.append(network)


def leave(network: Substitute) -> None:
    """Undo `use`; an unknown network is ignored."""
    if network in _others:
        _others.remove(network)


def other_network(host: str, port: int) -> Network | None:
    """Return the latest network in use that serves the node, or None: then it is reached over TCP."""
    return next((network for network in reversed(_others) if network.serves(host, port)), None)
