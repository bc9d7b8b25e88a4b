"""What the tests stand on does what it says, on real nodes."""

from __future__ import annotations

import asyncio
import gc
import os
import runpy
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pika
import pytest
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker

from tests.support import leaks
from tests.support.certificates import Authority
from tests.support.consume import Queue, declare_queue, on_channel
from tests.support.memory import Broker
from tests.support.proxy import Proxy
from tests.support.waiting import LIMIT, until
from tools import rabbitmq
from tools.documents import ROOT
from tools.rabbitmq import PORTS, Cluster, Host, Node, NodeFailed, free_port

if TYPE_CHECKING:
    from pika.adapters.blocking_connection import BlockingChannel


async def publish(queue: Queue, *bodies: bytes, url: str | None = None) -> None:
    """Publish confirmed messages with plain pika, their ids their numbers."""

    def send(channel: BlockingChannel) -> None:
        channel.confirm_delivery()
        for number, body in enumerate(bodies):
            properties = pika.BasicProperties(message_id=str(number), delivery_mode=2)
            channel.basic_publish(queue.exchange, queue.routing_key, body, properties, mandatory=True)

    await on_channel(url or queue.url, send)


def processes(folder: Path) -> list[str]:
    """Return the command lines of all processes whose HOME is a node's folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"HOME={folder}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_text())
        except OSError:
            continue
    return found


async def is_gone(folder: Path) -> bool:
    """Wait until neither the folder nor any process of it is left."""
    await until(lambda: not folder.exists() and not processes(folder))
    return True


async def test_a_node_keeps_confirmed_messages_through_kill_and_restart(node: Node) -> None:
    """What a node has confirmed is read back after SIGKILL and a new start on the same port."""
    queue = await declare_queue(node.url)
    await publish(queue, b"a", b"b")
    port = node.port
    await node.kill()
    assert not node.running
    with pytest.raises(AMQPConnectionError):
        await queue.depth()
    await node.start()
    assert node.port == port
    assert await queue.depth() == 2
    assert [message.body for message in await queue.messages()] == [b"a", b"b"]
    assert await queue.depth() == 0


async def test_a_node_stops_in_order_and_starts_again(node: Node) -> None:
    """restart() gives the node another process, and its log tells that it closed down."""
    before = node.pid
    await node.restart()
    assert node.pid not in (None, before)
    assert "SIGTERM received - shutting down" in node.log


async def test_a_paused_node_accepts_and_says_nothing(node: Node) -> None:
    """A frozen node's port still accepts connections; its greeting comes when it goes on."""
    node.pause()
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(b"AMQP\x00\x00\x09\x01")
    greeting = asyncio.ensure_future(reader.readexactly(1))
    await until(lambda: Path(f"/proc/{node.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
    assert not greeting.done()
    node.resume()
    assert await asyncio.wait_for(greeting, LIMIT) == b"\x01"
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    "fault",
    [
        ("rabbitmqctl", "stop_app"),
        ("rabbitmqctl", "suspend_listeners"),
        ("rabbitmqctl", "set_vm_memory_high_watermark", "0"),
        ("rabbitmqctl", "set_disk_free_limit", "9000GB"),
        ("rabbitmq-upgrade", "drain"),
    ],
    ids=lambda fault: fault[1],
)
async def test_repair_undoes_what_a_test_did(node: Node, fault: tuple[str, ...]) -> None:
    """After repair() a node accepts connections and confirms messages, and has no alarm."""
    tool, *arguments = fault
    await node.ctl(*arguments, tool=tool)
    await node.repair()
    queue = await declare_queue(node.url)
    await publish(queue, b"")
    assert (await node.ctl("eval", "rabbit_alarm:get_alarms().")).strip() == "[]"


@pytest.mark.parametrize("end", ["kill", "pause", "starve"])
async def test_repair_brings_back_a_node_that_is_dead_frozen_or_starved(node: Node, end: str) -> None:
    """repair() starts what was killed, lets go on what was paused, and starts anew what had no descriptors."""
    if end == "kill":
        await node.kill()
    elif end == "pause":
        node.pause()
    else:
        async with node.without_descriptors():
            pass
    await node.repair()
    await publish(await declare_queue(node.url), b"")


async def test_a_failed_command_says_what_it_was(broker: Node) -> None:
    """ctl() raises with the tool, its arguments and what it printed."""
    with pytest.raises(NodeFailed, match="rabbitmqctl delete_vhost nowhere"):
        await broker.ctl("delete_vhost", "nowhere")


async def test_a_user_of_another_vhost_can_be_added(node: Node) -> None:
    """add_user() returns a URL whose user may declare and publish there."""
    queue = await declare_queue(await node.add_user("somebody", vhost="a/vhost"))
    await publish(queue, b"")
    assert await queue.message_ids() == ["0"]


async def test_two_nodes_run_side_by_side_and_leave_nothing(broker: Node) -> None:
    """A second node has a process, port and folder of its own, and all of it is gone when it is closed."""
    async with Node() as other:
        assert (other.pid, other.port) != (broker.pid, broker.port)
        queue = await declare_queue(other.url)
        with pytest.raises(ChannelClosedByBroker, match="NOT_FOUND"):
            await Queue(broker.url, queue.exchange, queue.routing_key, queue.name).depth()
        assert len(processes(other.host.folder)) > 1
    assert await is_gone(other.host.folder)
    assert broker.running


async def test_a_node_listens_on_the_loopback_only(node: Node) -> None:
    """Neither a node's port, nor its distribution's, nor its epmd's is open on any address but 127.0.0.1."""
    for port in (node.port, node.distribution_port, node.host.epmd_port):
        socket.create_connection(("127.0.0.1", port), LIMIT).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), LIMIT)


