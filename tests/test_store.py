"""What every store of an outbox does; and files of version 1.1, which are read, emptied, and written for a way back."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sprockets_amqp import STORED
from sprockets_amqp.cli import main
from sprockets_amqp.delivery.message import Message, encode
from sprockets_amqp.delivery.options import defaults
from sprockets_amqp.outbox.memory import MemoryStore
from sprockets_amqp.outbox.postgres.store import PostgresStore
from sprockets_amqp.outbox.sqlite.file import OutboxFile
from sprockets_amqp.outbox.sqlite.store import SQLiteStore
from sprockets_amqp.outbox.store import EACH, OWN, Changes, Record, Store, checksum, unpack
from sprockets_amqp.settings import Settings
from sprockets_amqp.testing.database import Database
from tests.support.memory import in_memory
from tools.memory import Broker

broker = in_memory
T = TypeVar("T")
#: Six messages that version 1.1 has stored: with a user_id, CC, no id; one is suspected, and one set aside.
OLD = Path(__file__).parent / "data" / "outbox-1.1"
OLD_IDS = ["plain", "user", "copies", "größe", None]


def message(name: str, body: bytes = b"a body", **properties: Any) -> Message:
    """Make a message."""
    made, _, invalid = encode("events", "key", body, {"message_id": name, **properties}, None, {}, defaults(Settings()))
    assert invalid is None
    return made


def putting(*names: str, start: int = 1) -> Changes:
    """Store messages of these names."""
    return Changes({number: (message(name), 0) for number, name in enumerate(names, start)})


@pytest.fixture(params=["SQLite", "memory", "kit", pytest.param("PostgreSQL", marks=pytest.mark.postgres)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """What opens a store: each time by an owner that begins, after the one before is gone."""
    if request.param == "PostgreSQL":
        url = asyncio.run(request.getfixturevalue("postgres").outbox())
        return lambda: PostgresStore(url, "amqp")
    if request.param == "kit":
        database = Database()
        return lambda: database.store("", "amqp")
    if request.param == "SQLite":
        return lambda: SQLiteStore(str(tmp_path), "amqp")
    only = MemoryStore()
    return lambda: only


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run it on a loop of its own."""
    return asyncio.run(work)


async def ids(store: Store, without: set[tuple[int, int]] | None = None) -> list[str | None]:
    """Return the ids of what is to be sent, in order."""
    return [unpack(record.message)[1].message_id for _, record in await store.read(100, 10**6, without or set())]


async def every(store: Store, box: int = OWN) -> dict[str, tuple[int, int]]:
    """Return the key of each message to be sent."""
    found = await store.read(100, 10**6, set())
    return {str(unpack(record.message)[1].message_id): key for key, record in found}


# What every store does


async def _stored(opened: Callable[[], Store]) -> None:
    store = opened()
    await store.open()
    changes = putting("first", "second", "third")
    await store.write(OWN, changes)
    found = await store.read(100, 10**6, set())
    assert [key for key, _ in found] == [(OWN, 1), (OWN, 2), (OWN, 3)]
    for (each, _), (_, record) in zip(changes.puts.values(), found, strict=True):
        assert unpack(record.message)[1] == each
        assert (record.refusals, record.set_aside, record.intact) == (0, None, True)
    totals = await store.totals()
    size = sum(each.size + len("events") + len("key") + EACH for each, _ in changes.puts.values())
    assert (totals.messages, totals.size, totals.set_aside) == (3, size, 0)
    assert totals.oldest is not None
    await store.try_out()
    await store.close({})


def test_what_was_stored_is_read_in_order(opened: Callable[[], Store]) -> None:
    """Whole, and counted."""
    run(_stored(opened))


async def _parts(opened: Callable[[], Store]) -> None:
    store = opened()
    await store.open()
    await store.write(OWN, putting(*"abcdef"))
    assert [key[1] for key, _ in await store.read(2, 10**6, set())] == [1, 2]
    assert [key[1] for key, _ in await store.read(2, 10**6, {(OWN, 1), (OWN, 3)})] == [2, 4]
    # The first is read whatever its size.
    assert [key[1] for key, _ in await store.read(10, 1, set())] == [1]
    assert await store.read(0, 10**6, set()) == []
    await store.close({})


def test_some_are_read_and_not_those_that_are_known(opened: Callable[[], Store]) -> None:
    """So many, about so many octets, and the others."""
    run(_parts(opened))


