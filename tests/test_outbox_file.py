"""The files of the outbox: what is in them after a crash, and when the disk has changed them."""

import asyncio
import os
import shutil
import sqlite3
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import pytest

from sprockets_amqp.cli import main
from sprockets_amqp.delivery.message import encode
from sprockets_amqp.delivery.options import defaults
from sprockets_amqp.outbox.sqlite import salvage
from sprockets_amqp.outbox.sqlite.file import OutboxFile
from sprockets_amqp.outbox.sqlite.folder import files
from sprockets_amqp.outbox.sqlite.lock import Locked, lock_path
from sprockets_amqp.outbox.sqlite.rows import VERSION
from sprockets_amqp.outbox.sqlite.store import SQLiteStore
from sprockets_amqp.outbox.store import SPOILT, Changes, Record, checksum, pack, unpack
from sprockets_amqp.outbox.writer import Batch, Done, carry_out
from sprockets_amqp.settings import Settings

PAGE = 4096
USUAL = defaults(Settings())


def row(number: int, body: bytes = b"x" * 300, name: str = "") -> Record:
    """Make a message as it is stored."""
    message, _, _ = encode("events", "key", body, {"message_id": name or f"m{number}"}, None, {}, USUAL)
    octets = pack(time.time(), message.method, message.properties, message.body)
    return Record(number, octets, checksum(number, octets))


def puts(*numbers: int, deletes: Iterable[int] = ()) -> dict[int, Changes]:
    """Make messages that are to be stored."""
    return {0: Changes({number: (unpack(row(number).message)[1], 0) for number in numbers}, set(deletes))}


def names(rows: Iterable[Record]) -> list[str]:
    """Return the ids of messages."""
    return [str(unpack(each.message)[1].message_id) for each in rows]


def run(store: SQLiteStore, batch: Batch) -> Done:
    """Have a batch carried out."""
    return asyncio.run(carry_out(store, batch))


def filled(path: Path, count: int = 200, body: bytes = b"x" * 300) -> Path:
    """Make a file with messages in it, and nothing in its write-ahead log."""
    file = OutboxFile.take(path / "amqp.1.outbox")
    file.write([row(number, body) for number in range(1, count + 1)])
    file.close()
    return file.path


def opened(path: Path) -> tuple[SQLiteStore, list[str]]:
    """Open a folder as a client does, and return what it would send."""
    folder = SQLiteStore(str(path), "amqp")
    found: list[str] = []
    for _ in range(4):
        done = run(folder, Batch(look=True, load=(10_000, 2**30)))
        found = names(each for _, each in done.rows)
        if done.problem is None:
            break
    return folder, found


def test_what_was_written_is_there_again_in_order(tmp_path: Path) -> None:
    """Every column of it."""
    written = row(7, b"\0body")._replace(refusals=1)
    file = OutboxFile.take(tmp_path / "amqp.1.outbox")
    file.write([row(9), written])
    assert (next(file.rows()), [each.number for each in file.load(10, 10**6)]) == (written, [7, 9])
    assert (file.totals().messages, file.last_number) == (2, 9)
    file.close()


def test_a_file_has_one_owner_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    """Another client cannot take it; and what applications publish is only for their user."""
    file = OutboxFile.take(tmp_path / "amqp.1.outbox")
    with pytest.raises(Locked):
        OutboxFile.take(file.path)
    assert {each.stat().st_mode & 0o077 for each in tmp_path.iterdir()} == {0}
    file.close()
    OutboxFile.take(file.path).close(delete=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"not a database at all " * 400, b"SQLite format 3\0" + bytes(8000)])
def test_a_file_that_is_no_database_is_put_aside(tmp_path: Path, content: bytes) -> None:
    """It is kept under another name, and a new one takes its place."""
    (tmp_path / "amqp.1.outbox").write_bytes(content)
    folder, found = opened(tmp_path)
    assert found == []
    assert (tmp_path / "amqp.1.outbox.damaged-1").read_bytes() == content
    assert 0 in run(folder, Batch(changes=puts(1))).changed
    run(folder, Batch(close=True))


