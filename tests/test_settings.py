"""Settings: where they come from, and what is said about bad ones."""

import dataclasses
import re
import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika.credentials import PlainCredentials
from tornado.web import Application

import sprockets_amqp
from sprockets_amqp.client import Client
from sprockets_amqp.handlers import install as _install
from sprockets_amqp.settings import DEFAULT_URL, PREFIXES, Settings, from_environment
from sprockets_amqp.urls import hide_password, node_parameters
from sprockets_amqp.wire.tls import TLS
from tests.support.certificates import Authority

FOLDER = str(Path(__file__).parent)
#: Each setting: its variable, what is written there, what it becomes, and its default.
SETTINGS: dict[str, tuple[str, str, Any, Any]] = {
    "url": ("URL", "amqp://u:p@host/v", "amqp://u:p@host/v", DEFAULT_URL),
    "timeout": ("TIMEOUT", "2.5", 2.5, 10.0),
    "confirm_timeout": ("CONFIRM_TIMEOUT", "7", 7.0, 30.0),
    "reconnect_delay": ("RECONNECT_DELAY", "0.5", 0.5, 5.0),
    "max_reconnect_delay": ("MAX_RECONNECT_DELAY", "90", 90.0, 60.0),
    "connection_attempts": ("CONNECTION_ATTEMPTS", "4", 4, 3),
    "enable_confirmations": ("CONFIRMATIONS", "off", False, True),
    "fail_on_return": ("FAIL_ON_RETURN", "Yes", True, False),
    "persistent": ("PERSISTENT", "1", True, False),
    "republish_unconfirmed": ("REPUBLISH_UNCONFIRMED", "1", True, False),
    "max_unconfirmed": ("MAX_UNCONFIRMED", "5", 5, 1000),
    "max_unconfirmed_size": ("MAX_UNCONFIRMED_SIZE", "8", 8, 64 * 1024**2),
    "max_routes": ("MAX_ROUTES", "9", 9, 100),
    "max_routes_size": ("MAX_ROUTES_SIZE", "10", 10, 4096),
    "max_waiting": ("MAX_WAITING", "6", 6, 10000),
    "max_waiting_size": ("MAX_WAITING_SIZE", "7", 7, 64 * 1024**2),
    "max_message_size": ("MAX_MESSAGE_SIZE", "1024", 1024, None),
    "default_app_id": ("APP_ID", "mine/2", "mine/2", None),
    "outbox": ("OUTBOX", FOLDER, FOLDER, None),
    "outbox_limit": ("OUTBOX_LIMIT", "4096", 4096, 1024**3),
    "recorder": ("RECORDER", FOLDER, FOLDER, None),
    "recorder_size": ("RECORDER_SIZE", "65536", 65536, 8 * 1024**2),
    "recorder_files": ("RECORDER_FILES", "2", 2, 8),
    "auth": ("AUTH", "plain", "plain", None),
    "tls_ca": ("TLS_CA", "/ca.pem", "/ca.pem", None),
    "tls_certificate": ("TLS_CERTIFICATE", "/app.pem", "/app.pem", None),
    "tls_key": ("TLS_KEY", "/app.key", "/app.key", None),
}
SECRET = "s3cr3t"

