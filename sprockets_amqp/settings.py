"""Settings: what they are, where they come from, and what is wrong with them.

Arguments take precedence over ``AMQP_…`` variables, these over ``RABBITMQ_…``, and these over the defaults. Empty
variables count as unset.
"""

import dataclasses
import functools
import importlib.util
import math
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar

from .names import DEFAULT_NAME, check_name
from .secret import all_hidden, all_revealed, hidden, reveal
from .text import SHORT_STRING_LIMIT, function_name, plain, shown
from .urls import check_database, hide_password, is_database, is_utf8, may_hold_password, node_parameters
from .wire.login import AUTH
from .wire.tls import TLS

PREFIXES: Final = ("AMQP_", "RABBITMQ_")
DEFAULT_URL: Final = "amqp://guest:guest@localhost:5672/%2f"
DEFAULT_RECONNECT_DELAY: Final = 5
DEFAULT_CONNECTION_ATTEMPTS: Final = 3
#: A recorder's file holds some minutes, at least.
SMALLEST_FILE: Final = 64 * 1024

if TYPE_CHECKING:
    from .access import Access

#: The URL, or a function that returns it.
URL = str | Callable[[], "str | Access | Awaitable[str | Access]"]

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


T = TypeVar("T")


class MoreSettings(TypedDict, total=False):
    """The settings that `Client` takes by name alone, as a type checker sees them; `Settings` documents them."""

    timeout: float
    confirm_timeout: float
    max_reconnect_delay: float
    fail_on_return: bool
    persistent: bool
    republish_unconfirmed: bool
    max_unconfirmed: int
    max_unconfirmed_size: int
    max_routes: int
    max_routes_size: int
    max_waiting: int
    max_waiting_size: int
    max_message_size: int | None
    outbox: str | os.PathLike[str] | None
    outbox_limit: int
    recorder: str | os.PathLike[str] | None
    recorder_size: int
    recorder_files: int
    auth: str | None
    tls_ca: str | os.PathLike[str] | None
    tls_certificate: str | os.PathLike[str] | None
    tls_key: str | os.PathLike[str] | None
    tls_context: ssl.SSLContext | None


def _hiding(cls: type[T]) -> type[T]:
    """Make a class hide its arguments from the frames that raise errors about them."""
    make = cls.__init__

    @functools.wraps(make)
    def hide(self: T, *given: Any, **named: Any) -> None:
        given, named = tuple(map(hidden, given)), all_hidden(named)
        make(self, *given, **named)

    cls.__init__ = hide  # type: ignore[assignment]
    return cls


def _setting(default: Any, variable: str, convert: Callable[[Any], Any]) -> Any:
    return dataclasses.field(default=default, metadata={"variable": variable, "convert": convert})


def _url(value: object) -> URL:
    if callable(value) and not isinstance(value, type):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError("must be a URL such as amqp://user:password@host:5672/vhost, or a function that returns one")
    node_parameters(value)
    return value


