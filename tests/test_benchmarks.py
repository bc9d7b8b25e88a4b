"""The benchmarks' own rules; what they measure is in `benchmarks/`."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

from benchmarks.cases import HEADLINE, LONE, Case, Round
from benchmarks.results import Results
from benchmarks.runner import Runner

if TYPE_CHECKING:
    from benchmarks.broker import Broker


class Noted(Runner):
    """Notes who would be measured, and measures nothing."""

    order: list[tuple[Case, str]]

    async def measure(self, peer: str, case: Case) -> Round:
        """Note it."""
        self.order.append((case, peer))
        return Round(1, 1.0, 1.0, 1.0)


async def test_no_peer_is_always_the_first(tmp_path: Path) -> None:
    """In two rounds each peer is measured on a case once early in the turn and once late."""
    runner = Noted(cast("Broker", None), tmp_path)
    runner.order = []
    await runner.run([(case, ["pika", "aiormq", "aio-pika"]) for case in (HEADLINE, LONE)], 2, Results({}))
    for case in (HEADLINE, LONE):
        peers = [peer for measured, peer in runner.order if measured == case]
        assert len(peers) == 6
        assert peers[:3] == peers[:2:-1]
