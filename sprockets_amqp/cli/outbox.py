"""The command outbox: list or show what is stored in a folder, send again what was set aside, or drop it."""

import argparse
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from sprockets_amqp.delivery.outbox_file import Locked, OutboxFile, take_lock
from sprockets_amqp.delivery.outbox_folder import files
from sprockets_amqp.delivery.outbox_row import Row
from sprockets_amqp.text import shown
from sprockets_amqp.web.status import iso

from .command import FAILED, OK, UsageError

SUMMARY: Final = "list, show, retry or drop what is stored in an outbox"
STATUS: Final = (
    "Exit status: 0 done, 1 there is no such message or a file cannot be read, 2 bad usage. A running client sends "
    "what you retry within a minute. Drop only what was set aside: a client may be sending the rest."
)
ACTIONS: Final = ("list", "show", "retry", "drop")
#: Characters of a body to show.
BODY_LIMIT: Final = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("folder", type=Path, help="the folder given as the setting outbox")
    parser.add_argument(
        "message", nargs="*", help="FILE:NUMBER, as list shows it (amqp.1.outbox:42); default: all that were set aside"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    if not options.folder.is_dir():
        raise UsageError(f"{options.folder} is not a folder: give the folder of the setting outbox")
    try:
        if options.action == "list":
            return _list(options.folder)
        found = list(_chosen(options.folder, options.message))
        return _each(found, {"show": _show, "retry": _retry, "drop": _drop}[options.action])
    except (sqlite3.Error, ValueError) as error:
        raise OSError(f"{options.folder}: {error}") from None


def _list(folder: Path) -> int:
    for path in files(folder):
        with closing(OutboxFile(path)) as file:
            totals = file.totals()
            oldest = "" if totals.oldest is None else f", the oldest stored {_age(totals.oldest)} ago"
            print(
                f"{path.name}: {totals.messages} to send, {totals.set_aside} set aside, {totals.size} octets{oldest}, "
                f"{'in use' if _in_use(path) else 'not in use'}"
            )
            for row in file.rows("set_aside IS NOT NULL"):
                print(f"  {_name(path, row)} set aside: {shown(row.set_aside)}")
    return OK


def _chosen(folder: Path, names: list[str]) -> Iterator[tuple[Path, int]]:
    """Yield file and number of the named messages; if none is named, of all that were set aside."""
    for name in names:
        its_file, _, number = name.rpartition(":")
        path = folder / its_file
        if path not in files(folder) or not number.isdecimal():
            raise UsageError(f"{name!r} is not a message: write FILE:NUMBER, as list shows it")
        yield path, int(number)
    for path in files(folder) if not names else []:
        with closing(OutboxFile(path)) as file:
            yield from [(path, row.number) for row in file.rows("set_aside IS NOT NULL")]


def _each(found: list[tuple[Path, int]], action: Callable[[OutboxFile, int], bool]) -> int:
    status = OK
    for path, number in found:
        with closing(OutboxFile(path)) as file:
            if not action(file, number):
                print(f"{path.name}:{number}: there is no such message, or it was not set aside")
                status = FAILED
    return status


def _show(file: OutboxFile, number: int) -> bool:
    for row in file.rows("number = ?", number):
        print(f"{_name(file.path, row)}")
        print(f"  message_id: {shown(row.message_id)}")
        print(f"  exchange: {shown(row.exchange)!r}, routing key: {shown(row.routing_key)!r}")
        print(f"  stored: {iso(row.stored_at)}, {row.size} octets, RabbitMQ closed the channel {row.refusals} times")
        print(f"  set aside: {shown(row.set_aside) if row.set_aside is not None else 'no'}")
        print(f"  body: {shown(row.body.decode(errors='backslashreplace'), BODY_LIMIT)}")
        return True
    return False


def _retry(file: OutboxFile, number: int) -> bool:
    return file.retry(number) and _told(f"{file.path.name}:{number}: will be sent")


def _drop(file: OutboxFile, number: int) -> bool:
    return file.drop(number) and _told(f"{file.path.name}:{number}: dropped")


def _told(text: str) -> bool:
    print(text)
    return True


def _name(path: Path, row: Row) -> str:
    return f"{path.name}:{row.number} {shown(row.message_id)}"


def _age(stored_at: float) -> str:
    seconds = max(0, round(time.time() - stored_at))
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"


def _in_use(path: Path) -> bool:
    try:
        os.close(take_lock(path))
    except Locked:
        return True
    return False
