"""Reports the ends of publishes to observers."""

import asyncio

from sprockets_amqp.errors import AMQPException
from sprockets_amqp.observers import ANSWERED, OUTCOMES, Outcome, PublishEnd, Watch

from .message import STORED, Message, Result


class Reports(dict[Message, Watch]):
    """The messages whose end is observed, and what is called when they end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, confirmed: bool) -> None:
        super().__init__()
        self._loop = loop
        self._success = Outcome.CONFIRMED if confirmed else Outcome.SENT

    def begin(self, message: Message, watch: Watch) -> None:
        """Watch a message that is being published."""
        watch.began = self._loop.time()
        self[message] = watch
        if not self._loop.is_closed():
            # The end has been reported by then, unless the caller cancelled the publish.
            message.future.add_done_callback(lambda _future: self.end(message))

    def hand_on(self, message: Message, copy: Message) -> None:
        """Watch another message in place of this one."""
        if message in self:
            self[copy] = self.pop(message)

    def end(self, message: Message, error: AMQPException | None = None, result: Result = None) -> None:
        """Report the end of a message to its observers, before a coroutine that awaits the future continues."""
        watch = self.pop(message, None)
        if watch is None:
            return
        outcome = self._success
        if message.future.done():
            outcome, error = Outcome.CANCELLED, None
        elif error is not None:
            outcome = OUTCOMES[type(error)]
        elif result == STORED:
            outcome = Outcome.STORED
        now, sent_at = self._loop.time(), message.sent_at
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
                returned=message.returned is not None,
            )
        )
