"""Installing a client into a Tornado application."""

import logging
from importlib.metadata import version
from typing import Any

from tornado.ioloop import IOLoop
from tornado.web import Application

from .client import Client
from .names import DEFAULT_NAME, check_name, client_of
from .settings import DEFAULT_URL, from_environment

LOGGER = logging.getLogger(__name__)


def install(
    application: Application, io_loop: IOLoop | None = None, *, name: str = DEFAULT_NAME, **kwargs: Any
) -> bool:
    """Give the application a client, as ``application.amqp``; returns False, with a warning, where it has one already.

    An application may have several clients, each with a ``name``: ``application.amqp_clients`` has all of them. The
    name is the prefix of the client's variables (``AUDIT_URL`` for ``"audit"``); a handler publishes on it with the
    class attribute ``amqp_name = "audit"``.

    It may be called before a loop runs (also in ``Application.__init__`` and in sprockets.http's ``before_run``), and
    connects when the loop does. Keyword arguments are those of `Client`; the environment gives those that are missing.
    A sprockets.http application shuts its client down by itself.

    Raises:
        ValueError: a setting or the name is bad; the sentence names it and where it came from.
    """
    present = client_of(application, check_name(name))
    if present is not None and (not isinstance(present, Client) or present.recovers or present.closing):
        LOGGER.warning("AMQP is already installed: %s%r", "" if name == DEFAULT_NAME else f"{name} ", present)
        return False
    try:
        settings = {"url": DEFAULT_URL, "default_app_id": _app_id(application), **from_environment(name=name), **kwargs}
        settings["name"] = name
        client = Client(io_loop=io_loop, **settings)
    finally:
        # A traceback may be shown with what its frames hold.
        settings, kwargs = {}, {}
    if name == DEFAULT_NAME:
        application.amqp = client  # type: ignore[attr-defined]
    application.amqp_clients = {**getattr(application, "amqp_clients", {}), name: client}  # type: ignore[attr-defined]
    callbacks = getattr(application, "on_shutdown_callbacks", None)
    if callbacks is not None:
        callbacks.append(lambda _application: client.shutdown())
    return True


def _app_id(application: Application) -> str:
    service, its_version = application.settings.get("service"), application.settings.get("version")
    return f"{service}/{its_version}" if service and its_version else f"sprockets_amqp/{version('sprockets_amqp')}"
