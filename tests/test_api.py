"""The documented API of sprockets.mixins.amqp, name for name, and an application that was written for it."""

import copy
import inspect
import json
import pickle
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import spec
from tornado import concurrent, gen, ioloop, locks, testing, web

import sprockets_amqp as amqp
from tools.rabbitmq import Node

# Names and signatures

#: Each documented callable and its signature; what this package adds is keyword-only, and is left out here.
SIGNATURES: Final = {
    "install": "(application, io_loop=None, **kwargs)",
    "Client": "(url, enable_confirmations=True, reconnect_delay=5, connection_attempts=3, default_app_id=None, "
    "on_ready_callback=None, on_unavailable_callback=None, on_return_callback=None, io_loop=None)",
    "Client.connect": "(self)",
    "Client.close": "(self)",
    "Client.publish": "(self, exchange, routing_key, body, properties=None)",
    "Client.on_connection_open": "(self, connection)",
    "Client.on_connection_open_error": "(self, connection, error)",
    "Client.on_connection_closed": "(self, connection, reply_code, reply_text)",
    "Client.on_connection_blocked": "(self, method_frame)",
    "Client.on_connection_unblocked": "(self, method_frame)",
    "Client.on_channel_open": "(self, channel)",
    "Client.on_channel_closed": "(self, channel, reply_code, reply_text)",
    "Client.on_channel_flow": "(self, method)",
    "Client.on_basic_return": "(self, _channel, method, properties, body)",
    "Client.on_delivery_confirmation": "(self, method_frame)",
    "Client.on_back_pressure_detected": "(obj)",
    "PublishingMixin.amqp_publish": "(self, exchange, routing_key, body, properties=None)",
}

#: pika names the frames as it likes: these are called by position, and the names are free.
BY_POSITION: Final = {"Client.on_connection_unblocked"}

STATES: Final = {"idle": 1, "connecting": 2, "ready": 3, "blocked": 4, "closing": 5, "closed": 6}

EXCEPTIONS: Final = [amqp.AMQPException, amqp.ConnectionStateError, amqp.NotReadyError, amqp.PublishingFailure]
REFINED: Final = [
    amqp.ExchangeRefused,
    amqp.InvalidMessage,
    amqp.MessageNacked,
    amqp.MessageReturned,
    amqp.OutcomeUnknown,
]


def found(name: str) -> Any:
    """What the dotted name stands for in the package."""
    thing: Any = amqp
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


def bare(function: Any, *, keywords: bool) -> str:
    """The signature without annotations and keyword-only arguments."""
    kept = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD or (keywords and parameter.kind is parameter.VAR_KEYWORD)
    ]
    return str(inspect.Signature(kept))


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_the_documented_ones(name: str) -> None:
    """Names, order and defaults are those that existing code passes; additions are keyword-only."""
    expected = SIGNATURES[name]
    signature = bare(found(name), keywords="**" in expected)
    if name in BY_POSITION:
        signature = signature.replace("(self, _", "(self, ")
    assert signature == expected


def test_the_back_pressure_event_is_static() -> None:
    """It is called without a client."""
    assert isinstance(inspect.getattr_static(amqp.Client, "on_back_pressure_detected"), staticmethod)


def test_the_defaults_have_the_names_that_existing_code_reads() -> None:
    """They are what a client has that was not told otherwise."""
    assert (amqp.DEFAULT_RECONNECT_DELAY, amqp.DEFAULT_CONNECTION_ATTEMPTS) == (5, 3)
    settings = amqp.Settings()
    assert settings.reconnect_delay == amqp.DEFAULT_RECONNECT_DELAY
    assert settings.connection_attempts == amqp.DEFAULT_CONNECTION_ATTEMPTS


@pytest.mark.parametrize(("name", "value"), STATES.items())
def test_states_have_their_values_and_descriptions(name: str, value: int) -> None:
    """Code that compares, prints or looks up the numbers goes on to work."""
    state = getattr(amqp.Client, f"STATE_{name.upper()}")
    assert state == value
    assert f"{state:d} {state}" == f"{value} {value}"
    assert amqp.Client.STATE_DESC[state] == name.capitalize()
    assert {value: name.capitalize()}.items() <= amqp.Client.STATE_DESC.items()


