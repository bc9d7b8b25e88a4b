"""The line with its limits: how much may wait, how long each publish may, and room for exchanges in use."""

import asyncio
from collections.abc import Callable

from sprockets_amqp.settings import Settings

from .exchanges import Exchanges
from .line import Line
from .message import Message
from .publish import Publish


class Waiting(Line):
    """The line of a publisher.

    Args:
        settings: the limits.
        exchanges: knows which exchanges are in use.
        on_late: called with a publish that has waited for as long as it may.
        on_gone: called when a publish has left because its caller cancelled it, or because it has ended.
    """

    def __init__(
        self,
        settings: Settings,
        exchanges: Exchanges,
        on_late: Callable[[Publish], object],
        on_gone: Callable[[], object],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__()
        self._settings = settings
        self._exchanges = exchanges
        self._on_late = on_late
        self._on_gone = on_gone
        self._loop = loop
        #: The publishes to exchanges that RabbitMQ has not accepted before, and the octets of their messages.
        self._strangers: set[Publish] = set()
        self._strangers_size = 0

    def why_full(self, message: Message) -> str:
        """Return why a message may not wait here, or the empty string."""
        settings, exchanges = self._settings, self._exchanges
        # Names of exchanges may come from strangers.
        if self._strangers and exchanges.is_experienced and not exchanges.knew(message):
            is_full = len(self._strangers) >= settings.max_waiting // 2
            if is_full or self._strangers_size + message.size > settings.max_waiting_size // 2:
                half = "half of max_waiting and max_waiting_size"
                return f"messages to exchanges that RabbitMQ has not accepted before already take {half}"
        if len(self) >= settings.max_waiting:
            return f"the number of waiting messages has reached max_waiting ({len(self)})"
        if self and self.size + message.size > settings.max_waiting_size:
            return f"{self.size} octets are waiting already (max_waiting_size)"
        return ""

    def wait(self, publish: Publish, timeout: float, *, first: bool = False) -> None:
        """Put a publish in line, for so many seconds."""
        self.enter(publish, first=first)
        if not self._exchanges.knew(publish.message):
            self._strangers.add(publish)
            self._strangers_size += publish.message.size
        publish.timer = self._loop.call_later(timeout, self._on_late, publish)
        publish.future.add_done_callback(lambda _future: self._end(publish))

    def take(self) -> list[tuple[Publish, float]]:
        """Take out every publish that is not kept, in order, each with the loop's time until which it may wait."""
        found = []
        for publish in self.in_order():
            if publish.kept is None:
                deadline = publish.timer.when() if publish.timer is not None else 0.0
                self.leave(publish)
                if publish.waits:
                    found.append((publish, deadline))
        return found

    def leave(self, publish: Publish) -> None:
        """Take a publish out, if it is in line."""
        super().leave(publish)
        if publish in self._strangers:
            self._strangers.discard(publish)
            self._strangers_size -= publish.message.size
        if publish.timer is not None:
            publish.timer.cancel()
            publish.timer = None

    def _end(self, publish: Publish) -> None:
        # A cancelled one is still in line.
        self.leave(publish)
        self._on_gone()
