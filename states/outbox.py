"""The outbox, declared: whether messages are kept on disk, and how that changes what becomes of a publish.

A message that would end as not sent, or as lost, is stored in the folder ``outbox`` instead. While stored messages are
waiting to be sent, the outbox is the line: new messages are stored behind them.

The marks of its states: ``troubled``, nothing can be stored; ``finishing``, the files are being closed.
"""

from typing import Final

from .vocabulary import Action, Declared, Delay, Follow, Ignore, Limit, Machine, Name, Row


class Outbox(Name):
    """What the outbox does with messages."""

    OFF = "off"
    OPENING = "opening"
    CLEAR = "clear"
    HOLDING = "holding"
    FULL = "full"
    FAILING = "failing"
    FINISHING = "finishing"


_ANY: Final = (Outbox.OPENING, Outbox.CLEAR, Outbox.HOLDING, Outbox.FULL, Outbox.FAILING)

_OPEN_FILES: Final = Action("open_files", "opens the files and counts their messages")
_SEND_WAITING: Final = Action("send_waiting", "sends waiting messages, in order")
_RETRY_DELAY: Final = Delay("retry_delay", "the delay before a failed disk is tried again", "disk_due")

OUTBOX: Final = Machine(
    "outbox",
    initial=Outbox.OFF,
    follows=(Follow("at_rest", entered="client_stopped", left="client_started"),),
    states=(
        Declared(Outbox.OFF, "There is no outbox, or the client is not running."),
        Declared(
            Outbox.OPENING,
            "The files are being opened and their messages counted: those are sent first.",
            on_enter=(_OPEN_FILES,),
            on_exit=(Action("tell_found", "logs how many messages it found"),),
            makes={"goes out": "waits", "is refused": "is stored"},
        ),
        Declared(
            Outbox.CLEAR,
            "Every stored message has been sent; more can be stored.",
            on_enter=(_SEND_WAITING,),
            makes={"is refused": "is stored"},
        ),
        Declared(
            Outbox.HOLDING,
            "Stored messages are waiting to be sent; new ones are stored behind them.",
            on_enter=(Action("store_waiting", "stores waiting messages"),),
            makes={"goes out": "is stored", "waits": "is stored", "is refused": "is stored"},
        ),
        Declared(
            Outbox.FULL,
            "Stored messages are waiting to be sent, and no more can be stored: see the log.",
            on_enter=(Action("refuse_waiting", "refuses waiting messages"),),
            timeout=_RETRY_DELAY,
            makes={"goes out": "is refused", "waits": "is refused"},
            marks=("troubled",),
        ),
        Declared(
            Outbox.FAILING,
            "Nothing can be stored: see the log. Publishes end as they would without an outbox.",
            on_enter=(_SEND_WAITING,),
            timeout=_RETRY_DELAY,
            marks=("troubled",),
        ),
        Declared(
            Outbox.FINISHING,
            "The client is stopping: pending writes are being finished and the files closed.",
            on_enter=(Action("close_files", "finishes pending writes and closes the files"),),
            timeout=Limit("finish_limit", "what the disk may take for one batch", "files_closed"),
            marks=("finishing",),
        ),
    ),
    rows=(
        Row("client_started", (Outbox.OFF, Outbox.FINISHING), Outbox.OPENING, conditions="given"),
        Row("files_opened", (Outbox.OPENING, Outbox.FULL, Outbox.FAILING), Outbox.HOLDING, conditions="holds"),
        Row("files_opened", (Outbox.OPENING, Outbox.FAILING), Outbox.CLEAR),
        # A message was stored, or a sent one was lost.
        Row("backlog_began", (Outbox.CLEAR,), Outbox.HOLDING, unless="ending"),
        Row("backlog_began", (Outbox.FAILING,), Outbox.FULL, unless="ending"),
        Row("backlog_ended", (Outbox.HOLDING,), Outbox.CLEAR, unless="holds"),
        Row("backlog_ended", (Outbox.FULL,), Outbox.FAILING, unless="holds"),
        # The disk fails, or outbox_limit is reached.
        Row("disk_failed", (Outbox.OPENING, Outbox.HOLDING), Outbox.FULL, conditions="holds"),
        Row("disk_failed", (Outbox.OPENING, Outbox.CLEAR, Outbox.HOLDING), Outbox.FAILING),
        Row("disk_due", (Outbox.FULL,), Outbox.FULL, before=_OPEN_FILES),
        Row("disk_due", (Outbox.FAILING,), Outbox.FAILING, before=_OPEN_FILES),
        Row("client_stopped", _ANY, Outbox.FINISHING),
        Row(
            "files_closed",
            (Outbox.FINISHING,),
            Outbox.OFF,
            before=Action("give_up_writing", "gives up on messages not written in time"),
        ),
    ),
    ignores=(
        Ignore(("files_opened",), (Outbox.CLEAR, Outbox.HOLDING), "they are open; what is found begins a backlog"),
        Ignore(("disk_failed",), (Outbox.FULL, Outbox.FAILING), "it is known, and tried again"),
        Ignore(("files_opened",), (Outbox.FULL,), "nothing is left in them: backlog_ended follows"),
        Ignore(("backlog_began",), (Outbox.CLEAR, Outbox.FAILING), "the client is closing: it is for the next one"),
        Ignore(("backlog_ended",), (Outbox.HOLDING, Outbox.FULL), "another message was stored meanwhile"),
        Ignore(("files_opened", "disk_failed"), (Outbox.FINISHING, Outbox.OFF), "the client was stopped meanwhile"),
        Ignore(
            ("files_closed",),
            (Outbox.OFF, Outbox.OPENING, Outbox.FULL, Outbox.FAILING),
            "the disk was given up before",
        ),
    ),
)
