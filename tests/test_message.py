"""Messages: what is filled in, what is refused, and bytes that are pika's."""

import collections
import decimal
import enum
import gc
import subprocess
import sys
import time
import types
import uuid
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import BasicProperties, frame
from pika.delivery_mode import DeliveryMode
from pika.spec import Basic

from sprockets_amqp.delivery import validation
from sprockets_amqp.delivery.encoding import PROPERTY_NAMES, encode_method
from sprockets_amqp.delivery.message import Message, encode, restore
from sprockets_amqp.delivery.message_ids import new_message_id
from sprockets_amqp.delivery.options import defaults
from sprockets_amqp.errors import InvalidMessage, PublishingFailure
from sprockets_amqp.settings import Settings
from tests.support.memory import Broker
from tests.support.wire import encoded

short_strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=255).filter(lambda s: len(s.encode()) <= 255)
#: What pika's encoder writes into a table; keys are short strings.
table_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    | st.binary(max_size=40)
    | st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis wants it naive
    lambda children: st.lists(children, max_size=3) | st.dictionaries(short_strings, children, max_size=3),
    max_leaves=8,
)
strings_of = {
    name: short_strings
    for name in PROPERTY_NAMES
    if name not in {"headers", "delivery_mode", "priority", "timestamp", "expiration"}
}
properties_strategy: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.none() | strategy for name, strategy in strings_of.items()},
        "headers": st.none() | st.dictionaries(short_strings, table_values, max_size=4),
        "delivery_mode": st.none() | st.sampled_from([1, 2, *DeliveryMode]),
        "priority": st.none() | st.integers(0, 255),
        "timestamp": st.none() | st.integers(0, 2**64 - 1),
        "expiration": st.none() | st.integers(0, 2**32 - 1).map(str),
    },
)


#: The options of a publish that is given none.
USUAL: Final = defaults(Settings())


def make(
    body: Any = b"",
    properties: Any = None,
    exchange: Any = "events",
    routing_key: Any = "created",
    app_id: str | None = "app/1",
    options: Any = None,
) -> Message:
    """Make a message of defaults but for what a test is about."""
    given: Any = options or {}
    message, _, invalid = encode(exchange, routing_key, body, properties, app_id, given, USUAL)
    if invalid is not None:
        raise invalid
    return message


# The bytes


@settings(deadline=None)
@given(properties=properties_strategy)
def test_properties_are_encoded_as_pika_encodes_them(properties: dict[str, Any]) -> None:
    """Whatever the properties, flags and list are byte for byte pika's."""
    assert encoded(properties) == b"".join(BasicProperties(**properties).encode())


@given(exchange=short_strings, routing_key=short_strings, mandatory=st.booleans())
def test_the_method_is_encoded_as_pika_encodes_it(exchange: str, routing_key: str, mandatory: bool) -> None:
    """Class, method and arguments of Basic.Publish are byte for byte pika's."""
    method = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    assert b"\x01\x00\x07" + encode_method(exchange, routing_key, mandatory) == frame.Method(7, method).marshal()


@given(properties=properties_strategy, routes=st.lists(short_strings, max_size=3), body=st.binary(max_size=40))
def test_a_message_is_restored_from_what_goes_on_the_wire(
    properties: dict[str, Any], routes: list[str], body: bytes
) -> None:
    """Its address, its id, its user_id and further routing keys are all in there."""
    if routes:
        properties = {**properties, "headers": {**(properties.get("headers") or {}), "CC": routes, "BCC": routes[:1]}}
    message, _, _ = encode("events", "created", body, properties, None, {}, USUAL)
    assert restore(message.method, message.properties, message.body) == message


def test_the_property_names_are_pikas() -> None:
    """Every property of pika's is there, in the order of AMQP, which is that of the flags."""
    flags = {name: getattr(BasicProperties, f"FLAG_{name.upper()}") for name in vars(BasicProperties())}
    assert sorted(flags, key=flags.__getitem__, reverse=True) == list(PROPERTY_NAMES)


def test_an_equal_number_of_another_type_is_not_mistaken_for_it() -> None:
    """What was encoded before is not found again under 1.0 or for a number that is no string."""
    assert encoded({"timestamp": 7}).endswith(b"\x07")
    with pytest.raises(InvalidMessage, match="timestamp"):
        encoded({"timestamp": 7.0})


