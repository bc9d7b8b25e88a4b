"""The command line: diagram, verify, replay, outbox, check, publish, watch."""

import argparse
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Any, Final

from sprockets_amqp.errors import AMQPException
from sprockets_amqp.urls import may_hold_password

from . import check, diagram, outbox, publish, replay, verify, watch
from .command import FAILED, INTERRUPTED, SETTINGS_HELP, USAGE, UsageError, complain

LEVELS: Final = (logging.CRITICAL, logging.WARNING, logging.INFO, logging.DEBUG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a pipe of another encoding gets escapes instead of a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    # argparse does not find arguments that may be missing behind an option.
    options, more = parser.parse_known_args(arguments)
    options.more = more
    if options.more and not (options.takes_more and all(not each.startswith("-") for each in options.more)):
        # One of them may be a URL.
        named = ("***" if may_hold_password(each) else each for each in options.more)
        parser.error(f"unrecognized arguments: {' '.join(named)}")
    logging.basicConfig(level=LEVELS[min(options.verbose, 3)], format="%(levelname)s %(name)s: %(message)s")
    try:
        return int(options.run(options))
    except UsageError as error:
        return complain(error, USAGE)
    except KeyboardInterrupt:
        return INTERRUPTED + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output has gone; the interpreter must not find the pipe when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (AMQPException, OSError, RuntimeError) as error:
        return complain(error, FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sprockets-amqp",
        description="Inspect, test and use a connection to RabbitMQ.",
        epilog="Exit status: 0 success, 1 failure, 2 bad usage or settings, 130 interrupted; see each command.",
    )
    parser.add_argument("--version", action="version", version=version("sprockets_amqp"))
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (diagram, verify, replay, outbox):
        _add_command(commands, command, "")
    for command in (check, publish, watch):
        _add_command(commands, command, f" {SETTINGS_HELP}")
    return parser


def _add_command(commands: Any, command: ModuleType, settings: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        command.__name__.rpartition(".")[2],
        help=command.SUMMARY,
        description=command.SUMMARY,
        epilog=command.STATUS + settings,
    )
    parser.add_argument("-v", "--verbose", action="count", default=0, help="log warnings; -vv: info; -vvv: everything")
    parser.set_defaults(run=command.run, takes_more=False)
    command.add_arguments(parser)