def _path(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or not os.fspath(value) or isinstance(os.fspath(value), bytes):
        raise ValueError("must be the path of a file")
    return str(os.fspath(value))


def _folder(value: object) -> str | None:
    path = _path(value)
    if path is None:
        return None
    if not _is_there(path):
        raise ValueError("must be an existing folder")
    return _writable(path)


def _outbox(value: object) -> str | None:
    if isinstance(value, str) and is_database(value):
        check_database(value)
        return value
    return _folder(value)


def _new_folder(value: object) -> str | None:
    path = _path(value)
    if path is None:
        return None
    if not _is_there(path):
        parent = str(Path(path).absolute().parent)
        if os.path.lexists(path) or not _is_there(parent):
            raise ValueError("must be a folder, or a new one in an existing folder")
        _writable(parent)
        return str(Path(path).absolute())
    return _writable(path)


def _is_there(path: str) -> bool:
    if importlib.util.find_spec("fcntl") is None:
        raise ValueError("needs a system with POSIX file locks")
    try:
        return Path(path).is_dir()
    except OSError as error:
        # For example, the path is too long.
        raise ValueError(f"must be an existing folder ({error.strerror})") from None


def _writable(path: str) -> str:
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise ValueError("must be a folder that this process can write to")
    return str(Path(path).absolute())


def _auth(value: object) -> str | None:
    if value is not None and value not in AUTH:
        raise ValueError(f"must be {' or '.join(AUTH)}")
    return None if value is None else str(value)


def _context(value: object) -> ssl.SSLContext | None:
    if value is not None and not isinstance(value, ssl.SSLContext):
        raise ValueError("must be an ssl.SSLContext")
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


def _file_size(value: object) -> int:
    size = _count(value)
    if size < SMALLEST_FILE:
        raise ValueError(f"must be a number of bytes, {SMALLEST_FILE} or more")
    return size


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
    if not is_utf8(value):
        raise ValueError("must be a str that UTF-8 can encode, without lone surrogates")
    if len(value.encode()) > SHORT_STRING_LIMIT:
        raise ValueError(f"must have at most {SHORT_STRING_LIMIT} octets")
    # A class of the application's may refer to anything.
    return str(plain(value))


@_hiding
@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """A client's settings; every value has been checked and converted to its type.

    Raises:
        ValueError: a value is invalid; the error names the setting, where it came from, and what it must be.
    """

    #: One node, or several, separated by commas; or a function or coroutine function that returns this, or an `Access`,
    #: and is called before each round of attempts to connect.
    url: URL = _setting(DEFAULT_URL, "URL", _url)
    #: Seconds that a publish waits for ready, and after which an outage is persistent; 0: never wait.
    timeout: float = _setting(10.0, "TIMEOUT", _seconds)
    #: Seconds to wait for a confirmation.
    confirm_timeout: float = _setting(30.0, "CONFIRM_TIMEOUT", _positive_seconds)
    #: Seconds before the first attempt to reconnect; doubled for each further attempt, up to max_reconnect_delay.
    reconnect_delay: float = _setting(DEFAULT_RECONNECT_DELAY, "RECONNECT_DELAY", _positive_seconds)
    #: Seconds up to which that delay is doubled.
    max_reconnect_delay: float = _setting(60.0, "MAX_RECONNECT_DELAY", _positive_seconds)
    #: Attempts on a single node before the client is closed and waits; each of several nodes is tried once.
    connection_attempts: int = _setting(DEFAULT_CONNECTION_ATTEMPTS, "CONNECTION_ATTEMPTS", _count)
    #: Whether a publish ends when RabbitMQ confirms it, rather than when it is handed to the connection.
    enable_confirmations: bool = _setting(True, "CONFIRMATIONS", _flag)
    #: Whether a publish whose message no queue takes ends with `MessageReturned`.
    fail_on_return: bool = _setting(False, "FAIL_ON_RETURN", _flag)
    #: Whether messages without a delivery_mode are persistent: it is 2 then.
    persistent: bool = _setting(False, "PERSISTENT", _flag)
    #: Whether messages that were lost with a connection or channel are sent again.
    republish_unconfirmed: bool = _setting(False, "REPUBLISH_UNCONFIRMED", _flag)
    #: The most messages that may be on the wire, unconfirmed.
    max_unconfirmed: int = _setting(1000, "MAX_UNCONFIRMED", _count)
    #: The most octets of bodies that may be on the wire, unconfirmed; one message more may go out.
    max_unconfirmed_size: int = _setting(64 * 1024**2, "MAX_UNCONFIRMED_SIZE", _count)
    #: The most routes that a message may have in its headers CC and BCC, and their octets.
    max_routes: int = _setting(100, "MAX_ROUTES", _count)
    max_routes_size: int = _setting(4096, "MAX_ROUTES_SIZE", _count)
    #: The most messages that may wait in line.
    max_waiting: int = _setting(10000, "MAX_WAITING", _count)
    #: The most octets of bodies and properties that may wait in line.
    max_waiting_size: int = _setting(64 * 1024**2, "MAX_WAITING_SIZE", _count)
    #: The largest body in bytes; None: the default of RabbitMQ's version (`wire.connection.Connection.body_limit`).
    max_message_size: int | None = _setting(None, "MAX_MESSAGE_SIZE", _optional_count)
    #: The app_id of messages that are published without one.
    default_app_id: str | None = _setting(None, "APP_ID", _text)
    #: A folder, or the URL of a database in PostgreSQL, for messages that cannot be sent: a publish ends with `STORED`
    #: once its message is on disk there.
    outbox: str | None = _setting(None, "OUTBOX", _outbox)
    #: The most octets of all messages that a client stores; on the disk they may take up to twice as much.
    outbox_limit: int = _setting(1024**3, "OUTBOX_LIMIT", _count)
    #: A folder for the recorder: every trigger of every machine is written there, and once a second the counters.
    recorder: str | None = _setting(None, "RECORDER", _new_folder)
    #: The octets up to which each of its files grows, and the most files of a process.
    recorder_size: int = _setting(8 * 1024**2, "RECORDER_SIZE", _file_size)
    recorder_files: int = _setting(8, "RECORDER_FILES", _count)
    #: How to log in: "plain" with the URL's user and password, "external" by the client's certificate; None: as the
    #: URL's option says, else plain.
    auth: str | None = _setting(None, "AUTH", _auth)
    #: A PEM file with the certificates of trusted authorities; all PEM files are read at each attempt to connect.
    tls_ca: str | None = _setting(None, "TLS_CA", _path)
    #: A PEM file with the client's certificate.
    tls_certificate: str | None = _setting(None, "TLS_CERTIFICATE", _path)
    #: A PEM file with the private key of that certificate, if the certificate's file does not hold it.
    tls_key: str | None = _setting(None, "TLS_KEY", _path)
    #: An SSL context of your own, instead of these files.
    tls_context: ssl.SSLContext | None = _setting(None, "", _context)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _converted(field, getattr(self, field.name), f"argument {field.name}")
            if isinstance(value, ValueError):
                # Unchecked values must not be shown.
                vars(self).clear()
                raise value
            object.__setattr__(self, field.name, value)
        if problem := self._auth_problem() or self._tls_problem() or self._outbox_problem():
            vars(self).clear()
            raise ValueError(problem)

    def __repr__(self) -> str:
        shown_values = {**vars(self), "url": self.shown_url, "outbox": self.shown_outbox}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown_values.items())})"

    @property
    def tls(self) -> TLS:
        """The settings for TLS."""
        return TLS(self.tls_ca, self.tls_certificate, self.tls_key, self.tls_context)

    @property
    def shown_url(self) -> str:
        """The URL without passwords, or the name of the function that returns it."""
        return hide_password(self.url) if isinstance(self.url, str) else f"{function_name(self.url)}()"

    @property
    def shown_outbox(self) -> str | None:
        """The outbox, if it is a URL without passwords."""
        return hide_password(self.outbox) if self.outbox is not None and is_database(self.outbox) else self.outbox

    def _outbox_problem(self) -> str:
        if self.outbox is None:
            return ""
        if not self.enable_confirmations:
            return "outbox needs enable_confirmations: without confirms, the client cannot know which messages to keep"
        # Lost messages are sent again, from the line or from disk.
        object.__setattr__(self, "republish_unconfirmed", True)
        return ""

    def _auth_problem(self) -> str:
        if isinstance(self.url, str) and self.auth is not None:
            try:
                node_parameters(self.url, auth=self.auth)
            except ValueError as error:
                return f"url {error}"
        return ""

    def _tls_problem(self) -> str:
        files = [name for name in ("tls_ca", "tls_certificate", "tls_key") if getattr(self, name) is not None]
        if self.tls_context is not None and files:
            return f"tls_context and {files[0]} are both given: use one of them"
        if self.tls_key is not None and self.tls_certificate is None:
            return "tls_key is given without tls_certificate: a private key is of no use without its certificate"
        try:
            if isinstance(self.url, str):
                node_parameters(self.url, self.tls, self.auth)
            elif self.tls.given:
                self.tls.options("")
        except ValueError as error:
            return str(error)
        return ""


