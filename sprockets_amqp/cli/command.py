"""What the commands share: exit statuses, settings, signals and error output."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final

import pika

from sprockets_amqp.errors import FOR_HANDLERS
from sprockets_amqp.names import DEFAULT_NAME
from sprockets_amqp.settings import DEFAULT_URL, Settings, from_environment, prefixes
from sprockets_amqp.text import SENTENCE_LIMIT, shown

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
#: Added to the signal's number, as shells do.
INTERRUPTED: Final = 128

SETTINGS_HELP: Final = (
    "Settings come from the environment as in an application: AMQP_URL, AMQP_TIMEOUT ..., then RABBITMQ_URL ...; "
    "flags take precedence. A password on the command line is visible in the process list; one in AMQP_URL is not."
)


class UsageError(Exception):
    """The command cannot be run as given; says why."""


def plainly(error: BaseException | None) -> str:
    """Return what an error says, without the advice for an application's handlers."""
    return str(error).removesuffix(FOR_HANDLERS)


def complain(error: BaseException, status: int) -> int:
    """Print the error to standard error; return the exit status."""
    print("sprockets-amqp:", shown(" ".join(str(error).split()), SENTENCE_LIMIT), file=sys.stderr)
    return status


def add_name(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names one of several clients."""
    parser.add_argument(
        "--name", default=DEFAULT_NAME, help="one of several clients: audit reads AUDIT_URL, AUDIT_TIMEOUT ..."
    )


def add_settings(parser: argparse.ArgumentParser, helps: dict[str, str]) -> None:
    """Add a flag for each of these settings."""
    add_name(parser)
    for name, text in helps.items():
        parser.add_argument(f"--{name.replace('_', '-')}", dest=f"setting_{name}", metavar="VALUE", help=text)


def read_settings(options: argparse.Namespace, **others: Any) -> dict[str, Any]:
    """Collect and check the settings: flags take precedence over the environment, the environment over defaults."""
    prefix = "setting_"
    flags = {
        name.removeprefix(prefix): value
        for name, value in vars(options).items()
        if name.startswith(prefix) and value is not None
    }
    app_id = f"sprockets_amqp/{version('sprockets_amqp')}"
    try:
        settings = {
            "url": DEFAULT_URL,
            "default_app_id": app_id,
            **from_environment(name=options.name),
            # What an application has stored or recorded is its own.
            "outbox": None,
            "recorder": None,
            **flags,
            **others,
        }
        Settings(**settings)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return settings


def url_origin(options: argparse.Namespace) -> str:
    """Say where the URL comes from."""
    if options.setting_url is not None:
        return "the URL of the command line"
    variables = [f"{prefix}URL" for prefix in prefixes(options.name)]
    found = next((each for each in variables if os.environ.get(each)), None)
    return (
        f"the URL in {found}"
        if found
        else f"the default URL, because {' and '.join(variables)} {'is' if len(variables) == 1 else 'are'} not set"
    )


@contextmanager
def signals(callback: Callable[[], object]) -> Iterator[list[signal.Signals]]:
    """Call back on Ctrl-C and SIGTERM, from the loop; yields the list of signals received."""
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


def address(node: pika.URLParameters) -> str:
    """Name the node without the rest of its URL, which may hold passwords."""
    return f"{'amqps' if node.ssl_options else 'amqp'}://{shown(node.host)}:{node.port}"
