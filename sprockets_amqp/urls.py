"""AMQP URLs: which nodes they name, what is wrong with them, and how to show them without a password."""

import math
import re
import socket
import warnings
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pika
from pika import spec
from pika.credentials import PlainCredentials

from .secret import hidden, reveal
from .text import SHORT_STRING_LIMIT
from .wire.login import AUTH, EXTERNAL, ByCertificate, ByPassword
from .wire.pika_insides import set_socket_options, url_options
from .wire.tls import TLS, contradiction, read_options, unreadable, verify

#: The option `auth`, and pika's; see `node_parameters`.
URL_OPTIONS: Final = url_options() | {"auth"}

#: Options of pika 0.13 that have other names now, or none.
OLD_OPTIONS: Final = {"heartbeat_interval": "heartbeat", "backpressure_detection": None}
#: pika's times in seconds.
_TIMES: Final = ("socket_timeout", "stack_timeout", "retry_delay", "blocked_connection_timeout")

#: pika's names in ssl_options for trusted authorities; it requires one of them.
CA_OPTIONS: Final = ("ca_certs", "cafile", "ca_path", "capath", "ca_data", "cadata")


def node_parameters(url: str, tls: TLS | None = None, auth: str | None = None) -> list[pika.URLParameters]:
    """Parse a URL that may name several nodes into pika's parameters of each, and read the TLS files.

    Nodes are separated by commas, with credentials and vhost given once
    (``amqp://user:password@one,two:5673/vhost``) or for each (``amqp://user:password@one/vhost,amqp://…``). Options
    after ``?`` are pika's (https://pika.readthedocs.io/en/stable/modules/parameters.html#urlparameters), and ``auth``.

    Args:
        url: the URL.
        tls: the settings for TLS; None if they are not to be looked at.
        auth: the setting of that name.

    Raises:
        ValueError: a part of the URL, or a setting for TLS, cannot be used; the error never shows a password.
    """
    url = hidden(url)
    try:
        return _parsed(reveal(url), tls, auth)
    except ValueError as error:
        problem = str(error)
    raise ValueError(problem)


def _parsed(url: str, tls: TLS | None, auth: str | None) -> list[pika.URLParameters]:
    if not is_utf8(url):
        raise ValueError("has an octet that is not UTF-8: percent-encode it")
    if url != url.strip() or _BLANK.search(url.partition("?")[0]) or _CONTROL.search(url):
        raise ValueError("has a blank or a line end: remove it, or percent-encode it (a blank is %20)")
    return [_parameters(node, tls, auth) for node in split(url)]


def split(url: str) -> list[str]:
    """Return a separate URL for each node that the URL names."""
    return [node for part in re.split(r",(?=amqps?://)", url) for node in _nodes(part)]


