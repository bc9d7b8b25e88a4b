"""Every address of a name is reached, whatever is behind the others, and a failed attempt says why."""

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

import sprockets_amqp as amqp
from sprockets_amqp import State
from sprockets_amqp.cli.steps import check_node
from sprockets_amqp.urls import node_parameters
from sprockets_amqp.wire import addresses, tcp
from sprockets_amqp.wire.addresses import Address, Unreachable, Won, race
from tests.support.addresses import NAME, Addresses
from tests.support.command import run
from tests.support.scripted import ScriptedBroker
from tests.support.waiting import until
from tools.rabbitmq import free_port

QUICK: Final[dict[str, Any]] = {"reconnect_delay": 0.1, "max_reconnect_delay": 0.1, "connection_attempts": 1}


@pytest.fixture
async def name(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Addresses]:
    """A name whose addresses the test makes."""
    async with Addresses(monkeypatch, free_port()) as made:
        yield made


@pytest.fixture
async def rabbit() -> AsyncIterator[ScriptedBroker]:
    """What is behind the good addresses."""
    async with ScriptedBroker() as broker:
        yield broker


async def ready(url: str, **settings: Any) -> list[str]:
    """Make a client, and return the reasons of its changes until it is ready, which it is soon."""
    client = amqp.Client(url, **{**QUICK, **settings})
    try:
        await client.wait_for(State.READY, 20)
        return [change.reason for change in client.history if change.reason]
    finally:
        await client.shutdown(1)


# Addresses that do not accept


@pytest.mark.parametrize("holes", [1, 2, 5])
async def test_black_holes_before_the_good_address_cost_a_moment(
    name: Addresses, rabbit: ScriptedBroker, holes: int
) -> None:
    """The next address is tried beside them: a single attempt reaches the good one, long before any of them fails."""
    for _ in range(holes):
        name.black_hole()
    await name.accepts(to=rabbit.port)
    assert await ready(name.url()) == []
    assert name.looked_up == 1


async def test_of_two_nodes_each_reaches_its_good_address(name: Addresses, rabbit: ScriptedBroker) -> None:
    """Where several nodes are tried once a round, too."""
    name.black_hole().black_hole()
    await name.accepts(to=rabbit.port)
    dead = f"127.0.0.1:{free_port()}"
    reasons = await ready(name.url().replace(NAME, f"{dead},{NAME}"))
    assert set(reasons) <= {f"TCP to {dead}: Connection refused"}


async def test_more_addresses_than_an_attempt_has_time_for_are_reached_by_the_next(
    name: Addresses, rabbit: ScriptedBroker
) -> None:
    """An attempt begins behind the addresses that the one before has tried."""
    for _ in range(6):
        name.black_hole()
    await name.accepts(to=rabbit.port)
    reasons = await ready(name.url("stack_timeout=0.6"))
    assert reasons[0] == f"TCP to {NAME}:{name.port}: 127.0.0.2, 127.0.0.3, 127.0.0.4 (no answer within 0.6 s)"


async def test_addresses_that_refuse_cost_nothing(name: Addresses, rabbit: ScriptedBroker) -> None:
    """The next one is tried at once."""
    for _ in range(20):
        name.refuses()
    await name.accepts(to=rabbit.port)
    assert await ready(name.url("stack_timeout=2")) == []


async def test_an_attempt_that_reaches_none_names_them_all(name: Addresses) -> None:
    """With what is wrong with each; a name may have hundreds, of which the first are named."""
    name.refuses().refuses().black_hole()
    client = amqp.Client(name.url("socket_timeout=0.3"), **QUICK)
    await client.wait_for(State.CLOSED, 20)
    refused, silent = "127.0.0.2, 127.0.0.3 (Connection refused)", "127.0.0.4 (no answer within 0.3 s)"
    assert client.history[-1].reason == f"TCP to {NAME}:{name.port}: {refused}, {silent}"
    await client.shutdown()
    for _ in range(30):
        name.refuses()
    client = amqp.Client(name.url("socket_timeout=0.3"), **QUICK)
    await client.wait_for(State.CLOSED, 20)
    assert client.history[-1].reason.endswith(", and 25 more")
    await client.shutdown()


