"""A function for the URL, renewed credentials, and what `setup` declares, against a broker in memory."""

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import Mock

import pytest
from pika import spec

import sprockets_amqp as amqp
from sprockets_amqp import STORED, Access, ExchangeRefused, NotReadyError, Topology, testing
from sprockets_amqp.states import CONNECTION, Closed, Connecting, Renewal, State, Substate
from sprockets_amqp.testing.exchanges import Binding
from sprockets_amqp.testing.rules import Published, Refused
from sprockets_amqp.web import status
from tests.support.certificates import Authority
from tests.support.memory import Broker, in_memory, outcome
from tests.test_substates import enter, never

if TYPE_CHECKING:
    from sprockets_amqp.client import Client

broker = in_memory

SECRET = "s3cr3t/+"
ENCODED = "s3cr3t%2F%2B"


class Directory:
    """What a client asks for its URL: it answers what it is told to, or raises it, or waits."""

    def __init__(self, *answers: object) -> None:
        self.answers: Iterator[object] = iter(answers)
        self.asked = 0
        self.cancelled = 0

    async def __call__(self) -> Any:
        """Give the next answer; after the last one, none."""
        self.asked += 1
        answer = next(self.answers, None)
        if answer is None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.cancelled += 1
        if isinstance(answer, BaseException):
            raise answer
        return answer


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """What is said of renewals. The planted declarations are tried without pytest's caplog."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("sprockets_amqp.renewal")
    logger.addHandler(handler)
    try:
        yield told
    finally:
        logger.removeHandler(handler)


def url(password: str = "guest", host: str = "broker", user: str = "guest") -> str:
    """A URL with a password."""
    return f"amqp://{user}:{password}@{host}"


# Asking for the address


def test_a_function_is_asked_before_the_connection_is_opened(broker: Broker) -> None:
    """Until it answers nothing is known, and a publish waits."""
    directory = Directory(url())
    client = broker.client(directory)
    assert (client.url, client.parameters, client.substate) == (None, None, State.IDLE)
    waits = client.publish("", "q", b"")
    assert "Directory()" in repr(client) and status.describe(client)["broker"] == "not known yet"
    broker.clock.turn()
    broker.open().peer.confirm_all()
    broker.clock.turn()
    assert (client.ready, client.url, outcome(waits), directory.asked) == (True, url(), None, 1)
    assert client.parameters is not None and client.parameters.host == "broker"


@pytest.mark.parametrize("answer", [url, lambda: Access(url())])
def test_a_plain_function_will_do_as_well(broker: Broker, answer: Any) -> None:
    """What it returns need not be awaited."""
    assert broker.ready(answer).url == url()


def test_each_round_begins_with_the_question_and_a_lost_connection_begins_a_round(broker: Broker) -> None:
    """Of two nodes both are tried before it is asked again."""
    directory = Directory("amqp://one,two", "amqp://one,two", "amqp://one,two")
    client = broker.client(directory)
    broker.clock.turn()
    broker.peer.refuse()
    broker.clock.advance(0.1)
    assert (directory.asked, len(broker.peers)) == (1, 2)
    broker.peer.refuse()
    broker.clock.advance(2)
    assert (directory.asked, len(broker.peers)) == (2, 3)
    broker.open().clock.advance(0.1)
    broker.peer.lose()
    broker.clock.advance(0.1)
    assert (directory.asked, len(broker.peers), client.substate) == (3, 4, Connecting.OPENING_CONNECTION)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (RuntimeError("vault is sealed with s3cr3t"), "Directory() raised RuntimeError"),
        (
            amqp.AMQPException("vault", "is sealed"),
            "Directory() raised AMQPException: AMQP Exception (vault): is sealed",
        ),
        (asyncio.CancelledError(), "Directory() raised CancelledError"),
        (7, "Directory() returned an object of type int instead of a URL"),
        ("http://broker", "Directory() returned a URL that cannot be used: it must begin with amqp:// or amqps://"),
        (Access(url(), valid_for=0), "Directory() returned a valid_for that is not a number of seconds above 0"),
        (Access(url(), valid_for=float("nan")), "returned a valid_for that is not a number of seconds above 0"),
        (Access(url(), valid_for=10**400), "returned a valid_for that is not a number of seconds above 0"),
        (Access(5), "returned an object of type int instead of a URL"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_answer_is_a_failed_attempt(broker: Broker, answer: object, says: str) -> None:
    """It is told as one, and the next attempt asks again."""
    client = broker.client(Directory(answer, url()))
    broker.clock.turn()
    assert client.substate is Closed.RETRYING
    assert says in client.condition
    broker.clock.advance(1.5)
    broker.open()
    assert client.ready


def test_an_answer_without_tls_is_not_used_where_files_of_tls_are_given(broker: Broker, tmp_path: Path) -> None:
    """The password would go over the wire in plain text."""
    client = broker.client(Directory(url()), tls_ca=str(Authority(tmp_path).certificate))
    broker.clock.turn()
    assert client.substate is Closed.RETRYING
    assert "the URL must begin with amqps:// if tls_ca is given" in client.condition
    assert broker.peers == []


def test_a_function_that_hangs_is_given_ten_seconds(broker: Broker) -> None:
    """Then it is cancelled, and what it answers after all counts for nothing."""
    directory = Directory()
    client = broker.client(directory)
    broker.clock.advance(9)
    assert client.connecting
    broker.clock.advance(1.1)
    assert (client.substate, directory.cancelled) == (Closed.RETRYING, 1)
    assert "Directory() has not returned within 10 s" in client.condition


def test_stopping_cancels_the_question(broker: Broker) -> None:
    """Nobody needs the answer any more."""
    directory = Directory()
    client = broker.client(directory)
    broker.clock.turn()
    assert client.connecting
    broker.shut_down()
    assert (client.substate, directory.cancelled) == (Closed.STOPPED, 1)


@pytest.mark.parametrize("said", [SECRET, ENCODED, repr(SECRET), f"amqp://app:{ENCODED}@vault", "amqp://a:new@vault"])
def test_no_secret_of_an_answer_is_shown(broker: Broker, caplog: pytest.LogCaptureFixture, said: str) -> None:
    """Whatever the function says when it fails: in no log, error, page, history or repr."""
    caplog.set_level(logging.DEBUG)
    answer = Access(url(ENCODED), valid_for=9)
    # The text of this package's own error is shown, and that of others is not: it may hold what nobody has seen.
    client = broker.ready(Directory(answer, RuntimeError(f"bad: new-s3cret {said}"), amqp.AMQPException("bad", said)))
    # A renewal fails, and then an attempt.
    broker.clock.advance(6.1)
    assert "renewing the credentials failed: Directory() raised RuntimeError; " in caplog.text
    broker.peer.lose()
    broker.clock.advance(1.5)
    refused = client.publish("", "q", b"", timeout=0)
    shown = [caplog.text, client.condition, repr(client), repr(client.settings), repr(answer), str(client.history)]
    shown += [str(status.snapshot(client)), str(refused.exception()), repr(refused.exception())]
    assert "Directory() raised AMQPException: AMQP Exception (bad): " in client.condition
    for text in shown:
        assert not any(secret in text for secret in (SECRET, ENCODED, "a:new@", "new-s3cret")), text


def test_asyncio_has_no_secret_to_log(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """In its debug mode it logs the results and exceptions of slow tasks: of this one there is neither."""
    broker.clock.loop.set_debug(True)
    tasks: list[asyncio.Task[Any]] = []

    def slow() -> str:
        tasks.extend(asyncio.all_tasks(broker.clock.loop))
        return url(ENCODED)

    def fails() -> str:
        tasks.extend(asyncio.all_tasks(broker.clock.loop))
        raise ValueError(SECRET)

    broker.ready(slow)
    broker.client(fails)
    broker.clock.turn()
    assert len(tasks) == 2 and all(task.done() for task in tasks)
    assert not any(secret in repr(task) + caplog.text for task in tasks for secret in (SECRET, ENCODED))


# Renewing credentials


def test_no_new_password_is_logged(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """Neither by the client nor by pika, whatever they log."""
    caplog.set_level(logging.DEBUG)
    broker.ready(Directory(Access(url("token0"), valid_for=30), url("token1")))
    broker.clock.advance(20.1)
    assert (broker.peer.secrets, "token" in caplog.text) == (["token1"], False)


def test_credentials_are_renewed_before_they_expire(broker: Broker) -> None:
    """After two thirds of their time, on the open connection, each time again."""
    directory = Directory(*(Access(url(f"token{number}"), valid_for=30) for number in range(4)))
    client = broker.ready(directory)
    renewal = client._runtime.renewal
    for number in (1, 2, 3):
        broker.clock.advance(19)
        assert (directory.asked, renewal.state) == (number, Renewal.VALID)
        broker.clock.advance(1.1)
        assert renewal.state is Renewal.SENDING
        broker.peer.deliver()
        assert (renewal.state, client.url) == (Renewal.VALID, url(f"token{number}"))
    assert broker.peer.secrets == ["token1", "token2", "token3"]
    assert (len(broker.peers), client.ready) == (1, True)


@pytest.mark.parametrize("valid_for", [30, None])
def test_after_a_renewal_each_exchange_is_checked_again(broker: Broker, valid_for: float | None) -> None:
    """RabbitMQ may grant the new credentials less: that refuses one publish, and harms no other."""
    client = broker.ready(Directory(Access(url("token0"), valid_for=30), Access(url("token1"), valid_for=valid_for)))
    known = [client.publish(exchange, "", b"") for exchange in ("amq.fanout", "amq.direct")]
    _answer(broker)
    assert [outcome(future) for future in known] == [None, None]
    broker.missing.add("amq.fanout")
    broker.clock.advance(20.1)
    broker.peer.deliver()
    ends = [client.publish(exchange, "", b"") for exchange in ("amq.fanout", "amq.direct", "amq.fanout")]
    _answer(broker)
    assert [outcome(future) for future in ends] == [ExchangeRefused, None, ExchangeRefused]
    assert [change.trigger for change in client.history] == ["connect", "channel_opened"]


def _answer(broker: Broker) -> None:
    for _ in range(20):
        broker.peer.deliver()
        broker.peer.confirm_all()
        broker.clock.turn()


def test_a_check_that_a_renewal_meets_is_made_again(broker: Broker) -> None:
    """RabbitMQ may have answered before it looked the permissions up again."""
    client = broker.ready(Directory(*(Access(url(f"token{number}"), valid_for=30) for number in range(3))))
    future = client.publish("amq.fanout", "", b"", timeout=60)
    broker.clock.turn()
    exchanges = client._runtime.publisher._exchanges
    assert exchanges.checking is not None
    exchanges.doubt()
    asked = Mock(wraps=client._runtime.check.check)
    client._runtime.check.check = asked  # type: ignore[method-assign]
    _answer(broker)
    assert (outcome(future), asked.call_count) == (None, 1)
    assert exchanges._known == dict.fromkeys(["", "amq.fanout"])


def test_a_renewal_that_fails_is_tried_again_and_the_connection_stays(broker: Broker) -> None:
    """With back-off, also after the time is up; one that hangs is cancelled after ten seconds."""
    with logged() as told:
        _fail_and_hang(broker)
    assert "raised RuntimeError; they are valid for another " in told[0] and "and the connection stays open" in told[0]
    assert "Directory() has not returned within 10 s; they expired " in told[-1]


def _fail_and_hang(broker: Broker) -> None:
    failures = [RuntimeError("sealed")] * 3
    directory = Directory(Access(url(), valid_for=30), *failures)
    client = broker.ready(directory)
    broker.clock.advance(20.1)
    assert directory.asked == 2
    broker.clock.advance(1.1)
    assert directory.asked == 3
    broker.clock.advance(2.1)
    assert directory.asked == 4
    # The next one hangs.
    broker.clock.advance(4.1)
    assert (directory.asked, client._runtime.renewal.state) == (5, Renewal.CALLING)
    broker.clock.advance(10.1)
    assert directory.cancelled == 1
    assert (client.ready, len(broker.peers)) == (True, 1)


def test_an_answer_without_a_limit_ends_the_renewals(broker: Broker) -> None:
    """The password is sent all the same: it is another one."""
    directory = Directory(Access(url(), valid_for=30), url("forever"))
    client = broker.ready(directory)
    broker.clock.advance(20.1)
    broker.peer.deliver()
    assert (broker.peer.secrets, client._runtime.renewal.state) == (["forever"], Renewal.NONE)


@pytest.mark.parametrize("valid_for", [30, None])
def test_another_user_is_for_the_next_connection(broker: Broker, valid_for: float | None) -> None:
    """RabbitMQ can't change the user of a connection: its password stays as it was."""
    state = Renewal.VALID if valid_for else Renewal.NONE
    directory = Directory(Access(url(), valid_for=30), Access(url(user="other"), valid_for=valid_for))
    client = broker.ready(directory)
    with logged() as told:
        broker.clock.advance(20.1)
        broker.open()
    assert told == [
        "Directory() returned another user: it takes effect with the next connection; this one keeps its user"
    ]
    assert (broker.peer.secrets, client._runtime.renewal.state, client.ready) == ([], state, True)