async def test_a_client_has_the_documented_attributes(broker: Node) -> None:
    """Each one is there, with what the client was given."""
    io_loop = ioloop.IOLoop.current()

    def told(*_: object) -> None:
        """Every callback."""

    client = amqp.Client(broker.url, False, 7, 4, "app/1", told, told, told, io_loop)
    assert (client.url, client.publisher_confirmations) == (broker.url, False)
    assert [client.reconnect_delay, client.connection_attempts] == [7, 4]
    assert (client.default_app_id, client.io_loop) == ("app/1", io_loop)
    assert (client.on_ready, client.on_unavailable, client.on_return) == (told, told, told)
    assert client.parameters is not None and client.parameters.port == broker.port
    assert (client.channel, client.connecting, client.state_description) == (None, True, "Connecting")
    await client.wait_for(amqp.State.READY, 30)
    assert client.connection is not None and client.connection.is_open
    assert client.channel is not None and client.channel.is_open
    assert {name: getattr(client, name) for name in STATES} == {name: name == "ready" for name in STATES}
    assert client.closable
    await client.shutdown()
    assert [client.connection, client.channel, client.closed, client.closable] == [None, None, True, False]


@pytest.mark.parametrize("argument", ["reconnect_delay", "connection_attempts"])
@pytest.mark.parametrize("value", [0, -1, "often", None])
def test_a_client_refuses_what_is_no_positive_number(argument: str, value: object) -> None:
    """The error is a ValueError that names the argument."""
    with pytest.raises(ValueError, match=argument):
        amqp.Client("amqp://guest:guest@127.0.0.1/", **{argument: value})  # type: ignore[arg-type]


def test_the_errors_stand_under_the_documented_ones() -> None:
    """Existing except clauses catch what is raised."""
    assert all(issubclass(error, amqp.AMQPException) for error in EXCEPTIONS)
    assert all(issubclass(error, amqp.PublishingFailure) for error in REFINED)
    assert not issubclass(amqp.NotReadyError, amqp.PublishingFailure)


ARGUMENTS: Final = st.one_of(st.none(), st.integers(), st.text(), st.binary(), st.builds(object))


@pytest.mark.parametrize("error", EXCEPTIONS)
@given(arguments=st.lists(ARGUMENTS, max_size=5))
def test_an_error_can_always_be_printed(error: type[amqp.AMQPException], arguments: list[object]) -> None:
    """However many arguments it was made with, and whatever they are."""
    assert str(error(*arguments)) or arguments


@pytest.mark.parametrize("error", REFINED)
@given(data=st.data())
def test_a_refined_error_can_always_be_printed(error: type[amqp.AMQPException], data: st.DataObject) -> None:
    """With as many arguments as it takes, and also when it went through pickle or copy."""
    most = len(inspect.signature(error).parameters) if "__init__" in vars(error) else 5
    made = error(*data.draw(st.lists(ARGUMENTS, max_size=most)))
    assert str(made)
    assert str(copy.copy(made)) == str(made)
    assert str(made.about("id", "exchange", "key"))


def test_an_error_survives_pickle() -> None:
    """It may cross processes with what it is about."""
    error = amqp.ExchangeRefused(404, "NOT_FOUND").about("id", "events", "key")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - made in the line above
    assert (str(again), again.reply_code, again.message_id) == (str(error), 404, "id")


# An application as it was written for sprockets.mixins.amqp 3.0: only the import is new


class OldHandler(amqp.PublishingMixin, web.RequestHandler):
    """Publishes what the query says, in the style of `async def`."""

    def initialize(self) -> None:
        """Take the correlation id from the request, as sprockets.mixins.correlation does."""
        self.correlation_id = self.request.headers.get("Correlation-Id", "")

    async def get(self) -> None:
        """Publish, and write what became of it."""
        body = {"path": self.request.path}
        properties = {"content_type": "application/json"}
        try:
            await self.amqp_publish(
                self.get_argument("exchange"), self.get_argument("routing_key"), json.dumps(body), properties
            )
        except amqp.AMQPException as error:
            self.set_status(500)
            self.finish({"type": type(error).__name__, "error": str(error)})
        else:
            self.finish(properties)


