"""A broker in memory, for testing code that publishes: the client, pika and the frames between them are real."""

import functools
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from pika import spec

from sprockets_amqp.runtime import running_loop

from .attempt import Attempt
from .calls import CALLS
from .declarations import VirtualHost
from .peer import Peer
from .place import Place
from .routing import Caller, Routing
from .rules import Published, Refused

#: RabbitMQ's words when it refuses an exchange, by reply code; each is filled with the exchange and the user.
REFUSALS: Final = {
    403: "ACCESS_REFUSED - write access to {} refused for user '{}'",
    404: "NOT_FOUND - no {}",
}
LOGIN_REFUSED: Final = (
    "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile."
)


def _parsed(address: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(f"amqp://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or set(address) & set("/@? "):
        raise ValueError(f"address must be a host or host:port, not {address!r:.80}")
    return host, port


class Broker(Place, VirtualHost):
    """Takes every connection while it is installed, or those to one node, and records what was published.

    Declare what the code under test publishes to, run the code, look at `published`, and cause faults. Faults act on
    frames, as RabbitMQ's do, never on the client.

    >>> with Broker() as broker:
    ...     broker.exchange_declare("events", "topic")
    ...     broker.queue_declare("audit")
    ...     broker.queue_bind("audit", "events", "event.#")

    Args:
        address: the node that it takes the place of, as a host or ``host:port``; None for every node. Of several
            installed brokers, a node is the latest that takes its place.

    Attributes:
        published: every message received, in order, including nacked ones.
        database: takes the place of PostgreSQL, for clients whose ``outbox`` is there.
        delay: seconds that the broker's frames take to arrive.
        tune: what it proposes: channels, octets of a frame, seconds between heartbeats (AMQP 0-9-1, section 1.4.2.5).
        peers: the broker's end of each attempted connection, in order.
    """

    #: A broker that is driven by hand overrides these.
    automatic = True
    clings = False
    peer_class: type[Peer] = Peer

    def __init__(self, address: str | None = None) -> None:
        Place.__init__(self)
        VirtualHost.__init__(self, Routing("/", self._time))
        #: The virtual hosts, by name.
        self._vhosts = {"/": self._routing}
        self._host: str | None = None
        self._port: int | None = None
        if address is not None:
            self._host, self._port = _parsed(address)
        self.published: list[Published] = []
        self.peers: list[Peer] = []
        self.delay = 0.0
        self.alarm = ""
        self.tune = spec.Connection.Tune(2047, 131072, 0)
        self._refused: dict[str, int] = {}
        self._up = True
        self._logs_in = True
        self._swallows = False
        #: The confirms that were swallowed, in order, each with its channel: its number, and what is unconfirmed there.
        self._swallowed: list[tuple[Peer, int, list[int], Callable[[], object]]] = []
        self._nacks = 0
        #: Attempts to connect that are not answered; None: all are.
        self._unanswered: list[Peer] | None = None

    def __repr__(self) -> str:
        return f"<Broker {'up' if self._up else 'stopped'}, {len(self.connections)} connections>"

    # What it holds

    @property
    def connections(self) -> list[Peer]:
        """The connections that are up."""
        return [peer for peer in self.peers if peer.accepted and not peer.lost]

    def vhost(self, name: str) -> VirtualHost:
        """Return a virtual host, which exists from now on: a client is refused (530) in one that does not."""
        return VirtualHost(self._vhosts.setdefault(name, Routing(name, self._time)))

    # Faults, one call each

    def stop(self) -> None:
        """Stop: close every connection (320), and refuse new ones until `start`. What is transient is lost."""
        self._up = False
        self.close_connections("broker forced connection closure with reason 'shutdown'")
        for vhost in self._vhosts.values():
            vhost.stop()

    def start(self) -> None:
        """Accept connections again."""
        self._up = True
        for vhost in self._vhosts.values():
            vhost.start()

    def close_connections(self, reason: str = "bye") -> None:
        """Close every connection as an operator does: ``rabbitmqctl close_all_connections``."""
        for peer in self.connections:
            peer.close_connection(320, f"CONNECTION_FORCED - {reason}")
        self._let_arrive()

    def cut(self) -> None:
        """Cut every connection without notice; new ones are accepted."""
        for peer in self.connections:
            peer.lose()
        self._let_arrive()

    def block(self, reason: str = "low on memory") -> None:
        """Raise an alarm: a connection is blocked as soon as it publishes, and what it publishes is not read."""
        self.alarm = reason

    def unblock(self) -> None:
        """End the alarm: what was published in the meantime is read."""
        self.alarm = ""
        for peer in self.connections:
            if peer.stalled:
                peer.stall(stalled=False)
        self._let_arrive()

    def refuse_exchange(self, exchange: str, code: int = 404) -> None:
        """Refuse an exchange from now on: it does not exist (404), or may not be written to (403); 0: accept it."""
        if code not in {0, *REFUSALS}:
            raise ValueError(f"code must be 404 or 403, or 0 to accept the exchange again, not {code!r}")
        self._refused[exchange] = code

    def nack_next(self, count: int = 1) -> None:
        """Nack the next messages, without routing them."""
        self._nacks += count

    def swallow_confirms(self) -> None:
        """Confirm nothing from now on, until `release_confirms`."""
        self._swallows = True

    def release_confirms(self) -> None:
        """Send the confirms that were held back, and confirm messages again from now on."""
        self._swallows = False
        swallowed, self._swallowed = self._swallowed, []
        for peer, channel_number, channel, word in swallowed:
            # Another channel may have its number by now.
            if not peer.lost and peer.unconfirmed.get(channel_number) is channel:
                word()
        self._let_arrive()

    def close_channel(self, code: int = 406, text: str = "PRECONDITION_FAILED") -> None:
        """Close the channel that each client publishes on."""
        for peer in self.connections:
            for number in peer.publishing:
                peer.close_channel(number, code, text)
        self._let_arrive()

    def refuse_password(self, *, refused: bool = True) -> None:
        """Refuse logins from now on (403), as for a wrong password; or accept them again."""
        self._logs_in = not refused

    def ignore_attempts(self, *, ignored: bool = True) -> None:
        """Answer no attempt to connect from now on, as behind a firewall; or answer those that wait, and all others."""
        waiting, self._unanswered = self._unanswered or [], [] if ignored else None
        for peer in waiting:
            if ignored:
                self.attempted(peer)
            else:
                peer.loop.call_soon(self._answer, peer)

    def _let_arrive(self) -> None:
        """Deliver to the client before the test goes on, rather than when the loop next turns."""
        clock = self._present_clock()
        if clock is not None and running_loop() is None:
            clock.turn()

    # Called by peers

    def log_in(self) -> None:
        """Refuse a login if the test says so. Raises Refused."""
        if not self._logs_in:
            raise Refused(spec.ACCESS_REFUSED, LOGIN_REFUSED, connection=True)

    def enter(self, vhost: str) -> None:
        """Refuse a virtual host that does not exist. Raises Refused."""
        if vhost not in self._vhosts:
            raise Refused(spec.NOT_ALLOWED, f"NOT_ALLOWED - vhost {vhost} not found", connection=True)

    def judge(self, message: Published) -> None:
        """Refuse a message, or a question about one, that RabbitMQ refuses. Raises Refused."""
        routing = self._vhosts[message.vhost]
        if code := self._refused.get(message.exchange):
            raise Refused(code, REFUSALS[code].format(routing.where("exchange", message.exchange), message.user))
        routing.check_message(message)

    def accept(self, peer: Peer, channel_number: int, message: Published) -> None:
        """Accept a message: route it, return it if no queue takes it, and confirm it."""
        self.published.append(message)
        if self._nacks:
            self._nacks -= 1
            self._confirm(peer, channel_number, nack=True)
            return
        queues, took = self._vhosts[message.vhost].publish(message)
        if not queues and message.mandatory:
            peer.give_back(channel_number, message)
        # A single full queue makes it a nack, though the others get the message all the same.
        self._confirm(peer, channel_number, nack=took < queues)

    def _confirm(self, peer: Peer, channel_number: int, *, nack: bool) -> None:
        channel = peer.unconfirmed.get(channel_number)
        if channel is None:
            return
        word = functools.partial(peer.confirm, peer.received[channel_number], channel=channel_number, nack=nack)
        if self._swallows:
            self._swallowed.append((peer, channel_number, channel, word))
        else:
            word()

    def declare(self, peer: Peer, method: Any) -> Any:
        """Declare, delete, bind or purge as the method asks, and return the answer. Raises Refused."""
        return CALLS[method.NAME](self._vhosts[peer.vhost], method, Caller(peer, peer.user))

    def left(self, peer: Peer) -> None:
        """Delete what is exclusive to a connection that is gone."""
        self._vhosts[peer.vhost].leave(peer)

    def answers(self, _exchange: str) -> bool:
        """Return whether questions about the exchange are answered at all."""
        return True

    def note_sent(self, message_id: str) -> None:
        """Called when a message was handed to the socket."""

    # In place of the network

    def serves(self, host: str, port: int) -> bool:
        """Return whether it takes the place of the node."""
        return self._host in {None, host} and self._port in {None, port}

    def reach(self, _parameters: object, line: Any, _loop: object, _behind: object) -> Attempt:
        """Called when a client connects."""
        peer = self.peer_class(self, line)
        attempt = Attempt(peer)
        self.peers.append(peer)
        self.attempted(peer)
        return attempt

    def attempted(self, peer: Peer) -> None:
        """Accept or refuse an attempted connection, in the loop's next turn."""
        if self._unanswered is not None:
            self._unanswered.append(peer)
        else:
            peer.loop.call_soon(self._answer, peer)

    def _answer(self, peer: Peer) -> None:
        if peer.lost:
            return
        if self._up:
            peer.accept()
        else:
            peer.refuse()
