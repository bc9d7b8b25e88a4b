"""A connection without a socket, whose other end is an object in this process: for tests."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowAborted, AMQPConnectionWorkflowFailed

from .transport import Connection


class End(Protocol):
    """The other end of a connection."""

    def receive(self, data: bytes) -> None:
        """Receive what the client sends."""

    def pending(self) -> int:
        """Return how many octets were received but not yet taken from the line."""

    def abandoned(self) -> None:
        """Called when the client stops connecting; pika then waits for `MemoryConnection.given_up`."""

    def dropped(self) -> None:
        """Called when the client drops the line; pika then waits for `MemoryConnection.gone`."""


class MemoryConnection(Connection):
    """A connection that gets its other end from ``reach``; that end then calls the methods below."""

    def __init__(self, reach: Callable[["MemoryConnection"], End], *args: Any, **kwargs: Any) -> None:
        self.loop: asyncio.AbstractEventLoop = kwargs["io_loop"].asyncio_loop
        self._reach = reach
        super().__init__(*args, **kwargs)

    def made(self) -> None:
        """Called when the other end has accepted the connection."""
        self._proto_connection_made(_Transport(self._end))

    def failed(self, error: BaseException) -> None:
        """Called when the other end has refused the connection."""
        self._on_connection_workflow_done(AMQPConnectionWorkflowFailed([error]))  # type: ignore[attr-defined]

    def given_up(self) -> None:
        """Called when the client has stopped connecting, as it asked to."""
        self._on_connection_workflow_done(AMQPConnectionWorkflowAborted("aborted"))  # type: ignore[attr-defined]

    def arrived(self, data: bytes) -> None:
        """Called with data from the other end."""
        self._proto_data_received(data)

    def gone(self, error: BaseException | None) -> None:
        """Called when the line is gone."""
        self._proto_connection_lost(error)

    def _adapter_connect_stream(self) -> None:
        self._end = self._reach(self)
        self._connection_workflow = _Workflow(self._end)


class _Transport:
    """Takes the place of pika's socket."""

    def __init__(self, end: End) -> None:
        self._end = end

    def write(self, data: bytes) -> None:
        self._end.receive(data)

    def get_write_buffer_size(self) -> int:
        return self._end.pending()

    def abort(self) -> None:
        self._end.dropped()


class _Workflow:
    """Takes the place of what resolves names and connects in pika."""

    def __init__(self, end: End) -> None:
        self._end = end

    def abort(self) -> None:
        self._end.abandoned()
