"""The command publish: publish a message, or each line of a file."""

import argparse
import asyncio
import json
import os
import sys
from typing import Any, Final

from sprockets_amqp.client import Client
from sprockets_amqp.delivery.encoding import PROPERTY_NAMES, encode_method, encode_properties
from sprockets_amqp.delivery.message_ids import new_message_id
from sprockets_amqp.errors import InvalidMessage
from sprockets_amqp.text import shown

from . import progress
from .command import FAILED, INTERRUPTED, OK, UsageError, add_settings, complain, plainly, read_settings, signals
from .lines import OUTCOMES, Account, Sender, read_lines

SUMMARY: Final = "publish a message, or each line of a file"
STATUS: Final = (
    "Exit status: 0 everything was confirmed, 1 something was not (returned, nacked, refused, unknown or "
    "unfinished), 2 bad usage or settings, nothing was sent, 130 ended by Ctrl-C, 143 by SIGTERM."
)
WHOLE_NUMBERS: Final = frozenset({"delivery_mode", "priority", "timestamp"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_settings(
        parser,
        {
            "url": "the node, or several, separated by commas",
            "timeout": "seconds that a message waits for the connection to be ready",
            "confirm_timeout": "seconds to wait for a confirmation",
            "max_unconfirmed": "messages on the wire at a time",
        },
    )
    parser.add_argument("--exchange", default="", help="default: the default exchange, which routes by queue name")
    parser.add_argument("--routing-key", default="")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--body", help="without this and --lines, standard input is the body")
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
        help='VALUE is read as JSON if possible (5, true, "5"), else as text',
    )
    parser.add_argument(
        "--republish-unconfirmed",
        dest="setting_republish_unconfirmed",
        action="store_const",
        const=True,
        help="after a lost connection, send unconfirmed messages again instead of reporting their outcome as unknown",
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
        raise argparse.ArgumentTypeError(f"{name!r} is not one of {names}; use --header for headers")
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
    except RecursionError:
        raise argparse.ArgumentTypeError(f"{shown(name, 40)} has too many levels") from None
    except ValueError:
        return name, value


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    # Otherwise the outcome could not be reported; and with more attempts, the reason for a failed one only after all.
    settings = read_settings(options, enable_confirmations=True, fail_on_return=True, connection_attempts=1)
    properties = dict(options.properties)
    if options.headers:
        properties["headers"] = dict(options.headers)
    try:
        encode_method(options.exchange, options.routing_key, True)
        encode_properties(**properties)
    except InvalidMessage as error:
        raise UsageError(str(error)) from None
    if options.lines is not None:
        return asyncio.run(_publish_lines(options, settings, properties))
    body = os.fsencode(options.body) if options.body is not None else sys.stdin.buffer.read()
    return asyncio.run(_publish_one(options, settings, properties, body))


def _client(settings: dict[str, Any]) -> Client:
    # Returned messages are reported as an outcome; without a callback they would be logged as well.
    return Client(**settings, on_return_callback=lambda *_: None)


async def _publish_one(
    options: argparse.Namespace, settings: dict[str, Any], properties: dict[str, Any], body: bytes
) -> int:
    properties.setdefault("message_id", new_message_id())
    client = _client(settings)
    future = client.publish(options.exchange, options.routing_key, body, properties)
    over = asyncio.Event()
    future.add_done_callback(lambda _future: over.set())
    with signals(over.set) as came:
        await over.wait()
        await client.shutdown(1)
    error = future.exception()
    if error is None:
        print(f"confirmed: message {shown(properties['message_id'])}")
        return OK
    print(f"{OUTCOMES.get(type(error), 'unfinished')}: {plainly(error)}", file=sys.stderr)
    return INTERRUPTED + came[0] if came else FAILED


async def _publish_lines(options: argparse.Namespace, settings: dict[str, Any], properties: dict[str, Any]) -> int:
    descriptor = _open(options.lines)
    client = _client(settings)
    sender = Sender(client.publish_many, lambda line: (options.exchange, options.routing_key, line, properties))
    ended = False
    with signals(sender.interrupt) as came:
        try:
            ended = await _with_progress(sender, descriptor, options.quiet)
        except OSError as error:
            complain(error, FAILED)
        finally:
            await client.shutdown(1)
            await sender.settled()
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
