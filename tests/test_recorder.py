"""The recorder: what a client writes down of itself, and what that costs it and others."""

import argparse
import asyncio
import errno
import gc
import json
import logging
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sprockets_amqp import AMQPException, Client, State, StateChange
from sprockets_amqp.cli.command import read_settings
from sprockets_amqp.recording import ring
from sprockets_amqp.recording.ring import Ring
from sprockets_amqp.recording.trace import Line, NoTraceError, Pull, Trace, initial_states, read, written
from sprockets_amqp.states import MACHINES
from sprockets_amqp.testing import Broker
from tests.support.waiting import until

PASSWORD = "the-password"
URL = f"amqp://guest:{PASSWORD}@broker/%2f"
NOBODY = "amqp://guest:guest@127.0.0.1:1/%2f"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is to be made."""
    return tmp_path / "trace"


@pytest.fixture(autouse=True)
def no_threads() -> Iterator[None]:
    """No recorder's thread is left behind."""
    yield
    gc.collect()
    for thread in threads():
        thread.join(10)
    assert threads() == []


def threads() -> list[threading.Thread]:
    """The threads of recorders that run."""
    return [thread for thread in threading.enumerate() if thread.name == "recorder"]


def recorded(folder: Path) -> Trace:
    """What one client has written, once all of it is."""
    for each in list(ring._rings):
        each.finish(10)
    (trace,) = read([folder])
    return trace


def pulls(trace: Trace) -> list[Pull]:
    """The triggers that were pulled, with those in the course of them."""
    return [pull for line in trace.lines if line.pull for pull in line.pull.flat()]


# What is recorded


async def test_every_trigger_is_recorded_also_the_ignored_ones(amqp_broker: Broker, folder: Path) -> None:
    """With the states before and after, the reason, and what was pulled in the course of it."""
    async with Client(URL, recorder=folder) as client:
        await client.publish("", "key", b"an event")
        client._runtime.lifecycle.feed(client._runtime.lifecycle.connection_unblocked, "nothing blocks")
        amqp_broker.cut()
        await client.wait_for(State.CLOSED, 5)
    trace = recorded(folder)
    found = pulls(trace)
    first = next(line.pull for line in trace.lines if line.pull)
    assert (first.machine, first.trigger, first.source) == ("connection", "connect", "idle")
    assert ("outage", "outage_began", "calm", "counting") in {each[:4] for each in first.then}
    assert Pull("connection", "connection_unblocked", "ready", "", "nothing blocks") in found
    (lost,) = [each for each in found if each.trigger == "connection_closed" and each.dest == "closed (retrying)"]
    assert lost.source == "ready" and lost.reason
    assert found[-1].dest or found[-1].source
    states = initial_states()
    for each in found:
        assert states[each.machine] == each.source
        states[each.machine] = each.dest or each.source
    assert states["connection"] == "closed (stopped)"


async def test_what_it_shows_is_what_subscribers_are_told(amqp_broker: Broker, folder: Path) -> None:
    """The changes of the documented state, in order."""
    changes: list[StateChange] = []
    async with Client(URL, recorder=folder) as client:
        client.subscribe(changes.append)
        await client.wait_for(State.READY, 5)
        amqp_broker.block()
        published = client.publish("", "key", b"an event")
        await client.wait_for(State.BLOCKED, 5)
        amqp_broker.unblock()
        await published
    told = [(each.source.name.lower(), each.dest.name.lower(), each.trigger) for each in changes]
    names = [
        (each.source.partition(" (")[0], each.dest.partition(" (")[0], each.trigger)
        for each in pulls(recorded(folder))
        if each.machine == "connection" and each.dest
    ]
    assert [each for each in names if each[0] != each[1]] == told


def test_the_counters_are_recorded_once_a_second(amqp_broker: Broker, folder: Path) -> None:
    """And once more at the end."""
    client = Client(URL, recorder=folder, io_loop=amqp_broker.clock.io_loop)
    amqp_broker.run(client.wait_for(State.READY))
    client.publish("", "key", b"an event")
    for _ in range(5):
        amqp_broker.advance(1)
    amqp_broker.run(client.shutdown())
    counted = [line.counters for line in recorded(folder).lines if line.counters]
    assert len(counted) == 6
    assert counted[-1] == {name: getattr(client.counters, name) for name in counted[-1]}
    assert (counted[-1]["published"], counted[-1]["confirmed"]) == (1, 1)


