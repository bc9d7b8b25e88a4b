"""docs/outbox.md: its examples run, and each row of its tables says what happens."""

import asyncio
import functools
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from tornado.web import Application

import sprockets_amqp as amqp
from sprockets_amqp import cli
from sprockets_amqp.outbox import model as outbox
from sprockets_amqp.outbox import stock, store, writer
from sprockets_amqp.testing import Broker
from tests.support.documents import Document
from tests.support.memory import Broker as HandDriven
from tests.support.memory import in_memory
from tools.memory import Disk

PAGE: Final = Document("docs/outbox.md")

TESTED: Final = {
    ("Turn it on", "python"),
    # In test_outbox_postgres.py.
    ("In PostgreSQL", "sh"),
    ("In PostgreSQL", "sql"),
    ("In PostgreSQL", "python"),
    ("In your transaction", "python"),
    ("Containers", "yaml"),
    ("Looking inside", "sh"),
    ("Going back to version 1.1", "sh"),
}

by_hand = in_memory


# What the examples do


async def test_a_folder_turns_it_on(amqp_broker: Broker, tmp_path: Path) -> None:
    """But for its path; a folder that is not there is a ValueError."""
    with pytest.raises(ValueError, match="must be an existing folder"):
        async with PAGE.run("Turn it on", amqp=amqp, application=Application()):
            pass
    text = PAGE.block("Turn it on", "python").replace("/var/lib/events", str(tmp_path))
    application: Any = Application()
    exec(text, {"amqp": amqp, "application": application})  # noqa: S102 - it is this project's own
    assert application.amqp.settings.outbox == str(tmp_path)
    assert application.amqp.settings.republish_unconfirmed
    await application.amqp.shutdown()


async def test_a_handler_tells_the_disk_from_rabbitmq(amqp_broker: Broker, tmp_path: Path) -> None:
    """201 is RabbitMQ's, 202 the disk's."""
    amqp_broker.exchange_declare("events", "topic")
    async with PAGE.run("Turn it on", 1, amqp=amqp) as names, amqp.Client("amqp://broker", outbox=tmp_path) as client:
        assert await names["accept"](client, b"an event") == 201
    amqp_broker.stop()
    async with (
        PAGE.run("Turn it on", 1, amqp=amqp) as names,
        amqp.Client("amqp://broker", outbox=tmp_path, timeout=0) as client,
    ):
        assert await names["accept"](client, b"an event") == 202
    # Only the application's user can read it.
    assert modes(tmp_path) == [0o600]


def modes(folder: Path) -> list[int]:
    """Who may do what with the files of an outbox."""
    return [path.stat().st_mode & 0o777 for path in folder.glob("*.outbox")]


