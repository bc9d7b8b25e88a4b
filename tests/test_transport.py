"""What goes over the wire: pika's bytes, in fewer writes, and confirms that pika would have told of alike."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import BasicProperties, frame, spec
from pika.exceptions import InvalidFrameError
from tornado.ioloop import IOLoop

from sprockets_amqp.delivery.encoding import encode_method
from sprockets_amqp.wire.transport import Connection
from tests.support.wire import (
    BODY_MAX,
    FRAME_MAX,
    encoded,
    feed,
    method,
    open_channel,
    ours,
    pikas,
)
from tests.test_message import properties_strategy, short_strings


@pytest.fixture(scope="module")
def io_loop() -> Iterator[IOLoop]:
    """A loop that does not run: what it would call, the tests call."""
    io_loop = IOLoop(make_current=False)
    yield io_loop
    io_loop.close()


# Out


sizes = st.integers(0, 300) | st.builds(
    lambda frames, more: max(0, frames * BODY_MAX + more), st.integers(1, 4), st.integers(-2, 2)
)


@settings(deadline=None)
@given(
    messages=st.lists(
        st.tuples(
            st.integers(1, 300), short_strings, short_strings, st.booleans(), properties_strategy, sizes, st.binary()
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_bytes_are_those_that_pika_would_send(io_loop: IOLoop, messages: list[Any]) -> None:
    """Messages of any properties and sizes, among them those around a frame's end, are byte for byte pika's."""
    (connection, wire), (plain, plain_wire) = ours(io_loop), pikas(io_loop)
    for channel_number, exchange, routing_key, mandatory, properties, size, seed in messages:
        body = (seed + b"\xce\x00") * (size // (len(seed) + 2) + 1)
        body = body[:size]
        connection.use_channel(channel_number, None)
        connection.publish(encode_method(exchange, routing_key, mandatory), encoded(properties), body)
        plain._send_message(
            channel_number,
            spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory),
            (BasicProperties(**properties), body),
        )
    assert wire.data == b""
    connection._flush()
    assert wire.taken() == plain_wire.taken()


def test_what_pika_sends_keeps_its_place_among_messages(io_loop: IOLoop) -> None:
    """A frame of pika's own between two messages leaves between them."""
    connection, wire = ours(io_loop)
    parts: list[bytes] = []
    for publish in (True, False, True):
        if publish:
            connection.publish(encode_method("", "q", mandatory=True), encoded({}), b"body")
        else:
            connection._send_method(2, spec.Channel.Open())
        parts.append(b"".join(connection._pieces)[len(b"".join(parts)) :])
    connection._flush()
    assert wire.taken() == b"".join(parts)
    assert parts[1] == method(2, spec.Channel.Open()).marshal()


def test_the_largest_header_fits_one_frame(io_loop: IOLoop) -> None:
    """The header limit is what a frame of the negotiated size holds, to the octet."""
    connection, wire = ours(io_loop)
    headers = {"a": "x" * (connection.header_limit - 2 - 4 - 2 - 5)}
    properties = encoded({"headers": headers})
    assert len(properties) == connection.header_limit
    connection.publish(encode_method("", "q", mandatory=True), properties, b"")
    connection._flush()
    data = wire.taken()
    consumed, _ = frame.decode_frame(data)
    assert len(data) - consumed == FRAME_MAX


@pytest.mark.parametrize(
    ("version", "limit"), [("3.10.8", 2**27), ("3.13.0", 2**27), ("4.0.0", 2**24), ("4.1.2", 2**24), (None, 2**27)]
)
def test_the_body_limit_is_the_versions_default(io_loop: IOLoop, version: str | None, limit: int) -> None:
    """RabbitMQ takes 128 MiB before version 4, and 16 MiB since."""
    connection, _ = ours(io_loop)
    connection.server_properties = None if version is None else {"version": version}
    assert connection.body_limit == limit


# In

