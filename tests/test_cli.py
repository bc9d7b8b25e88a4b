"""The command line, as people run it: in processes of its own, with their exit statuses, and in a terminal."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from sprockets_amqp.drawing import diagrams, scxml
from tests.support.command import COMMAND, run, start
from tests.support.consume import Queue, declare_queue
from tests.support.terminal import Terminal
from tools.rabbitmq import Node, free_port

#: Without rich, as where the extra `cli` is not installed.
WITHOUT_RICH = (
    "import sys; sys.modules['rich'] = None; from sprockets_amqp.cli import main; sys.exit(main(sys.argv[1:]))"
)


def to(queue: Queue, *others: str) -> list[str]:
    """The arguments of a publish to a queue."""
    return ["publish", "--url", queue.url, "--exchange", queue.exchange, "--routing-key", queue.routing_key, *others]


def write_lines(path: Path, *lines: object) -> str:
    """Write a file of lines."""
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


@pytest.fixture
async def full_queue(broker: Node) -> AsyncIterator[Queue]:
    """A queue that takes one message and refuses the others."""
    declared = await declare_queue(broker.url, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    yield declared
    await declared.delete()


# publish


async def test_a_message_is_published_with_its_properties(queue: Queue) -> None:
    """Properties have AMQP's types, headers JSON's, and the message that is told is the one in the queue."""
    properties = ["--property", "priority=3", "--property", "content_type=text/plain", "--header", "n=5"]
    result = await run(*to(queue, "--body", "größe", *properties, "--header", "text=five"))
    assert (result.status, result.err) == (0, "")
    (message,) = await queue.messages()
    assert message.body == "größe".encode()
    assert (message.properties.priority, message.properties.content_type) == (3, "text/plain")
    assert message.properties.headers == {"n": 5, "text": "five"}
    assert result.out == f"confirmed: message {message.message_id}\n"


async def test_the_standard_input_is_the_body_unless_one_is_given(queue: Queue) -> None:
    """Octets arrive as they were; the URL may come from the environment."""
    arguments = ["publish", "--exchange", queue.exchange, "--routing-key", queue.routing_key]
    result = await run(*arguments, given=b"\x00\xff\n", AMQP_URL=queue.url, RABBITMQ_URL="amqp://nobody:x@a.invalid")
    assert result.status == 0
    assert [message.body for message in await queue.messages()] == [b"\x00\xff\n"]


async def test_a_message_that_no_queue_takes_is_told_as_returned(queue: Queue) -> None:
    """The status says that it was not confirmed, the one line why."""
    result = await run("publish", "--url", queue.url, "--exchange", queue.exchange, "--body", "lost")
    assert (result.status, result.out) == (1, "")
    assert re.fullmatch(r"returned: .*NO_ROUTE.*\n", result.err)


async def test_a_message_without_a_broker_is_unfinished() -> None:
    """It waits for as long as it is told, and says why it was not sent; no password is shown."""
    url = f"amqp://guest:hidden@127.0.0.1:{free_port()}"
    result = await run("publish", "--url", url, "--timeout", "0.5", "--body", "x", "-vvv")
    assert result.status == 1
    assert "unfinished: " in result.err and "refused" in result.err
    assert "hidden" not in result.err


async def test_a_message_that_is_not_sent_in_time_is_told_with_the_reason() -> None:
    """Within the time that the sender has given it, and without advice for request handlers."""
    url = f"amqp://guest:guest@127.0.0.1:{free_port()}"
    result = await run("publish", "--url", url, "--timeout", "1", "--body", "")
    assert (result.status, result.out) == (1, "")
    assert re.match(
        r"unfinished: connection is Closed \(TCP to .*: Connection refused\); message .* was not sent$", result.err
    )


async def test_ctrl_c_ends_a_message_that_waits_for_a_broker() -> None:
    """It is told as unfinished, and the status is the signal's."""
    node = f"127.0.0.1:{free_port()}"
    url = f"amqp://guest:guest@{node}?retry_delay=0"
    async with Terminal(COMMAND, "publish", "--url", url, "--timeout", "600", "--body", "x", "-v") as terminal:
        await terminal.shows(f"trying {node} in ")
        terminal.press("C-c")
        assert "unfinished: " in await terminal.shows("exit status 130")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["publish", "--property", "colour=red"], "'colour' is not one of content_type"),
        (["publish", "--property", "headers=1"], "use --header for headers"),
        (["publish", "--property", "priority=high"], "priority must be a whole number, not 'high'"),
        (["publish", "--property", "priority"], "'priority' is not NAME=VALUE"),
        (["publish", "--property", "priority=300"], "priority must be an int from 0 to 255"),
        (["publish", "--routing-key", "x" * 256], "routing_key has 256 octets"),
        (["publish", "--header", "n=0.5"], "headers hold a value that AMQP cannot encode"),
        (["publish", "--header", f"n={'[' * 50_000}"], "argument --header: n has too many levels"),
        (["publish", "--timeout", "soon"], "timeout (argument timeout) must be a number"),
        (["publish", "--lines", "/nowhere/at/all"], "No such file"),
        (["check", "amqp://guest:hidden@host:port/"], "url (argument url) is not an AMQP URL"),
        (["check", "--limit", "0"], "argument --limit: must be a number of seconds above 0, not 0"),
        (["check", "--limit", "soon"], "argument --limit: must be a number of seconds above 0, not soon"),
        (["outbox", "list"], "give the folder or URL of the setting outbox, or set AMQP_OUTBOX"),
        (["outbox", "list", "x" * 5000], "is not a folder: File name too long"),
        (["outbox", "show", "/etc", "events"], "'events' is not a message: write it as list shows it"),
        (["watch", "--url", "http://host"], "must begin with amqp://"),
        (["diagram", "--print", "photo"], "invalid choice: 'photo'"),
        ([], "required: COMMAND"),
    ],
)
async def test_bad_usage_is_one_line_and_status_2(arguments: list[str], complaint: str) -> None:
    """Nothing is connected or sent, and nobody sees a traceback or a password."""
    result = await run(*arguments)
    assert (result.status, result.out) == (2, "")
    assert complaint in result.err.splitlines()[-1]
    assert "Traceback" not in result.err and "hidden" not in result.err


