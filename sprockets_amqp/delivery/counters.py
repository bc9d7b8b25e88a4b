"""The counters of messages."""

import dataclasses


@dataclasses.dataclass(slots=True)
class Counters:
    """Counts of messages since the client was made.

    Attributes:
        published: handed to the transport; a republished message counts each time.
        confirmed: acknowledged by RabbitMQ.
        returned: returned by RabbitMQ as unroutable.
        nacked: refused by a queue.
        failed: publishes that ended with an error, of any kind.
        republished: sent again after a loss.
        reconnects: connections opened again after one was lost.
        unconfirmed: on the wire now.
        waiting: in line now.
        stored: in the outbox now, waiting to be sent or confirmed.
        set_aside: in the outbox now, and no longer sent, because RabbitMQ refuses them.
        not_ready: of those that failed, the ones that were not sent: the client was not ready, or had no room.
    """

    published: int = 0
    confirmed: int = 0
    returned: int = 0
    nacked: int = 0
    failed: int = 0
    republished: int = 0
    reconnects: int = 0
    unconfirmed: int = 0
    waiting: int = 0
    stored: int = 0
    set_aside: int = 0
    not_ready: int = 0