async def test_a_name_without_addresses_is_told(name: Addresses) -> None:
    """Resolvers may return none."""
    client = amqp.Client(name.url(), **QUICK)
    await client.wait_for(State.CLOSED, 20)
    assert client.history[-1].reason == f"TCP to {NAME}:{name.port}: the name has no address"
    await client.shutdown()


# Addresses that accept, and are no RabbitMQ


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("hangs_up", [True, False], ids=["hangs up", "stays silent"])
async def test_a_load_balancer_without_servers_is_left(
    name: Addresses, rabbit: ScriptedBroker, hangs_up: bool, attempts: int
) -> None:
    """Its address accepts, and that is all: the next attempt begins at the address behind it."""
    for _ in range(2):
        await name.accepts(hangs_up=hangs_up)
    await name.accepts(to=rabbit.port)
    reasons = await ready(name.url("stack_timeout=0.5"), connection_attempts=attempts)
    why = "the other side closed the connection" if hangs_up else "no answer within 0.5 s"
    assert reasons == [f"login at {NAME}:{name.port} (127.0.0.{number}): {why}" for number in (2, 3)]
    assert name.accepted == ["127.0.0.2", "127.0.0.3", "127.0.0.4"]


async def test_one_whose_tls_fails_is_left(name: Addresses, rabbit: ScriptedBroker) -> None:
    """Within the attempts on a single node; it never falls back to plain text."""
    await name.accepts(hangs_up=True)
    await name.accepts(to=rabbit.port)
    client = amqp.Client(name.url("retry_delay=0.01&stack_timeout=2", "amqps"), **{**QUICK, "connection_attempts": 2})
    await client.wait_for(State.CLOSED, 20)
    assert name.accepted == ["127.0.0.2", "127.0.0.3"]
    assert client.history[-1].reason.startswith(f"TLS at {NAME}:{name.port} (127.0.0.3): ")
    await client.shutdown()


async def test_all_of_them_have_their_turn_again(name: Addresses) -> None:
    """After the last comes the first."""
    for _ in range(2):
        await name.accepts(hangs_up=True)
    client = amqp.Client(name.url(), **QUICK)
    await until(lambda: len(name.accepted) >= 5)
    assert name.accepted[:5] == ["127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.3", "127.0.0.2"]
    await client.shutdown()


async def test_a_name_whose_addresses_change_is_reached(name: Addresses, rabbit: ScriptedBroker) -> None:
    """It is looked up anew for each attempt, also for those on one node."""
    name.refuses()
    client = amqp.Client(name.url("retry_delay=0.05"), **{**QUICK, "connection_attempts": 1000})
    await until(lambda: name.looked_up >= 3)
    name.listed.clear()
    name.refuses("127.0.0.9")
    await name.accepts(to=rabbit.port)
    await client.wait_for(State.READY, 20)
    assert [change.dest for change in client.history] == [State.CONNECTING, State.READY]
    await client.shutdown(1)


# What is forbidden, and what goes wrong

