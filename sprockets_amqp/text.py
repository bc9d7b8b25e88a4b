"""Text from outside, for people: one line, bounded, and nothing that moves a cursor or forges a line of a log."""

from typing import Final

#: Characters; AMQP's names, ids and replies are short strings.
LIMIT: Final = 500
#: Octets of a short string, which AMQP's names, ids and most properties are (AMQP 0-9-1, section 4.2.5.3).
SHORT_STRING_LIMIT: Final = 255
#: Of a whole sentence, in which several of them may stand.
SENTENCE_LIMIT: Final = 2000


def shown(text: object, limit: int = LIMIT) -> str:
    r"""Return the text with what is not printable escaped as Python does it, cut to ``limit`` characters.

    Not printable are line ends, control characters, what changes the direction of writing, and lone surrogates.

    >>> print(shown("created\nERROR \x1b[31mall is lost"))
    created\nERROR \x1b[31mall is lost
    >>> shown("a long story", 9)
    'a long...'
    """
    line = text if isinstance(text, str) else str(text)
    if len(line) <= limit and line.isprintable():
        return line
    # No more than this can be left of it.
    escaped = "".join(char if char.isprintable() else _escape(char) for char in line[: limit + 1])
    return escaped if len(escaped) <= limit else f"{escaped[: limit - 3]}..."


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
