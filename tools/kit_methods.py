"""The table of the methods that the broker in memory knows, and of those that it refuses."""

from collections.abc import Iterator
from typing import Final

from pika import spec

from sprockets_amqp.testing.peer import knows

#: What a server says without being asked; whatever else it says answers, and ends with Ok.
_SAID: Final = {
    *("Connection.Start", "Connection.Secure", "Connection.Tune", "Connection.Blocked", "Connection.Unblocked"),
    *("Basic.Deliver", "Basic.Return", "Basic.GetEmpty"),
}
#: What a client answers.
_ANSWERED: Final = {
    *("Connection.StartOk", "Connection.SecureOk", "Connection.TuneOk", "Connection.CloseOk"),
    *("Channel.CloseOk", "Channel.FlowOk"),
}


def methods() -> Iterator[str]:
    """Yield the names of the methods that a client may send (https://www.rabbitmq.com/amqp-0-9-1-reference)."""
    for method in spec.methods.values():
        name = str(method.NAME)
        if name in _ANSWERED or (not name.endswith("Ok") and name not in _SAID):
            yield name


def table() -> str:
    """Write a row for what is known and for what is not."""
    rows = ""
    for what, known in (("known", True), ("refused (540)", False)):
        names = ", ".join(f"`{name.lower()}`" for name in sorted(methods()) if knows(name) is known)
        rows += f"| {what} | {names} |\n"
    return f"| | methods |\n| --- | --- |\n{rows}"
