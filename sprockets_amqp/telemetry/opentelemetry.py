"""Spans of publishes, and metrics, for OpenTelemetry; needs the extra ``opentelemetry``.

They follow the semantic conventions for messaging, version 1.44.0, and those for RabbitMQ
(https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/), which are in development. The API has no names for
their attributes.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, Final

from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, MeterProvider
from opentelemetry.metrics import Observation as Measured
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider

from sprockets_amqp.client import Client
from sprockets_amqp.observers import Delivery, Observation, OnEnd, Outcome, Publish, PublishEnd
from sprockets_amqp.states import State
from sprockets_amqp.text import SHORT_STRING_LIMIT, shown

from .counted import GAUGES, TOTALS, Counted

__all__ = ["Measurement", "measure_clients", "trace_publishes"]

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
#: Characters of a field of a context; a tracestate should not have more (https://www.w3.org/TR/trace-context/).
FIELD_LIMIT: Final = 512
#: The conventions' name for the exchange "" if there is no routing key either.
DEFAULT_EXCHANGE: Final = "amq.default"
#: The conventions' upper bounds of the buckets of a duration, in seconds.
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
#: What is so of every publish.
OPERATION: Final = {
    "messaging.system": "rabbitmq",
    "messaging.operation.name": "publish",
    "messaging.operation.type": "send",
}


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
            attributes={**_attributes(publish, exchange), **_server(self._client), **_peer(self._client)},
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
        return {**facts, **_server(self._client), **_peer(self._client)}


def _server(client: Client) -> dict[str, str | int]:
    """Return the node that the client is connected to, or tries next."""
    parameters = client.parameters
    return {} if parameters is None else {"server.address": parameters.host, "server.port": parameters.port}


def _peer(client: Client) -> dict[str, str | int]:
    """Return the address that the client is connected to."""
    connection = client.connection
    if connection is None or connection.reached is None or not connection.is_open:
        return {}
    host, port, *_ = connection.reached
    return {"network.peer.address": host, "network.peer.port": port}


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
        **OPERATION,
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


def measure_clients(clients: Mapping[str, Client], meter_provider: MeterProvider | None = None) -> "Measurement":
    """Measure clients from now on, until ``cancel()`` is called on the result.

    After `install`, those of an application are ``measure_clients(application.amqp_clients)``. By the conventions,
    there are ``messaging.client.operation.duration`` and ``messaging.client.sent.messages``, and besides, with the
    client's name as the attribute ``sprockets_amqp.client``:

    ===============================  =======  ==========================================================================
    sprockets_amqp.client.state      gauge    with ``sprockets_amqp.state``: 1 for the current state, else 0
    sprockets_amqp.client.waiting    gauge    messages in line
    …unconfirmed                     gauge    messages on the wire, neither confirmed nor lost
    …stored, …set_aside              gauge    messages in the outbox: to be sent or confirmed, or no longer sent
    …reconnects                      counter  connections opened again after one was lost
    …returned                        counter  messages that RabbitMQ returned as unroutable
    ===============================  =======  ==========================================================================

    Args:
        clients: the clients, by name. Measure all of them with one call: instruments of the same names would clash.
        meter_provider: where instruments are made; the global one by default.
    """
    return Measurement(clients, meter_provider)


class Measurement:
    """What `measure_clients` returns; it lasts until `cancel()`."""

    def __init__(self, clients: Mapping[str, Client], meter_provider: MeterProvider | None) -> None:
        self._clients = dict(clients)
        meter = metrics.get_meter("sprockets_amqp", version("sprockets_amqp"), meter_provider, SCHEMA)
        duration = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        sent = meter.create_counter(
            "messaging.client.sent.messages",
            "{message}",
            "Number of messages producer attempted to send to the broker.",
        )
        meter.create_observable_gauge(
            "sprockets_amqp.client.state", [self._states], "{state}", "1 for the current state, else 0."
        )
        for each in GAUGES:
            meter.create_observable_gauge(f"sprockets_amqp.client.{each.name}", *self._told(each))
        for each in TOTALS:
            meter.create_observable_counter(f"sprockets_amqp.client.{each.name}", *self._told(each))
        observers = [_Meter(client, duration, sent) for client in self._clients.values()]
        self._observations = [each.client.observe(each) for each in observers]

    def cancel(self) -> None:
        """Measure nothing from now on."""
        self._clients.clear()
        for observation in self._observations:
            observation.cancel()

    def _told(self, counted: Counted) -> tuple[list[Callable[[CallbackOptions], Iterable[Measured]]], str, str]:
        return [functools.partial(self._values, counted)], f"{{{counted.unit}}}", counted.words

    def _present(self) -> list[tuple[str, Client]]:
        # Called in a thread of the SDK's: in a forked process, it must not be the first to use a client.
        return [(name, client) for name, client in list(self._clients.items()) if client.is_bound]

    def _states(self, _options: CallbackOptions) -> Iterator[Measured]:
        for name, client in self._present():
            for state, lit in {**dict.fromkeys(State, 0), client.state: 1}.items():
                attributes = {"sprockets_amqp.client": name, "sprockets_amqp.state": state.name.lower()}
                yield Measured(lit, attributes)

    def _values(self, counted: Counted, _options: CallbackOptions) -> Iterator[Measured]:
        for name, client in self._present():
            yield Measured(counted.value(client.counters), {"sprockets_amqp.client": name})


class _Meter:
    """Measures the publishes of one client."""

    def __init__(self, client: Client, duration: metrics.Histogram, sent: metrics.Counter) -> None:
        self.client = client
        self._duration = duration
        self._sent = sent

    def publishing(self, _publish: Publish) -> OnEnd:
        return self._end

    def delivered(self, delivery: Delivery) -> None:
        if delivery.outcome is Outcome.CONFIRMED:
            self._sent.add(1, self._attributes(delivery))

    def _end(self, end: PublishEnd) -> None:
        attributes = self._attributes(end, sent=bool(end.sends))
        self._duration.record(end.seconds, attributes)
        # What is stored is sent later.
        if end.sends and end.outcome is not Outcome.STORED:
            self._sent.add(1, attributes)

    def _attributes(self, end: PublishEnd | Delivery, *, sent: bool = True) -> dict[str, Any]:
        attributes: dict[str, Any] = {**OPERATION, **_server(self.client)}
        if sent:
            # RabbitMQ knows the exchange, so that strangers cannot invent ever new ones. Routing keys they can.
            attributes["messaging.destination.template"] = _text(end.exchange) or DEFAULT_EXCHANGE
        if end.error is not None:
            attributes["error.type"] = type(end.error).__qualname__
        return attributes
