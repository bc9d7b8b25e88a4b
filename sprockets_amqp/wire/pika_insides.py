"""Everything that is used of pika beyond its documented API, in one list.

It is used here, in `transport.py` and in `memory.py`. ``tests/test_pika_insides.py`` compares the list with the
installed pika, and makes sure that such names are used nowhere else.
"""

import logging
from collections.abc import Iterator
from typing import Any, Final

import pika
from pika import data, tcp_socket_opts
from pika.adapters.utils.connection_workflow import (
    AMQPConnectionWorkflowFailed,
    AMQPConnectorAMQPHandshakeError,
    AMQPConnectorPhaseErrorBase,
    AMQPConnectorStackTimeout,
)
from pika.channel import Channel
from pika.exceptions import AMQPConnectionError, ProbableAccessDeniedError, ProbableAuthenticationError
from pika.spec import Channel as ChannelMethods

#: Where it is in pika, what it is called, and what it is used for.
INSIDES: Final = (
    ("pika.adapters.base_connection.BaseConnection", "_adapter_emit_data", "every octet leaves pika here, in order"),
    ("pika.adapters.base_connection.BaseConnection", "_proto_data_received", "every octet comes in here"),
    ("pika.adapters.base_connection.BaseConnection", "_adapter_call_later", "is where pika's timers are set"),
    ("pika.adapters.base_connection.BaseConnection", "_proto_eof_received", "is called when the peer has hung up"),
    ("pika.adapters.base_connection.BaseConnection", "_proto_connection_lost", "is called when the transport is lost"),
    ("pika.adapters.base_connection.BaseConnection", "_proto_connection_made", "is called with the transport"),
    ("pika.adapters.base_connection.BaseConnection", "_adapter_connect_stream", "begins to connect"),
    ("pika.adapters.base_connection.BaseConnection", "_connection_workflow", "connects, and can be stopped"),
    ("pika.adapters.base_connection.BaseConnection", "_on_connection_workflow_done", "is called when connecting ended"),
    ("pika.adapters.base_connection.BaseConnection", "_transport", "is what the octets are written to"),
    ("pika.adapters.utils.io_services_utils._AsyncPlaintextTransport", "_sock", "is the socket"),
    ("pika.adapters.utils.io_services_utils._AsyncSSLTransport", "_sock", "is the socket, which encrypts"),
    ("pika.adapters.utils.io_services_utils._AsyncPlaintextTransport", "get_write_buffer_size", "is what awaits it"),
    (
        "pika.adapters.utils.io_services_utils._AsyncPlaintextTransport",
        "_MAX_RECV_BYTES",
        "is how much it reads at a time",
    ),
    (
        "pika.adapters.utils.io_services_utils._AsyncPlaintextTransport",
        "_MAX_CONSUME_BYTES",
        "is how much it reads before it lets the loop go on",
    ),
    ("pika.connection.Connection", "_body_max_length", "is the largest body of one frame, as negotiated"),
    ("pika.connection.Connection", "_frame_buffer", "holds a frame that is not complete yet"),
    ("pika.connection.Connection", "_terminate_stream", "drops the connection without asking the broker"),
    ("pika.connection.Connection", "bytes_received", "is what heartbeats check"),
    ("pika.connection.URLParameters", "_set_url_*", "are named after the options that a URL may have"),
    ("pika.channel.Channel", "_send_method", "sends Channel.FlowOk, for which pika has no method"),
    ("pika.data", "encode_value", "encodes the values of headers"),
    ("pika.exceptions.ProbableAccessDeniedError", "args", "quote RabbitMQ's words behind the name of an exception"),
    (
        "pika.adapters.utils.connection_workflow",
        "AMQPConnectionWorkflowFailed",
        "wraps why no connection could be made",
    ),
    (
        "pika.adapters.utils.connection_workflow",
        "AMQPConnectionWorkflowAborted",
        "says that connecting was stopped",
    ),
    ("pika.adapters.utils.connection_workflow", "AMQPConnectorException", "wraps the exception of one step"),
    ("pika.adapters.utils.connection_workflow", "AMQPConnectorPhaseErrorBase", "names the step, in its log too"),
    ("pika.adapters.utils.connection_workflow", "AMQPConnectorAMQPHandshakeError", "is that of the last step"),
    ("pika.adapters.utils.connection_workflow", "AMQPConnectorStackTimeout", "is a step that took too long"),
    ("pika.adapters.utils.nbio_interface", "AbstractIOReference", "is what a look-up of a host returns"),
    ("pika.adapters.utils.selector_ioloop_adapter", "SelectorIOServicesAdapter", "is pika's view of the loop"),
)

#: What pika logs about a failed attempt to connect besides the line that explains it: the same in other words, and each
#: layer that passes it on. By logger.
RETOLD: Final = {
    "pika.adapters.utils.io_services_utils": {
        "Socket failed to connect: %s; error=%s (%s)",
        "SSL do_handshake failed: error=%r; %s",
    },
    "pika.adapters.utils.connection_workflow": {
        "AMQP connection workflow failed: %r.",
        "AMQPConnectionWorkflow - reporting failure: %r",
    },
    "pika.adapters.base_connection": {
        "Full-stack connection workflow failed: %r",
        "Self-initiated stack bring-up failed: %r",
    },
    "pika.connection": {
        "Probably incompatible Protocol Versions",
        "Connection closed while authenticating indicating a probable authentication error",
        (
            "Connection closed while tuning the connection indicating a probable permission error when accessing "
            "a virtual host"
        ),
    },
}
#: The line of the layer that knows which step failed; some failures are logged by this one alone.
STEP_FAILED: Final = "AMQPConnector - reporting failure: %r"

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


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, and what pika wrapped in it, the innermost last.

    For example: AMQPConnectionError(AMQPConnectionWorkflowFailed([AMQPConnector...Error(OSError)])).
    """
    yield error
    inner: object = None
    if isinstance(error, AMQPConnectionWorkflowFailed):
        inner = error.exceptions[-1] if error.exceptions else None
    elif isinstance(error, AMQPConnectionError):
        inner = error.args[0] if error.args else None
    else:
        inner = getattr(error, "exception", None)
    if isinstance(inner, BaseException):
        yield from causes(inner)


def retold(record: logging.LogRecord) -> bool:
    """Return whether a pika log record is about a failed attempt to connect that another record explains."""
    if record.msg == STEP_FAILED and isinstance(record.args, tuple):
        return any(_told_before(error) for error in record.args)
    return record.msg in RETOLD.get(record.name, ())


def stray(record: logging.LogRecord) -> bool:
    """Return whether a pika log record is about an unexpected frame."""
    return record.msg in STRAY.get(record.name, ())


def _told_before(error: object) -> bool:
    if not isinstance(error, AMQPConnectorPhaseErrorBase):
        return False
    timed_out = isinstance(error.exception, (TimeoutError, AMQPConnectorStackTimeout))
    # In the handshake pika itself logs a step that took too long; before it, every other failure.
    return timed_out is isinstance(error, AMQPConnectorAMQPHandshakeError)


def broker_words(error: Any) -> str | None:
    """Return RabbitMQ's words for a login that it refused, or None if the error is about something else.

    pika quotes the exception that contains them: ``ConnectionClosedByBroker: (403) 'ACCESS_REFUSED - ...'``.
    """
    if isinstance(error, (ProbableAuthenticationError, ProbableAccessDeniedError)) and error.args:
        return str(error.args[0]).partition(": ")[2] or str(error.args[0])
    return None
