"""What must hold of a stored message, declared: in each place of its ledger, and of each move.

A place has two columns, which say where the message is (`states/ledger.py`). So what its marks must be, and what a move
must make of it, can be said without the ledger's rows.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

from .vocabulary import Declared


class Placed(NamedTuple):
    """What is so of every place of a stored message."""

    words: str
    holds: Callable[[Declared], bool]


def _disk(place: Declared) -> str:
    return str(place.state.value[0])


def _copy(place: Declared) -> str:
    return str(place.state.value[1])


#: What must hold of the places of a stored message, whose two columns say where it is.
PLACED: Final = (
    Placed(
        "A stored message is being written exactly where the disk has yet to have it.",
        lambda place: ("writing" in place.marks) == (_disk(place) == "being written"),
    ),
    Placed(
        "A stored message is in line exactly where it says so.",
        lambda place: ("in_line" in place.marks) == (_copy(place) == "in line"),
    ),
    Placed(
        "A message is stored exactly while the disk has it, or is to have it, and RabbitMQ does not refuse it.",
        lambda place: (
            ("stored" in place.marks) == (_disk(place) in {"being written", "on disk"} and _copy(place) != "refused")
        ),
    ),
    Placed(
        "A stored message is unsent exactly while it is neither on the wire nor put off.",
        lambda place: (
            ("unsent" in place.marks) == ("stored" in place.marks and _copy(place) not in {"on the wire", "deferred"})
        ),
    ),
    Placed(
        "A message is aside exactly if RabbitMQ refuses it.",
        lambda place: ("aside" in place.marks) == (_copy(place) == "refused" or _disk(place) == "set aside"),
    ),
    Placed(
        "What is in memory of the store's messages is counted apart from what is on disk alone.",
        lambda place: (
            ("on_disk" in place.marks)
            == (
                _disk(place) in {"on disk", "being deleted", "set aside"}
                and (_disk(place), _copy(place)) != ("on disk", "nothing")
            )
        ),
    ),
    Placed(
        "A message takes room exactly until it is being deleted.",
        lambda place: ("room" in place.marks) == (_disk(place) in {"being written", "on disk", "set aside"}),
    ),
)

#: What each move of a stored message makes of its two columns; empty: what it was.
MOVED: Final[Mapping[str, tuple[str, str]]] = {
    "kept": ("being written", "nothing"),
    "kept_on_wire": ("being written", "on the wire"),
    "entered": ("", "in line"),
    "sent": ("", "on the wire"),
    "lost": ("", "nothing"),
    "written": ("on disk", ""),
    "unwritten": ("nothing", "nothing"),
    "ended": ("being deleted", "nothing"),
    "nacked": ("", "deferred"),
    "due": ("", "nothing"),
    "refused": ("set aside", "nothing"),
    "deleted": ("nothing", "nothing"),
}
#: The same, where it depends on where the message was.
MOVED_FROM: Final[Mapping[tuple[str, tuple[str, str]], tuple[str, str]]] = {
    ("written", ("being written", "refused")): ("set aside", "nothing"),
    ("refused", ("being written", "in line")): ("being written", "refused"),
}
#: What may become of a message wherever the disk, or what else there is of it, is so.
MAY: Final[Mapping[str, Collection[str]]] = {
    "a publish": ("kept", "kept_on_wire"),
    "being written": ("written", "unwritten"),
    "being deleted": ("deleted", "unwritten"),
    "in line": ("sent", "lost", "refused"),
    "on the wire": ("lost", "ended"),
    "deferred": ("due",),
}
