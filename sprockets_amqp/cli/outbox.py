"""The command outbox: list, show or drop what is stored, send what was set aside, make a table, downgrade a folder."""

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
from sprockets_amqp.outbox.postgres.table import TABLE, VERSION, script
from sprockets_amqp.outbox.sqlite.file import SUFFIX
from sprockets_amqp.outbox.sqlite.store import SQLiteStore
from sprockets_amqp.outbox.store import SPOILT, Record, Store, unpack
from sprockets_amqp.settings import prefixes
from sprockets_amqp.text import shown
from sprockets_amqp.urls import check_database, hide_password, is_database, may_hold_password
from sprockets_amqp.web.status import iso

from .command import FAILED, OK, UsageError, add_name

SUMMARY: Final = "list, show, retry or drop what is stored in an outbox, make its table, or write it for 1.1"
STATUS: Final = (
    "Exit status: 0 done, 1 there is no such message, or the outbox cannot be read, 2 bad usage. A running client "
    "sends what you retry within a minute. Drop only what was set aside: a client may be sending the rest. Other users "
    "of the machine can see a URL in the command, and none in the environment."
)
ACTIONS: Final = ("list", "show", "retry", "drop", "migrate", "downgrade")
#: How many messages are read at once.
AT_ONCE: Final = 16
#: Characters of a body to show.
BODY_LIMIT: Final = 200
#: A message's name: its file or box, and its number, a signed integer of 64 bits.
MESSAGE: Final = re.compile(rf"({PATTERN}\.(?:\d{{1,18}}{re.escape(SUFFIX)}|-?\d{{1,19}})):(-?\d{{1,19}})")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_name(parser)
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument(
        "outbox",
        nargs="?",
        help="the folder or URL given as the setting outbox; default: AMQP_OUTBOX, with --name AUDIT_OUTBOX",
    )
    parser.add_argument(
        "message",
        nargs="*",
        help="as list shows it (amqp.1.outbox:42, or amqp.0:42 in PostgreSQL); default: all that were set aside",
    )
    parser.set_defaults(takes_more=True)
    parser.add_argument("--sql", action="store_true", help="print the SQL of migrate rather than executing it")
    parser.add_argument("-y", "--yes", action="store_true", help="drop all that were set aside without asking")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    if options.sql:
        return _print_script(options)
    place, names = _place(options)
    if options.action in {"migrate", "downgrade"} and names:
        raise UsageError(f"{options.action} takes an outbox, and no messages: it is for all that is stored")
    if options.action == "migrate":
        return _migrate(place)
    store = _store(place, options.name or "")
    if options.action == "drop" and not names and not options.yes:
        _ask_before_dropping(asyncio.run(_count_set_aside(store)))
    return asyncio.run(_run(store, hide_password(place), options.action, names))


def _store(place: str, name: str) -> Store:
    if is_database(place):
        from sprockets_amqp.outbox.postgres.store import PostgresStore  # noqa: PLC0415 - few have psycopg

        return PostgresStore(place, name)
    return SQLiteStore(place, name)


def _print_script(options: argparse.Namespace) -> int:
    if options.action != "migrate" or options.outbox or options.message or options.more:
        raise UsageError("--sql goes with migrate alone: sprockets-amqp outbox migrate --sql")
    print(script(), end="")
    return OK


def _migrate(place: str) -> int:
    if not is_database(place):
        raise UsageError("migrate is for an outbox in PostgreSQL: a folder needs nothing")
    from sprockets_amqp.outbox.postgres.migrate import migrate  # noqa: PLC0415 - few have psycopg

    try:
        found = migrate(place)
    except (OSError, ValueError) as error:
        print(f"sprockets-amqp: {hide_password(place)}: {shown(error)}", file=sys.stderr)
        return FAILED
    was = "was made" if not found else "is" if found == VERSION else f"was of version {found}, and is"
    print(f"{TABLE} {was}{' with' if not found else ' of'} version {VERSION}")
    return OK


