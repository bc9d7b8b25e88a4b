"""RabbitMQ nodes that the tests own: to start, stop, kill, freeze and join into a cluster.

Every node has its own ports, folder, Erlang cookie and epmd, and listens on 127.0.0.1 only, so that it can run beside
any other broker, as root or as any user. Only the standard library is needed.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import re
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

#: Seconds that a node may take to start or stop; it takes about five and one, more while the machine is busy.
START_LIMIT = 90.0
STOP_LIMIT = 30.0
POLL_INTERVAL = 0.05

#: Below the range from which Linux takes ports for outgoing connections, one of which might otherwise get a node's port
#: while the node is down; and away from 35672 to 35682, which RabbitMQ's own tools use. For the same reason, each of
#: pytest-xdist's workers has ports of its own.
PORTS = range(
    20000 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")),
    32000,
    int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")),
)

#: Debian's scripts without the wrapper in /usr/sbin, which switches to another user and drops the environment.
DEBIAN_SCRIPTS = Path("/usr/lib/rabbitmq/bin")

#: For every Erlang VM that a node or a tool starts, and those that they start: none of them leaves an epmd behind.
_ERLANG_FLAGS = "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"

#: Kills everything in the process group $1 and removes the folder $2 once its standard input is closed: on request, and
#: also when this process was killed.
GUARD = 'while read -r _; do :; done; kill -s KILL -- "-$1"; sleep 0.1; rm -rf -- "$2"'

#: Undoes what a test may have done to a running node; the limits are those in the node's configuration.
#: Works for RabbitMQ 3.10 to 4.3.
_REPAIR = """
    rabbit:is_running() orelse (ok = rabbit:start()),
    rabbit_maintenance:is_being_drained_local_read(node()) andalso rabbit_maintenance:revive(),
    rabbit_maintenance:resume_all_client_listeners(),
    {ok, Memory} = application:get_env(rabbit, vm_memory_high_watermark),
    vm_memory_monitor:set_vm_memory_high_watermark(Memory),
    {ok, Disk} = application:get_env(rabbit, disk_free_limit),
    rabbit_disk_monitor:set_disk_free_limit(Disk),
    rabbit_alarm:get_alarms().
"""

_NODE_NAMES = re.compile(r"[\w-]+@localhost")

_handed_out: set[int] = set()


class NodeFailed(Exception):
    """A node did not start, or a command to it failed; contains what it printed."""


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens and that was not handed out before."""
    for port in random.sample(PORTS, len(PORTS)):
        if port not in _handed_out and _can_bind(port):
            _handed_out.add(port)
            return port
    msg = f"no free port in {PORTS}"
    raise NodeFailed(msg)


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def scripts() -> Path:
    """Return the folder of RabbitMQ's own scripts; raise NodeFailed if RabbitMQ is not installed."""
    if (DEBIAN_SCRIPTS / "rabbitmq-server").exists():
        return DEBIAN_SCRIPTS
    found = shutil.which("rabbitmq-server")
    if found is None:
        msg = "RabbitMQ is not installed: run .ci/setup broker as root, or put rabbitmq-server on the PATH"
        raise NodeFailed(msg)
    return Path(found).resolve().parent


