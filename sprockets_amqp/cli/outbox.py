"""The command outbox: list or show what is stored in a folder, send again what was set aside, or drop it."""

import argparse
import os
import re
import sqlite3
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from sprockets_amqp.names import PATTERN
from sprockets_amqp.outbox.sqlite.file import SUFFIX, OutboxFile
from sprockets_amqp.outbox.sqlite.folder import files
from sprockets_amqp.outbox.sqlite.lock import is_locked
from sprockets_amqp.outbox.store import SPOILT, Record, unpack
from sprockets_amqp.settings import prefixes
from sprockets_amqp.text import shown
from sprockets_amqp.web.status import iso

from .command import FAILED, OK, UsageError, add_name

SUMMARY: Final = "list, show, retry or drop what is stored in an outbox"
STATUS: Final = (
    "Exit status: 0 done, 1 there is no such message or a file cannot be read, 2 bad usage. A running client sends "
    "what you retry within a minute. Drop only what was set aside: a client may be sending the rest."
)
ACTIONS: Final = ("list", "show", "retry", "drop")
#: Characters of a body to show.
BODY_LIMIT: Final = 200
#: A message's name: its file, and its number, a signed integer of 64 bits.
MESSAGE: Final = re.compile(rf"({PATTERN}\.\d+{re.escape(SUFFIX)}):(\d{{1,18}})")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_name(parser)
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument(
        "folder",
        nargs="?",
        help="the folder given as the setting outbox; default: AMQP_OUTBOX, with --name AUDIT_OUTBOX",
    )
    parser.add_argument(
        "message", nargs="*", help="FILE:NUMBER, as list shows it (amqp.1.outbox:42); default: all that were set aside"
    )
    parser.add_argument("-y", "--yes", action="store_true", help="drop all that were set aside without asking")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    folder, names = _folder(options)
    chosen = _chosen(folder, names)
    if not chosen:
        print(f"sprockets-amqp: there is no outbox in {shown(folder)}: nothing is stored there", file=sys.stderr)
    if options.action == "drop" and chosen and not names and not options.yes:
        _ask_before_dropping(chosen)
    return max((_on_file(options.action, path, numbers) for path, numbers in chosen.items()), default=OK)


def _folder(options: argparse.Namespace) -> tuple[Path, list[str]]:
    """Return the folder and the names of messages: without a folder, it is that of the environment."""
    given: list[str] = [each for each in (options.folder, *options.message) if each is not None]
    variables = [f"{prefix}OUTBOX" for prefix in prefixes(options.name)]
    if not given or MESSAGE.fullmatch(given[0]):
        found = next((os.environ[each] for each in variables if os.environ.get(each)), None)
        if found is None:
            raise UsageError(f"give the folder of the setting outbox, or set {variables[0]}")
        given.insert(0, found)
    try:
        is_folder = Path(given[0]).is_dir()
    except (OSError, ValueError) as error:
        raise UsageError(f"{shown(given[0], 80)} is not a folder: {error.args[-1]}") from None
    if not is_folder:
        raise UsageError(f"{shown(given[0], 80)} is not a folder: give the folder of the setting outbox")
    return Path(given[0]), given[1:]


def _chosen(folder: Path, names: list[str]) -> dict[Path, list[int]]:
    """Return the files, each with the numbers of the messages that are named in it; if none is named, all files."""
    found: dict[Path, list[int]] = {} if names else {path: [] for path in files(folder)}
    for name in names:
        match = MESSAGE.fullmatch(name)
        if match is None:
            raise UsageError(f"{shown(name, 80)!r} is not a message: write FILE:NUMBER, as list shows it")
        found.setdefault(folder / match[1], []).append(int(match[2]))
    return found


def _ask_before_dropping(chosen: dict[Path, list[int]]) -> None:
    """Raise UsageError unless a person at a terminal agrees that everything that was set aside is deleted."""
    count = 0
    for path in chosen:
        # What cannot be read is named when its turn comes.
        with suppress(sqlite3.Error, ValueError, OSError), closing(OutboxFile(path, create=False)) as file:
            count += file.totals().set_aside
    what = "the message that was" if count == 1 else f"all {count} messages that were"
    if count and not sys.stdin.isatty():
        raise UsageError(f"this would drop {what} set aside: add --yes, or name the messages")
    if count and input(f"Drop {what} set aside? [y/N] ").strip().lower() not in {"y", "yes"}:
        raise UsageError("nothing was dropped")


def _on_file(action: str, path: Path, numbers: list[int]) -> int:
    """Do it to a file, and say what cannot be done: other files may be fine."""
    if numbers and not path.exists():
        print(f"{path.name}: there is no such file, or a client has sent all of it", file=sys.stderr)
        return FAILED
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
    return [line for row in file.rows("number = ?", number) for line in (_name(file.path, row), *_described(row))]


def _described(row: Record) -> list[str]:
    closed = f"RabbitMQ closed the channel {shown(row.refusals)} times"
    aside = f"  set aside: {shown(row.set_aside) if row.set_aside is not None else 'no'}"
    damage = [] if row.intact else [f"  it is {SPOILT}"]
    try:
        stored_at, message = unpack(row.message)
    except ValueError as error:
        return [f"  {shown(error)}, {row.size} octets, {closed}", aside, *damage]
    return [
        f"  message_id: {shown(message.message_id)}",
        f"  exchange: {shown(message.exchange)!r}, routing key: {shown(message.routing_key)!r}",
        f"  stored: {_time(stored_at)}, {row.size} octets, {closed}",
        aside,
        f"  body: {shown(message.body[: 4 * BODY_LIMIT].decode(errors='backslashreplace'), BODY_LIMIT)}",
        *damage,
    ]


def _time(seconds: float) -> str:
    try:
        return iso(seconds)
    except (ValueError, OverflowError, OSError):
        # A disk has changed it.
        return shown(seconds)


def _retry(file: OutboxFile, number: int) -> list[str]:
    return [f"{file.path.name}:{number}: will be sent"] if file.retry(number) else []


def _drop(file: OutboxFile, number: int) -> list[str]:
    return [f"{file.path.name}:{number}: dropped"] if file.drop(number) else []


def _name(path: Path, row: Record) -> str:
    try:
        name = shown(unpack(row.message)[1].message_id)
    except ValueError:
        name = "?"
    return f"{path.name}:{row.number} {name}"


def _age(stored_at: float) -> str:
    seconds = max(0, round(time.time() - stored_at))
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
