"""Installing a client into a Tornado application."""

import logging
from importlib.metadata import version
from typing import Any, Unpack

from tornado.ioloop import IOLoop
from tornado.web import Application

from sprockets_amqp.bounded_log import named
from sprockets_amqp.client import Arguments, Client
from sprockets_amqp.names import DEFAULT_NAME, check_name, missing
from sprockets_amqp.names import client_of as present_client
from sprockets_amqp.secret import all_hidden, all_revealed
from sprockets_amqp.settings import DEFAULT_URL, from_environment

LOGGER = logging.getLogger("sprockets_amqp._install")


def install(
    application: Application, io_loop: IOLoop | None = None, *, name: str = DEFAULT_NAME, **kwargs: Unpack[Arguments]
) -> bool:
    """Give the application a client, ``application.amqp``; return False, with a warning, if it has one already.

    An application may have several clients, each with a ``name``; ``application.amqp_clients`` holds all of them. The
    name is the prefix of the client's environment variables (``AUDIT_URL`` for ``"audit"``). A handler chooses its
    client with the class attribute ``amqp_name = "audit"``.

    Call it before or while a loop runs (``Application.__init__`` and sprockets.http's ``before_run`` are fine); the
    client connects when the loop runs. Keyword arguments are those of `Client`; the environment supplies the rest.
    sprockets.http shuts the client down when it stops, also that of a plain `tornado.web.Application`.

    Raises:
        ValueError: a setting or the name is invalid; the error names it and where it came from.
    """
    kwargs = all_hidden(kwargs)
    present = present_client(application, check_name(name))
    if present is not None and (not isinstance(present, Client) or present.recovers or present.closing):
        named(LOGGER, name).warning("AMQP is already installed: %r", present)
        return False
    defaults = {"url": DEFAULT_URL, "default_app_id": _app_id(application)}
    client = Client(
        io_loop=io_loop, **{**defaults, **from_environment(name=name), **all_revealed(kwargs), "name": name}
    )
    if name == DEFAULT_NAME:
        application.amqp = client  # type: ignore[attr-defined]
    application.amqp_clients = {**getattr(application, "amqp_clients", {}), name: client}  # type: ignore[attr-defined]
    _shutdown_callbacks(application).append(lambda _application: client.shutdown())
    return True


def client_of(application: Application, name: str = DEFAULT_NAME) -> Client:
    """Return the application's client, typed: the default one, or the one that was installed with this name.

    Raises:
        RuntimeError: there is none; the error says what to call first.
    """
    found = present_client(application, name)
    if not isinstance(found, Client):
        raise RuntimeError(missing(name))
    return found


def _shutdown_callbacks(application: Application) -> list[Any]:
    """Return the callbacks that sprockets.http calls when it stops, also for an application that is not its own."""
    callbacks: list[Any] | None = getattr(application, "on_shutdown_callbacks", None)
    if callbacks is None:
        # It takes these from a plain application; nobody else looks at them.
        known: dict[str, list[Any]] = getattr(application, "runner_callbacks", {})
        application.runner_callbacks = known  # type: ignore[attr-defined]
        callbacks = known.setdefault("shutdown", [])
    return callbacks


def _app_id(application: Application) -> str:
    service, its_version = application.settings.get("service"), application.settings.get("version")
    return f"{service}/{its_version}" if service and its_version else f"sprockets_amqp/{version('sprockets_amqp')}"
