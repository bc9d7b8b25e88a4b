"""The broker in memory is held against RabbitMQ: the same script on both, the same end of every publish."""

import asyncio
import os
import random
from typing import Any, Final

import pytest

from sprockets_amqp import Client, State
from sprockets_amqp.testing import Broker
from sprockets_amqp.testing.exchanges import TYPES
from tests.support.line import Line
from tests.support.waiting import until
from tools.rabbitmq import Node

EXCHANGES: Final = ("e0", "e1", "e2", "amq.topic", "amq.fanout", "")
QUEUES: Final = ("q0", "q1", "q2")
KEYS: Final = ("a", "a.b", "a.b.c", "", "q0", "q1")
PATTERNS: Final = (*KEYS, "#", "a.*", "*.b.#", "a.#")
#: Arguments of queues.
LIMITS: Final[tuple[dict[str, Any] | None, ...]] = (
    *(None, None, {"x-max-length": 3, "x-overflow": "reject-publish"}, {"x-max-length": 2}),
    *({"x-max-length": 1, "x-dead-letter-exchange": "amq.fanout"}, {"x-max-length": "many"}),
)
#: An exchange, a routing key, whether it is mandatory, and the delivery mode.
Message = tuple[str, str, bool, int]
STEPS: Final = 60
#: Seconds that a publish waits where it is not to be taken, and that anything else may take.
SHORT, LONG = 0.5, 60


class Side:
    """A broker, real or not, and what a script asks of it beside what a client can say."""

    def __init__(self, url: str, admin: str) -> None:
        self.url = url
        self._admin = admin

    async def declare(self, verb: str, **arguments: Any) -> str:
        """Make a call of pika's channel; return what the broker says of it."""
        async with Line(self._admin) as line:
            return await line.call(verb, **arguments)

    async def close_connections(self) -> None:
        """Close every connection."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Stop the broker."""
        raise NotImplementedError

    async def start(self) -> None:
        """Start it."""
        raise NotImplementedError

    async def block(self) -> None:
        """Raise an alarm; return when a connection that has published would be blocked."""
        raise NotImplementedError

    async def unblock(self) -> None:
        """End the alarm."""
        raise NotImplementedError

    async def permit(self, write: str) -> None:
        """Let the user write to what a pattern matches."""
        raise NotImplementedError

    async def refuse_password(self) -> None:
        """Refuse the user."""
        raise NotImplementedError

    async def accept_password(self) -> None:
        """Let the user log in again."""
        raise NotImplementedError

    async def bodies(self, queue: str) -> list[bytes] | None:
        """Return what is in a queue, or None if there is none."""
        raise NotImplementedError


class InMemory(Side):
    """The broker in memory."""

    def __init__(self, broker: Broker, name: str) -> None:
        super().__init__(f"amqp://{name}:secret@broker/{name}", f"amqp://guest:guest@broker/{name}")
        self._broker, self._vhost = broker, broker.vhost(name)

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

    async def permit(self, write: str) -> None:
        self._vhost.set_permissions(write=write)

    async def refuse_password(self) -> None:
        self._broker.refuse_password()

    async def accept_password(self) -> None:
        self._broker.refuse_password(refused=False)

    async def bodies(self, queue: str) -> list[bytes] | None:
        try:
            return [message.body for message in self._vhost.messages(queue)]
        except KeyError:
            return None


class RabbitMQ(Side):
    """A real node, on which the script has a vhost and a user to itself."""

    def __init__(self, node: Node, name: str) -> None:
        super().__init__(node.url_for(name, "secret", name), node.url_for(vhost=name))
        self._node = node
        self._name = name

    async def prepare(self) -> None:
        """Add the vhost, the user, and one that declares."""
        await self._node.add_user(self._name, "secret", self._name)
        await self._node.ctl("set_permissions", "--vhost", self._name, "guest", ".*", ".*", ".*")

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

    async def permit(self, write: str) -> None:
        await self._node.ctl("set_permissions", "--vhost", self._name, self._name, ".*", write, ".*")

    async def refuse_password(self) -> None:
        await self._node.ctl("change_password", self._name, "another")

    async def accept_password(self) -> None:
        await self._node.ctl("change_password", self._name, "secret")

    async def bodies(self, queue: str) -> list[bytes] | None:
        async with Line(self._admin) as line:
            if await line.call("queue_declare", queue=queue, passive=True) != "ok":
                return None
            found = []
            while (got := await line.get(queue)) is not None:
                found.append(got[2])
            return found