def is_utf8(text: str) -> bool:
    """Return whether UTF-8 can encode it: Python reads other octets from the environment as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def node_name(node: pika.URLParameters) -> str:
    """Name a node by host and port, with an IPv6 address in brackets."""
    return f"[{node.host}]:{node.port}" if ":" in node.host else f"{node.host}:{node.port}"


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_BLANK: Final = re.compile(r"\s")
#: What precedes a comma in a password: no node's port is that.
_USER_AND_PASSWORD: Final = re.compile(r"[^:@\[\]]*:(?!\d*$)[^@]*")
_ZONE: Final = re.compile(r"\[[^\]]*%")
_URL: Final = re.compile(r"(?P<scheme>amqps?)://(?P<netloc>[^/?#]*)(?P<rest>.*)", re.DOTALL)


def _nodes(url: str) -> list[str]:
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError("must begin with amqp:// or amqps://")
    credentials = ""
    nodes: list[str] = []
    places = _places(match["netloc"])
    for place in places:
        own, at, host = place.rpartition("@")
        if at and nodes and not credentials:
            raise ValueError(
                "names a node without a user before one with a user: give user and password first, once for all nodes, "
                "or for each, and percent-encode a comma in them (%2c)"
            )
        if not host and len(places) > 1:
            raise ValueError("names a node without a host: nodes are separated by single commas")
        credentials = own + at or credentials
        nodes.append(f"{match['scheme']}://{credentials}{host}{match['rest']}")
    return nodes


def _places(netloc: str) -> list[str]:
    """Return the nodes of a URL, each with its credentials; a comma in a password separates none."""
    places: list[str] = []
    for place in netloc.split(","):
        if places and _USER_AND_PASSWORD.fullmatch(places[-1]):
            places[-1] += f"%2c{place}"
        else:
            places.append(place)
    return places


def _parameters(url: str, tls: TLS | None, auth: str | None) -> pika.URLParameters:
    node, _, query = url.partition("?")
    query = _without_old_options(query)
    url = f"{node}?{query}" if query else node
    try:
        parts = urlsplit(node)
        # An unescaped character in a password would silently change the URL's meaning.
        if "#" in url or "@" in parts.path + query or parts.netloc.count("@") > 1 or parts.port == 0:
            raise ValueError
        without_password = parts.username is not None and parts.password is None
        # pika fails over a user without a password.
        parameters = pika.URLParameters("amqp://" if without_password else node)
    except Exception:
        # Without a cause, because pika and urllib quote the password.
        raise ValueError(
            "is not an AMQP URL: write amqp://user:password@host:port/vhost, and percent-encode the characters /?#@:,% "
            "in user, password and vhost (/ is %2f)"
        ) from None
    by_certificate = _is_by_certificate(query, auth, parts.username)
    if without_password:
        raise ValueError("names a user without a password: write amqp://user:password@host")
    if parts.path.count("/") > 1:
        raise ValueError("has more than one / in its vhost: percent-encode it (/ is %2f)")
    if len(parameters.virtual_host.encode()) > SHORT_STRING_LIMIT:
        raise ValueError(f"has a vhost of more than {SHORT_STRING_LIMIT} octets")
    if _ZONE.search(parts.netloc):
        raise ValueError(
            "has a zone in its IPv6 address, which pika cannot use: write a name that stands for the address"
        )
    options = _checked_options(node, query) if query else {}
    if options:
        parameters = pika.URLParameters(f"{node}?{urlencode(options)}")
    _secure(parameters, options.get("ssl_options"), tls)
    if by_certificate:
        _require_certificate(parameters, options.get("ssl_options", ""), tls)
        parameters.credentials = ByCertificate()
    else:
        given = parameters.credentials
        assert isinstance(given, PlainCredentials)
        parameters.credentials = ByPassword(given.username, given.password)
    return parameters


def _is_by_certificate(query: str, auth: str | None, user: str | None) -> bool:
    its_auth = dict(parse_qsl(query)).get("auth", auth)
    if auth is not None and its_auth != auth:
        raise ValueError(f"says auth={its_auth:.80}, but the setting auth is {auth!r}: give auth in one of them")
    if its_auth == EXTERNAL and user is not None:
        raise ValueError("names a user, but with auth=external the client's certificate does: leave the user out")
    return its_auth == EXTERNAL


def _require_certificate(parameters: pika.URLParameters, ssl_options: str, tls: TLS | None) -> None:
    if parameters.ssl_options is None:
        raise ValueError("must begin with amqps:// with auth=external: the certificate of TLS says who the client is")
    if tls is not None and not (tls.certificate or tls.context or read_options(ssl_options).get("certfile")):
        raise ValueError("auth=external needs the client's certificate: give tls_certificate (AMQP_TLS_CERTIFICATE)")


def _secure(parameters: pika.URLParameters, ssl_options: str | None, tls: TLS | None) -> None:
    """Complete the options for TLS, which is used if there are any."""
    if ssl_options is not None and parameters.ssl_options is not None:
        verify(parameters.ssl_options.context, read_options(ssl_options))
    if tls is not None and tls.given:
        if parameters.ssl_options is None:
            raise ValueError(f"the URL must begin with amqps:// if {tls.given} is given")
        if ssl_options is not None:
            raise ValueError(f"the URL has ssl_options, and {tls.given} is given as well: use one of them")
        parameters.ssl_options = tls.options(parameters.host)
    options = parameters.ssl_options
    if options is not None and options.server_hostname in {None, parameters.host}:
        # No certificate has the dot that ends an absolute name (RFC 6066, section 3).
        options.server_hostname = parameters.host.rstrip(".") or None


def _without_old_options(query: str) -> str:
    kept = []
    for option in query.split("&") if query else []:
        name, equals, value = option.partition("=")
        if name not in OLD_OPTIONS:
            kept.append(option)
            continue
        new = OLD_OPTIONS[name]
        hint = f"is called {new} now" if new else "has no effect any more"
        warnings.warn(f"the option {name} in an AMQP URL {hint}", FutureWarning, stacklevel=2)
        if new:
            kept.append(f"{new}{equals}{value}")
    return "&".join(kept)


def _checked_options(node: str, query: str) -> dict[str, str]:
    """Return pika's options, or name the invalid one; an unknown one is not shown: it may be part of a password."""
    try:
        options = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        raise ValueError("must have options after ? in the form name=value&name=value") from None
    names = [name for name, _ in options]
    if not set(names) <= URL_OPTIONS:
        raise ValueError(f"has an unknown option after ?; the known ones are {', '.join(sorted(URL_OPTIONS))}")
    for name, value in options:
        if names.count(name) > 1:
            raise ValueError(f"has the option {name} more than once")
        if name == "auth":
            if value not in AUTH:
                raise ValueError(f"has a bad option auth: {value!r:.80}, which must be {' or '.join(AUTH)}")
            continue
        try:
            # pika ignores an empty value.
            _try(pika.URLParameters(f"{node}?{urlencode({name: value or '?'})}"))
            problem = contradiction(read_options(value)) if name == "ssl_options" else ""
        except Exception as error:
            # ssl_options can hold the password of a key.
            problem = _tls_trouble(value, error) if name == "ssl_options" else f"{value!r:.80}"
        if problem:
            raise ValueError(f"has a bad option {name}: {problem}")
    return {name: value for name, value in options if name != "auth"}


