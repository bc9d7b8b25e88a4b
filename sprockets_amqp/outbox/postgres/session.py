"""The session with PostgreSQL: it is opened, checked, listened to, and given up when nothing answers.

Everything is done to its end, whoever cancels tasks meanwhile. Errors say what the server says, and no more: psycopg's
quote rows.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from sprockets_amqp.outbox.store import Unsure
from sprockets_amqp.secret import Secret, hidden, reveal
from sprockets_amqp.text import shown

from .table import CHANNEL, COPIED, COPY, FIND, RIGHTS, TABLE, VERSION, version_of

#: The oldest version of PostgreSQL.
OLDEST: Final = 14
#: Seconds to connect to each host, unless the URL says otherwise.
CONNECT_LIMIT: Final = 3
#: Seconds that the server may take for one call before its session is given up.
ANSWER_LIMIT: Final = 30.0
#: Seconds that it has left when somebody cancels the task that waits: an application that stops waits for it.
CANCELLED_LIMIT: Final = 2.0
#: Seconds after which either side knows that the other's machine is gone: four, and three times two.
GONE: Final = 10
#: How the client's side notices it (https://www.postgresql.org/docs/current/libpq-connect.html).
OPTIONS: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_LIMIT,
    "keepalives": 1,
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 1000 * GONE,
}
#: How the server's side notices it, and what else the session needs, whatever its user or database has by default.
SETTINGS: Final = {
    "tcp_keepalives_idle": "4",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": str(1000 * GONE),
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "statement_timeout": "0",
    "lock_timeout": "5s",
    "default_transaction_isolation": "read committed",
    # A box fills and empties within seconds: statistics of the table are always wrong, and its key is always right.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "plan_cache_mode": "force_custom_plan",
}
_SET: Final = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in SETTINGS.items())
PREPARE: Final = (
    "SELECT pg_backend_pid(), extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8, "  # noqa: S608
    f"{_SET}, CASE WHEN current_setting('synchronous_commit') = 'off' "
    "THEN set_config('synchronous_commit', 'on', false) END"
)

T = TypeVar("T")


class Connection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection that may be left open: a loop may end without `shutdown()`, and libpq closes the socket."""

    def __del__(self, *_: object) -> None:
        """Warn of nothing."""


#: A statement and its parameters.
Statement = tuple[str, Sequence[object]]
#: Connections of the parent process, in a forked child: they are never closed there.
_PARENTS: Final[list[object]] = []


