"""`make demo`: an HTTP request becomes a message in a queue, and the connection survives an outage of the broker.

It starts a RabbitMQ node of its own or, with AMQP_URL set, uses that broker, and leaves nothing behind on either.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import uuid
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from examples.application import EventsApplication
from sprockets_amqp import AMQPException, State, StateChange
from sprockets_amqp.settings import from_environment
from sprockets_amqp.urls import hide_password, node_parameters
from tools.rabbitmq import Node, NodeFailed, scripts

#: Seconds within which RabbitMQ, the application and the message must be there.
LIMIT = 60
#: The demo's own exchange and queue, so that no one else sees its events.
NAME = f"sprockets-amqp-demo-{uuid.uuid4().hex[:8]}"


class DemoFailed(Exception):
    """What went wrong, in a sentence for the person who runs the demo."""


def say(text: str = "") -> None:
    """Print a line at once, even into a pipe."""
    print(text, flush=True)


async def demonstrate(url: str) -> None:
    """Show everything, on the broker at the URL or, without one, on a node of our own."""
    say("sprockets_amqp: an HTTP request becomes a message in a RabbitMQ queue.")
    async with AsyncExitStack() as cleaning:
        say("\n1. RabbitMQ")
        node = None if url else await cleaning.enter_async_context(own_node())
        url = url or (node.url if node else "")
        say(f"   Broker: {hide_password(url)}")
        await on_broker(url, declare)
        cleaning.push_async_callback(on_broker, url, delete)
        say(f"   Exchange {NAME!r} passes events to a queue of the same name.")

        say("\n2. The application (examples/application.py) starts, and connects")
        application = EventsApplication(NAME, url=url, timeout=LIMIT, reconnect_delay=0.5, max_reconnect_delay=1)
        cleaning.push_async_callback(application.amqp.shutdown)
        application.amqp.subscribe(show_change)
        await application.amqp.wait_for(State.READY, LIMIT)
        address = cleaning.enter_context(serving(application))

        say("\n3. An event is posted over HTTP")
        show_answer(await post(address, {"event": "signed up", "user": 7}))
        say("\n4. The queue is read by a client that knows nothing about the application")
        show_message(await on_broker(url, take))
        if node is not None:
            await show_outage(node, application, address)
        say("\nFinally, everything is stopped and removed.")


async def show_outage(node: Node, application: EventsApplication, address: str) -> None:
    """Stop the broker, post an event, start the broker again."""
    say("\n5. RabbitMQ is stopped, and another event is posted: it waits")
    await node.stop()
    answer = asyncio.create_task(post(address, {"event": "signed out", "user": 7}))
    await asyncio.wait([answer], timeout=0.5)
    say(f"   Half a second later, messages that wait in the application: {application.amqp.waiting}")
    say("\n6. RabbitMQ is started again: the application reconnects by itself, and the event is sent")
    await node.start()
    show_answer(await answer)
    show_message(await on_broker(node.url, take))


@asynccontextmanager
async def own_node() -> AsyncIterator[Node]:
    """Start a node on ports and in a folder of its own."""
    scripts()
    say("   Starting a node of our own (about 5 seconds); any other on this machine is left alone ...")
    async with Node() as node:
        yield node


@contextmanager
def serving(application: EventsApplication) -> Iterator[str]:
    """Serve the application on a free port; yields the URL to post events to."""
    sockets = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(application)
    server.add_sockets(sockets)
    yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}/events"
    server.stop()


async def post(address: str, event: dict[str, Any]) -> HTTPResponse:
    """Post the event, and wait for the answer."""
    body = json.dumps(event)
    say(f"   POST {address} {body}")
    return await AsyncHTTPClient().fetch(address, method="POST", body=body, request_timeout=2 * LIMIT)


# What is shown


def show_change(change: StateChange) -> None:
    """Show a change of the connection's state, as the application receives it."""
    because = f": {change.reason}" if change.reason else ""
    say(f"   state {change.source.name.lower()} -> {change.dest.name.lower()}{because}")


def show_answer(answer: HTTPResponse) -> None:
    """Show the response to the posted event."""
    message_id = json.loads(answer.body)["message_id"]
    say(f"   {answer.code} {answer.reason} after {answer.request_time:.3f} s: RabbitMQ confirmed message {message_id}")


def show_message(message: tuple[pika.BasicProperties, bytes]) -> None:
    """Show what was in the queue."""
    properties, body = message
    say(f"   {body.decode()}")
    say(f"   message_id {properties.message_id}, app_id {properties.app_id}, timestamp {properties.timestamp}")


# The broker's side, with pika alone


async def on_broker(url: str, action: Callable[[BlockingChannel], Any]) -> Any:
    """Run an action on a separate connection, away from the application's loop."""
    return await asyncio.to_thread(_on_broker, url, action)


def _on_broker(url: str, action: Callable[[BlockingChannel], Any]) -> Any:
    connection = pika.BlockingConnection(node_parameters(url))
    try:
        return action(connection.channel())
    finally:
        connection.close()


def declare(channel: BlockingChannel) -> None:
    """Declare an exchange and a queue bound to it; both survive the broker's restart."""
    channel.exchange_declare(NAME, "topic", durable=True)
    channel.queue_declare(NAME, durable=True)
    channel.queue_bind(NAME, NAME, "#")


def delete(channel: BlockingChannel) -> None:
    """Remove both again."""
    channel.queue_delete(NAME)
    channel.exchange_delete(NAME)


def take(channel: BlockingChannel) -> tuple[pika.BasicProperties, bytes]:
    """Take the one message out of the queue."""
    _, properties, body = channel.basic_get(NAME, auto_ack=True)
    if properties is None or body is None:
        raise DemoFailed("RabbitMQ confirmed the event, but the queue is empty")
    return properties, body


# The command


def broker_url() -> str:
    """Return the value of AMQP_URL, checked; empty if it is not set."""
    return str(from_environment({"AMQP_URL": os.environ.get("AMQP_URL", "")}).get("url", ""))


async def main() -> None:
    """Run to the end, or until SIGTERM; in either case, everything that was started is stopped."""
    task = asyncio.ensure_future(demonstrate(broker_url()))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


def run() -> int:
    """Return the exit status."""
    # The demo itself says what these would log.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    logging.getLogger("sprockets_amqp").setLevel(logging.ERROR)
    # pika's coming version deprecates what reads the queue here.
    warnings.filterwarnings("ignore", "BlockingConnection is deprecated", DeprecationWarning)
    try:
        asyncio.run(main())
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("\nStopped; nothing is left running.")
        return 130
    except (DemoFailed, NodeFailed, AMQPException, ValueError, TimeoutError, HTTPClientError) as error:
        reason = str(error)
    except AMQPError as error:
        reason = f"RabbitMQ cannot be used: {error!r}; is AMQP_URL correct, and is the broker running?"
    except OSError as error:
        reason = f"the operating system refused something: {error}"
    else:
        say("Done. Next: examples/application.py is the application; docs/start.md shows how to write one.")
        return 0
    print(f"\nThe demo failed: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(run())
