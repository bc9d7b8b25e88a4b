"""Settings: what they are, where they come from, and what is wrong with them.

Arguments come before ``AMQP_…`` variables, these before ``RABBITMQ_…``, these before the defaults; empty variables
count as unset.
"""

import dataclasses
import functools
import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pika

from .names import DEFAULT_NAME, check_name
from .text import SHORT_STRING_LIMIT, shown
from .wire.pika_insides import url_options
from .wire.tls import contradiction, read_options, verify

PREFIXES: Final = ("AMQP_", "RABBITMQ_")
DEFAULT_URL: Final = "amqp://guest:guest@localhost:5672/%2f"
DEFAULT_RECONNECT_DELAY: Final = 5
DEFAULT_CONNECTION_ATTEMPTS: Final = 3

#: pika's; see `node_parameters`.
URL_OPTIONS: Final = url_options()

#: pika's names in ssl_options for whom to trust; it wants one of them.
CA_OPTIONS: Final = ("ca_certs", "cafile", "ca_path", "capath", "ca_data", "cadata")

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


T = TypeVar("T")


def _forgetting(cls: type[T]) -> type[T]:
    """Have a class raise what is wrong with its arguments from a frame that holds none of them.

    A traceback may be shown with what its frames hold: error trackers do.
    """
    make = cls.__init__

    @functools.wraps(make)
    def forget(self: T, *given: Any, **named: Any) -> None:
        try:
            make(self, *given, **named)
            return
        except (TypeError, ValueError) as error:
            problem = error.with_traceback(None)
        finally:
            given, named = (), {}
        raise problem

    cls.__init__ = forget  # type: ignore[assignment]
    return cls


def _setting(default: Any, variable: str, convert: Callable[[Any], Any]) -> Any:
    return dataclasses.field(default=default, metadata={"variable": variable, "convert": convert})