FORBIDDEN = """
import asyncio, ctypes, json, os, struct, sys
import sprockets_amqp as amqp

def instruction(code, yes, no, value):
    return struct.pack("HBBI", code, yes, no, value)

# socket(AF_INET6, ...) fails with EAFNOSUPPORT, as with systemd's RestrictAddressFamilies=AF_INET.
number = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
rules = b"".join([
    instruction(0x20, 0, 0, 0),
    instruction(0x15, 0, 3, number),
    instruction(0x20, 0, 0, 16),
    instruction(0x15, 0, 1, 10),
    instruction(0x06, 0, 0, 0x00050000 | 97),
    instruction(0x06, 0, 0, 0x7FFF0000),
])
buffer = ctypes.create_string_buffer(rules)
program = struct.pack("HxxxxxxP", len(rules) // 8, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0, os.strerror(ctypes.get_errno())

async def main(good, bad):
    look_up = asyncio.base_events.socket.getaddrinfo
    def both(host, port, *args, **kwargs):
        return [(10, 1, 6, "", ("::1", port, 0, 0)), *look_up("127.0.0.1", port, *args, **kwargs)]
    asyncio.base_events.socket.getaddrinfo = both
    client = amqp.Client(f"amqp://localhost:{good}")
    await client.wait_for(amqp.State.READY, 5)
    reasons = [change.reason for change in client.history]
    await client.shutdown(1)
    client = amqp.Client(f"amqp://localhost:{bad}", connection_attempts=1)
    await client.wait_for(amqp.State.CLOSED, 5)
    print(json.dumps([reasons, client.history[-1].reason]))
    await client.shutdown(1)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_family_of_addresses_that_is_forbidden_is_passed_over(rabbit: ScriptedBroker) -> None:
    """Within a single attempt; and if no other address is reached, the reason is the true one."""
    bad = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FORBIDDEN, str(rabbit.port), str(bad)), stdout=subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    reasons, reason = json.loads(output)
    assert set(reasons) == {""}
    forbidden = f"::1 ({os.strerror(97)})"
    assert reason == f"TCP to localhost:{bad}: {forbidden}, 127.0.0.1 (Connection refused)"


@pytest.mark.parametrize(
    ("where", "step"),
    [
        ("look_up", "DNS"),
        ("starting_behind", "DNS"),
        ("set_socket_options", "TCP"),
        ("race", "TCP"),
        ("Stream", "login"),
    ],
)
async def test_whatever_an_attempt_raises_is_why_it_failed(
    name: Addresses, rabbit: ScriptedBroker, monkeypatch: pytest.MonkeyPatch, where: str, step: str
) -> None:
    """Not a hang, and not a traceback in the log of the loop; the next attempt is ready."""
    await name.accepts(to=rabbit.port)

    def fail(*_: object) -> None:
        raise LookupError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(tcp, where, fail)
        client = amqp.Client(name.url(), **QUICK)
        await client.wait_for(State.CLOSED, 20)
        reason = client.history[-1].reason
        assert reason.startswith(f"{step} ") and reason.endswith("LookupError: a bug"), reason
    await client.wait_for(State.READY, 20)
    await client.shutdown(1)


async def test_a_server_name_that_tls_cannot_use_is_a_failed_attempt(name: Addresses, rabbit: ScriptedBroker) -> None:
    """The settings cannot know."""
    await name.accepts(to=rabbit.port)
    context = ssl.create_default_context()
    client = amqp.Client(name.url(scheme="amqps"), tls_context=context, **QUICK)
    client.parameters.ssl_options.server_hostname = "."  # type: ignore[union-attr]
    await client.wait_for(State.CLOSED, 20)
    assert client.history[-1].reason.startswith(f"TLS at {NAME}:{name.port} (127.0.0.2): ")
    await client.shutdown()


async def test_stopping_at_any_time_leaves_nothing(name: Addresses, rabbit: ScriptedBroker) -> None:
    """No socket, no task; conftest looks for sockets."""
    name.black_hole().black_hole()
    await name.accepts()
    for wait in (0, 0.001, 0.01, 0.1, 0.3, 0.6):
        client = amqp.Client(name.url(), **QUICK)
        await asyncio.sleep(wait)
        assert client.connecting
        await client.shutdown(1)
        assert [task for task in asyncio.all_tasks() if "wire" in str(task.get_coro())] == []


async def test_a_task_that_the_application_cancels_is_a_failed_attempt(name: Addresses, rabbit: ScriptedBroker) -> None:
    """Some cancel every task that there is; the next attempt is ready."""
    name.black_hole()
    client = amqp.Client(name.url(), **QUICK)
    await until(lambda: client.connection is not None and client.connection.reached is not None)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await client.wait_for(State.CLOSED, 20)
    closed = "the application has cancelled the task that connects"
    assert client.history[-1].reason == f"TCP to {NAME}:{name.port}: {closed}"
    await name.accepts(to=rabbit.port)
    await client.wait_for(State.READY, 20)
    await client.shutdown(1)


# The race


def address(number: int) -> Address:
    """Make an address."""
    return Address(socket.AF_INET, (f"10.0.0.{number}", 5672))


async def raced(delays: dict[int, float | None]) -> tuple[Any, list[int]]:
    """Race to addresses that accept after so many seconds, or fail at once (None): who won, and who was tried?"""
    tried: list[int] = []

    async def connect(to: Address) -> Any:
        number = int(to.host.rpartition(".")[2])
        tried.append(number)
        delay = delays[number]
        if delay is None:
            raise ConnectionRefusedError(111, "refused")
        await asyncio.sleep(delay)
        sock = socket.socket()
        opened.append(sock)
        return sock

    opened: list[socket.socket] = []
    try:
        won: Any = await race([address(number) for number in delays], connect, asyncio.get_running_loop())
    except Unreachable as error:
        won = error
    for sock in opened:
        assert (sock.fileno() < 0) is not (isinstance(won, Won) and sock is won.socket)
        sock.close()
    return won, tried


async def test_the_first_that_accepts_wins_and_the_others_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they were still connecting, or had connected in the same moment."""
    monkeypatch.setattr(addresses, "HEAD_START", 0.02)
    won, tried = await raced({1: 5, 2: 5, 3: 0.01, 4: 0})
    assert (won.address, tried) == (address(3), [1, 2, 3])
    assert {each.host for each, _ in won.failures} == {"10.0.0.1", "10.0.0.2"}
    won, tried = await raced({1: None, 2: None, 3: 0, 4: 0})
    assert (won.address, tried) == (address(3), [1, 2, 3])
    won, tried = await raced({1: 0.05, 2: 0.03, 3: 0.01})
    assert won.address in {address(1), address(2), address(3)}