# What is filled in


def test_defaults_are_filled_in() -> None:
    """A message without properties gets an app_id, a message_id and the present second."""
    before = int(time.time())
    message = make()
    decoded = BasicProperties()
    decoded.decode(message.properties)
    assert decoded.app_id == "app/1"
    assert decoded.message_id == message.message_id
    assert before <= (decoded.timestamp or 0) <= time.time()
    assert set(filter(decoded.__dict__.get, PROPERTY_NAMES)) == {"app_id", "message_id", "timestamp"}


@given(given_properties=properties_strategy)
def test_what_the_caller_gives_wins_and_is_not_changed(given_properties: dict[str, Any]) -> None:
    """The caller's properties go out as they are, also None for no such property, and their dict stays as it was."""
    copy = dict(given_properties)
    message = make(properties=types.MappingProxyType(given_properties), app_id=None)
    assert given_properties == copy
    decoded = BasicProperties()
    decoded.decode(message.properties)
    expected = BasicProperties(**given_properties)
    for name in given_properties:
        if name != "headers":
            assert getattr(decoded, name) == getattr(expected, name)
    if "message_id" in given_properties:
        assert message.message_id == given_properties["message_id"]
    assert message.user_id == given_properties.get("user_id")


def test_ids_may_be_uuids() -> None:
    """message_id and correlation_id go out as a UUID's text, and the caller's dict keeps the UUIDs."""
    ids = {"message_id": uuid.uuid4(), "correlation_id": uuid.uuid4()}
    given_properties: dict[str, Any] = dict(ids)
    message = make(properties=given_properties)
    decoded = BasicProperties()
    decoded.decode(message.properties)
    assert (decoded.message_id, decoded.correlation_id) == tuple(map(str, ids.values()))
    assert message.message_id == str(ids["message_id"])
    assert given_properties == ids


def test_without_an_app_id_none_is_sent() -> None:
    """A client without default_app_id sends none."""
    decoded = BasicProperties()
    decoded.decode(make(app_id=None).properties)
    assert decoded.app_id is None


@given(app_id=st.none() | short_strings)
def test_defaults_are_encoded_as_pika_encodes_them(app_id: str | None) -> None:
    """What messages share is encoded once, and around each id byte for byte what pika makes of all three."""
    for message in (make(app_id=app_id), make(app_id=app_id)):
        decoded = BasicProperties()
        decoded.decode(message.properties)
        expected = BasicProperties(message_id=message.message_id, timestamp=decoded.timestamp, app_id=app_id)
        assert message.properties == b"".join(expected.encode())


def test_a_forked_process_makes_message_ids_of_its_own() -> None:
    """What was made ahead is not used by parent and child both, as under Tornado's fork_processes()."""
    program = """if True:
        import os, sys
        from sprockets_amqp.delivery.message_ids import new_message_id
        new_message_id()
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        print(*[new_message_id() for _ in range(100)], sep="\\n", flush=True)
    """
    made = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert len(made) == 200
    assert len(set(made)) == 200


def test_message_ids_are_version_4_uuids() -> None:
    """Each is in the form that uuid writes, of version 4 and the variant of RFC 9562, in every of its four values."""
    made = [new_message_id() for _ in range(500)]
    assert len(set(made)) == len(made)
    for message_id in made:
        parsed = uuid.UUID(message_id)
        assert (str(parsed), parsed.version, parsed.variant) == (message_id, 4, uuid.RFC_4122)
    assert {message_id[19] for message_id in made} == set("89ab")
    for position, digit in enumerate("xxxxxxxx-xxxx-4xxx-vxxx-xxxxxxxxxxxx"):
        if digit == "x":
            assert {message_id[position] for message_id in made} == set("0123456789abcdef")


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_a_str_body_is_sent_as_utf_8(text: str) -> None:
    """A body that is a str goes out in UTF-8."""
    assert make(text).body == text.encode()


def test_a_subclass_of_bytes_or_str_is_its_value() -> None:
    """What derives from bytes or str is sent as the bytes or str that it is."""

    class Name(enum.StrEnum):
        CREATED = "created"

    body = make(type("Bytes", (bytes,), {})(b"abc"), exchange=Name.CREATED).body
    assert (type(body), body) == (bytes, b"abc")


