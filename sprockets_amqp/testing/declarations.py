"""What a test declares in a virtual host, and what it finds there."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from .exchanges import Binding, ExchangeType
from .messages import as_delivered
from .queues import Queue
from .routing import Routing
from .rules import Published


class VirtualHost:
    """A virtual host of a broker in memory; the broker itself is the one with the name ``/``.

    What a test declares without properties or arguments, the code under test may declare with any.
    """

    def __init__(self, routing: Routing) -> None:
        self._routing = routing

    def messages(self, queue: str) -> list[Published]:
        """Return the messages in a queue, as a consumer would get them. Raises KeyError if there is no such queue."""
        return [
            message
            if (seen := as_delivered(message.properties)) is message.properties
            else dataclasses.replace(message, properties=seen)
            for message in self._found(queue).ready(self._routing.time())
        ]

    def exchange_declare(
        self,
        exchange: str,
        exchange_type: ExchangeType = "direct",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Declare an exchange.

        Raises:
            ValueError: it has another type, or RabbitMQ refuses it, in RabbitMQ's words.
        """
        self._routing.declare_exchange(exchange, exchange_type, arguments=arguments)

    def exchange_delete(self, exchange: str) -> None:
        """Delete an exchange: publishing to it from now on closes the channel with a 404."""
        self._routing.delete_exchange(exchange)

    def queue_declare(
        self, queue: str, max_length: int | None = None, arguments: Mapping[str, Any] | None = None
    ) -> str:
        """Declare a queue that takes at most ``max_length`` messages: further ones are nacked. Return its name.

        Raises:
            ValueError: RabbitMQ refuses it, in RabbitMQ's words; or ``max_length`` is no number of messages.
        """
        given: object = max_length
        if given is not None and not (isinstance(given, int) and given >= 0):
            raise ValueError(f"max_length must be a number of messages, not {max_length!r:.80}")
        declared = self._routing.declare_queue(queue, arguments=arguments)
        if max_length is not None:
            declared.room = max_length
        return declared.name

    def queue_delete(self, queue: str) -> None:
        """Delete a queue, with the messages in it."""
        self._routing.delete_queue(queue)

    def queue_purge(self, queue: str) -> None:
        """Remove the messages in a queue. Raises ValueError if there is no such queue."""
        self._routing.purge_queue(queue)

    def queue_bind(
        self,
        queue: str,
        exchange: str,
        routing_key: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Bind a queue to an exchange, with the queue's name by default, as `Topology.queue_bind` does.

        Raises:
            ValueError: one of them was not declared.
        """
        key = queue if routing_key is None else routing_key
        self._routing.bind(Binding(exchange, queue, key, arguments=dict(arguments or {})))

    def exchange_bind(
        self, destination: str, source: str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Bind an exchange to another. Raises ValueError if one of them was not declared."""
        bound = Binding(source, destination, routing_key, to_queue=False, arguments=dict(arguments or {}))
        self._routing.bind(bound)

    def fill(self, queue: str, *, full: bool = True) -> None:
        """Make a queue full, so that messages routed to it are nacked; or make room again."""
        self._found(queue).full = full

    def set_permissions(self, configure: str = ".*", write: str = ".*", read: str = ".*") -> None:
        """Allow clients what the patterns match, from now on, as ``rabbitmqctl set_permissions`` does; "" is nothing.

        Raises:
            ValueError: a pattern is no regular expression.
        """
        self._routing.permissions.set(configure=configure, write=write, read=read)

    def set_topic_permissions(self, exchange: str, write: str = ".*", read: str = ".*") -> None:
        """Allow clients the routing keys that the patterns match, as ``rabbitmqctl set_topic_permissions`` does.

        Raises:
            ValueError: a pattern is no regular expression.
        """
        self._routing.permissions.set_topic(exchange, write=write, read=read)

    def _found(self, name: str) -> Queue:
        queues = self._routing.queues
        if name not in queues:
            raise KeyError(f"queue {name!r} does not exist: declare it, or have the code under test do so")
        return queues[name]
