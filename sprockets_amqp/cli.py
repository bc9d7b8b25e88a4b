"""The command line: diagram, check, publish, watch."""

import argparse
import asyncio
import dataclasses
import functools
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pika

from . import progress
from .check import Step, check_node
from .client import Client
from .defaults import new_message_id
from .encoding import PROPERTY_NAMES, encode_method, encode_properties
from .errors import AMQPException, InvalidMessage
from .hooks import StateChange
from .lines import OUTCOMES, Account, Sender, read_lines
from .settings import DEFAULT_URL, Settings, from_environment, node_parameters
from .text import SENTENCE_LIMIT, shown

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
#: Added to the signal's number, as shells do.
INTERRUPTED: Final = 128

STATUSES: Final = {
    "check": "Exit status: 0 every node is fine, 1 a step failed, 2 bad usage or settings.",
    "diagram": "Exit status: 0 written, 1 a file could not be written, 2 bad usage.",
    "publish": (
        "Exit status: 0 everything was confirmed, 1 something was not (returned, nacked, refused, unknown or "
        "unfinished), 2 bad usage or settings and nothing was sent, 130 ended by Ctrl-C, 143 by SIGTERM."
    ),
    "watch": "Exit status: 0 ended by Ctrl-C or SIGTERM, 1 nobody reads its output, 2 bad usage or settings.",
}
SETTINGS_HELP: Final = (
    "Settings come from the environment as in an application: AMQP_URL, AMQP_TIMEOUT ..., then RABBITMQ_URL ...; "
    "flags come first. A password in AMQP_URL is not seen in the list of processes, one on the command line is."
)
WHOLE_NUMBERS: Final = frozenset({"delivery_mode", "priority", "timestamp"})
LEVELS: Final = (logging.CRITICAL, logging.WARNING, logging.INFO, logging.DEBUG)


class UsageError(Exception):
    """What was asked for cannot be done; says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=LEVELS[min(options.verbose, 3)], format="%(levelname)s %(name)s: %(message)s")
    try:
        return int(options.run(options))
    except UsageError as error:
        return _complain(error, USAGE)
    except KeyboardInterrupt:
        return INTERRUPTED + signal.SIGINT
    except BrokenPipeError:
        # Who read our output has enough of it; the interpreter must not find the pipe when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (AMQPException, OSError, RuntimeError) as error:
        return _complain(error, FAILED)


def _complain(error: BaseException, status: int) -> int:
    print("sprockets-amqp:", shown(" ".join(str(error).split()), SENTENCE_LIMIT), file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sprockets-amqp",
        description="Look at, try and use a connection to RabbitMQ.",
        epilog="Exit status: 0 it worked, 1 it did not, 2 bad usage or settings, 130 interrupted; see each command.",
    )
    parser.add_argument("--version", action="version", version=version("sprockets_amqp"))
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_diagram(_command(commands, "diagram", _diagram, "draw the declared life of the connection"))
    _add_check(_command(commands, "check", _check, "connect step by step, and say what works and what does not"))
    _add_publish(_command(commands, "publish", _publish, "publish a message, or each line of a file"))
    _add_watch(_command(commands, "watch", _watch, "show the states of a connection as they change, until Ctrl-C"))
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    settings = "" if name == "diagram" else f" {SETTINGS_HELP}"
    epilog = STATUSES[name] + settings
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary, epilog=epilog)
    command.add_argument("-v", "--verbose", action="count", default=0, help="log warnings; -vv infos, -vvv everything")
    command.set_defaults(run=run)
    return command


def _add_settings(parser: argparse.ArgumentParser, helps: dict[str, str]) -> None:
    for name, text in helps.items():
        parser.add_argument(f"--{name.replace('_', '-')}", dest=f"setting_{name}", metavar="VALUE", help=text)


def _settings(options: argparse.Namespace, **others: Any) -> dict[str, Any]:
    """Gather and check the settings: flags before the environment before defaults."""
    prefix = "setting_"
    flags = {
        name.removeprefix(prefix): value
        for name, value in vars(options).items()
        if name.startswith(prefix) and value is not None
    }
    app_id = f"sprockets_amqp/{version('sprockets_amqp')}"
    try:
        settings = {"url": DEFAULT_URL, "default_app_id": app_id, **from_environment(), **flags, **others}
        Settings(**settings)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return settings


@contextmanager
def _signals(callback: Callable[[], object]) -> Iterator[list[signal.Signals]]:
    """Call back on Ctrl-C and SIGTERM, in the loop's turn; yields the list of those that came."""
    loop = asyncio.get_running_loop()
    came: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        came.append(number)
        callback()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield came
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


