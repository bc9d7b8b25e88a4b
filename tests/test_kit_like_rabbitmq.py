"""The broker in memory is held against RabbitMQ: the same script on both, the same end of every publish."""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from sprockets_amqp import Client, State
from sprockets_amqp.testing import Broker
from sprockets_amqp.testing.exchanges import TYPES, ExchangeType
from tests.support.waiting import until
from tools.rabbitmq import Node

EXCHANGES: Final = ("e0", "e1", "e2", "amq.topic", "amq.fanout", "")
QUEUES: Final = ("q0", "q1", "q2")
KEYS: Final = ("a", "a.b", "a.b.c", "", "q0", "q1")
PATTERNS: Final = (*KEYS, "#", "a.*", "*.b.#", "a.#")
STEPS: Final = 60
#: Seconds that a publish waits where it is not to be taken, and that anything else may take.
SHORT, LONG = 0.5, 60


class Side(Protocol):
    """What a script asks of a broker, real or not."""

    url: str

    async def exchange_declare(self, exchange: str, exchange_type: ExchangeType) -> None: ...
    async def exchange_delete(self, exchange: str) -> None: ...
    async def queue_declare(self, queue: str, max_length: int | None) -> None: ...
    async def queue_bind(self, queue: str, exchange: str, routing_key: str) -> None: ...
    async def exchange_bind(self, destination: str, source: str, routing_key: str) -> None: ...
    async def close_connections(self) -> None: ...
    async def stop(self) -> None: ...
    async def start(self) -> None: ...
    async def block(self) -> None: ...
    async def unblock(self) -> None: ...
    async def forbid(self, exchange: str) -> None: ...
    async def permit(self) -> None: ...
    async def refuse_password(self) -> None: ...
    async def accept_password(self) -> None: ...
    async def bodies(self, queue: str) -> list[bytes]: ...


class InMemory:
    """The broker in memory."""

    url = "amqp://script:secret@broker"

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._forbidden: set[str] = set()

    async def exchange_declare(self, exchange: str, exchange_type: ExchangeType) -> None:
        self._broker.exchange_declare(exchange, exchange_type)

    async def exchange_delete(self, exchange: str) -> None:
        self._broker.exchange_delete(exchange)

    async def queue_declare(self, queue: str, max_length: int | None) -> None:
        self._broker.queue_declare(queue, max_length)

    async def queue_bind(self, queue: str, exchange: str, routing_key: str) -> None:
        self._broker.queue_bind(queue, exchange, routing_key)

    async def exchange_bind(self, destination: str, source: str, routing_key: str) -> None:
        self._broker.exchange_bind(destination, source, routing_key)

    async def close_connections(self) -> None:
        self._broker.close_connections()

    async def stop(self) -> None:
        self._broker.stop()

    async def start(self) -> None:
        self._broker.start()

    async def block(self) -> None:
        self._broker.block()

    async def unblock(self) -> None:
        self._broker.unblock()

    async def forbid(self, exchange: str) -> None:
        self._forbidden.add(exchange)
        self._broker.refuse_exchange(exchange, 403)

    async def permit(self) -> None:
        for exchange in self._forbidden:
            self._broker.refuse_exchange(exchange, 0)

    async def refuse_password(self) -> None:
        self._broker.refuse_password()

    async def accept_password(self) -> None:
        self._broker.refuse_password(refused=False)

    async def bodies(self, queue: str) -> list[bytes]:
        return [message.body for message in self._broker.messages(queue)]