class Text(str):
    """A str that refers to what it was found in, as parsers of HTML and XML make."""

    __slots__ = ("page",)
    page: object

    def __str__(self) -> str:
        return "not what it is"


@pytest.mark.parametrize("place", ["exchange", "routing_key", "type", "user_id", "header", "nested"])
def test_what_a_str_refers_to_is_not_kept(place: str) -> None:
    """Names and properties are remembered, by their characters alone."""
    text = Text(f"of {place}")
    text.page = page = set[str]()
    given: dict[str, Any] = {"type": {"properties": {"type": text}}, "user_id": {"properties": {"user_id": text}}}
    given |= {"header": {"properties": {"headers": {text: 1}}}, "nested": {"properties": {"headers": {"a": {text: 1}}}}}
    made = make(**given.get(place, {place: text}))
    wire = made.method + made.properties
    assert (str.__str__(text).encode() in wire, b"not what it is" in wire) == (True, False)
    names, known, plain = (made.exchange, made.routing_key, made.user_id), weakref.ref(page), (str, type(None))
    assert all(type(name) in plain for name in names)
    del text, page, given, made
    gc.collect()
    assert known() is None


def test_its_repr_names_the_message_and_not_its_body() -> None:
    """A message in a log line says which it is and how large, never what it holds."""
    text = repr(make(b"secret", {"message_id": "m1"}))
    assert text == "<Message m1 to 'events' with 'created', 6 bytes>"


# What is refused

REPLY_TO = "amq.rabbitmq.reply-to"

#: What is wrong, and the argument that the error names.
BAD: list[tuple[dict[str, Any], str]] = [
    *[({"body": body}, "body") for body in (None, 1, [98], {"a": 1}, "\ud800")],
    *[({"exchange": value}, "exchange") for value in (None, 1, b"x", "x" * 256, "\ud800", ["x"], {"x": 1})],
    *[({"routing_key": value}, "routing_key") for value in (None, 1, b"x", "ä" * 128, "\ud800", ["x"], {"x": 1})],
    *[({"properties": value}, "properties") for value in ([1], "app_id", 1, BasicProperties(), {"colour": 1}, {1: 2})],
    *[
        ({"properties": {name: value}}, name)
        for name in strings_of
        for value in (1, b"x", "x" * 256, "\ud800", ["x"], {"x": 1})
    ],
    *[({"properties": {name: uuid.uuid4()}}, name) for name in strings_of if not name.endswith("_id")],
    *[({"properties": {name: uuid.uuid4()}}, name) for name in ("app_id", "user_id", "cluster_id")],
    *[({"properties": {"priority": value}}, "priority") for value in (300, 256, -1, "1", 1.0, [1])],
    *[({"properties": {"timestamp": value}}, "timestamp") for value in (1.5, -1, 1 << 64, "1", [1], datetime.now(UTC))],
    *[
        ({"properties": {"delivery_mode": value}}, "delivery_mode")
        for value in ("2", 0, 3, 9, 1.0, [1], {"mode": 1}, b"\x02")
    ],
    *[
        ({"properties": {"expiration": value}}, "expiration")
        for value in ("abc", "", "-1", "1.5", " 1", "٣", "²", 1000, str(1 << 32), "9" * 300, "9" * 5000, ["1"])
    ],
    *[
        ({"properties": {"headers": value}}, "headers")
        for value in (
            [("a", 1)],
            "a",
            types.MappingProxyType({"a": 1}),
            {1: "a"},
            {None: "a"},
            {"a": 1.5},
            {"a": {1, 2}},
            {"a": (1, 2)},
            {"a": 1 << 64},
            {"a": [1 << 64]},
            {"a": {"b": {"c": object()}}},
            {"a" * 256: 1},
            {"a": "\ud800"},
            {"\ud800": 1},
            {"a": decimal.Decimal("1E+30")},
            {"a": decimal.Decimal("1.50")},
            {"a": {"b": [1, {"c": decimal.Decimal(2)}]}},
            {"a": decimal.Decimal("NaN")},
            {"a": datetime(1960, 1, 1, tzinfo=UTC)},
            {"CC": "created"},
            {b"BCC": "created"},
            {"BCC": None},
            {"CC": {"created": True}},
            {"CC": ["created", 7]},
            {"x-death": ["x"]},
            {b"x-death": [{"queue": "q", "reason": "expired", "count": "x"}]},
            {"x-death": [{"queue": "q", "reason": "expired", "exchange": "e", "count": True}]},
            {"x-stream-filter-value": 5},
            {"x-stream-filter-value": None},
            {b"x-stream-filter-value": "a\0b"},
            {"x-stream-filter-value": "é" * 2049},
            {"x-amqp-1.0-footer": "x"},
            {b"x-amqp-1.0-properties": b""},
            {"x-basic-type": 5},
            {"BCC": [f"{REPLY_TO}.g2dkAA5y"]},
        )
    ],
    ({"properties": {"reply_to": REPLY_TO}}, "reply_to"),
    ({"properties": {"type": "amqp-1.0"}}, "type"),
    ({"properties": {"message_id": f"urn:uuid:{'z' * 36}"}}, "message_id"),
    ({"properties": {"correlation_id": f"urn:uuid:{'-' * 36}"}}, "correlation_id"),
    ({"exchange": "", "routing_key": f"{REPLY_TO}.g2dkAA5yZXBseUAxMjM0NTY3OAAAC3EAAAAAX0mKUw==.x"}, "routing_key"),
]


