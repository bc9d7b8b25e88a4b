"""What goes over the wire: pika's bytes, in fewer writes, and confirms that pika would have told of alike."""

import itertools
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import BasicProperties, frame, spec
from pika.exceptions import InvalidFrameError
from tornado.ioloop import IOLoop

from sprockets_amqp.delivery.encoding import encode_method
from sprockets_amqp.wire.connection import Connection
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
    (connection, wire), (plain, plain_wire) = ours(io_loop), pikas()
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
    connection._sending._flush()
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
        parts.append(b"".join(connection._sending._pieces)[len(b"".join(parts)) :])
    connection._sending._flush()
    assert wire.taken() == b"".join(parts)
    assert parts[1] == method(2, spec.Channel.Open()).marshal()


def test_the_largest_header_fits_one_frame(io_loop: IOLoop) -> None:
    """The header limit is what a frame of the negotiated size holds, to the octet."""
    connection, wire = ours(io_loop)
    headers = {"a": "x" * (connection.header_limit - 2 - 4 - 2 - 5)}
    properties = encoded({"headers": headers})
    assert len(properties) == connection.header_limit
    connection.publish(encode_method("", "q", mandatory=True), properties, b"")
    connection._sending._flush()
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
            # No returned body is larger.
            connection.publish(encode_method("", "q", mandatory=True), encoded({}), bytes(60))


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
    for (connection, _), log in zip((ours(io_loop), pikas()), logs, strict=True):
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


def dropped(connection: Any, wire: Any) -> str:
    """Say why the connection dropped its line; nothing that comes later is read."""
    assert wire.aborted
    told: list[str] = []
    connection.add_on_close_callback(lambda _connection, error: told.append(f"{type(error).__name__}: {error}"))
    feed(connection, method(1, spec.Basic.Ack(9, multiple=False)))
    connection.lost(None)
    [reason] = told
    return reason


def test_a_broken_frame_end_is_refused_as_pika_refuses_it(io_loop: IOLoop) -> None:
    """A confirm whose last octet is wrong drops the line with what pika raises, after those before it were told."""
    good = method(1, spec.Basic.Ack(7, multiple=False)).marshal()
    connection, wire = ours(io_loop)
    log: list[Any] = []
    listen(connection, log)
    feed(connection, good + good[:-1] + b"\x00")
    assert dropped(connection, wire) == "InvalidFrameError: Invalid FRAME_END marker"
    assert len(log) == 1
    plain, _ = pikas()
    with pytest.raises(InvalidFrameError, match="Invalid FRAME_END marker"):
        feed(plain, good[:-1] + b"\x00")


HUGE = [FRAME_MAX - 7, 2**24, 2**31, 2**32 - 1]


@pytest.mark.parametrize("size", HUGE)
@pytest.mark.parametrize("frame_type", [1, 2, 3, 8])
def test_a_frame_above_frame_max_drops_the_line(io_loop: IOLoop, frame_type: int, size: int) -> None:
    """As soon as it is announced, whatever it is: waiting for its end would cost memory, and time for each read."""
    connection, wire = ours(io_loop)
    feed(connection, struct.pack(">BHI", frame_type, 1, size))
    assert f"frame of {size + 8} octets, above frame_max ({FRAME_MAX})" in dropped(connection, wire)


def test_the_largest_frame_is_read(io_loop: IOLoop) -> None:
    """Of frame_max octets, in any pieces."""
    connection, wire = ours(io_loop)
    told: list[str] = []
    connection.add_on_connection_blocked_callback(lambda _connection, told_by: told.append(told_by.method.reason))
    said = frame.Body(77, bytes(BODY_MAX)).marshal() + method(0, spec.Connection.Blocked("low")).marshal()
    for start in range(0, len(said), 100):
        feed(connection, said[start : start + 100])
    assert (told, wire.aborted) == (["low"], False)


def returned(size: int, body: bytes = b"") -> list[Any]:
    """The frames of a returned message whose header announces a body of so many octets."""
    header = frame.Header(1, size, BasicProperties())
    return [method(1, spec.Basic.Return(312, "", "", "")), header, *([frame.Body(1, body)] if body else [])]