async def _changed(opened: Callable[[], Store]) -> None:
    store = opened()
    await store.open()
    await store.write(OWN, putting(*"abcd"))
    await store.write(
        OWN, Changes({5: (message("e"), 2)}, {1, 99}, [2, 2, 98], {3: "no", 4: "neither", 97: "nor this"})
    )
    found = await store.read(100, 10**6, set())
    assert [(key[1], record.refusals) for key, record in found] == [(2, 2), (5, 2)]
    totals = await store.totals()
    assert (totals.messages, totals.set_aside) == (2, 2)
    await store.write(OWN, Changes({}, {2, 5}))
    assert (await ids(store), (await store.totals()).set_aside) == ([], 2)
    await store.close({})


def test_messages_are_deleted_suspected_and_set_aside(opened: Callable[[], Store]) -> None:
    """What is not there can be, too: somebody may have dropped it."""
    run(_changed(opened))


async def _left(opened: Callable[[], Store]) -> None:
    store = opened()
    await store.open()
    await store.write(OWN, putting("left", "delivered"))
    await store.close({})
    again = opened()
    await again.open()
    await again.write(OWN, putting("new"))
    assert await ids(again) == ["left", "delivered", "new"]
    box, number = (await every(again))["delivered"]
    await again.write(box, Changes({}, {number}))
    assert await ids(again) == ["left", "new"]
    await again.close({})


def test_what_an_owner_has_left_comes_first(opened: Callable[[], Store]) -> None:
    """And can be changed where it is."""
    run(_left(opened))


async def _for_people(opened: Callable[[], Store]) -> None:
    store = opened()
    await store.open()
    await store.write(OWN, Changes(putting("first", "second").puts, set_asides={2: "no"}))
    (name,) = await store.names()
    totals, aside, in_use = await store.look(name)
    assert (totals.messages, totals.set_aside, len(aside), in_use) == (1, 1, 1, True)
    (second,) = await store.find(name, [*aside, 77])
    assert (second.set_aside, unpack(second.message)[1].message_id) == ("no", "second")
    (first,) = [each for each in await store.find(name, range(10)) if each.set_aside is None]
    assert unpack(first.message)[1].message_id == "first"
    # What was not set aside is sent anyway.
    assert await store.retry(name, [second.number, first.number, 77]) == {second.number}
    assert await store.retry(name, [second.number]) == set()
    assert await ids(store) == ["first", "second"]
    assert await store.drop(name, [first.number, 77]) == {first.number}
    assert await store.drop(name, [first.number]) == set()
    assert await ids(store) == ["second"]
    with pytest.raises(FileNotFoundError):
        await store.look(f"{name}9")
    await store.close({})


def test_people_look_into_a_box_that_is_in_use(opened: Callable[[], Store]) -> None:
    """They retry what was set aside, and drop anything."""
    run(_for_people(opened))


# Owners


def test_a_box_has_one_owner_and_those_that_are_gone_have_none(tmp_path: Path) -> None:
    """A second client has a box of its own; what the first leaves is taken over, and sent first."""

    async def work() -> None:
        one, two = SQLiteStore(str(tmp_path), "amqp"), SQLiteStore(str(tmp_path), "amqp")
        await one.open()
        await one.write(OWN, putting("one"))
        await two.open()
        await two.write(OWN, putting("two"))
        assert (await ids(one), await ids(two)) == (["one"], ["two"])
        await one.close({})
        await two.open()
        assert (await ids(two), (await two.totals()).messages) == (["one", "two"], 2)
        box, number = (await every(two))["one"]
        await two.write(box, Changes({}, {number}))
        await two.close({OWN: Changes({}, {1})})

    run(work())
    assert list(tmp_path.iterdir()) == []


# Version 1.1


def old_folder(path: Path) -> Path:
    """Make a folder that version 1.1 has left."""
    shutil.copy(OLD, path / "amqp.1.outbox")
    (path / "amqp.1.outbox").chmod(0o600)
    return path


def rows_of(path: Path) -> list[tuple[object, ...]]:
    """Return the rows of a file of version 1.1 but for the checksum's kind, as they are."""
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (1,)
        found: list[tuple[object, ...]] = file.execute("SELECT * FROM messages ORDER BY number").fetchall()
    return [(*row[:10], *row[11:]) for row in found]


