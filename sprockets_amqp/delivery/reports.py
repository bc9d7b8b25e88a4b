"""Reports the ends of publishes to observers."""

import asyncio

from sprockets_amqp.errors import AMQPException
from sprockets_amqp.observers import ANSWERED, OUTCOMES, Outcome, PublishEnd, Watch

from .publish import STORED, Publish, Result


class Reports(dict[Publish, Watch]):
    """The publishes whose end is observed, and what is called when they end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, confirmed: bool) -> None:
        super().__init__()
        self._loop = loop
        self._success = Outcome.CONFIRMED if confirmed else Outcome.SENT

    def begin(self, publish: Publish, watch: Watch) -> None:
        """Watch a publish."""
        watch.began = self._loop.time()
        self[publish] = watch
        if not self._loop.is_closed():
            # The end has been reported by then, unless the caller cancelled the publish.
            publish.future.add_done_callback(lambda _future: self.end(publish))

    def end(self, publish: Publish, error: AMQPException | None = None, result: Result = None) -> None:
        """Report the end of a publish to its observers, before a coroutine that awaits the future continues."""
        watch = self.pop(publish, None)
        if watch is None:
            return
        outcome = self._success
        if publish.future.done():
            outcome, error = Outcome.CANCELLED, None
        elif error is not None:
            outcome = OUTCOMES[type(error)]
        elif result == STORED:
            outcome = Outcome.STORED
        now, sent_at, message = self._loop.time(), publish.sent_at, publish.message
        watch.tell(
            PublishEnd(
                outcome=outcome,
                error=error,
                exchange=message.exchange,
                routing_key=message.routing_key,
                message_id=message.message_id,
                size=len(message.body),
                sends=watch.resends + 1 if sent_at else 0,
                seconds_in_line=(sent_at or now) - watch.began,
                seconds_to_confirm=now - sent_at if outcome in ANSWERED else None,
                returned=publish.returned is not None,
                seconds=now - watch.began,
            )
        )