each_setting = pytest.mark.parametrize("name", SETTINGS)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without any variable of ours."""
    for prefix in PREFIXES:
        for variable, *_ in SETTINGS.values():
            monkeypatch.delenv(prefix + variable, raising=False)


def test_every_setting_is_listed() -> None:
    """No setting is left out of these tests, and the defaults are the documented ones."""
    assert {field.name: field.default for field in dataclasses.fields(Settings) if field.metadata["variable"]} == {
        name: default for name, (*_, default) in SETTINGS.items()
    }


@each_setting
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_variable_is_read(name: str, prefix: str) -> None:
    """Each setting is read from a variable of either prefix, as its type."""
    variable, text, value, _ = SETTINGS[name]
    found = from_environment({prefix + variable: text})
    assert found == {name: value}
    assert type(found[name]) is type(value)


@each_setting
def test_amqp_comes_before_rabbitmq(name: str) -> None:
    """Of two variables the one that begins with AMQP_ counts, and the other is not even looked at."""
    variable, text, value, _ = SETTINGS[name]
    assert from_environment({f"AMQP_{variable}": text, f"RABBITMQ_{variable}": ""}) == {name: value}
    other = {f"AMQP_{variable}": text, f"RABBITMQ_{variable}": "amqp://other/other"}
    assert from_environment(other) == {name: value}


@each_setting
def test_an_empty_variable_counts_as_unset(name: str) -> None:
    """An empty AMQP_ variable leaves the word to RABBITMQ_, and two empty ones to the default."""
    variable, text, value, _ = SETTINGS[name]
    assert from_environment({f"AMQP_{variable}": "", f"RABBITMQ_{variable}": text}) == {name: value}
    assert from_environment({f"AMQP_{variable}": "", f"RABBITMQ_{variable}": ""}) == {}


@each_setting
async def test_arguments_come_before_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """install() takes the argument, then AMQP_, then RABBITMQ_, then the default."""
    variable, text, value, default = SETTINGS[name]
    made: list[dict[str, Any]] = []

    def client(*, io_loop: object, name: str, **settings: Any) -> None:
        made.append(settings)

    monkeypatch.setattr(_install, "Client", client)
    monkeypatch.setattr(_install, "isinstance", lambda *_args: False, raising=False)
    application = Application()
    argument = default if default is not None else value

    def installed(**kwargs: Any) -> Any:
        application.amqp = None  # type: ignore[attr-defined]
        assert _install.install(application, **kwargs)
        # Files of TLS are read where it is made, and there are none.
        return made[-1].get(name, default) if name.startswith("tls_") else getattr(Settings(**made[-1]), name)

    unset = f"sprockets_amqp/{sprockets_amqp.__version__}" if name == "default_app_id" else default
    assert installed() == unset
    monkeypatch.setenv(f"RABBITMQ_{variable}", text)
    assert installed() == value
    monkeypatch.setenv(f"AMQP_{variable}", text)
    assert installed() == value
    assert installed(**{name: argument}) == argument


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, True) for word in ("true", "TRUE", "1", "yes", "Yes", "on", " on ")],
        *[(word, False) for word in ("false", "False", "0", "no", "NO", "off")],
    ],
)
def test_flags_are_written_as_people_write_them(text: str, value: bool) -> None:
    """Flags are true, false, 1, 0, yes, no, on and off in any case."""
    assert from_environment({"AMQP_FAIL_ON_RETURN": text}) == {"fail_on_return": value}


def test_a_timeout_of_zero_is_never_to_wait() -> None:
    """A timeout may be 0; other times may not."""
    assert Settings(timeout=0).timeout == 0


BAD: list[tuple[str, Any]] = [
    *[("timeout", value) for value in (-1, "-0.1", "soon", "nan", "inf", None, True, [1], 10**400)],
    *[
        (name, value)
        for name in ("confirm_timeout", "reconnect_delay", "max_reconnect_delay")
        for value in [0, -1, "0", "abc", "nan", None, False]
    ],
    *[
        (name, value)
        for name in (
            "connection_attempts",
            "max_unconfirmed",
            "max_unconfirmed_size",
            "max_routes",
            "max_routes_size",
            "max_waiting",
            "max_waiting_size",
        )
        for value in [0, -3, 1.5, "1.5", "many", None, True, float("inf")]
    ],
    *[("max_message_size", value) for value in (0, -1, "big", 2.5)],
    *[
        (name, value)
        for name in ("enable_confirmations", "fail_on_return", "republish_unconfirmed")
        for value in ("maybe", 2, "", None, "y e s", "2")
    ],
    *[("default_app_id", value) for value in (1, b"app", "x" * 256, "ä" * 128, "\ud800")],
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=[f"{number}-{name}" for number, (name, _) in enumerate(BAD)])
def test_a_bad_argument_is_named(name: str, value: Any) -> None:
    """A bad argument is a ValueError that names the setting, the origin, what it must be, and the value."""
    with pytest.raises(ValueError, match=re.escape(f"{name} (argument {name}) must ")) as caught:
        Settings(**{name: value})
    assert repr(value)[:40] in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("name", "text"),
    [(name, value) for name, value in BAD if isinstance(value, str) and value],
    ids=[f"{number}-{name}" for number, (name, value) in enumerate(BAD) if isinstance(value, str) and value],
)
def test_a_bad_variable_is_named(name: str, text: str, prefix: str) -> None:
    """A bad variable is a ValueError that names the setting, the variable, what it must be, and the value."""
    variable = prefix + SETTINGS[name][0]
    with pytest.raises(ValueError, match=re.escape(f"{name} (environment variable {variable}) must ")) as caught:
        from_environment({variable: text})
    assert repr(text)[:40] in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("connection_attempts", 0), ("reconnect_delay", -1), ("url", "http://h")])
async def test_a_client_refuses_a_bad_setting(name: str, value: Any) -> None:
    """A client with a bad setting is not made."""
    arguments: dict[str, Any] = {"url": DEFAULT_URL, name: value}
    with pytest.raises(ValueError, match=f"^{name} "):
        Client(**arguments)


# URLs

BAD_URLS = {
    "no scheme": f"user:{SECRET}@host/v",
    "another scheme": f"http://user:{SECRET}@host/v",
    "empty": "",
    "no text": 5,
    "no password": "amqp://user@host/v",
    "no password, second node": f"amqp://user:{SECRET}@host,other@host2/v",
    "# in the password": f"amqp://user:{SECRET}#1@host/v",
    "/ in the password": f"amqp://user:{SECRET}/1@host/v",
    "? in the password": f"amqp://user:{SECRET}?1@host/v",
    "? after digits in the password": f"amqp://user:12?{SECRET}@host/v",
    "@ in the password": f"amqp://user:{SECRET}@1@host/v",
    ": in the password": f"amqp://user:{SECRET}@host:{SECRET}/v",
    ", after digits in the password": f"amqp://user:1,{SECRET}@host/v",
    ", in the user": f"amqp://us,er:{SECRET}@host/v",
    "blank at the end": f"amqp://user:{SECRET}@host/v ",
    "line end": f"amqp://user:{SECRET}@host/v\n",
    "line end in an option": f"amqp://user:{SECRET}@host/v?heartbeat=5\n&locale=x",
    "blank in the middle": f"amqp://user:{SECRET}@one, two/v",
    "zone": f"amqp://user:{SECRET}@[fe80::1%25eth0]/v",
    "long vhost": f"amqp://user:{SECRET}@host/{'x' * 256}",
    "time without end": f"amqp://user:{SECRET}@host/v?stack_timeout=inf",
    "time that is no number": f"amqp://user:{SECRET}@host/v?blocked_connection_timeout=nan",
    "auth that is none": f"amqps://host/v?auth={SECRET[:3]}",
    "auth twice": "amqps://host/v?auth=external&auth=external",
    "auth by certificate, and a user": f"amqps://user:{SECRET}@host/v?auth=external",
    "auth by certificate, and a user alone": "amqps://user@host/v?auth=external",
    "auth by certificate without TLS": "amqp://host/v?auth=external",
    "heartbeat of a week": f"amqp://user:{SECRET}@host/v?heartbeat=600000",
    "TCP option that is no int": f"amqp://user:{SECRET}@host/v?tcp_options={{'TCP_KEEPIDLE':'60'}}",
    "TCP option that is too large": f"amqp://user:{SECRET}@host/v?tcp_options={{'TCP_KEEPIDLE':{2**40}}}",
    "property that AMQP cannot encode": f"amqp://user:{SECRET}@host/v?client_properties={{'a':0.5}}",
    "long locale": f"amqp://user:{SECRET}@host/v?locale={'x' * 256}",
    "? in the password, looking like an option": f"amqp://user:12?{SECRET}=1",
    "port 0": f"amqp://user:{SECRET}@host:0/v",
    "port too large": f"amqp://user:{SECRET}@host:65536/v",
    "/ in the vhost": f"amqp://user:{SECRET}@host/a/b",
    "unclosed bracket": f"amqp://user:{SECRET}@[::1/v",
    "empty node": f"amqp://user:{SECRET}@one,,two/v",
    "comma at the end": f"amqp://user:{SECRET}@one,/v",
    "unknown option": f"amqp://user:{SECRET}@host/v?colour=blue",
    "option without a value": f"amqp://user:{SECRET}@host/v?heartbeat",
    "option twice": f"amqp://user:{SECRET}@host/v?heartbeat=1&heartbeat=2",
    "bad option": f"amqp://user:{SECRET}@host/v?heartbeat=abc",
    "empty option": f"amqp://user:{SECRET}@host/v?heartbeat=",
    "bad frame size": f"amqp://user:{SECRET}@host/v?frame_max=1",
    "bad code in an option": f"amqp://user:{SECRET}@host/v?tcp_options=__import__('os')",
    "no authority to trust": f"amqps://host/v?ssl_options=%7B'certfile'%3A'/nowhere','password'%3A'{SECRET}'%7D",
    "no dict of ssl_options": f"amqps://host/v?ssl_options='{SECRET}'",
    "ssl_options that are no Python": f"amqps://host/v?ssl_options=%7B{SECRET}",
    "octet that is not UTF-8": f"amqp://user:{SECRET}\udcff@host/v",
    "certificate that is not there": "amqps://host/v?ssl_options="
    f"%7B'ca_certs'%3A'/nowhere','certfile'%3A'/nowhere','password'%3A'{SECRET}'%7D",
}


@pytest.mark.parametrize("url", BAD_URLS.values(), ids=BAD_URLS)
def test_a_bad_url_is_refused_without_its_password(url: Any) -> None:
    """Each trap in a URL is a ValueError that names the setting and its origin and never shows a password."""
    with pytest.raises(ValueError, match=r"^url \(argument url\) ") as caught:
        Settings(url=url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
    if url and isinstance(url, str):
        with pytest.raises(ValueError, match=r"^url \(environment variable RABBITMQ_URL\) ") as caught:
            from_environment({"RABBITMQ_URL": url})
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (BAD_URLS["no scheme"], "must begin with amqp:// or amqps://"),
        (BAD_URLS["no password"], "names a user without a password: write amqp://user:password@host"),
        (
            BAD_URLS["/ in the password"],
            "is not an AMQP URL: write amqp://user:password@host:port/vhost, and percent-encode the characters /?#@:,%",
        ),
        (BAD_URLS["/ in the vhost"], "has more than one / in its vhost: percent-encode it"),
        (BAD_URLS["empty node"], "names a node without a host"),
        (BAD_URLS["bad option"], "has a bad option heartbeat: 'abc'"),
        (BAD_URLS["auth that is none"], "has a bad option auth: 's3c', which must be plain or external"),
        (BAD_URLS["auth twice"], "has the option auth more than once"),
        (BAD_URLS["auth by certificate, and a user"], "names a user, but with auth=external the client's certificate "),
        (BAD_URLS["auth by certificate, and a user alone"], "names a user, but with auth=external the client's "),
        (BAD_URLS["auth by certificate without TLS"], "must begin with amqps:// with auth=external: the certificate"),
        (BAD_URLS["option twice"], "has the option heartbeat more than once"),
        (BAD_URLS["option without a value"], "must have options after ? in the form name=value&name=value"),
        (
            BAD_URLS["unknown option"],
            "has an unknown option after ?; the known ones are auth, blocked_",
        ),
        (
            BAD_URLS["no authority to trust"],
            "has a bad option ssl_options: names no authority to trust: add 'ca_certs': '/path/to/authorities.pem', ",
        ),
        (BAD_URLS["octet that is not UTF-8"], "has an octet that is not UTF-8: percent-encode it"),
        (BAD_URLS["no dict of ssl_options"], "has a bad option ssl_options: AttributeError"),
        (BAD_URLS["ssl_options that are no Python"], "has a bad option ssl_options: SyntaxError"),
        (BAD_URLS["certificate that is not there"], "has a bad option ssl_options: ca_certs '/nowhere"),
    ],
)
def test_a_bad_url_is_answered_with_what_to_do(url: str, says: str) -> None:
    """The sentence says what is wrong with this one."""
    with pytest.raises(ValueError, match=re.escape(f"url (argument url) {says}")):
        Settings(url=url)


def nodes(url: str) -> list[tuple[str, int, str, str, str]]:
    """Parse a URL into host, port, user, password and vhost of each node."""
    found = []
    for node in node_parameters(url):
        assert isinstance(node.credentials, PlainCredentials)
        found.append((node.host, node.port, node.credentials.username, node.credentials.password, node.virtual_host))
    return found


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (DEFAULT_URL, [("localhost", 5672, "guest", "guest", "/")]),
        ("amqp://", [("localhost", 5672, "guest", "guest", "/")]),
        ("amqp://host", [("host", 5672, "guest", "guest", "/")]),
        ("amqp://u:p%2F%3F%23%40%3A%2C@h:1/a%2Fb", [("h", 1, "u", "p/?#@:,", "a/b")]),
        ("amqp://u:p@[::1]:5673/v", [("::1", 5673, "u", "p", "v")]),
        ("amqps://h/v", [("h", 5671, "guest", "guest", "v")]),
        ("amqp://u:p@one,two:5673/v", [("one", 5672, "u", "p", "v"), ("two", 5673, "u", "p", "v")]),
        ("amqp://u:p@one,x:y@two/v", [("one", 5672, "u", "p", "v"), ("two", 5672, "x", "y", "v")]),
        ("amqp://u:p@one/v,amqp://x:y@two/w", [("one", 5672, "u", "p", "v"), ("two", 5672, "x", "y", "w")]),
        ("amqp://u:p,w@one,two/v", [("one", 5672, "u", "p,w", "v"), ("two", 5672, "u", "p,w", "v")]),
        ("amqp://u:p@one,x:q,r@two/v", [("one", 5672, "u", "p", "v"), ("two", 5672, "x", "q,r", "v")]),
        ("amqp://u:p,w@[::1]:1,[::2]/v", [("::1", 1, "u", "p,w", "v"), ("::2", 5672, "u", "p,w", "v")]),
        ("amqp://u:p@one,two?heartbeat=7", [("one", 5672, "u", "p", "/"), ("two", 5672, "u", "p", "/")]),
    ],
)
def test_a_url_names_one_node_or_several(url: str, expected: list[Any]) -> None:
    """Nodes are comma separated, with credentials and vhost once or each."""
    assert nodes(url) == expected


def test_options_are_every_nodes() -> None:
    """What stands after ? holds for each node before it."""
    parsed = node_parameters("amqp://one,two/v?heartbeat=7&blocked_connection_timeout=3")
    assert [(node.heartbeat, node.blocked_connection_timeout) for node in parsed] == [(7, 3), (7, 3)]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://user:s3cr3t@host/v", "amqp://user:***@host/v"),
        ("amqp://user:s3cr3t@one,other:s3cr3t@two/v", "amqp://user:***@one,other:***@two/v"),
        ("amqp://user:s3,cr3t@one,two/v", "amqp://user:***@one,two/v"),
        ("amqp://user:s3/cr3t@one/v", "amqp://***@one/v"),
        ("amqp://user:s3#cr3t@one", "amqp://***@one"),
        ("amqp://user:12?heartbeat=s3cr3t@one", "amqp://***@one"),
        ("amqp://one/v,AMQP://user:s3/cr3t@two", "amqp://one/v,AMQP://***@two"),
        ("amqp://user:s3cr3t@one/v,amqps://other:s3cr3t@two/v", "amqp://user:***@one/v,amqps://other:***@two/v"),
        ("amqp://:s3cr3t@host", "amqp://:***@host"),
        ("amqp://host/v", "amqp://host/v"),
        (
            "amqps://u:s3cr3t@h?ssl_options={'certfile':'a','password':'s3cr3t'}&heartbeat=3,amqp://x:s3cr3t@z",
            "amqps://u:***@h?ssl_options=***&heartbeat=3,amqp://x:***@z",
        ),
        ("amqps://h?heartbeat=3&ssl_options=%7B's3cr3t'%7D", "amqps://h?heartbeat=3&ssl_options=***"),
        ("amqps://h?ssl%5Foptions=s3cr3t&heartbeat=3", "amqps://h?ssl%5Foptions=***&heartbeat=3"),
        ("amqps://h?heart%62eat=3&%73sl_options=s3cr3t,amqp://z", "amqps://h?heart%62eat=3&%73sl_options=***,amqp://z"),
        ("amqps://h?unknown=s3cr3t", "amqps://h?unknown=***"),
    ],
)
def test_passwords_are_hidden_from_people(url: str, shown: str) -> None:
    """Every password of a URL is replaced where people see it, that of a key included."""
    assert hide_password(url) == shown


# Each that is amqps reads all authorities that the machine trusts.
@settings(max_examples=settings().max_examples // 2)
@given(
    user=st.text("abc%2F.-", max_size=5),
    hosts=st.lists(st.sampled_from(["one", "two:5673", "[::1]", "other:s3cr3t@three"]), max_size=3),
    scheme=st.sampled_from(["amqp", "amqps"]),
    rest=st.sampled_from(["", "/", "/v", "/%2f", "?heartbeat=3", "/v?heartbeat=3"]),
)
def test_no_url_shows_its_password(user: str, hosts: list[str], scheme: str, rest: str) -> None:
    """However a URL is put together, its passwords are in no repr."""
    url = f"{scheme}://{user}:{SECRET}@{','.join(['first', *hosts])}{rest}"
    assert SECRET not in hide_password(url)
    assert SECRET not in repr(Settings(url=url))


def test_settings_are_shown_without_the_password() -> None:
    """The repr of settings has all of them, and *** for the password."""
    shown = repr(Settings(url=f"amqp://user:{SECRET}@host/v", timeout=3))
    assert shown.startswith("Settings(url='amqp://user:***@host/v', timeout=3.0, ")
    assert all(f"{name}=" in shown for name in SETTINGS)
    assert SECRET not in shown


def test_an_unknown_setting_is_refused() -> None:
    """A setting that is misspelt is a TypeError that names it."""
    with pytest.raises(TypeError, match="reconect_delay"):
        Settings(reconect_delay=3)  # type: ignore[call-arg]


# Tracebacks, as error trackers show them: with what their frames hold


def shown_with_locals(error: BaseException) -> str:
    """What the frames of a traceback hold but the first, which is the test's, and those of the errors before it."""
    pieces = [str(error)]
    before = [error.__cause__, error.__context__]
    frame = error.__traceback__.tb_next if error.__traceback__ else None
    while frame is not None:
        pieces += map(repr, frame.tb_frame.f_locals.values())
        frame = frame.tb_next
    return "\n".join(pieces + [shown_with_locals(each) for each in before if each is not None])