@pytest.mark.parametrize("pages", [(9,), (6, 14)])
def test_what_can_be_read_of_a_file_with_zeroed_pages_is_sent(tmp_path: Path, pages: tuple[int, ...]) -> None:
    """All but what was on those pages."""
    path = filled(tmp_path)
    content = bytearray(path.read_bytes())
    for page in pages:
        content[PAGE * page : PAGE * (page + 1)] = bytes(PAGE)
    path.write_bytes(content)
    folder, found = opened(tmp_path)
    assert 200 - 15 * len(pages) < len(found) < 200
    assert found == sorted(found, key=lambda name: int(name[1:]))
    assert (tmp_path / "amqp.1.outbox.damaged-1").read_bytes() == content
    run(folder, Batch(close=True))


def test_what_can_be_read_of_a_file_with_a_torn_end_is_sent(tmp_path: Path) -> None:
    """The last pages are not there."""
    path = filled(tmp_path)
    content = path.read_bytes()[: -PAGE * 2 - 100]
    path.write_bytes(content)
    folder, found = opened(tmp_path)
    assert len(found) > 100
    assert found[0] == "m1"
    run(folder, Batch(close=True))


def test_a_body_that_the_disk_has_changed_is_not_sent(tmp_path: Path) -> None:
    """SQLite does not notice; the checksum does, and the message is set aside."""
    path = filled(tmp_path, 3, b"y" * 20_000)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"y" * 3000) - 3000
    content[at : at + 100] = bytes(100)
    path.write_bytes(content)
    folder, found = opened(tmp_path)
    assert len(found) == 2
    run(folder, Batch(close=True))
    with sqlite3.connect(path) as connection:
        assert [words for (words,) in connection.execute("SELECT set_aside FROM messages") if words] == [SPOILT]
    connection.close()


def test_a_torn_log_ends_with_the_last_whole_transaction(tmp_path: Path) -> None:
    """What was written in part was told to nobody."""
    file = OutboxFile.take(tmp_path / "amqp.1.outbox")
    file.write([row(1)])
    file.write([row(2)])
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    log = Path(f"{file.path}-wal").read_bytes()
    (crashed / "amqp.1.outbox").write_bytes(file.path.read_bytes())
    (crashed / "amqp.1.outbox-wal").write_bytes(log[:-100])
    file.close()
    folder, found = opened(crashed)
    assert found == ["m1"]
    run(folder, Batch(close=True))


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is not taken over, and the log says so once."""
    later = tmp_path / "amqp.2.outbox"
    with sqlite3.connect(filled(tmp_path, 1)) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    (tmp_path / "amqp.1.outbox").rename(later)
    folder, found = opened(tmp_path)
    run(folder, Batch(look=True))
    assert (found, caplog.text.count("is of a later version (99)")) == ([], 1)
    run(folder, Batch(close=True))
    assert later.exists()


@pytest.mark.parametrize("replaced", ["deleted", "moved", "moved without a new one", "lock deleted"])
def test_a_folder_that_is_replaced_under_a_client_keeps_all_that_was_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, replaced: str
) -> None:
    """What was said to be stored is there for the next process, in the order of the publishes."""
    path = tmp_path / "events"
    path.mkdir()
    folder = SQLiteStore(str(path), "amqp")
    assert 0 in run(folder, Batch(look=True, changes=puts(1, 2))).changed
    if replaced == "lock deleted":
        (path / "amqp.1.outbox.lock").unlink()
    elif replaced == "deleted":
        shutil.rmtree(path)
    else:
        path.rename(tmp_path / "elsewhere")
    if not path.exists():
        gone = run(folder, Batch(changes=puts(3)))
        assert (gone.changed, type(gone.problem)) == ({}, FileNotFoundError)
        path.mkdir()
    done = run(folder, Batch(changes=puts(4, deletes=[1])))
    assert (0 in done.changed, done.problem) == (True, None)
    assert caplog.text.count("was moved or deleted while in use") == 1
    run(folder, Batch(changes=puts(5)))
    (new,) = [each for each in files(path) if each.name != "amqp.1.outbox" or replaced != "lock deleted"]
    run(folder, Batch(close=True))
    with closing(OutboxFile(new)) as file:
        assert names(file.rows()) == ["m2", "m4", "m5"]


def test_a_file_is_moved_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves no pieces of it behind."""
    path = tmp_path / "events"
    path.mkdir()
    folder = SQLiteStore(str(path), "amqp")
    run(folder, Batch(look=True, changes=puts(1)))
    path.rename(tmp_path / "elsewhere")
    path.mkdir()
    with monkeypatch.context() as full:
        full.setattr(OutboxFile, "write", _full)
        for _ in range(3):
            assert type(run(folder, Batch(changes=puts(2))).problem) is sqlite3.OperationalError
            assert list(path.iterdir()) == []
    assert run(folder, Batch(look=True, load=(10, 10**6))).problem is None
    assert [each.name for each in files(path)] == ["amqp.1.outbox"]
    run(folder, Batch(close=True))


