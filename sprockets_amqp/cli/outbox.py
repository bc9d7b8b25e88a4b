"""The command outbox: list or show what is stored in a folder, send again what was set aside, drop or downgrade it."""

import argparse
import asyncio
import os
import re
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from sprockets_amqp.names import PATTERN
from sprockets_amqp.outbox.sqlite.file import SUFFIX
from sprockets_amqp.outbox.sqlite.store import SQLiteStore
from sprockets_amqp.outbox.store import SPOILT, Record, unpack
from sprockets_amqp.settings import prefixes
from sprockets_amqp.text import shown
from sprockets_amqp.web.status import iso

from .command import FAILED, OK, UsageError, add_name

SUMMARY: Final = "list, show, retry or drop what is stored in an outbox, or write it for version 1.1"
STATUS: Final = (
    "Exit status: 0 done, 1 there is no such message or a file cannot be read, 2 bad usage. A running client sends "
    "what you retry within a minute. Drop only what was set aside: a client may be sending the rest."
)
ACTIONS: Final = ("list", "show", "retry", "drop", "downgrade")
#: How many messages are read at once.
AT_ONCE: Final = 16
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
    if options.action == "downgrade" and names:
        raise UsageError("downgrade takes a folder, and no messages: it writes all that is stored")
    store = SQLiteStore(str(folder), options.name or "")
    if options.action == "drop" and not names and not options.yes:
        _ask_before_dropping(asyncio.run(_count_set_aside(store)))
    return asyncio.run(_run(store, folder, options.action, names))


async def _run(store: SQLiteStore, folder: Path, action: str, names: list[str]) -> int:
    chosen = _chosen(names) if names else {box: [] for box in await store.names()}
    if not chosen:
        print(f"sprockets-amqp: there is no outbox in {shown(folder)}: nothing is stored there", file=sys.stderr)
    status = OK
    for box, numbers in chosen.items():
        try:
            lines, its_status = await _on_box(store, action, box, numbers)
        except FileNotFoundError:
            # Without numbers, a client has sent all of it in the meantime.
            lines, its_status = [], OK
            if numbers:
                print(f"{box}: there is no such file, or a client has sent all of it", file=sys.stderr)
                its_status = FAILED
        except (sqlite3.Error, ValueError, OSError) as error:
            print(f"sprockets-amqp: {folder / box}: {shown(error)}", file=sys.stderr)
            lines, its_status = [], FAILED
        for line in lines:
            print(line)
        status = max(status, its_status)
    await store.close({})
    return status


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


def _chosen(names: list[str]) -> dict[str, list[int]]:
    """Return the files of the messages that are named, each with their numbers."""
    found: dict[str, list[int]] = {}
    for name in names:
        match = MESSAGE.fullmatch(name)
        if match is None:
            raise UsageError(f"{shown(name, 80)!r} is not a message: write FILE:NUMBER, as list shows it")
        found.setdefault(match[1], []).append(int(match[2]))
    return found


async def _count_set_aside(store: SQLiteStore) -> int:
    count = 0
    for box in await store.names():
        # What cannot be read is named when its turn comes.
        with suppress(sqlite3.Error, ValueError, OSError):
            _, aside, _ = await store.look(box)
            count += len(aside)
    return count


def _ask_before_dropping(count: int) -> None:
    """Raise UsageError unless a person at a terminal agrees that everything that was set aside is deleted."""
    what = "the message that was" if count == 1 else f"all {count} messages that were"
    if count and not sys.stdin.isatty():
        raise UsageError(f"this would drop {what} set aside: add --yes, or name the messages")
    if count and input(f"Drop {what} set aside? [y/N] ").strip().lower() not in {"y", "yes"}:
        raise UsageError("nothing was dropped")


async def _on_box(store: SQLiteStore, action: str, box: str, numbers: list[int]) -> tuple[list[str], int]:
    if action == "list":
        return await _list(store, box), OK
    if action == "downgrade":
        count = await store.downgrade(box)
        return [f"{box}: {'is' if count is None else f'{count} messages are'} in the format of version 1.1 now"], OK
    if not numbers:
        _, numbers, _ = await store.look(box)
    if action == "show":
        shown_lines = {row.number: [_name(box, row), *_described(row)] async for row in _rows(store, box, numbers)}
    else:
        done = await (store.retry if action == "retry" else store.drop)(box, numbers)
        said = "will be sent" if action == "retry" else "dropped"
        shown_lines = {number: [f"{box}:{number}: {said}"] for number in done}
    missing = "there is no such message, or it was not set aside"
    lines = [line for number in numbers for line in shown_lines.get(number, [f"{box}:{number}: {missing}"])]
    return lines, OK if shown_lines.keys() >= set(numbers) else FAILED


async def _list(store: SQLiteStore, box: str) -> list[str]:
    totals, aside, in_use = await store.look(box)
    oldest = "" if totals.oldest is None else f", the oldest stored {_age(totals.oldest)} ago"
    counted = f"{totals.messages} to send, {totals.set_aside} set aside, {totals.size} octets{oldest}"
    lines = [f"{box}: {counted}, {'in use' if in_use else 'not in use'}"]
    return lines + [f"  {_name(box, row)} set aside: {shown(row.set_aside)}" async for row in _rows(store, box, aside)]


async def _rows(store: SQLiteStore, box: str, numbers: list[int]) -> AsyncIterator[Record]:
    """Read messages, a few at a time: each may be large."""
    for start in range(0, len(numbers), AT_ONCE):
        for row in await store.find(box, numbers[start : start + AT_ONCE]):
            yield row


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


def _name(box: str, row: Record) -> str:
    try:
        name = shown(unpack(row.message)[1].message_id)
    except ValueError:
        name = "?"
    return f"{box}:{row.number} {name}"


def _age(stored_at: float) -> str:
    seconds = max(0, round(time.time() - stored_at))
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