class RabbitMQ:
    """A real node, on which the script has a vhost and a user to itself."""

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self._name = name
        self.url = node.url_for(name, "secret", name)

    async def prepare(self) -> None:
        """Add the vhost, the user, and one that declares."""
        await self._node.add_user(self._name, "secret", self._name)
        await self._node.ctl("set_permissions", "--vhost", self._name, "guest", ".*", ".*", ".*")

    async def _do(self, verb: Callable[[BlockingChannel], Any]) -> Any:
        def work() -> Any:
            connection = pika.BlockingConnection(pika.URLParameters(self._node.url_for(vhost=self._name)))
            try:
                return verb(connection.channel())
            finally:
                connection.close()

        return await asyncio.to_thread(work)

    async def exchange_declare(self, exchange: str, exchange_type: ExchangeType) -> None:
        await self._do(lambda channel: channel.exchange_declare(exchange, exchange_type, durable=True))

    async def exchange_delete(self, exchange: str) -> None:
        await self._do(lambda channel: channel.exchange_delete(exchange))

    async def queue_declare(self, queue: str, max_length: int | None) -> None:
        limits = {"x-max-length": max_length, "x-overflow": "reject-publish"} if max_length else None
        await self._do(lambda channel: channel.queue_declare(queue, durable=True, arguments=limits))

    async def queue_bind(self, queue: str, exchange: str, routing_key: str) -> None:
        await self._do(lambda channel: channel.queue_bind(queue, exchange, routing_key))

    async def exchange_bind(self, destination: str, source: str, routing_key: str) -> None:
        await self._do(lambda channel: channel.exchange_bind(destination, source, routing_key))

    async def close_connections(self) -> None:
        await self._node.ctl("close_all_connections", "--vhost", self._name, "bye")

    async def stop(self) -> None:
        await self._node.ctl("stop_app")

    async def start(self) -> None:
        await self._node.ctl("start_app")

    async def block(self) -> None:
        await self._node.ctl("set_vm_memory_high_watermark", "0")
        # A connection hears of the alarm later than rabbitmqctl, and only blocks what is published after that.
        while f"{self._name}\tblocking" not in await self._node.ctl("list_connections", "vhost", "state"):
            pass

    async def unblock(self) -> None:
        await self._node.ctl("set_vm_memory_high_watermark", "0.4")

    async def forbid(self, exchange: str) -> None:
        write = f"^(?!{exchange}$).*"
        await self._node.ctl("set_permissions", "--vhost", self._name, self._name, ".*", write, ".*")

    async def permit(self) -> None:
        await self._node.ctl("set_permissions", "--vhost", self._name, self._name, ".*", ".*", ".*")

    async def refuse_password(self) -> None:
        await self._node.ctl("change_password", self._name, "another")

    async def accept_password(self) -> None:
        await self._node.ctl("change_password", self._name, "secret")

    async def bodies(self, queue: str) -> list[bytes]:
        def drain(channel: BlockingChannel) -> list[bytes]:
            found = []
            while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
                found.append(got[2])
            return found

        return cast("list[bytes]", await self._do(drain))