# diagram


def _add_diagram(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="FOLDER", type=Path, default=Path("diagrams"), help="default: diagrams")
    choices = ("mermaid", "dot", "svg", "table")
    parser.add_argument("--print", dest="printed", choices=choices, help="print one instead of writing files")


def _diagram(options: argparse.Namespace) -> int:
    from . import diagrams  # noqa: PLC0415 - only this command needs them

    draw = {"mermaid": diagrams.mermaid, "dot": diagrams.dot, "svg": diagrams.svg_file, "table": diagrams.table}
    if options.printed:
        print(draw[options.printed](), end="")
        return OK
    for path in diagrams.write(options.output):
        print(path)
    return OK


# check


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("setting_url", metavar="URL", nargs="?", help="one node, or several, comma separated")
    parser.add_argument("--limit", type=_limit, default=10.0, help="seconds that each step may take; default: 10")


def _limit(text: str) -> float:
    if not 0 < float(text) < 1e6:
        raise ValueError
    return float(text)


def _check(options: argparse.Namespace) -> int:
    return asyncio.run(_check_nodes(_settings(options)["url"], options.limit))


async def _check_nodes(url: str, limit: float) -> int:
    nodes = node_parameters(url)
    failed = 0
    for node in nodes:
        print(_address(node), flush=True)
        steps = [_show_step(step) async for step in check_node(node, limit)]
        failed += not all(step.ok for step in steps)
    print(f"{failed} of {len(nodes)} nodes failed" if failed else "all is fine", flush=True)
    return FAILED if failed else OK


def _address(node: pika.URLParameters) -> str:
    """Name the node, without the rest of its URL: that has passwords."""
    return f"{'amqps' if node.ssl_options else 'amqp'}://{shown(node.host)}:{node.port}"


def _show_step(step: Step) -> Step:
    print(f"  {step.name:<9} {'ok' if step.ok else 'FAILED':<7} {shown(step.detail)}", flush=True)
    if step.advice:
        print(f"  {'':<9} {'->':<7} {shown(step.advice)}", flush=True)
    return step


# publish


