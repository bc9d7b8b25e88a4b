"""Logging in: with a user and a password, or by the client's certificate.

RabbitMQ calls the two PLAIN and EXTERNAL (https://www.rabbitmq.com/docs/access-control#mechanisms).
"""

from typing import Final

from pika.credentials import ExternalCredentials, PlainCredentials
from pika.exceptions import AuthenticationError
from pika.spec import Connection

from sprockets_amqp.text import shown

PLAIN: Final = "plain"
EXTERNAL: Final = "external"
#: What the option and the setting `auth` may be.
AUTH: Final = (PLAIN, EXTERNAL)

#: Octets of user and password for which a frame of 4096 octets may have no room, beside what else it holds.
LONG: Final = 3600


def too_long(credentials: object) -> str:
    """Say that RabbitMQ may refuse the credentials because of their length; empty if it does not."""
    octets = sum(len(str(getattr(credentials, name, "")).encode()) for name in ("username", "password"))
    if octets <= LONG:
        return ""
    return f"RabbitMQ reads at most 4096 octets before the login, 8192 since 4.1, and user and password have {octets}"


class MechanismMissing(AuthenticationError):
    """The node does not offer the way in which the client logs in."""

    def __init__(self, mechanism: str, offered: str) -> None:
        super().__init__(mechanism)
        self.mechanism, self._offered = mechanism, offered

    def __str__(self) -> str:
        return f"the node does not offer to log in with {self.mechanism}, only with {shown(self._offered)}"


class ByPassword(PlainCredentials):
    """A user and a password."""

    def response_for(self, start: Connection.Start) -> tuple[str, bytes]:
        """Return the mechanism and the response; raise MechanismMissing if the node does not offer it."""
        return _offered(self.TYPE, start, super().response_for(start))


class ByCertificate(ExternalCredentials):
    """The certificate that the client has shown in TLS."""

    def response_for(self, start: Connection.Start) -> tuple[str, bytes]:
        """Return the mechanism and an empty response; raise MechanismMissing if the node does not offer it."""
        return _offered(self.TYPE, start, super().response_for(start))


def _offered(mechanism: str, start: Connection.Start, response: tuple[str | None, bytes | None]) -> tuple[str, bytes]:
    chosen, answer = response
    if chosen is None or answer is None:
        # pika's annotation says str, and is wrong.
        offered: object = start.mechanisms
        raise MechanismMissing(mechanism, offered.decode(errors="replace") if isinstance(offered, bytes) else "")
    return chosen, answer
