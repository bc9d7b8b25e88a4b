"""`check` tells which step of connecting fails, and what to do; each cause is a real one."""

import datetime as dt
import re
import socket
from pathlib import Path
from urllib.parse import quote

import pytest
from pamqp import commands

from tests.support.certificates import Authority
from tests.support.command import Result, run
from tests.support.scripted import ScriptedBroker
from tools.rabbitmq import Node, free_port

STEPS = ["DNS", "TCP", "TLS", "login", "vhost", "channel", "confirms", "publish"]


def steps(result: Result) -> dict[str, str]:
    """What each step ended with; no password and no traceback is ever shown."""
    assert "secret" not in result.out + result.err and "guest:guest" not in result.out + result.err
    assert result.err == ""
    return dict(re.findall(r"^  (\w+) +(ok|FAILED)  ", result.out, re.MULTILINE))


def fails_at(result: Result, step: str, advice: str, tls: bool = False) -> None:
    """Every step before this one works, none after it is taken, and the advice is given."""
    taken = [name for name in STEPS[: STEPS.index(step)] if tls or name != "TLS"]
    assert steps(result) == {**dict.fromkeys(taken, "ok"), step: "FAILED"}
    assert result.status == 1
    assert advice in result.out
    assert result.out.endswith("1 of 1 nodes failed\n")


async def test_every_step_of_a_good_url_works(broker: Node) -> None:
    """The exit status is 0, and what was found is told."""
    result = await run("check", broker.url)
    assert steps(result) == dict.fromkeys((name for name in STEPS if name != "TLS"), "ok")
    assert result.status == 0
    assert "offered by RabbitMQ" in result.out and result.out.endswith("all is fine\n")


@pytest.mark.parametrize("command", [("set_vm_memory_high_watermark", "0"), ("set_disk_free_limit", "9000GB")])
async def test_an_alarm_is_found(node: Node, command: tuple[str, str]) -> None:
    """An idle connection would not hear of it, and a client of the application's neither."""
    await node.ctl(*command)
    result = await run("check", node.url)
    fails_at(result, "publish", "free memory or disk space on the node")
    assert re.search(r"publish   FAILED  RabbitMQ blocks publishing: low on (memory|disk)", result.out)


async def test_a_user_who_may_not_write_anywhere_passes(broker: Node) -> None:
    """A refusal is an answer; so is none, if RabbitMQ or the user's limit allows no second channel."""
    url = await broker.add_user("mute")
    await broker.ctl("set_permissions", "mute", "", "", "")
    assert (await run("check", url)).status == 0
    await broker.ctl("set_user_limits", "mute", '{"max-channels": 1}')
    limited = await run("check", url)
    assert (limited.status, "publish   ok      not tried: (530) NOT_ALLOWED" in limited.out) == (0, True)
    narrow = await run("check", f"{broker.url}?channel_max=1")
    assert (narrow.status, "publish   ok      not tried: only one channel" in narrow.out) == (0, True)
    await broker.ctl("delete_user", "mute")


async def test_a_server_without_transactions_passes() -> None:
    """Proxies and other brokers close the connection over tx.select (540): the step is not tried then."""
    async with ScriptedBroker() as scripted:
        scripted.answers["Tx.Select"] = commands.Connection.Close(540, "NOT_IMPLEMENTED", 90, 10)
        result = await run("check", scripted.url())
    assert (result.status, "publish   ok      not tried: (540) NOT_IMPLEMENTED" in result.out) == (0, True), result.out


async def test_the_url_comes_from_the_environment_unless_it_is_given(broker: Node) -> None:
    """AMQP_URL comes before RABBITMQ_URL, as in an application."""
    nowhere = f"amqp://guest:guest@127.0.0.1:{free_port()}"
    assert (await run("check", AMQP_URL=broker.url, RABBITMQ_URL=nowhere)).status == 0
    assert (await run("check", broker.url, AMQP_URL=nowhere)).status == 0
    assert (await run("check", AMQP_URL=nowhere, RABBITMQ_URL=broker.url)).status == 1


async def test_each_of_several_nodes_is_checked(broker: Node) -> None:
    """One that is gone does not hide that another is there, and fails the check."""
    port = free_port()
    result = await run("check", f"{broker.url},amqp://guest:guest@127.0.0.1:{port}/%2f")
    assert result.status == 1
    first, second = re.split(rf"^amqp://127.0.0.1:{port}$", result.out, flags=re.MULTILINE)
    assert f"\namqp://127.0.0.1:{broker.port}\n" in first and "confirms  ok" in first
    assert "TCP       FAILED" in second and second.endswith("1 of 2 nodes failed\n")


async def test_a_wrong_password_fails_the_login(broker: Node) -> None:
    """RabbitMQ's words are passed on; the password is not."""
    result = await run("check", broker.url_for(password="secret"), "-vvv")
    assert "secret" not in result.err
    fails_at(Result(result.status, result.out, ""), "login", "wrong user or password")
    assert "ACCESS_REFUSED" in result.out