@pytest.mark.parametrize(("arguments", "name"), BAD, ids=[f"{number}-{name}" for number, (_, name) in enumerate(BAD)])
def test_bad_input_is_refused_by_name(arguments: dict[str, Any], name: str) -> None:
    """What pika or RabbitMQ would stumble over is an InvalidMessage that names the argument, and a ValueError."""
    with pytest.raises(InvalidMessage) as caught:
        make(**arguments)
    error = caught.value
    assert error.argument == name
    assert str(error).startswith(f"{name} ")
    assert str(error).endswith("; the message was not sent")
    assert isinstance(error, PublishingFailure)
    assert isinstance(error, ValueError)
    assert error.may_have_arrived is False
    assert len(str(error)) < 400


@pytest.mark.parametrize(("arguments", "name"), BAD, ids=[f"{number}-{name}" for number, (_, name) in enumerate(BAD)])
def test_a_refused_message_costs_no_byte_and_no_tag(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], name: str
) -> None:
    """Nothing is sent of what is refused, and the confirmation of the next message is its own."""
    broker = Broker().install()
    client = broker.ready()
    refused = client.publish(**{"exchange": "", "routing_key": "q", "body": b"", **arguments})
    error = refused.exception()
    assert isinstance(error, InvalidMessage)
    assert (error.argument, error.exchange) == (name, arguments.get("exchange", ""))
    assert (client.unconfirmed, client.waiting, client.counters.failed) == (0, 0, 1)
    sent = client.publish("", "q", b"good", {"message_id": "good"})
    broker.clock.turn()
    broker.peer.confirm(1)
    broker.peer.deliver()
    assert sent.result() is None
    assert broker.messages == ["good"]
    broker.shut_down()
    broker.close()


def test_what_is_like_the_refused_and_harmless_passes() -> None:
    """Lists of keys in CC and BCC, deaths as RabbitMQ writes them, direct reply-to where no default exchange is."""
    routes = {"CC": ["a", "b"], "BCC": [], "cc": "c", "nested": {"CC": "d"}, "x-death": [{"queue": "q", "count": 1}]}
    make(b"", {"headers": routes, "reply_to": f"{REPLY_TO}.x"}, routing_key=f"{REPLY_TO}.x")
    make(exchange="", routing_key=REPLY_TO)
    make(properties={"headers": {"a": "x-basic-type", "x-stream-filter-value": "é" * 2048}, "type": "amqp-1.0.1"})
    make(properties={"message_id": f"urn:uuid:{uuid.uuid4()}".upper().replace("URN:UUID", "urn:uuid")})
    make(properties={"message_id": "urn:uuid:z", "correlation_id": f"urn:uuid:{'z' * 37}"})


def test_the_bad_property_is_named_beside_good_ones() -> None:
    """Good headers beside a type that is a list: the type is at fault."""
    with pytest.raises(InvalidMessage) as caught:
        make(properties={"headers": {"good": [1]}, "message_id": "m1", "type": ["x"]})
    assert caught.value.argument == "type"


