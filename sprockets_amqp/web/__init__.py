"""Handlers that show the client: a live page, and readiness and liveness probes for load balancers and Kubernetes.

>>> import sprockets_amqp as amqp
>>> from tornado.web import Application
>>> application = Application([*amqp.web.routes()])

They show the client of their application, ``application.amqp``, and no secret. Everyone who can reach the application
can reach them: restrict access to their prefix as you would for metrics.
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

    Those of a client other than the default one have its name after the prefix: ``prefix/audit/ready``. The routes are
    `tornado.web.URLSpec`, in a list whose type allows tuples beside them.
    """
    start = re.escape(prefix.rstrip("/"))
    named = rf"{start}(?:/(?P<name>{_NAME}))?"
    return [
        URLSpec(rf"{named}/ready", Ready),
        URLSpec(rf"{named}/live", Live),
        URLSpec(rf"{named}/events", Events),
        URLSpec(rf"{named}/lifecycle\.css", Style),
        URLSpec(rf"{start}(?:/{_NAME})?/((?:page|timeline)\.(?:css|js)|icon\.svg)", Static, {"path": str(STATIC)}),
        URLSpec(rf"{named}/?", Page),
    ]