def _full(*_: object, **__: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def test_a_client_deletes_only_its_own_file(tmp_path: Path) -> None:
    """Not one that took the place of it."""
    path = tmp_path / "events"
    path.mkdir()
    file = OutboxFile.take(path / "amqp.1.outbox")
    path.rename(tmp_path / "elsewhere")
    path.mkdir()
    filled(path, 1)
    file.close(delete=True)
    assert {each.name for each in path.iterdir()} == {"amqp.1.outbox", "amqp.1.outbox.lock"}


def test_a_file_that_cannot_be_opened_keeps_none_from_being_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so once; it is taken over when it can be."""
    (tmp_path / "amqp.2.outbox").mkdir()
    folder = SQLiteStore(str(tmp_path), "amqp")
    for number in (1, 2):
        done = run(folder, Batch(look=True, changes=puts(number)))
        assert (0 in done.changed, done.problem) == (True, None)
    assert caplog.text.count(f"outbox {tmp_path}/amqp.2.outbox cannot be taken over: ") == 1
    (tmp_path / "amqp.2.outbox").rmdir()
    other = OutboxFile.take(tmp_path / "amqp.2.outbox")
    other.write([row(9)])
    other.close()
    totals = run(folder, Batch(look=True)).totals
    assert totals is not None
    assert totals.messages == 3
    assert "amqp.2.outbox was left by a client that is gone: 1 messages to send" in caplog.text
    run(folder, Batch(close=True))


def torn(path: Path, page: int = 9) -> bytes:
    """Make a file in which a page is zeroed; return its content."""
    content = bytearray(filled(path).read_bytes())
    content[PAGE * page : PAGE * (page + 1)] = bytes(PAGE)
    (path / "amqp.1.outbox").write_bytes(content)
    return bytes(content)


def test_a_crash_while_a_file_is_being_replaced_loses_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At no time is there no file of its name."""
    content = torn(tmp_path)
    folder = SQLiteStore(str(tmp_path), "amqp")
    with monkeypatch.context() as crash:
        crash.setattr(Path, "replace", _crash)
        with pytest.raises(SystemExit):
            run(folder, Batch(look=True, load=(10_000, 2**30)))
    # The end of a process leaves its locks.
    folder.abandon()
    assert (tmp_path / "amqp.1.outbox").read_bytes() == content
    folder, found = opened(tmp_path)
    assert 180 < len(found) < 200
    run(folder, Batch(close=True))


def _crash(*_: object) -> None:
    raise SystemExit


def test_a_repair_that_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk was full, for once."""
    torn(tmp_path)
    folder = SQLiteStore(str(tmp_path), "amqp")
    look = Batch(look=True, load=(10_000, 2**30))
    with monkeypatch.context() as full:
        full.setattr(salvage, "_copy", _full)
        for _ in range(3):
            assert run(folder, look).problem is not None
    done = [run(folder, look) for _ in range(3)][-1]
    assert (done.problem, 180 < len(done.rows) < 200) == (None, True)
    run(folder, Batch(close=True))


def test_a_full_disk_keeps_no_good_message_behind_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivering the others is what makes room."""
    path = filled(tmp_path, 3)
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("UPDATE messages SET message = x'00' WHERE number = 2")
    folder = SQLiteStore(str(tmp_path), "amqp")
    monkeypatch.setattr(OutboxFile, "write", _full)
    done = run(folder, Batch(look=True, load=(10, 10**6)))
    assert names(each for _, each in done.rows) == ["m1", "m3"]
    run(folder, Batch(close=True))


def test_a_damaged_message_stops_no_move_to_a_new_file(tmp_path: Path) -> None:
    """The file was deleted while it was in use; what is intact in it is kept, and new messages are stored."""
    folder = SQLiteStore(str(tmp_path), "amqp")
    assert 0 in run(folder, Batch(look=True, changes=puts(1, 2, 3))).changed
    with closing(sqlite3.connect(tmp_path / "amqp.1.outbox", isolation_level=None)) as file:
        file.execute("UPDATE messages SET message = 7 WHERE number = 2")
    for each in list(tmp_path.iterdir()):
        each.rename(tmp_path.parent / f"{tmp_path.name}-{each.name}")
    assert 0 in run(folder, Batch(changes=puts(4))).changed
    done = run(folder, Batch(look=True, load=(10, 10**6)))
    assert names(each for _, each in done.rows) == ["m1", "m3", "m4"]
    run(folder, Batch(close=True))


# Files of others


def _stored_in(path: Path) -> str:
    """Store a message as a client does, and return the name of the file that has it."""
    folder = SQLiteStore(str(path), "amqp")
    for number in (1, 2):
        assert run(folder, Batch(look=True, changes=puts(number))).problem is None
    (file,) = folder._folder._files.values()
    name = file.path.name
    run(folder, Batch(close=True))
    return name


def _link(path: Path) -> None:
    filled(path.parent.parent / "elsewhere", 1).rename(path.parent.parent / "target")
    path.symlink_to(path.parent.parent / "target")


def _dangling_link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "created")


