"""Make the table, or bring it up to this version: by one's own connection, or by printed SQL."""

from typing import Any

import psycopg

from sprockets_amqp.secret import hidden, reveal

from .session import words_of
from .table import FIND, MIGRATIONS, RIGHTS, TABLE, VERSION, version_of

#: Only one migrates at a time.
LOCK = f"SELECT pg_advisory_xact_lock(hashtext('{TABLE}'))"


def migrate(url: str) -> int:
    """Make the table, or bring it up to this version; return the version that was there, or 0.

    Raises:
        OSError: PostgreSQL cannot be reached, or does not allow it.
        ValueError: what is there is something else, or of a later version.
    """
    url = hidden(url)
    try:
        with psycopg.connect(reveal(url), connect_timeout=10, client_encoding="UTF8") as connection:
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            connection.execute(LOCK)
            version = _version(connection)
            for each in range(version + 1, VERSION + 1):
                connection.execute(MIGRATIONS[each])
            return version
    except psycopg.Error as error:
        problem = words_of(error)
    raise OSError(f"PostgreSQL: {problem}")


def _version(connection: "psycopg.Connection[tuple[Any, ...]]") -> int:
    found = connection.execute(FIND, (list(RIGHTS),)).fetchone()
    if found is None:
        return 0
    version = version_of(str(found[1]), found[2])
    if not version:
        raise ValueError(f"there is a {TABLE} that is no outbox: rename it, or comment it as `migrate --sql` prints it")
    if version > VERSION:
        raise ValueError(f"{TABLE} is of version {version}, and this is {VERSION}: upgrade sprockets_amqp")
    return version
