"""pika's events: documented methods of the client, each of which pulls a trigger; a subclass may do more."""

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic, BasicProperties
from pika.spec import Channel as ChannelMethods

from .bounded_log import BoundedLog, Seldom, named
from .client_state import ClientState
from .connection.events import Events
from .names import DEFAULT_NAME
from .settings import Settings
from .text import shown
from .wire.connection import Connection
from .wire.replies import channel_lost, connection_lost, describe, reply

LOGGER = logging.getLogger("sprockets_amqp.client")

#: What `Client.on_return` is: it receives the method, the properties and the body of a returned message.
OnReturn = Callable[[Basic.Return, BasicProperties, bytes], object]


class PikaEvents(ClientState, Events):
    """The base of `Client` that pika's events come to, in the order of a connection's life."""

    def __init__(self, settings: Settings, name: str, on_return: OnReturn | None) -> None:
        super().__init__(settings, name)
        self.on_return = on_return
        self._log = BoundedLog(named(LOGGER, self.name), time.monotonic)
        #: For lines that no flood of others may push out.
        self._urgent = BoundedLog(named(LOGGER, self.name), time.monotonic)
        self._unroutable = Seldom(time.monotonic)
        #: Why the last connection or channel was lost, as pika raised it.
        self._lost: BaseException | None = None

    def on_connection_open(self, connection: Connection) -> None:  # noqa: ARG002
        """Called by pika when RabbitMQ has accepted the connection."""
        self._feed("connection_opened")

    def on_connection_open_error(self, connection: Connection, error: BaseException) -> None:  # noqa: ARG002
        """Called by pika when a connection could not be opened."""
        self._feed("connection_failed", describe(error), error)

    def on_channel_open(self, channel: Channel) -> None:  # noqa: ARG002
        """Called by pika when the channel is open and, if confirms are used, in confirm mode."""
        self._feed("channel_opened", self._runtime.link.blocking)

    def on_connection_blocked(self, method_frame: Method[Any]) -> None:
        """Called by pika when RabbitMQ is short of memory or disk (https://www.rabbitmq.com/docs/connection-blocked)."""
        reason = shown(getattr(method_frame.method, "reason", ""))
        self._log.log(logging.WARNING, "RabbitMQ blocked publishing: %s", reason)
        self._feed("connection_blocked", reason)

    def on_connection_unblocked(self, _method_frame: Method[Any]) -> None:
        """Called by pika when RabbitMQ has enough memory and disk space again."""
        self._feed("connection_unblocked")

    def on_channel_flow(self, method: ChannelMethods.Flow) -> None:
        """Called by pika when RabbitMQ has stopped or resumed the flow (channel.flow), which has been acknowledged."""
        if method.active:
            self._feed("connection_unblocked")
        else:
            self._log.log(logging.WARNING, "RabbitMQ stopped the channel's flow")
            self._feed("connection_blocked", "channel.flow")

    def on_delivery_confirmation(self, method_frame: Method[Any]) -> None:
        """Called by pika with each ack and nack: settle the messages that it covers."""
        method = method_frame.method
        self._runtime.publisher.flight.on_confirm(method.delivery_tag, method.multiple, isinstance(method, Basic.Ack))

    def on_basic_return(
        self, _channel: Channel | None, method: Basic.Return, properties: BasicProperties, body: bytes
    ) -> None:
        """Called by pika with each returned message: hand it to on_return, or log it.

        Without on_return and fail_on_return nobody else hears of it: once a minute for each exchange it is critical.
        """
        reply = (method.reply_code or 0, str(method.reply_text))
        self._runtime.publisher.flight.on_return(
            reply, method.exchange or "", method.routing_key or "", properties, body
        )
        if self.on_return is not None:
            callback = self.on_return
            self._hooks.call_later_in_order(lambda: self._hooks.start(callback, method, properties, body))
        else:
            # A publish that fails tells its caller.
            urgent = not self.settings.fail_on_return and self._unroutable.is_due(method.exchange or "")
            log, level = (self._urgent, logging.CRITICAL) if urgent else (self._log, logging.WARNING)
            log.log(
                level,
                "message %s (correlation id %s) to exchange %r with routing key %r was returned: (%s) %s",
                shown(properties.message_id),
                shown(properties.correlation_id),
                method.exchange,
                method.routing_key,
                reply[0],
                shown(reply[1]),
            )

    def on_channel_closed(self, channel: Channel, reply_code: int, reply_text: str) -> None:  # noqa: ARG002
        """Called by pika when RabbitMQ has closed the channel because of an error."""
        self._log.log(logging.WARNING, "RabbitMQ closed the channel: (%s) %s", reply_code, shown(reply_text))
        cause = self._cause(reply_code, reply_text) or channel_lost(reply_code, reply_text)
        self._feed("channel_closed", describe(cause), cause)

    def on_channel_left(self, channel: Channel, error: BaseException) -> None:  # noqa: ARG002
        """Called by pika when RabbitMQ has answered that the channel is closed, as it was asked."""
        self._feed("channel_closed", "", error)

    def on_connection_closed(self, connection: Connection, reply_code: int, reply_text: str) -> None:  # noqa: ARG002
        """Called by pika when the connection is gone."""
        cause = self._cause(reply_code, reply_text) or connection_lost(reply_code, reply_text)
        self._feed("connection_closed", describe(cause), cause)

    @staticmethod
    def on_back_pressure_detected(obj: object) -> None:
        """Called when too much is waiting for the socket: log it; ``obj`` is the connection."""
        log = _pressure_log(getattr(obj, "client_name", DEFAULT_NAME))
        log.log(logging.WARNING, "messages are published faster than RabbitMQ or the network takes them: %r", obj)

    # Called by the link

    def lose_channel(self, channel: Channel, error: BaseException) -> None:
        """Keep the exception, which the documented method has no argument for."""
        self._lost = error
        super().lose_channel(channel, error)

    def lose_connection(self, connection: Connection, error: BaseException) -> None:
        """Keep the exception, which the documented method has no argument for."""
        self._lost = error
        super().lose_connection(connection, error)

    def _cause(self, reply_code: int, reply_text: str) -> BaseException | None:
        """Return the exception, unless an override has passed on another code or text."""
        return self._lost if self._lost is not None and reply(self._lost) == (reply_code, reply_text) else None

    def _feed(self, trigger: str, reason: str = "", cause: BaseException | None = None) -> None:
        lifecycle = self._runtime.lifecycle
        lifecycle.feed(getattr(lifecycle, trigger), reason, cause)


@functools.cache
def _pressure_log(name: str) -> BoundedLog:
    return BoundedLog(named(LOGGER, name), time.monotonic)