def _writable(path: Path) -> None:
    filled(path.parent, 1).chmod(0o666)


def _of_another_user(path: Path) -> None:
    filled(path.parent, 1)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)


def _with_a_linked_log(path: Path) -> None:
    filled(path.parent, 1)
    Path(f"{path}-wal").symlink_to(path.parent.parent / "created")


def _with_a_linked_lock(path: Path) -> None:
    filled(path.parent, 1)
    lock_path(path).unlink()
    lock_path(path).symlink_to(path.parent.parent / "created")


def _later(path: Path) -> None:
    with closing(sqlite3.connect(filled(path.parent, 1), isolation_level=None)) as file:
        file.execute(f"PRAGMA user_version={VERSION + 1}")


def _with_a_trigger(path: Path) -> None:
    with closing(sqlite3.connect(filled(path.parent, 1), isolation_level=None)) as file:
        file.execute("CREATE TRIGGER t AFTER INSERT ON messages BEGIN DELETE FROM messages; END")


def _with_a_view(path: Path) -> None:
    with closing(sqlite3.connect(filled(path.parent, 1), isolation_level=None)) as file:
        file.executescript("ALTER TABLE messages RENAME TO m; CREATE VIEW messages AS SELECT * FROM m")


def _with_a_journal(path: Path) -> None:
    filled(path.parent, 1)
    Path(f"{path}-journal").write_bytes(b"")


FOREIGN = [
    _with_a_journal,
    Path.mkdir,
    os.mkfifo,
    _link,
    _dangling_link,
    _writable,
    _of_another_user,
    _with_a_linked_log,
    _with_a_linked_lock,
    _later,
    _with_a_trigger,
    _with_a_view,
]


@pytest.mark.parametrize("plant", FOREIGN)
def test_a_file_of_somebody_else_is_refused_by_name_and_the_next_number_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path], None]
) -> None:
    """Nothing of it is changed, nor what a link leads to; the log says so once."""
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "folder"
    folder.mkdir()
    plant(folder / "amqp.1.outbox")
    if plant is _of_another_user and (user := os.geteuid()):
        # Only root can give a file away.
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    before = _picture(tmp_path)
    assert _stored_in(folder) == "amqp.2.outbox"
    assert caplog.text.count(f"outbox {folder}/amqp.1.outbox cannot be taken over: ") == 1
    assert not (tmp_path / "created").exists()
    assert {path: seen for path, seen in _picture(tmp_path).items() if path in before} == before


def _picture(path: Path) -> dict[Path, object]:
    return {
        each: (each.lstat().st_mode, each.lstat().st_uid, each.is_file() and each.read_bytes())
        for each in path.rglob("*")
        if not each.name.endswith((".lock", "-shm")) and "amqp.2." not in each.name
    }


@pytest.mark.parametrize("mode", [0o640, 0o660, 0o644, 0o400])
def test_an_own_file_that_only_the_user_can_have_written_is_closed_and_sent(tmp_path: Path, mode: int) -> None:
    """Kubernetes opens a volume to a group, and a backup comes back as its user's umask says."""
    filled(tmp_path, 1).chmod(mode)
    folder, found = opened(tmp_path)
    assert found == ["m1"]
    assert (tmp_path / "amqp.1.outbox").stat().st_mode & 0o777 & ~mode <= 0o600
    assert {each.stat().st_mode & 0o077 for each in tmp_path.iterdir()} == {0}
    run(folder, Batch(close=True))


