"""Brokers of the tests' own, started once and only where a test needs them."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import closing

import hypothesis
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from sprockets_amqp.outbox.postgres import store
from tests.support import leaks
from tests.support.browser import chromium
from tests.support.consume import Queue, declare_queue
from tests.support.progress import Progress
from tools import recorded
from tools.postgres import Server
from tools.rabbitmq import Cluster, Host, Node

# A shell ignores SIGINT for what it starts in the background; the programs that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# An example that is slow because the machine is busy is no failure.
hypothesis.settings.register_profile("project", deadline=None, print_blob=True)
# `make test-fast` looks at fewer of them.
hypothesis.settings.register_profile("fast", hypothesis.settings.get_profile("project"), max_examples=20)
hypothesis.settings.load_profile("project")


#: The fixtures after which tests are marked.
_NEEDS = {"rabbitmq", "postgres", "prometheus", "browser", "package"}


def pytest_configure(config: pytest.Config) -> None:
    """Tell what is running, in the process that shows the results."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with what it needs, and keep those of the cluster in one worker: it is the dearest to start."""
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        needs = _NEEDS & (names | ({"postgres"} if "server" in names else set()))
        for name in needs:
            item.add_marker(name)
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("cluster"))


_SOCKETS = pytest.StashKey[set[str]]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Remember the sockets that were there before the test."""
    item.stash[_SOCKETS] = leaks.sockets()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Fail the test that leaves a socket open, rather than the one in which it is found."""
    result = yield
    before = item.stash[_SOCKETS]
    left = leaks.sockets() - before
    assert not left, f"the test left open: {left}"
    return result


@pytest.fixture(scope="session")
def rabbitmq() -> None:
    """Asked for by what starts nodes of its own; `make test-fast` leaves out the tests that do."""


@pytest.fixture(scope="session")
def prometheus() -> None:
    """Asked for by what starts Prometheus or its tools; `make test-fast` leaves it out."""


@pytest.fixture(autouse=True)
def recordings(request: pytest.FixtureRequest) -> Iterator[recorded.Recordings]:
    """Record every client that the test makes: whatever happens to it must be what is declared."""
    with recorded.recording(interval=0) as made:
        yield made
    if request.node.get_closest_marker("planted") is None:
        assert made.problems() == []


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[Browser]:
    """Chromium; `make test-fast` leaves it out."""
    async with chromium() as started:
        yield started


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Leave out what asyncio says of futures that earlier tests have left: they are collected at any time."""

    def is_own(record: logging.LogRecord) -> bool:
        return "was never retrieved" not in record.getMessage()

    caplog.handler.addFilter(is_own)
    yield caplog
    caplog.handler.removeFilter(is_own)


@pytest.fixture(autouse=True)
def _nodes_are_asked_for(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no other test start a node."""
    if "rabbitmq" not in request.fixturenames:
        monkeypatch.setattr(Host, "__init__", _refuse)


def _refuse(*_: object) -> None:
    raise AssertionError("a test that starts nodes asks for the fixture rabbitmq")


@pytest.fixture(scope="session")
def broker(rabbitmq: None) -> Iterator[Node]:
    """A node that every test shares and none breaks."""
    with closing(Node()) as shared:
        asyncio.run(shared.start())
        yield shared


@pytest.fixture(scope="session")
def _breakable(rabbitmq: None) -> Iterator[Node]:
    with closing(Node()) as private:
        asyncio.run(private.start())
        yield private


@pytest.fixture
async def node(_breakable: Node) -> AsyncIterator[Node]:
    """A node that a test may stop, kill, freeze and alarm; it is mended after the test."""
    yield _breakable
    await _breakable.repair()


@pytest.fixture(scope="session")
def _breakable_cluster(rabbitmq: None) -> Iterator[Cluster]:
    with closing(Cluster()) as private:
        asyncio.run(private.start())
        yield private


@pytest.fixture
async def cluster(_breakable_cluster: Cluster) -> AsyncIterator[Cluster]:
    """Three nodes in a cluster, which a test may break; it is mended after the test."""
    yield _breakable_cluster
    await _breakable_cluster.repair()


@pytest.fixture(scope="session")
def _shared_server() -> Iterator[Server]:
    with closing(Server()) as shared:
        asyncio.run(shared.start())
        yield shared


@pytest.fixture
def postgres(_shared_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A PostgreSQL server that every test shares and none breaks; each has a database of its own.

    It is as one that has been up for long: nobody comes back for boxes.
    """
    monkeypatch.setattr(store, "GRACE", 0.0)
    return _shared_server


@pytest.fixture(scope="session")
def _breakable_server() -> Iterator[Server]:
    with closing(Server()) as private:
        asyncio.run(private.start())
        yield private


@pytest.fixture
async def server(_breakable_server: Server) -> AsyncIterator[Server]:
    """A PostgreSQL server that a test may stop, kill, freeze and configure; it is mended after the test."""
    yield _breakable_server
    await _breakable_server.repair()


@pytest.fixture
async def database(postgres: Server) -> str:
    """The URL of a database with an outbox."""
    return await postgres.outbox()


@pytest.fixture
async def queue(broker: Node) -> AsyncIterator[Queue]:
    """A fresh queue on the shared node, bound to an exchange of its own."""
    declared = await declare_queue(broker.url)
    yield declared
    await declared.delete()