class YieldingHandler(amqp.PublishingMixin, web.RequestHandler):
    """The same in the style of Tornado 4."""

    @gen.coroutine
    def get(self) -> Any:
        """Publish in a generator."""
        if not self.application.amqp.ready:  # type: ignore[attr-defined]
            raise web.HTTPError(503)
        yield self.amqp_publish(self.get_argument("exchange"), self.get_argument("routing_key"), b"yielded", {})
        self.finish("yielded")


class StatusHandler(web.RequestHandler):
    """Writes what monitoring looks at."""

    def get(self) -> None:
        """Write the state in each of its forms."""
        client: amqp.Client = self.application.amqp  # type: ignore[attr-defined]
        ready = client.state == client.STATE_READY == 0x03
        self.finish({"state": client.state_description, "again": client.STATE_DESC[client.state], "ready": ready})


class OldApplication(testing.AsyncHTTPTestCase):
    """It is installed before the loop runs, waits for ready in the loop, and is closed by polling."""

    confirmations = True

    @pytest.fixture(autouse=True)
    def _use_broker(self, broker: Node) -> None:
        self.url = broker.url

    def get_app(self) -> web.Application:
        """Make the application."""
        handlers: list[Any] = [(r"/", OldHandler), (r"/yielding", YieldingHandler), (r"/status", StatusHandler)]
        return web.Application(handlers, service="old", version="3.0.1")

    def setUp(self) -> None:
        """Install the client, and have a queue."""
        super().setUp()
        self.exchange, self.queue = "old-exchange", "old-queue"
        self.delivered: concurrent.Future[Any] = concurrent.Future()
        self.returned: concurrent.Future[Any] = concurrent.Future()
        self.consuming = locks.Event()
        installed = amqp.install(
            self._app,
            self.io_loop,
            on_ready_callback=self.on_amqp_ready,
            on_return_callback=lambda *message: self.returned.set_result(message),
            enable_confirmations=self.confirmations,
            url=self.url,
        )
        assert installed
        self.client: amqp.Client = self._app.amqp  # type: ignore[attr-defined]
        self.io_loop.run_sync(self.consuming.wait, timeout=30)

    def on_amqp_ready(self, client: amqp.Client) -> None:
        """Declare with the client's own channel, as far as pika 1 lets old code."""
        channel = client.channel
        assert channel is not None
        channel.exchange_declare(self.exchange, auto_delete=True)
        channel.queue_declare(self.queue, auto_delete=True)
        channel.queue_bind(self.queue, self.exchange, "key")
        channel.basic_consume(
            self.queue,
            lambda *delivery: self.delivered.set_result(delivery),
            auto_ack=True,
            callback=lambda _frame: self.consuming.set(),
        )

    def tearDown(self) -> None:
        """Close, and poll until it is closed."""

        def close() -> None:
            if self.client.closed:
                self.io_loop.stop()
                return
            if self.client.closable:
                self.client.close()
            self.io_loop.call_later(0.01, close)

        self.io_loop.add_callback(close)
        self.io_loop.start()
        super().tearDown()

    @testing.gen_test(timeout=30)
    async def test_an_event_arrives_with_its_properties(self) -> None:
        """The request's correlation id and the defaults are there; the caller's own dict is as it was."""
        url = self.get_url("/?exchange=old-exchange&routing_key=key")
        answer = await self.http_client.fetch(url, headers={"Correlation-Id": "the-request"})
        assert json.loads(answer.body) == {"content_type": "application/json"}
        _, method, properties, body = await self.delivered
        assert isinstance(method, spec.Basic.Deliver)
        assert json.loads(body) == {"path": "/"}
        assert (properties.content_type, properties.correlation_id) == ("application/json", "the-request")
        assert (properties.app_id, len(properties.message_id)) == ("old/3.0.1", 36)
        assert properties.timestamp > 0

    @testing.gen_test(timeout=30)
    async def test_a_generator_may_yield_the_future(self) -> None:
        """Handlers in the style of Tornado 4 publish too."""
        await self.http_client.fetch(self.get_url("/yielding?exchange=old-exchange&routing_key=key"))
        assert (await self.delivered)[3] == b"yielded"

    @testing.gen_test(timeout=30)
    async def test_the_loop_may_watch_the_future(self) -> None:
        """`IOLoop.add_future` takes what publish() returns."""
        told: concurrent.Future[Any] = concurrent.Future()
        self.io_loop.add_future(self.client.publish(self.exchange, "key", "watched"), told.set_result)
        assert (await told).result() is None
        assert (await self.delivered)[3] == b"watched"

    @testing.gen_test(timeout=30)
    async def test_an_unroutable_event_is_returned(self) -> None:
        """The publish succeeds, and the callback gets the message."""
        await self.http_client.fetch(self.get_url("/?exchange=old-exchange&routing_key=nobody"))
        method, properties, body = await self.returned
        assert (method.exchange, method.routing_key) == ("old-exchange", "nobody")
        assert (method.reply_code, method.reply_text) == (312, "NO_ROUTE")
        assert properties.content_type == "application/json"
        assert json.loads(body) == {"path": "/"}

    @testing.gen_test(timeout=30)
    async def test_a_missing_exchange_is_the_publishs_own_failure(self) -> None:
        """The error is caught as AMQPException and quotes RabbitMQ; the client stays ready."""
        answer = await self.http_client.fetch(self.get_url("/?exchange=missing&routing_key=key"), raise_error=False)
        assert answer.code == 500
        assert "NOT_FOUND - no exchange 'missing' in vhost '/'" in json.loads(answer.body)["error"]
        assert self.client.ready

    @testing.gen_test(timeout=30)
    async def test_monitoring_reads_the_state(self) -> None:
        """As a number, a constant and a word."""
        answer = await self.http_client.fetch(self.get_url("/status"))
        assert json.loads(answer.body) == {"state": "Ready", "again": "Ready", "ready": True}

    @testing.gen_test(timeout=30)
    async def test_connect_and_close_know_their_states(self) -> None:
        """Each raises ConnectionStateError where the other is due."""
        with pytest.raises(amqp.ConnectionStateError, match=r"Ready; connect\(\) can be called only") as caught:
            self.client.connect()
        assert caught.value.args == ("Ready",)
        self.client.close()
        with pytest.raises(amqp.ConnectionStateError, match="Clos"):
            self.client.close()
        await self.client.wait_for(amqp.State.CLOSED, 30)
        assert self.client.connect() is self.client.connection
        await self.client.wait_for(amqp.State.READY, 30)


