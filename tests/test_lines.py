"""Publishing lines: the account of what became of them, and the bounds of what is kept in memory."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sprockets_amqp import ExchangeRefused, MessageNacked, NotReadyError, OutcomeUnknown
from sprockets_amqp.cli import lines as lines_module
from sprockets_amqp.cli.lines import CHUNK_SIZE, MAX_RANGES, READ_AHEAD, Account, Sender, read_lines
from sprockets_amqp.many import Outcomes, Window


class Broker:
    """Takes messages, and settles them when it is told to: a real one cannot be made to do so in a given order."""

    def __init__(self) -> None:
        self.unsettled: list[asyncio.Future[None]] = []
        self.most = 0

    def publish(self, *_message: object) -> "asyncio.Future[None]":
        """Keep the message until it is settled."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.unsettled.append(future)
        self.most = max(self.most, len(self.unsettled))
        return future

    async def confirm_all(self, sending: "asyncio.Task[bool]") -> bool:
        """Confirm everything until the sender has ended; returns what it says."""
        while not sending.done():
            while self.unsettled:
                self.unsettled.pop().set_result(None)
            await asyncio.sleep(0)
        return sending.result()


def sender_of(broker: Broker, window: int) -> Sender:
    """A sender with a window of so many lines."""
    return Sender(
        lambda messages: Outcomes(messages, Window(broker.publish, window, 2**30), set), lambda line: ("", "q", line)
    )


async def numbered(count: int) -> AsyncIterator[bytes]:
    """So many lines."""
    for number in range(count):
        yield b"%d\n" % number


def sending(sender: Sender, count: int) -> "asyncio.Task[bool]":
    """Begin to send so many lines."""
    return asyncio.ensure_future(sender.send(numbered(count)))


async def test_no_more_lines_than_the_window_are_pending() -> None:
    """However long the file is."""
    broker = Broker()
    sender = sender_of(broker, 5)
    assert await broker.confirm_all(sending(sender, 2000))
    assert broker.most == 5
    assert (sender.account.sent, sender.account.counts) == (2000, {"confirmed": 2000})


@pytest.mark.parametrize("error", [ExchangeRefused(404, "NOT_FOUND"), NotReadyError("closed")])
async def test_a_hopeless_line_is_the_last(error: Exception) -> None:
    """What was on its way is still waited for."""
    broker = Broker()
    sender = sender_of(broker, 3)
    task = sending(sender, 2000)
    while len(broker.unsettled) < 3:
        await asyncio.sleep(0)
    broker.unsettled.pop(0).set_exception(error)
    assert not await broker.confirm_all(task)
    assert sender.account.counts["confirmed"] == sender.account.sent - 1 == 2


async def test_a_line_that_fails_alone_stops_nothing() -> None:
    """A full queue may have room again."""
    broker = Broker()
    sender = sender_of(broker, 3)
    task = sending(sender, 100)
    while not broker.unsettled:
        await asyncio.sleep(0)
    broker.unsettled.pop(0).set_exception(MessageNacked())
    assert await broker.confirm_all(task)
    assert sender.account.counts == {"nacked": 1, "confirmed": 99}


async def test_an_interrupt_waits_for_what_is_pending() -> None:
    """Confirmations that come after it count."""
    broker = Broker()
    sender = sender_of(broker, 3)
    task = sending(sender, 100)
    while len(broker.unsettled) < 3:
        await asyncio.sleep(0)
    sender.interrupt()
    await asyncio.sleep(0)
    assert not await broker.confirm_all(task)
    assert (sender.account.sent, sender.account.counts) == (3, {"confirmed": 3})


async def test_a_second_interrupt_waits_for_nothing() -> None:
    """What is pending is told as such."""
    sender = sender_of(Broker(), 3)
    task = sending(sender, 100)
    while sender.account.sent < 3:
        await asyncio.sleep(0)
    sender.interrupt()
    sender.interrupt()
    assert not await asyncio.wait_for(task, 4)
    assert sender.account.summary() == "nothing published, 3 pending"


def test_line_numbers_are_told_as_ranges() -> None:
    """For each outcome."""
    account = Account()
    for number in range(1, 10):
        account.settle(1, OutcomeUnknown("lost") if number not in range(5, 9) else None)
    account.sent = 10
    (line,) = account.listing()
    assert line.startswith("unknown: lines 1-4, 9; the first: ")
    assert account.summary() == "5 unknown, 4 confirmed, 1 pending"


def test_only_so_many_ranges_are_kept() -> None:
    """A million scattered failures are counted, not listed."""
    account = Account()
    for number in range(1, 3 * MAX_RANGES):
        account.settle(1, MessageNacked() if number % 2 else None)
    (line,) = account.listing()
    assert f", {2 * MAX_RANGES - 1} and {MAX_RANGES // 2} more; the first: " in line


async def test_a_line_that_is_longer_than_any_body_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is not read to its end; the lines before it are there, and long ones are put together."""
    monkeypatch.setattr(lines_module, "BODY_LIMIT", 3 * CHUNK_SIZE)
    path = tmp_path / "lines"
    long = b"x" * (2 * CHUNK_SIZE + 7) + b"\n"
    path.write_bytes(b"one\n" + long + b"\nlast" + b"y" * 10 * CHUNK_SIZE + b"\n")
    with path.open("rb") as file:
        lines = read_lines(file.fileno())
        assert [await anext(lines) for _ in range(3)] == [b"one\n", long, b"\n"]
        with pytest.raises(OSError, match="a line is longer than 786432 octets, which is more than RabbitMQ accepts"):
            await anext(lines)
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) < 10 * CHUNK_SIZE


async def test_a_pipe_is_read_no_further_than_needed() -> None:
    """A writer that is faster than the broker has to wait."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    lines = read_lines(reader)
    with os.fdopen(writer, "wb", buffering=0) as pipe:
        pipe.write(b"first\n")
        assert await anext(lines) == b"first\n"
        written = await _fill(pipe.fileno())
    # One chunk is with the consumer, and READ_AHEAD more were read at most; the rest stands in the pipe.
    assert written < (READ_AHEAD + 2) * 2**20
    assert sum([len(line) async for line in lines]) == written
    os.close(reader)


async def _fill(descriptor: int) -> int:
    """Write lines until the pipe has been full for as long as the reader would need; returns how many octets."""
    written, refusals = 0, 0
    while refusals < 20:
        try:
            written += os.write(descriptor, b"x" * 1023 + b"\n")
            refusals = 0
        except BlockingIOError:
            refusals += 1
            await asyncio.sleep(0.01)
    return written


async def test_what_cannot_be_read_is_raised() -> None:
    """A folder, for one."""
    descriptor = os.open("/", os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        await anext(read_lines(descriptor))
    os.close(descriptor)
