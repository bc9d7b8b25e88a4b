"""Metrics of clients for Prometheus; needs the extra ``prometheus``."""

import weakref
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from sprockets_amqp.client import Client
from sprockets_amqp.observers import Delivery, OnEnd, Outcome, Publish, PublishEnd
from sprockets_amqp.runtime import running_loop
from sprockets_amqp.states import State
from sprockets_amqp.wire.forks import after_fork

from .counted import GAUGES, TOTALS

__all__ = ["ClientMetrics"]

#: Upper bounds of the histograms' buckets, in seconds: a confirm within a data centre takes some milliseconds, and the
#: default ``timeout`` is 10 s.
BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ClientMetrics(Collector):
    """The metrics of clients, in a registry from the start until `close()`.

    After `install`, those of an application are ``ClientMetrics(application.amqp_clients)``. Each has the label
    ``client``, the client's name:

    =====================================  =========  ==================================================================
    amqp_client_state                      gauge      with ``state``: 1 for the current documented state, else 0
    amqp_client_reconnects_total           counter    connections opened again after one was lost
    amqp_client_publishes_total            counter    with ``outcome``: publishes that ended, by `Outcome`
    amqp_client_returned_total             counter    messages that RabbitMQ returned as unroutable
    amqp_client_delivered_total            counter    messages from the outbox that RabbitMQ confirmed
    amqp_client_waiting                    gauge      messages in line
    amqp_client_unconfirmed                gauge      messages on the wire, neither confirmed nor lost
    amqp_client_stored                     gauge      messages in the outbox, to be sent or confirmed
    amqp_client_set_aside                  gauge      messages in the outbox that are no longer sent
    amqp_client_line_seconds               histogram  from the call until the message was sent or, never sent, its end
    amqp_client_confirm_seconds            histogram  from then until RabbitMQ acked or nacked it
    =====================================  =========  ==================================================================

    Scrape them in a handler on the clients' loop. A forked process counts from 0 and is scraped separately:
    prometheus_client's multiprocess mode does not support a collector's gauges.

    Args:
        clients: the clients, by name.
        registry: the registry that collects them; it can hold only one of these.

    Raises:
        ValueError: the registry has metrics of these names already.
    """

    def __init__(self, clients: Mapping[str, Client], registry: CollectorRegistry = REGISTRY) -> None:
        self._clients = dict(clients)
        self._registry = registry
        self.reset()
        registry.register(self)
        self._observations = [client.observe(_Observer(self, name)) for name, client in self._clients.items()]
        _metrics.add(self)

    def reset(self) -> None:
        """Count from 0."""
        self._publishes = Counter(
            "amqp_client_publishes", "Publishes that ended.", ("client", "outcome"), registry=None
        )
        self._delivered = Counter(
            "amqp_client_delivered", "Messages from the outbox that RabbitMQ confirmed.", ("client",), registry=None
        )
        self._line = Histogram(
            "amqp_client_line_seconds", "Seconds in line.", ("client",), registry=None, buckets=BUCKETS
        )
        self._confirm = Histogram(
            "amqp_client_confirm_seconds", "Seconds to the confirm.", ("client",), registry=None, buckets=BUCKETS
        )
        for name in self._clients:
            # What has not happened yet is 0, so that a rate sees the first event.
            for outcome in Outcome:
                self._publishes.labels(name, outcome)
            self._delivered.labels(name)
            self._line.labels(name)
            self._confirm.labels(name)

    def close(self) -> None:
        """Leave the registry, and observe no further publishes."""
        _metrics.discard(self)
        for observation in self._observations:
            observation.cancel()
        self._registry.unregister(self)

    def note(self, name: str, end: PublishEnd) -> None:
        """Count a publish that ended."""
        self._publishes.labels(name, end.outcome).inc()
        self._line.labels(name).observe(end.seconds_in_line)
        if end.seconds_to_confirm is not None:
            self._confirm.labels(name).observe(end.seconds_to_confirm)

    def note_delivery(self, name: str, delivery: Delivery) -> None:
        """Count a stored message that was sent and confirmed."""
        if delivery.outcome is Outcome.CONFIRMED:
            self._delivered.labels(name).inc()

    def describe(self) -> Iterator[Metric]:
        """Called by the registry for the metrics' names."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Called by the registry for each scrape."""
        state = GaugeMetricFamily("amqp_client_state", "1 for the current state.", labels=("client", "state"))
        totals: list[CounterMetricFamily | GaugeMetricFamily] = [
            CounterMetricFamily(f"amqp_client_{each.name}", each.words, labels=("client",)) for each in TOTALS
        ]
        gauges = [GaugeMetricFamily(f"amqp_client_{each.name}", each.words, labels=("client",)) for each in GAUGES]
        for name, client in self._clients.items():
            if running_loop() is not None:
                client.bind()
            for one, lit in {**dict.fromkeys(State, 0), client.state: 1}.items():
                state.add_metric((name, one.name.lower()), lit)
            counters = client.counters
            for family, each in zip((*totals, *gauges), (*TOTALS, *GAUGES), strict=True):
                family.add_metric((name,), each.value(counters))
        yield from (state, *totals, *gauges)
        for metric in (self._publishes, self._delivered, self._line, self._confirm):
            yield from metric.collect()


class _Observer:
    def __init__(self, metrics: ClientMetrics, name: str) -> None:
        self._metrics = metrics
        self._name = name

    def publishing(self, _publish: Publish) -> OnEnd:
        return self._note

    def delivered(self, delivery: Delivery) -> None:
        self._metrics.note_delivery(self._name, delivery)

    def _note(self, end: PublishEnd) -> None:
        self._metrics.note(self._name, end)


_metrics: Final[weakref.WeakSet[ClientMetrics]] = weakref.WeakSet()


def _reset_all() -> None:
    for metrics in list(_metrics):
        metrics.reset()


after_fork(_reset_all)