def test_the_volume_is_where_the_setting_says() -> None:
    """And each pod has one of its own."""
    yaml = importlib.import_module("yaml")
    spec = yaml.safe_load(PAGE.block("Containers", "yaml"))["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    (variable,) = container["env"]
    (mount,), (claim,) = container["volumeMounts"], spec["volumeClaimTemplates"]
    assert variable == {"name": "AMQP_OUTBOX", "value": mount["mountPath"]}
    assert mount["name"] == claim["metadata"]["name"]
    storage = claim["spec"]["resources"]["requests"]["storage"]
    assert int(storage.removesuffix("Gi")) * 1024**3 > amqp.Settings().outbox_limit


def test_the_commands_print_what_is_shown(
    amqp_broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for sizes and times."""
    client = amqp.Client("amqp://broker", outbox=tmp_path, timeout=0)

    async def store(*messages: str) -> None:
        for message_id in messages:
            await client.publish("orders", "order.placed", b"a book", {"message_id": message_id})

    amqp_broker.stop()
    amqp_broker.run(store("order-4711"))
    amqp_broker.start()
    amqp_broker.run(client.flush())
    amqp_broker.stop()
    amqp_broker.run(store("order-4712", "order-4713"))
    listing, showing, retrying, dropping, _ = PAGE.commands("Looking inside")
    (name,) = re.findall(r"^  (\S+) order-4711 set aside", typed(capsys, "outbox", "list", str(tmp_path)), re.MULTILINE)

    def printed(line: str) -> str:
        text = line.replace("/var/lib/events", str(tmp_path)).replace("amqp.1.outbox:1", name)
        return typed(capsys, *shlex.split(text)[1:]).replace(name, "amqp.1.outbox:1")

    assert masked(printed(listing)) == masked(PAGE.block("Looking inside", "text"))
    assert masked(printed(showing)) == masked(PAGE.block("Looking inside", "text", 1))
    assert printed(retrying) == "amqp.1.outbox:1: will be sent\n"
    assert printed(dropping) == "amqp.1.outbox:1: dropped\n"


def test_what_is_stored_is_written_for_version_1_1(
    amqp_broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command, once no client has the file open."""
    client = amqp.Client("amqp://broker", outbox=tmp_path, timeout=0)

    async def store() -> None:
        await client.publish("orders", "order.placed", b"a book", {"message_id": "order-4711"})
        await client.shutdown()

    amqp_broker.stop()
    amqp_broker.run(store())
    (line,) = PAGE.commands("Going back to version 1.1")
    printed = typed(capsys, *shlex.split(line.replace("/var/lib/events", str(tmp_path)))[1:])
    assert printed == "amqp.1.outbox: 1 message is in the format of version 1.1 now\n"


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command line; returns what it prints."""
    assert cli.main(arguments) == 0
    return capsys.readouterr().out


def masked(text: str) -> str:
    """What a command prints, without sizes and times."""
    return re.sub(r"\d+ octets|\d+ s ago|[\dT:.-]+Z", "…", text)


# What a publish ends with

Step = Callable[[HandDriven, amqp.Client], None]
LIMITS: Final[dict[str, Any]] = {
    "timeout": 5,
    "confirm_timeout": 8,
    "max_waiting": 1,
    "max_unconfirmed": 3,
    "reconnect_delay": 1000,
}


def ready(broker: HandDriven, client: amqp.Client) -> None:
    """Connect."""
    broker.open()
    assert client.ready


def lost(broker: HandDriven, _client: amqp.Client) -> None:
    """Lose the connection, and have no other."""
    broker.clock.turn()
    broker.peer.lose()
    broker.clock.turn()


def passes(broker: HandDriven, _client: amqp.Client) -> None:
    """Let time pass."""
    broker.clock.advance(9)


def fills(broker: HandDriven, client: amqp.Client) -> None:
    """Have as many messages in line as there may be."""
    client.publish("", "q", b"").add_done_callback(lambda future: future.exception())
    assert client.waiting == 1


def stops(broker: HandDriven, client: amqp.Client) -> None:
    """Shut the client down."""
    task = broker.clock.loop.create_task(client.shutdown(1))
    broker.clock.advance(2)
    task.result()


def alarms(broker: HandDriven, client: amqp.Client) -> None:
    """Have RabbitMQ raise an alarm, of which it tells after the next publish."""
    stall = functools.partial(broker.peer.stall, stalled=True)
    broker.clock.loop.call_later(0.001, lambda: (stall(), broker.peer.deliver()))


def fills_up(broker: HandDriven, client: amqp.Client) -> None:
    """Have as many messages on the wire as there may be."""
    for _ in range(client.settings.max_unconfirmed):
        client.publish("", "q", b"").add_done_callback(lambda future: future.exception())
    assert client.unconfirmed == client.settings.max_unconfirmed


def nacks(broker: HandDriven, client: amqp.Client) -> None:
    """Nack what came."""
    broker.clock.turn()
    broker.peer.confirm(1, nack=True)
    broker.open()


def answers(broker: HandDriven, client: amqp.Client) -> None:
    """Let the question about the exchange be answered."""
    broker.open()


#: For each row, what is done before and after the publish.
HAPPENS: Final[dict[str, tuple[list[Step], list[Step]]]] = {
    "it waits longer than timeout": ([], [passes]),
    "the outage lasts longer than timeout already": ([passes], []),
    "max_waiting messages are in line already": ([fills], []),
    "it went out into an alarm, which lasts longer than timeout": ([ready, alarms], [passes]),
    "the client is shut down while it waits, and is ready: it goes out, but not in time": ([ready, fills_up], [stops]),
    "the client is shut down while it waits, and is not ready": ([], [stops]),
    "the connection is lost before the confirm, and does not come back within timeout": ([ready], [lost, passes]),
    "no confirm comes within confirm_timeout": ([ready], [passes]),
    "a queue nacks it": ([ready], [nacks]),
    "RabbitMQ refuses its exchange": ([ready], [answers]),
    "it cannot be sent at all": ([ready], []),
    "the client was shut down before": ([stops], []),
}


def plain(row: list[str]) -> list[str]:
    """A row without the marks of code."""
    return [cell.replace("`", "") for cell in row]


@pytest.mark.parametrize("outbox", ["", "folder", "PostgreSQL"], ids=["without", "folder", "PostgreSQL"])
@pytest.mark.parametrize("row", [plain(row) for row in PAGE.rows("What a publish ends with")], ids=lambda row: row[0])
def test_a_publish_ends_as_the_table_says(by_hand: HandDriven, tmp_path: Path, row: list[str], outbox: str) -> None:
    """With an outbox, in a folder or in the kit's database, and without one."""
    happens, *said = row
    client = by_hand.client(**LIMITS, outbox={"": None, "folder": tmp_path}.get(outbox, "postgresql://anywhere/app"))
    by_hand.clock.turn()
    before, after = HAPPENS[happens]
    for step in before:
        step(by_hand, client)
    exchange = "missing" if "exchange" in happens else ""
    future = client.publish(exchange, "q", b"", {"priority": 300} if "cannot" in happens else {})
    by_hand.clock.turn()
    assert future.done() or "at once" not in said[0]
    for step in after:
        step(by_hand, client)
    error = future.exception()
    ended = type(error).__name__ if error is not None else str(future.result()).upper()
    assert ended == said[bool(outbox)].removesuffix(", at once")


def test_each_row_is_tried() -> None:
    """And nothing else."""
    assert [plain(row)[0] for row in PAGE.rows("What a publish ends with")] == list(HAPPENS)


# Order


def test_what_is_stored_comes_first(by_hand: HandDriven, tmp_path: Path) -> None:
    """Storing one stores what waits before it, and new publishes go behind it, ready or not."""
    client = by_hand.client(outbox=tmp_path, timeout=60, max_unconfirmed=1)
    by_hand.clock.turn()
    first, second = published(client, "first"), published(client, "second", timeout=1)
    by_hand.clock.advance(2)
    assert (first.result(), second.result()) == (amqp.STORED, amqp.STORED)
    by_hand.open()
    assert (client.ready, client.publish_outcome, by_hand.messages) == (True, "is stored", ["first"])
    published(client, "third")
    confirm_all(by_hand)
    assert by_hand.messages == ["first", "second", "third"]
    assert (client.counters.stored, client.publish_outcome) == (0, "goes out")


# What a crash does


def published(client: amqp.Client, message_id: str = "m", exchange: str = "", **options: Any) -> "asyncio.Future[Any]":
    """Publish a message, and look at no error of it."""
    future = client.publish(exchange, "q", b"", {"message_id": message_id}, **options)
    future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return future


def confirm_all(broker: HandDriven) -> None:
    """Open what wants to be open, and confirm what comes."""
    for _ in range(6):
        broker.open()
        broker.every(lambda peer: peer.confirm_all())
        broker.open()


def waits(broker: HandDriven, client: amqp.Client) -> None:
    """It waits for the connection."""
    published(client)
    broker.clock.turn()
    assert client.waiting == 1


def on_wire(broker: HandDriven, client: amqp.Client) -> None:
    """It was sent as any message is."""
    broker.open()
    published(client)
    broker.clock.turn()
    assert broker.messages == ["m"]


def written(broker: HandDriven, client: amqp.Client) -> None:
    """The disk has it, and nobody knows yet."""
    broker.clock.advance(9)
    Disk.waiting = waiting = list[Any]()
    future = published(client)
    broker.clock.turn()
    Disk.waiting = None
    for work in waiting:
        work()
    assert not future.done()


def answered(broker: HandDriven, client: amqp.Client) -> None:
    """RabbitMQ has nacked it, and the disk has it, but not yet that it is to be deleted."""
    broker.clock.advance(9)
    Disk.waiting = waiting = list[Any]()
    future = published(client)
    broker.open()
    broker.peer.confirm(1, nack=True)
    broker.open()
    assert isinstance(future.exception(), amqp.MessageNacked)
    waiting.pop(0)()


def given(broker: HandDriven, client: amqp.Client) -> None:
    """The disk is to write it, and has not begun."""
    broker.clock.advance(9)
    Disk.waiting = list[Any]()
    future = published(client)
    broker.clock.turn()
    assert not future.done()


def stored(broker: HandDriven, client: amqp.Client) -> None:
    """Its publish has ended."""
    broker.clock.advance(9)
    future = published(client)
    broker.clock.turn()
    assert future.result() == amqp.STORED


def sent_from_disk(broker: HandDriven, client: amqp.Client) -> None:
    """RabbitMQ has not confirmed it."""
    stored(broker, client)
    broker.open()
    assert broker.messages == ["m"]


def confirmed(broker: HandDriven, client: amqp.Client) -> None:
    """RabbitMQ has, and the disk does not know."""
    sent_from_disk(broker, client)
    Disk.waiting = list[Any]()
    broker.peer.confirm_all()
    broker.open()
    assert broker.acked == {"m"}


def deleted(broker: HandDriven, client: amqp.Client) -> None:
    """All is done."""
    sent_from_disk(broker, client)
    broker.peer.confirm_all()
    broker.open()


#: For each row, how a message comes so far, and how often RabbitMQ has it in the end.
CRASHES: Final[dict[str, list[tuple[Step, int]]]] = {
    "waits in line": [(waits, 0)],
    "is on the wire, and not stored": [(on_wire, 1)],
    "is being written": [(given, 0), (written, 1)],
    "is answered by RabbitMQ while it is being written": [(answered, 2)],
    "is stored": [(stored, 1)],
    "is sent from the disk, and not confirmed": [(sent_from_disk, 2)],
    "is confirmed, and not deleted from the disk": [(confirmed, 2)],
    "is confirmed and deleted": [(deleted, 1)],
}


def test_each_crash_has_a_row() -> None:
    """And each row tells what its publish had ended with."""
    rows = PAGE.rows("What a crash does")
    assert [row[0] for row in rows] == list(CRASHES)
    assert [row[1] for row in rows] == ["nothing yet"] * 3 + ["RabbitMQ's answer"] + ["STORED"] * 4


@pytest.mark.parametrize(
    ("comes_so_far", "copies"),
    [crash for crashes in CRASHES.values() for crash in crashes],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_a_crash_does_what_the_table_says(tmp_path: Path, comes_so_far: Step, copies: int) -> None:
    """The next process begins with what is on the disk at that moment."""
    folder, left = tmp_path / "folder", tmp_path / "left"
    folder.mkdir()
    with process() as broker:
        client = broker.client(outbox=folder, timeout=5)
        broker.clock.turn()
        comes_so_far(broker, client)
        shutil.copytree(folder, left)
        came = list(broker.messages)
        waiting, Disk.waiting = Disk.waiting or [], None
        for work in waiting:
            work()
    with process() as broker:
        client = broker.ready(outbox=left)
        confirm_all(broker)
        assert [*came, *broker.messages] == ["m"] * copies
        assert client.counters.stored == 0


@contextmanager
def process() -> Iterator[HandDriven]:
    """A broker, for what stands for one process."""
    broker = HandDriven().install()
    try:
        yield broker
        broker.shut_down()
    finally:
        broker.close()


STORES: Final = """
import asyncio, os, signal, sys
import sprockets_amqp as amqp

async def main():
    client = amqp.Client("amqp://127.0.0.1:2", outbox=sys.argv[1], timeout=0)
    print(await client.publish("", "q", b"", {"message_id": "m"}), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_what_a_killed_process_stored_is_sent_by_the_next(amqp_broker: Broker, tmp_path: Path) -> None:
    """With kill -9, right after its publish ended."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", STORES, str(tmp_path), stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    assert (out, process.returncode) == (b"stored\n", -9)
    amqp_broker.queue_declare("q")
    async with amqp.Client("amqp://broker", outbox=tmp_path) as client:
        await client.flush(30)
    assert [message.properties.message_id for message in amqp_broker.messages("q")] == ["m"]
    # A client that ends in order leaves nothing that is empty.
    assert modes(tmp_path) == []


# Messages that RabbitMQ refuses


@pytest.mark.parametrize(
    ("settings", "aside", "delivered"),
    [({}, 0, 1), ({"fail_on_return": True}, 1, 0)],
    ids=["returned", "returned, and fail_on_return"],
)
def test_a_stored_message_that_is_unroutable(
    amqp_broker: Broker, tmp_path: Path, settings: dict[str, Any], aside: int, delivered: int
) -> None:
    """It is delivered and returned; with fail_on_return it is set aside."""
    returned = []
    amqp_broker.stop()
    client = amqp.Client(
        "amqp://broker", outbox=tmp_path, timeout=0, on_return_callback=lambda *each: returned.append(each), **settings
    )

    async def store() -> None:
        assert await client.publish("amq.topic", "key", b"") == amqp.STORED

    amqp_broker.run(store())
    amqp_broker.start()
    amqp_broker.run(client.flush())
    assert (client.counters.set_aside, client.counters.stored, len(returned)) == (aside, 0, 1)


def test_what_a_queue_nacks_is_tried_again_later_and_later(by_hand: HandDriven, tmp_path: Path) -> None:
    """After the seconds that the page names."""
    client = by_hand.client(outbox=tmp_path, timeout=0)
    by_hand.clock.turn()
    published(client)
    by_hand.open()
    first, second, third = 1, 2, 4
    for tries, seconds in enumerate((first, second, third), 1):
        assert by_hand.messages == ["m"] * tries
        by_hand.peer.confirm(tries, nack=True)
        by_hand.open()
        by_hand.clock.advance(seconds - 0.1)
        assert by_hand.messages == ["m"] * tries
        by_hand.clock.advance(0.2)
    confirm_all(by_hand)
    assert client.counters.stored == 0
    section = " ".join(PAGE.section("Messages that RabbitMQ refuses").split())
    assert f"after {first} second, then {second}, {third} … up to {stock.MAX_DEFERRAL:g}" in section
    assert f"unless {stock.MAX_DEFERRED:,} wait like this" in section


# Limits


def test_the_numbers_are_those_of_the_code() -> None:
    """Of limits, delays and what a message takes."""
    text = " ".join(PAGE.text.split())
    for words in (
        f"{amqp.Settings().outbox_limit // 1024**3} GiB by default",
        f"{store.EACH} for each message",
        f"is given {writer.DISK_LIMIT:g} seconds for a transaction",
    ):
        assert words in text
    assert outbox.RETRY_DELAY == 1
    assert "tries the disk again every second" in text
    assert outbox.LOOK_INTERVAL == 60
    assert "one that runs within a minute" in text
    assert outbox.FINISH_LIMIT == 1
    assert "keeps its last second for the disk" in text


@pytest.mark.parametrize("holds", [True, False])
def test_a_full_outbox_refuses_what_would_overtake(by_hand: HandDriven, tmp_path: Path, holds: bool) -> None:
    """And lets go out what would not."""
    client = by_hand.client(outbox=tmp_path, timeout=0, outbox_limit=300 if holds else 1)
    by_hand.clock.turn()
    names = ["kept", "too many"] if holds else ["too many"]
    *_, full = [published(client, name) for name in names]
    by_hand.clock.turn()
    assert isinstance(full.exception(), amqp.NotReadyError)
    if holds:
        assert client.publish_outcome == "is refused"
    else:
        by_hand.open()
        assert client.publish_outcome == "goes out"
    assert "outbox_limit" in client.outbox_trouble


# What you see


def test_the_counters_are_there() -> None:
    """And what the page says that is found elsewhere has its heading there."""
    counters = {row[0].rpartition(".")[2] for row in PAGE.rows("What you see") if "counters" in row[0]}
    assert counters == {"stored", "set_aside"}
    assert all(hasattr(amqp.Counters(), name) for name in counters)


async def test_readiness_is_that_of_the_outbox(amqp_broker: Broker, tmp_path: Path) -> None:
    """Ready while publishes are stored."""
    status = importlib.import_module("sprockets_amqp.web.status")
    amqp_broker.stop()
    async with amqp.Client("amqp://broker", outbox=tmp_path, timeout=0) as client:
        assert await client.publish("", "q", b"") == amqp.STORED
        told = status.snapshot(client)
        assert (told["ready"], told["publish"], told["counters"]["stored"]) == (True, "a publish is stored", 1)


def test_the_metrics_are_those_of_the_page_on_metrics() -> None:
    """Each that is named is explained there."""
    (names,) = (re.findall(r"amqp_client_\w+", row[1]) for row in PAGE.rows("What you see") if "metrics" in row[0])
    explained = {row[0].partition("{")[0] for row in Document("docs/telemetry.md").rows("Prometheus")}
    assert names and set(names) <= explained
