"""The names of an application's clients: ``amqp`` is the default, and there may be others."""

import re
from typing import Any, Final

DEFAULT_NAME: Final = "amqp"
#: What a name may be: it is part of paths and of variables' names.
PATTERN: Final = r"[a-z][a-z0-9_]*"
#: Paths of the default client's page.
TAKEN: Final = frozenset({"ready", "live", "events"})


def check_name(name: str) -> str:
    """Return the name. Raises ValueError if it is not allowed."""
    given: object = name
    if not isinstance(given, str) or re.fullmatch(PATTERN, given) is None or given in TAKEN:
        raise ValueError(
            f"name must be lower-case letters, digits and _, such as 'audit', and none of {', '.join(sorted(TAKEN))}; "
            f"not {name!r:.80}"
        )
    return name


def client_of(application: object, name: str) -> Any:
    """Return the application's client of this name, or None; in a test it may be any object."""
    if name == DEFAULT_NAME:
        return getattr(application, "amqp", None)
    return getattr(application, "amqp_clients", {}).get(name)


def clients_of(application: object) -> list[Any]:
    """Return all of the application's clients."""
    default = getattr(application, "amqp", None)
    named = getattr(application, "amqp_clients", None)
    others = named.values() if isinstance(named, dict) else ()
    return list({id(each): each for each in (default, *others) if each is not None}.values())


def missing(name: str) -> str:
    """Say that the application has no client of this name, and what to do."""
    if name == DEFAULT_NAME:
        return "the application has no AMQP client: call sprockets_amqp.install(application) first"
    shown = f"{name!r:.80}"
    return f"the application has no AMQP client {shown}: call sprockets_amqp.install(application, name={shown}) first"
