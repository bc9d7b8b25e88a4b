"""The way to a node over the network: one coroutine looks the name up, connects, and negotiates TLS.

Each step has its limit, and whatever any of them raises is why the attempt failed.
"""

import asyncio
import socket
from typing import Final

from pika.connection import Parameters

from .addresses import Address, look_up, race, starting_behind
from .failed import told
from .forks import close_copy
from .network import DNS, LOGIN, TCP, TLS, Line, Opening, SocketAddress
from .pika_insides import set_socket_options
from .stream import Stream, TLSSocket, TLSStream
from .tls import unverified


class Internet:
    """Opens transports over TCP, to every node."""

    def reach(
        self, parameters: Parameters, line: Line, loop: asyncio.AbstractEventLoop, behind: SocketAddress | None
    ) -> Opening:
        """Start to open a transport."""
        return _Opening(parameters, line, loop, behind)


INTERNET: Final = Internet()


class _Opening:
    def __init__(
        self, parameters: Parameters, line: Line, loop: asyncio.AbstractEventLoop, behind: SocketAddress | None
    ) -> None:
        self._parameters = parameters
        self._line = line
        self._loop = loop
        self._behind = behind
        #: The sockets that are connecting or have connected.
        self._sockets: set[socket.socket] = set()
        self._stream: Stream | None = None
        # Not by the loop's factory: an eager task would run before the attempt has begun.
        self._task = asyncio.Task(self._open(), loop=loop)
        self._task.add_done_callback(self._on_done)

    def abort(self) -> None:
        """Stop; `Line.lost` follows when every socket is closed."""
        self._task.cancel()

    def abandon(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """In a forked child, close its descriptors without a word to the peer."""
        self._task.remove_done_callback(self._on_done)
        if loop is not None:
            self._task.cancel()
        if self._stream is not None:
            self._stream.abandon(loop)
            return
        for sock in self._sockets:
            if loop is not None and sock.fileno() >= 0:
                loop.remove_writer(sock)
            close_copy(sock)

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or task.exception() is not None:
            self._line.lost(None)

    async def _open(self) -> None:
        try:
            await self._link_up(await self._connect())
        except BaseException as error:
            for sock in self._sockets:
                sock.close()
            if not isinstance(error, Exception):
                raise
            self._line.failed(error)

    async def _connect(self) -> socket.socket:
        host, port = self._parameters.host, self._parameters.port
        self._line.enter(DNS)
        addresses = starting_behind(await look_up(host, port, self._loop), self._behind)
        self._line.enter(TCP, found=", ".join(address.host for address in addresses))
        won = await race(addresses, self._connect_to, self._loop)
        host = won.address.host
        self._line.at(won.address.socket_address)
        found = f"{host} port {port} accepts connections"
        if won.failures:
            found += ", but not " + told(won.failures)
        self._line.enter(TLS if self._parameters.ssl_options is not None else LOGIN, host, found)
        return won.socket

    async def _connect_to(self, address: Address) -> socket.socket:
        self._line.at(address.socket_address)
        # TLS has something to ask it for.
        kind = socket.socket if self._parameters.ssl_options is None else TLSSocket
        try:
            sock = kind(address.family, socket.SOCK_STREAM)
            await self._set_up(sock, address)
        except BaseException as error:
            self._line.at(address.socket_address, error)
            raise
        return sock

    async def _set_up(self, sock: socket.socket, address: Address) -> None:
        self._sockets.add(sock)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            set_socket_options(self._parameters.tcp_options, sock)
            await self._within(self._parameters.socket_timeout, sock, address)
        except BaseException:
            self._sockets.discard(sock)
            sock.close()
            raise

    async def _within(self, limit: float | None, sock: socket.socket, address: Address) -> None:
        try:
            async with asyncio.timeout(limit):
                await self._loop.sock_connect(sock, address.socket_address)
        except TimeoutError as error:
            # The system has a limit, too, and an errno for it.
            raise error if error.errno else TimeoutError(f"no answer within {limit:g} s") from None

    async def _link_up(self, sock: socket.socket) -> None:
        """Hand the socket to the loop, and negotiate TLS; the line is told when that is done."""
        options = self._parameters.ssl_options
        if options is None:
            self._stream = stream = Stream(self._line, sock, self._loop)
        else:
            assert isinstance(sock, TLSSocket)
            name = options.server_hostname or self._parameters.host
            verified = unverified(self._parameters) or f"the certificate is valid for {name}"
            self._stream = stream = TLSStream(self._line, sock, self._loop, options.context, name, verified)
        # Stopped in the middle, uvloop would leave the socket with a descriptor that it has closed.
        making = asyncio.Task(self._loop.create_connection(lambda: stream, sock=sock), loop=self._loop)
        making.add_done_callback(lambda _making: self._sockets.discard(sock))
        try:
            await asyncio.shield(making)
            await stream.up
        except BaseException:
            transport, _ = await making
            transport.abort()
            raise
