"""Log records as messages, from any thread: `python -m examples.log_handler` with ``AMQP_URL`` set."""

import asyncio
import logging

from sprockets_amqp import Client

#: What these say while a record is published would be published, and say more.
OWN = ("sprockets_amqp", "pika", "asyncio")


class AMQPHandler(logging.Handler):
    """Publishes each record, by the name of its logger; it never waits, and a record that fails is lost."""

    def __init__(self, client: Client, exchange: str = "amq.topic", most: int = 1000) -> None:
        super().__init__()
        self._client = client
        self._exchange = exchange
        self._most = most

    def emit(self, record: logging.LogRecord) -> None:
        """Publish a record, unless too many wait: a log must not fill the memory during an outage."""
        if record.name.partition(".")[0] in OWN or self._client.waiting >= self._most:
            return
        try:
            message = self._exchange, f"log.{record.levelname.lower()}.{record.name}"[:255], self.format(record)
            try:
                future = self._client.publish_threadsafe(*message, mandatory=False)
            except RuntimeError:
                # This is the thread of the loop, which must not wait for itself.
                self._client.publish(*message, mandatory=False).add_done_callback(asyncio.Future.exception)
            else:
                future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        except Exception:
            self.handleError(record)


async def main() -> None:
    """Log on the loop, and in a thread."""
    async with Client.from_environment() as client:
        handler = AMQPHandler(client)
        logging.getLogger().addHandler(handler)
        try:
            logging.getLogger("application").warning("on the loop")
            await asyncio.to_thread(logging.getLogger("application").warning, "in a thread")
        finally:
            logging.getLogger().removeHandler(handler)
            await client.flush(timeout=10)


if __name__ == "__main__":
    asyncio.run(main())
