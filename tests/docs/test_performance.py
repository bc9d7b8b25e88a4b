"""docs/performance.md: the program publishes, and what is said of memory is what was measured."""

from typing import Final

from benchmarks import results
from sprockets_amqp.testing import Broker
from tests.support.documents import Document
from tools.documents import ROOT

PERFORMANCE: Final = Document("docs/performance.md")

TESTED: Final = {("What to expect of your application", "python")}


async def test_what_is_published_together_is_confirmed() -> None:
    """All thousand messages, in their order."""
    with Broker() as broker:
        broker.exchange_declare("events", "topic")
        broker.queue_declare("counted")
        broker.queue_bind("counted", "events", "#")
        async with PERFORMANCE.run("What to expect of your application"):
            pass
        assert [int(message.body) for message in broker.messages("counted")] == [*range(1000)]
        assert all(message.confirmed for message in broker.messages("counted"))


def test_the_picture_is_there() -> None:
    """It is the one that the benchmarks draw."""
    assert "](../benchmarks/chart.svg)" in PERFORMANCE.text
    assert (ROOT / "benchmarks" / "chart.svg").read_text().lstrip().startswith("<?xml")


def test_the_memory_is_what_was_measured() -> None:
    """A message in flight takes less than 1 KiB beside its body."""
    record = results.read(ROOT / "benchmarks" / "results.json")
    checks = [check for each in record.values() for check in each.checks]
    measured = [check.value for check in checks if check.what.startswith("memory for each message in flight")]
    assert "less than 1 KiB beside it" in PERFORMANCE.text
    assert len(measured) == len(record)
    assert all(each.endswith(" B") and int(each.removesuffix(" B")) < 1024 for each in measured)