async def test_a_missing_vhost_is_not_taken_for_a_wrong_password(broker: Node) -> None:
    """The login is told to have worked."""
    fails_at(await run("check", broker.url_for(vhost="nowhere")), "vhost", "rabbitmqctl add_vhost 'nowhere'")


async def test_a_user_without_permission_is_not_taken_for_a_missing_vhost(broker: Node) -> None:
    """The command that grants it is shown."""
    await broker.ctl("add_user", "stranger", "secret")
    result = await run("check", broker.url_for("stranger", "secret"))
    fails_at(result, "vhost", "rabbitmqctl set_permissions --vhost '/' 'stranger'")


async def test_a_vhost_that_is_full_is_told(broker: Node) -> None:
    """A limit on connections reads otherwise than a missing permission."""
    url = await broker.add_user("crowd", vhost="crowded")
    await broker.ctl("set_vhost_limits", "--vhost", "crowded", '{"max-connections": 0}')
    fails_at(await run("check", url), "vhost", "a limit on connections is reached")


async def test_a_user_who_may_open_no_channel_is_told(broker: Node) -> None:
    """RabbitMQ closes the connection over it."""
    url = await broker.add_user("silent")
    await broker.ctl("set_user_limits", "silent", '{"max-channels": 0}')
    fails_at(await run("check", url), "channel", "limit on the user's channels")


async def test_a_port_that_nobody_listens_on_is_refused() -> None:
    """The usual ports are named."""
    fails_at(await run("check", f"amqp://guest:guest@127.0.0.1:{free_port()}"), "TCP", "nothing listens on port")


async def test_a_name_that_does_not_exist_fails_dns() -> None:
    """The host is named."""
    fails_at(await run("check", "amqp://guest:guest@no-such-host.invalid"), "DNS", "'no-such-host.invalid'")


async def test_a_port_that_says_nothing_is_given_up_after_the_limit() -> None:
    """As a frozen broker's: the system accepts, nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://guest:guest@127.0.0.1:{silent.getsockname()[1]}"
        result = await run("check", url, "--limit", "0.5")
    fails_at(result, "login", "accepts connections but does not answer")
    assert "no answer within 0.5 s" in result.out


async def test_a_plain_port_is_no_tls_port(broker: Node) -> None:
    """It is told at the TLS step."""
    url = broker.url.replace("amqp://", "amqps://")
    fails_at(await run("check", url), "TLS", "this port does not speak TLS", tls=True)


def secure_url(node: Node, authority: Path, *, host: str = "localhost", client: bool = True) -> str:
    """A URL of the TLS listener that trusts an authority, with the client's certificate or without."""
    options = {"ca_certs": str(authority)}
    if client:
        options["certfile"] = str(authority.with_name("client.pem"))
        options["keyfile"] = str(authority.with_name("client-key.pem"))
    return f"amqps://guest:guest@{host}:{node.tls_port}/%2f?ssl_options={quote(repr(options))}"


@pytest.mark.usefixtures("rabbitmq")
async def test_tls_is_checked_step_by_step(tmp_path: Path) -> None:
    """A good certificate, then every fault that one node's TLS listener can have."""
    authority = Authority(tmp_path)
    authority.context(client_name="client@example.org")
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    async with Node(tls=authority.server(demand_client=True)) as node:
        good = await run("check", secure_url(node, authority.certificate))
        assert steps(good) == dict.fromkeys(STEPS, "ok")
        assert good.status == 0 and "the certificate is valid for localhost" in good.out

        without = await run("check", secure_url(node, authority.certificate, client=False))
        fails_at(without, "login", "it may require a client certificate", tls=True)

        plain = await run("check", f"amqp://guest:guest@localhost:{node.tls_port}/%2f")
        fails_at(plain, "login", "it may be a TLS port (use amqps://)")

        untrusted = await run("check", secure_url(node, Authority(stranger).certificate, client=False))
        fails_at(untrusted, "TLS", "give your authority's certificates as AMQP_TLS_CA", tls=True)

        await _serve(node, authority, "elsewhere.example.org")
        other = await run("check", secure_url(node, authority.certificate))
        fails_at(other, "TLS", "the certificate is not for 'localhost'", tls=True)

        await _serve(node, authority, "localhost", not_after=dt.datetime.now(dt.UTC) - dt.timedelta(days=1))
        expired = await run("check", secure_url(node, authority.certificate))
        fails_at(expired, "TLS", "renew the node's certificate", tls=True)


async def _serve(node: Node, authority: Authority, name: str, not_after: dt.datetime | None = None) -> None:
    """Let the node present another certificate, from the same files."""
    authority.server(name, not_after=not_after)
    await node.ctl("eval", "ssl:clear_pem_cache().")
