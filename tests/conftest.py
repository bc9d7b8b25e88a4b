"""Brokers of the tests' own, started once and only where a test needs them."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import hypothesis
import pytest

from tests.support import leaks
from tests.support.consume import Queue, declare_queue
from tests.support.rabbitmq import Cluster, Node

# A shell ignores SIGINT for what it starts in the background; the programs that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# An example that is slow because the machine is busy is no failure.
hypothesis.settings.register_profile("project", deadline=None, print_blob=True)
hypothesis.settings.load_profile("project")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of the cluster in one worker: its three nodes are the dearest to start."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("cluster"))


@pytest.fixture(scope="session")
def broker() -> Iterator[Node]:
    """A node that every test shares and none breaks."""
    with closing(Node()) as shared:
        asyncio.run(shared.start())
        yield shared


@pytest.fixture(scope="session")
def _breakable() -> Iterator[Node]:
    with closing(Node()) as private:
        asyncio.run(private.start())
        yield private


@pytest.fixture
async def node(_breakable: Node) -> AsyncIterator[Node]:
    """A node that a test may stop, kill, freeze and alarm; it is mended after the test."""
    yield _breakable
    await _breakable.repair()


@pytest.fixture(scope="session")
def _breakable_cluster() -> Iterator[Cluster]:
    with closing(Cluster()) as private:
        asyncio.run(private.start())
        yield private


@pytest.fixture
async def cluster(_breakable_cluster: Cluster) -> AsyncIterator[Cluster]:
    """Three nodes in a cluster, which a test may break; it is mended after the test."""
    yield _breakable_cluster
    await _breakable_cluster.repair()


@pytest.fixture
async def queue(broker: Node) -> AsyncIterator[Queue]:
    """A fresh queue on the shared node, bound to an exchange of its own."""
    declared = await declare_queue(broker.url)
    yield declared
    await declared.delete()


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    """Fail the test when it leaves a descriptor, thread, task or timer."""
    async with leaks.no_leaks():
        yield
