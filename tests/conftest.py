"""Brokers of the tests' own, started once and only where a test needs them."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.support import leaks
from tests.support.rabbitmq import Cluster, Node


@pytest.fixture(scope="session")
def broker() -> Iterator[Node]:
    """A node that every test shares and none breaks."""
    shared = Node()
    asyncio.run(shared.start())
    yield shared
    shared.close()


@pytest.fixture(scope="session")
def _breakable() -> Iterator[Node]:
    private = Node()
    asyncio.run(private.start())
    yield private
    private.close()


@pytest_asyncio.fixture
async def node(_breakable: Node) -> AsyncIterator[Node]:
    """A node that a test may stop, kill, freeze and alarm; it is mended after the test."""
    yield _breakable
    await _breakable.repair()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three nodes in a cluster; tests that break it mend it."""
    nodes = Cluster()
    asyncio.run(nodes.start())
    yield nodes
    nodes.close()


@pytest_asyncio.fixture
async def no_leaks() -> AsyncIterator[None]:
    """Fail the test when it leaves a socket, thread, task or timer."""
    async with leaks.no_leaks():
        yield