async def test_what_was_not_sent_is_counted_apart(folder: Path) -> None:
    """Of what failed."""
    async with Client(NOBODY, recorder=folder, timeout=0, connection_attempts=1) as client:
        for _ in range(3):
            with pytest.raises(AMQPException):
                await client.publish("", "key", b"an event")
        with pytest.raises(AMQPException):
            await client.publish("", "key", b"an event", {"priority": 300})
    last = recorded(folder).lines[-1].counters
    assert (last["failed"], last["not_ready"]) == (4, 3)


async def test_nothing_of_a_message_and_no_password_is_recorded(amqp_broker: Broker, folder: Path) -> None:
    """Nor an exchange, a routing key, an id or a header."""
    secrets = ("a-body", "a-routing-key", "an-id", "a-header", "an-exchange")
    body, key, name, header, exchange = secrets
    async with Client(URL, recorder=folder) as client:
        await client.wait_for(State.READY, 5)
        amqp_broker.exchange_declare(exchange, "topic")
        await client.publish(exchange, key, body, {"message_id": name, "headers": {"x": header}})
        amqp_broker.cut()
        with pytest.raises(AMQPException):
            await client.publish(exchange, key, body, {"message_id": name, "headers": {"x": header}}, timeout=0)
    recorded(folder)
    text = "".join(path.read_text() for path in folder.iterdir())  # noqa: ASYNC240 - nothing else runs
    assert "connection_closed" in text
    for secret in (*secrets, PASSWORD):
        assert secret not in text


def test_a_reason_is_one_line_that_cannot_forge_another(folder: Path) -> None:
    """RabbitMQ's words are a stranger's."""
    hostile = 'bye\n{"at":1,"counters":{}}\x1b[31m\u2028' + "x" * 5000

    async def run() -> None:
        async with Client(NOBODY, recorder=folder) as client:
            client._runtime.lifecycle.feed(client._runtime.lifecycle.connection_failed, hostile)

    asyncio.run(run())
    (path,) = folder.iterdir()
    reasons = [each.reason for each in pulls(recorded(folder)) if each.reason.startswith("bye")]
    assert reasons and all(reason.isprintable() and len(reason) <= 500 for reason in reasons)
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


# Its files


def ring_of(folder: Path, *, size: int = 2000, files: int = 3, name: str = "amqp") -> Ring:
    """A ring of small files."""
    return Ring(str(folder), name, size, files)


def fill(its: Ring, lines: int, begin: int = 0) -> None:
    """Write numbered lines, and wait until they are."""
    for number in range(begin, begin + lines):
        its.put(Line(float(number), Pull("connection", "connect", "idle", "", f"{number:0100}")))
    its.finish(10)


def test_the_files_are_a_ring_of_bounded_ones(folder: Path) -> None:
    """The newest are kept, none is larger than it may be, and each says where it begins."""
    its = ring_of(folder)
    fill(its, 200)
    paths = sorted(folder.iterdir())
    assert len(paths) == 3
    assert all(path.stat().st_size <= 2000 for path in paths)
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o007 == 0 for path in paths)
    (trace,) = read([folder])
    assert not trace.is_whole
    numbers = [int(line.pull.reason) for line in trace.lines if line.pull]
    assert numbers == list(range(numbers[0], 200))


def test_the_states_are_known_at_the_beginning_of_each_file(folder: Path) -> None:
    """As those before it have left them."""
    its = ring_of(folder, size=400)
    for state in ("connecting (opening the connection)", "closed (retrying)") * 5:
        its.put(Line(1.0, Pull("connection", "x", "", state, "", (Pull("outage", "y", "", "counting"),))))
    its.finish(10)
    beginnings = [line for line in read([folder])[0].lines if line.states]
    assert beginnings[0].states["connection"] in {"closed (retrying)", "connecting (opening the connection)"}
    assert {line.states["outage"] for line in beginnings} == {"counting"}


