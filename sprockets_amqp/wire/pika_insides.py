"""Everything that is used of pika beyond its documented API, in one list.

It is used here and in `connection.py`. ``tests/test_pika_insides.py`` compares the list with the installed pika, and
makes sure that such names are used nowhere else.
"""

import logging
from typing import Final

import pika
from pika import data, tcp_socket_opts
from pika.channel import Channel
from pika.spec import Channel as ChannelMethods

#: Where it is in pika, what it is called, and what it is used for.
INSIDES: Final = (
    ("pika.connection.Connection", "_adapter_connect_stream", "is where an adapter begins to connect"),
    ("pika.connection.Connection", "_adapter_disconnect_stream", "is where an adapter drops the stream"),
    ("pika.connection.Connection", "_adapter_emit_data", "is where every octet leaves pika, in order"),
    ("pika.connection.Connection", "_adapter_call_later", "is where pika's timers are set"),
    ("pika.connection.Connection", "_adapter_remove_timeout", "is where they are cancelled"),
    ("pika.connection.Connection", "_adapter_add_callback_threadsafe", "is where other threads' calls come in"),
    ("pika.connection.Connection", "_on_stream_connected", "is called when the stream is open"),
    ("pika.connection.Connection", "_process_frame", "is called with each frame that has come in"),
    ("pika.connection.Connection", "_on_stream_terminated", "is called once, when the stream is gone"),
    ("pika.connection.Connection", "_terminate_stream", "drops the connection without asking the broker"),
    ("pika.connection.Connection", "_body_max_length", "is the largest body of one frame, as negotiated"),
    ("pika.connection.Connection", "bytes_received", "is what heartbeats check"),
    ("pika.connection.Connection", "connection_state", "says how far AMQP's handshake has got"),
    ("pika.connection.URLParameters", "_set_url_*", "are named after the options that a URL may have"),
    ("pika.channel.Channel", "_send_method", "sends Channel.FlowOk, for which pika has no method"),
    ("pika.data", "encode_value", "encodes the values of headers"),
    ("pika.tcp_socket_opts", "set_sock_opts", "sets the socket options of a URL"),
)

#: What pika logs about an attempt to connect that failed: the client's own line names step, host, address and cause.
RETOLD: Final = {
    "pika.connection": {
        "Probably incompatible Protocol Versions",
        "Error processing Connection.Start.",
        "Connection closed while authenticating indicating a probable authentication error",
        (
            "Connection closed while tuning the connection indicating a probable permission error when accessing "
            "a virtual host"
        ),
    },
}

#: The loggers on which pika tells each of its steps, at INFO.
CHATTY: Final = ("pika.connection", "pika.channel", "pika.heartbeat")

#: What pika logs about each unexpected frame, and each channel that RabbitMQ closes, by logger.
STRAY: Final = {
    "pika.connection": {
        "Received %s frame for unregistered channel %i on %s",
        "Received heartbeat frame without a heartbeat checker",
    },
    "pika.channel": {
        # A stranger's names of exchanges can cause one for each.
        "Received remote Channel.Close (%s): %r on %s",
        "Unexpected frame: %r",
        "Unexpected delivery: %r",
        "Basic.GetOk received with no active callback",
    },
}

#: Appends the octets of a header's value to a list; raises whatever packing them raises.
encode_value: Final = data.encode_value
#: Sets the options of a URL on a socket; raises whatever setting them raises.
set_socket_options: Final = tcp_socket_opts.set_sock_opts

URL_OPTION: Final = "_set_url_"


def url_options() -> frozenset[str]:
    """Return the options that a URL may have after its question mark."""
    return frozenset(name.removeprefix(URL_OPTION) for name in dir(pika.URLParameters) if name.startswith(URL_OPTION))


def send_flow_ok(channel: Channel, active: bool) -> None:
    """Acknowledge channel.flow, as AMQP 0-9-1 requires and pika does not."""
    channel._send_method(ChannelMethods.FlowOk(active))  # type: ignore[attr-defined] # noqa: SLF001


def retold(record: logging.LogRecord) -> bool:
    """Return whether a pika log record is about a failed attempt to connect, which the client's own line explains."""
    return record.msg in RETOLD.get(record.name, ())


def stray(record: logging.LogRecord) -> bool:
    """Return whether a pika log record is about an unexpected frame."""
    return record.msg in STRAY.get(record.name, ())