class OldApplicationWithoutConfirmations(OldApplication):
    """The same application, with enable_confirmations=False."""

    confirmations = False


async def test_a_subclass_may_listen_to_pikas_events(broker: Node) -> None:
    """What overrides an event and calls the original hears of it."""

    class Listening(amqp.Client):
        heard: tuple[str, ...] = ()

        def on_connection_open(self, connection: Any) -> None:
            self.heard += ("connection open",)
            super().on_connection_open(connection)

        def on_channel_open(self, channel: Any) -> None:
            self.heard += ("channel open",)
            super().on_channel_open(channel)

        def on_delivery_confirmation(self, method_frame: Any) -> None:
            self.heard += (method_frame.method.NAME,)
            super().on_delivery_confirmation(method_frame)

        def on_connection_closed(self, connection: Any, reply_code: int, reply_text: str) -> None:
            self.heard += (f"connection closed {reply_code}",)
            super().on_connection_closed(connection, reply_code, reply_text)

    client = Listening(broker.url)
    await client.publish("amq.topic", "key", b"")
    await client.shutdown()
    assert client.heard == ("connection open", "channel open", "Basic.Ack", "connection closed 200")


async def test_publishing_without_install_is_explained(broker: Node) -> None:
    """The error says what to call."""

    class Bare(amqp.PublishingMixin):
        def __init__(self) -> None:
            self.application = web.Application()

    with pytest.raises(RuntimeError, match=r"call sprockets_amqp\.install\(application\)"):
        Bare().amqp_publish("amq.topic", "key", b"")