class Session:
    """A session, which there is until it ends; `open` makes a new one.

    Args:
        url: the URL of the database.
        name: the client's.

    Attributes:
        on_news: called when PostgreSQL tells that something was stored elsewhere for this client.
        on_loss: called when the session ends while nothing is done.
        oid: which table it is.
        problem: why there is no session.
        uptime: for how many seconds the server had been up when the session began.
        encoding: what words are encoded in: everything else is octets.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = hidden(url)
        self._name = name
        self.on_news: Callable[[], object] = bool
        self.on_loss: Callable[[], object] = bool
        self._connection: Connection | None = None
        #: What is read while nothing else is done; and why an answer is not waited for any longer.
        self._descriptor = -1
        self._silence = ""
        self.problem = "there is no session with PostgreSQL"
        self.oid = 0
        self.uptime = 0.0
        self.encoding = "ascii"

    @property
    def is_open(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self._connection is not None and not self._connection.closed

    async def open(self, *, to_write: bool) -> None:
        """Begin a session. Raises an OSError or ValueError in words."""
        try:
            await self._complete(self._connect, to_write)
        except BaseException:
            self.end()
            raise

    async def _connect(self, to_write: bool) -> None:
        self.end()
        options = {"application_name": f"sprockets_amqp {self._name}".strip(), **OPTIONS}
        if to_write:
            options["target_session_attrs"] = "read-write"
        given = conninfo_to_dict(reveal(self._url))
        options = {name: value for name, value in options.items() if name not in given}
        del given
        address = Secret(make_conninfo(reveal(self._url), client_encoding="UTF8", **options))
        self._connection = await Connection.connect(reveal(address), autocommit=True)
        self._connection.add_notify_handler(self._on_notify)
        await self._check(self._connection)
        self._listen()

    async def _check(self, connection: Connection) -> None:
        version = connection.info.server_version
        if version < 10000 * OLDEST:
            raise ValueError(f"this is PostgreSQL {version // 10000}: the outbox needs {OLDEST} or newer")
        ((process, self.uptime, *_),) = await (await connection.execute(PREPARE)).fetchall()
        if process != connection.info.backend_pid:
            raise ValueError(
                "a connection pooler answers for PostgreSQL, and gives the session to others: name PostgreSQL itself "
                "in the URL, for the session's locks say whose messages are whose"
            )
        found = await (await connection.execute(FIND, (list(RIGHTS),))).fetchone()
        self.oid = checked_table(found)
        self.encoding = "utf-8" if connection.info.parameter_status("server_encoding") == "UTF8" else "ascii"
        await connection.execute(f"LISTEN {CHANNEL}")

    async def run(self, *statements: Statement, rows: Sequence[Sequence[object]] = ()) -> list[tuple[Any, ...]]:
        """Store rows and execute statements, all or none of it; return the rows of the last statement.

        Raises:
            Unsure: the session has ended, and it may have been done.
            OSError: it was not.
        """
        return await self._complete(self._run, statements, rows)

    async def _run(self, statements: Sequence[Statement], rows: Sequence[Sequence[object]]) -> list[tuple[Any, ...]]:
        connection = self._connection
        if connection is None:
            raise ConnectionError(self.problem)
        if rows:
            async with connection.transaction() if statements else contextlib.nullcontext():
                await _copy(connection, rows)
                for each in statements:
                    await connection.execute(*each)
            return []
        if len(statements) == 1:
            cursor = await connection.execute(*statements[0], binary=True)
        else:
            async with connection.pipeline(), connection.transaction():
                cursors = [await connection.execute(*each, binary=True) for each in statements]
            cursor = cursors[-1]
        return await cursor.fetchall() if cursor.description else []

    async def _complete(self, work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """Do it to its end: who stops an application may cancel all tasks, and this one is not among them."""
        loop = asyncio.get_running_loop()
        self._ignore()
        task = loop.create_task(work(*arguments))
        asyncio.tasks._unregister_task(task)  # noqa: SLF001 - https://docs.python.org/3/library/asyncio-extending.html
        task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001 - a loop may be closed first
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        limit = loop.call_later(ANSWER_LIMIT, self._break)
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                if limit.when() > loop.time() + CANCELLED_LIMIT:
                    limit.cancel()
                    limit = loop.call_later(CANCELLED_LIMIT, self._break)
        limit.cancel()
        problem = self._understood(task.exception())
        if problem is not None:
            raise problem
        self._listen()
        return task.result()

    def _understood(self, error: BaseException | None) -> BaseException | None:
        """Return what to raise; a session that is of no use any more ends."""
        if not isinstance(error, psycopg.Error):
            if error is not None:
                self.end(str(error))
            return error
        words = self._silence or f"PostgreSQL: {words_of(error)}"
        was_open = self._connection is not None
        is_gone = not self.is_open or (error.sqlstate or "").startswith("57P")
        if is_gone or isinstance(error, (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.UndefinedTable)):
            # Another node may be the primary one now, and another table may have taken the place of this one.
            self.end(words)
        else:
            self._listen()
        if not is_gone:
            return OSError(words)
        return Unsure(words) if was_open else ConnectionError(words)

    # News

    def _listen(self) -> None:
        """While nothing else is done, notice what PostgreSQL tells."""
        if self._connection is None:
            return
        loop = asyncio.get_running_loop()
        try:
            self._descriptor = self._connection.fileno()
        except psycopg.Error as error:
            # What was done before is done.
            self.end(f"PostgreSQL: {words_of(error)}")
            loop.call_soon(self.on_loss)
        else:
            loop.add_reader(self._descriptor, self._on_readable)

    def _ignore(self) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._descriptor = -1

    def _on_readable(self) -> None:
        assert self._connection is not None
        libpq = self._connection.pgconn
        has_news = False
        try:
            libpq.consume_input()
            while (note := libpq.notifies()) is not None:
                has_news |= note.extra == self._name.encode()
        except psycopg.Error as error:
            self.end(f"PostgreSQL: {words_of(error)}")
            self.on_loss()
            return
        if has_news:
            self.on_news()

    def _on_notify(self, note: psycopg.Notify) -> None:
        if note.payload == self._name:
            self.on_news()

    # The end

    def end(self, problem: str = "the session has ended") -> None:
        """End the session, and with it its locks; calling it twice is harmless."""
        self._ignore()
        connection, self._connection = self._connection, None
        if connection is not None:
            self.problem, self._silence = problem, ""
            connection.pgconn.finish()

    def _break(self) -> None:
        """Have what waits for an answer fail."""
        if self._connection is not None:
            self._silence = f"PostgreSQL has not answered within {ANSWER_LIMIT:g} s"
            with (
                contextlib.suppress(psycopg.Error, OSError),
                socket.socket(fileno=os.dup(self._connection.fileno())) as copy,
            ):
                copy.shutdown(socket.SHUT_RDWR)

    def abandon(self) -> None:
        """In a forked child, close the copy of the socket, and tell the server nothing."""
        connection, self._connection, self._descriptor = self._connection, None, -1
        if connection is not None and not connection.closed:
            _PARENTS.append(connection)
            nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            # Its number stays taken: whatever libpq may still do there harms no other file.
            os.dup2(nothing, connection.fileno(), inheritable=False)
            os.close(nothing)


async def _copy(connection: Connection, rows: Sequence[Sequence[object]]) -> None:
    async with connection.cursor() as cursor, cursor.copy(COPY) as copy:
        copy.set_types(COPIED)
        for row in rows:
            await copy.write_row(row)


def checked_table(found: Any) -> int:
    """Return which table it is, of what `FIND` has found. Raises ValueError or an OSError if it cannot be used."""
    if found is None:
        raise FileNotFoundError(
            f"there is no table {TABLE} in this database, or its schema is not in the search_path: run sprockets-amqp "
            "outbox migrate"
        )
    oid, kind, comment, database, user, missing = found
    version = version_of(kind, comment)
    if not version:
        raise ValueError(
            f"{TABLE} in database {database} has no version: run sprockets-amqp outbox migrate, or rename what is there"
        )
    if version != VERSION:
        what = "run sprockets-amqp outbox migrate" if version < VERSION else "upgrade sprockets_amqp"
        raise ValueError(f"{TABLE} in database {database} is of version {version}, and this is {VERSION}: {what}")
    if missing:
        raise PermissionError(f"the user needs more: GRANT {', '.join(missing)} ON {TABLE} TO {user}")
    return int(oid)


def words_of(error: Exception) -> str:
    """Return what an error says, in one printable line, without the rows and statements that PostgreSQL quotes."""
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        return shown(f"{error.diag.message_primary} ({error.sqlstate})")
    return shown(" ".join(str(error).split())) or type(error).__name__