def test_nothing_is_renewed_where_nothing_expires(broker: Broker) -> None:
    """A URL without a limit is asked for once."""
    directory = Directory(url())
    client = broker.ready(directory)
    broker.clock.advance(10_000)
    assert (directory.asked, client._runtime.renewal.state) == (1, Renewal.NONE)


@pytest.mark.parametrize("state", [Renewal.VALID, Renewal.CALLING, Renewal.SENDING])
def test_a_lost_connection_ends_the_renewal(broker: Broker, state: Renewal) -> None:
    """However far it has come; the next connection has a renewal of its own."""
    answers = [Access(url(), valid_for=30)] + ([Access(url("two"), valid_for=30)] if state is Renewal.SENDING else [])
    directory = Directory(*answers)
    client = broker.ready(directory)
    renewal = client._runtime.renewal
    broker.clock.advance(5 if state is Renewal.VALID else 20.1)
    assert renewal.state is state
    broker.peer.lose()
    assert renewal.state is Renewal.NONE
    broker.clock.turn()
    assert directory.cancelled == (state is Renewal.CALLING)
    directory.answers = iter([Access(url("three"), valid_for=30)])
    broker.clock.advance(1.1)
    broker.open()
    assert (client.ready, renewal.state) == (True, Renewal.VALID)