GOOD_URL = f"amqp://user:{SECRET}@host/v"


@pytest.mark.parametrize("url", [url for url in BAD_URLS.values() if url and isinstance(url, str)])
def test_no_frame_that_raises_holds_a_bad_url(url: str) -> None:
    """Whoever was given it: settings, a client, an application, or the parser."""
    for refuse in (
        lambda: Settings(url=url),
        lambda: Client(url),
        lambda: _install.install(Application(), url=url),
        lambda: from_environment({"AMQP_URL": url}),
        lambda: node_parameters(url),
    ):
        with pytest.raises(ValueError, match=r"^(url \(|must|has|names|is no)") as caught:
            refuse()
        # The lambda's own frame comes first.
        assert caught.tb.tb_next is not None
        assert SECRET not in shown_with_locals(caught.value.with_traceback(caught.tb.tb_next))


@pytest.mark.parametrize(("name", "value", "kind"), [("timeout", "soon", ValueError), ("reconect_delay", 3, TypeError)])
def test_no_frame_that_raises_over_another_setting_holds_a_good_url(
    name: str, value: Any, kind: type[Exception]
) -> None:
    """A password that nothing is wrong with is as secret."""
    with pytest.raises(kind) as caught:
        Settings(**{"url": GOOD_URL, name: value})
    assert SECRET not in shown_with_locals(caught.value)
    with pytest.raises(kind) as caught:
        Client(GOOD_URL, **{name: value})
    assert SECRET not in shown_with_locals(caught.value)
    with pytest.raises(kind) as caught:
        _install.install(Application(), url=GOOD_URL, **{name: value})
    assert SECRET not in shown_with_locals(caught.value)


