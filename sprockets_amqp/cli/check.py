"""The command check: connect step by step, and report what works and what does not."""

import argparse
import asyncio
import functools
import importlib
import sys
from typing import TYPE_CHECKING, Final, cast

from sprockets_amqp.settings import Settings
from sprockets_amqp.text import shown
from sprockets_amqp.urls import node_parameters

from .command import FAILED, OK, add_name, address, read_settings, url_origin
from .steps import Step, check_node

if TYPE_CHECKING:
    from sprockets_amqp.connection.topology import SetupFunction

SUMMARY: Final = "connect step by step, and report what works and what does not"
STATUS: Final = "Exit status: 0 every node is fine, 1 a step failed, 2 bad usage or settings."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_name(parser)
    parser.add_argument("setting_url", metavar="URL", nargs="?", help="one node, or several, separated by commas")
    parser.add_argument(
        "--setup", metavar="MODULE:FUNCTION", type=_function, help="run this setup function, too; its declarations stay"
    )
    parser.add_argument("--limit", type=_limit, default=10.0, help="seconds that each step may take; default: 10")


def _function(text: str) -> "SetupFunction":
    module, _, name = text.partition(":")
    # As python -m does, so that the application's modules are found.
    sys.path.insert(0, "")
    try:
        found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except Exception as error:
        raise argparse.ArgumentTypeError(f"{shown(text)} cannot be imported: {shown(error)}") from None
    if not callable(found):
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a function")
    return cast("SetupFunction", found)


def _limit(text: str) -> float:
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0 < limit < 1e6:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {shown(text, 40)}")
    return limit


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    settings = Settings(**read_settings(options))
    print(f"client {options.name}: {url_origin(options)}", flush=True)
    return asyncio.run(_check_nodes(settings, options.limit, options.setup))


async def _check_nodes(settings: Settings, limit: float, setup: "SetupFunction | None") -> int:
    assert isinstance(settings.url, str)
    nodes = node_parameters(settings.url, settings.tls, settings.auth)
    failed = 0
    passed_over = False
    for node in nodes:
        print(address(node), flush=True)
        steps = [_show_step(step) async for step in check_node(node, limit, setup)]
        failed += not steps[-1].ok
        passed_over = passed_over or any(step.passed_over for step in steps)
    fine = "all is fine, except for the addresses that failed" if passed_over else "all is fine"
    print(f"{failed} of {len(nodes)} nodes failed" if failed else fine, flush=True)
    return FAILED if failed else OK


def _show_step(step: Step) -> Step:
    print(f"  {step.name:<9} {'ok' if step.ok else 'FAILED':<7} {shown(step.detail)}", flush=True)
    if step.advice:
        print(f"  {'':<9} {'->':<7} {shown(step.advice)}", flush=True)
    if step.passed_over:
        print(f"  {'':<9} {'->':<7} the next address is tried, as a client does", flush=True)
    return step