def test_what_cannot_be_looked_up_is_refused_by_name() -> None:
    """A mandatory that is no bool, and a tuple that holds a list, are named like any other bad argument."""
    with pytest.raises(InvalidMessage, match=r"^mandatory must be True or False, not \[\]"):
        make(options={"mandatory": []})
    with pytest.raises(InvalidMessage, match=r"^type "):
        make(properties={"type": ("x", [])})


@pytest.mark.parametrize("body", [bytearray(b"abc"), memoryview(b"abc"), memoryview(b"aXbXcX")[::2]])
def test_what_may_change_later_is_copied(body: Any) -> None:
    """As the old package took it."""
    message = make(body)
    if isinstance(body, bytearray):
        body[:] = b"xyz"
    assert (type(message.body), message.body) == (bytes, b"abc")


def test_a_body_that_was_released_is_refused() -> None:
    """By name."""
    body = memoryview(b"abc")
    body.release()
    with pytest.raises(InvalidMessage, match=r"^body cannot be read: "):
        make(body)


@pytest.mark.parametrize("empty", [[], (), "", 0, False, types.MappingProxyType({})])
def test_properties_that_are_empty_are_none(empty: Any) -> None:
    """Whatever they are."""
    assert make(properties=empty).message_id is not None


class Raising(collections.UserDict[str, Any]):
    """A mapping that raises whatever is asked of it."""

    def __getitem__(self, key: str) -> Any:
        raise LookupError(key)

    def __iter__(self) -> Iterator[str]:
        raise OSError("s3cr3t")

    def __bool__(self) -> bool:
        raise ZeroDivisionError

    def get(self, key: str, default: Any = None) -> Any:
        raise LookupError(key)


class Unhashable(str):
    """A str that nothing can look up."""

    __slots__ = ()

    def __hash__(self) -> int:
        raise OSError("s3cr3t")


class RaisingText(str):
    """A str that cannot be encoded."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        raise OSError("s3cr3t")


class RaisingNumber(int):
    """An int that cannot be compared."""

    def __le__(self, other: object) -> bool:
        raise OSError("s3cr3t")

    __ge__ = __lt__ = __le__


class RaisingHeaders(dict[str, Any]):
    """A dict that cannot be read."""

    def items(self) -> Any:
        raise OSError("s3cr3t")


class RaisingBody(bytes):
    """A body that cannot be copied."""

    def __bytes__(self) -> bytes:
        raise OSError("s3cr3t")


RAISE: Final[list[dict[str, Any]]] = [
    {"properties": Raising()},
    {"properties": {1: "a"}},
    {"properties": {"content_type": RaisingText("a")}},
    {"properties": {"priority": RaisingNumber(1)}},
    {"properties": {"timestamp": RaisingNumber(1)}},
    {"properties": {"headers": RaisingHeaders(a=1)}},
    {"body": RaisingBody(b"a")},
    {"body": RaisingText("a")},
]


@pytest.mark.parametrize("given", RAISE, ids=[str(number) for number in range(len(RAISE))])
def test_what_raises_is_refused(given: dict[str, Any]) -> None:
    """publish() itself raises nothing, and the error has nothing of theirs."""
    with pytest.raises(InvalidMessage) as caught:
        make(**given)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("name", ["type", "app_id", "user_id"])
def test_what_cannot_be_hashed_is_sent_as_what_it_is(name: str) -> None:
    """A cache is no reason to refuse it."""
    made = make(properties={name: Unhashable("a")})
    assert getattr(BasicProperties().decode(made.properties), name) == "a"


@pytest.mark.parametrize("timeout", ["soon", [1], float("nan"), b"1", 10**400, pytest.param(-(10**5000), id="endless")])
def test_a_timeout_that_is_no_number_is_refused(timeout: object) -> None:
    """It is named like any other bad argument."""
    with pytest.raises(InvalidMessage, match=r"^timeout must be a number of seconds"):
        make(options={"timeout": timeout})


class Unspeakable:
    """An object whose repr raises."""

    def __repr__(self) -> str:
        """Raise."""
        raise LookupError


@pytest.mark.parametrize("value", [10**5000, Unspeakable()], ids=["an endless int", "an object"])
@pytest.mark.parametrize("name", ["priority", "delivery_mode", "timestamp", "expiration", "type", "message_id"])
def test_a_value_that_python_cannot_write_down_is_refused_like_any_other(name: str, value: object) -> None:
    """The error names its type; the call itself raises nothing."""
    _, _, invalid = encode("exchange", "key", b"", {name: value}, None, {}, USUAL)
    assert f"of type {type(value).__name__}" in str(invalid)


@pytest.mark.parametrize("value", [10**5000, Unspeakable()], ids=["an endless int", "an object"])
def test_an_address_that_python_cannot_write_down_is_refused_like_any_other(value: Any) -> None:
    """Neither does showing the error raise."""
    _, _, refusal = encode(value, value, b"", None, None, {}, USUAL)
    assert refusal is not None
    assert f"an object of type {type(value).__name__}" in str(refusal.about("id", value, value))


def test_an_option_that_does_not_exist_is_a_type_error() -> None:
    """As for any function, a misspelt keyword is the caller's defect, and the error lists what there is."""
    with pytest.raises(TypeError, match=r"no option 'timeut'; the options are mandatory, persistent, timeout"):
        make(options={"timeut": 3})