def prefixes(name: str = DEFAULT_NAME) -> tuple[str, ...]:
    """Return the prefixes of the variables of the client with this name, in order of precedence."""
    return PREFIXES if name == DEFAULT_NAME else (f"{check_name(name).upper()}_",)


def from_environment(environ: Mapping[str, str] = os.environ, *, name: str = DEFAULT_NAME) -> dict[str, Any]:
    """Return the settings from the environment, checked, as keyword arguments of `Client`.

    ``name`` is that of one of several clients: ``"audit"`` has the variables ``AUDIT_URL``, ``AUDIT_TIMEOUT`` ...

    Raises:
        ValueError: a variable is invalid; the error names it and what it must be.
    """
    environ = hidden(environ)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        own = field.metadata["variable"]
        for variable in (prefix + own for prefix in prefixes(name) if own):
            if reveal(environ).get(variable):
                value = _converted(field, reveal(environ)[variable], f"environment variable {variable}")
                if isinstance(value, ValueError):
                    raise value
                found[field.name] = hidden(value)
                break
    return all_revealed(found)


def _converted(field: "dataclasses.Field[Any]", value: object, origin: str) -> Any:
    """Return the setting, or the ValueError about it, which was raised from no frame that holds the value."""
    value = reveal(value)
    try:
        return field.metadata["convert"](value)
    except ValueError as error:
        is_secret = field.name == "url" or (isinstance(value, str) and may_hold_password(value))
        given = "" if is_secret else f", not {shown(repr(value), 80)}"
        return ValueError(f"{field.name} ({origin}) {error}{given}")