class Script:
    """A random series of declarations, publishes and faults; what is random is drawn before it begins."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        #: The verbs, each with its arguments, in order.
        self.steps: list[tuple[str, tuple[Any, ...]]] = []
        faults = ["exchange_gone", "closed", "blocked", "closed_while_blocked", "forbidden", "password", "stopped"]
        self._random.shuffle(faults)
        for number in range(STEPS):
            self._declare()
            self.steps.append(("publish", self._message()))
            if number % (STEPS // len(faults)) == 5:
                self.steps.append((faults.pop(), (self._message(),)))

    def _declare(self) -> None:
        draw, choose = self._random.random(), self._random.choice
        if draw < 0.2:
            exchange, durable = choose(EXCHANGES[:3]), self._random.random() < 0.8
            alternate = {"alternate-exchange": choose(EXCHANGES[:4])} if self._random.random() < 0.3 else None
            self._say(
                "exchange_declare",
                exchange=exchange,
                exchange_type=choose(TYPES),
                durable=durable,
                arguments=alternate,
            )
        elif draw < 0.4:
            durable = self._random.random() < 0.8
            self._say("queue_declare", queue=choose(QUEUES), durable=durable, arguments=choose(LIMITS))
        elif draw < 0.7:
            names = {"queue": choose(QUEUES), "exchange": choose(EXCHANGES)}
            self._say("queue_bind", **names, routing_key=choose(PATTERNS))
        elif draw < 0.8:
            # In circles, too: each queue gets a message once.
            names = {"source": choose(EXCHANGES), "destination": choose(EXCHANGES)}
            self._say("exchange_bind", **names, routing_key=choose(PATTERNS))

    def _say(self, verb: str, **arguments: Any) -> None:
        self.steps.append(("declare", (verb, arguments)))

    def _message(self) -> Message:
        choose = self._random.choice
        return choose(EXCHANGES), choose(KEYS), choose((True, True, False)), choose((1, 2, 2))


class Run:
    """The script on one side: `outcomes` has what each publish ended with."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.outcomes: list[str] = []
        self._client = Client(
            side.url, reconnect_delay=0.05, max_reconnect_delay=0.1, timeout=LONG, fail_on_return=True
        )
        self._known: set[str] = set()

    async def perform(self, script: Script) -> dict[str, list[bytes] | None]:
        """Perform the script; returns what is in each queue at the end."""
        for verb, arguments in script.steps:
            await getattr(self, f"_{verb}")(*arguments)
        await self.close()
        return {queue: await self.side.bodies(queue) for queue in QUEUES}

    async def close(self) -> None:
        """Close the client, of which nothing is left then."""
        await self._client.shutdown()

    def _begin(self, message: Message, timeout: float = LONG) -> "asyncio.Future[None]":
        exchange, routing_key, mandatory, delivery_mode = message
        body = str(len(self.outcomes)).encode()
        properties = {"delivery_mode": delivery_mode}
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

    async def _declare(self, verb: str, arguments: dict[str, Any]) -> None:
        self.outcomes.append(f"{verb}: {await self.side.declare(verb, **arguments)}")

    async def _publish(self, exchange: str, routing_key: str, mandatory: bool, delivery_mode: int) -> None:
        await self._end(self._begin((exchange, routing_key, mandatory, delivery_mode)))

    async def _exchange_gone(self, message: Message) -> None:
        await self.side.declare("exchange_declare", exchange="gone", exchange_type="fanout", durable=True)
        await self._publish("gone", "", False, 2)
        await self.side.declare("exchange_delete", exchange="gone")
        await self._publish("gone", "", False, 2)
        await self._ready(0)
        await self._publish("gone", "", False, 2)
        await self._publish(*message)

    async def _closed(self, message: Message) -> None:
        reconnects = self._client.counters.reconnects
        await self.side.close_connections()
        await self._ready(reconnects + 1)
        await self._publish(*message)

    async def _blocked(self, message: Message) -> None:
        await self._publish("amq.fanout", "", False, 2)
        await self.side.block()
        first = self._begin(("amq.fanout", "", False, 2))
        await self._client.wait_for(State.BLOCKED, LONG)
        await self._end(self._begin(message, SHORT))
        await self.side.unblock()
        await self._end(first)
        await self._ready(0)

    async def _closed_while_blocked(self, message: Message) -> None:
        await self._publish("amq.fanout", "", False, 2)
        await self.side.block()
        reconnects = self._client.counters.reconnects
        first = self._begin(("amq.fanout", "", False, 2))
        await self._client.wait_for(State.BLOCKED, LONG)
        await self.side.close_connections()
        await self._end(first)
        await self.side.unblock()
        await self._ready(reconnects + 1)
        await self._publish(*message)

    async def _forbidden(self, message: Message) -> None:
        await self.side.declare("exchange_declare", exchange="secret", exchange_type="fanout", durable=True)
        await self.side.permit("^(?!secret$).*")
        await self._closed(("secret", "", False, 2))
        await self.side.permit(".*")
        await self._closed(("secret", "", False, 2))
        await self._publish(*message)

    async def _password(self, message: Message) -> None:
        reconnects = self._client.counters.reconnects
        await self.side.refuse_password()
        await self.side.close_connections()
        await self._client.wait_for(State.CLOSED, LONG)
        await self._end(self._begin(message, SHORT))
        await self.side.accept_password()
        await self._ready(reconnects + 1)
        await self._publish(*message)

    async def _stopped(self, message: Message) -> None:
        reconnects = self._client.counters.reconnects
        await self.side.stop()
        await self._client.wait_for(State.CLOSED, LONG)
        await self._end(self._begin(message, SHORT))
        await self.side.start()
        await self._ready(reconnects + 1)
        await self._publish(*message)


async def performed(side: Side, script: Script) -> tuple[list[str], dict[str, list[bytes] | None]]:
    """Perform a script on one side; returns the outcomes, and what is in the queues."""
    run = Run(side)
    try:
        stored = await asyncio.wait_for(run.perform(script), 120)
    finally:
        await run.close()
    return run.outcomes, stored


#: Each has every fault, in another order. Those of 1 and 2 end alike, too; one is enough of RabbitMQ's time.
SEEDS: Final = tuple(range(int(os.environ.get("KIT_SEEDS", "1"))))


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_same_script_ends_alike_on_both(node: Node, seed: int) -> None:
    """Each publish has the same outcome, and each queue the same messages in the same order."""
    script = Script(seed)
    name = f"script-{seed}"
    rabbitmq = RabbitMQ(node, name)
    await rabbitmq.prepare()
    real = await performed(rabbitmq, script)
    with Broker() as broker:
        unreal = await performed(InMemory(broker, name), script)
    assert unreal == real
    assert {"confirmed", "MessageReturned 312", "NotReadyError", "OutcomeUnknown"} <= set(real[0])
