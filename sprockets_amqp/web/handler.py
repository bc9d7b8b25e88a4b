"""What the handlers of this package share."""

from typing import Any, Final

from tornado.web import HTTPError, RequestHandler

from sprockets_amqp.client import Client
from sprockets_amqp.names import DEFAULT_NAME, client_of, missing

#: Everything is loaded from here, and nothing is inline.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Handler(RequestHandler):
    """Answers about the application's client; nothing may be cached, and nothing is loaded from elsewhere."""

    _client_name = DEFAULT_NAME

    def prepare(self) -> None:
        """Take the client's name from the path."""
        self._client_name = self.path_kwargs.pop("name", "") or DEFAULT_NAME

    def set_default_headers(self) -> None:
        """Forbid caching, and loading anything from elsewhere."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")

    @property
    def client(self) -> Client:
        """The application's client named in the path, or the default one; 503 if there is none."""
        client = client_of(self.application, self._client_name)
        if not isinstance(client, Client):
            raise HTTPError(503, missing(self._client_name))
        client.bind()
        return client

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say in JSON which client is missing."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        reason = missing(self._client_name)
        if isinstance(error, HTTPError) and error.log_message == reason:
            self.finish({"ready": False, "live": False, "reason": reason})
        else:
            super().write_error(status_code, **kwargs)

    def compute_etag(self) -> str | None:
        """Return None: nothing here may be cached."""
        return None
