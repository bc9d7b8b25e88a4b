"""The benchmarks' own rules, and that what they run still runs; what they measure is in `benchmarks/`."""

import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from benchmarks import grow, growth, growth_report, load, measure, report, results
from benchmarks.broker import Broker
from benchmarks.cases import HANDLER, HEADERS, HEADLINE, LONE, Case, Round
from benchmarks.kinds import KINDS
from benchmarks.messages import Given
from benchmarks.peers import EXCHANGE, ROUTING_KEY
from benchmarks.results import Check, Results
from benchmarks.runner import Runner
from examples.demo import on_broker
from tools.rabbitmq import Node

if TYPE_CHECKING:
    from pika.adapters.blocking_connection import BlockingChannel

FOLDER = Path(report.__file__).parent
SMALL = Case("pipelined", 16, 4, tls=False, messages=20)
COPY = "benchmark-copy"


class Noted(Runner):
    """Notes who would be measured, and measures nothing."""

    order: list[tuple[Case, str]]

    async def measure(self, peer: str, case: Case) -> Round:
        """Note it."""
        self.order.append((case, peer))
        return Round(1, 1.0, 1.0, 1.0)


@pytest.fixture
async def measured(broker: Node) -> AsyncIterator[Broker]:
    """The broker that is measured against, on the shared node; a second queue takes all that comes."""
    with contextlib.closing(Broker(broker, Path())) as measured:
        await measured.declare()
        await measured.declare_exchanges(3)
        await on_broker(broker.url, lambda channel: channel.queue_declare(COPY, durable=True))
        await on_broker(broker.url, lambda channel: channel.queue_bind(COPY, EXCHANGE, ROUTING_KEY))
        yield measured
        await on_broker(broker.url, lambda channel: channel.queue_delete(COPY))


async def arrived(broker: Broker) -> list[Any]:
    """Return the properties of all that came."""

    def get(channel: "BlockingChannel") -> list[Any]:
        return [properties for _, properties, _ in iter(lambda: channel.basic_get(COPY, True), (None, None, None))]

    found: list[Any] = await on_broker(broker.node.url, get)
    return found


async def test_no_peer_is_always_the_first(tmp_path: Path) -> None:
    """In two rounds each peer is measured on a case once early in the turn and once late."""
    runner = Noted(cast("Broker", None), tmp_path)
    runner.order = []
    await runner.run([(case, ["pika", "aiormq", "aio-pika"]) for case in (HEADLINE, LONE)], 2, Results())
    for case in (HEADLINE, LONE):
        peers = [peer for measured, peer in runner.order if measured == case]
        assert len(peers) == 6
        assert peers[:3] == peers[:2:-1]


@pytest.mark.parametrize("given", ["properties", "headers", "none"])
@pytest.mark.parametrize("peer", ["sprockets_amqp", "pika"])
async def test_a_peer_publishes_what_it_is_given(measured: Broker, peer: str, given: Given) -> None:
    """Each message has an id of its own, and the properties of its case."""
    case = dataclasses.replace(SMALL, given=given)
    took = await measure.measure(peer, measured.node.url, case)
    assert took.messages == case.messages
    messages = await arrived(measured)
    assert len({each.message_id for each in messages}) == len(messages) == case.messages + case.warm_up
    for each in messages:
        kept = ("application/json", 2) if given != "none" else (None, None)
        assert (each.content_type, each.delivery_mode) == kept
        assert bool(each.headers) == (given == "headers")
    if given == "headers":
        assert len({each.headers["traceparent"] for each in messages}) == len(messages)
        assert messages[0].headers.items() >= {"schema": "user.created", "version": 3}.items()


async def test_one_message_at_a_time_has_a_latency(measured: Broker) -> None:
    """The median is below the 99th percentile, and both are known."""
    case = Case("one at a time", 16, 1, tls=False, messages=20)
    took = await measure.measure("sprockets_amqp", measured.node.url, case)
    assert took.p50 is not None
    assert took.p99 is not None
    assert 0 < took.p50 <= took.p99


@pytest.mark.parametrize("peer", ["sprockets_amqp", "pika"])
async def test_a_handler_publishes(measured: Broker, peer: str) -> None:
    """Each request publishes one message, and the empty ones none."""
    case = Case("handler", 16, 2, tls=False, messages=32)
    took = await load.measure(peer, measured.node.url, case, {})
    assert took.empty is not None
    messages = await arrived(measured)
    assert len(messages) == case.messages + case.warm_up
    assert {(each.content_type, each.delivery_mode) for each in messages} == {("application/json", 2)}


