"""The outbox, declared: whether messages are kept on the disk, and what that makes of a publish.

A message that would end as not sent, or as lost, is stored in the folder ``outbox`` instead. While anything that is
stored has yet to be sent, the outbox is the line: what is published is stored behind it.
"""

import enum
from typing import Final

from .connection import Closed, State, Substate
from .outage import PUBLISH_OUTCOMES, PublishOutcome
from .vocabulary import Declared, Row


class Outbox(enum.Enum):
    """What the outbox does with a message."""

    OFF = "off"
    OPENING = "opening"
    CLEAR = "clear"
    HOLDING = "holding"
    FULL = "full"
    FAILING = "failing"
    FINISHING = "finishing"


OUTBOX_STATES: Final = (
    Declared(Outbox.OFF, "There is no outbox, or the client was not started."),
    Declared(
        Outbox.OPENING,
        "The files are opened, and counted: what they hold comes first.",
        on_enter=("open_files",),
        timeout="open_limit",
        on_timeout="disk_failed",
    ),
    Declared(
        Outbox.CLEAR,
        "Everything that is stored was sent; messages can be stored.",
        on_enter=("send_waiting",),
    ),
    Declared(
        Outbox.HOLDING,
        "Something that is stored has yet to be sent: the outbox is the line.",
        on_enter=("store_waiting",),
    ),
    Declared(
        Outbox.FULL,
        "Something that is stored has yet to be sent, and nothing more can be stored: see the log.",
        on_enter=("refuse_waiting",),
        timeout="retry_delay",
        on_timeout="disk_due",
    ),
    Declared(
        Outbox.FAILING,
        "Nothing can be stored: see the log. A publish ends as without an outbox.",
        on_enter=("send_waiting",),
        timeout="retry_delay",
        on_timeout="disk_due",
    ),
    Declared(
        Outbox.FINISHING,
        "The client ends: what was to be stored is being written, and the files are closed.",
        on_enter=("close_files",),
        timeout="finish_limit",
        on_timeout="files_closed",
    ),
)

#: The states of the connection in which the outbox is open; entering one of them is ``client_started``, any other
#: ``client_stopped``.
STARTED: Final[frozenset[Substate]] = frozenset(PUBLISH_OUTCOMES) - {State.IDLE, Closed.STOPPED}

_ANY: Final = (Outbox.OPENING, Outbox.CLEAR, Outbox.HOLDING, Outbox.FULL, Outbox.FAILING)

OUTBOX_TRANSITIONS: Final = (
    Row("client_started", (Outbox.OFF, Outbox.FINISHING), Outbox.OPENING, conditions="given"),
    Row("files_opened", (Outbox.OPENING, Outbox.FULL), Outbox.HOLDING, conditions="holds"),
    Row("files_opened", (Outbox.OPENING, Outbox.FAILING), Outbox.CLEAR),
    # A message was stored, or one that was sent was lost.
    Row("backlog_began", (Outbox.CLEAR,), Outbox.HOLDING),
    Row("backlog_began", (Outbox.FAILING,), Outbox.FULL),
    Row("backlog_ended", (Outbox.HOLDING,), Outbox.CLEAR, unless="holds"),
    Row("backlog_ended", (Outbox.FULL,), Outbox.FAILING, unless="holds"),
    # The disk, or outbox_limit.
    Row("disk_failed", (Outbox.OPENING, Outbox.HOLDING), Outbox.FULL, conditions="holds"),
    Row("disk_failed", (Outbox.OPENING, Outbox.CLEAR, Outbox.HOLDING), Outbox.FAILING),
    Row("disk_due", (Outbox.FULL,), Outbox.FULL, before="open_files"),
    Row("disk_due", (Outbox.FAILING,), Outbox.FAILING, before="open_files"),
    Row("client_stopped", _ANY, Outbox.FINISHING),
    Row("files_closed", (Outbox.FINISHING,), Outbox.OFF, before="give_up_writing"),
)

#: What the outbox makes of a publish that usually goes out, waits or is refused.
OUTBOX_OUTCOMES: Final[dict[Outbox, dict[PublishOutcome, PublishOutcome]]] = {
    Outbox.OFF: {"goes out": "goes out", "waits": "waits", "is refused": "is refused"},
    Outbox.OPENING: {"goes out": "waits", "waits": "waits", "is refused": "is stored"},
    Outbox.CLEAR: {"goes out": "goes out", "waits": "waits", "is refused": "is stored"},
    Outbox.HOLDING: {"goes out": "is stored", "waits": "is stored", "is refused": "is stored"},
    Outbox.FULL: {"goes out": "is refused", "waits": "is refused", "is refused": "is refused"},
    Outbox.FAILING: {"goes out": "goes out", "waits": "waits", "is refused": "is refused"},
    Outbox.FINISHING: {"goes out": "goes out", "waits": "waits", "is refused": "is refused"},
}