def _try(parameters: pika.URLParameters) -> None:
    """Raise what pika would raise when it uses the options of a URL: some it checks only then, or never."""
    spec.Connection.StartOk(parameters.client_properties or {}, response="", locale=parameters.locale).encode()
    spec.Connection.TuneOk(0, 0, parameters.heartbeat or 0).encode()  # type: ignore[arg-type] # a URL has no function
    with socket.socket() as tried:
        set_socket_options(parameters.tcp_options, tried)
    times = [getattr(parameters, name) for name in _TIMES]
    if not all(math.isfinite(seconds) for seconds in times if seconds is not None):
        raise ValueError("not finite")


def _tls_trouble(value: str, error: Exception) -> str:
    """Say what is wrong with ssl_options, without showing their values."""
    options = read_options(value)
    if options and not any(options.get(name) for name in CA_OPTIONS):
        return (
            "names no authority to trust: add 'ca_certs': '/path/to/authorities.pem', with the certificates of the "
            "authorities that sign the node's; certfile and keyfile are the client's own"
        )
    return unreadable(options) or type(error).__name__


def is_database(text: str) -> bool:
    """Return whether it is the URL of a database in PostgreSQL, or meant as one."""
    return text.startswith(("postgresql://", "postgres://"))


def may_hold_password(text: str) -> bool:
    """Return whether it is a URL or the like of something, even if nothing here knows of what."""
    return "://" in text or "password" in text.lower()


def check_database(url: str) -> None:
    """Raise ValueError unless psycopg can use the URL of a database; the error does not show it."""
    try:
        from psycopg import ProgrammingError  # noqa: PLC0415 - few need it
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(f"in PostgreSQL needs psycopg ({error}): pip install 'sprockets_amqp[postgres]'") from None
    try:
        if "@" not in str(conninfo_to_dict(url).get("host")):
            return
    except (ProgrammingError, UnicodeError):
        # Its words may quote the password.
        pass
    raise ValueError(
        "is not a URL of PostgreSQL: write postgresql://user:password@host:5432/database, percent-encode the "
        "characters /?#@:,% in user and password, and give libpq's options after ?"
    )


def hide_password(url: str) -> str:
    """Return the URL with every password replaced by ``***``, for logs and people; ssl_options may hold one."""
    parts = re.split(r",(?=amqps?://)", url, flags=re.IGNORECASE)
    return ",".join(map(_hide_in_part, parts))


#: An @ behind what ends credentials: they hold a character that should have been percent-encoded.
_UNCLEAR: Final = re.compile(r"(\w*://)[^/?#]*[/?#].*@", re.DOTALL)


def _hide_in_part(url: str) -> str:
    url = _UNCLEAR.sub(r"\1***@", url)
    url = re.sub(r"(?<=[?&])([^=&]*=).*?(?=&|,amqps?://|$)", _hide_option, url, flags=re.DOTALL)
    return re.sub(r"(?<=//)[^/?#]*@|(?<=,)[^/?#,]*@", _hide, url)


def _hide_option(match: re.Match[str]) -> str:
    """Hide ssl_options, however the name is encoded, and anything that is not a known option."""
    harmless = unquote(match[1][:-1]) in URL_OPTIONS - {"ssl_options"}
    return match[0] if harmless else f"{match[1]}***"


def _hide(match: re.Match[str]) -> str:
    return re.sub(r"([^,:@]*):(?:[^,]*|[^@]*)@", r"\1:***@", match[0])
