"""What grows: how many of what, and what is measured of it."""

from __future__ import annotations

from dataclasses import dataclass

CLIENTS = "clients"
#: How it is named where memory is recorded; its number is that of minutes.
MEMORY = "memory"

#: The heading of a column, the sum of which measures stands in it, how it is written, and in what unit.
Column = tuple[str, tuple[str, ...], str, float]

_COLLECTOR: Column = ("of it Python's garbage collector", ("gc",), "{:.1f} µs", 1e6)


def _cost(what: str) -> Column:
    return (f"processor time {what}", ("cpu", "gc"), "{:.1f} µs", 1e6)


@dataclass(frozen=True)
class Kind:
    """One thing that grows.

    ``cost`` names what one costs, which is not to grow with their number, or what all take ``together``.
    """

    name: str
    what: str
    numbers: tuple[int, ...]
    columns: tuple[Column, ...]
    cost: str = "cpu"
    together: bool = False
    note: str = ""


KINDS = (
    Kind(
        "window",
        "messages in flight, as many as max_unconfirmed allows",
        (1, 10, 100, 1_000, 10_000, 100_000),
        (_cost("a message"), _COLLECTOR),
        note="Alone in flight, a message has a turn of the loop to itself.",
    ),
    Kind(
        "line",
        "messages in line, behind a window of 1,000",
        (0, 100, 1_000, 10_000, 100_000),
        (
            _cost("a message"),
            _COLLECTOR,
            ("of one that waits until the client is ready", ("outage", "outage_gc"), "{:.1f} µs", 1e6),
        ),
        note="A message that waits costs more than one that goes out at once: it has a place, and a deadline of its "
        "own. With 100 in line, most do not wait.",
    ),
    Kind(
        "routing keys",
        "routing keys, in turn",
        (1, 10, 100, 1_000, 10_000),
        (_cost("a message"), _COLLECTOR),
        note="The encoded addresses of 1,024 are kept.",
    ),
    Kind(
        "exchanges",
        "exchanges, in turn",
        (1, 10, 100, 1_000, 10_000),
        (
            _cost("a message"),
            _COLLECTOR,
            ("of each one's first message", ("first_cpu", "first_gc"), "{:.0f} µs", 1e6),
            ("until it is confirmed, one after the other", ("first_wall",), "{:.2f} ms", 1e3),
        ),
        note="RabbitMQ confirms fewer messages at a time where they go to many exchanges, so that as many take more "
        "turns of the loop. It is asked about each exchange before the first message, one at a time; 10,000 answers "
        "are kept.",
    ),
    Kind(
        CLIENTS,
        "clients that return to one restarted node: the last one",
        (1, 10, 100, 1_000),
        (
            ("the last is ready after", ("last",), "{:.1f} s", 1),
            ("most connections in one second, at the node", ("peak",), "{:.0f}", 1),
        ),
        cost="last",
        together=True,
        note="Seconds since the node listens; each client has tried after delays of its own since it was lost. "
        "They are in eight processes, where there are as many.",
    ),
)