async def test_a_bad_variable_is_named() -> None:
    """The environment is checked as an application's is."""
    result = await run("watch", AMQP_MAX_WAITING="lots")
    assert result.status == 2
    assert "environment variable AMQP_MAX_WAITING" in result.err


# publish --lines


async def test_each_line_of_a_file_is_a_message(queue: Queue, tmp_path: Path) -> None:
    """Far more than are on the wire at a time arrive in order, and the summary counts them."""
    result = await run(*to(queue, "--max-unconfirmed", "7", "--lines", write_lines(tmp_path / "lines", *range(5000))))
    assert (result.status, result.out) == (0, "5000 lines: 5000 confirmed\n")
    assert [message.body for message in await queue.messages()] == [b"%d" % n for n in range(5000)]


async def test_lines_end_as_they_do_on_any_system(queue: Queue) -> None:
    """Line ends are no part of the message, the last line needs none, and an empty line is an empty message."""
    result = await run(*to(queue, "--lines", "-"), given=b"one\r\n\ntwo \nthree")
    assert (result.status, result.out) == (0, "4 lines: 4 confirmed\n")
    assert [message.body for message in await queue.messages()] == [b"one", b"", b"two ", b"three"]


async def test_lines_that_a_queue_refuses_are_listed(full_queue: Queue) -> None:
    """The first is confirmed, the numbers of the nacked ones are told."""
    result = await run(*to(full_queue, "--lines", "-", "--max-unconfirmed", "1"), given=b"1\n2\n3\n")
    assert result.status == 1
    assert result.out.startswith("3 lines: 1 confirmed, 2 nacked\nnacked: lines 2-3; the first: message ")


async def test_the_first_line_to_a_missing_exchange_is_the_last(broker: Node) -> None:
    """What every other line would meet is told once, and where to go on."""
    arguments = ["publish", "--url", broker.url, "--exchange", "nowhere", "--lines", "-", "--max-unconfirmed", "2"]
    result = await run(*arguments, given=b"x\n" * 100_000)
    assert result.status == 1
    first, reason, end = result.out.splitlines()
    # Those that were on their way when the first one's outcome was known had the same.
    counts = re.fullmatch(r"([1-9]) lines: \1 refused", first)
    assert counts is not None
    assert reason.startswith("refused: lines 1-") and "NOT_FOUND - no exchange 'nowhere'" in reason
    assert end == f"stopped: nothing was sent from line {int(counts[1]) + 1} on"