def test_what_version_1_1_has_stored_is_sent_and_its_file_deleted(broker: Broker, tmp_path: Path) -> None:
    """Once each, in order, with all that it had; what was set aside stays, and what comes is stored behind."""
    client = broker.client(outbox=old_folder(tmp_path), timeout=0)
    broker.clock.turn()
    new = client.publish("", "q", b"", {"message_id": "new"})
    broker.clock.turn()
    assert (new.result(), client.counters.stored, client.counters.set_aside) == (STORED, 6, 1)
    for _ in range(20):
        broker.open()
        broker.every(lambda peer: peer.confirm_all())
        broker.clock.advance(0.5)
    # Exchanges are checked one after the other, and overtake each other.
    by_exchange = {
        exchange: [each for each in broker.published if each.exchange == exchange] for exchange in ("events", "")
    }
    assert sorted(broker.messages) == sorted(["plain", "user", "copies", "größe", "None", "new"])
    assert [each.properties.message_id for each in by_exchange["events"]] == ["plain", "user"]
    assert [each.properties.message_id for each in by_exchange[""]] == ["copies", None, "new"]
    (copies, *_), (_, user) = by_exchange[""], by_exchange["events"]
    (umlauts,) = [each for each in broker.published if each.exchange == "ä"]
    assert (copies.properties.headers, copies.properties.priority, copies.body) == (
        {"CC": ["a", "b"], "n": 1},
        3,
        b"\x00\xff" * 40,
    )
    assert (user.properties.user_id, umlauts.routing_key) == ("guest", "ö")
    assert (client.counters.stored, client.counters.set_aside) == (0, 1)
    task = broker.clock.loop.create_task(client.shutdown(2))
    broker.clock.advance(3)
    task.result()
    assert [each.name for each in tmp_path.glob("*.outbox")] == ["amqp.1.outbox"]
    assert len(rows_of(tmp_path / "amqp.1.outbox")) == 1


def test_a_damaged_file_of_version_1_1_is_salvaged(tmp_path: Path) -> None:
    """Its first page tells what the table was; what is intact is sent."""
    path = old_folder(tmp_path) / "amqp.1.outbox"
    content = bytearray(path.read_bytes())
    content[content.index(b"stored_at REAL")] ^= 0x01
    path.write_bytes(content)

    async def work() -> list[str | None]:
        store = SQLiteStore(str(tmp_path), "amqp")
        await store.open()
        try:
            return await ids(store)
        finally:
            await store.close({})

    assert run(work()) == OLD_IDS
    assert (tmp_path / "amqp.1.outbox.damaged-1").exists()


def test_a_message_of_version_1_1_that_the_disk_has_changed_is_set_aside(tmp_path: Path) -> None:
    """Whatever column it was; the others are sent."""
    for number, (column, value) in enumerate(
        [("stored_at", "soon"), ("exchange", "other"), ("user_id", 7), ("body", b"x"), ("checksum", "x")], 1
    ):
        folder = tmp_path / column
        folder.mkdir()
        with closing(sqlite3.connect(old_folder(folder) / "amqp.1.outbox", isolation_level=None)) as file:
            file.execute(f"UPDATE messages SET {column} = ?, set_aside = NULL WHERE number = ?", (value, number))  # noqa: S608

        async def work(path: Path) -> tuple[list[str | None], int]:
            store = SQLiteStore(str(path), "amqp")
            await store.open()
            found = await ids(store), (await store.totals()).set_aside
            await store.close({})
            return found

        sent, aside = run(work(folder))
        assert (len(sent), aside) == (5 if number == 5 else 4, 2 if number < 5 else 1)


def test_a_message_can_be_written_back_for_version_1_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Row for row what that has stored, and for every message since; a file that is in use is left alone."""
    before = rows_of(old_folder(tmp_path) / "amqp.1.outbox")

    (tmp_path / "new").mkdir()

    async def move() -> None:
        old, new = SQLiteStore(str(tmp_path), "amqp"), SQLiteStore(str(tmp_path / "new"), "amqp")
        await old.open()
        await new.open()
        found = [record for name in await old.names() for record in await old.find(name, range(9))]
        await new.write(OWN, putting("since", start=1))
        with closing(OutboxFile(tmp_path / "new" / "amqp.1.outbox")) as file:
            file.write(
                Record(each.number + 1, each.message, checksum(each.number + 1, each.message), *each[3:])
                for each in found
            )
        assert main_in(tmp_path / "new") == 1
        assert "it is in use: stop its client first" in capsys.readouterr().err
        await new.close({})
        await old.close({})

    def main_in(folder: Path) -> int:
        status: list[int] = []
        import threading  # noqa: PLC0415

        thread = threading.Thread(target=lambda: status.append(main(["outbox", "downgrade", str(folder)])))
        thread.start()
        thread.join()
        return status[0]

    run(move())
    assert main(["outbox", "downgrade", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out == "amqp.1.outbox: 7 messages are in the format of version 1.1 now\n"
    since, *after = rows_of(tmp_path / "new" / "amqp.1.outbox")
    assert since[2] == "since"
    assert [row[1:] for row in after] == [row[1:] for row in before]
    assert main(["outbox", "downgrade", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out == "amqp.1.outbox: it is in the format of version 1.1 now\n"
    assert {each.stat().st_mode & 0o077 for each in (tmp_path / "new").iterdir()} == {0}


def test_nothing_is_written_back_while_a_message_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be lost: somebody has to drop it."""

    async def fill() -> None:
        store = SQLiteStore(str(tmp_path), "amqp")
        await store.open()
        await store.write(OWN, putting("a", "b"))
        await store.close({})

    run(fill())
    with closing(sqlite3.connect(tmp_path / "amqp.1.outbox", isolation_level=None)) as file:
        file.execute("UPDATE messages SET checksum = 0 WHERE number = 2")
    assert main(["outbox", "downgrade", str(tmp_path)]) == 1
    assert "message 2 is damaged on the disk: drop it first" in capsys.readouterr().err
    assert main(["outbox", "drop", str(tmp_path), "amqp.1.outbox:2"]) == 0
    assert main(["outbox", "downgrade", str(tmp_path)]) == 0
    assert "1 message is in the format" in capsys.readouterr().out


