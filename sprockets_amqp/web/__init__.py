"""Handlers that show the client: a live page, and readiness and liveness for whoever routes requests.

>>> import sprockets_amqp as amqp
>>> from tornado.web import Application
>>> application = Application([*amqp.web.routes()])

They show the client of their application, ``application.amqp``, and no secret. Whoever can reach the application can
reach them: where that is everybody, keep their prefix from the outside, as one does with metrics.
"""

import re
from typing import Any

from tornado.routing import URLSpec

from .page import STATIC, Events, Page, Static, Style
from .probes import Live, Ready


def routes(prefix: str = "/amqp") -> list[Any]:
    """Return the routes of the page (at ``prefix``), ``prefix/ready`` and ``prefix/live``, for an `Application`.

    They are `tornado.web.URLSpec`, in a list that type checkers let stand beside tuples.
    """
    start = re.escape(prefix.rstrip("/"))
    return [
        URLSpec(rf"{start}/ready", Ready),
        URLSpec(rf"{start}/live", Live),
        URLSpec(rf"{start}/events", Events),
        URLSpec(rf"{start}/lifecycle\.css", Style),
        URLSpec(rf"{start}/(page\.css|page\.js|icon\.svg)", Static, {"path": str(STATIC)}),
        URLSpec(rf"{start}/?", Page),
    ]
