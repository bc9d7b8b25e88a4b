"""A virtual host: what is declared in it, what RabbitMQ refuses of that, in its words, and where messages go.

tests/test_kit_scenarios.py holds all of it against RabbitMQ.
"""

import collections
import dataclasses
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from pika.spec import ACCESS_REFUSED, NOT_FOUND, NOT_IMPLEMENTED, RESOURCE_LOCKED

from .dead_letters import DeadLetter, dead_letter, died_in
from .equivalence import check_arguments, check_property, precondition_failed, type_name
from .exchanges import ALTERNATE, OWN, TYPES, Binding, Exchange
from .messages import LARGEST, check_properties
from .permissions import Permissions
from .queues import CLASSIC, DEAD_LETTER_EXCHANGE, MODULES, TAKEN, TYPE, Queue, queue_type
from .rules import Published, Refused

#: Names that begin with this are RabbitMQ's own.
PREFIX: Final = "amq."
#: What the default exchange is called where permissions are meant.
DEFAULT: Final = "amq.default"
NOWHERE: Final = Exchange("", "direct")


class Caller(NamedTuple):
    """Who declares: a connection, and the user who has logged in on it. A test, which may do anything, is None."""

    connection: object
    user: str


class Routing:
    """What was declared and bound in a virtual host. The exchange "" routes to the queue that the key names."""

    def __init__(self, name: str = "/", clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.exchanges = {
            each: Exchange(each, kind, {"durable": True, "auto_delete": False, "internal": "trace" in each}, {})
            for each, kind in OWN.items()
        }
        self._queues: dict[str, Queue] = {}
        self._bindings: list[Binding] = []
        self.time = clock
        self.permissions = Permissions()

    def where(self, kind: str, name: str) -> str:
        """Return how RabbitMQ names an exchange or a queue."""
        return f"{kind} '{name}' in vhost '{self.name}'"

    def _may(self, caller: Caller | None, verb: str, kind: str, name: str) -> None:
        """Raise Refused if a client may not configure, write to, or read an exchange or a queue."""
        if caller is not None:
            name = name or DEFAULT
            self.permissions.check(verb, name, self.where(kind, name), caller.user)

    def _may_topic(self, caller: Caller | None, verb: str, exchange: str, routing_key: str) -> None:
        """Raise Refused if a client may not write or read a routing key."""
        if caller is not None and self.exchanges.get(exchange, NOWHERE).kind == "topic":
            where = self.where("exchange", exchange)
            self.permissions.check_topic(verb, exchange, routing_key, where, caller.user)

    # Exchanges

    def check_exchange(self, name: str) -> Exchange:
        """Return an exchange; raises Refused if there is none."""
        if name not in self.exchanges:
            raise Refused(NOT_FOUND, f"NOT_FOUND - no {self.where('exchange', name)}")
        return self.exchanges[name]

    def declare_exchange(
        self,
        name: str,
        kind: str = "direct",
        declared: dict[str, bool] | None = None,
        arguments: Mapping[str, Any] | None = None,
        caller: Caller | None = None,
    ) -> None:
        """Declare an exchange, or see whether it was declared in the same way."""
        self._expire()
        if kind not in TYPES:
            raise precondition_failed(f"{'unknown' if kind else 'invalid'} exchange type '{kind}'")
        check_default(name)
        self._may(caller, "configure", "exchange", name)
        where, known = self.where("exchange", name), self.exchanges.get(name)
        exchange = Exchange(name, kind) if known is None else dataclasses.replace(known)  # type: ignore[arg-type]
        if known is None:
            _check_name("exchange", name)
        if exchange.declared is None and ALTERNATE in (arguments or {}):
            alternate = (arguments or {})[ALTERNATE]
            _check_text(ALTERNATE, alternate, where)
            self._may(caller, "read", "exchange", name)
            self._may(caller, "write", "exchange", alternate)
        check_property("type", where, kind, exchange.kind)
        if declared is not None and exchange.declared is None:
            exchange.declared = declared
            arguments = arguments or {}
        if arguments is not None and exchange.arguments is None:
            exchange.arguments = dict(arguments)
        for each in ("durable", "auto_delete", "internal") if declared and exchange.declared else ():
            check_property(each, where, declared[each], exchange.declared[each])  # type: ignore[index] # not None
        if arguments is not None or declared is not None:
            check_arguments(where, (ALTERNATE,), arguments or {}, exchange.arguments or {})
        self.exchanges[name] = exchange

    def delete_exchange(self, name: str, *, if_unused: bool = False, caller: Caller | None = None) -> None:
        """Delete an exchange and its bindings; a missing one is ignored."""
        self._expire()
        check_default(name)
        if name.startswith(PREFIX):
            what = f"deletion of system {self.where('exchange', name)} not allowed"
            raise Refused(ACCESS_REFUSED, f"ACCESS_REFUSED - {what}")
        self._may(caller, "configure", "exchange", name)
        if if_unused and any(each.source == name for each in self._bindings):
            raise precondition_failed(f"{self.where('exchange', name)} in use")
        self.exchanges.pop(name, None)
        self._remove(
            [each for each in self._bindings if each.source == name or (each.destination == name and not each.to_queue)]
        )

    # Queues

    @property
    def queues(self) -> dict[str, Queue]:
        """The queues, with what is in them by now."""
        self._expire()
        return self._queues

    def check_queue(self, name: str, caller: Caller | None = None) -> Queue:
        """Return a queue; raises Refused if there is none, or if it is exclusive to another connection."""
        if name not in self.queues:
            raise Refused(NOT_FOUND, f"NOT_FOUND - no {self.where('queue', name)}")
        queue = self._queues[name]
        if caller is not None and queue.owner not in {None, caller.connection}:
            raise self._locked(name)
        return queue

    def look_at_queue(self, name: str, caller: Caller) -> Queue:
        """Return a queue, of which its use begins anew."""
        queue = self.check_queue(name, caller)
        queue.use(self.time())
        return queue

    def declare_queue(
        self,
        name: str,
        declared: dict[str, bool] | None = None,
        arguments: Mapping[str, Any] | None = None,
        *,
        exclusive: bool = False,
        caller: Caller | None = None,
    ) -> Queue:
        """Declare a queue, or see whether it was declared in the same way; without a name, give it one."""
        if not name:
            name = f"{PREFIX}gen-{secrets.token_urlsafe(16)}"
            if (kind := queue_type(arguments)) not in TAKEN:
                raise precondition_failed(f"unknown queue type '{kind}'")
            if kind != CLASSIC:
                raise precondition_failed(f"Cannot declare a server-named queue for type {MODULES[kind]}")
        elif name not in self._queues:
            _check_name("queue", name)
        self._may(caller, "configure", "queue", name)
        queue, where = self.queues.get(name), self.where("queue", name)
        owner = caller.connection if exclusive and caller is not None else None
        if queue is None:
            queue = Queue(name)
            queue.take_on(declared, arguments, owner)
            self._check_dead_letters(queue, caller)
            queue.check(where)
            self._queues[name] = queue
        else:
            self._check_same(queue, declared, arguments, owner)
            if queue.declared is None:
                new = Queue(name)
                new.take_on(declared, arguments, owner)
                self._check_dead_letters(new, caller)
                new.check(where)
            queue.take_on(declared, arguments, owner)
        queue.use(self.time())
        return queue

    def delete_queue(
        self, name: str, *, if_empty: bool = False, if_unused: bool = False, caller: Caller | None = None
    ) -> int:
        """Delete a queue and its bindings; a missing one is ignored. Return how many messages were in it.

        Nobody consumes, so every queue is unused.
        """
        self._may(caller, "configure", "queue", name)
        if name not in self.queues:
            return 0
        queue = self.check_queue(name, caller)
        if queue.kind == "quorum" and (if_empty or if_unused):
            flag = "if-unused" if if_unused else "if-empty"
            what = f"cannot delete {self.where('queue', name)}. queue.delete operations with {flag} flag set are not"
            raise Refused(NOT_IMPLEMENTED, f"NOT_IMPLEMENTED - {what} supported by quorum queues", connection=True)
        if if_empty and queue.held:
            raise precondition_failed(f"{self.where('queue', name)} not empty")
        self._drop_queue(name)
        return queue.count

    def purge_queue(self, name: str, *, caller: Caller | None = None) -> int:
        """Remove all messages; return how many there were."""
        self._may(caller, "read", "queue", name)
        return self.check_queue(name, caller).purge()

    def _drop_queue(self, name: str) -> None:
        self._queues.pop(name)
        self._remove([each for each in self._bindings if each.to_queue and each.destination == name])

    def _check_dead_letters(self, queue: Queue, caller: Caller | None) -> None:
        if DEAD_LETTER_EXCHANGE in (queue.arguments or {}):
            exchange = (queue.arguments or {})[DEAD_LETTER_EXCHANGE]
            _check_text(DEAD_LETTER_EXCHANGE, exchange, self.where("queue", queue.name))
            self._may(caller, "read", "queue", queue.name)
            self._may(caller, "write", "exchange", exchange)

    def _check_same(
        self, queue: Queue, declared: dict[str, bool] | None, arguments: Mapping[str, Any] | None, owner: object
    ) -> None:
        where = self.where("queue", queue.name)
        if declared is not None and queue.declared is not None:
            if queue.owner is not owner:
                raise self._locked(queue.name)
            # RabbitMQ takes an exclusive queue as transient.
            for each in ("auto_delete",) if owner is not None else ("durable", "auto_delete"):
                check_property(each, where, declared[each], queue.declared[each])
        if (declared is not None or arguments is not None) and queue.arguments is not None:
            received, current = dict(arguments or {}), dict(queue.arguments)
            kind = queue_type(current)
            check_property(TYPE, where, queue_type(received), kind)
            check_arguments(where, (name for name in TAKEN[kind] if name != TYPE), received, current)

    def _locked(self, name: str) -> Refused:
        why = (
            "It could be originally declared on another connection or the exclusive property value does not match "
            "that of the original declaration."
        )
        locked = f"cannot obtain exclusive access to locked {self.where('queue', name)}"
        return Refused(RESOURCE_LOCKED, f"RESOURCE_LOCKED - {locked}. {why}")

    # Bindings

    def bind(self, binding: Binding, caller: Caller | None = None) -> None:
        """Bind a queue, or an exchange, to an exchange."""
        self._check_binding(binding, caller)
        source = self.check_exchange(binding.source)
        if binding.to_queue:
            self.check_queue(binding.destination, caller)
        else:
            self.check_exchange(binding.destination)
        binding.check(source.kind)
        if not any(each.is_same(binding) for each in self._bindings):
            self._bindings.append(binding)

    def unbind(self, binding: Binding, caller: Caller | None = None) -> None:
        """Remove a binding; a missing one is ignored."""
        self._check_binding(binding, caller)
        self._remove([each for each in self._bindings if each.is_same(binding)])

    def _check_binding(self, binding: Binding, caller: Caller | None) -> None:
        self._expire()
        self._may(caller, "write", "queue" if binding.to_queue else "exchange", binding.destination)
        check_default(binding.source)
        if not binding.to_queue:
            check_default(binding.destination)
        self._may(caller, "read", "exchange", binding.source)
        self._may_topic(caller, "read", binding.source, binding.routing_key)

    def _remove(self, bindings: list[Binding]) -> None:
        """Remove bindings, and the exchanges that were to go with the last of them."""
        self._bindings = [each for each in self._bindings if not any(each is other for other in bindings)]
        for name in {each.source for each in bindings} - {each.source for each in self._bindings}:
            exchange = self.exchanges.get(name)
            if exchange is not None and exchange.has("auto_delete"):
                self.delete_exchange(name)

    # Messages

    def check_message(self, message: Published) -> None:
        """Raise Refused if RabbitMQ takes no such message."""
        caller, name = Caller(None, message.user), message.exchange
        if len(message.body) > LARGEST:
            what = f"message size {len(message.body)} is larger than configured max size {LARGEST}"
            raise precondition_failed(what)
        self._may(caller, "write", "exchange", name)
        if self.check_exchange(name).has("internal"):
            what = f"cannot publish to internal {self.where('exchange', name)}"
            raise Refused(ACCESS_REFUSED, f"ACCESS_REFUSED - {what}")
        check_properties(message)
        for key in message.routing_keys:
            self._may_topic(caller, "write", name, key)

    def route(
        self, exchange: str, routing_keys: Iterable[str], headers: Mapping[str, Any] | None = None
    ) -> list[Queue]:
        """Return the queues that a message to an existing exchange goes to, each once."""
        self._expire()
        return self._route(exchange, routing_keys, headers)

    def _route(self, exchange: str, routing_keys: Iterable[str], headers: Mapping[str, Any] | None) -> list[Queue]:
        keys, queues = list(routing_keys), self._queues
        if not exchange:
            return [queues[key] for key in dict.fromkeys(keys) if key in queues]
        names: dict[str, None] = {}
        reached = [exchange]
        for each in reached:
            kind = self.exchanges[each].kind
            matching = [its for its in self._of(each) if its.matches(kind, keys, headers or {})]
            names |= dict.fromkeys(its.destination for its in matching if its.to_queue)
            others = [its.destination for its in matching if not its.to_queue]
            if not matching and isinstance(alternate := self.exchanges[each].alternate, str):
                others += [alternate] if alternate in self.exchanges else []
            reached += [other for other in dict.fromkeys(others) if other not in reached]
        return [queues[name] for name in names]

    def publish(self, message: Published) -> tuple[int, int]:
        """Put a message into the queues that it goes to; return how many those are, and how many of them took it."""
        queues = self.route(message.exchange, message.routing_keys, message.properties.headers)
        self._put(message, queues, self.time())
        self._expire()
        return len(queues), len(message.queues)

    def _put(self, message: Published, queues: list[Queue], now: float) -> None:
        """Put a message into queues; what dies over it, is published after that, and so on."""
        arriving = collections.deque([(message, queues)])
        while arriving:
            letter, queues = arriving.popleft()
            took: list[str] = []
            for queue in queues:
                if queue.rejects(letter):
                    dead = [letter] if queue.keeps_rejected else []
                else:
                    took.append(queue.name)
                    dead = queue.put(letter, now)
                arriving += self._die(queue, dead, "maxlen")
            letter.queues = tuple(took)

    def _die(self, queue: Queue, dead: list[Published], reason: str) -> list[tuple[DeadLetter, list[Queue]]]:
        """Return what is published to a queue's dead-letter exchange, if any, and the queues that it goes to."""
        exchange, key = queue.dead_letters or (None, None)
        if exchange is None or exchange not in self.exchanges:
            return []
        letters = []
        for message in dead:
            letter = dead_letter(message, queue.name, reason, exchange, key)
            keys = message.routing_keys if key is None else [key]
            queues = self._route(exchange, keys, letter.properties.headers)
            # What comes round by itself is dropped.
            letters.append((letter, [each for each in queues if not died_in(letter, each.name)]))
        return letters

    def _expire(self) -> None:
        """Let what is due by now happen, in its order."""
        now = self.time()
        while True:
            messages = [(each.due, each) for each in self._queues.values() if each.due is not None]
            unused = [(each.unused_until, each) for each in self._queues.values() if each.unused_until is not None]
            at, queue = min((*messages, *unused), key=lambda each: each[0], default=(now + 1, None))
            if queue is None or at > now:
                return
            if queue.unused_until is not None and queue.unused_until <= at:
                self._drop_queue(queue.name)
                continue
            for letter, queues in self._die(queue, queue.expire(at), "expired"):
                self._put(letter, queues, at)

    # What goes by itself

    def leave(self, owner: object) -> None:
        """Delete the queues that are exclusive to a connection, which is gone."""
        for name in [name for name, queue in self.queues.items() if queue.owner is owner]:
            self._drop_queue(name)

    def stop(self) -> None:
        """Lose what RabbitMQ loses when it stops: what is transient. Exchanges do not go with the last binding then."""
        for queue in self.queues.values():
            queue.restart()
        self._queues = {name: queue for name, queue in self._queues.items() if not queue.transient}
        self.exchanges = {name: exchange for name, exchange in self.exchanges.items() if not exchange.transient}
        self._bindings = [each for each in self._bindings if self._has_both_ends(each)]

    def start(self) -> None:
        """Begin to count anew for how long a queue is unused."""
        for queue in self._queues.values():
            queue.use(self.time())

    def _has_both_ends(self, binding: Binding) -> bool:
        ends = self._queues if binding.to_queue else self.exchanges
        return binding.source in self.exchanges and binding.destination in ends

    def _of(self, source: str) -> list[Binding]:
        return sorted((each for each in self._bindings if each.source == source), key=lambda its: its.destination)


def check_default(name: str) -> None:
    """Raise Refused for the default exchange."""
    if not name:
        raise Refused(ACCESS_REFUSED, "ACCESS_REFUSED - operation not permitted on the default exchange")


def _check_name(kind: str, name: str) -> None:
    if name.startswith(PREFIX):
        raise Refused(ACCESS_REFUSED, f"ACCESS_REFUSED - {kind} name '{name}' contains reserved prefix 'amq.*'")


def _check_text(argument: str, value: object, where: str) -> None:
    if not isinstance(value, str):
        raise precondition_failed(f"invalid type '{type_name(value)}' for arg '{argument}' in {where}")