async def test_if_all_fail_each_says_why() -> None:
    """In the order in which they failed."""
    failed, tried = await raced({1: None, 2: None})
    assert isinstance(failed, Unreachable)
    assert ([each for each, _ in failed.failures], tried) == ([address(1), address(2)], [1, 2])
    failed, tried = await raced({})
    assert (failed.failures, tried) == ([], [])


async def test_a_connect_that_raises_anything_is_a_failure_of_its_address() -> None:
    """Also what is no Exception: the others go on."""

    async def connect(to: Address) -> Any:
        if to == address(1):
            raise asyncio.CancelledError
        if to == address(2):
            raise GeneratorExit
        return "a socket"

    won = await race([address(number) for number in (1, 2, 3)], connect, asyncio.get_running_loop())
    assert (won.address, [type(error) for _, error in won.failures]) == (
        address(3),
        [asyncio.CancelledError, GeneratorExit],
    )


async def test_the_limit_of_an_attempt_names_each_address_with_its_own_reason(name: Addresses) -> None:
    """Those that refused did so; the others have not answered."""
    name.refuses().black_hole()
    client = amqp.Client(name.url("stack_timeout=0.5"), **QUICK)
    await client.wait_for(State.CLOSED, 20)
    told = "127.0.0.2 (Connection refused), 127.0.0.3 (no answer within 0.5 s)"
    assert client.history[-1].reason == f"TCP to {NAME}:{name.port}: {told}"
    await client.shutdown()


async def test_an_address_that_opens_no_channel_is_left(name: Addresses, rabbit: ScriptedBroker) -> None:
    """It takes the login, and no more: the next attempt begins behind it."""
    async with ScriptedBroker() as half:
        half.answers["Channel.Open"] = None
        await name.accepts(to=half.port)
        await name.accepts(to=rabbit.port)
        reasons = await ready(name.url("stack_timeout=0.5"))
    assert reasons == [f"{NAME}:{name.port} has not opened a channel within 0.5 s"]
    assert name.accepted == ["127.0.0.2", "127.0.0.3"]