def test_of_processes_that_are_gone_as_many_files_are_kept(folder: Path) -> None:
    """However often a process starts; files of processes that run, of other clients and of others are left alone."""
    running = ring_of(folder)
    running.put(Line(0.0, Pull("connection", "connect", "idle", "")))
    until_there(folder, 1)
    others = ring_of(folder, name="audit")
    fill(others, 1)
    (folder / "amqp-notes.jsonl").write_text("mine")
    for _ in range(10):
        fill(ring_of(folder), 1)
    names = sorted(path.name for path in folder.iterdir())
    assert "amqp-notes.jsonl" in names
    assert len([name for name in names if name.startswith("audit-")]) == 1
    # One runs, one was just begun, and three are kept.
    assert len([name for name in names if re.match(r"amqp-\d", name)]) == 5
    fill(running, 1)
    (folder / "amqp-notes.jsonl").unlink()
    assert len(read([folder])) == 6


def until_there(folder: Path, count: int) -> None:
    """Wait for so many files."""
    end = time.monotonic() + 10
    while time.monotonic() < end and len(list(folder.glob("*"))) < count:
        threading.Event().wait(0.01)


def test_a_client_that_is_started_again_continues(amqp_broker: Broker, folder: Path) -> None:
    """In the same file while there is room; while it is stopped, it has no thread."""
    client = Client(URL, recorder=folder, io_loop=amqp_broker.clock.io_loop)
    for count in (1, 2):
        amqp_broker.run(client.wait_for(State.READY))
        amqp_broker.run(client.shutdown())
        trace = recorded(folder)
        assert [line.part for line in trace.lines if line.states] == [1]
        assert sum(pull.dest == "ready" for pull in pulls(trace)) == count
        assert threads() == []
        if count == 1:
            client.connect()


# What may go wrong


