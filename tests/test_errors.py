"""What the client raises: facts as attributes, and a sentence that always works."""

import doctest
import pickle

import pytest
from pika.exceptions import (
    AMQPConnectionError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ConnectionClosedByClient,
    ProbableAuthenticationError,
    StreamLostError,
)

import sprockets_amqp
from sprockets_amqp import errors
from sprockets_amqp.errors import (
    AMQPException,
    ConnectionStateError,
    ExchangeRefused,
    InvalidMessage,
    MessageNacked,
    MessageReturned,
    NotReadyError,
    OutcomeUnknown,
    PublishingFailure,
)
from sprockets_amqp.wire.failed import AttemptFailed
from sprockets_amqp.wire.replies import channel_lost, connection_lost, describe, reply

ALL: list[type[AMQPException]] = [
    AMQPException,
    ConnectionStateError,
    NotReadyError,
    PublishingFailure,
    InvalidMessage,
    ExchangeRefused,
    MessageReturned,
    MessageNacked,
    OutcomeUnknown,
]


@pytest.mark.parametrize("kind", ALL)
def test_its_sentence_always_works(kind: type[AMQPException]) -> None:
    """An error made without any argument can be shown, and has every attribute that the contract names."""
    error = kind()
    assert str(error)
    assert repr(error)
    assert (error.message_id, error.exchange, error.routing_key) == (None, None, None)
    assert isinstance(error.may_have_arrived, bool)


@pytest.mark.parametrize("kind", ALL)
def test_odd_arguments_do_not_break_its_sentence(kind: type[AMQPException]) -> None:
    """Existing code raises and shows these with arguments of its own."""
    error = kind(404, "NOT_FOUND")
    assert str(error)
    assert isinstance(error, AMQPException)


@pytest.mark.parametrize("kind", ALL)
def test_it_is_part_of_the_documented_api(kind: type[AMQPException]) -> None:
    """Each can be caught by its name in the package."""
    assert getattr(sprockets_amqp, kind.__name__) is kind
    assert kind.__name__ in sprockets_amqp.__all__


@pytest.mark.parametrize("kind", ALL)
def test_it_survives_pickling(kind: type[AMQPException]) -> None:
    """An error goes through a queue or a log handler in another process with its facts."""
    error = kind(404, "NOT_FOUND").about("m1", "events", "created")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(copy), str(copy), copy.message_id) == (kind, str(error), "m1")


def test_the_names_of_existing_code_catch_the_others() -> None:
    """Code that catches the four documented names catches everything, and a ValueError is one."""
    assert {kind for kind in ALL if issubclass(kind, PublishingFailure)} == set(ALL[3:])
    assert issubclass(InvalidMessage, ValueError)
    assert not issubclass(NotReadyError, PublishingFailure)
    assert all(issubclass(kind, AMQPException) for kind in ALL)


def test_only_what_reached_the_wire_may_have_arrived() -> None:
    """Sending again can duplicate only what was nacked, returned or has an unknown outcome."""
    arrived = {kind for kind in ALL if kind.may_have_arrived}
    assert arrived == {MessageReturned, MessageNacked, OutcomeUnknown}


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            InvalidMessage("priority", "must be an int from 0 to 255, not 300"),
            "priority must be an int from 0 to 255, not 300; the message was not sent",
        ),
        (
            ExchangeRefused(404, "NOT_FOUND - no exchange 'events' in vhost '/'"),
            (
                "RabbitMQ refused exchange 'events' (404): NOT_FOUND - no exchange 'events' in vhost '/'; "
                "message m1 was not sent: declare the exchange, or grant write access to it"
            ),
        ),
        (
            MessageReturned(312, "NO_ROUTE"),
            (
                "message m1 to exchange 'events' with routing key 'created' was returned (312): NO_ROUTE; "
                "bind a queue, or publish without fail_on_return"
            ),
        ),
        (
            MessageNacked(),
            (
                "message m1 to exchange 'events' with routing key 'created' was nacked: "
                "a queue refused it (full, or failing); try again later"
            ),
        ),
        (
            OutcomeUnknown("no confirmation within 30 s"),
            (
                "message m1 to exchange 'events' with routing key 'created' is unconfirmed and may have arrived: "
                "no confirmation within 30 s"
            ),
        ),
        (NotReadyError("connection is Closed"), "connection is Closed"),
    ],
)
def test_its_sentence_says_what_happened_and_what_to_do(error: AMQPException, sentence: str) -> None:
    """The message, the exchange, the broker's words, and what to do next."""
    assert str(error.about("m1", "events", "created")) == sentence