def _url(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a URL such as amqp://user:password@host:5672/vhost")
    node_parameters(value)
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("must be a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError("must be a number") from None
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    return number


def _seconds(value: object) -> float:
    number = _number(value)
    if number < 0:
        raise ValueError("must be a number of seconds, 0 or more")
    return number


def _positive_seconds(value: object) -> float:
    number = _number(value)
    if number <= 0:
        raise ValueError("must be a number of seconds above 0")
    return number


def _count(value: object) -> int:
    number = _number(value)
    if number < 1 or number != int(number):
        raise ValueError("must be a whole number above 0")
    return int(number)


def _optional_count(value: object) -> int | None:
    return None if value is None else _count(value)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("must be true or false (also 1/0, yes/no, on/off)")
    return word in _TRUE


def _text(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("must be a str")
    if not _is_utf8(value):
        raise ValueError("must be a str that UTF-8 can hold, without lone surrogates")
    if len(value.encode()) > SHORT_STRING_LIMIT:
        raise ValueError(f"must have {SHORT_STRING_LIMIT} octets at the most")
    return value


@_forgetting
@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a client is told; every value was checked and has its type.

    Raises:
        ValueError: a value is bad; the sentence names the setting, where it came from, and what it must be.
    """

    url: str = _setting(DEFAULT_URL, "URL", _url)
    #: Seconds that a publish waits for ready, and an outage lasts before it counts as persistent; 0: never wait.
    timeout: float = _setting(10.0, "TIMEOUT", _seconds)
    #: Seconds to wait for a confirmation.
    confirm_timeout: float = _setting(30.0, "CONFIRM_TIMEOUT", _positive_seconds)
    #: Seconds before the first attempt to reconnect; doubled for each further one up to max_reconnect_delay.
    reconnect_delay: float = _setting(DEFAULT_RECONNECT_DELAY, "RECONNECT_DELAY", _positive_seconds)
    max_reconnect_delay: float = _setting(60.0, "MAX_RECONNECT_DELAY", _positive_seconds)
    #: Attempts to reach a single node before the client is closed and waits; of several nodes each is tried once.
    connection_attempts: int = _setting(DEFAULT_CONNECTION_ATTEMPTS, "CONNECTION_ATTEMPTS", _count)
    enable_confirmations: bool = _setting(True, "CONFIRMATIONS", _flag)
    fail_on_return: bool = _setting(False, "FAIL_ON_RETURN", _flag)
    republish_unconfirmed: bool = _setting(False, "REPUBLISH_UNCONFIRMED", _flag)
    #: Messages on the wire.
    max_unconfirmed: int = _setting(1000, "MAX_UNCONFIRMED", _count)
    #: Messages in line, and the octets of their bodies and properties.
    max_waiting: int = _setting(10000, "MAX_WAITING", _count)
    max_waiting_size: int = _setting(64 * 1024**2, "MAX_WAITING_SIZE", _count)
    #: The largest body in bytes; None: what RabbitMQ's version allows by default (`transport.Connection.body_limit`).
    max_message_size: int | None = _setting(None, "MAX_MESSAGE_SIZE", _optional_count)
    default_app_id: str | None = _setting(None, "APP_ID", _text)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _converted(field, getattr(self, field.name), f"argument {field.name}")
            if isinstance(value, ValueError):
                # What was not checked is not to be shown.
                vars(self).clear()
                raise value
            object.__setattr__(self, field.name, value)

    def __repr__(self) -> str:
        others = ", ".join(
            f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.name != "url"
        )
        return f"Settings(url={hide_password(self.url)!r}, {others})"


def prefixes(name: str = DEFAULT_NAME) -> tuple[str, ...]:
    """Return the prefixes of the variables of the client with this name; the first one wins."""
    return PREFIXES if name == DEFAULT_NAME else (f"{check_name(name).upper()}_",)


def from_environment(environ: Mapping[str, str] = os.environ, *, name: str = DEFAULT_NAME) -> dict[str, Any]:
    """Return the settings that the environment gives, checked, as keyword arguments of `Client`.

    ``name`` is that of one of several clients: ``"audit"`` has the variables ``AUDIT_URL``, ``AUDIT_TIMEOUT`` ...

    Raises:
        ValueError: a variable's value is bad; the sentence names the variable and what it must be.
    """
    found: dict[str, Any] = {}
    try:
        for field in dataclasses.fields(Settings):
            for variable in (prefix + field.metadata["variable"] for prefix in prefixes(name)):
                if environ.get(variable):
                    value = _converted(field, environ[variable], f"environment variable {variable}")
                    if isinstance(value, ValueError):
                        raise value
                    found[field.name] = value
                    break
        return found
    finally:
        # A traceback may be shown with what its frames hold.
        value = None
        found, environ = {}, {}


def _converted(field: "dataclasses.Field[Any]", value: object, origin: str) -> Any:
    """Return the setting, or the ValueError about it, which no frame that holds the value has raised."""
    try:
        return field.metadata["convert"](value)
    except ValueError as error:
        given = "" if field.name == "url" else f", not {shown(repr(value), 80)}"
        return ValueError(f"{field.name} ({origin}) {error}{given}")


def node_parameters(url: str) -> list[pika.URLParameters]:
    """Parse a URL that may name several nodes, into pika's parameters of each.

    Nodes are comma separated, with credentials and vhost once (``amqp://user:password@one,two:5673/vhost``) or each
    (``amqp://user:password@one/vhost,amqp://…``). Options after ``?`` are pika's
    (https://pika.readthedocs.io/en/stable/modules/parameters.html#urlparameters).

    Raises:
        ValueError: a part cannot be understood; the sentence never shows a password.
    """
    try:
        if not _is_utf8(url):
            raise ValueError("has an octet that is not UTF-8: percent-encode it")
        return [_parameters(node) for part in re.split(r",(?=amqps?://)", url) for node in _nodes(part)]
    except ValueError as error:
        problem = str(error)
    finally:
        # A traceback may be shown with what its frames hold.
        url = ""
    raise ValueError(problem)


def _is_utf8(text: str) -> bool:
    """Tell whether UTF-8 can hold it: Python reads an environment's other octets as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def node_name(node: pika.URLParameters) -> str:
    """Name a node by its host and port, an IPv6 address in brackets so that the port can be told from it."""
    return f"[{node.host}]:{node.port}" if ":" in node.host else f"{node.host}:{node.port}"


_URL: Final = re.compile(r"(?P<scheme>amqps?)://(?P<netloc>[^/?#]*)(?P<rest>.*)", re.DOTALL)


def _nodes(url: str) -> list[str]:
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError("must begin with amqp:// or amqps://")
    credentials = ""
    nodes = []
    places = match["netloc"].split(",")
    for place in places:
        own, at, host = place.rpartition("@")
        if not host and len(places) > 1:
            raise ValueError("names a node without a host: nodes are separated by single commas")
        credentials = own + at or credentials
        nodes.append(f"{match['scheme']}://{credentials}{host}{match['rest']}")
    return nodes


def _parameters(url: str) -> pika.URLParameters:
    node, _, query = url.partition("?")
    try:
        parts = urlsplit(node)
        # A password with an unescaped character would silently change what is meant.
        if "#" in url or "@" in parts.path + query or parts.netloc.count("@") > 1 or parts.port == 0:
            raise ValueError
        without_password = parts.username is not None and parts.password is None
        # pika stumbles over a user without a password.
        parameters = pika.URLParameters("amqp://" if without_password else node)
    except Exception:
        # Without a cause: pika and urllib quote the password.
        raise ValueError(
            "is no AMQP URL: write amqp://user:password@host:port/vhost, and percent-encode the characters /?#@:,% "
            "in user, password and vhost (/ is %2f)"
        ) from None
    if without_password:
        raise ValueError("names a user without a password: write amqp://user:password@host")
    if parts.path.count("/") > 1:
        raise ValueError("has more than one / in its vhost: percent-encode it (/ is %2f)")
    if query:
        _check_options(node, query)
        parameters = pika.URLParameters(url)
        if parameters.ssl_options is not None:
            verify(parameters.ssl_options.context, read_options(dict(parse_qsl(query)).get("ssl_options", "")))
    return parameters


def _check_options(node: str, query: str) -> None:
    """Name the option that is bad; one that pika does not know is not shown, as it may be a part of a password."""
    try:
        options = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        raise ValueError("must have options after ? as name=value&name=value") from None
    names = [name for name, _ in options]
    if not set(names) <= URL_OPTIONS:
        raise ValueError(f"has an option after ? that is not known; there are {', '.join(sorted(URL_OPTIONS))}")
    for name, value in options:
        if names.count(name) > 1:
            raise ValueError(f"has the option {name} more than once")
        try:
            # pika leaves out what is empty.
            pika.URLParameters(f"{node}?{urlencode({name: value or '?'})}")
            problem = contradiction(read_options(value)) if name == "ssl_options" else ""
        except Exception as error:
            # ssl_options can hold the password of a key.
            problem = _tls_trouble(value, error) if name == "ssl_options" else f"{value!r:.80}"
        if problem:
            raise ValueError(f"has a bad option {name}: {problem}")


def _tls_trouble(value: str, error: Exception) -> str:
    """Say what is wrong with ssl_options, without a word of what they hold."""
    options = read_options(value)
    if options and not any(options.get(name) for name in CA_OPTIONS):
        return (
            "names nobody to trust: add 'ca_certs': '/path/to/authorities.pem', the certificates of those who sign "
            "the node's, beside certfile and keyfile, which are the client's own"
        )
    return type(error).__name__


def hide_password(url: str) -> str:
    """Return the URL with every password replaced by ``***``, for logs and people; ssl_options may hold one."""
    url = re.sub(r"(?<=[?&])([^=&]*=).*?(?=&|,amqps?://|$)", _hide_option, url, flags=re.DOTALL)
    return re.sub(r"(?<=//)[^/?#]*@|(?<=,)[^/?#,]*@", _hide, url)


def _hide_option(match: re.Match[str]) -> str:
    """Hide ssl_options, however its name is written, and what is no option."""
    harmless = unquote(match[1][:-1]) in URL_OPTIONS - {"ssl_options"}
    return match[0] if harmless else f"{match[1]}***"


def _hide(match: re.Match[str]) -> str:
    return re.sub(r"([^,:@]*):[^,@]*@", r"\1:***@", match[0])
