"""What one sender keeps doing wrong, beside others who do nothing wrong."""

import asyncio

import pytest

import sprockets_amqp as amqp
from sprockets_amqp import State
from tests.faults.stream import streaming
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
