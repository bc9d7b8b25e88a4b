"""Text from outside, made safe to show: one bounded line that cannot move a cursor or forge a log line."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final

#: Characters; AMQP's names, ids and replies are short strings.
LIMIT: Final = 500
#: Octets of a short string, which AMQP's names, ids and most properties are (AMQP 0-9-1, section 4.2.5.3).
SHORT_STRING_LIMIT: Final = 255
#: Characters of a whole sentence, which may contain several of them.
SENTENCE_LIMIT: Final = 2000


def shown(text: object, limit: int = LIMIT) -> str:
    r"""Return the text with unprintable characters escaped as in Python, cut to ``limit`` characters.

    Line ends, control characters, characters that change the writing direction and lone surrogates are unprintable.

    >>> print(shown("created\nERROR \x1b[31mall is lost"))
    created\nERROR \x1b[31mall is lost
    >>> shown("a long story", 9)
    'a long...'
    """
    line = text if isinstance(text, str) else str(text)
    if len(line) <= limit and line.isprintable():
        return line
    # Escaping only makes it longer: the rest would be cut anyway.
    escaped = "".join(char if char.isprintable() else _escape(char) for char in line[: limit + 1])
    return escaped if len(escaped) <= limit else f"{escaped[: limit - 3]}..."


def quoted(value: object, limit: int = 80) -> str:
    """Return the repr of a value, cut to ``limit`` characters; the name of its type, if it has none.

    Python has none for an int of more than 4,300 digits, and a class of the application's may raise anything.
    """
    try:
        return repr(value)[:limit]
    except Exception:
        return f"an object of type {type(value).__name__}"[:limit]


def function_name(function: Callable[..., object]) -> str:
    """Name a function for people, without the arguments bound by a `functools.partial`."""
    inner = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inner.func
    return shown(getattr(inner, "__qualname__", type(inner).__qualname__).rpartition("<locals>.")[2], 80)


def plain(value: Any) -> Any:
    """Return a str of a subclass as a str, without what it refers to, such as a whole document; others as they are."""
    # str() would call what the subclass defines.
    return str.__str__(value) if isinstance(value, str) else value


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
