"""The outbox, declared: whether messages are kept on disk, and how that changes what becomes of a publish.

A message that would end as not sent, or as lost, is stored in the folder ``outbox`` instead. While stored messages are
waiting to be sent, the outbox is the line: new messages are stored behind them.
"""

import enum
from typing import Final

from .connection import Closed, State, Substate
from .outage import PUBLISH_OUTCOMES, PublishOutcome
from .vocabulary import Declared, Row


class Outbox(enum.Enum):
    """What the outbox does with messages."""

    OFF = "off"
    OPENING = "opening"
    CLEAR = "clear"
    HOLDING = "holding"
    FULL = "full"
    FAILING = "failing"
    FINISHING = "finishing"


OUTBOX_STATES: Final = (
    Declared(Outbox.OFF, "There is no outbox, or the client is not running."),
    Declared(
        Outbox.OPENING,
        "The files are being opened and their messages counted: those are sent first.",
        on_enter=("open_files",),
        on_exit=("tell_found",),
        timeout="open_limit",
        on_timeout="disk_failed",
    ),
    Declared(
        Outbox.CLEAR,
        "Every stored message has been sent; more can be stored.",
        on_enter=("send_waiting",),
    ),
    Declared(
        Outbox.HOLDING,
        "Stored messages are waiting to be sent; new ones are stored behind them.",
        on_enter=("store_waiting",),
    ),
    Declared(
        Outbox.FULL,
        "Stored messages are waiting to be sent, and no more can be stored: see the log.",
        on_enter=("refuse_waiting",),
        timeout="retry_delay",
        on_timeout="disk_due",
    ),
    Declared(
        Outbox.FAILING,
        "Nothing can be stored: see the log. Publishes end as they would without an outbox.",
        on_enter=("send_waiting",),
        timeout="retry_delay",
        on_timeout="disk_due",
    ),
    Declared(
        Outbox.FINISHING,
        "The client is stopping: pending writes are being finished and the files closed.",
        on_enter=("close_files",),
        timeout="finish_limit",
        on_timeout="files_closed",
    ),
)

#: The states of the connection in which the outbox is open: entering them pulls ``client_started``, leaving them
#: ``client_stopped``.
STARTED: Final[frozenset[Substate]] = frozenset(PUBLISH_OUTCOMES) - {State.IDLE, Closed.STOPPED}

_ANY: Final = (Outbox.OPENING, Outbox.CLEAR, Outbox.HOLDING, Outbox.FULL, Outbox.FAILING)

OUTBOX_TRANSITIONS: Final = (
    Row("client_started", (Outbox.OFF, Outbox.FINISHING), Outbox.OPENING, conditions="given"),
    Row("files_opened", (Outbox.OPENING, Outbox.FULL), Outbox.HOLDING, conditions="holds"),
    Row("files_opened", (Outbox.OPENING, Outbox.FAILING), Outbox.CLEAR),
    # A message was stored, or a sent one was lost.
    Row("backlog_began", (Outbox.CLEAR,), Outbox.HOLDING, unless="ending"),
    Row("backlog_began", (Outbox.FAILING,), Outbox.FULL),
    Row("backlog_ended", (Outbox.HOLDING,), Outbox.CLEAR, unless="holds"),
    Row("backlog_ended", (Outbox.FULL,), Outbox.FAILING, unless="holds"),
    # The disk fails, or outbox_limit is reached.
    Row("disk_failed", (Outbox.OPENING, Outbox.HOLDING), Outbox.FULL, conditions="holds"),
    Row("disk_failed", (Outbox.OPENING, Outbox.CLEAR, Outbox.HOLDING), Outbox.FAILING),
    Row("disk_due", (Outbox.FULL,), Outbox.FULL, before="open_files"),
    Row("disk_due", (Outbox.FAILING,), Outbox.FAILING, before="open_files"),
    Row("client_stopped", _ANY, Outbox.FINISHING),
    Row("files_closed", (Outbox.FINISHING,), Outbox.OFF, before="give_up_writing"),
)

#: What becomes of a publish, given the outbox's state and what would become of it without an outbox.
OUTBOX_OUTCOMES: Final[dict[Outbox, dict[PublishOutcome, PublishOutcome]]] = {
    Outbox.OFF: {"goes out": "goes out", "waits": "waits", "is refused": "is refused"},
    Outbox.OPENING: {"goes out": "waits", "waits": "waits", "is refused": "is stored"},
    Outbox.CLEAR: {"goes out": "goes out", "waits": "waits", "is refused": "is stored"},
    Outbox.HOLDING: {"goes out": "is stored", "waits": "is stored", "is refused": "is stored"},
    Outbox.FULL: {"goes out": "is refused", "waits": "is refused", "is refused": "is refused"},
    Outbox.FAILING: {"goes out": "goes out", "waits": "waits", "is refused": "is refused"},
    Outbox.FINISHING: {"goes out": "goes out", "waits": "waits", "is refused": "is refused"},
}
