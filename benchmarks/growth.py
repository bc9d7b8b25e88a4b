"""How what a publish costs grows with how many there are of something: ``python -m benchmarks.growth``.

Each measurement is a fresh process of `grow.py`; the numbers take turns, and medians over the rounds count.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path

from benchmarks import growth_report, machine
from benchmarks.broker import Broker, running_broker
from benchmarks.kinds import CLIENTS, KINDS, MEMORY, Kind
from benchmarks.record import HERE, RECORD, write_all
from benchmarks.results import Grown, Results, read
from tools.rabbitmq import Node

#: The names of all that can be measured.
NAMES = [*(kind.name for kind in KINDS), MEMORY]
#: The processes that many clients are in.
PROCESSES = 8
#: Seconds between two times that the connection is closed while memory is measured.
CLOSED_EVERY = 60
#: Seconds that anything but that may take.
LIMIT = 300.0


def main() -> None:
    """Do what the command line asks for."""
    options = _parser().parse_args()
    kinds = [kind for kind in KINDS if kind.name in options.kinds]
    minutes = options.minutes if MEMORY in options.kinds else 0
    growth = asyncio.run(measure(kinds, options.rounds, minutes))
    folder = options.output or HERE
    record = read(folder / RECORD.name)
    results = record.setdefault(options.system, Results())
    results.growth_machine = machine.describe(f"{options.rounds} rounds")
    kept = {(kind, number): grown for (kind, number), grown in results.growth.items() if kind not in options.kinds}
    results.growth = {**kept, **growth}
    print("\n" + "\n".join(f"{heading}\n\n{text}" for heading, text in growth_report.sections(results)))
    write_all(record, folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything but memory is measured (3)")
    parser.add_argument("--minutes", type=int, default=60, help="for how long memory is measured (60)")
    parser.add_argument("--system", default=machine.system(), help="the name that it is recorded by")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where results go (benchmarks/)")
    return parser


async def measure(kinds: list[Kind], rounds: int, minutes: int) -> dict[tuple[str, int], list[Grown]]:
    """Measure kinds at their numbers, so many rounds; and memory for so many minutes, unless they are 0."""
    growth: dict[tuple[str, int], list[Grown]] = {(kind.name, each): [] for kind in kinds for each in kind.numbers}
    if any(name == CLIENTS for name, _ in growth):
        async with Node("benchmark") as node:
            for turn, name, number in _turns(growth, rounds):
                if name == CLIENTS:
                    growth[name, number].append(await measure_return(node, number))
                    _tell(turn, name, number, growth[name, number][-1])
    with tempfile.TemporaryDirectory() as folder:
        async with running_broker(Path(folder)) as broker:
            exchanges = [number for name, number in growth if name == "exchanges"]
            await broker.declare_exchanges(max(exchanges, default=0))
            for turn, name, number in _turns(growth, rounds):
                if name != CLIENTS:
                    await broker.empty_queue()
                    growth[name, number].append(await _measured(name, number, broker.node.url))
                    _tell(turn, name, number, growth[name, number][-1])
            if minutes:
                print(f"{MEMORY}: {minutes} minutes", flush=True)
                growth[MEMORY, minutes] = [await measure_memory(broker, minutes)]
    return growth


def _turns(growth: dict[tuple[str, int], list[Grown]], rounds: int) -> Iterator[tuple[int, str, int]]:
    for turn in range(1, rounds + 1):
        for name, number in list(growth):
            yield turn, name, number


async def measure_memory(broker: Broker, minutes: int) -> Grown:
    """Publish for so many minutes, to a node that closes the connection each minute."""
    url = await broker.node.add_user("memory")

    async def close_often() -> None:
        while True:
            await asyncio.sleep(CLOSED_EVERY)
            await broker.node.ctl("close_all_user_connections", "memory", "each minute")

    closing = asyncio.create_task(close_often())
    try:
        return await _measured(MEMORY, minutes, url, minutes * 60 + LIMIT)
    finally:
        closing.cancel()


async def measure_return(node: Node, number: int) -> Grown:
    """Have so many clients lose their node, which is killed and started, and return to it."""
    of_each = [len(range(number)[place::PROCESSES]) for place in range(min(PROCESSES, number))]
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(LIMIT):
        every = [await stack.enter_async_context(_process(CLIENTS, each, node.url)) for each in of_each]
        for process in every:
            await _line(process)
        await node.kill()
        await node.start()
        last = max([float(await _line(process)) for process in every])
        listed = await node.ctl("list_connections", "--no-table-headers", "connected_at")
        accepted = sorted(int(each) / 1000 for each in listed.split())
    listens = re.findall(r"^(\S+ \S+) \[info\] .* started TCP listener on 127.0.0.1", node.log, re.MULTILINE)
    began = max(datetime.fromisoformat(each).timestamp() for each in listens)
    return {"last": last - began, "peak": max(sum(at <= each < at + 1 for each in accepted) for at in accepted)}


async def _measured(kind: str, number: int, url: str, limit: float = LIMIT) -> Grown:
    async with asyncio.timeout(limit), _process(kind, number, url) as process:
        measured: Grown = json.loads(await _line(process))
    return measured


@contextlib.asynccontextmanager
async def _process(kind: str, number: int, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a measurement; at the end its standard input is closed, and it has ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.grow", kind, str(number), url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _line(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("a measurement ended early; its output is above")
    return line


def _tell(turn: int, kind: str, number: int, measured: Grown) -> None:
    said = ", ".join(f"{name} {value:.3g}" for name, value in measured.items())
    print(f"{turn} {kind:<13} {number:>7,} {said}", flush=True)


if __name__ == "__main__":
    main()
