"""A message for the outbox in PostgreSQL, as a statement for the application's own connection and transaction."""

import dataclasses
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from sprockets_amqp.delivery.message import encode
from sprockets_amqp.delivery.validation import check_copies
from sprockets_amqp.names import DEFAULT_NAME, check_name
from sprockets_amqp.settings import Settings

from .postgres.table import CHANNEL, COMMON, TABLE
from .store import checksum, pack

if TYPE_CHECKING:
    from sqlalchemy import TextClause

    from sprockets_amqp.delivery.options import Options

_DEFAULTS: Final = Settings()


@dataclasses.dataclass(frozen=True, slots=True)
class OutboxInsert:
    """A statement that stores a message, and its parameters, for the library that the application uses.

    Attributes:
        message_id: the id of the message.
        name: the name of the clients that may send it.
        message: what is stored.
        checksum: its checksum.
        notify: whether clients are told at the commit.
    """

    message_id: str | None
    name: str
    message: bytes = dataclasses.field(repr=False)
    checksum: int = dataclasses.field(repr=False)
    notify: bool = True

    @property
    def psycopg(self) -> tuple[str, tuple[bytes, int]]:
        """The arguments of ``execute`` of psycopg 3 or 2, and of Django's cursors, which are psycopg's."""
        return self._statement("%s", "%s"), (self.message, self.checksum)

    @property
    def asyncpg(self) -> tuple[str, bytes, int]:
        """The arguments of asyncpg's ``execute``."""
        return self._statement("$1", "$2"), self.message, self.checksum

    @property
    def sqlalchemy(self) -> "tuple[TextClause, dict[str, bytes | int]]":
        """The arguments of ``execute`` of SQLAlchemy's connections and sessions, synchronous or not."""
        from sqlalchemy import text  # noqa: PLC0415 - only who has it asks for this

        return text(self._statement(":message", ":checksum")), {"message": self.message, "checksum": self.checksum}

    def _statement(self, message: str, checksum: str) -> str:
        # The name is letters, digits and underscores. The statement reads no column: it needs no right but INSERT.
        values = f"('{self.name}', {COMMON}, {message}, {checksum})"
        notifying = f" RETURNING pg_notify('{CHANNEL}', '{self.name}')" if self.notify else ""
        return f"INSERT INTO {TABLE} (name, box, message, checksum) VALUES {values}{notifying}"  # noqa: S608


def outbox_insert(
    exchange: str,
    routing_key: str,
    body: bytes | bytearray | memoryview | str,
    properties: Mapping[str, Any] | None = None,
    *,
    name: str = DEFAULT_NAME,
    default_app_id: str | None = None,
    mandatory: bool = True,
    persistent: bool = False,
    notify: bool = True,
) -> OutboxInsert:
    """Return what stores a message in the outbox in PostgreSQL, in a transaction of the application's own.

    The message is published if the transaction commits, and only then: a running client of this name whose setting
    ``outbox`` is this database sends it at once. See docs/outbox.md.

    Args:
        exchange: where it is published to; empty: the default exchange.
        routing_key: with which routing key.
        body: its octets; a str is encoded as UTF-8.
        properties: its properties, as those of `Client.publish`.
        name: the name of the clients that may send it.
        default_app_id: its app_id, if its properties have none.
        mandatory: whether RabbitMQ returns it if no queue takes it.
        persistent: whether it is persistent if its properties have no delivery_mode.
        notify: whether the client is told at the commit; otherwise it finds the message within a second.

    Raises:
        InvalidMessage: an argument or property is invalid.
        ValueError: the name is not allowed.
    """
    options: Options = {"timeout": None, "mandatory": mandatory, "persistent": persistent}
    message, _, invalid = encode(exchange, routing_key, body, properties, default_app_id, options, options)
    invalid = invalid or (check_copies(message.copies, _DEFAULTS) if message.copies else None)
    if invalid is not None:
        raise invalid.about(message.message_id, message.exchange, message.routing_key)
    octets = pack(time.time(), message.method, message.properties, message.body)
    return OutboxInsert(message.message_id, check_name(name), octets, checksum(COMMON, octets), notify)
