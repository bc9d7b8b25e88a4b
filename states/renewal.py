"""The renewal of credentials on an open connection, declared.

If the function given as ``url`` says how long its answer is valid, it is called again before then, and the new password
is sent to RabbitMQ on the open connection (``connection.update-secret``). A failed renewal is retried with back-off;
the connection stays open for as long as RabbitMQ keeps it.
"""

import enum
from typing import Final

from .connection import Connecting, State, Substate
from .vocabulary import Declared, Row


class Renewal(enum.Enum):
    """How far renewing the credentials has got."""

    NONE = "nothing to renew"
    VALID = "valid"
    ASKING = "asking"
    SENDING = "sending"


RENEWAL_STATES: Final = (
    Declared(Renewal.NONE, "There is no connection, or its credentials do not expire."),
    Declared(
        Renewal.VALID,
        "The credentials will expire; their renewal is scheduled.",
        timeout="renewal_delay",
        on_timeout="renewal_due",
    ),
    Declared(
        Renewal.ASKING,
        "The function given as `url` is being called.",
        on_enter=("ask_again",),
        on_exit=("stop_asking",),
        timeout="ask_limit",
        on_timeout="renewal_failed",
    ),
    Declared(
        Renewal.SENDING,
        "The new password was sent to RabbitMQ, which has not answered; while it is blocking, it does not.",
        on_enter=("send_secret",),
    ),
)

#: The states of the connection in which it is open and meant to stay open: entering them pulls ``login_accepted``,
#: leaving them ``login_ended``.
LOGGED_IN: Final[frozenset[Substate]] = frozenset(
    {
        Connecting.SETTING_UP,
        Connecting.OPENING_CHANNEL,
        Connecting.RETRYING_CHANNEL,
        State.READY,
        State.BLOCKED,
    }
)

RENEWAL_TRANSITIONS: Final = (
    Row("login_accepted", (Renewal.NONE,), Renewal.VALID, conditions="expires"),
    Row("renewal_due", (Renewal.VALID,), Renewal.ASKING),
    Row("credentials_given", (Renewal.ASKING,), Renewal.SENDING, conditions="sendable"),
    # RabbitMQ cannot change the user of a connection: a new user takes effect with the next connection.
    Row("credentials_given", (Renewal.ASKING,), Renewal.VALID, conditions="expires", before="tell_other_user"),
    Row("credentials_given", (Renewal.ASKING,), Renewal.NONE, before="tell_other_user"),
    Row("secret_accepted", (Renewal.SENDING,), Renewal.VALID, conditions="expires"),
    Row("secret_accepted", (Renewal.SENDING,), Renewal.NONE),
    Row("renewal_failed", (Renewal.ASKING,), Renewal.VALID, before="tell_failure"),
    Row("login_ended", (Renewal.VALID, Renewal.ASKING, Renewal.SENDING), Renewal.NONE),
)
