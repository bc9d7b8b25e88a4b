"""Handlers that show the client: a live page, and readiness and liveness for whoever routes requests.

>>> import sprockets_amqp as amqp
>>> from tornado.web import Application
>>> application = Application([*amqp.web.routes()])

They show the client of their application, ``application.amqp``, and no secret. Whoever can reach the application can
reach them: where that is everybody, keep their prefix from the outside, as one does with metrics.
"""

import re
from typing import Any, Final

from tornado.routing import URLSpec

from sprockets_amqp.names import PATTERN, TAKEN

from .page import STATIC, Events, Page, Static, Style
from .probes import Live, Ready

__all__ = ["routes"]

#: A client's name in a path.
_NAME: Final = rf"(?!(?:{'|'.join(sorted(TAKEN))})(?:/|$)){PATTERN}"


def routes(prefix: str = "/amqp") -> list[Any]:
    """Return the routes of the page (at ``prefix``), ``prefix/ready`` and ``prefix/live``, for an `Application`.

    Those of another client than the default one have its name behind the prefix: ``prefix/audit/ready``. All of them
    are `tornado.web.URLSpec`, in a list that type checkers let stand beside tuples.
    """
    start = re.escape(prefix.rstrip("/"))
    named = rf"{start}(?:/(?P<name>{_NAME}))?"
    return [
        URLSpec(rf"{named}/ready", Ready),
        URLSpec(rf"{named}/live", Live),
        URLSpec(rf"{named}/events", Events),
        URLSpec(rf"{named}/lifecycle\.css", Style),
        URLSpec(rf"{start}(?:/{_NAME})?/(page\.css|page\.js|icon\.svg)", Static, {"path": str(STATIC)}),
        URLSpec(rf"{named}/?", Page),
    ]