def test_what_a_killed_client_has_left_is_written_back_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its write-ahead log is not played back into the file that takes its place; what is not there is not made."""
    folder = tmp_path / "left"
    folder.mkdir()

    async def fill() -> None:
        store = SQLiteStore(str(folder), "amqp")
        await store.open()
        await store.write(OWN, putting(*(f"m{number}" for number in range(1500))))
        shutil.copytree(folder, tmp_path / "killed")
        await store.close({})

    run(fill())
    assert (tmp_path / "killed" / "amqp.1.outbox-wal").stat().st_size > 10**5
    assert main(["outbox", "downgrade", str(tmp_path / "killed")]) == 0
    assert capsys.readouterr().out == "amqp.1.outbox: 1500 messages are in the format of version 1.1 now\n"
    assert sorted(each.name for each in (tmp_path / "killed").iterdir()) == ["amqp.1.outbox", "amqp.1.outbox.lock"]
    assert [row[2] for row in rows_of(tmp_path / "killed" / "amqp.1.outbox")] == [
        f"m{number}" for number in range(1500)
    ]
    assert main(["outbox", "downgrade", str(folder), "amqp.9.outbox:1"]) == 2
    assert "downgrade takes an outbox, and no messages" in capsys.readouterr().err


def test_numbers_begin_anew_with_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full of delivered messages: what is stored in the new file is what is deleted and read later."""
    full = ["database or disk is full"]
    write = OutboxFile.write

    def fail(self: OutboxFile, *args: Any) -> None:
        if full:
            error = sqlite3.OperationalError(full.pop())
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        write(self, *args)

    async def work() -> None:
        store = SQLiteStore(str(tmp_path), "amqp")
        await store.open()
        await store.write(OWN, putting("a", "b"))
        await store.close({})
        store = SQLiteStore(str(tmp_path), "amqp")
        await store.open()
        keys = await every(store)
        with monkeypatch.context() as patched:
            patched.setattr(OutboxFile, "write", fail)
            await store.write(
                OWN, Changes(putting("c", "d", "e", start=3).puts, {number for _, number in keys.values()})
            )
        assert await every(store) == {"c": (OWN, 3), "d": (OWN, 4), "e": (OWN, 5)}
        await store.write(OWN, Changes({}, {5}))
        assert await ids(store) == ["c", "d"]
        await store.close({})

    run(work())


def test_a_full_disk_on_which_all_of_anothers_was_delivered_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is deleted, and that is all."""

    def fail(*_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    async def work() -> None:
        left, store = SQLiteStore(str(tmp_path), "amqp"), SQLiteStore(str(tmp_path), "amqp")
        await store.open()
        await left.open()
        await left.write(OWN, putting("left"))
        await left.close({})
        await store.open()
        box, number = (await every(store))["left"]
        with monkeypatch.context() as patched:
            patched.setattr(OutboxFile, "write", fail)
            await store.write(box, Changes({}, {number}))
        assert await ids(store) == []
        await store.close({})

    run(work())


def test_the_command_line_takes_many_messages_and_large_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It opens a file once to retry, and has a few messages in memory at a time."""
    opened: list[int] = []

    async def fill() -> None:
        store = SQLiteStore(str(tmp_path), "amqp")
        await store.open()
        changes = putting(*(f"m{number}" for number in range(100)))
        changes.set_asides = dict.fromkeys(changes.puts, "no")
        await store.write(OWN, changes)
        await store.close({})

    run(fill())
    before = OutboxFile.__init__

    def count(self: OutboxFile, *args: Any, **kwargs: Any) -> None:
        opened.append(1)
        before(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(OutboxFile, "__init__", count)
        assert main(["outbox", "list", str(tmp_path)]) == 0
        assert capsys.readouterr().out.count("set aside: no") == 100
        listed = len(opened)
        assert main(["outbox", "retry", str(tmp_path)]) == 0
        assert (listed, len(opened) - listed) == (1 + 7, 2)
    assert capsys.readouterr().out.count("will be sent") == 100
