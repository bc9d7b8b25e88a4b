"""The ledger of the outbox, declared: where each of its messages is, on disk and besides, and what moves it.

A place has two columns: what the disk has of a message, and what else there is of it. The moves are rows as those of
the machines are; each message makes its own, so the ledger looks them up instead of pulling triggers.

The marks of the places: ``stored``, it is to be sent or confirmed; ``unsent``, it has yet to be sent; ``in_line``;
``writing``; ``on_disk``, the store counts it; ``room``, it counts towards `outbox_limit`; ``aside``, it is no longer
sent.
"""

from typing import Final

from .vocabulary import Declared, Machine, Name, Row


class Place(Name):
    """What the disk has of a message, and what else there is of it."""

    NEW = ("nothing", "a publish")
    WRITING = ("being written", "nothing")
    WRITING_IN_LINE = ("being written", "in line")
    WRITING_ON_WIRE = ("being written", "on the wire")
    ON_DISK = ("on disk", "nothing")
    IN_LINE = ("on disk", "in line")
    ON_WIRE = ("on disk", "on the wire")
    DEFERRED = ("on disk", "deferred")
    WRITING_ASIDE = ("being written", "refused")
    LEAVING = ("being deleted", "nothing")
    ASIDE = ("set aside", "nothing")
    GONE = ("nothing", "nothing")


_WRITING: Final = (Place.WRITING, Place.WRITING_IN_LINE, Place.WRITING_ON_WIRE)

LEDGER: Final = Machine(
    "stored message",
    initial=Place.NEW,
    states=(
        Declared(Place.NEW, "A publish that is to be stored."),
        Declared(
            Place.WRITING,
            "It is being written, behind others.",
            marks=("stored", "unsent", "writing", "room"),
        ),
        Declared(
            Place.WRITING_IN_LINE,
            "It is being written, and in line to be sent: nothing is ahead of it.",
            marks=("stored", "unsent", "in_line", "writing", "room"),
        ),
        Declared(
            Place.WRITING_ON_WIRE,
            "It is being written, and was sent: whichever answers first ends the publish, RabbitMQ or the disk.",
            marks=("stored", "writing", "room"),
        ),
        Declared(Place.ON_DISK, "It is on disk, and in memory no longer.", marks=("stored", "unsent", "room")),
        Declared(
            Place.IN_LINE,
            "It was read, and is in line to be sent.",
            marks=("stored", "unsent", "in_line", "on_disk", "room"),
        ),
        Declared(Place.ON_WIRE, "It was sent, and is not confirmed.", marks=("stored", "on_disk", "room")),
        Declared(
            Place.DEFERRED,
            "RabbitMQ nacked it: it is sent again after a while.",
            marks=("stored", "on_disk", "room"),
        ),
        Declared(
            Place.WRITING_ASIDE,
            "It is being written, and RabbitMQ refuses it, although it was sent before.",
            marks=("aside", "writing", "room"),
        ),
        Declared(Place.LEAVING, "Its publish has ended: it is being deleted.", marks=("on_disk",)),
        Declared(Place.ASIDE, "RabbitMQ refuses it: it is no longer sent.", marks=("aside", "on_disk", "room")),
        Declared(Place.GONE, "The outbox knows it no longer."),
    ),
    rows=(
        Row("kept", (Place.NEW,), Place.WRITING),
        Row("kept_on_wire", (Place.NEW,), Place.WRITING_ON_WIRE),
        Row("entered", (Place.WRITING,), Place.WRITING_IN_LINE),
        Row("entered", (Place.ON_DISK,), Place.IN_LINE),
        Row("sent", (Place.WRITING_IN_LINE,), Place.WRITING_ON_WIRE),
        Row("sent", (Place.IN_LINE,), Place.ON_WIRE),
        # Its channel is gone, or the connection while it was in line.
        Row("lost", (Place.WRITING_IN_LINE, Place.WRITING_ON_WIRE), Place.WRITING),
        Row("lost", (Place.IN_LINE, Place.ON_WIRE), Place.ON_DISK),
        Row("written", (Place.WRITING,), Place.ON_DISK),
        Row("written", (Place.WRITING_IN_LINE,), Place.IN_LINE),
        Row("written", (Place.WRITING_ON_WIRE,), Place.ON_WIRE),
        Row("written", (Place.WRITING_ASIDE,), Place.ASIDE),
        # Its publish ends, or goes on as if there were no outbox.
        Row("unwritten", (*_WRITING, Place.WRITING_ASIDE, Place.LEAVING), Place.GONE),
        # RabbitMQ has confirmed it, or answered before the disk; or the publish was cancelled before it was sent.
        Row("ended", (*_WRITING, Place.ON_WIRE), Place.LEAVING),
        Row("nacked", (Place.ON_WIRE,), Place.DEFERRED),
        Row("due", (Place.DEFERRED,), Place.ON_DISK),
        Row("refused", (Place.WRITING_IN_LINE,), Place.WRITING_ASIDE),
        Row("refused", (Place.IN_LINE, Place.ON_WIRE), Place.ASIDE),
        Row("deleted", (Place.LEAVING,), Place.GONE),
    ),
)
