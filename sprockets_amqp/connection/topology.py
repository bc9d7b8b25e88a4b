"""Exchanges, queues and bindings: `setup` declares them, on a channel that is closed before the next is opened."""

import asyncio
import contextlib
import contextvars
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from pika.channel import Channel
from pika.exceptions import AMQPError, ChannelClosedByClient
from pika.spec import Exchange, Queue

from sprockets_amqp.bounded_log import named
from sprockets_amqp.errors import AMQPException
from sprockets_amqp.text import function_name, shown
from sprockets_amqp.wire.connection import Connection
from sprockets_amqp.wire.replies import describe

LOGGER = logging.getLogger("sprockets_amqp.topology")

#: The task that runs setup, and its connection, in everything that setup calls.
_RUNNING: "Final[contextvars.ContextVar[tuple[asyncio.Task[Any] | None, Connection] | None]]" = contextvars.ContextVar(
    "setup", default=None
)


class Topology:
    """Declares exchanges, queues and bindings, in the order of the calls.

    `setup` receives it. Each call returns when RabbitMQ has made the declaration. The arguments are pika's
    (https://pika.readthedocs.io/en/stable/modules/channel.html). What exists already must be declared with the same
    arguments (https://www.rabbitmq.com/docs/queues#property-equivalence). After RabbitMQ has refused a call, further
    calls still work: use a passive declaration to find out what exists.

    Each call raises:
        pika.exceptions.ChannelClosedByBroker: RabbitMQ refused it (403 ACCESS_REFUSED, 404 NOT_FOUND,
            406 PRECONDITION_FAILED ...).
        TypeError, ValueError: an argument is invalid.
        RuntimeError: `setup` has ended.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._log = named(LOGGER, connection.client_name)
        self._channel: Channel | None = None
        self._turn = asyncio.Lock()
        #: What the current call waits for; there is one call at a time.
        self._answer: asyncio.Future[Any] | None = None
        self._ended = False

    async def exchange_declare(
        self,
        exchange: str,
        exchange_type: str = "direct",
        *,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Exchange.DeclareOk:
        """Declare an exchange."""
        _check_name(exchange)
        declared: Exchange.DeclareOk = await self._call(
            Channel.exchange_declare,
            exchange=exchange,
            exchange_type=exchange_type,
            passive=passive,
            durable=durable,
            auto_delete=auto_delete,
            internal=internal,
            arguments=_copy(arguments),
        )
        return declared

    async def queue_declare(
        self,
        queue: str,
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Queue.DeclareOk:
        """Declare a queue; the answer's ``queue`` is its name, even if RabbitMQ chose it (``""``).

        A queue that is neither durable nor exclusive is deprecated, and RabbitMQ may be configured to refuse it by
        closing the connection (https://www.rabbitmq.com/release-information/deprecated-features-list): it is warned of.
        """
        _check_name(queue)
        if not (durable or exclusive or passive):
            self._log.warning(
                "setup declares queue %r neither durable nor exclusive, which RabbitMQ is going to refuse: declare it "
                "with durable=True, or with exclusive=True",
                queue,
            )
        declared: Queue.DeclareOk = await self._call(
            Channel.queue_declare,
            queue=queue,
            passive=passive,
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            arguments=_copy(arguments),
        )
        return declared

    async def queue_bind(
        self, queue: str, exchange: str, routing_key: str | None = None, arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Bind a queue to an exchange; the routing key is the queue's name by default."""
        await self._call(
            Channel.queue_bind, queue=queue, exchange=exchange, routing_key=routing_key, arguments=_copy(arguments)
        )

    async def exchange_bind(
        self, destination: str, source: str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Bind ``destination`` to ``source``, from which messages come."""
        await self._call(
            Channel.exchange_bind,
            destination=destination,
            source=source,
            routing_key=routing_key,
            arguments=_copy(arguments),
        )

    async def close(self) -> None:
        """Close the channel, and return when RabbitMQ has closed it: the user may be allowed only one."""
        async with self._turn:
            self._ended = True
            channel = self._channel
            if channel is not None:
                self._answer = closed = asyncio.get_running_loop().create_future()
                channel.close()
                await closed

    async def _call(self, method: Callable[..., object], **arguments: Any) -> Any:
        async with self._turn:
            if self._ended:
                raise RuntimeError("setup has ended: it has to await what it starts")
            channel = self._channel or await self._open()
            self._answer = answer = asyncio.get_running_loop().create_future()
            method(channel, **arguments, callback=functools.partial(_settle, answer))
            return await answer

    async def _open(self) -> Channel:
        self._answer = opened = asyncio.get_running_loop().create_future()
        self._channel = channel = self._connection.channel(on_open_callback=functools.partial(_settle, opened))
        channel.add_on_close_callback(self._on_closed)
        try:
            await opened
        except asyncio.CancelledError:
            # The user may be allowed few channels.
            self._channel = None
            with contextlib.suppress(AMQPError):
                channel.close()
            raise
        return channel

    def _on_closed(self, channel: Channel, error: BaseException) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        if self._answer is not None and not self._answer.done():
            if isinstance(error, ChannelClosedByClient):
                self._answer.set_result(None)
            else:
                self._answer.set_exception(error)


#: A coroutine function that declares what must exist before anything is published.
SetupFunction = Callable[[Topology], Awaitable[object]]


class Setup:
    """Runs the application's function on an open connection, one run at a time."""

    def __init__(self, function: SetupFunction | None, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._log = named(LOGGER, name)
        self._function = function
        self._loop = loop
        self._task: asyncio.Task[None] | None = None

    @property
    def given(self) -> bool:
        """Whether there is a function to run."""
        return self._function is not None

    @property
    def name(self) -> str:
        """Name the function."""
        return function_name(self._function) if self._function is not None else "setup"

    def run(self, connection: Connection, tell: Callable[[AMQPException | None], object]) -> None:
        """Run the function, then call ``tell`` with why it failed, or None; after `cancel`, ``tell`` is not called."""
        assert self._function is not None
        # An eager task factory would call the function within a transition.
        self._task = task = asyncio.Task(declare(self._function, connection), loop=self._loop)
        task.add_done_callback(lambda _task: self._on_done(task, tell))

    def cancel(self) -> None:
        """Cancel the run."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _on_done(self, task: "asyncio.Task[None]", tell: Callable[[AMQPException | None], object]) -> None:
        error = asyncio.CancelledError("cancelled") if task.cancelled() else task.exception()
        if task is not self._task:
            return
        self._task = None
        if error is None:
            tell(None)
            return
        if not isinstance(error, AMQPError | asyncio.CancelledError):
            self._log.error("%s() raised", self.name, exc_info=error)
        tell(AMQPException().saying(f"{self.name}() failed: {describe(error)}"))


async def declare(function: SetupFunction, connection: Connection) -> None:
    """Run the function and close its channel. Raises what it raises, and TypeError for another kind of function."""
    _RUNNING.set((asyncio.current_task(), connection))
    topology = Topology(connection)
    running: object = function(topology)
    if not inspect.isawaitable(running):
        raise TypeError(f"{function_name(function)} is not a coroutine function: define it with async def")
    await running
    await topology.close()


def in_setup(connection: Connection | None) -> bool:
    """Return whether `setup` of this connection is the caller: nothing goes out there before it has ended."""
    task, its_connection = _RUNNING.get() or (None, None)
    return task is not None and not task.done() and its_connection is connection


def _settle(answer: "asyncio.Future[Any]", told: Any) -> None:
    if not answer.done():
        answer.set_result(getattr(told, "method", None))


def _check_name(name: str) -> None:
    """Raise ValueError for a name that RabbitMQ would change, so that its answer would be another thing's."""
    if {"\r", "\n"}.intersection(str(name)):
        raise ValueError(f"a name must not contain line breaks, which RabbitMQ removes: {shown(name)}")


def _copy(arguments: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if arguments is None else dict(arguments)