@pytest.mark.parametrize("substate", CONNECTION.marked("logged_in"))
def test_credentials_are_renewed_for_as_long_as_the_connection_is_open(broker: Broker, substate: Substate) -> None:
    """Also while nothing can be published."""
    setup = never if substate is Connecting.SETTING_UP else None
    client = enter(broker, substate, url=Directory(Access(url(), valid_for=30)), setup=setup)
    assert client._runtime.renewal.state is Renewal.VALID


def _elsewhere() -> list[Any]:
    apart = {*CONNECTION.marked("logged_in"), *CONNECTION.marked("at_rest")}
    return [each for each in CONNECTION.lasting if each not in apart]


@pytest.mark.parametrize("substate", _elsewhere())
def test_credentials_are_not_renewed_without_a_connection_that_is_to_stay(broker: Broker, substate: Any) -> None:
    """Not before the login, and not while closing: the function is called when the next connection is due."""
    answers = [Access(url() + "?retry_delay=60", valid_for=30) for _ in range(3)]
    with tempfile.TemporaryDirectory() as path:
        if substate is Connecting.CALLING:
            client = broker.ready(Directory(answers[0]), outbox=path)
            broker.peer.lose()
            broker.clock.advance(1.1)
        else:
            client = enter(broker, substate, url=Directory(*answers), outbox=path, connection_attempts=3)
        assert client.substate is substate
        assert client._runtime.renewal.state is Renewal.NONE
        broker.shut_down()


