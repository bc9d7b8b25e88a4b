"""Where the numbers were taken: without it they say nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.broker import Broker

_LIBRARIES = ("sprockets_amqp", "pika", "tornado", "aiormq", "aio-pika")


async def describe(broker: Broker, rounds: int) -> dict[str, str]:
    """Return what a reader has to know of the machine and the software."""
    return {
        "when": f"{datetime.now(UTC):%Y-%m-%d}, {rounds} rounds",
        "processor": f"{_processor()}, {os.cpu_count()} cores, shared with RabbitMQ",
        # How an interpreter was built makes about a fifth of what Python costs here.
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()} of {sys.base_prefix}",
        "RabbitMQ": (await broker.node.ctl("version")).strip(),
        "libraries": ", ".join(f"{name} {version}" for name in _LIBRARIES if (version := _version(name))),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