def test_files_are_those_of_one_client_in_order(tmp_path: Path) -> None:
    """Neither locks, logs, damaged files nor those of other names."""
    for name in ("amqp.10.outbox", "amqp.2.outbox", "amqp.2.outbox.lock", "audit.1.outbox", "amqp.1.outbox.damaged-1"):
        (tmp_path / name).touch()
    assert [path.name for path in files(tmp_path, "amqp")] == ["amqp.2.outbox", "amqp.10.outbox"]
    assert len(files(tmp_path)) == 3


# The command line


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run the command; returns its status and what it printed."""
    status = main(["outbox", *map(str, arguments)])
    return status, capsys.readouterr().out


def test_the_command_line_lists_shows_retries_and_drops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While a client has the file, too; text of strangers moves no cursor."""
    file = OutboxFile.take(tmp_path / "amqp.1.outbox")
    bad = row(2, b"evil \x1b[31m body", "m2\n")
    file.write([row(1), bad, row(3)], set_asides=[("(404) NOT_FOUND", 2), ("no", 3)])
    status, listed = command(capsys, "list", tmp_path)
    assert status == 0
    assert "amqp.1.outbox: 1 to send, 2 set aside" in listed and "in use" in listed
    assert "amqp.1.outbox:2 m2\\n set aside: (404) NOT_FOUND" in listed
    status, shown = command(capsys, "show", tmp_path, "amqp.1.outbox:2")
    assert (status, "\x1b" in shown, r"evil \x1b[31m body" in shown) == (0, False, True)
    assert command(capsys, "retry", tmp_path, "amqp.1.outbox:2") == (0, "amqp.1.outbox:2: will be sent\n")
    assert command(capsys, "drop", tmp_path, "--yes") == (0, "amqp.1.outbox:3: dropped\n")
    status, again = command(capsys, "drop", tmp_path, "amqp.1.outbox:3")
    assert (status, "no such message" in again) == (1, True)
    assert [each.number for each in file.load(10, 10**6)] == [1, 2]
    file.close()
    assert "not in use" in command(capsys, "list", tmp_path)[1]


@pytest.mark.parametrize(("types", "drops"), [("y", True), ("Yes", True), ("", False), ("no", False)])
def test_everything_is_dropped_only_if_somebody_agrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, types: str, drops: bool
) -> None:
    """A person at a terminal is asked; a script has to say --yes. Nothing set aside is nothing to ask about."""
    with closing(OutboxFile.take(tmp_path / "amqp.1.outbox")) as file:
        file.write([row(1), row(2)], set_asides=[("no", 1), ("no", 2)])
    assert main(["outbox", "drop", str(tmp_path)]) == 2
    assert "this would drop all 2 messages that were set aside: add --yes" in capsys.readouterr().err
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)

    def answer(question: str) -> str:
        asked.append(question)
        return types

    monkeypatch.setattr("builtins.input", answer)
    assert main(["outbox", "drop", str(tmp_path)]) == (0 if drops else 2)
    assert asked == ["Drop all 2 messages that were set aside? [y/N] "]
    assert ("nothing was dropped" in capsys.readouterr().err) is not drops
    with closing(OutboxFile(tmp_path / "amqp.1.outbox")) as file:
        assert file.totals().set_aside == (0 if drops else 2)
    monkeypatch.setattr("builtins.input", lambda _question: pytest.fail("asked about nothing"))
    assert main(["outbox", "drop", str(tmp_path)]) == 0 if drops else True


def test_the_folder_may_come_from_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an application's does, for one of several clients, too; a file that is gone is no bad usage."""
    with closing(OutboxFile.take(tmp_path / "amqp.1.outbox")) as file:
        file.write([row(1)], set_asides=[("no", 1)])
    monkeypatch.setenv("AUDIT_OUTBOX", str(tmp_path))
    assert main(["outbox", "--name", "audit", "list"]) == 0
    assert "1 set aside" in capsys.readouterr().out
    assert main(["outbox", "--name", "audit", "show", "amqp.1.outbox:1"]) == 0
    assert "message_id: m1" in capsys.readouterr().out
    for name, says in (
        ("amqp.2.outbox:1", "amqp.2.outbox: there is no such file"),
        ("amqp.1.outbox:7", "no such mess"),
    ):
        assert main(["outbox", "--name", "audit", "show", name]) == 1
        printed = capsys.readouterr()
        assert says in printed.err + printed.out
    other = tmp_path / "other"
    other.mkdir()
    assert main(["outbox", "list", str(other)]) == 0
    assert "there is no outbox in" in capsys.readouterr().err


