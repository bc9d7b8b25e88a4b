"""Default ids of messages, made ahead of their use.

Of the 8 µs that a publish without an id costs, it takes 0.3 µs instead of the 2.4 µs of ``str(uuid.uuid4())``.
"""

import os
from typing import Final

from sprockets_amqp.wire.forks import after_fork

#: How many ids are made at a time: the system provides random octets for many as fast as for one.
BATCH: Final = 256

_made: list[str] = []
# Otherwise a child process would use the same ids as its parent.
after_fork(_made.clear)

#: The octets that carry the version (4) and the variant (binary 10) of a UUID, with these bits set.
_WITH_VERSION: Final = bytes(octet & 0x0F | 0x40 for octet in range(256))
_WITH_VARIANT: Final = bytes(octet & 0x3F | 0x80 for octet in range(256))
#: The positions of a UUID's digits between its hyphens.
_DIGIT_PLACES: Final = (*range(8), *range(9, 13), *range(14, 18), *range(19, 23), *range(24, 36))


def new_message_id() -> str:
    """Make a version 4 UUID (RFC 9562), as ``str(uuid.uuid4())`` does."""
    try:
        return _made.pop()
    except IndexError:
        first, *others = _make(BATCH)
        _made.extend(others)
        return first


def _make(count: int) -> list[str]:
    octets = bytearray(os.urandom(16 * count))
    octets[6::16] = octets[6::16].translate(_WITH_VERSION)
    octets[8::16] = octets[8::16].translate(_WITH_VARIANT)
    digits = octets.hex().encode()
    # All ids are assembled at once, digit by digit: first the first digit of each, then the second.
    text = bytearray(b"-" * 36 + b" ") * count
    for digit, place in enumerate(_DIGIT_PLACES):
        text[place::37] = digits[digit::32]
    return text.decode().split()
