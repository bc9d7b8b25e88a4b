"""The C peer: ``librabbitmq_publish.c``, compiled when it is first measured."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.cases import Case, Round, percentiles
from benchmarks.peers import APP_ID, EXCHANGE, ROUTING_KEY

_SOURCE = Path(__file__).with_name("librabbitmq_publish.c")


def why_not() -> str | None:
    """Say what is missing to compile it, or None."""
    if shutil.which("cc") is None:
        return "no C compiler (apt-get install gcc)"
    probe = subprocess.run(["cc", "-E", _SOURCE], capture_output=True, check=False)
    return "no librabbitmq headers (apt-get install librabbitmq-dev)" if probe.returncode else None


def compile_into(folder: Path) -> Path:
    """Compile the program into ``folder`` and return where it is."""
    program = folder / "librabbitmq_publish"
    # Newer versions warn of the names of headers that older ones have alone.
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Wno-cpp", "-o", program, _SOURCE, "-lrabbitmq"], check=True)
    return program


def measure(program: Path, url: str, cafile: Path | None, case: Case, limit: float) -> Round:
    """Run the program on one case; it warms up and measures as ``measure.py`` does."""
    broker = urlsplit(url)
    arguments = [
        broker.hostname, broker.port, cafile if case.tls else "-", EXCHANGE, ROUTING_KEY, APP_ID,
        case.given, case.size, case.window, case.warm_up, case.messages,
    ]  # fmt: skip
    printed = subprocess.run([program, *map(str, arguments)], stdout=subprocess.PIPE, check=True, timeout=limit).stdout
    measured = json.loads(printed)
    latencies = measured.pop("latencies")
    p50, p99 = percentiles(latencies) if latencies else (None, None)
    return Round(**measured, p50=p50, p99=p99)