def _add_publish(parser: argparse.ArgumentParser) -> None:
    _add_settings(
        parser,
        {
            "url": "the node, or several, comma separated",
            "timeout": "seconds that a message waits for the connection to be ready",
            "confirm_timeout": "seconds to wait for a confirmation",
            "max_unconfirmed": "messages on the wire at a time",
        },
    )
    parser.add_argument("--exchange", default="", help="default: the default exchange, where a routing key is a queue")
    parser.add_argument("--routing-key", default="")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--body", help="without this and --lines, the standard input is the body")
    source.add_argument("--lines", metavar="FILE", help="publish each line of the file as a message; -: standard input")
    parser.add_argument(
        "--property",
        metavar="NAME=VALUE",
        dest="properties",
        type=_property,
        action="append",
        default=[],
        help=f"an AMQP property: {', '.join(name for name in PROPERTY_NAMES if name != 'headers')}",
    )
    parser.add_argument(
        "--header",
        metavar="NAME=VALUE",
        dest="headers",
        type=_header,
        action="append",
        default=[],
        help='VALUE is JSON where it can be read as such (5, true, "5"), else text',
    )
    parser.add_argument(
        "--republish-unconfirmed",
        dest="setting_republish_unconfirmed",
        action="store_const",
        const=True,
        help="after a lost connection send again what was not confirmed, rather than tell that its outcome is unknown",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _property(text: str) -> tuple[str, object]:
    name, value = _pair(text)
    if name == "headers" or name not in PROPERTY_NAMES:
        names = ", ".join(known for known in PROPERTY_NAMES if known != "headers")
        raise argparse.ArgumentTypeError(f"{name!r} is none of {names}; headers are given with --header")
    if name not in WHOLE_NUMBERS:
        return name, value
    try:
        return name, int(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{name} must be a whole number, not {value!r}") from None


def _header(text: str) -> tuple[str, object]:
    name, value = _pair(text)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _publish(options: argparse.Namespace) -> int:
    # Without confirmations, and of what was returned, nothing could be told.
    settings = _settings(options, enable_confirmations=True, fail_on_return=True)
    properties = dict(options.properties)
    if options.headers:
        properties["headers"] = dict(options.headers)
    try:
        encode_method(options.exchange, options.routing_key, True)
        encode_properties(properties)
    except InvalidMessage as error:
        raise UsageError(str(error)) from None
    if options.lines is not None:
        return asyncio.run(_publish_lines(options, settings, properties))
    body = os.fsencode(options.body) if options.body is not None else sys.stdin.buffer.read()
    return asyncio.run(_publish_one(options, settings, properties, body))


def _client(settings: dict[str, Any]) -> Client:
    # What was returned is told as an outcome; without a callback it would be logged as well.
    return Client(**settings, on_return_callback=lambda *_: None)


async def _publish_one(
    options: argparse.Namespace, settings: dict[str, Any], properties: dict[str, Any], body: bytes
) -> int:
    properties.setdefault("message_id", new_message_id())
    client = _client(settings)
    future = client.publish(options.exchange, options.routing_key, body, properties)
    over = asyncio.Event()
    future.add_done_callback(lambda _future: over.set())
    with _signals(over.set) as came:
        await over.wait()
        await client.shutdown(1)
    error = future.exception()
    if error is None:
        print(f"confirmed: message {shown(properties['message_id'])}")
        return OK
    print(f"{OUTCOMES.get(type(error), 'unfinished')}: {error}", file=sys.stderr)
    return INTERRUPTED + came[0] if came else FAILED


async def _publish_lines(options: argparse.Namespace, settings: dict[str, Any], properties: dict[str, Any]) -> int:
    descriptor = _open(options.lines)
    client = _client(settings)
    publish = functools.partial(client.publish, options.exchange, options.routing_key, properties=properties)
    sender = Sender(publish, min(client.settings.max_unconfirmed, client.settings.max_waiting))
    ended = False
    with _signals(sender.interrupt) as came:
        try:
            ended = await _with_progress(sender, descriptor, options.quiet)
        except OSError as error:
            _complain(error, FAILED)
        finally:
            await client.shutdown(1)
    _summarize(sender.account, ended)
    if came:
        return INTERRUPTED + came[0]
    return OK if ended and sender.account.counts["confirmed"] == sender.account.sent else FAILED


def _open(path: str) -> int:
    try:
        return 0 if path == "-" else os.open(path, os.O_RDONLY)
    except OSError as error:
        raise UsageError(str(error)) from None


async def _with_progress(sender: Sender, descriptor: int, quiet: bool) -> bool:
    lines = read_lines(descriptor)
    if quiet:
        return await sender.send(lines)
    async with progress.shown(sender.account, descriptor):
        return await sender.send(lines)


def _summarize(account: Account, ended: bool) -> None:
    print(f"{account.sent} {'line' if account.sent == 1 else 'lines'}: {account.summary()}")
    for line in account.listing():
        print(line)
    if not ended:
        print(f"stopped: nothing was sent from line {account.sent + 1} on")


# watch


def _add_watch(parser: argparse.ArgumentParser) -> None:
    _add_settings(
        parser,
        {
            "url": "the node, or several, comma separated",
            "reconnect_delay": "seconds before the first attempt to reconnect",
            "max_reconnect_delay": "seconds up to which that is doubled",
        },
    )
    parser.add_argument("--json", action="store_true", help="print each change as a line of JSON")


def _watch(options: argparse.Namespace) -> int:
    settings = _settings(options)
    show = _show_json if options.json else _show_change
    if not options.json:
        nodes = ", ".join(map(_address, node_parameters(settings["url"])))
        print(f"watching {nodes}; Ctrl-C ends", file=sys.stderr, flush=True)
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
        with _signals(stop.set):
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
