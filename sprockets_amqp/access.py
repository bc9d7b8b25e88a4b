"""What a function given as ``url`` may return: a URL, and how long its credentials are valid."""

from dataclasses import dataclass

from .urls import hide_password


@dataclass(frozen=True)
class Access:
    """Where RabbitMQ is and how to log in, for as long as the credentials are valid.

    Attributes:
        url: one node, or several, separated by commas.
        valid_for: seconds until the credentials expire; None if they do not. The function is called again before then,
            and the new password is sent to RabbitMQ on the open connection.
    """

    url: str
    valid_for: float | None = None

    def __repr__(self) -> str:
        return f"Access({hide_password(str(self.url))!r}, valid_for={self.valid_for!r})"