@pytest.mark.usefixtures("rabbitmq")
async def test_a_node_that_cannot_start_says_why() -> None:
    """A node that ends while it starts raises with what it logged, and leaves nothing."""
    node = Node(config={"no.such.setting": "1"})
    with pytest.raises(NodeFailed, match=r"no\.such\.setting"):
        await node.start()
    node.close()
    assert await is_gone(node.host.folder)


@pytest.mark.usefixtures("rabbitmq")
async def test_a_node_dies_with_the_process_that_started_it() -> None:
    """Even SIGKILL to the tests leaves no node, no epmd and no folder behind."""
    script = """
        import asyncio, sys
        from tools.rabbitmq import Node
        node = Node()
        asyncio.run(node.start())
        print(node.host.folder, flush=True)
        sys.stdin.read()
    """
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(script), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    folder = Path((await owner.stdout.readline()).decode().strip())
    assert any("beam" in command for command in processes(folder))
    owner.send_signal(signal.SIGKILL)
    await owner.communicate()
    assert await is_gone(folder)


@pytest.mark.usefixtures("rabbitmq")
@pytest.mark.parametrize("end", ["cancel", "close"])
async def test_a_command_under_way_ends_with_its_caller_and_its_node(end: str) -> None:
    """Nothing is left of a command that is cancelled, nor of one whose node is closed meanwhile."""
    async with Node() as node:
        folder = node.host.folder
        command = asyncio.create_task(node.ctl("eval", "timer:sleep(600000)."))
        await until(lambda: any("rabbitmqctl" in process for process in processes(folder)))
        if end == "cancel":
            command.cancel()
            await until(lambda: not any("rabbitmqctl" in process for process in processes(folder)))
        else:
            node.close()
        with pytest.raises((NodeFailed, asyncio.CancelledError)):
            await command
    assert await is_gone(folder)


