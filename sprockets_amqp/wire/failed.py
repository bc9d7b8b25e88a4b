"""Why an attempt to connect has failed: the step, the node, its address, and the cause."""

import os
import socket
import ssl
from typing import Final

from pika.exceptions import AMQPConnectionError, ConnectionClosedByBroker, StreamLostError

from sprockets_amqp.text import shown

from .addresses import Failures, Unreachable
from .login import MechanismMissing
from .network import DNS, LOGIN, TCP, VHOST

#: Addresses that are named; a name may have hundreds.
MOST: Final = 8
#: What stands between a step and the node.
_PREPOSITIONS: Final = {DNS: "of", TCP: "to", VHOST: "on"}


class AttemptFailed(AMQPConnectionError):
    """A step of connecting has failed; what it raised is the ``__cause__``.

    ``said`` is how the stream ended, where pika only deduces from the step what that means.

    >>> print(AttemptFailed("TCP", "rabbit", 5672, "10.0.0.1", ConnectionRefusedError(111, "Connection refused")))
    TCP to rabbit:5672 (10.0.0.1): Connection refused

    Attributes:
        step: ``DNS``, ``TCP``, ``TLS``, ``login`` or ``vhost``.
        host: the host in the URL.
        port: the port in the URL.
        address: the IP address, or several with commas in between; empty if it is not known.
        detail: why, in one line.
        final: whether RabbitMQ was reached, so that the same node is not tried again at once.
        refused: whether RabbitMQ said why it does not accept the connection.
    """

    def __init__(
        self,
        step: str,
        host: str,
        port: int,
        address: str,
        cause: BaseException,
        said: ConnectionClosedByBroker | StreamLostError | None = None,
    ) -> None:
        self.step = step
        self.host = host
        self.port = port
        self.address = address
        self.detail = plainly(said or cause)
        self.final = step in {LOGIN, VHOST}
        self.refused = isinstance(said, ConnectionClosedByBroker)
        if isinstance(cause, Unreachable):
            failures = cause.failures
            self.address = failures[0][0].host if len(failures) == 1 else ""
            self.detail = plainly(failures[0][1]) if len(failures) == 1 else told(failures) or "the name has no address"
            cause = failures[-1][1] if failures else cause
        self.__cause__ = cause
        super().__init__(f"{step} {_PREPOSITIONS.get(step, 'at')} {self.place}: {self.detail}")

    @property
    def place(self) -> str:
        """The node, and its address unless that is its name."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        place = shown(f"{host}:{self.port}" if self.step != DNS else host)
        return place if not self.address or self.address == self.host else f"{place} ({self.address})"


def told(failures: Failures) -> str:
    """Name the addresses and why each has failed, for people: ``10.0.0.1, 10.0.0.2 (Connection refused)``."""
    hosts: dict[str, list[str]] = {}
    for address, failure in failures[:MOST]:
        hosts.setdefault(plainly(failure), []).append(address.host)
    more = len(failures) - MOST
    return ", ".join(f"{', '.join(alike)} ({why})" for why, alike in hosts.items()) + (
        f", and {more} more" if more > 0 else ""
    )


def plainly(error: BaseException) -> str:
    """Say what went wrong in one line, in the words of RabbitMQ, of OpenSSL or of the system if there are any."""
    words = _words(error)
    if words:
        return words
    text = shown(" ".join(str(error).split()))
    if text and isinstance(error, TimeoutError | StreamLostError | ConnectionError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return shown(f"the certificate cannot be verified: {error.verify_message}")
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno)
    if isinstance(error, ConnectionClosedByBroker):
        return f"({error.reply_code}) {shown(error.reply_text)}"
    return str(error) if isinstance(error, MechanismMissing) else ""
