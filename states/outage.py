"""The outage, declared: while publishing is impossible, how long it has been so.

An outage lasts while publishing is impossible and the client is trying to make it possible. Once it has lasted longer
than the setting ``timeout`` it is persistent, and publishes no longer wait.
"""

from typing import Final

from .vocabulary import Action, Declared, Follow, Limit, Machine, Name, Row


class Outage(Name):
    """Whether there is an outage, and whether it is persistent."""

    CALM = "calm"
    COUNTING = "counting"
    PERSISTENT = "persistent"


OUTAGE: Final = Machine(
    "outage",
    initial=Outage.CALM,
    follows=(Follow("outage", entered="outage_began", left="outage_ended"),),
    states=(
        Declared(Outage.CALM, "Publishing is possible, or no connection is wanted."),
        Declared(
            Outage.COUNTING,
            "Publishing is impossible, but has not been for longer than `timeout`.",
            on_enter=(Action("note_beginning", "notes when it began"),),
            timeout=Limit("patience", "the setting `timeout`", "outage_lasted"),
        ),
        Declared(
            Outage.PERSISTENT,
            "Publishing has been impossible for longer than `timeout`.",
            on_enter=(
                Action("tell_persistent_failure", "reports the persistent failure"),
                Action("give_up_waiting", "ends waiting messages, or stores them"),
                Action("give_up_unconfirmed", "ends unconfirmed messages, which RabbitMQ may still confirm"),
            ),
            makes={"waits": "is refused"},
        ),
    ),
    rows=(
        Row("outage_began", (Outage.CALM,), Outage.COUNTING),
        Row("outage_lasted", (Outage.COUNTING,), Outage.PERSISTENT),
        Row("outage_ended", (Outage.COUNTING, Outage.PERSISTENT), Outage.CALM),
    ),
)
