"""The methods that declare, bind, purge and delete: what RabbitMQ does, and answers.

https://www.rabbitmq.com/amqp-0-9-1-reference
"""

from collections.abc import Callable
from typing import Any, Final

from pika import spec

from .exchanges import Binding
from .routing import Caller, Routing, check_default

#: Does what a method asks in a virtual host; returns the answer.
Call = Callable[[Routing, Any, Caller], Any]


def _declare_exchange(routing: Routing, method: Any, caller: Caller) -> Any:
    name = named(method.exchange)
    if method.passive:
        check_default(name)
        routing.check_exchange(name)
    else:
        declared = {each: bool(getattr(method, each)) for each in ("durable", "auto_delete", "internal")}
        routing.declare_exchange(name, method.type, declared, method.arguments or {}, caller)
    return spec.Exchange.DeclareOk()


def _delete_exchange(routing: Routing, method: Any, caller: Caller) -> Any:
    routing.delete_exchange(named(method.exchange), if_unused=bool(method.if_unused), caller=caller)
    return spec.Exchange.DeleteOk()


def _declare_queue(routing: Routing, method: Any, caller: Caller) -> Any:
    name = named(method.queue)
    if method.passive:
        queue = routing.look_at_queue(name, caller)
    else:
        declared = {each: bool(getattr(method, each)) for each in ("durable", "auto_delete")}
        exclusive = bool(method.exclusive)
        queue = routing.declare_queue(name, declared, method.arguments or {}, exclusive=exclusive, caller=caller)
    return spec.Queue.DeclareOk(queue.name, queue.count, 0)


def _delete_queue(routing: Routing, method: Any, caller: Caller) -> Any:
    flags = {name: bool(getattr(method, name)) for name in ("if_empty", "if_unused")}
    count = routing.delete_queue(named(method.queue), caller=caller, **flags)
    return spec.Queue.DeleteOk(count)


def _purge_queue(routing: Routing, method: Any, caller: Caller) -> Any:
    return spec.Queue.PurgeOk(routing.purge_queue(named(method.queue), caller=caller))


def _binding(method: Any) -> Binding:
    """Return the binding that a method is about: of a queue, or of an exchange to another."""
    to_queue = hasattr(method, "queue")
    source, destination = (method.exchange, method.queue) if to_queue else (method.source, method.destination)
    arguments = dict(method.arguments or {})
    return Binding(named(source), named(destination), method.routing_key, to_queue=to_queue, arguments=arguments)


def _bind(routing: Routing, method: Any, caller: Caller) -> Any:
    binding = _binding(method)
    routing.bind(binding, caller)
    return spec.Queue.BindOk() if binding.to_queue else spec.Exchange.BindOk()


def _unbind(routing: Routing, method: Any, caller: Caller) -> Any:
    binding = _binding(method)
    routing.unbind(binding, caller)
    return spec.Queue.UnbindOk() if binding.to_queue else spec.Exchange.UnbindOk()


#: By the name of the method.
CALLS: Final[dict[str, Call]] = {
    "Exchange.Declare": _declare_exchange,
    "Exchange.Delete": _delete_exchange,
    "Exchange.Bind": _bind,
    "Exchange.Unbind": _unbind,
    "Queue.Declare": _declare_queue,
    "Queue.Delete": _delete_queue,
    "Queue.Purge": _purge_queue,
    "Queue.Bind": _bind,
    "Queue.Unbind": _unbind,
}


def named(name: str) -> str:
    """Return a name as RabbitMQ takes it: without line breaks."""
    return name.replace("\r", "").replace("\n", "")
