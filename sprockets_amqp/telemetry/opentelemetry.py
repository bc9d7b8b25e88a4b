"""Spans of publishes for OpenTelemetry; needs the extra ``opentelemetry``.

They follow the semantic conventions for messaging, version 1.44.0, and those for RabbitMQ
(https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/), which are in development. The API has no names for
their attributes.
"""

import functools
from importlib.metadata import version
from typing import Any, Final

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider

from sprockets_amqp.client import Client
from sprockets_amqp.observers import Observation, OnEnd, Publish, PublishEnd
from sprockets_amqp.text import SHORT_STRING_LIMIT, shown

__all__ = ["trace_publishes"]

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
#: Characters of a field of a context; a tracestate should not have more (https://www.w3.org/TR/trace-context/).
FIELD_LIMIT: Final = 512
#: The conventions' name for the exchange "" if there is no routing key either.
DEFAULT_EXCHANGE: Final = "amq.default"


def trace_publishes(client: Client, tracer_provider: TracerProvider | None = None) -> Observation:
    """Make a span for each of the client's publishes from now on, until ``cancel()`` is called on the result.

    It starts in the call, as a child of the current span, and ends with the publish. Its context is sent in the
    message's headers (``traceparent``, and whatever else the global propagator adds), and its kind is PRODUCER. If the
    caller's headers have a context already, that is kept and linked to, and the kind is CLIENT.

    The span is named ``publish`` and the exchange. An error sets its status and ``error.type``, the name of the
    exception's class. Every span has ``sprockets_amqp.outcome`` and ``sprockets_amqp.seconds_in_line``.

    Args:
        client: the client.
        tracer_provider: where spans are made; the global one by default.
    """
    tracer = trace.get_tracer("sprockets_amqp", version("sprockets_amqp"), tracer_provider, schema_url=SCHEMA)
    return client.observe(_Observer(client, tracer))


class _Observer:
    def __init__(self, client: Client, tracer: trace.Tracer) -> None:
        self._client = client
        self._tracer = tracer

    def publishing(self, publish: Publish) -> OnEnd:
        given = _context_in(publish.headers)
        exchange = _text(publish.exchange) or DEFAULT_EXCHANGE
        span = self._tracer.start_span(
            f"publish {exchange}",
            kind=SpanKind.CLIENT if given else SpanKind.PRODUCER,
            attributes=_attributes(publish, exchange),
            links=[Link(given)] if given else None,
        )
        if not given:
            propagate.inject(publish.headers, trace.set_span_in_context(span))
        return functools.partial(self._end, span)

    def _end(self, span: Span, end: PublishEnd) -> None:
        if span.is_recording():
            span.set_attributes(self._facts(end))
            if end.error is not None:
                span.set_attribute("error.type", type(end.error).__qualname__)
                span.set_status(Status(StatusCode.ERROR, str(end.error)))
        span.end()

    def _facts(self, end: PublishEnd) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "messaging.message.body.size": end.size,
            "sprockets_amqp.outcome": end.outcome.value,
            "sprockets_amqp.seconds_in_line": end.seconds_in_line,
        }
        if end.returned:
            facts["sprockets_amqp.returned"] = True
        if end.message_id is not None:
            facts["messaging.message.id"] = _text(end.message_id)
        parameters = self._client.parameters
        if parameters is not None:
            facts |= {"server.address": parameters.host, "server.port": parameters.port}
        return facts


def _context_in(headers: dict[str, Any]) -> trace.SpanContext | None:
    """Return the context that the caller gave the message, or None."""
    fields = propagate.get_global_textmap().fields
    carrier = {name: headers[name] for name in fields if _is_field(headers.get(name))}
    if not carrier:
        return None
    context = trace.get_current_span(propagate.extract(carrier, Context())).get_span_context()
    return context if context.is_valid else None


def _is_field(value: object) -> bool:
    """Return whether a header may be a field of a context: strangers write them, and parsers and logs trust them."""
    return isinstance(value, str) and len(value) <= FIELD_LIMIT and value.isascii() and value.isprintable()


def _attributes(publish: Publish, exchange: str) -> dict[str, str]:
    routing_key = _text(publish.routing_key)
    attributes = {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": ":".join(filter(None, (_text(publish.exchange), routing_key))) or exchange,
        # Exchanges are few, whereas routing keys may contain ids.
        "messaging.destination.template": exchange,
    }
    if routing_key:
        attributes["messaging.rabbitmq.destination.routing_key"] = routing_key
    if correlation_id := publish.properties.get("correlation_id"):
        attributes["messaging.message.conversation_id"] = _text(correlation_id)
    return attributes


def _text(value: object) -> str:
    """Return an argument of the publish, which has not been checked yet, as an attribute can hold it."""
    return shown(value, SHORT_STRING_LIMIT)
