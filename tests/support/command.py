"""The command line, and other programs, in processes of their own."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: The script that pip installs.
COMMAND: Final = str(Path(sys.executable).with_name("sprockets-amqp"))
#: Options of a Python in which any warning is an error, but for the one that Tornado's IOLoop.current() causes on
#: Python 3.12 and 3.13 where no loop runs yet.
WARNINGS_ARE_ERRORS: Final = ("-W", "error", "-W", "ignore:There is no current event loop:DeprecationWarning")
#: Seconds that a command may take.
RUN_LIMIT: Final = 90.0


def bare_environment() -> dict[str, str]:
    """Return the environment without what would configure Python, this client, or RabbitMQ."""
    prefixes = ("PYTHON", "AMQP_", "RABBITMQ_")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


@dataclass(frozen=True)
class Result:
    """What a process ended with."""

    status: int | None
    out: str
    err: str


async def start(*arguments: str, **variables: str) -> asyncio.subprocess.Process:
    """Start the command line, with nothing of the settings in its environment but what is given."""
    return await asyncio.create_subprocess_exec(
        COMMAND,
        *arguments,
        env={**bare_environment(), **variables},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(*arguments: str, given: bytes = b"", **variables: str) -> Result:
    """Run the command line to its end."""
    process = await start(*arguments, **variables)
    out, err = await asyncio.wait_for(process.communicate(given), RUN_LIMIT)
    return Result(process.returncode, out.decode(), err.decode())
