"""What is given with each message: the properties that people give, headers as well, or none."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any, Literal

#: ``none`` leaves a message to the client's defaults: its id, its time and its application, which a peer that has no
#: such defaults is given by hand.
Given = Literal["properties", "headers", "none"]

Properties = dict[str, Any]
Giver = Callable[[], Properties | None]

# Making an id is the application's business, and costs every client the same: one that is counted up costs least.
_number = itertools.count(1).__next__
_run = os.urandom(8).hex()
_trace = os.urandom(16).hex()


def with_properties() -> Properties:
    """Return what a message of JSON that is to be kept is usually given, under an id of its own."""
    return {"content_type": "application/json", "delivery_mode": 2, "message_id": f"{_run}-{_number():019}"}


def with_headers() -> Properties:
    """Return the same and three headers; one of them is a text that no other message has."""
    number = _number()
    return {
        "content_type": "application/json",
        "delivery_mode": 2,
        "message_id": f"{_run}-{number:019}",
        "headers": {"traceparent": f"00-{_trace}-{number:016}-01", "schema": "user.created", "version": 3},
    }


def without() -> None:
    """Return what the client's defaults are asked for with."""


MAKERS: dict[Given, Giver] = {
    "properties": with_properties,
    "headers": with_headers,
    "none": without,
}