@pytest.mark.usefixtures("rabbitmq")
async def test_a_command_whose_caller_is_cancelled_while_it_starts_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process is there before asyncio has handed it over."""
    start, handed_over = asyncio.create_subprocess_exec, asyncio.Event()

    async def start_slowly(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*arguments, **options)
        await handed_over.wait()
        return process

    async with Node() as node:
        folder = node.host.folder
        monkeypatch.setattr(asyncio, "create_subprocess_exec", start_slowly)
        command = asyncio.create_task(node.ctl("eval", "timer:sleep(600000)."))
        await until(lambda: any("rabbitmqctl" in process for process in processes(folder)))
        command.cancel()
        handed_over.set()
        with pytest.raises(asyncio.CancelledError):
            await command
        await until(lambda: not any("rabbitmqctl" in process for process in processes(folder)))
        monkeypatch.undo()


@pytest.mark.usefixtures("rabbitmq")
async def test_tls_is_verified_against_the_tests_own_authority(tmp_path: Path) -> None:
    """A client that trusts the authority connects by TLS; one that does not is refused."""
    authority = Authority(tmp_path)
    async with Node(tls=authority.server()) as node:
        for context, outcome in ((authority.context(), "open"), (Authority(tmp_path).context(), "refused")):
            parameters = pika.ConnectionParameters(
                "127.0.0.1", node.tls_port or 0, ssl_options=pika.SSLOptions(context, "127.0.0.1")
            )
            assert await asyncio.to_thread(_outcome, parameters) == outcome


def _outcome(parameters: pika.ConnectionParameters) -> str:
    try:
        pika.BlockingConnection(parameters).close()
    except ssl.SSLCertVerificationError:
        return "refused"
    return "open"


async def test_a_cluster_replicates_and_survives_its_leader(cluster: Cluster) -> None:
    """A quorum queue keeps its messages when the node that leads it is killed, and repair() brings that node back."""
    queue = await declare_queue(cluster.urls[0], arguments={"x-queue-type": "quorum"})
    await publish(queue, b"a")
    leader = await cluster.leader(queue.name)
    await leader.kill()
    survivor = next(node for node in cluster.nodes if node.running)
    assert await cluster.leader(queue.name) is not leader
    await publish(queue, b"b", url=survivor.url)
    await cluster.repair()
    assert [message.body for message in await queue.messages()] == [b"a", b"b"]


def test_ports_are_free_and_never_given_twice() -> None:
    """free_port() keeps to its range and does not repeat itself, even while nobody listens yet."""
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert set(ports) <= set(PORTS)
    assert not set(PORTS) & {*range(35672, 35683)}


def test_workers_have_ports_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two of pytest-xdist's workers hand out the same port, and each has enough of them."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "4")
    handed_out: set[int] = set()
    for number in range(4):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{number}")
        ports = set(runpy.run_path(rabbitmq.__file__)["PORTS"])
        assert len(ports) == 3000
        assert not ports & handed_out
        handed_out |= ports


@pytest.mark.usefixtures("rabbitmq")
async def test_a_host_can_be_closed_twice() -> None:
    """The second close() of a host finds nothing to do."""
    host = Host()
    host.close()
    host.close()
    assert await is_gone(host.folder)


async def test_a_queue_is_read_back_whole_and_in_order(queue: Queue) -> None:
    """messages() takes everything out, with ids and properties, and leaves the queue empty."""
    bodies = [str(number).encode() for number in range(500)]
    await publish(queue, *bodies)
    assert await queue.depth() == 500
    messages = await queue.messages()
    assert [message.body for message in messages] == bodies
    assert [message.message_id for message in messages] == [str(number) for number in range(500)]
    assert {(message.exchange, message.routing_key) for message in messages} == {(queue.exchange, queue.routing_key)}
    assert await queue.messages() == []


async def test_the_proxy_passes_everything_until_told_otherwise(broker: Node) -> None:
    """A connection by way of the proxy is like one to the node, and is counted."""
    async with Proxy(broker.port) as proxy:
        queue = await declare_queue(proxy.url())
        await publish(queue, b"x" * 300_000)
        assert [message.body for message in await queue.messages()] == [b"x" * 300_000]
        assert proxy.accepted == 3
        proxy.refuse()
        with pytest.raises(AMQPConnectionError):
            await queue.depth()
        await proxy.listen()
        assert await queue.depth() == 0
        assert proxy.accepted == 4


async def test_what_is_left_behind_is_found() -> None:
    """no_leaks() names a socket, a thread, a task and a timer that the block leaves, and passes when they are gone."""
    loop = asyncio.get_running_loop()
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="left-thread")
    with pytest.raises(leaks.Leaked) as caught:  # noqa: PT012 - each of these is to be found
        async with leaks.no_leaks(grace=0):
            thread.start()
            left_socket = socket.socket()
            task = asyncio.create_task(asyncio.sleep(1000), name="left-task")
            timer = loop.call_later(1000, print)
    # uvloop does not tell of its timers.
    of_timer = ["print"] if hasattr(loop, "_scheduled") else []
    for name in (f"descriptor {left_socket.fileno()} -> socket:", "left-thread", "left-task", *of_timer):
        assert name in str(caught.value)
    async with leaks.no_leaks():
        left_socket.close()
        release.set()
        thread.join()
        task.cancel()
        timer.cancel()


async def test_what_goes_away_in_time_is_no_leak() -> None:
    """no_leaks() waits for what is just ending."""
    async with leaks.no_leaks():
        asyncio.get_running_loop().call_later(0.05, int)


async def test_an_error_in_the_block_is_not_hidden() -> None:
    """What the block raises comes out, whatever it leaves."""
    with pytest.raises(ZeroDivisionError):
        async with leaks.no_leaks():
            raise ZeroDivisionError


def test_what_is_left_when_a_broker_in_memory_is_closed_reaches_for_nothing_real(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that has still to connect when a test has failed looks up no name."""
    looked_up: list[object] = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *query: looked_up.append(query))
    broker = Broker().install()
    broker.client()
    broker.close()
    for thread in threading.enumerate():
        if thread.name == "sprockets_amqp-getaddrinfo":
            thread.join()
    assert looked_up == []


def test_a_future_that_an_earlier_test_left_is_not_in_the_log_of_a_test(caplog: pytest.LogCaptureFixture) -> None:
    """It is collected at any time, and tests count what was logged."""
    loop = asyncio.new_event_loop()
    loop.create_future().set_exception(ValueError("of an earlier test"))
    gc.collect()
    loop.call_exception_handler({"message": "of this one"})
    loop.close()
    assert [record.getMessage() for record in caplog.records] == ["of this one"]


def test_each_worker_collects_the_same_tests_in_the_same_order() -> None:
    """Whatever the seed of its hashes: parameters do not come from sets as they are."""
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "--collect-only", "-q", "tests"]
    seeded = [{**os.environ, "PYTHONHASHSEED": seed} for seed in ("1", "2")]
    workers = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for environment in seeded
    ]
    first, second = ([line for line in worker.communicate()[0].splitlines() if "::" in line] for worker in workers)
    assert len(first) > 2000
    assert first == second


@pytest.mark.xdist_group("kept together")
def test_groups_are_kept_together(request: pytest.FixtureRequest) -> None:
    """What is dear to start or to explore, one worker starts or explores for all tests of its group."""
    if os.environ.get("PYTEST_XDIST_WORKER") and request.config.getvalue("loadgroup"):
        assert request.node.nodeid.endswith("@kept together")