@functools.cache
def version() -> tuple[int, ...]:
    """Return the version of the installed RabbitMQ, such as (4, 0, 5)."""
    printed = subprocess.run(
        [scripts() / "rabbitmqctl", "version"],
        env={"PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/bin:/bin", "HOME": "/", "LANG": "C.UTF-8"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout
    return tuple(int(part) for part in printed.strip().partition("-")[0].split("."))


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


class Host:
    """What the nodes of a cluster share: an epmd, an Erlang cookie, a folder, and a guard that ends them all."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sprockets-amqp-"))
        self.epmd_port = free_port()
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        #: The process groups of running commands; if this process is killed, they end with the node.
        self.commands: set[int] = set()
        self._processes: list[subprocess.Popen[bytes]] = []
        # The group exists for as long as any process is in it.
        self.group = 0
        self.group = self.spawn("epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1", environment={}).pid
        self._guard = subprocess.Popen(
            ["sh", "-c", GUARD, "guard", str(self.group), str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def environment(self) -> dict[str, str]:
        """Return the environment of everything that runs here; nothing of RabbitMQ's is inherited."""
        return {
            "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_AFLAGS": _ERLANG_FLAGS,
            # No crash dumps.
            "ERL_CRASH_DUMP_SECONDS": "0",
        }

    def spawn(
        self, *command: str, environment: Mapping[str, str], output: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process that ends with this host."""
        with (output or Path(os.devnull)).open("ab") as sink:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**self.environment(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                process_group=self.group,
            )
        self._processes.append(process)
        return process

    def close(self) -> None:
        """Kill everything that runs here and remove the folder; calling it twice is harmless."""
        for group in self.commands:
            _kill_group(group)
        with suppress(BrokenPipeError):
            self._guard.communicate()
        for process in self._processes:
            process.wait()


class Node:
    """A RabbitMQ node; `async with Node() as node:` starts it and leaves nothing behind.

    `config` holds lines of rabbitmq.conf (`{"heartbeat": "5", "vm_memory_high_watermark.absolute": "100MB"}`).
    `tls` holds ssl_options (`{"cacertfile": …, "certfile": …, "keyfile": …}`) and adds a TLS listener on `tls_port`.
    """

    def __init__(
        self,
        name: str = "rabbit",
        *,
        config: Mapping[str, str] | None = None,
        tls: Mapping[str, str] | None = None,
        host: Host | None = None,
    ) -> None:
        self.name = f"{name}@localhost"
        self.port = free_port()
        self.tls_port = free_port() if tls else None
        self.distribution_port = free_port()
        self._owns_host = host is None
        self.host = host or Host()
        self.folder = self.host.folder / name
        self.folder.mkdir()
        self._write_config(dict(config or {}), dict(tls or {}))
        self._process: subprocess.Popen[bytes] | None = None
        #: Whether it has been out of descriptors since it started.
        self._starved = False
        self.paused = False

    def __repr__(self) -> str:
        return f"<Node {self.name} port={self.port} pid={self.pid}>"

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The URL of the default vhost, as guest."""
        return self.url_for()

    def url_for(self, user: str = "guest", password: str = "guest", vhost: str = "%2f", query: str = "") -> str:
        """Return a URL with other credentials, another vhost (percent-encoded), or pika's parameters in its query."""
        return f"amqp://{user}:{password}@127.0.0.1:{self.port}/{vhost}" + (f"?{query}" if query else "")

    @property
    def pid(self) -> int | None:
        """The node's process id, or None while it is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def running(self) -> bool:
        """Whether the node's process exists, paused or not."""
        return self.pid is not None

    @property
    def log(self) -> str:
        """What the node has logged and printed so far."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))

    async def start(self) -> None:
        """Start the node with the data that it left, and wait until it accepts connections."""
        assert not self.running, f"{self} runs already"
        self._process = self.host.spawn(
            str(scripts() / "rabbitmq-server"), environment=self._environment(), output=self.folder / "output.log"
        )
        self.paused = self._starved = False
        async with asyncio.timeout(START_LIMIT):
            while not await self._listens():
                if self.pid is None:
                    msg = f"{self.name} ended while it started:\n{self.log[:3000]}"
                    raise NodeFailed(msg)
                await asyncio.sleep(POLL_INTERVAL)
        await self.ctl("await_startup")

    async def stop(self) -> None:
        """Stop the node as its init system would: it closes its connections and stores everything."""
        self.resume()
        self._signal(signal.SIGTERM)
        await self._ended()

    async def kill(self) -> None:
        """Kill the node with SIGKILL; what it had not stored is lost."""
        self._signal(signal.SIGKILL)
        await self._ended()

    async def store_definitions(self) -> None:
        """Make what was declared survive a kill.

        RabbitMQ 3.10 may lose a binding that was made just before a kill: in 2 of 120 kills, 50 ms after its bind-ok, it
        was gone, although it was in Mnesia's log; in none of 200 once that log had been processed.
        """
        await self.ctl("eval", "mnesia:dump_log().")

    async def restart(self) -> None:
        """Stop the node and start it again."""
        await self.stop()
        await self.start()

    @asynccontextmanager
    async def without_descriptors(self) -> AsyncIterator[None]:
        """Make a node with a few connections accept no more in the block.

        Before 4.0, RabbitMQ itself counts descriptors. From 4.0 on only the operating system does, and everything else that
        needs a descriptor fails, too: `repair` restarts the node.
        """
        assert self.pid is not None
        if version() < (4,):
            await self.ctl("eval", "file_handle_cache:set_limit(5).")
            yield
            await self.ctl("eval", "file_handle_cache:set_limit(file_handle_cache:ulimit() - 100).")
        else:
            self._starved = True
            soft, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
            # The limit applies to their numbers: with a limit above all open ones, closing one would make room.
            resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (0, hard))
            yield
            resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (soft, hard))

    def pause(self) -> None:
        """Freeze the node: connections stay open and are accepted, but nothing answers from now on."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        # The signal takes effect after kill() returns: a message may be confirmed in between.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)
        self.paused = True

    def resume(self) -> None:
        """Unfreeze the node."""
        if self.paused:
            self._signal(signal.SIGCONT)
            self.paused = False

    async def ctl(self, *arguments: str, tool: str = "rabbitmqctl") -> str:
        """Run rabbitmqctl, or another of RabbitMQ's tools, against the node; return what it printed."""
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                scripts() / tool,
                "--quiet",
                *arguments,
                env={**self.host.environment(), **self._environment()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )
        try:
            # A caller that is cancelled meanwhile must still learn what to kill.
            process = await asyncio.shield(starting)
            self.host.commands.add(process.pid)
            output = (await process.communicate())[0].decode(errors="replace")
        finally:
            process = await starting
            self.host.commands.discard(process.pid)
            if process.returncode is None:
                # The script, and the Erlang VM that it started.
                _kill_group(process.pid)
                await process.wait()
        if process.returncode:
            msg = f"{tool} {' '.join(arguments)} on {self.name} failed ({process.returncode}):\n{output}"
            raise NodeFailed(msg)
        return output

    async def add_user(self, name: str, password: str = "secret", vhost: str = "/") -> str:
        """Add a user with all permissions on a vhost, which is added if it is missing; return the user's URL."""
        if vhost not in (await self.ctl("list_vhosts")).split():
            await self.ctl("add_vhost", vhost)
        await self.ctl("add_user", name, password)
        await self.ctl("set_permissions", "--vhost", vhost, name, ".*", ".*", ".*")
        return self.url_for(name, password, quote(vhost, safe=""))

    async def repair(self) -> None:
        """Make the node serve again, whatever was done to it: unfreeze, start and revive it, and clear its alarms.

        Users, vhosts and their contents stay as they are: a test that breaks them uses its own.
        """
        self.resume()
        if self._starved and self.running:
            await self.kill()
        if not self.running:
            await self.start()
        await self.ctl("eval", _REPAIR)

    def close(self) -> None:
        """Kill the node at once; with a host of its own, remove its folder as well."""
        if self._owns_host:
            self.host.close()
        elif self._process is not None and self.running:
            self._process.kill()
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self} was never started"
        self._process.send_signal(number)

    async def _ended(self) -> None:
        async with asyncio.timeout(STOP_LIMIT):
            while self.running:
                await asyncio.sleep(POLL_INTERVAL)
        self.paused = False

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return True

    def _write_config(self, config: dict[str, str], tls: dict[str, str]) -> None:
        lines = {
            "listeners.tcp.local": f"127.0.0.1:{self.port}",
            "log.file.level": "info",
            "log.console": "false",
            # Only tests decide when the disk is full.
            "disk_free_limit.absolute": "1MB",
            **config,
        }
        if tls:
            lines["listeners.ssl.local"] = f"127.0.0.1:{self.tls_port}"
            lines |= {f"ssl_options.{option}": value for option, value in tls.items()}
        (self.folder / "rabbitmq.conf").write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
        (self.folder / "enabled_plugins").write_text("[].")

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            # Neither /etc/rabbitmq nor /var/lib/rabbitmq is read.
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            # Any free port: several tools may run at a time.
            "RABBITMQ_CTL_DIST_PORT_MIN": "0",
            "RABBITMQ_CTL_DIST_PORT_MAX": "0",
            # The script becomes the Erlang VM instead of supervising it: our signals reach the node itself.
            "RUNNING_UNDER_SYSTEMD": "true",
        }


class Cluster:
    """Three nodes, or as many as are named, joined into one cluster.

    `async with Cluster() as cluster:` starts them; `cluster.nodes` are Nodes, to kill, pause and start one by one.
    """

    def __init__(self, *names: str, config: Mapping[str, str] | None = None) -> None:
        self.host = Host()
        names = names or ("one", "two", "three")
        # A node that boots for the first time joins the first one if that has booted; otherwise it stays alone.
        settings = {
            "cluster_formation.peer_discovery_backend": "classic_config",
            "cluster_formation.classic_config.nodes.1": f"{names[0]}@localhost",
            **(config or {}),
        }
        self.nodes = [Node(name, config=settings, host=self.host) for name in names]

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @property
    def urls(self) -> list[str]:
        """The URL of each node, in order."""
        return [node.url for node in self.nodes]

    async def start(self) -> None:
        """Start every node that is not running, and wait until all of them see each other."""
        first, *_ = self.nodes
        if not (first.folder / "data").exists():
            await first.start()
        # Together: a node that was stopped before others waits for them.
        await asyncio.gather(*(node.start() for node in self.nodes if not node.running))
        await self._joined()

    async def repair(self) -> None:
        """Make every node serve again, as `Node.repair` does."""
        for node in self.nodes:
            node.resume()
        await self.start()
        await asyncio.gather(*(node.repair() for node in self.nodes))

    async def leader(self, queue: str, vhost: str = "/") -> Node:
        """Wait until a running node leads a quorum queue; return that node."""
        serving = {node.name: node for node in self.nodes if node.running and not node.paused}
        asked = next(iter(serving.values()))
        async with asyncio.timeout(START_LIMIT):
            while True:
                rows = await asked.ctl("list_queues", "--vhost", vhost, "--no-table-headers", "name", "leader")
                leaders = dict(line.split("\t") for line in rows.splitlines())
                # During an election the dead leader is still named, or the queue is missing.
                if (leader := leaders.get(queue, "")) in serving:
                    return serving[leader]

    async def replicated(self, queue: str) -> None:
        """Wait until every node takes part in a quorum queue, so that it survives the loss of any one."""
        everybody = {node.name for node in self.nodes}
        async with asyncio.timeout(START_LIMIT):
            while True:
                rows = await self.nodes[0].ctl("list_queues", "--no-table-headers", "name", "online")
                row = next((row for row in rows.splitlines() if row.startswith(f"{queue}\t")), "")
                if everybody <= set(_NODE_NAMES.findall(row)):
                    return
                await asyncio.sleep(POLL_INTERVAL)

    def close(self) -> None:
        """Kill every node and remove their folder."""
        self.host.close()

    async def _joined(self) -> None:
        everybody = {node.name for node in self.nodes}
        async with asyncio.timeout(START_LIMIT):
            for node in self.nodes:
                while set(_NODE_NAMES.findall(await node.ctl("eval", "rabbit_nodes:all_running()."))) != everybody:
                    await asyncio.sleep(POLL_INTERVAL)
