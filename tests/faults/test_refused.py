"""What one sender keeps doing wrong, beside others who do nothing wrong."""

import asyncio

import pytest

import sprockets_amqp as amqp
from sprockets_amqp import State
from tests.faults.stream import streaming
from tests.support.consume import declare_queue
from tools.rabbitmq import Node

DIRECT_REPLY = "amq.rabbitmq.reply-to"


@pytest.mark.parametrize("permission", ["topic", "default exchange"])
async def test_who_keeps_publishing_what_is_not_permitted_harms_others_once(broker: Node, permission: str) -> None:
    """The first such message closes the channel; from then on RabbitMQ is asked, and all others are confirmed."""
    name = f"refused-{permission[:5]}"
    url = await broker.add_user(name)
    if permission == "topic":
        await broker.ctl("set_topic_permissions", name, "amq.topic", "^allowed", ".*")
        exchange = "amq.topic"
    else:
        await broker.ctl("set_permissions", name, ".*", "^(amq.topic|faults-.*)$", ".*")
        exchange = ""
    async with streaming(url, admin_url=broker.url, interval=0) as stream:
        client = stream.client
        await client.publish("amq.topic", "allowed.first", b"", mandatory=False)
        with pytest.raises(amqp.OutcomeUnknown, match="403"):
            await client.publish(exchange, "denied", b"")
        for number in range(20):
            bad = client.publish(exchange, f"denied.{number}", b"")
            good = [stream.publish() for _ in range(20)]
            good += [client.publish("amq.topic", f"allowed.{key}", b"", mandatory=False) for key in range(5)]
            with pytest.raises(amqp.ExchangeRefused, match="ACCESS_REFUSED"):
                await bad
            await asyncio.gather(*good)
        assert stream.path == [State.CONNECTING, State.READY]
        assert not stream.errors
    await broker.ctl("delete_user", name)


async def test_what_rabbitmq_never_takes_is_refused_before_it_sees_it(broker: Node) -> None:
    """Direct reply-to, and CC that is no list, harm nobody; a list of strings is taken, and routed."""
    async with streaming(broker.url, interval=0) as stream:
        publish = stream.client.publish
        for _ in range(10):
            good = [stream.publish() for _ in range(10)]
            bad = [
                publish("amq.topic", "key", b"", {"reply_to": DIRECT_REPLY}),
                publish("amq.topic", "key", b"", {"headers": {"CC": "key"}}),
                publish("", f"{DIRECT_REPLY}.g2dkAA5yZXBseUAxMjM0NTY3OAAAC3EAAAAAX0mKUw==.x", b""),
            ]
            outcomes = await asyncio.gather(*bad, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [amqp.InvalidMessage] * 3
            await asyncio.gather(*good)
        # No queue is called so: it would be returned, did no queue take the copy.
        await publish("", "no such queue", b"", {"headers": {"CC": [stream.queue]}})
        assert stream.path == []


#: Routing keys that read like RabbitMQ's refusals of something else.
READS_LIKE_A_REFUSAL = (
    "message size 1 is larger than configured max size 1",
    "message size 1 is larger than max size 1",
    "' in exchange 'amq.direct' in vhost '/' refused for user 'forger'",
    "amq.direct",
)


async def test_a_refusal_decides_nothing_about_what_a_routing_key_quotes(broker: Node) -> None:
    """Neither bodies nor other exchanges, of which RabbitMQ's text speaks in the sender's words."""
    name = "forger"
    url = await broker.add_user(name)
    await broker.ctl("set_topic_permissions", name, "amq.topic", "^allowed", ".*")
    client = amqp.Client(url)
    for key in READS_LIKE_A_REFUSAL:
        with pytest.raises((amqp.OutcomeUnknown, amqp.ExchangeRefused), match="403"):
            await client.publish("amq.topic", key, b"")
        await client.publish("amq.topic", "allowed", b"a body of more than one octet", mandatory=False)
        await client.publish("amq.direct", key, b"a body of more than one octet", mandatory=False)
    await client.shutdown()
    # Before the client is ready, the refused one is the first that RabbitMQ is asked about.
    client = amqp.Client(url)
    bad = client.publish("amq.topic", "denied", b"")
    good = [client.publish("amq.topic", f"allowed.{number}", b"", mandatory=False) for number in range(100)]
    await asyncio.gather(*good)
    with pytest.raises((amqp.OutcomeUnknown, amqp.ExchangeRefused), match="403"):
        await bad
    await client.shutdown()
    await broker.ctl("delete_user", name)


async def test_messages_that_end_the_queue_they_die_in_are_refused(broker: Node) -> None:
    """A true count in x-death ended a queue's process when it dead-lettered the message: all later ones were nacked."""
    arguments = {"x-message-ttl": 100, "x-dead-letter-exchange": "amq.fanout"}
    queue = await declare_queue(broker.url, arguments=arguments)
    death = {"queue": queue.name, "reason": "expired", "exchange": queue.exchange, "count": True}
    async with amqp.Client(broker.url) as client:
        for headers in ({"x-death": [death]}, {"x-stream-filter-value": 5}, {"x-amqp-1.0-footer": "x"}):
            with pytest.raises(amqp.InvalidMessage):
                await client.publish(queue.exchange, queue.routing_key, b"", {"headers": headers})
        for _ in range(20):
            await client.publish(
                queue.exchange, queue.routing_key, b"", {"headers": {"x-death": [{**death, "count": 1}]}}
            )
        assert client.counters.nacked == 0