def failing(*_: Any) -> int:
    """A disk that is full."""
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_full_disk_stops_recording_says_so_once_and_harms_nothing(
    amqp_broker: Broker, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is recorded after that is dropped."""
    monkeypatch.setattr("sprockets_amqp.recording.ring.os.write", failing)
    async with Client(URL, recorder=folder) as client:
        await client.publish("", "key", b"an event")
        await until(lambda: "recording has stopped" in caplog.text)
        amqp_broker.cut()
        await client.wait_for(State.CLOSED, 5)
        await client.wait_for(State.READY, 20)
        await client.publish("", "key", b"an event")
    lines = [record for record in caplog.records if record.name == "sprockets_amqp.recorder"]
    assert [(record.levelno, record.getMessage()) for record in lines] == [
        (logging.ERROR, f"recorder {folder}: recording has stopped: OSError: [Errno 28] No space left on device")
    ]


async def test_a_disk_that_hangs_is_given_up_and_holds_nobody_up(
    amqp_broker: Broker, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory is bounded, and publishing goes on."""
    answer = threading.Event()
    monkeypatch.setattr(ring, "MOST_WAITING", 5)
    monkeypatch.setattr(ring._Files, "write", lambda *_: answer.wait(20))
    try:
        async with Client(URL, recorder=folder) as client:
            await client.wait_for(State.READY, 5)
            for _ in range(20):
                client._runtime.lifecycle.feed(client._runtime.lifecycle.connection_unblocked)
            await client.publish("", "key", b"an event")
            assert client._runtime._ring is not None
            assert client._runtime._ring._lines.qsize() <= 7
            amqp_broker.cut()
    finally:
        answer.set()
    assert caplog.text.count("recording has stopped: the disk does not take what is recorded: 5 lines wait") == 1


def test_a_line_that_was_cut_short_is_left_out_and_anything_else_is_no_trace(folder: Path) -> None:
    """A process may have been killed while it wrote; files may be anything."""
    folder.mkdir()
    path = folder / "amqp-1.jsonl"
    start = written(Line(1.0, states=initial_states(), client="amqp", process=1, run="amqp-1", part=1))
    step = written(Line(2.0, Pull("connection", "connect", "idle", "")))
    path.write_bytes(start + step + step[:-9])
    assert len(read([path])[0].lines) == 2
    wrong: dict[bytes, str] = {
        b"": "nothing is recorded there",
        step: "line 1: it is not the beginning of a recorder's file",
        start + b"nonsense\n": "line 2: it is not a line of a recorder",
        start + b"[" * 100_000 + b"\n": "line 2: it is not a line of a recorder",
        start + b"\xff\xfe\n": "line 2: it is not a line of a recorder",
        start + b'{"at":1,"machine":7}\n': "line 2: machine is missing, or is not what it must be",
        start + b'{"at":' + b"9" * 400 + b',"counters":{}}\n': "line 2: at is out of range",
        start + b'{"at":1,"counters":{"a":' + b"9" * 400 + b"}}\n": "line 2: a is out of range",
        start.replace(b'"format":1', b'"format":' + b"9" * 400): "line 1: format is out of range",
        start + bytes(100) + b"\n": "line 2: it is not a line of a recorder",
        start + b'{"at":NaN,"counters":{}}\n': "line 2: at is out of range",
        start + b'{"at":true,"counters":{}}\n': "line 2: at is missing",
        start + b'{"at":1,"counters":{"a":"b"}}\n': "line 2: a is missing",
        start + b'{"at":1,"machine":"m","trigger":"t","from":"f","then":[1]}\n': "line 2: machine is missing",
        start + b"x" * (1024 * 1024 + 1): "line 2: it is longer than",
        start.replace(b'"format":1', b'"format":2'): "line 1: it is of format 2; this version reads 1",
        b"null\n": "line 1: at is missing",
    }
    for octets, words in wrong.items():
        path.write_bytes(octets)
        with pytest.raises(NoTraceError) as caught:
            read([path])
        assert words in str(caught.value) and str(path) in str(caught.value)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_of_a_damaged_file_what_comes_before_is_read_where_somebody_is_told(folder: Path) -> None:
    """And what a reader does not know, it leaves out."""
    folder.mkdir()
    path = folder / "amqp-20261130T031200.000000-1-000001.jsonl"
    start = written(Line(1.0, states=initial_states(), client="amqp", process=1, run="amqp-1", part=1))
    step = written(Line(2.0, Pull("connection", "connect", "idle", "")))
    path.write_bytes(start + b'{"at":1.5,"note":"of later versions"}\n' + step + bytes(50) + b"\n" + step)
    problems: list[str] = []
    (trace,) = read([folder], problems.append)
    assert [line.pull.trigger for line in trace.lines if line.pull] == ["connect"]
    assert len(problems) == 1 and f"{path}, line 4: it is not a line of a recorder" in problems[0]


def test_of_a_folder_only_the_files_of_recorders_are_read(folder: Path) -> None:
    """Each once; and what is given by name must be a file."""
    fill(ring_of(folder), 1)
    (path,) = folder.iterdir()
    (folder / "notes.jsonl").write_text("mine")
    (folder / f"{path.stem[:-1]}9.jsonl").mkdir()
    assert len(read([folder, path, folder])) == 1
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(NoTraceError, match="fifo: it is not a file"):
        read([fifo])


def test_the_order_of_files_is_that_of_their_numbers(folder: Path) -> None:
    """The clock may have been set back between two of them."""
    its = ring_of(folder, size=400)
    for number in range(3):
        its.put(Line(100.0 - number, Pull("connection", "connect", "idle", "", str(number))))
    its.finish(10)
    (trace,) = read([folder])
    assert [line.pull.reason for line in trace.lines if line.pull] == ["0", "1", "2"]
    times = [at for at, _ in trace.moments()]
    assert times == sorted(times)


def test_recorders_of_the_same_name_are_told_apart(folder: Path) -> None:
    """There may be several clients of one name in a process."""
    for _ in range(2):
        fill(ring_of(folder), 1)
    assert [trace.name for trace in read([folder])] == [f"amqp {os.getpid()} #1", f"amqp {os.getpid()} #2"]


def test_a_file_that_is_removed_is_begun_anew(folder: Path) -> None:
    """Within a second: what is recorded is to be found."""
    its = ring_of(folder)
    fill(its, 1)
    (first,) = folder.iterdir()
    its.put(Line(1.0, Pull("connection", "connect", "idle", "")))
    its.put(Line(1.0, counters={"published": 1}))
    end = time.monotonic() + 10
    while b"counters" not in first.read_bytes() and time.monotonic() < end:
        threading.Event().wait(0.01)
    first.unlink()
    folder.rmdir()
    its.put(Line(2.0, counters={"published": 2}))
    its.finish(10)
    (second,) = folder.iterdir()
    assert second != first and read([second])[0].lines[-1].counters == {"published": 2}


def test_a_thread_that_cannot_be_started_stops_recording(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """There may be no room for another one."""

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    its = ring_of(folder)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        its.put(Line(1.0, counters={"published": 1}))
    its.put(Line(1.0, counters={"published": 1}))
    its.finish(1)
    assert caplog.text.count("recording has stopped: RuntimeError: can't start new thread") == 1


def has_refusal(folder: Path) -> bool:
    """Whether one has been recorded; there may be no file yet, or nothing in it."""
    try:
        return any(line.counters.get("not_ready") for trace in read([folder]) for line in trace.lines)
    except (FileNotFoundError, NoTraceError):
        return False


async def test_what_is_refused_while_a_client_is_closed_or_idle_is_counted(amqp_broker: Broker, folder: Path) -> None:
    """Nothing is pulled then; the counters are recorded all the same, until the client is shut down."""
    client = Client(URL, recorder=folder)
    await client.wait_for(State.READY, 5)
    client.close()
    await client.wait_for(State.CLOSED, 5)
    with pytest.raises(AMQPException):
        await client.publish("", "key", b"an event")
    await until(lambda: has_refusal(folder))
    assert amqp_broker.connections == []
    await client.shutdown()
    assert recorded(folder).lines[-1].counters["not_ready"] == 1


class Stubborn(Client):
    """A client whose subclass does not connect."""

    def connect(self) -> None:
        """Raise."""
        raise RuntimeError("not now")


async def test_a_client_that_never_connects_is_recorded_as_well(folder: Path) -> None:
    """What is asked of it fails."""
    client = Stubborn(NOBODY, recorder=folder)
    with pytest.raises(AMQPException):
        await client.publish("", "key", b"an event", timeout=0)
    await until(lambda: folder.exists() and any(folder.iterdir()))
    await client.shutdown()
    assert recorded(folder).lines[-1].counters["not_ready"] == 1


@pytest.mark.parametrize(
    ("url", "hidden"),
    [
        (f"amqp://user:{PASSWORD}@host/%2f", "amqp://user:***@host/%2f"),
        (f"amqp://user:{PASSWORD}@@host/%2f", "amqp://user:***@host/%2f"),
        (f"amqp://one,amqp://user:{PASSWORD}@two", "amqp://one,amqp://user:***@two"),
        (f"postgresql://user:{PASSWORD}@host/events", "postgresql://user:***@host/events"),
    ],
)
async def test_the_password_in_what_an_application_raised_is_hidden(folder: Path, url: str, hidden: str) -> None:
    """A reason quotes what `setup` raised."""
    async with Client(NOBODY, recorder=folder) as client:
        lifecycle = client._runtime.lifecycle
        lifecycle.feed(lifecycle.connection_failed, f"cannot log in as {url} today")
    (reason,) = [each.reason for each in pulls(recorded(folder)) if each.reason.startswith("cannot log in")]
    assert reason == f"cannot log in as {hidden} today"


KILLED = """
import asyncio, sys, time
from sprockets_amqp import Client
async def main():
    client = Client("amqp://guest:guest@127.0.0.1:1/%2f", recorder=sys.argv[1])
    lifecycle = client._runtime.lifecycle
    number = 0
    while True:
        number += 1
        lifecycle.feed(lifecycle.connection_unblocked, f"number {number}")
        print(number, time.time(), flush=True)
        await asyncio.sleep(0.01)
asyncio.run(main())
"""


def test_a_process_that_is_killed_loses_at_most_the_last_second(folder: Path) -> None:
    """SIGKILL, at any time."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    done = [process.stdout.readline().split() for _ in range(150)]
    process.send_signal(signal.SIGKILL)
    done += [line.split() for line in process.stdout.read().splitlines() if len(line.split()) == 2]
    process.wait()
    process.stdout.close()
    (trace,) = read([folder])
    numbers = {int(each.reason.split()[1]) for each in pulls(trace) if each.reason.startswith("number ")}
    last = float(done[-1][1])
    assert {int(number) for number, at in done if float(at) < last - 1} <= numbers


FORKED = """
import asyncio, os, sys
from sprockets_amqp import AMQPException, Client
async def use():
    try:
        await client.publish("", "key", b"an event", timeout=0)
    except AMQPException:
        pass
    await client.shutdown(1)
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
client = Client("amqp://guest:guest@127.0.0.1:1/%2f", recorder=sys.argv[1])
loop.run_until_complete(asyncio.sleep(0.1))
child = os.fork()
if not child:
    asyncio.run(use())
    sys.exit()
print(child, flush=True)
assert os.waitpid(child, 0)[1] == 0
loop.run_until_complete(use())
"""


def test_a_fork_has_files_of_its_own(folder: Path) -> None:
    """And each process tells what it did, up to its end, of which nothing is lost."""
    with subprocess.Popen([sys.executable, "-c", FORKED, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        child = int(process.communicate(timeout=60)[0])
    assert process.returncode == 0
    of_parent, of_child = read([folder])
    assert (of_parent.process, of_child.process) == (process.pid, child)
    for trace in (of_parent, of_child):
        assert trace.is_whole
        found = pulls(trace)
        assert (found[0].trigger, found[0].source) == ("connect", "idle")
        assert ("connection", "closed (stopped)") in {(each.machine, each.dest) for each in found}
        assert trace.lines[-1].counters["not_ready"] == 1


# What it costs


def test_without_a_recorder_nothing_of_it_is_there(amqp_broker: Broker) -> None:
    """No callback, no timer, no module."""
    code = "import sprockets_amqp, sys; print([each for each in sys.modules if 'recording' in each])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    amqp_broker.own_loop()


async def test_a_publish_pulls_no_trigger_and_hands_nothing_over(amqp_broker: Broker, folder: Path) -> None:
    """Its counters are read once a second."""
    async with Client(URL, recorder=folder) as client:
        await client.publish("", "key", b"an event")
        its = client._runtime._ring
        assert its is not None
        put: list[Any] = []
        recorder = client._runtime._recorders[0]
        recorder._put = put.append
        amqp_broker.queue_declare("q")
        futures = [client.publish("", "q", b"an event") for _ in range(500)]
        await asyncio.wait(futures)
        assert [line for line in put if line.pull] == []
        recorder._put = its.put
    assert len(amqp_broker.messages("q")) == 500


# Settings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "must be the path of a file"),
        (b"trace", "must be the path of a file"),
        ("missing/trace", "must be a folder, or a new one in an existing folder"),
        ("file", "must be a folder, or a new one in an existing folder"),
        ("x" * 5000, "must be"),
    ],
)
def test_a_folder_that_cannot_be_is_refused(tmp_path: Path, given: Any, words: str) -> None:
    """In words, when the client is made."""
    (tmp_path / "file").write_text("")
    value = str(tmp_path / given) if isinstance(given, str) and given else given
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        Client(NOBODY, recorder=value)
    assert str(caught.value).startswith("recorder (argument recorder) ")


def test_all_machines_are_recorded() -> None:
    """In a file's beginning."""
    assert list(initial_states()) == [machine.name for machine in MACHINES]


def test_the_process_is_named(folder: Path) -> None:
    """In the files' names, and in what is in them."""
    fill(ring_of(folder), 1)
    (path,) = folder.iterdir()
    (trace,) = read([path])
    assert re.fullmatch(rf"amqp-\d{{8}}T\d{{6}}\.\d{{6}}-{os.getpid()}-000001\.jsonl", path.name)
    assert trace.process == os.getpid() and trace.name == f"amqp {os.getpid()}"


def test_a_command_does_not_write_into_an_applications_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its few steps would take the place of what the application has recorded."""
    monkeypatch.setenv("AMQP_RECORDER", str(folder))
    assert read_settings(argparse.Namespace(name="amqp"))["recorder"] is None


def test_a_file_is_not_so_small_that_it_holds_nothing() -> None:
    """A ring of such files would."""
    with pytest.raises(ValueError, match=r"recorder_size .* must be a number of bytes, 65536 or more, not 1"):
        Client(NOBODY, recorder_size=1)
