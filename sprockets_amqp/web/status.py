"""What the page and the probes say about a client, ready for JSON and without secrets."""

from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from sprockets_amqp.client import Client
from sprockets_amqp.drawing.declared import substate_name
from sprockets_amqp.hooks import StateChange
from sprockets_amqp.text import shown
from sprockets_amqp.urls import node_name
from sprockets_amqp.wire.tls import unverified

#: The counters shown to people, with their names on the page.
COUNTERS: Final = {
    "published": "Published",
    "confirmed": "Confirmed",
    "unconfirmed": "Unconfirmed",
    "waiting": "Waiting",
    "stored": "Stored",
    "set_aside": "Set aside",
    "returned": "Returned",
    "nacked": "Nacked",
    "failed": "Failed",
    "reconnects": "Reconnects",
}


def describe(client: Client) -> dict[str, Any]:
    """Return the client's status for JSON: what readiness and liveness answer."""
    history, counters = client.history, client.counters
    return {
        "state": client.state.name.lower(),
        "substate": substate_name(client.substate),
        "since": iso(client.state_since),
        "ready": client.publish_outcome in {"goes out", "is stored"} and not client.stopping,
        "live": client.recovers or client.closing,
        "trigger": history[-1].trigger if history else "",
        "reason": client.reason,
        "broker": _broker(client),
        "counters": {name: getattr(counters, name) for name in COUNTERS},
    }


def snapshot(client: Client) -> dict[str, Any]:
    """Return the client's status for JSON, with what the page shows in addition."""
    outcome = client.publish_outcome
    because = f": not ready for more than {client.settings.timeout:g} s" if outcome == "is refused" else ""
    trouble = f"; the outbox cannot store anything: {shown(client.outbox_trouble)}" if client.outbox_trouble else ""
    return {
        **describe(client),
        "client": client.name,
        "next_attempt": iso(client.next_attempt) if client.next_attempt is not None else "",
        "description": client.state_description,
        "outcome": outcome,
        "doubt": unverified(client.parameters) if client.parameters is not None else "",
        "publish": f"a publish {outcome}{because if client.recovers else ''}{trouble}",
    }


def describe_change(change: StateChange) -> dict[str, str]:
    """Return a change for JSON."""
    return {
        "at": iso(change.at),
        "source": change.source.name.lower(),
        "dest": change.dest.name.lower(),
        "trigger": change.trigger,
        "reason": change.reason,
    }


def _broker(client: Client) -> str:
    """Name the node that is connected or tried next, without its credentials."""
    parameters = client.parameters
    if parameters is None:
        return "not known yet"
    return f"{shown(node_name(parameters))}/{quote(parameters.virtual_host, safe='')}"


def iso(seconds: float) -> str:
    """Format a time as RFC 3339 does, in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
