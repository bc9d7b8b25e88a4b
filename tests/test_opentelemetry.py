"""Spans of publishes, as OpenTelemetry's SDK gets them, alone and beside the instrumentations of Tornado and pika."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.pika import PikaInstrumentor
from opentelemetry.instrumentation.tornado import TornadoInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, SamplingResult, StaticSampler
from opentelemetry.trace import SpanKind, StatusCode

from examples.observed import ObservedApplication
from sprockets_amqp import Client, ExchangeRefused
from sprockets_amqp.telemetry.opentelemetry import trace_publishes
from sprockets_amqp.testing import Broker
from tests.support.consume import declare_queue
from tests.support.http import fetch, served
from tests.support.memory import Broker as HandDriven
from tests.support.memory import in_memory, outcome
from tests.support.observing import Seen
from tests.test_observed_ends import WAYS, Scenario
from tools.rabbitmq import Node

in_hand = in_memory
#: A context that a caller gives the message, as W3C's Trace Context writes it.
GIVEN: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Spans:
    """A provider whose spans are kept when they have ended."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self._kept = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.tracer = self.provider.get_tracer("test")

    def ended(self, kind: SpanKind | None = None) -> list[ReadableSpan]:
        """The spans that have ended, or those of a kind."""
        return [span for span in self._kept.get_finished_spans() if kind is None or span.kind is kind]

    @property
    def only(self) -> ReadableSpan:
        """The only one."""
        (span,) = self.ended()
        return span


@pytest.fixture
def spans() -> Iterator[Spans]:
    """What keeps spans."""
    kept = Spans()
    yield kept
    kept.provider.shutdown()


def traceparent(span: ReadableSpan) -> str:
    """The span's context, as W3C's Trace Context writes it (https://www.w3.org/TR/trace-context/)."""
    context = span.context
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def confirm(broker: HandDriven) -> None:
    """Have all that was published arrive and be confirmed, and its end told."""
    broker.open().peer.confirm_all()
    broker.clock.turn()


# What a span says


def test_a_publish_is_a_span_as_the_conventions_have_it(in_hand: HandDriven, spans: Spans) -> None:
    """Of kind PRODUCER, named by the exchange, of which there are few, with what the conventions ask for."""
    client = in_hand.ready("amqp://node:5673")
    trace_publishes(client, spans.provider)
    properties = {"message_id": "m1", "correlation_id": "c1"}
    client.publish("events", "event.4711", b"12345", properties)
    confirm(in_hand)
    span = spans.only
    assert (span.name, span.kind, span.status.status_code) == ("publish events", SpanKind.PRODUCER, StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "events:event.4711",
        "messaging.destination.template": "events",
        "messaging.rabbitmq.destination.routing_key": "event.4711",
        "messaging.message.id": "m1",
        "messaging.message.conversation_id": "c1",
        "messaging.message.body.size": 5,
        "server.address": "node",
        "server.port": 5673,
        "sprockets_amqp.outcome": "confirmed",
        "sprockets_amqp.seconds_in_line": 0.0,
    }
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "sprockets_amqp"
    assert span.instrumentation_scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"


def test_a_message_that_no_queue_took_is_marked(in_hand: HandDriven, spans: Spans) -> None:
    """It is confirmed, and RabbitMQ has dropped it."""
    in_hand.unroutable.add("nowhere")
    client = in_hand.ready(on_return_callback=lambda *_: None)
    trace_publishes(client, spans.provider)
    client.publish("", "nowhere", b"")
    confirm(in_hand)
    attributes = spans.only.attributes or {}
    assert (attributes["sprockets_amqp.outcome"], attributes["sprockets_amqp.returned"]) == ("confirmed", True)


@pytest.mark.parametrize(
    ("exchange", "routing_key", "name", "destination"),
    [
        ("events", "", "publish events", "events"),
        ("", "q", "publish amq.default", "q"),
        ("", "", "publish amq.default", "amq.default"),
    ],
)
def test_the_destination_is_named_by_what_there_is_of_it(
    in_hand: HandDriven, spans: Spans, exchange: str, routing_key: str, name: str, destination: str
) -> None:
    """The exchange, the routing key, or RabbitMQ's name of the default exchange."""
    client = in_hand.ready()
    trace_publishes(client, spans.provider)
    client.publish(exchange, routing_key, b"")
    confirm(in_hand)
    assert spans.only.name == name
    assert (spans.only.attributes or {})["messaging.destination.name"] == destination
    assert ("messaging.rabbitmq.destination.routing_key" in (spans.only.attributes or {})) is bool(routing_key)


@pytest.mark.parametrize(("way", "told", "_sends"), WAYS, ids=[way.__name__ for way, *_ in WAYS])
def test_every_outcome_is_recorded_in_a_span_that_ends(
    in_hand: HandDriven, spans: Spans, way: Scenario, told: str, _sends: int
) -> None:
    """Once, with the error's class and sentence where there is one; a publish that was cancelled is no error."""

    class Traced(Seen):
        def of(self, client: Client) -> Seen:
            trace_publishes(client, spans.provider)
            return self

    future = way(in_hand, Traced())
    in_hand.clock.turn()
    in_hand.open().clock.advance(100)
    attributes, status = dict(spans.only.attributes or {}), spans.only.status
    assert attributes["sprockets_amqp.outcome"] == told
    error = None if future.cancelled() else future.exception()
    assert attributes.get("error.type") == (type(error).__name__ if error else None)
    assert status.status_code is (StatusCode.ERROR if error else StatusCode.UNSET)
    assert status.description == (str(error) if error else None)


