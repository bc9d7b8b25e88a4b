"""What a function for the setting ``url`` answers, and how long that is good for."""

from dataclasses import dataclass, field

from .urls import hide_password


@dataclass(frozen=True)
class Access:
    """Where RabbitMQ is and how to log in, for as long as the credentials are valid.

    Attributes:
        url: the node, or several, comma separated.
        valid_for: seconds for which the credentials are valid; None: until RabbitMQ refuses them. The function is
            asked again before they are over, and the open connection is given the new password.
    """

    url: str = field(repr=False)
    valid_for: float | None = None

    def __repr__(self) -> str:
        return f"Access({hide_password(str(self.url))!r}, valid_for={self.valid_for!r})"
