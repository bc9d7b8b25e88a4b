"""``python -m benchmarks``: start a broker, measure the peers in turn, print the tables, write them and a chart."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from benchmarks import chart, checks, machine, report
from benchmarks.broker import running_broker
from benchmarks.cases import FULL, QUICK
from benchmarks.peers import OURS, PEERS
from benchmarks.results import Results, read
from benchmarks.runner import Runner, why_not

_HERE = Path(__file__).parent
_WORKLOADS = ("pipelined", "one at a time", "handler", "checks")


def main() -> None:
    """Do what the command line asks for."""
    options = _parser().parse_args()
    everything = (not options.quick, options.peers == list(PEERS), options.workloads == list(_WORKLOADS))
    results = read(_HERE / "results.json") if options.redraw else asyncio.run(_measure(options))
    print("\n" + report.render(results))
    folder = options.output or (_HERE if options.redraw or all(everything) else None)
    if folder is None:
        print("Only a part was measured, so nothing was written; --output FOLDER would.")
        return
    folder.mkdir(parents=True, exist_ok=True)
    results.write(folder / "results.json")
    (folder / "results.md").write_text("# What was measured\n\n" + report.render(results))
    chart.draw(results, folder / "chart.svg")
    print(f"Written to {folder}: results.json, results.md, chart.svg")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one case of each workload, in about two minutes")
    parser.add_argument("--rounds", type=int, help="how often everything is measured (6, or 3 with --quick)")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--workloads", nargs="+", choices=_WORKLOADS, default=list(_WORKLOADS))
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where results and chart go (benchmarks/)")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: render the last results again")
    return parser


async def _measure(options: argparse.Namespace) -> Results:
    peers = _present(options.peers)
    cases = [case for case in (QUICK if options.quick else FULL) if case.workload in options.workloads]
    # An even number: each peer is as often early in its turn as late.
    rounds = options.rounds or (3 if options.quick else 6)
    with tempfile.TemporaryDirectory() as folder:
        print("starting RabbitMQ ...", flush=True)
        async with running_broker(Path(folder)) as broker:
            results = Results(await machine.describe(broker, rounds))
            await Runner(broker, Path(folder)).run(cases, peers, rounds, results)
            if "checks" in options.workloads and OURS in peers:
                results.checks = await checks.run(broker)
    return results


def _present(peers: list[str]) -> list[str]:
    missing = {peer: reason for peer in peers if (reason := why_not(peer))}
    for peer, reason in missing.items():
        print(f"leaving {peer} out: {reason}")
    return [peer for peer in peers if peer not in missing]


if __name__ == "__main__":
    main()