class Unacceptable(PublishingFailure):
    """An application's own error, as it was written for sprockets.mixins.amqp 3.0."""

    fmt = "{1} will not have {0!r}"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (AMQPException(404, "NOT_FOUND"), "AMQP Exception (404): NOT_FOUND"),
        (ConnectionStateError("Ready"), "Attempted to close the connection while Ready"),
        (NotReadyError("Closed", "m1"), "Connection is Closed when publishing message m1"),
        (
            PublishingFailure("m1", "events", "created", "AMQPChannelError"),
            "Message m1 was not routed to its intended destination (events, created): AMQPChannelError",
        ),
        (Unacceptable("m1", "events", "more than it has room for"), "events will not have 'm1'"),
        (Unacceptable("too little"), "too little"),
    ],
)
def test_what_an_application_raises_is_put_into_words_by_fmt(error: AMQPException, sentence: str) -> None:
    """With the arguments of version 3.0 an error says what it said then; with too few, what it was given."""
    assert str(error) == str(error.about("m2", "other", "key")) == sentence
    assert f"{error!r}" == f"{type(error).__name__}{error.args!r}".replace(",)", ")")


def test_the_example_of_an_own_error_is_right() -> None:
    """What the docstring shows is what happens."""
    assert doctest.testmod(errors) == doctest.TestResults(failed=0, attempted=2)


def test_an_error_may_have_a_sentence_and_the_arguments_of_version_3() -> None:
    """The sentence is shown, whatever fmt would say, and goes through pickle."""
    error = ConnectionStateError("Ready").saying("connection is Ready; connect() is for another")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert str(error) == str(copy) == "connection is Ready; connect() is for another"
    assert copy.args == ("Ready",)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConnectionClosedByBroker(320, "CONNECTION_FORCED - bye"), "(320) CONNECTION_FORCED - bye"),
        (StreamLostError("Transport indicated EOF"), "StreamLostError: Transport indicated EOF"),
        (
            AttemptFailed("TCP", "one", 5672, "10.0.0.1", ConnectionRefusedError(111, "Connection refused")),
            "TCP to one:5672 (10.0.0.1): Connection refused",
        ),
        (OSError("one\ntwo"), "OSError: one two"),
        (AMQPConnectionError(), "AMQPConnectionError"),
        (ValueError(), "ValueError"),
    ],
)
def test_a_loss_is_described_in_one_line(error: BaseException, line: str) -> None:
    """The innermost cause of pika's nested errors, in one line."""
    assert describe(error).startswith(line)
    assert "\n" not in describe(error)


def test_a_refused_login_gives_the_brokers_words() -> None:
    """What RabbitMQ said about a wrong password is what people read."""
    refused = ProbableAuthenticationError(ConnectionClosedByBroker(403, "ACCESS_REFUSED - Login was refused"))
    assert "ACCESS_REFUSED" in describe(refused)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConnectionClosedByBroker(320, "bye"), 320, "bye"),
        (ChannelClosedByBroker(404, "NOT_FOUND"), 404, "NOT_FOUND"),
        (StreamLostError("gone"), 0, "StreamLostError: gone"),
    ],
)
def test_the_reply_of_a_loss(error: BaseException, code: int, text: str) -> None:
    """RabbitMQ's code and text where it gave them, and 0 with a description where the network did it."""
    assert reply(error) == (code, text)


@pytest.mark.parametrize(
    ("code", "kind"), [(200, ConnectionClosedByClient), (320, ConnectionClosedByBroker), (0, StreamLostError)]
)
def test_the_cause_of_a_lost_connection(code: int, kind: type[Exception]) -> None:
    """What is chained to an unknown outcome is pika's own exception for that end."""
    cause = connection_lost(code, "why")
    assert type(cause) is kind
    assert "why" in describe(cause)


def test_a_cut_line_is_described_once() -> None:
    """What was described, told as an event and made an error again reads as it did at first."""
    described = describe(StreamLostError("Stream connection lost: ConnectionResetError(104, 'reset')"))
    assert described == "StreamLostError: Stream connection lost: ConnectionResetError(104, 'reset')"
    cause = connection_lost(*reply(StreamLostError("Stream connection lost: ConnectionResetError(104, 'reset')")))
    assert (describe(cause), reply(cause)) == (described, (0, described))


def test_the_cause_of_a_lost_channel() -> None:
    """A closed channel is pika's ChannelClosedByBroker, with RabbitMQ's code."""
    cause = channel_lost(406, "PRECONDITION_FAILED")
    assert isinstance(cause, ChannelClosedByBroker)
    assert cause.reply_code == 406


def test_every_error_of_the_module_is_listed() -> None:
    """No error class is left out of these tests."""
    found = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, AMQPException)}
    assert found == set(ALL)
