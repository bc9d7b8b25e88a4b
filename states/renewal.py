"""The renewal of credentials on an open connection, declared.

If the function given as ``url`` says how long its answer is valid, it is called again before then, and the new password
is sent to RabbitMQ on the open connection (``connection.update-secret``). A failed renewal is retried with back-off;
the connection stays open for as long as RabbitMQ keeps it.
"""

from typing import Final

from .vocabulary import Action, Declared, Delay, Follow, Ignore, Limit, Machine, Name, Row


class Renewal(Name):
    """How far renewing the credentials has got."""

    NONE = "nothing to renew"
    VALID = "valid"
    CALLING = "calling"
    SENDING = "sending"


_TELL_OTHER_USER: Final = Action("tell_other_user", "logs that the connection keeps its user")

_FORGET_ANSWERS: Final = Action("forget_answers", "has every exchange checked again")

RENEWAL: Final = Machine(
    "renewal",
    initial=Renewal.NONE,
    follows=(Follow("logged_in", entered="login_accepted", left="login_ended"),),
    states=(
        Declared(Renewal.NONE, "There is no connection, or its credentials do not expire."),
        Declared(
            Renewal.VALID,
            "The credentials will expire; their renewal is scheduled.",
            timeout=Delay(
                "renewal_delay", "two thirds of the credentials' validity; after a failure, a back-off", "renewal_due"
            ),
        ),
        Declared(
            Renewal.CALLING,
            "The function given as `url` is being called.",
            on_enter=(Action("call_again", "calls the function again"),),
            on_exit=(Action("stop_call", "cancels the call"),),
            timeout=Limit("call_limit", "the time the function may take", "renewal_failed"),
        ),
        Declared(
            Renewal.SENDING,
            "The new password was sent to RabbitMQ, which has not answered; while it is blocking, it does not.",
            on_enter=(Action("send_secret", "sends RabbitMQ the new password"),),
        ),
    ),
    rows=(
        Row("login_accepted", (Renewal.NONE,), Renewal.VALID, conditions="expires"),
        Row("renewal_due", (Renewal.VALID,), Renewal.CALLING),
        Row("credentials_given", (Renewal.CALLING,), Renewal.SENDING, conditions="sendable"),
        # RabbitMQ cannot change the user of a connection: a new user takes effect with the next connection.
        Row("credentials_given", (Renewal.CALLING,), Renewal.VALID, conditions="expires", before=_TELL_OTHER_USER),
        Row("credentials_given", (Renewal.CALLING,), Renewal.NONE, before=_TELL_OTHER_USER),
        # RabbitMQ may grant the new credentials less, and closes the channel over what it does not grant.
        Row("secret_accepted", (Renewal.SENDING,), Renewal.VALID, conditions="expires", before=_FORGET_ANSWERS),
        Row("secret_accepted", (Renewal.SENDING,), Renewal.NONE, before=_FORGET_ANSWERS),
        Row("renewal_failed", (Renewal.CALLING,), Renewal.VALID, before=Action("tell_failure", "logs the failure")),
        Row("login_ended", (Renewal.VALID, Renewal.CALLING, Renewal.SENDING), Renewal.NONE),
    ),
    ignores=(Ignore(("secret_accepted",), (Renewal.NONE,), "the client has begun to close"),),
)