async def test_a_folder_is_no_file_of_lines(queue: Queue) -> None:
    """What the system says about it is told in one line."""
    result = await run(*to(queue, "--lines", "/"))
    assert (result.status, result.err) == (1, "sprockets-amqp: [Errno 21] Is a directory\n")


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[str, BinaryIO]]:
    """A pipe that stays open: its path for a reader, and a file to write lines into it."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    # Read and write: opening does not wait for the other side.
    with os.fdopen(os.open(path, os.O_RDWR), "wb", buffering=0) as writer:
        yield str(path), writer


async def test_ctrl_c_tells_what_was_confirmed_and_where_to_go_on(queue: Queue, pipe: tuple[str, BinaryIO]) -> None:
    """The bar shows what is confirmed, and the status is the signal's."""
    path, writer = pipe
    async with Terminal(COMMAND, *to(queue, "--lines", path)) as terminal:
        writer.write(b"one\ntwo\n")
        await terminal.shows("2 confirmed")
        terminal.press("C-c")
        screen = await terminal.shows("exit status 130")
    assert "━" in screen
    assert "2 lines: 2 confirmed\nstopped: nothing was sent from line 3 on\n" in screen
    assert [message.body for message in await queue.messages()] == [b"one", b"two"]


async def test_ctrl_c_tells_what_a_frozen_broker_did_not_confirm(node: Node, pipe: tuple[str, BinaryIO]) -> None:
    """What is on the wire is told as unknown, with its line numbers; a second Ctrl-C does not wait for it."""
    path, writer = pipe
    queue = await declare_queue(node.url)
    async with Terminal(COMMAND, *to(queue, "--lines", path)) as terminal:
        writer.write(b"one\n")
        await terminal.shows("1 confirmed")
        node.pause()
        writer.write(b"two\nthree\n")
        await terminal.shows("1 confirmed, 2 pending")
        terminal.press("C-c")
        terminal.press("C-c")
        screen = await terminal.shows("exit status 130")
    assert "3 lines: 1 confirmed, 2 unknown\nunknown: lines 2-3; the first: message " in screen
    assert "stopped: nothing was sent from line 4 on\n" in screen


async def test_ctrl_c_tells_what_was_never_sent(tmp_path: Path) -> None:
    """Without a broker no line has gone out, and all that were read are told as unfinished."""
    lines = ["--lines", write_lines(tmp_path / "lines", *range(5)), "--timeout", "60"]
    async with Terminal(COMMAND, "publish", "--url", "amqp://127.0.0.1:2", "--routing-key", "q", *lines) as terminal:
        await terminal.shows("5 pending")
        terminal.press("C-c")
        terminal.press("C-c")
        screen = await terminal.shows("exit status 130")
    assert "5 lines: 5 unfinished\nunfinished: lines 1-5; the first: " in screen


async def test_without_rich_progress_is_told_in_plain_lines(queue: Queue, pipe: tuple[str, BinaryIO]) -> None:
    """The extra is not needed."""
    path, writer = pipe
    async with Terminal(sys.executable, "-c", WITHOUT_RICH, *to(queue, "--lines", path)) as terminal:
        writer.write(b"one\n")
        await terminal.shows("line 1: 1 confirmed")
        terminal.press("C-c")
        assert "━" not in await terminal.shows("exit status 130")


# watch


async def test_watch_shows_the_broker_go_and_come_back(node: Node) -> None:
    """Each change is a line with its trigger and reason; Ctrl-C closes the connection and ends with 0."""
    async with Terminal(COMMAND, "watch", "--url", node.url, "--reconnect-delay", "0.2") as terminal:
        await terminal.shows("connecting -> ready")
        await node.stop()
        await terminal.shows("ready -> closed")
        await node.start()
        await terminal.shows("connecting -> ready", times=2)
        terminal.press("C-c")
        screen = await terminal.shows("exit status 0")
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3} idle -> connecting +connect$", screen, re.MULTILINE)
    assert re.search(r"ready -> closed +connection_closed +\(320\) CONNECTION_FORCED", screen)
    assert "reconnects 1" in screen
    assert re.search(r"closing -> closed .*\nexit status 0", screen)
    assert "guest" not in screen.replace(f"--url {node.url}", "")


async def test_watch_writes_lines_of_json_for_machines(broker: Node) -> None:
    """Each line says source, dest, trigger, reason, time and counters."""
    process = await start("watch", "--json", AMQP_URL=broker.url)
    assert process.stdout is not None
    lines = [json.loads(await asyncio.wait_for(process.stdout.readline(), 60)) for _ in range(2)]
    process.send_signal(signal.SIGTERM)
    out, err = await process.communicate()
    lines += map(json.loads, out.splitlines())
    assert (process.returncode, err) == (0, b"")
    assert [line["dest"] for line in lines] == ["connecting", "ready", "closing", "closed"]
    assert set(lines[0]) == {"source", "dest", "trigger", "reason", "at", "counters"}
    assert lines[1]["trigger"] == "channel_opened" and lines[1]["counters"]["reconnects"] == 0


