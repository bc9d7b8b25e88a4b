"""AMQP URLs: which nodes they name, what is wrong with them, and how to show them without a password."""

import re
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pika

from .wire.pika_insides import url_options
from .wire.tls import NO_TLS, TLS, contradiction, read_options, unreadable, verify

#: pika's options; see `node_parameters`.
URL_OPTIONS: Final = url_options()

#: pika's names in ssl_options for trusted authorities; it requires one of them.
CA_OPTIONS: Final = ("ca_certs", "cafile", "ca_path", "capath", "ca_data", "cadata")


def node_parameters(url: str, tls: TLS = NO_TLS) -> list[pika.URLParameters]:
    """Parse a URL that may name several nodes into pika's parameters of each, and read the TLS files.

    Nodes are separated by commas, with credentials and vhost given once
    (``amqp://user:password@one,two:5673/vhost``) or for each (``amqp://user:password@one/vhost,amqp://…``). Options
    after ``?`` are pika's (https://pika.readthedocs.io/en/stable/modules/parameters.html#urlparameters).

    Raises:
        ValueError: a part of the URL, or a setting for TLS, cannot be used; the error never shows a password.
    """
    try:
        if not is_utf8(url):
            raise ValueError("has an octet that is not UTF-8: percent-encode it")
        return [_parameters(node, tls) for node in split(url)]
    except ValueError as error:
        problem = str(error)
    finally:
        # Tracebacks may be shown with their frames' local variables.
        url = ""
    raise ValueError(problem)


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


def _parameters(url: str, tls: TLS) -> pika.URLParameters:
    node, _, query = url.partition("?")
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
    if without_password:
        raise ValueError("names a user without a password: write amqp://user:password@host")
    if parts.path.count("/") > 1:
        raise ValueError("has more than one / in its vhost: percent-encode it (/ is %2f)")
    if query:
        _check_options(node, query)
        parameters = pika.URLParameters(url)
        if parameters.ssl_options is not None:
            verify(parameters.ssl_options.context, read_options(dict(parse_qsl(query)).get("ssl_options", "")))
    if tls.given:
        if not url.startswith("amqps:"):
            raise ValueError(f"the URL must begin with amqps:// if {tls.given} is given")
        if "ssl_options" in dict(parse_qsl(query)):
            raise ValueError(f"the URL has ssl_options, and {tls.given} is given as well: use one of them")
        parameters.ssl_options = tls.options(parameters.host)
    return parameters


def _check_options(node: str, query: str) -> None:
    """Name the invalid option; an unknown one is not shown, as it may be part of a password."""
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
        try:
            # pika ignores an empty value.
            pika.URLParameters(f"{node}?{urlencode({name: value or '?'})}")
            problem = contradiction(read_options(value)) if name == "ssl_options" else ""
        except Exception as error:
            # ssl_options can hold the password of a key.
            problem = _tls_trouble(value, error) if name == "ssl_options" else f"{value!r:.80}"
        if problem:
            raise ValueError(f"has a bad option {name}: {problem}")


def _tls_trouble(value: str, error: Exception) -> str:
    """Say what is wrong with ssl_options, without showing their values."""
    options = read_options(value)
    if options and not any(options.get(name) for name in CA_OPTIONS):
        return (
            "names no authority to trust: add 'ca_certs': '/path/to/authorities.pem', with the certificates of the "
            "authorities that sign the node's; certfile and keyfile are the client's own"
        )
    return unreadable(options) or type(error).__name__


def hide_password(url: str) -> str:
    """Return the URL with every password replaced by ``***``, for logs and people; ssl_options may hold one."""
    url = re.sub(r"(?<=[?&])([^=&]*=).*?(?=&|,amqps?://|$)", _hide_option, url, flags=re.DOTALL)
    return re.sub(r"(?<=//)[^/?#]*@|(?<=,)[^/?#,]*@", _hide, url)


def _hide_option(match: re.Match[str]) -> str:
    """Hide ssl_options, however the name is encoded, and anything that is not a known option."""
    harmless = unquote(match[1][:-1]) in URL_OPTIONS - {"ssl_options"}
    return match[0] if harmless else f"{match[1]}***"


def _hide(match: re.Match[str]) -> str:
    return re.sub(r"([^,:@]*):[^,@]*@", r"\1:***@", match[0])
