"""The command watch: show the state changes of a connection."""

import argparse
import asyncio
import dataclasses
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from sprockets_amqp.client import Client
from sprockets_amqp.hooks import StateChange
from sprockets_amqp.urls import node_parameters

from .command import OK, add_settings, address, read_settings, signals

SUMMARY: Final = "show the state changes of a connection, until Ctrl-C"
STATUS: Final = "Exit status: 0 ended by Ctrl-C or SIGTERM, 1 its output was closed, 2 bad usage or settings."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_settings(
        parser,
        {
            "url": "the node, or several, separated by commas",
            "reconnect_delay": "seconds before the first attempt to reconnect",
            "max_reconnect_delay": "seconds up to which the delay is doubled",
        },
    )
    parser.add_argument("--json", action="store_true", help="print each change as a line of JSON")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    settings = read_settings(options)
    show = _show_json if options.json else _show_change
    if not options.json:
        nodes = ", ".join(map(address, node_parameters(settings["url"])))
        print(f"watching {nodes}; press Ctrl-C to stop", file=sys.stderr, flush=True)
    return asyncio.run(_watch_states(settings, show))


async def _watch_states(settings: dict[str, Any], show: Callable[[StateChange, Client], None]) -> int:
    client = Client(**settings)
    changes: asyncio.Queue[StateChange | None] = asyncio.Queue()
    client.subscribe(changes.put_nowait)
    stop = asyncio.Event()

    async def end() -> None:
        await stop.wait()
        await client.shutdown(5)
        changes.put_nowait(None)

    ending = asyncio.ensure_future(end())
    try:
        with signals(stop.set):
            while (change := await changes.get()) is not None:
                show(change, client)
    finally:
        ending.cancel()
        await client.shutdown(1)
    return OK


def _show_change(change: StateChange, client: Client) -> None:
    at = datetime.fromtimestamp(change.at, UTC).astimezone()
    path = f"{change.source.name.lower()} -> {change.dest.name.lower()}"
    counters = ", ".join(f"{name} {count}" for name, count in dataclasses.asdict(client.counters).items() if count)
    notes = "; ".join(note for note in (change.reason, counters) if note)
    print(f"{at:%H:%M:%S}.{at.microsecond // 1000:03} {path:<24} {change.trigger:<20} {notes}".rstrip(), flush=True)


def _show_json(change: StateChange, client: Client) -> None:
    line = {
        "at": datetime.fromtimestamp(change.at, UTC).isoformat(),
        "source": change.source.name.lower(),
        "dest": change.dest.name.lower(),
        "trigger": change.trigger,
        "reason": change.reason,
        "counters": dataclasses.asdict(client.counters),
    }
    print(json.dumps(line), flush=True)