@pytest.mark.parametrize("how", ["shutdown", "cancel"])
async def test_stopping_while_tls_shakes_hands_closes_the_connection(name: Addresses, how: str) -> None:
    """In each turn of the loop: a silent server is told that nobody waits for it."""
    await name.accepts()
    for turns in (0, 1, 2, 3, 4, 5, 8, 13, 40):
        client = amqp.Client(name.url(scheme="amqps"), tls_context=ssl.create_default_context(), **QUICK)
        count = len(name.accepted)
        for _ in range(turns):
            await asyncio.sleep(0)
        if how == "cancel":
            for task in asyncio.all_tasks():
                if "_Opening" in repr(task.get_coro()):
                    task.cancel()
        await client.shutdown(1)
        await until(lambda: name.open == 0)
        assert len(name.accepted) <= count + 1


# What check tells


async def test_check_tells_address_by_address(name: Addresses, rabbit: ScriptedBroker, monkeypatch: Any) -> None:
    """It gets as far as a client, and shows what a client passes over."""
    rabbit.answers["Tx.Select"] = None
    await name.accepts(hangs_up=True)
    await name.accepts(to=rabbit.port)
    [parameters] = node_parameters(name.url("channel_max=1"))
    steps = [(step.name, step.ok, step.passed_over) async for step in check_node(parameters, 2)]
    assert steps[:3] == [("DNS", True, False), ("TCP", True, False), ("login", False, True)]
    assert steps[3:7] == [(each, True, False) for each in ("DNS", "TCP", "login", "vhost")]
    assert all(ok for _, ok, _ in steps[3:])
    assert name.accepted == ["127.0.0.2", "127.0.0.3"]


async def test_check_names_the_last_failure_if_no_address_works(name: Addresses) -> None:
    """Each address is tried once."""
    for _ in range(3):
        await name.accepts(hangs_up=True)
    [parameters] = node_parameters(name.url())
    failed = [step async for step in check_node(parameters, 2) if not step.ok]
    assert [(step.name, step.passed_over) for step in failed] == [("login", True), ("login", True), ("login", False)]
    assert [step.detail.partition(":")[0] for step in failed] == name.accepted == [f"127.0.0.{n}" for n in (2, 3, 4)]


@pytest.mark.parametrize("host", ["a..b", ".svc", "x" * 64])
async def test_check_tells_of_what_is_no_name(host: str) -> None:
    """At once, without a traceback, and without blaming the name server."""
    result = await run("check", f"amqp://guest:guest@{host}")
    assert (result.status, result.err) == (1, "")
    assert "DNS       FAILED" in result.out and "is not a host name" in result.out


@pytest.mark.parametrize("step", ["login", "vhost"])
async def test_check_names_the_step_that_takes_too_long(name: Addresses, rabbit: ScriptedBroker, step: str) -> None:
    """RabbitMQ checks the vhost only once it has accepted the user."""
    rabbit.answers["Connection.StartOk" if step == "login" else "Connection.Open"] = None
    await name.accepts(to=rabbit.port)
    [parameters] = node_parameters(name.url())
    *passed, failed = [step async for step in check_node(parameters, 0.3)]
    assert (failed.name, failed.ok, failed.detail) == (step, False, "no answer within 0.3 s")
    assert [each.name for each in passed] == ["DNS", "TCP", "login"][: 2 + (step == "vhost")]


async def test_check_comes_to_an_end_where_no_other_address_accepts(name: Addresses) -> None:
    """The one that hangs up wins each race against those that never answer."""
    name.black_hole()
    await name.accepts(hangs_up=True)
    [parameters] = node_parameters(name.url())
    failed = [step async for step in check_node(parameters, 2) if not step.ok]
    assert [(step.name, step.passed_over) for step in failed] == [("login", True), ("login", False)]
    assert name.accepted == ["127.0.0.3", "127.0.0.3"]