@pytest.mark.parametrize(
    ("given", "name"),
    [("m1", "m1"), (uuid.UUID(int=7), str(uuid.UUID(int=7))), (5, None)],
    ids=["str", "UUID", "no id"],
)
def test_a_refused_message_is_named_as_it_was_given(given: object, name: str | None) -> None:
    """The error can be found by the id that the application gave; what cannot be an id names nothing."""
    message, _, invalid = encode("e", "k", b"", {"message_id": given, "no such": 1}, None, {}, USUAL)
    assert invalid is not None
    assert message.message_id == name


@pytest.mark.parametrize("properties", [None, {}, {"no such": 1}, [1]], ids=["None", "none", "unknown", "list"])
def test_a_refused_message_without_an_id_gets_one(properties: Any) -> None:
    """So that the error of each can be told from others."""
    exchange: Any = 5
    message, _, invalid = encode(exchange, "k", b"", properties, None, {}, USUAL)
    assert invalid is not None and message.message_id is not None
    assert uuid.UUID(message.message_id).version == 4


def test_a_defect_of_an_encoder_is_not_reported_as_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TypeError that no value explains goes on as what it is."""

    def broken(*_values: object, **_properties: object) -> bytes:
        raise TypeError("a defect")

    monkeypatch.setattr("sprockets_amqp.delivery.message.encode_body", broken)
    with pytest.raises(TypeError, match="a defect"):
        make(body="text")
    monkeypatch.setattr("sprockets_amqp.delivery.message.encode_properties", broken)
    with pytest.raises(TypeError, match="a defect"):
        make(properties={"type": "event"})


def test_headers_that_hold_themselves_are_refused() -> None:
    """Headers without an end are an InvalidMessage like any other."""
    headers: dict[str, Any] = {}
    headers["self"] = headers
    with pytest.raises(InvalidMessage, match="headers hold a value that AMQP cannot encode"):
        make(properties={"headers": headers})


@pytest.mark.parametrize("inner", [dict, list])
def test_headers_of_very_many_levels_are_refused(inner: type) -> None:
    """pika could not decode them if RabbitMQ returned the message."""

    def nested(levels: int) -> dict[str, Any]:
        value: Any = 1
        for _ in range(levels - 1):
            value = {"n": value} if inner is dict else [value]
        return {"n": value}

    make(properties={"headers": nested(validation.LEVEL_LIMIT)})
    for levels in (validation.LEVEL_LIMIT + 1, 300):
        with pytest.raises(InvalidMessage, match="more than 100 levels"):
            make(properties={"headers": nested(levels)})


def test_mapping_types_other_than_dict_are_fine_as_properties() -> None:
    """Properties are any mapping."""
    message = make(properties=collections.ChainMap({"message_id": "m1"}, {"type": "event"}))
    assert message.message_id == "m1"


def test_the_largest_short_strings_pass() -> None:
    """255 octets are not too many, and the largest expiration is RabbitMQ's."""
    message = make(b"", {"expiration": "4294967295", "type": "x" * 255}, exchange="ä" * 127, routing_key="x" * 255)
    assert len(message.method) == 4 + 6 + 1 + 254 + 1 + 255 + 1 + 1


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"authorization": "Bearer s3cr3t", "ratio": 1.5}, "'ratio' is of type float"),
        ({"token": b"s3cr3t", "deep": {"token": "s3cr3t", "ratio": 0.5}}, "'deep'.'ratio' is of type float"),
        ({"large": 1 << 70, "token": "s3cr3t"}, "'large' is of type int"),
        ({"list": ["s3cr3t", object()]}, "'list' is of type list"),
        ({"token": "s3cr3t", 5: "s3cr3t"}, "a key that is of type int"),
        ({"token": "s3cr3t", "\x1b[2J\n": 1.5}, r"'\x1b[2J\n' is of type float"),
        ({"token": "s3cr3t\ud800"}, "'token' is a str, too long or with lone surrogates"),
        ({"k" * 256: "s3cr3t"}, "a key that is a str, too long or with lone surrogates"),
    ],
)
def test_headers_are_named_by_key_and_type(headers: dict[Any, Any], says: str) -> None:
    """A header's value may be secret: it is in no sentence, in no error before it, and in no frame of a traceback."""
    error = make_refused({"headers": headers})
    assert str(error) == f"headers hold a value that AMQP cannot encode: {says}; the message was not sent"
    assert (error.__cause__, error.__context__, error.__traceback__) == (None, None, None)


