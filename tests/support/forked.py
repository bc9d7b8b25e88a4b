"""A client that is ready, and a fork in the middle of it: ``python -m tests.support.forked CHILD URL EXCHANGE KEY``.

Messages are unconfirmed and waiting when the process forks. The parent prints what became of them.
"""

import asyncio
import atexit
import json
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import sprockets_amqp as amqp

CHILD, URL, EXCHANGE, ROUTING_KEY = sys.argv[1:] if __name__ == "__main__" else ("",) * 4
#: So many messages are on the wire when the process forks, and the others wait.
WINDOW = 5
MESSAGES = 200


def say(what: dict[str, Any]) -> None:
    """Tell the test."""
    os.write(1, json.dumps(what).encode() + b"\n")


def publish(client: amqp.Client, name: str) -> "asyncio.Future[None]":
    """Publish a message of that name."""
    return client.publish(EXCHANGE, ROUTING_KEY, b"an event", {"message_id": name})


async def publish_in_child(client: amqp.Client) -> None:
    """Use the parent's client as if it were the child's own."""
    assert client.waiting == client.unconfirmed == client.counters.published == 0
    assert client.history == () or client.history[0].source is amqp.State.IDLE
    await publish(client, f"child {os.getpid()}")
    await client.shutdown()


async def fork_again(client: amqp.Client) -> None:
    """Fork in the middle of the child's own connection, which has to go on."""
    await publish(client, "child, before its own")
    connection = client.connection
    pid = os.fork()
    if pid == 0:
        asyncio.run(publish_in_child(client))
        os._exit(0)
    await asyncio.to_thread(os.waitpid, pid, 0)
    await publish(client, "child, after its own")
    assert client.connection is connection
    await client.shutdown()


def in_child(client: amqp.Client) -> None:
    """Do what the child is to do, and end the way that it is to end."""
    if CHILD == "publishes":
        asyncio.run(publish_in_child(client))
        os._exit(0)
    if CHILD == "forks again":
        asyncio.run(fork_again(client))
        os._exit(0)
    if CHILD == "publishes and exits":
        asyncio.run(publish_in_child(client))
        leave()
    if CHILD == "exits at once":
        os._exit(0)
    if CHILD == "raises":
        raise RuntimeError("a child's own")
    if CHILD == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if CHILD == "stays":
        # Who waits for the parent waits for these to be closed.
        os.closerange(0, 3)
        signal.pause()
    leave()


def leave() -> None:
    """Exit with all destructors and atexit handlers, on the way through the parent's loop.

    From Python 3.14 on nothing exits through a loop that was inherited: asyncio takes it for one that does not run.
    """
    if sys.version_info >= (3, 14):
        atexit._run_exitfuncs()
        os._exit(0)
    sys.exit(0)


def square(number: int) -> int:
    """Work for a process pool."""
    return number * number


def publish_spawned(url: str, exchange: str, routing_key: str) -> None:
    """Publish in a process that shares nothing."""

    async def main() -> None:
        client = amqp.Client(url)
        await client.publish(exchange, routing_key, b"", {"message_id": "child spawned"})
        await client.shutdown()

    asyncio.run(main())


async def use_processes(client: amqp.Client) -> None:
    """Have other processes work beside the client."""
    loop = asyncio.get_running_loop()
    if CHILD == "is in a pool":
        with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
            assert await asyncio.gather(*(loop.run_in_executor(pool, square, n) for n in range(20)))
    elif CHILD == "is spawned":
        child = get_context("spawn").Process(target=publish_spawned, args=(URL, EXCHANGE, ROUTING_KEY))
        child.start()
        await asyncio.to_thread(child.join)
        assert child.exitcode == 0
    else:
        pid = os.fork()
        if pid == 0:
            in_child(client)
        say({"child": pid})
        if CHILD != "stays":
            await asyncio.to_thread(os.waitpid, pid, 0)


async def main() -> None:
    """Fork while messages are unconfirmed and waiting, and publish on."""
    client = amqp.Client(URL, max_unconfirmed=WINDOW, timeout=60)
    await publish(client, "first")
    connection = client.connection
    futures = [publish(client, f"before {number}") for number in range(MESSAGES)]
    assert (client.unconfirmed, client.waiting) == (WINDOW, MESSAGES - WINDOW)
    await use_processes(client)
    futures += [publish(client, f"after {number}") for number in range(MESSAGES)]
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    # A loop that was deafened would not hear of what a thread has done.
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "heard"), 30) == "heard"
    counters = client.counters
    told: dict[str, Any] = {
        "confirmed": outcomes.count(None) + 1,
        "reconnects": counters.reconnects,
        "same connection": client.connection is connection,
    }
    say(told)
    if CHILD == "stays":
        # The parent ends without a word; the connection is not to live on in the child.
        os.kill(os.getpid(), signal.SIGKILL)
    await client.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