class Script:
    """A random series of declarations, publishes and faults; what is random is drawn before it begins."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        #: The verbs, each with its arguments, in order.
        self.steps: list[tuple[str, tuple[Any, ...]]] = []
        self._exchanges: dict[str, ExchangeType] = {}
        self._queues: set[str] = set()
        faults = ["exchange_gone", "closed", "blocked", "closed_while_blocked", "forbidden", "password", "stopped"]
        self._random.shuffle(faults)
        for number in range(STEPS):
            self._declare()
            self.steps.append(("publish", self._message()))
            if number % (STEPS // len(faults)) == 5:
                self.steps.append((faults.pop(), (self._message(),)))

    def _declare(self) -> None:
        draw = self._random.random()
        if draw < 0.2:
            exchange = self._random.choice(EXCHANGES[:3])
            kind = self._exchanges.setdefault(exchange, self._random.choice(TYPES))
            self.steps.append(("exchange_declare", (exchange, kind)))
        elif draw < 0.35:
            queue = self._random.choice(QUEUES)
            if queue not in self._queues:
                self._queues.add(queue)
                self.steps.append(("queue_declare", (queue, self._random.choice((None, None, 3)))))
        elif draw < 0.7 and self._queues:
            exchange = self._random.choice([*self._exchanges, "amq.topic", "amq.fanout"])
            queue = self._random.choice(sorted(self._queues))
            self.steps.append(("queue_bind", (queue, exchange, self._random.choice(PATTERNS))))
        elif draw < 0.8 and self._exchanges:
            # In circles, too: each queue gets a message once.
            source, destination = (self._random.choice([*self._exchanges, "amq.topic"]) for _ in range(2))
            self.steps.append(("exchange_bind", (destination, source, self._random.choice(PATTERNS))))

    def _message(self) -> tuple[str, str, bool]:
        choose = self._random.choice
        return choose(EXCHANGES), choose(KEYS), choose((True, True, False))


class Run:
    """The script on one side: `outcomes` has what each publish ended with."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.outcomes: list[str] = []
        self._client = Client(
            side.url, reconnect_delay=0.05, max_reconnect_delay=0.1, timeout=LONG, fail_on_return=True
        )
        self._known: set[str] = set()

    async def perform(self, script: Script) -> dict[str, list[bytes]]:
        """Perform the script; returns what is in each queue at the end."""
        queues = set()
        for verb, arguments in script.steps:
            if verb == "queue_declare":
                queues.add(arguments[0])
            perform = getattr(self, f"_{verb}", None) or getattr(self.side, verb)
            await perform(*arguments)
        await self.close()
        return {queue: await self.side.bodies(queue) for queue in sorted(queues)}

    async def close(self) -> None:
        """Close the client, of which nothing is left then."""
        await self._client.shutdown()

    def _begin(self, message: tuple[str, str, bool], timeout: float = LONG) -> "asyncio.Future[None]":
        exchange, routing_key, mandatory = message
        body = str(len(self.outcomes)).encode()
        # RabbitMQ forgets what is not persistent when it stops.
        properties = {"delivery_mode": 2}
        return self._client.publish(exchange, routing_key, body, properties, timeout=timeout, mandatory=mandatory)

    async def _end(self, future: "asyncio.Future[None]") -> None:
        try:
            await future
        except Exception as error:
            self.outcomes.append(f"{type(error).__name__} {getattr(error, 'reply_code', '')}".strip())
        else:
            self.outcomes.append("confirmed")

    async def _ready(self, reconnects: int) -> None:
        client = self._client
        await until(lambda: client.ready and client.counters.reconnects >= reconnects)

    async def _publish(self, exchange: str, routing_key: str, mandatory: bool) -> None:
        await self._end(self._begin((exchange, routing_key, mandatory)))

    async def _exchange_gone(self, message: tuple[str, str, bool]) -> None:
        await self.side.exchange_declare("gone", "fanout")
        await self._publish("gone", "", False)
        await self.side.exchange_delete("gone")
        await self._publish("gone", "", False)
        await self._ready(0)
        await self._publish("gone", "", False)
        await self._publish(*message)

    async def _closed(self, message: tuple[str, str, bool]) -> None:
        reconnects = self._client.counters.reconnects
        await self.side.close_connections()
        await self._ready(reconnects + 1)
        await self._publish(*message)

    async def _blocked(self, message: tuple[str, str, bool]) -> None:
        await self._publish("amq.fanout", "", False)
        await self.side.block()
        first = self._begin(("amq.fanout", "", False))
        await self._client.wait_for(State.BLOCKED, LONG)
        await self._end(self._begin(message, SHORT))
        await self.side.unblock()
        await self._end(first)
        await self._ready(0)

    async def _closed_while_blocked(self, message: tuple[str, str, bool]) -> None:
        await self._publish("amq.fanout", "", False)
        await self.side.block()
        reconnects = self._client.counters.reconnects
        first = self._begin(("amq.fanout", "", False))
        await self._client.wait_for(State.BLOCKED, LONG)
        await self.side.close_connections()
        await self._end(first)
        await self.side.unblock()
        await self._ready(reconnects + 1)
        await self._publish(*message)

    async def _forbidden(self, message: tuple[str, str, bool]) -> None:
        await self.side.exchange_declare("secret", "fanout")
        await self.side.forbid("secret")
        await self._closed(("secret", "", False))
        await self.side.permit()
        await self._closed(("secret", "", False))
        await self._publish(*message)

    async def _password(self, message: tuple[str, str, bool]) -> None:
        reconnects = self._client.counters.reconnects
        await self.side.refuse_password()
        await self.side.close_connections()
        await self._client.wait_for(State.CLOSED, LONG)
        await self._end(self._begin(message, SHORT))
        await self.side.accept_password()
        await self._ready(reconnects + 1)
        await self._publish(*message)

    async def _stopped(self, message: tuple[str, str, bool]) -> None:
        reconnects = self._client.counters.reconnects
        await self.side.stop()
        await self._client.wait_for(State.CLOSED, LONG)
        await self._end(self._begin(message, SHORT))
        await self.side.start()
        await self._ready(reconnects + 1)
        await self._publish(*message)


async def performed(side: Side, script: Script) -> tuple[list[str], dict[str, list[bytes]]]:
    """Perform a script on one side; returns the outcomes, and what is in the queues."""
    run = Run(side)
    try:
        stored = await asyncio.wait_for(run.perform(script), 120)
    finally:
        await run.close()
    return run.outcomes, stored


#: Each has every fault, in another order. Those of 1 and 2 end alike, too; one is enough of RabbitMQ's time.
SEEDS: Final = (0,)


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_same_script_ends_alike_on_both(node: Node, seed: int) -> None:
    """Each publish has the same outcome, and each queue the same messages in the same order."""
    script = Script(seed)
    rabbitmq = RabbitMQ(node, f"script-{seed}")
    await rabbitmq.prepare()
    real = await performed(rabbitmq, script)
    with Broker() as broker:
        unreal = await performed(InMemory(broker), script)
    assert unreal == real
    assert {"confirmed", "MessageReturned 312", "NotReadyError", "OutcomeUnknown"} <= set(real[0])
