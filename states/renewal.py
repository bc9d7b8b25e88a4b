"""The renewal of credentials on an open connection, declared.

Where the function given as ``url`` says for how long its answer is valid, it is asked again before that time is up, and
RabbitMQ is sent the new password on the open connection (``connection.update-secret``). A renewal that fails is tried
again with back-off; the connection stays open as long as RabbitMQ keeps it.
"""

import enum
from typing import Final

from .connection import Connecting, State, Substate
from .vocabulary import Declared, Row


class Renewal(enum.Enum):
    """How far the renewal of the credentials has come."""

    NONE = "nothing to renew"
    VALID = "valid"
    ASKING = "asking"
    SENDING = "sending"


RENEWAL_STATES: Final = (
    Declared(Renewal.NONE, "There is no connection, or its credentials do not expire."),
    Declared(
        Renewal.VALID,
        "The credentials expire; the renewal is scheduled.",
        timeout="renewal_delay",
        on_timeout="renewal_due",
    ),
    Declared(
        Renewal.ASKING,
        "The function given as `url` is asked.",
        on_enter=("ask_again",),
        on_exit=("stop_asking",),
        timeout="ask_limit",
        on_timeout="renewal_failed",
    ),
    Declared(
        Renewal.SENDING,
        "RabbitMQ was sent the new password, and has not answered; while it is blocking, it does not.",
        on_enter=("send_secret",),
    ),
)

#: The states of the connection in which it is open and to be kept; entering one of them is ``login_accepted``, any
#: other ``login_ended``.
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
    # RabbitMQ cannot change the user of a connection: another one is for the next.
    Row("credentials_given", (Renewal.ASKING,), Renewal.VALID, conditions="expires", before="tell_other_user"),
    Row("credentials_given", (Renewal.ASKING,), Renewal.NONE, before="tell_other_user"),
    Row("secret_accepted", (Renewal.SENDING,), Renewal.VALID, conditions="expires"),
    Row("secret_accepted", (Renewal.SENDING,), Renewal.NONE),
    Row("renewal_failed", (Renewal.ASKING,), Renewal.VALID, before="tell_failure"),
    Row("login_ended", (Renewal.VALID, Renewal.ASKING, Renewal.SENDING), Renewal.NONE),
)
