"""The table of the outbox's ledger: where a message may be, and what moves it from there."""

from sprockets_amqp.states import LEDGER, Place


def table() -> str:
    """Write a row for each place."""
    rows = "".join(
        f"| `{place.name}` | {place.value[0]} | {place.value[1]} | {LEDGER.declared[place].meaning} | {_moves(place)} |\n"
        for place in Place
    )
    return f"| place | what the disk has | besides | what it means | moves |\n| --- | --- | --- | --- | --- |\n{rows}"


def _moves(place: Place) -> str:
    return ", ".join(f"`{row.trigger}` → `{row.dest.name}`" for row in LEDGER.rows if place in row.source)