async def test_watch_ends_when_nobody_reads_any_more(broker: Node) -> None:
    """A closed pipe is no traceback."""
    watch = f"{COMMAND} watch --json --url {broker.url}"
    process = await asyncio.create_subprocess_shell(
        f"{watch} | head -n 1", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert json.loads(out)["dest"] == "connecting"
    assert err == b""


async def test_ctrl_c_ends_watch_while_there_is_no_broker() -> None:
    """Also between two attempts to connect."""
    url = f"amqp://guest:guest@127.0.0.1:{free_port()}?retry_delay=0"
    async with Terminal(COMMAND, "watch", "--url", url) as terminal:
        await terminal.shows("connecting -> closed")
        terminal.press("C-c")
        await terminal.shows("exit status 0")


# diagram, and all of them


@pytest.mark.parametrize(
    ("kind", "drawn"),
    [
        ("mermaid", diagrams.mermaid()),
        ("dot", diagrams.dot()),
        ("svg", diagrams.svg_file()),
        ("table", diagrams.table()),
        ("scxml", scxml.scxml()),
    ],
)
async def test_a_diagram_is_printed(kind: str, drawn: str) -> None:
    """What is printed is what is declared."""
    result = await run("diagram", "--print", kind)
    assert (result.status, result.out, result.err) == (0, drawn, "")


async def test_diagrams_are_written_into_a_folder(tmp_path: Path) -> None:
    """Each file that was written is named."""
    result = await run("diagram", "--output", str(tmp_path / "new"))
    assert result.status == 0
    assert sorted(map(Path, result.out.splitlines())) == sorted((tmp_path / "new").iterdir())
    assert (tmp_path / "new" / "lifecycle.mmd").read_text() == diagrams.mermaid()


async def test_a_folder_that_cannot_be_made_is_status_1() -> None:
    """The system's word is passed on in one line."""
    result = await run("diagram", "--output", "/dev/null/folder")
    assert result.status == 1
    assert re.fullmatch(r"sprockets-amqp: .*Not a directory.*\n", result.err)


@pytest.mark.parametrize("command", ["check", "diagram", "publish", "watch"])
async def test_the_help_of_a_command_says_its_exit_statuses(command: str) -> None:
    """Scripts are written from it."""
    result = await run(command, "--help", COLUMNS="200")
    assert result.status == 0
    assert re.search(r"Exit status: 0 .* 2 bad usage", " ".join(result.out.split()))


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "amqp://größe.invalid"],
        ["publish", "--url", "amqp://größe.invalid", "--timeout", "0", "--body", "", "--routing-key", "größe"],
        ["outbox", "list", "/größe"],
        ["outbox", "show", "/", "größe"],
        ["diagram", "--print", "table"],
        ["diagram", "--print", "größe"],
    ],
)
async def test_what_a_terminal_cannot_show_is_escaped(arguments: list[str]) -> None:
    """An encoding without the letters of a name ends no command with a traceback."""
    result = await run(*arguments, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert "Traceback" not in result.err and "UnicodeEncodeError" not in result.err
    assert result.out + result.err


async def test_a_client_whose_variable_is_not_set_is_told_to_be_the_default() -> None:
    """The first line names the client, and where its URL comes from."""
    port = free_port()
    there = {"OTHER_URL": f"amqp://127.0.0.1:{port}", "RABBITMQ_URL": f"amqp://127.0.0.1:{port}"}
    for arguments, environment, says in (
        (["--name", "other"], {}, "client other: the default URL, because OTHER_URL is not set"),
        (["--name", "other"], there, "client other: the URL in OTHER_URL"),
        ([], {}, "client amqp: the default URL, because AMQP_URL and RABBITMQ_URL are not set"),
        ([], there, "client amqp: the URL in RABBITMQ_URL"),
        ([there["OTHER_URL"]], {}, "client amqp: the URL of the command line"),
    ):
        variables: dict[str, Any] = {"AMQP_URL": "", "RABBITMQ_URL": "", **environment}
        result = await run("check", *arguments, "--limit", "2", **variables)
        assert result.out.splitlines()[0] == says


async def test_the_module_is_the_same_command() -> None:
    """`python -m sprockets_amqp` runs where the script is not on the PATH."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sprockets_amqp", "--version", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.decode() == (await run("--version")).out
