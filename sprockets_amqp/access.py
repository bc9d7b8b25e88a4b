"""What a function for the setting ``url`` answers: a URL, and for how long its credentials are valid."""

from dataclasses import dataclass

from .urls import hide_password


@dataclass(frozen=True)
class Access:
    """Where RabbitMQ is and how to log in, for as long as the credentials are valid.

    Attributes:
        url: the node, or several, comma separated.
        valid_for: seconds until the credentials expire; None: they do not. The function is asked again before that,
            and RabbitMQ is sent the new password on the open connection.
    """

    url: str
    valid_for: float | None = None

    def __repr__(self) -> str:
        return f"Access({hide_password(str(self.url))!r}, valid_for={self.valid_for!r})"