def test_large_headers_make_no_large_error() -> None:
    """10 MB of them used to be 40 MB of text."""
    error = make_refused({"headers": {"large": b"\xff" * 10_000_000, "ratio": 1.5}})
    assert len(repr(error)) < 300
    error = make_refused({"headers": {"large": ["\n" * 10_000_000, 1.5]}})
    assert len(repr(error)) < 300


def make_refused(properties: dict[str, Any]) -> InvalidMessage:
    """Why a message with these properties is refused."""
    _, _, refusal = encode("events", "created", b"", properties, None, {}, USUAL)
    assert refusal is not None
    return refusal


@pytest.mark.parametrize("given", [{"body": "s3cr3t\ud800"}, {"properties": {"message_id": "s3cr3t\ud800"}}])
def test_what_utf_8_cannot_hold_is_in_no_error_before(given: dict[str, Any]) -> None:
    """Python's own error has the whole text."""
    arguments: dict[str, Any] = {"body": b"", "properties": None, **given}
    _, _, refusal = encode("events", "created", app_id=None, options={}, usual=USUAL, **arguments)
    assert refusal is not None
    assert "s3cr3t" not in str(refusal)
    assert (refusal.__cause__, refusal.__context__, refusal.__traceback__) == (None, None, None)


@pytest.mark.parametrize(
    ("usual", "options", "properties", "mode"),
    [
        (False, {}, None, None),
        (True, {}, None, 2),
        (True, {}, {"headers": {}}, 2),
        (True, {"persistent": False}, None, None),
        (False, {"persistent": True}, {"content_type": "text/plain"}, 2),
        (True, {"persistent": None}, None, None),
        (True, {}, {"delivery_mode": 1}, 1),
        (False, {}, {"delivery_mode": 2}, 2),
        (True, {}, {"delivery_mode": None}, None),
    ],
)
def test_a_message_without_a_delivery_mode_is_persistent_where_that_is_wanted(
    usual: bool, options: Any, properties: Any, mode: int | None
) -> None:
    """The publish says so, or the client's setting; what the properties say comes first, and they are not changed."""
    given = dict(properties) if properties is not None else None
    message, _, _ = encode("e", "k", b"", properties, None, options, defaults(Settings(persistent=usual)))
    assert BasicProperties().decode(message.properties).delivery_mode == mode
    assert properties == given


@pytest.mark.parametrize("name", ["mandatory", "persistent"])
@pytest.mark.parametrize("value", ["yes", 1.5, []])
def test_a_flag_is_true_or_false(name: str, value: Any) -> None:
    """Anything else is named."""
    with pytest.raises(InvalidMessage, match=rf"^{name} must be True or False, not "):
        make(options={name: value})
