"""Measures in turn: every peer once on a case, then the next case, and all of it again in the next round."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from benchmarks import librabbitmq, load
from benchmarks.cases import Case, Round
from benchmarks.peers import BARE, LIBRABBITMQ, missing_library

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.broker import Broker
    from benchmarks.results import Results

#: Seconds that one measurement may take; the slowest takes about five.
LIMIT = 120.0


class Runner:
    """Runs measurements against one broker; every one is a fresh process."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self._broker = broker
        self._folder = folder
        self._program: Path | None = None

    async def run(self, plan: Sequence[tuple[Case, Sequence[str]]], rounds: int, results: Results) -> None:
        """Add ``rounds`` rounds of every case and its peers to ``results``; print each measurement as it ends."""
        for number in range(1, rounds + 1):
            print(f"\nround {number} of {rounds}", flush=True)
            for place, (case, peers) in enumerate(plan):
                print(f"  {case}", flush=True)
                # A broker that the last peer left half idle is slower with the next: none is to be the first always.
                for peer in peers if (number + place) % 2 else reversed(peers):
                    measured = await self.measure(peer, case)
                    results.add(case, peer, measured)
                    print(f"    {peer:<14} {measured.cpu:9.1f} µs {measured.rate:9,.0f}/s", flush=True)

    async def measure(self, peer: str, case: Case) -> Round:
        """Measure one peer on one case, once, with an empty queue."""
        await self._broker.empty_queue()
        async with asyncio.timeout(LIMIT):
            url, environment = self._broker.url(tls=case.tls), self._broker.environment(tls=case.tls)
            if case.workload == "handler":
                return await load.measure(peer, url, case, environment)
            if peer == LIBRABBITMQ:
                return await asyncio.to_thread(self._measure_librabbitmq, url, case)
            arguments = ["-m", "benchmarks.measure", peer, url, json.dumps(asdict(case))]
            return Round(**json.loads(await _output_of(sys.executable, *arguments, environment=environment)))

    def _measure_librabbitmq(self, url: str, case: Case) -> Round:
        if self._program is None:
            self._program = librabbitmq.compile_into(self._folder)
        return librabbitmq.measure(self._program, url, self._broker.cafile, case, LIMIT)


def can_run(peer: str, case: Case) -> bool:
    """Say whether ``peer`` takes part in ``case``: C has no Tornado handler, and bare pika is a footnote to pika."""
    if case.workload == "handler":
        return peer not in {LIBRABBITMQ, BARE}
    return peer != BARE or (case.given == "none")


def why_not(peer: str) -> str | None:
    """Say what ``peer`` lacks on this machine, or None."""
    if peer == LIBRABBITMQ:
        return librabbitmq.why_not()
    library = missing_library(peer)
    return f"no {library} (pip install '.[bench]')" if library else None


async def _output_of(*command: str, environment: dict[str, str]) -> bytes:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=os.environ | environment)
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        msg = f"{' '.join(command)} ended with status {process.returncode}; its output is above"
        raise RuntimeError(msg)
    return output