TAGS = st.integers(0, 2**64 - 1)
COMING = st.one_of(
    st.builds(lambda tag, multiple: [method(1, spec.Basic.Ack(tag, multiple))], TAGS, st.booleans()),
    st.builds(lambda tag, multiple: [method(1, spec.Basic.Ack(tag, multiple))], TAGS, st.booleans()),
    st.builds(lambda tag, multiple: [method(1, spec.Basic.Nack(tag, multiple))], TAGS, st.booleans()),
    st.builds(lambda tag: [method(2, spec.Basic.Ack(tag, multiple=True))], TAGS),
    st.builds(lambda tag: [method(1, spec.Basic.Reject(tag, requeue=True))], TAGS),
    st.builds(lambda active: [method(1, spec.Channel.Flow(active))], st.booleans()),
    st.sampled_from([[frame.Heartbeat()], [method(0, spec.Connection.Blocked("low"))]]),
    st.builds(
        lambda body, properties: [
            method(1, spec.Basic.Return(312, "NO_ROUTE", "", "q")),
            frame.Header(1, len(body), BasicProperties(**properties)),
            *([frame.Body(1, body)] if body else []),
        ],
        st.binary(max_size=60),
        st.fixed_dictionaries({"message_id": short_strings}),
    ),
)


def listen(connection: Any, log: list[Any]) -> None:
    """Write down what the channels and the connection tell."""
    connection.add_on_connection_blocked_callback(lambda _connection, told: log.append(("blocked", told.method.reason)))
    for number in (1, 2):
        note = _note(log, number)
        channel: Any = open_channel(connection, number, note)
        channel.add_on_return_callback(lambda *told: log.append(("return", told[2].message_id, told[3])))
        channel.add_on_flow_callback(lambda told: log.append(("flow", told.method.active)))
        if number == 1 and isinstance(connection, Connection):
            connection.use_channel(1, note)


def _note(log: list[Any], number: int) -> Callable[[Any], None]:
    def note(told: Any) -> None:
        log.append((number, told.channel_number, told.NAME, told.method.NAME, vars(told.method)))

    return note


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """Cut bytes at some places."""
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


@settings(deadline=None)
@given(frames=st.lists(COMING, max_size=12), places=st.lists(st.integers(0, 2000), max_size=12))
def test_confirms_are_told_as_pika_tells_them(io_loop: IOLoop, frames: list[list[Any]], places: list[int]) -> None:
    """Confirms among other frames, torn anywhere, lead to the callbacks that pika's own path would call, in order."""
    data = b"".join(each.marshal() for group in frames for each in group)
    logs: list[list[Any]] = [[], []]
    received = []
    for (connection, _), log in zip((ours(io_loop), pikas(io_loop)), logs, strict=True):
        listen(connection, log)
        before = connection.bytes_received
        for part in cut(data, places):
            feed(connection, part)
        received.append(connection.bytes_received - before)
        assert connection._frame_buffer == b""
    assert logs[0] == logs[1]
    assert received == [len(data), len(data)]


@pytest.mark.parametrize("size", range(1, 22))
def test_an_incomplete_confirm_is_told_when_it_is_complete(io_loop: IOLoop, size: int) -> None:
    """However a confirm is torn, it is told once, and not before its last octet."""
    connection, _ = ours(io_loop)
    told: list[int] = []
    open_channel(connection, 1)
    connection.use_channel(1, lambda confirm: told.append(confirm.method.delivery_tag))
    data = method(1, spec.Basic.Ack(7, multiple=False)).marshal()
    feed(connection, data[:size])
    assert told == ([7] if size == len(data) else [])
    feed(connection, data[size:] + data)
    assert told == [7, 7]


def test_a_broken_frame_end_is_refused_as_pika_refuses_it(io_loop: IOLoop) -> None:
    """A confirm whose last octet is wrong raises what pika raises, after those before it were told."""
    good = method(1, spec.Basic.Ack(7, multiple=False)).marshal()
    for connection, _ in (ours(io_loop), pikas(io_loop)):
        log: list[Any] = []
        listen(connection, log)
        with pytest.raises(InvalidFrameError):
            feed(connection, good + good[:-1] + b"\x00")
        assert len(log) == 1


def test_aborting_stops_everything(io_loop: IOLoop) -> None:
    """What was not sent yet is dropped, later confirms are told to nobody, and aborting again is no error."""
    connection, wire = ours(io_loop)
    told: list[Any] = []
    open_channel(connection, 1)
    connection.use_channel(1, told.append)
    connection.publish(encode_method("", "q", mandatory=True), encoded({}), b"late")
    connection.abort()
    connection.abort()
    assert wire.aborted
    connection._flush()
    feed(connection, method(1, spec.Basic.Ack(1, multiple=False)))
    assert b"late" not in wire.taken()
    assert told == []