@pytest.mark.parametrize("hostile", ["a=b\nERROR forged", "a=1," + " " * 600, "\ud800", "a=é", 5, ["a=1"]])
def test_a_context_that_a_stranger_wrote_reaches_no_parser(
    in_hand: HandDriven, spans: Spans, caplog: pytest.LogCaptureFixture, hostile: object
) -> None:
    """Parsers log what they do not understand, and take long over blanks. The message is published all the same."""
    client = in_hand.ready()
    trace_publishes(client, spans.provider)
    caplog.clear()
    headers = {"traceparent": GIVEN, "tracestate": hostile}
    client.publish("", "q", b"", {"headers": headers}).add_done_callback(lambda future: future.exception())
    confirm(in_hand)
    assert caplog.messages == []
    (link,) = spans.only.links
    assert dict(link.context.trace_state) == {}


def test_what_was_published_with_is_text_that_can_be_exported(in_hand: HandDriven, spans: Spans) -> None:
    """Whatever it is: bounded, one line, and without the lone surrogates that would spoil a whole export."""
    client = in_hand.ready()
    trace_publishes(client, spans.provider)
    arguments: list[Any] = [5, None, "two\nlines", "\ud800", "x" * 1000]
    for each in arguments:
        client.publish(each, each, b"", {"correlation_id": each, "message_id": each}).add_done_callback(
            lambda future: future.exception()
        )
    in_hand.open().clock.advance(100)
    ended = spans.ended()
    assert len(ended) == len(arguments)
    # The others were given ids that are none.
    assert sum("messaging.message.id" in (span.attributes or {}) for span in ended) == 3
    for span in ended:
        json.loads(span.to_json())
        texts = [span.name, *(value for value in (span.attributes or {}).values() if isinstance(value, str))]
        assert all(text.isprintable() and len(text) <= 2 * 255 + 1 for text in texts)


def test_a_sampler_is_told_where_it_goes(in_hand: HandDriven) -> None:
    """When the span is made: the operation, the destination and the node, of which the conventions ask that."""
    told: list[dict[str, Any]] = []

    class Keeps(StaticSampler):
        def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
            told.append(dict(kwargs.get("attributes") or args[4]))
            return super().should_sample(*args, **kwargs)

    client = in_hand.client("amqp://node:5673")
    trace_publishes(client, TracerProvider(sampler=Keeps(Decision.DROP)))
    client.publish("events", "key", b"").add_done_callback(lambda future: future.exception())
    assert {name: told[0][name] for name in ("messaging.destination.template", "server.address", "server.port")} == {
        "messaging.destination.template": "events",
        "server.address": "node",
        "server.port": 5673,
    }


# Its place in a trace


def headers_of(broker: HandDriven) -> list[Any]:
    """The headers of each message that arrived."""
    return [message.properties.headers for message in broker.published]


def test_the_context_goes_out_with_the_message(in_hand: HandDriven, spans: Spans) -> None:
    """As traceparent, beside the caller's own headers; the span is a child of the current one."""
    client = in_hand.ready()
    trace_publishes(client, spans.provider)
    with spans.tracer.start_as_current_span("the caller's") as callers:
        client.publish("", "q", b"", {"headers": {"mine": "0"}})
    confirm(in_hand)
    (span,) = spans.ended(SpanKind.PRODUCER)
    assert headers_of(in_hand) == [{"mine": "0", "traceparent": traceparent(span)}]
    assert span.parent is not None
    assert span.parent.span_id == callers.get_span_context().span_id


def test_a_context_that_the_caller_gave_is_left_as_it_is(in_hand: HandDriven, spans: Spans) -> None:
    """It is what consumers go on from: the span links to it, and its own context goes nowhere."""
    client = in_hand.ready()
    trace_publishes(client, spans.provider)
    client.publish("", "q", b"", {"headers": {"traceparent": GIVEN}})
    confirm(in_hand)
    assert headers_of(in_hand) == [{"traceparent": GIVEN}]
    assert spans.only.kind is SpanKind.CLIENT
    (link,) = spans.only.links
    assert f"{link.context.trace_id:032x}-{link.context.span_id:016x}" in GIVEN


@pytest.mark.parametrize("given", ["nonsense", 5, b"00"])
def test_what_is_no_context_is_replaced(in_hand: HandDriven, spans: Spans, given: object) -> None:
    """Also where a current span could be taken for it."""
    client = in_hand.ready()
    trace_publishes(client, spans.provider)
    with spans.tracer.start_as_current_span("the caller's"):
        client.publish("", "q", b"", {"headers": {"traceparent": given}})
    confirm(in_hand)
    (span,) = spans.ended(SpanKind.PRODUCER)
    assert headers_of(in_hand) == [{"traceparent": traceparent(span)}]