async def _run(store: Store, place: str, action: str, names: list[str]) -> int:
    status = OK
    try:
        chosen = _chosen(names) if names else {box: [] for box in await store.names()}
        if not chosen:
            print(f"sprockets-amqp: there is no outbox in {shown(place)}: nothing is stored there", file=sys.stderr)
        for box, numbers in chosen.items():
            if asyncio.current_task().cancelling():  # type: ignore[union-attr] # this is one
                # Ctrl-C: a store carries out what it is doing, and no more.
                raise asyncio.CancelledError
            status = max(status, await _print_box(store, place, action, box, numbers))
    except (OSError, ValueError) as error:
        # There is no session with PostgreSQL.
        print(f"sprockets-amqp: {place}: {shown(error)}", file=sys.stderr)
        status = FAILED
    finally:
        await store.close({})
    return status


async def _print_box(store: Store, place: str, action: str, box: str, numbers: list[int]) -> int:
    lines: list[str] = []
    try:
        lines, status = await _on_box(store, action, box, numbers)
    except FileNotFoundError:
        # Without numbers, a client has sent all of it in the meantime.
        status = OK
        if numbers:
            print(f"{box}: there is no such file or box, or a client has sent all of it", file=sys.stderr)
            status = FAILED
    except (sqlite3.Error, ValueError, OSError) as error:
        print(f"sprockets-amqp: {place}/{box}: {shown(error)}", file=sys.stderr)
        status = FAILED
    for line in lines:
        print(line)
    return status


def _place(options: argparse.Namespace) -> tuple[str, list[str]]:
    """Return the outbox and the names of messages: without an outbox, it is that of the environment."""
    given: list[str] = [each for each in (options.outbox, *options.message, *options.more) if each is not None]
    variables = [f"{prefix}OUTBOX" for prefix in prefixes(options.name)]
    if not given or MESSAGE.fullmatch(given[0]):
        found = next((os.environ[each] for each in variables if os.environ.get(each)), None)
        if found is None:
            raise UsageError(f"give the folder or URL of the setting outbox, or set {variables[0]}")
        given.insert(0, found)
    place = given[0]
    try:
        if is_database(place):
            check_database(place)
        elif not Path(place).is_dir():
            raise UsageError(f"{_named(place)} is not a folder: give the folder or URL of the setting outbox")
    except (OSError, ValueError) as error:
        what = "the outbox" if is_database(place) else f"{_named(place)} is not a folder:"
        raise UsageError(f"{what} {error.args[-1]}") from None
    return place, given[1:]


def _named(place: str) -> str:
    return "what you give" if may_hold_password(place) else shown(place, 80)


def _chosen(names: list[str]) -> dict[str, list[int]]:
    """Return the files of the messages that are named, each with their numbers."""
    found: dict[str, list[int]] = {}
    for name in names:
        match = MESSAGE.fullmatch(name)
        if match is None:
            raise UsageError(f"{_named(name)!r} is not a message: write it as list shows it, such as amqp.1.outbox:42")
        if abs(int(match[2])) >= 2**63:
            raise UsageError(f"{name} cannot be: a number has 64 bits")
        found.setdefault(match[1], []).append(int(match[2]))
    return found


async def _count_set_aside(store: Store) -> int:
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


async def _on_box(store: Store, action: str, box: str, numbers: list[int]) -> tuple[list[str], int]:
    if action == "list":
        return await _list(store, box), OK
    if action == "downgrade":
        if not isinstance(store, SQLiteStore):
            raise ValueError("version 1.1 knows folders alone: nothing is done")
        count = await store.downgrade(box)
        what = "it is" if count is None else "1 message is" if count == 1 else f"{count} messages are"
        return [f"{box}: {what} in the format of version 1.1 now"], OK
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


async def _list(store: Store, box: str) -> list[str]:
    totals, aside, in_use = await store.look(box)
    oldest = "" if totals.oldest is None else f", the oldest stored {_age(totals.oldest)} ago"
    counted = f"{totals.messages} to send, {totals.set_aside} set aside, {totals.size} octets{oldest}"
    lines = [f"{box}: {counted}, {'in use' if in_use else 'not in use'}"]
    return lines + [f"  {_name(box, row)} set aside: {shown(row.set_aside)}" async for row in _rows(store, box, aside)]


async def _rows(store: Store, box: str, numbers: list[int]) -> AsyncIterator[Record]:
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