@pytest.mark.parametrize("given", [{"timeout": -1}, {"nonsense": 1}, {"setup": 3}, {"name": "no name!"}])
def test_no_frame_of_install_holds_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    """Whatever is wrong with an argument."""
    monkeypatch.setenv("AMQP_URL", GOOD_URL)
    with pytest.raises((ValueError, TypeError)) as caught:
        _install.install(Application(), **given)
    assert SECRET not in shown_with_locals(caught.value)


def test_no_frame_holds_the_environment() -> None:
    """Neither what was read before the bad variable, nor what it was read from."""
    with pytest.raises(ValueError, match="AMQP_TIMEOUT") as caught:
        from_environment({"AMQP_URL": GOOD_URL, "AMQP_TIMEOUT": "soon"})
    assert SECRET not in shown_with_locals(caught.value)


def test_what_could_not_be_made_can_be_shown() -> None:
    """Error trackers show the client whose constructor raised."""
    client = Client.__new__(Client)
    with pytest.raises(ValueError, match="has a bad option heartbeat"):
        client.__init__(BAD_URLS["bad option"])  # type: ignore[misc]
    assert repr(client) == "<Client Idle without settings>"


@pytest.mark.parametrize(
    ("option", "hint", "heartbeat"),
    [
        ("heartbeat_interval=7", "heartbeat_interval in an AMQP URL is called heartbeat now", 7),
        ("backpressure_detection=t", "backpressure_detection in an AMQP URL has no effect any more", None),
    ],
)
def test_an_option_of_an_old_pika_is_taken_with_a_warning(option: str, hint: str, heartbeat: int | None) -> None:
    """Beside others."""
    with pytest.warns(FutureWarning, match=hint):
        (node,) = node_parameters(f"amqp://host?{option}&stack_timeout=3")
    assert (node.heartbeat, node.stack_timeout) == (heartbeat, 3)


def test_the_dot_that_ends_an_absolute_name_is_not_sent_to_the_server(tmp_path: Path) -> None:
    """No certificate has it; a name that is given is kept."""
    authority = Authority(tmp_path).certificate
    names = {
        "amqps://rabbit.test.": "rabbit.test",
        "amqps://rabbit.test": "rabbit.test",
        "amqps://rabbit.test.?ssl_options={'ca_certs':'%s','server_hostname':'other.'}": "other.",
    }
    for url, name in names.items():
        (node,) = node_parameters(url.replace("%s", str(authority)))
        assert node.ssl_options is not None and node.ssl_options.server_hostname == name
    (node,) = node_parameters("amqps://rabbit.test.", TLS(context=ssl.create_default_context()))
    assert (node.host, node.ssl_options and node.ssl_options.server_hostname) == ("rabbit.test.", "rabbit.test")


def test_a_str_that_refers_to_something_is_not_kept() -> None:
    """A setting is what its characters say."""

    class Text(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "something else"

    assert type(Settings(default_app_id=Text("app")).default_app_id) is str
    assert Settings(default_app_id=Text("app")).default_app_id == "app"