# Setting up


class Declares:
    """A setup that declares an exchange, and counts."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.runs = self.cancelled = 0
        self.hangs = hangs

    async def __call__(self, topology: Topology) -> None:
        """Declare it."""
        self.runs += 1
        await topology.exchange_declare("events", "topic", durable=True)
        queue = await topology.queue_declare("all", arguments={"x-max-length": 10})
        await topology.queue_bind(queue.queue or "", "events", "#")
        if self.hangs:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.cancelled += 1


def test_what_setup_declares_is_there_before_what_waits_goes_out(broker: Broker) -> None:
    """On a channel that is closed before the one to publish on is opened."""
    setup = Declares()
    client = broker.client(setup=setup)
    waits = client.publish("events", "user.created", b"")
    broker.open().open().peer.confirm_all()
    broker.clock.turn()
    assert (client.ready, outcome(waits), setup.runs) == (True, None, 1)
    assert "events" in broker._routing.exchanges and "all" in broker._routing.queues
    assert len(broker.peer.publishing) == 1


def test_a_lost_channel_has_it_declared_again(broker: Broker) -> None:
    """The channel may have been lost over what somebody deleted."""
    setup = Declares()
    client = broker.ready(setup=setup)
    broker._routing.delete_exchange("events")
    broker.peer.close_channel(code=404, text="NOT_FOUND - no exchange 'events' in vhost '/'")
    broker.peer.deliver()
    broker.open()
    assert (client.ready, setup.runs, len(broker.peers)) == (True, 2, 1)
    assert "events" in broker._routing.exchanges


def test_a_refused_declaration_is_a_failed_attempt_in_rabbitmqs_words(broker: Broker) -> None:
    """It is tried again with back-off: here, somebody deletes what stands in the way."""
    broker._routing.declare_exchange("events", "fanout")
    client = broker.client(setup=Declares())
    broker.open()
    assert client.substate is Closed.RETRYING
    assert "Declares() failed: (406) PRECONDITION_FAILED" in client.condition
    assert "(406) PRECONDITION_FAILED" in str(status.snapshot(client)["reason"])
    broker._routing.delete_exchange("events")
    broker.clock.advance(1.1)
    broker.open()
    assert client.ready


def test_a_setup_that_hangs_is_given_thirty_seconds(broker: Broker) -> None:
    """Then it is cancelled, and the attempt has failed."""
    setup = Declares(hangs=True)
    client = broker.client(setup=setup)
    broker.open()
    assert client.connecting
    broker.clock.advance(30.1)
    assert (client.substate, setup.cancelled) == (Closed.RETRYING, 1)
    assert "Declares() has not finished within 30 s" in client.condition


def test_a_lost_connection_cancels_setup(broker: Broker) -> None:
    """It had nothing to declare on any more."""
    setup = Declares(hangs=True)
    client = broker.client(setup=setup)
    broker.open().peer.lose()
    broker.clock.turn()
    assert (client.substate, setup.cancelled) == (Closed.RETRYING, 1)


def test_what_setup_raises_is_logged_and_a_failed_attempt(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """A function that is no coroutine function is told as one."""

    def declare(_topology: Topology) -> None:
        """Forget to be a coroutine function."""

    async def fail(_topology: Topology) -> None:
        raise KeyError("queue")

    for setup, says in ((declare, "declare is not a coroutine function"), (fail, "fail() failed: KeyError: 'queue'")):
        client = broker.client(setup=setup)
        broker.open()
        assert client.substate is Closed.RETRYING
        assert says in client.condition
        broker.shut_down()
    assert "fail() raised" in caplog.text
    with pytest.raises(ValueError, match="setup must be a coroutine function, not 'declare'"):
        broker.client(setup="declare")


def test_nothing_is_published_in_setup(broker: Broker) -> None:
    """It would wait for what waits for it."""
    found: list[object] = []
    clients: list[Client] = []

    async def publish(_topology: Topology) -> None:
        try:
            await clients[0].publish("", "q", b"")
        except NotReadyError as error:
            found.append(error)

    clients.append(broker.client(setup=publish))
    broker.open()
    assert clients[0].ready
    assert "nothing is published before setup has ended" in str(found[0])


def test_a_publish_on_another_client_waits_in_setup_as_elsewhere(broker: Broker) -> None:
    """That client has nothing to do with this setup."""
    ends: list[object] = []
    clients: list[Client] = []

    async def publish(_topology: Topology) -> None:
        ends.append(await clients[1].publish("", "q", b""))

    clients.append(broker.client(setup=publish))
    clients.append(broker.client())
    broker.open()
    broker.open()
    for peer in broker.peers:
        peer.confirm_all()
    broker.open()
    assert (ends, clients[0].ready) == ([None], True)


def test_a_declaration_that_was_given_up_leaves_no_channel_open(amqp_broker: testing.Broker) -> None:
    """The user may have two: one to publish on, and one to ask about exchanges."""

    async def declare(topology: Topology) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(topology.exchange_declare("optional"), 0.02)
        await topology.exchange_declare("needed", "fanout")

    async def publish() -> list[object]:
        await client.wait_for(State.READY, 5)
        publishes = [client.publish(exchange, "", b"") for exchange in ("needed", "missing")]
        return list(await asyncio.gather(*publishes, return_exceptions=True))

    amqp_broker.delay = 0.05
    client = amqp.Client("amqp://broker?channel_max=2", setup=declare)
    fine, refused = amqp_broker.run(publish())
    assert (fine, type(refused)) == (None, amqp.ExchangeRefused)
    assert client.counters.reconnects == 0


def test_what_outlives_setup_declares_nothing(amqp_broker: testing.Broker) -> None:
    """Its channel would stay open for as long as the connection."""
    tasks: list[asyncio.Task[object]] = []

    async def declare(topology: Topology) -> None:
        ended = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1, ended.set_result, None)

        async def later() -> None:
            await ended
            await topology.queue_declare("late")

        tasks.append(asyncio.create_task(later()))

    client = amqp.Client("amqp://broker", setup=declare)
    amqp_broker.run(client.wait_for(State.READY))
    amqp_broker.run(asyncio.wait(tasks))
    with pytest.raises(RuntimeError, match="setup has ended: it has to await what it starts"):
        tasks[0].result()


def test_a_refused_call_is_told_and_further_ones_go_on(broker: Broker) -> None:
    """A passive declaration finds out what is there."""
    found: list[str] = []

    async def look(topology: Topology) -> None:
        try:
            await topology.exchange_declare("events", passive=True)
        except Exception as error:
            found.append(str(error))
            await asyncio.sleep(0)
            await topology.exchange_declare("events", "fanout")
            await topology.exchange_declare("copies", "fanout")
            await topology.exchange_bind("copies", "events")

    client = broker.client(setup=look)
    broker.open().open()
    assert client.ready, client.condition
    assert "no exchange 'events'" in found[0]
    assert broker._routing._bindings == [Binding("events", "copies", "", to_queue=False)]


# Credentials that have expired

EXPIRED: Final = Refused(403, "ACCESS_REFUSED - access to exchange 'events' refused for user 'app': token has expired")


class Fails:
    """A function for the URL that gives credentials for half a minute, and then nothing until the test lets it."""

    def __init__(self) -> None:
        self.works = True

    def __call__(self) -> Access:
        """Answer, or fail."""
        if not self.works:
            raise ConnectionError("the token endpoint is down")
        return Access(url(), valid_for=30)


@contextlib.contextmanager
def expired(broker: Broker, **settings: Any) -> "Iterator[tuple[Client, Fails]]":
    """A client whose credentials have expired: RabbitMQ refuses everything, and the function fails."""
    login = Fails()
    judge = broker.judge
    client = broker.ready(login, timeout=1000, **settings)
    login.works = False
    broker.clock.advance(31)
    assert client.ready
    patched: Any = broker

    def judge_login(message: Published) -> None:
        if not login.works:
            raise EXPIRED
        judge(message)

    patched.judge = judge_login
    yield client, login


def mend(broker: Broker, login: Fails) -> None:
    """Let the function give credentials again, and RabbitMQ confirm."""
    login.works = True
    for _ in range(4):
        broker.clock.advance(5)
        broker.open()
        broker.every(lambda peer: peer.confirm_all())
    broker.open()


@pytest.mark.parametrize("blocked", [False, True])
def test_a_check_that_is_refused_since_the_credentials_have_expired_refuses_no_message(
    broker: Broker, blocked: bool
) -> None:
    """The connection is at fault: it is given up, and the message waits for one with new credentials."""
    with expired(broker) as (client, login):
        waits = client.publish("events", "key", b"", {"message_id": "m1"})
        while broker.peer.open_channels != {1, 2}:
            broker.peer.deliver()
            broker.clock.turn(1)
        if blocked:
            # The alarm is told before the refusal.
            broker.peer.say(0, spec.Connection.Blocked("low on memory"))
        broker.open()
        assert (client.state, waits.done()) == (State.CLOSED, False)
        assert "the credentials have expired: (403) ACCESS_REFUSED" in client.condition
        mend(broker, login)
        assert (outcome(waits), broker.messages) == (None, ["m1"])


@pytest.mark.parametrize("blocked", [False, True])
def test_a_channel_that_is_closed_since_the_credentials_have_expired_blames_no_message(
    broker: Broker, blocked: bool
) -> None:
    """What was in flight alone is sent again, as after any loss, and not taken for what RabbitMQ refuses."""
    with expired(broker, republish_unconfirmed=True) as (client, login):
        sent = client.publish("", "q", b"", {"message_id": "m1"})
        broker.clock.turn()
        # RabbitMQ has closed the channel, and may have told of an alarm before.
        assert len(broker.peer.outbox) == 1
        if blocked:
            broker.peer.say(0, spec.Connection.Blocked("low on memory"))
            broker.peer.outbox.reverse()
        broker.peer.deliver()
        assert (client.state, sent.done(), len(broker.peers)) == (State.CLOSED, False, 1)
        mend(broker, login)
        assert (outcome(sent), broker.messages[-1]) == (None, "m1")


def test_a_connection_that_is_closed_since_the_credentials_have_expired_blames_no_message(broker: Broker) -> None:
    """However often: nothing is sent alone, or given up."""
    with expired(broker, republish_unconfirmed=True) as (client, login):
        futures = [client.publish("", "q", b"", {"message_id": f"m{number}"}) for number in range(3)]
        broker.clock.turn()
        broker.peer.close_connection(EXPIRED.code, str(EXPIRED))
        broker.peer.deliver()
        broker.clock.turn()
        assert (client.state, [each.done() for each in futures]) == (State.CLOSED, [False] * 3)
        mend(broker, login)
        assert [outcome(each) for each in futures] == [None] * 3


def test_what_is_stored_is_not_set_aside_over_credentials_that_have_expired(broker: Broker) -> None:
    """Neither when its exchange is checked, nor when its channel is closed; new publishes are stored behind it."""
    with tempfile.TemporaryDirectory() as path, expired(broker, outbox=path) as (client, login):
        futures = [client.publish("events", "key", b"", {"message_id": "m1"}, timeout=0.5)]
        broker.open()
        broker.clock.advance(6)
        futures.append(client.publish("", "q", b"", {"message_id": "m2"}))
        broker.clock.advance(0.1)
        assert [each.result() for each in futures] == [STORED] * 2
        for _ in range(3):
            broker.clock.advance(5)
            broker.open()
        assert (client.counters.set_aside, client.counters.stored) == (0, 2)
        mend(broker, login)
        assert (client.counters.set_aside, client.counters.stored) == (0, 0)
        assert sorted(broker.messages) == ["m1", "m2"]


def test_credentials_that_are_valid_make_a_refusal_the_messages_own(broker: Broker) -> None:
    """The user may not write to it: that is told, and the connection stays."""
    login = Fails()
    client = broker.ready(login)
    patched: Any = broker

    def refuse(_message: Published) -> None:
        raise EXPIRED

    patched.judge = refuse
    broker.clock.advance(15)
    refused = client.publish("events", "key", b"")
    broker.open()
    assert (outcome(refused), client.ready, len(broker.peers)) == (ExchangeRefused, True, 1)
