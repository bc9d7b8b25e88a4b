"""PostgreSQL servers that the tests own: to start, stop, kill, freeze, fill, and follow one another.

Every server has its own port and folder, and listens on 127.0.0.1 only. It runs as an ordinary user: if this process is
root's, as nobody.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg

from sprockets_amqp.outbox.postgres.table import script
from tools.rabbitmq import GUARD, POLL_INTERVAL, START_LIMIT, STOP_LIMIT, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Where Debian keeps PostgreSQL's programs, by version.
DEBIAN: Final = Path("/usr/lib/postgresql")
PASSWORD: Final = "open sesame"  # noqa: S105 - it guards nothing


class ServerFailed(Exception):
    """A server did not start, or a program of PostgreSQL's failed; contains what it printed."""


def programs() -> Path:
    """Return the folder of PostgreSQL's programs; raise ServerFailed if it is not installed."""
    found = sorted(DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    program = shutil.which("postgres")
    if program is None:
        msg = "PostgreSQL is not installed: run .ci/setup postgres as root, or put postgres on the PATH"
        raise ServerFailed(msg)
    return Path(program).resolve().parent


def ordinary() -> dict[str, Any]:
    """Return how to start a program as an ordinary user."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if not os.getuid() else {}


class Server:
    """A PostgreSQL server; `async with Server() as server:` starts it and leaves nothing behind.

    Args:
        config: lines of postgresql.conf.
        follows: the server that this one is a standby of.
    """

    def __init__(self, *, config: Mapping[str, str] | None = None, follows: Server | None = None) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="sprockets-amqp-"))
        self.data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._guards: list[subprocess.Popen[bytes]] = []
        self._frozen: list[int] = []
        #: What runs it if this process is root's.
        self._as = ordinary()
        if self._as:
            shutil.chown(self.folder, "nobody", "nogroup")
        if follows is None:
            self._create()
        else:
            self._run(
                "pg_basebackup",
                "--dbname",
                follows.url,
                "--pgdata",
                str(self.data),
                "--write-recovery-conf",
                "--checkpoint=fast",
            )
        settings = {
            "listen_addresses": "'127.0.0.1'",
            "port": str(self.port),
            "unix_socket_directories": "''",
            "max_connections": "40",
            "shared_buffers": "64MB",
            **(config or {}),
        }
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())
        self._config = (self.data / "postgresql.conf").read_text()
        self._asked = (self.data / "postgresql.auto.conf").read_text()

    def _create(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        if self._as:
            shutil.chown(password, "nobody", "nogroup")
        options = ("--username=postgres", "--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8")
        self._run("initdb", f"--pgdata={self.data}", *options, "--locale=C", "--no-sync")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [programs() / program, *arguments],
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **self._as,
        )
        if done.returncode:
            msg = f"{program} failed:\n{done.stdout.decode(errors='replace')[-3000:]}"
            raise ServerFailed(msg)

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(self.folder)}

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Server port={self.port} pid={self.pid}>"

    @property
    def url(self) -> str:
        """The URL of the database postgres, as its superuser."""
        return self.url_for()

    def url_for(self, user: str = "postgres", password: str = PASSWORD, database: str = "postgres") -> str:
        """Return a URL with other credentials or another database."""
        return f"postgresql://{user}:{password.replace(' ', '%20')}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int | None:
        """The server's process id, or None while it is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        path = self.folder / "output.log"
        return path.read_text(errors="replace") if path.exists() else ""

    async def start(self) -> None:
        """Start the server with the data that it left, and wait until it can be written to, or read if it follows."""
        if self.pid is not None:
            raise ServerFailed(f"{self} runs already")
        self._process = process = self._spawn()
        async with asyncio.timeout(START_LIMIT):
            while not await self._answers():
                if process.poll() is not None:
                    msg = f"PostgreSQL ended while it started:\n{self.log[-3000:]}"
                    raise ServerFailed(msg)
                await asyncio.sleep(POLL_INTERVAL)

    def _spawn(self) -> subprocess.Popen[bytes]:
        with (self.folder / "output.log").open("ab") as sink:
            process = subprocess.Popen(
                [programs() / "postgres", "-D", str(self.data)],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                process_group=0,
                **self._as,
            )
        self._guards.append(
            subprocess.Popen(
                ["sh", "-c", GUARD, "guard", str(process.pid), str(self.folder)],
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        return process

    async def _answers(self) -> bool:
        try:
            await self.sql("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    async def stop(self, how: int = signal.SIGINT) -> None:
        """Stop the server: by default fast, which ends its connections (pg_ctl stop --mode=fast)."""
        self.resume()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(how)
            async with asyncio.timeout(STOP_LIMIT):
                while self.pid is not None:
                    await asyncio.sleep(POLL_INTERVAL)

    async def kill(self) -> None:
        """Stop the server at once, as a crash would (pg_ctl stop --mode=immediate): it recovers when it starts."""
        await self.stop(signal.SIGQUIT)

    async def restart(self) -> None:
        """Stop the server and start it again."""
        await self.stop()
        await self.start()

    def pause(self) -> None:
        """Freeze the server and its sessions: nothing answers from now on."""
        assert self.pid is not None
        for process in (self.pid, *self._children()):
            os.kill(process, signal.SIGSTOP)
            self._frozen.append(process)

    def resume(self) -> None:
        """Unfreeze the server."""
        for process in self._frozen:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
        self._frozen.clear()

    def _children(self) -> list[int]:
        return [int(each) for each in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    async def caught_up(self, with_: Server) -> None:
        """Return when it has all that the server that it follows has."""
        ((place,),) = await with_.sql("SELECT pg_current_wal_flush_lsn()::text")
        while not (await self.sql("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", place))[0][0]:
            await asyncio.sleep(POLL_INTERVAL)

    async def promote(self) -> None:
        """Have a standby follow no longer, and take writes."""
        await self.sql("SELECT pg_promote()")

    async def sql(self, statement: str, *parameters: object, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute a statement as superuser, and return its rows."""
        async with await psycopg.AsyncConnection.connect(
            self.url_for(database=database), autocommit=True, connect_timeout=10
        ) as connection:
            cursor = await connection.execute(statement, parameters or None)
            return await cursor.fetchall() if cursor.description else []

    async def outbox(self, *, migrated: bool = True) -> str:
        """Create a database, with the table of an outbox; return its URL."""
        name = f"outbox_{secrets.token_hex(6)}"
        await self.sql(f"CREATE DATABASE {name}")
        if migrated:
            await self.sql(script(), database=name)
        return self.url_for(database=name)

    async def sessions(self) -> list[int]:
        """Return the processes of outboxes' sessions."""
        found = await self.sql("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'sprockets_amqp%'")
        return [pid for (pid,) in found]

    def set(self, **settings: str | None) -> None:
        """Change lines of its configuration; None removes one. It has to be reloaded or restarted."""
        path = self.data / "postgresql.conf"
        lines = [line for line in path.read_text().splitlines() if re.split(r"\W", line, maxsplit=1)[0] not in settings]
        lines += [f"{name} = {value}" for name, value in settings.items() if value is not None]
        path.write_text("\n".join(lines) + "\n")

    def certify(self, certificate: Path, key: Path) -> None:
        """Speak TLS with a certificate, and nothing else; it has to be restarted."""
        for path, name in ((certificate, "server.crt"), (key, "server.key")):
            own = self.data / name
            own.write_bytes(path.read_bytes())
            own.chmod(0o600)
            if self._as:
                shutil.chown(own, self._as["user"], self._as["group"])
        self.set(ssl="on")
        access = self.data / "pg_hba.conf"
        access.write_text(access.read_text().replace("host ", "hostssl "))

    def limit_files(self, pid: int, size: str) -> None:
        """Let no file grow beyond so many octets, or "unlimited", through one of its processes."""
        subprocess.run(["prlimit", f"--pid={pid}", f"--fsize={size}:"], check=True, **self._as)

    def reload(self) -> None:
        """Have it read its configuration again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    async def repair(self) -> None:
        """Undo what a test may have done to it."""
        self.resume()
        path, asked = self.data / "postgresql.conf", self.data / "postgresql.auto.conf"
        if path.read_text() != self._config or asked.read_text() != self._asked:
            path.write_text(self._config)
            asked.write_text(self._asked)
            await self.stop()
        if self.pid is None:
            await self.start()

    def close(self) -> None:
        """Kill everything that runs here and remove the folder; calling it twice is harmless."""
        self.resume()
        if self.pid is not None:
            assert self._process is not None
            self._process.send_signal(signal.SIGQUIT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_LIMIT)
        for guard in self._guards:
            with suppress(BrokenPipeError):
                guard.communicate()
        self._guards.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


class Pooler:
    """PgBouncer, which gives a server's sessions to others between transactions.

    Attributes:
        url: the URL of the database through it.
    """

    def __init__(self, server: Server, database: str) -> None:
        port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{port}/{database}"
        self._config = server.folder / f"pgbouncer-{port}.ini"
        place = f"host=127.0.0.1 port={server.port} user=postgres password='{PASSWORD}'"
        self._config.write_text(
            f"[databases]\n{database} = {place}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
            "auth_type = any\npool_mode = transaction\nunix_socket_dir =\nignore_startup_parameters = extra_float_digits\n"
        )
        self._config.chmod(0o644)

    def __enter__(self) -> Self:
        path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
        program = shutil.which("pgbouncer", path=path)
        if program is None:
            msg = "PgBouncer is not installed: run .ci/setup postgres as root, or put pgbouncer on the PATH"
            raise ServerFailed(msg)
        self._process = subprocess.Popen([program, "-q", self._config], stderr=subprocess.DEVNULL, **ordinary())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