@pytest.mark.parametrize("kind", ["window", "line", "routing keys", "exchanges"])
async def test_growth_is_measured(measured: Broker, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Every column of the kind's table has its number."""
    monkeypatch.setattr(grow, "MESSAGES", 20)
    found = await grow.MEASURES[kind](3, measured.node.url)
    (known,) = [each for each in KINDS if each.name == kind]
    assert all(found[name] >= 0 for _, names, *_ in known.columns for name in (*names, known.cost))


async def test_memory_is_measured(measured: Broker) -> None:
    """Every message has its end, and memory is looked at from the beginning to the end."""
    found = await grow.memory(0.02, measured.node.url)
    assert found["confirmed"] + found["failed"] == (120 + 1) * grow.RATE * grow.INTERVAL
    assert [at for at, _ in found["samples"]] == pytest.approx([turn * 0.02 for turn in range(grow.SAMPLES + 1)])
    assert all(octets > 0 for _, octets in found["samples"])


async def test_clients_return_to_their_node(node: Node) -> None:
    """All come back, and the node says when."""
    found = await growth.measure_return(node, 3)
    assert found["last"] > 0
    assert 1 <= found["peak"] <= 3


def a_result(**machine: str) -> Results:
    """Results of a client that takes 4 µs where pika takes 10, with a growth of each kind."""
    made = Results({"Python": "3.11.2", "RabbitMQ": "3.10.8", "when": "", "processor": "", "system": "", **machine})
    for ours, pika in ((4, 10), (3, 10), (9, 10)):
        for case in (HEADLINE, HEADERS):
            made.add(case, "sprockets_amqp", Round(case.messages, 1.0, ours * case.messages / 1e6, 0.0))
            made.add(case, "pika", Round(case.messages, 2.0, pika * case.messages / 1e6, 0.0))
    made.add(HANDLER, "sprockets_amqp", Round(HANDLER.messages, 1.0, 0.9, 0.06, empty=0.8))
    made.checks = [Check("memory", "at most 1 KiB", "560 B")]
    made.growth_machine = made.machine
    made.growth["window", 1] = made.growth["window", 100_000] = [{"cpu": 1e-6, "gc": 0.0, "wall": 1e-5}]
    return made


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """One measurement is one line, so that a difference shows what changed."""
    record = {"debian-12": a_result(), "debian-unstable": a_result(Python="3.14.10", RabbitMQ="4.3.6")}
    results.write(record, tmp_path / "results.json")
    assert results.read(tmp_path / "results.json") == record
    first, *lines, last = (tmp_path / "results.json").read_text().splitlines()
    assert (first, last) == ("[", "]")
    # machine, two cases of two peers and the handler, a check, where growth was measured, two numbers.
    assert len([json.loads(line.rstrip(",")) for line in lines]) == 2 * (1 + 5 + 1 + 1 + 2)


def cells(table: str) -> dict[tuple[str, str], list[str]]:
    """The rest of each row, by its first two cells."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    return {(row[0], row[1]): row[2:] for row in rows}


def test_the_summary_has_medians_and_ratios_of_each_system() -> None:
    """Rows are named by versions, and ratios are taken within a round."""
    record = {"debian-12": a_result(), "debian-unstable": a_result(Python="3.14.10", RabbitMQ="4.3.6")}
    table = cells(report.summary(record))
    for versions in ("Python 3.11.2, RabbitMQ 3.10.8", "Python 3.14.10, RabbitMQ 4.3.6"):
        assert table["processor time a message", versions][:2] == ["4.0 µs", "10.0 µs"]
        assert table["the same, over pika by hand", versions][:2] == ["0.40", "1.00"]
        assert table["what a publish adds to a Tornado request", versions][0] == "20 µs"
        assert table["the same, over the empty request", versions][0] == "0.20"
    goals = cells(report.goals(record))
    assert goals["processor time a message, over pika by hand", versions][1:] == ["0.40", "0.30 to 0.90"]
    assert goals["memory", versions][1] == "560 B"


@pytest.mark.parametrize(("most", "verdict"), [(1e-6, "linear"), (1.4e-6, "linear"), (2e-6, "more than linear")])
def test_what_grows_is_judged_by_what_one_costs(most: float, verdict: str) -> None:
    """The same for each, however many there are, is linear."""
    made: Any = a_result()
    made.growth["window", 100_000] = [{"cpu": most, "gc": 5e-6, "wall": 1e-5}]
    (kind,) = [each for each in KINDS if each.name == "window"]
    assert growth_report.growth(made, kind) == pytest.approx(most / 1e-6)
    assert growth_report.verdict(made, kind) == verdict


def test_the_report_is_that_of_the_record() -> None:
    """``results.md`` was written from ``results.json``."""
    record = results.read(FOLDER / "results.json")
    written = (FOLDER / "results.md").read_text()
    assert written == f"# What was measured\n\n{report.render(record)}", "run python -m benchmarks --redraw"