@pytest.mark.parametrize("size", [11, 2**31, 2**40, 2**64 - 1])
@pytest.mark.parametrize("pieces", [1, 1000])
def test_a_returned_body_larger_than_any_published_drops_the_line(io_loop: IOLoop, size: int, pieces: int) -> None:
    """It would fill the memory; however the frames are torn."""
    connection, wire = ours(io_loop)
    open_channel(connection, 1)
    connection.use_channel(1, None)
    connection.publish(encode_method("", "q", mandatory=True), encoded({}), bytes(10))
    data = b"".join(each.marshal() for each in returned(size))
    for part in cut(data, [*range(pieces)]):
        feed(connection, part)
    assert f"a returned body of {size} octets, larger than any published (10)" in dropped(connection, wire)


@pytest.mark.parametrize(
    "said",
    [
        [method(1, spec.Basic.Return(312, "", "", "")), method(1, spec.Basic.Ack(1, multiple=False))],
        [method(1, spec.Basic.Deliver("", 1, redelivered=False, exchange="", routing_key=""))],
        [method(1, spec.Basic.GetOk(1, redelivered=False, exchange="", routing_key="", message_count=0))],
    ],
)
def test_a_body_without_end_drops_the_line_whatever_announces_it(io_loop: IOLoop, said: list[Any]) -> None:
    """pika would collect it."""
    connection, wire = ours(io_loop)
    open_channel(connection, 1)
    connection.use_channel(1, None)
    feed(connection, *said, frame.Header(1, 2**40, BasicProperties()))
    assert "a returned body of 1099511627776 octets" in dropped(connection, wire)


def test_a_confirm_callback_that_raises_drops_the_line_and_is_logged(
    io_loop: IOLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """An application may override the method that it calls."""
    connection, wire = ours(io_loop)
    open_channel(connection, 1)
    connection.use_channel(1, lambda _confirm: 1 / 0)
    feed(connection, method(1, spec.Basic.Ack(1, multiple=False)))
    assert "ZeroDivisionError" in dropped(connection, wire)
    assert "handling a frame raised" in caplog.text


def test_a_returned_body_as_large_as_the_largest_is_told(io_loop: IOLoop) -> None:
    """And a header that belongs to no returned message is none of the line's business: pika decides."""
    connection, wire = ours(io_loop)
    channel: Any = open_channel(connection, 1)
    told: list[bytes] = []
    channel.add_on_return_callback(lambda *all_told: told.append(all_told[3]))
    connection.use_channel(1, None)
    connection.publish(encode_method("", "q", mandatory=True), encoded({}), bytes(10))
    feed(connection, *returned(10, b"x" * 10))
    assert (told, wire.aborted) == ([b"x" * 10], False)


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2p1\r\n", b"\x15\x03\x01\x00\x02\x02\x46"]
)
def test_what_is_not_amqp_is_told_at_once(io_loop: IOLoop, said: bytes) -> None:
    """Another server listens on the port: what it says is shown, and nothing is waited for."""
    connection, wire = ours(io_loop)
    feed(connection, said)
    assert dropped(connection, wire) == f"InvalidFrameError: this is not AMQP: {said[:40]!r}"


def test_a_frame_that_pika_cannot_decode_drops_the_line(io_loop: IOLoop, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the decoder raises; no traceback is logged."""
    connection, wire = ours(io_loop)
    feed(connection, b"\x01\x00\x01\x00\x00\x00\x04\xff\xff\xff\xff\xce")
    assert "InvalidFrameError: a frame cannot be decoded: KeyError(" in dropped(connection, wire)
    assert "Traceback" not in caplog.text


def test_a_callback_that_raises_drops_the_line_and_is_logged(io_loop: IOLoop, caplog: pytest.LogCaptureFixture) -> None:
    """As pika drops it; the traceback says whose fault it is."""
    connection, wire = ours(io_loop)
    connection.add_on_connection_blocked_callback(lambda *_: 1 / 0)
    feed(connection, method(0, spec.Connection.Blocked("low")))
    assert "ZeroDivisionError" in dropped(connection, wire)
    assert "handling a frame raised" in caplog.text and "Traceback" in caplog.text


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
    connection._sending._flush()
    feed(connection, method(1, spec.Basic.Ack(1, multiple=False)))
    assert b"late" not in wire.taken()
    assert told == []