def test_what_is_not_sampled_is_not_recorded_and_says_so(in_hand: HandDriven) -> None:
    """Consumers learn of it by the context's flags."""
    client = in_hand.ready()
    trace_publishes(client, TracerProvider(sampler=ALWAYS_OFF))
    client.publish("", "q", b"")
    confirm(in_hand)
    ((header,),) = (headers.values() for headers in headers_of(in_hand))
    assert int(header.rpartition("-")[2], 16) & 1 == 0


def test_without_an_sdk_nothing_is_added(in_hand: HandDriven) -> None:
    """A library may call it, whether its application traces or not."""
    client = in_hand.ready()
    trace_publishes(client, trace.NoOpTracerProvider())
    future = client.publish("", "q", b"")
    confirm(in_hand)
    assert future.result() is None
    assert headers_of(in_hand) == [None]


def test_it_lasts_until_it_is_cancelled(in_hand: HandDriven, spans: Spans) -> None:
    """What is published after that has no span."""
    client = in_hand.ready()
    tracing = trace_publishes(client, spans.provider)
    client.publish("", "first", b"")
    tracing.cancel()
    client.publish("", "second", b"")
    confirm(in_hand)
    assert (spans.only.attributes or {})["messaging.destination.name"] == "first"


# Beside other instrumentations


@pytest.fixture
def pika_instrumented(spans: Spans) -> Iterator[None]:
    """pika, whose channels make a span of each basic_publish."""
    instrumentor = PikaInstrumentor()
    instrumentor.instrument(tracer_provider=spans.provider)
    yield
    instrumentor.uninstrument()


@pytest.fixture
def tornado_instrumented(spans: Spans) -> Iterator[None]:
    """Tornado, whose handlers make a span of each request."""
    instrumentor = TornadoInstrumentor()  # type: ignore[no-untyped-call]
    instrumentor.instrument(tracer_provider=spans.provider)
    yield
    instrumentor.uninstrument()


@pytest.mark.usefixtures("pika_instrumented")
def test_with_pika_instrumented_a_publish_is_one_span(in_hand: HandDriven, spans: Spans) -> None:
    """The question about its exchange is none, and the message has the context of the client's own."""
    client = in_hand.ready()
    trace_publishes(client, spans.provider)
    futures = [client.publish(exchange, "q", b"") for exchange in ("events", "", "events", "missing")]
    in_hand.open()
    confirm(in_hand)
    assert [outcome(future) for future in futures] == [None, None, None, ExchangeRefused]
    assert sorted(span.name for span in spans.ended()) == [
        "publish amq.default",
        "publish events",
        "publish events",
        "publish missing",
    ]
    sent = {headers["traceparent"] for headers in headers_of(in_hand)}
    assert sent == {traceparent(span) for span in spans.ended() if span.name != "publish missing"}


@pytest.mark.usefixtures("tornado_instrumented")
def test_an_events_span_is_a_child_of_its_requests(amqp_broker: Broker, spans: Spans) -> None:
    """In the example, for an event that is confirmed, and for one that is not."""
    amqp_broker.queue_declare("audit")
    amqp_broker.queue_bind("audit", "amq.topic", "event.#")
    application = ObservedApplication(tracers=spans.provider)
    assert amqp_broker.fetch(application, "/events", method="POST", body="{}").code == 202
    amqp_broker.nack_next()
    assert amqp_broker.fetch(application, "/events", method="POST", body="{}").code == 502
    requests, events = spans.ended(SpanKind.SERVER), spans.ended(SpanKind.PRODUCER)
    assert [event.parent for event in events] == [request.context for request in requests]
    assert [event.name for event in events] == ["publish amq.topic"] * 2
    assert [event.status.status_code for event in events] == [StatusCode.UNSET, StatusCode.ERROR]
    # The instrumentation writes the status before Tornado has answered: the documentation warns of it.
    assert [(request.attributes or {})["http.status_code"] for request in requests] == [202, 500]
    assert [event.end_time <= request.end_time for event, request in zip(events, requests, strict=True)] == [True] * 2  # type: ignore[operator]


@pytest.mark.usefixtures("pika_instrumented", "tornado_instrumented")
async def test_on_rabbitmq_the_message_has_the_context_of_its_event(node: Node, spans: Spans) -> None:
    """With all of them active: a request, its event, and no span of anything else."""
    queue = await declare_queue(node.url, exchange_type="fanout")
    application = ObservedApplication(url=node.url, exchange=queue.exchange, tracers=spans.provider)
    async with served(application) as base:
        assert (await fetch(f"{base}/events", "POST", "{}")).code == 202
    await application.amqp.shutdown()
    (event,), (request,) = spans.ended(SpanKind.PRODUCER), spans.ended(SpanKind.SERVER)
    assert event.parent == request.context
    (message,) = await queue.messages()
    assert message.properties.headers == {"traceparent": traceparent(event)}
    peer = {name: (event.attributes or {})[f"network.peer.{name}"] for name in ("address", "port")}
    assert peer == {"address": "127.0.0.1", "port": node.port}
    await queue.delete()
