"""Where the numbers were taken: without it they say nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from tools import rabbitmq

_LIBRARIES = ("sprockets_amqp", "pika", "tornado", "aiormq", "aio-pika")


def describe(how: str) -> dict[str, str]:
    """Return what a reader has to know of the machine and the software, and how it was measured."""
    return {
        "when": f"{datetime.now(UTC):%Y-%m-%d}, {how}",
        "processor": f"{_processor()}, {os.cpu_count()} cores, shared with RabbitMQ",
        "system": f"{_release('PRETTY_NAME')}, {platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        # How an interpreter was built makes about a fifth of what Python costs here.
        "interpreter": f"of {sys.base_prefix}",
        "RabbitMQ": ".".join(map(str, rabbitmq.version())),
        "libraries": ", ".join(f"{name} {version}" for name in _LIBRARIES if (version := _version(name))),
    }


def system() -> str:
    """Name this system as its results are recorded, such as debian-12."""
    return f"{_release('ID')}-{_release('VERSION_ID') or _release('VERSION_CODENAME')}"


def _release(name: str) -> str:
    try:
        return platform.freedesktop_os_release().get(name, "")
    except OSError:
        return ""


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