@pytest.mark.parametrize("size", [100, 2048, 4000, 30_000])
def test_the_files_take_at_most_twice_what_the_messages_do(tmp_path: Path, size: int) -> None:
    """As the documentation says, with the log."""
    counted = taken = 0
    with closing(OutboxFile.take(tmp_path / "amqp.1.outbox")) as file:
        for start in range(0, 8 * 1024**2 // (size + 200), 100):
            rows = [row(number, bytes(size)) for number in range(start + 1, start + 101)]
            file.write(rows)
            counted += sum(each.size for each in rows)
            taken = sum(path.stat().st_size for path in tmp_path.iterdir())
        assert taken < 2 * counted + 5 * 1024**2


def test_a_look_leaves_nothing_that_keeps_a_client_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as a lock that belongs to root, who looked."""
    filled(tmp_path, 1)
    (tmp_path / "amqp.1.outbox.lock").unlink()
    before = {each.name for each in tmp_path.iterdir()}
    assert "amqp.1.outbox: 1 to send, 0 set aside" in command(capsys, "list", tmp_path)[1]
    assert {each.name for each in tmp_path.iterdir()} == before


def test_a_file_of_odd_types_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a stranger or the disk has put there moves no cursor, and blocks no command."""
    values: dict[str, object] = {
        "refusals": "\x1b[2J",
        "set_aside": b"\xff",
        "message": "\x1b[31m",
        "checksum": "x",
    }
    path = filled(tmp_path, len(values) + 4)
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("UPDATE messages SET set_aside = 'no'")
        for number, (column, value) in enumerate(values.items(), 1):
            file.execute(f"UPDATE messages SET {column} = ? WHERE number = ?", (value, number))  # noqa: S608
        octets = row(0).message
        broken = (struct.pack(">d", 9e99) + octets[8:], octets[:40], octets[:8] + b"\xff" * 6 + octets[14:], 1.5)
        for number, octet in enumerate(broken, len(values) + 1):
            file.execute("UPDATE messages SET message = ? WHERE number = ?", (octet, number))
    for action in ("list", "show", "retry"):
        status, printed = command(capsys, action, tmp_path)
        assert status == 0
        assert printed.isascii() and "\x1b" not in printed and printed.count("amqp.1.outbox") > len(values)
    status, printed = command(capsys, "show", tmp_path, "amqp.1.outbox:4")
    assert (status, "it is damaged on the disk" in printed, "body: xxx" in printed) == (0, True, True)
    assert "a stored message cannot be read" in command(capsys, "show", tmp_path, "amqp.1.outbox:3")[1]
    assert "it is damaged" not in command(capsys, "show", tmp_path, "amqp.1.outbox:2")[1]


def test_a_link_is_not_followed_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may lead to whatever its owner cannot read; files of others can be looked at."""
    target = filled(tmp_path, 1).rename(tmp_path / "target")
    (tmp_path / "amqp.1.outbox").symlink_to(target)
    assert main(["outbox", "list", str(tmp_path)]) == 1
    assert "amqp.1.outbox is no regular file" in capsys.readouterr().err


def test_a_bad_file_keeps_none_of_the_others_from_being_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named."""
    filled(tmp_path, 1)
    (tmp_path / "a.1.outbox").write_bytes(b"no database" * 1000)
    assert main(["outbox", "drop", str(tmp_path)]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert main(["outbox", "list", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "amqp.1.outbox: 1 to send" in printed.out
    assert printed.err == f"sprockets-amqp: {tmp_path}/a.1.outbox: file is not a database\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nowhere/at/all",),
        (".", "amqp.1.outbox:x"),
        (".", "../amqp.1.outbox:1"),
        ("{folder}", "amqp.1.outbox:99999999999999999999"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    tmp_path: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder or message that is none is bad usage."""
    filled(tmp_path, 1)
    assert main(["outbox", "show", *(each.format(folder=tmp_path) for each in arguments)]) == 2
    assert "sprockets-amqp:" in capsys.readouterr().err
