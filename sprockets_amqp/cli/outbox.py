"""The command outbox: list or show what is stored in a folder, send again what was set aside, or drop it."""

import argparse
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from sprockets_amqp.delivery.outbox_file import OutboxFile, is_locked
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
#: Digits of a message's number, which is a signed integer of 64 bits.
NUMBER_LIMIT: Final = 18


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
    chosen = _chosen(options.folder, options.message)
    return max((_on_file(options.action, path, numbers) for path, numbers in chosen.items()), default=OK)


def _chosen(folder: Path, names: list[str]) -> dict[Path, list[int]]:
    """Return the files, each with the numbers of the messages that are named in it; if none is named, all files."""
    found: dict[Path, list[int]] = {} if names else {path: [] for path in files(folder)}
    for name in names:
        its_file, _, number = name.rpartition(":")
        path = folder / its_file
        if path not in files(folder) or not number.isdecimal() or len(number) > NUMBER_LIMIT:
            raise UsageError(f"{name!r} is not a message: write FILE:NUMBER, as list shows it")
        found.setdefault(path, []).append(int(number))
    return found


def _on_file(action: str, path: Path, numbers: list[int]) -> int:
    """Do it to a file, and say what cannot be done: other files may be fine."""
    try:
        with closing(OutboxFile(path, create=False)) as file:
            # Nothing is printed while it is being read, or the file could not shrink for as long as a pager waits.
            lines, status = _list(file) if action == "list" else _on_messages(action, file, numbers)
    except (sqlite3.Error, ValueError, OSError) as error:
        if not numbers and not path.exists():
            # A client has sent all of it in the meantime.
            return OK
        print(f"sprockets-amqp: {path}: {shown(error)}", file=sys.stderr)
        return FAILED
    for line in lines:
        print(line)
    return status


def _list(file: OutboxFile) -> tuple[list[str], int]:
    totals = file.totals()
    oldest = "" if totals.oldest is None else f", the oldest stored {_age(totals.oldest)} ago"
    path = file.path
    counted = f"{totals.messages} to send, {totals.set_aside} set aside, {totals.size} octets{oldest}"
    lines = [f"{path.name}: {counted}, {'in use' if is_locked(path) else 'not in use'}"]
    lines += [f"  {_name(path, row)} set aside: {shown(row.set_aside)}" for row in file.rows("set_aside IS NOT NULL")]
    return lines, OK


def _on_messages(action: str, file: OutboxFile, numbers: list[int]) -> tuple[list[str], int]:
    lines, status = [], OK
    for number in numbers or [row.number for row in file.rows("set_aside IS NOT NULL")]:
        done = {"show": _show, "retry": _retry, "drop": _drop}[action](file, number)
        if not done:
            done, status = [f"{file.path.name}:{number}: there is no such message, or it was not set aside"], FAILED
        lines += done
    return lines, status


def _show(file: OutboxFile, number: int) -> list[str]:
    return [
        line
        for row in file.rows("number = ?", number)
        for line in (
            _name(file.path, row),
            f"  message_id: {shown(row.message_id)}",
            f"  exchange: {shown(row.exchange)!r}, routing key: {shown(row.routing_key)!r}",
            f"  stored: {iso(row.stored_at)}, {row.size} octets, RabbitMQ closed the channel {row.refusals} times",
            f"  set aside: {shown(row.set_aside) if row.set_aside is not None else 'no'}",
            f"  body: {shown(row.body.decode(errors='backslashreplace'), BODY_LIMIT)}",
        )
    ]


def _retry(file: OutboxFile, number: int) -> list[str]:
    return [f"{file.path.name}:{number}: will be sent"] if file.retry(number) else []


def _drop(file: OutboxFile, number: int) -> list[str]:
    return [f"{file.path.name}:{number}: dropped"] if file.drop(number) else []


def _name(path: Path, row: Row) -> str:
    return f"{path.name}:{row.number} {shown(row.message_id)}"


def _age(stored_at: float) -> str:
    seconds = max(0, round(time.time() - stored_at))
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
