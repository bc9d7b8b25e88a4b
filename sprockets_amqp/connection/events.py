"""What becomes of pika's events: the methods that the link calls, with pika's objects and in pika's terms."""

from typing import Any

from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic, BasicProperties
from pika.spec import Channel as ChannelMethods

from sprockets_amqp.wire.connection import Connection
from sprockets_amqp.wire.replies import reply


class Events:
    """Receives pika's events: documented methods of `Client`, which pulls triggers. Here they do nothing."""

    def on_connection_open(self, connection: Connection) -> None:
        """Called when RabbitMQ has accepted the connection."""

    def on_connection_open_error(self, connection: Connection, error: BaseException) -> None:
        """Called when a connection could not be opened, or confirm mode not be selected on it."""

    def on_connection_blocked(self, method_frame: Method[Any]) -> None:
        """Called when RabbitMQ is short of memory or disk."""

    def on_connection_unblocked(self, method_frame: Method[Any]) -> None:
        """Called when it no longer is."""

    def on_connection_closed(self, connection: Connection, reply_code: int, reply_text: str) -> None:
        """Called when the connection is gone."""

    def lose_connection(self, connection: Connection, error: BaseException) -> None:
        """Called with the exception itself; the documented method gets only its code and text."""
        self.on_connection_closed(connection, *reply(error))

    def on_channel_open(self, channel: Channel) -> None:
        """Called when the channel is open and, if confirms are used, in confirm mode."""

    def on_channel_flow(self, method: ChannelMethods.Flow) -> None:
        """Called when RabbitMQ has stopped or resumed the flow; it has been acknowledged."""

    def on_channel_closed(self, channel: Channel, reply_code: int, reply_text: str) -> None:
        """Called when the channel is gone."""

    def lose_channel(self, channel: Channel, error: BaseException) -> None:
        """Called with the exception itself; the documented method gets only its code and text."""
        self.on_channel_closed(channel, *reply(error))

    def on_channel_left(self, channel: Channel, error: BaseException) -> None:
        """Called when RabbitMQ has answered that the channel is closed, as it was asked."""

    def on_delivery_confirmation(self, method_frame: Method[Any]) -> None:
        """Called with each ack and nack."""

    def on_basic_return(
        self, channel: Channel | None, method: Basic.Return, properties: BasicProperties, body: bytes, /
    ) -> None:
        """Called with each returned message."""

    def on_back_pressure_detected(self, obj: object) -> None:
        """Called when too much is waiting for the socket."""
