"""``python -m benchmarks``: start a broker, measure the peers in turn, print the tables, write them and a chart."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from benchmarks import checks, machine, outbox, postgres, report
from benchmarks.broker import running_broker
from benchmarks.cases import FULL, HANDLER, HEADLINE, Case
from benchmarks.peers import BASELINE, LIBRABBITMQ, OURS, PEERS
from benchmarks.record import HERE, RECORD, write_all
from benchmarks.results import Results, read
from benchmarks.runner import Runner, can_run, why_not

#: What the goals for speed need, and no more.
_QUICK = ((HEADLINE, (OURS, BASELINE, LIBRABBITMQ)), (HANDLER, (OURS,)))
_WORKLOADS = ("pipelined", "one at a time", "handler", "checks")


def main() -> None:
    """Do what the command line asks for."""
    options = _parser().parse_args()
    if options.redraw:
        write_all(read(RECORD), options.output or HERE)
        return
    results = asyncio.run(_measure(options))
    if options.quick:
        print("\n" + report.goals({options.system: results}))
        return
    print("\n" + report.render({options.system: results}))
    everything = options.peers == list(PEERS) and options.workloads == list(_WORKLOADS)
    folder = options.output or (HERE if everything else None)
    if folder is None:
        print("Only a part was measured, so nothing was written; --output FOLDER would.")
        return
    record = read(folder / RECORD.name)
    before = record.get(options.system, results)
    results.growth_machine, results.growth = before.growth_machine, before.growth
    write_all({**record, options.system: results}, folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only the goals for speed, in a minute; writes nothing")
    # An even number: each peer is as often early in its turn as late.
    parser.add_argument("--rounds", type=int, default=6, help="how often everything is measured (6)")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--workloads", nargs="+", choices=_WORKLOADS, default=list(_WORKLOADS))
    parser.add_argument(
        "--system", default=machine.system(), help=f"the name that it is recorded by ({machine.system()})"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where results and chart go (benchmarks/)")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: write the tables and the chart again")
    return parser


async def _measure(options: argparse.Namespace) -> Results:
    present = _present(options.peers)
    plan = [
        (case, [peer for peer in peers if peer in present])
        for case, peers in (_QUICK if options.quick else _full())
        if case.workload in options.workloads
    ]
    with tempfile.TemporaryDirectory() as folder:
        print("starting RabbitMQ ...", flush=True)
        async with running_broker(Path(folder)) as broker:
            results = Results(machine.describe(f"{options.rounds} rounds"))
            await Runner(broker, Path(folder)).run(plan, options.rounds, results)
            if not options.quick and "checks" in options.workloads and OURS in present:
                results.checks = [
                    *await checks.run(broker),
                    *await outbox.run(broker.node),
                    *await postgres.run(broker.node),
                ]
    return results


def _full() -> list[tuple[Case, tuple[str, ...]]]:
    return [(case, tuple(peer for peer in PEERS if can_run(peer, case))) for case in FULL]


def _present(peers: list[str]) -> list[str]:
    missing = {peer: reason for peer in peers if (reason := why_not(peer))}
    for peer, reason in missing.items():
        print(f"leaving {peer} out: {reason}")
    return [peer for peer in peers if peer not in missing]


if __name__ == "__main__":
    main()
