"""What must hold of the machines together, declared: one sentence and one expression for each property.

The checker (`sprockets_amqp/proof`) shows each of them for every world that can be reached (`states/world.py`).
"""

from collections.abc import Collection
from typing import Final, NamedTuple

from .check import Check, Running
from .connection import Closed, Closing, Connecting, State
from .events import Kind
from .outage import Outage
from .outbox import Outbox
from .renewal import Renewal
from .world import Condition, Files, Lane, Line, Publish, World, takes


class Always(NamedTuple):
    """What is so in every world."""

    words: str
    holds: Condition


class LeadsTo(NamedTuple):
    """What comes about at last, on every fair path.

    Attributes:
        words: the property.
        begins: where it begins.
        reaches: what is reached.
        happens: the kinds of events that happen meanwhile.
        at_last: those of them that do happen at last, where they can.
    """

    words: str
    begins: Condition
    reaches: Condition
    happens: Collection[Kind]
    at_last: Collection[Kind]


class Paced(NamedTuple):
    """What is not done again and again without a delay, whatever answers come.

    Attributes:
        words: the property.
        actions: the actions, with their machines.
    """

    words: str
    actions: Collection[tuple[str, str]]


_EVERYTHING: Final[tuple[Kind, ...]] = ("request", "answer", "fault", "soon", "delay", "limit")
#: Everything but what is wrong.
_UNBROKEN: Final[tuple[Kind, ...]] = ("request", "answer", "soon", "delay", "limit")
#: Nothing is wrong any more.
_WELL: Final[tuple[Kind, ...]] = ("answer", "soon", "delay")
#: What the client does by itself.
_OWN: Final[tuple[Kind, ...]] = ("soon", "delay", "limit")


def _is_asked(now: World) -> bool:
    return now.check in Running


ALWAYS: Final = (
    # The connection's states say what is so on the wire.
    Always(
        "A state is connected exactly if there is a connection.",
        lambda now: now.has("connected") == (now.link in {Line.OPEN, Line.CLOSING}),
    ),
    Always(
        "A state has a channel exactly if RabbitMQ has opened one.",
        lambda now: now.has("has_channel") == (now.channel is Line.OPEN),
    ),
    Always(
        "A state is logged in exactly if its connection is meant to stay.",
        lambda now: now.has("logged_in") == (now.link is Line.OPEN and now.wanted),
    ),
    Always(
        "A state is at rest exactly if nothing is wanted and nothing is open.",
        lambda now: now.has("at_rest") == (now.link is Line.NONE and not now.wanted),
    ),
    Always(
        "There is an outage in a state exactly if publishing is wanted and impossible.",
        lambda now: now.has("outage") == (now.wanted and not now.could_send),
    ),
    Always(
        "Nothing goes out unless the channel is open and RabbitMQ does not block.",
        lambda now: not now.has("sends") or now.could_send,
    ),
    Always(
        "While RabbitMQ takes messages, and they are wanted, what waits goes out.",
        lambda now: now.has("sends") or not (now.could_send and now.wanted),
    ),
    Always(
        "Nothing waits that could go out.",
        lambda now: now.publish is not Publish.WAITING or not now.could_send or now.outbox is Outbox.OPENING,
    ),
    # Publishes
    Always(
        "A publish goes out only on an open channel that RabbitMQ does not block.",
        lambda now: now.outcome != "goes out" or (now.wanted and now.could_send),
    ),
    Always(
        "A publish is refused only if the client is stopping, the outage is persistent, or nothing can be stored.",
        lambda now: (
            now.outcome != "is refused"
            or (not now.wanted and now.connection is not State.IDLE)
            or now.outage is Outage.PERSISTENT
            or now.outbox is Outbox.FULL
        ),
    ),
    Always(
        "A publish waits only if the client is about to publish, and the outage is not persistent.",
        lambda now: (
            now.outcome != "waits"
            or now.connection is State.IDLE
            or (now.wanted and now.outage is not Outage.PERSISTENT)
        ),
    ),
    Always(
        "A publish waits only if it cannot go out.",
        lambda now: now.outcome != "waits" or not now.could_send or now.outbox is Outbox.OPENING,
    ),
    Always(
        "No publish is refused that can be stored.",
        lambda now: now.outcome != "is refused" or now.outbox not in {Outbox.OPENING, Outbox.CLEAR, Outbox.HOLDING},
    ),
    Always(
        "A publish is stored only if it would be refused, or messages are ahead of it.",
        lambda now: (
            now.outcome != "is stored"
            or now.outbox is Outbox.HOLDING
            or not now.wanted
            or now.outage is Outage.PERSISTENT
        ),
    ),
    Always(
        "Nothing is stored while nothing can be stored.",
        lambda now: now.outcome != "is stored" or now.outbox in {Outbox.OPENING, Outbox.CLEAR, Outbox.HOLDING},
    ),
    Always(
        "Nothing goes out while stored messages wait to be sent.",
        lambda now: now.outcome != "goes out" or not (now.holds or now.pends),
    ),
    Always(
        "Nothing is put in line where messages are stored, or are refused for want of room.",
        lambda now: now.outcome != "waits" or now.outbox not in {Outbox.HOLDING, Outbox.FULL},
    ),
    Always(
        "Nothing goes out before the files are read.",
        lambda now: now.outcome != "goes out" or now.outbox is not Outbox.OPENING,
    ),
    Always(
        "Nothing waits where publishes are stored, or refused for want of room.",
        lambda now: now.publish is not Publish.WAITING or now.outbox not in {Outbox.HOLDING, Outbox.FULL},
    ),
    Always(
        "Nothing waits in a persistent outage.",
        lambda now: now.publish is not Publish.WAITING or now.outage is not Outage.PERSISTENT,
    ),
    Always(
        "In a persistent outage no caller waits for a confirm.",
        lambda now: now.publish is not Publish.SENT or now.outage is not Outage.PERSISTENT,
    ),
    Always(
        "Nothing waits, and nothing is unconfirmed, once the client is stopped.",
        lambda now: now.connection is not Closed.STOPPED or now.publish is Publish.NONE,
    ),
    Always(
        "Nothing is unconfirmed without a channel.",
        lambda now: now.channel is Line.OPEN or now.publish in {Publish.NONE, Publish.WAITING},
    ),
    Always(
        "Nothing waits while a client that closes awaits confirms alone, or closes the connection.",
        lambda now: (
            now.publish is not Publish.WAITING or now.connection not in {Closing.CONFIRMING, Closing.CLOSING_CONNECTION}
        ),
    ),
    # The machines fit each other.
    Always(
        "There is an outage exactly in the states of an outage.",
        lambda now: (now.outage is not Outage.CALM) == now.has("outage"),
    ),
    Always(
        "Credentials are renewed exactly while the client is logged in, and they expire.",
        lambda now: (
            (now.renewal is not Renewal.NONE)
            == (now.has("logged_in") and (now.expires or now.renewal is Renewal.SENDING))
        ),
    ),
    Always(
        "The outbox is open exactly while the client is started.",
        lambda now: (now.outbox not in {Outbox.OFF, Outbox.FINISHING}) == (now.given and not now.has("at_rest")),
    ),
    Always(
        "Nothing is left to send while the outbox is clear, unless the client is stopping.",
        lambda now: now.outbox is not Outbox.CLEAR or not now.holds or not now.wanted,
    ),
    Always(
        "The outbox fails, rather than being full, only if nothing stored waits, or the client is stopping.",
        lambda now: now.outbox is not Outbox.FAILING or not now.holds or not now.wanted,
    ),
    Always(
        "An exchange is checked only while there is a channel to publish on.",
        lambda now: not _is_asked(now) or now.has("has_channel"),
    ),
    Always(
        "There is a channel for checks only on a connection.",
        lambda now: now.check in {Check.NONE, Check.UNAVAILABLE} or now.has("connected"),
    ),
    Always(
        "Somebody waits for the answer to a check exactly while one is running.",
        lambda now: now.asked == _is_asked(now),
    ),
    Always(
        "A channel for checks is being opened, or is asked something, exactly in the states that say so.",
        lambda now: (
            (now.lane in {Lane.MISSING, Lane.OPENING, Lane.SELECTING, Lane.CHECKING})
            == (now.check in {Running.OPENING, Running.SELECTING, Running.CHECKING})
        ),
    ),
    Always(
        "A channel for checks is open and unused exactly while the check is idle.",
        lambda now: (now.lane is Lane.OPEN) == (now.check is Check.IDLE),
    ),
    Always(
        "RabbitMQ may be handling a check's message exactly while one was sent and not answered.",
        lambda now: now.is_checking == (now.lane is Lane.CHECKING),
    ),
    Always(
        "The outbox is in trouble exactly while it is open and nothing can be stored.",
        lambda now: now.is_troubled == (now.outbox not in {Outbox.OFF, Outbox.FINISHING} and not takes(now)),
    ),
    # Nothing is left behind.
    Always(
        "The function is called exactly while somebody waits for it.",
        lambda now: now.called == (now.connection is Connecting.CALLING or now.renewal is Renewal.CALLING),
    ),
    Always(
        "`setup` runs exactly while the client is setting up.",
        lambda now: now.setup == (now.connection is Connecting.SETTING_UP),
    ),
    Always(
        "A channel is being opened exactly while the client is opening one.",
        lambda now: (now.channel is Line.OPENING) == (now.connection is Connecting.OPENING_CHANNEL),
    ),
    Always(
        "A connection is being opened exactly while the client is opening one.",
        lambda now: (now.link is Line.OPENING) == (now.connection is Connecting.OPENING_CONNECTION),
    ),
    Always(
        "Nothing that was lost is kept.",
        lambda now: (
            now.link is not Line.LOST and (now.channel is not Line.LOST or now.connection is Closing.CLOSING_CONNECTION)
        ),
    ),
    Always(
        "RabbitMQ is asked to close the connection while the client is closing it.",
        lambda now: (now.link is Line.CLOSING) == (now.connection is Closing.CLOSING_CONNECTION),
    ),
    Always(
        "While the outbox is open, the disk was asked to open the files.",
        lambda now: now.outbox in {Outbox.OFF, Outbox.FINISHING} or now.files in {Files.OPEN, Files.REOPENING},
    ),
    Always(
        "The files are being closed while the outbox finishes.",
        lambda now: now.outbox is not Outbox.FINISHING or now.files is Files.CLOSING,
    ),
)

LEADS_TO: Final = (
    LeadsTo(
        "A client that is wanted becomes ready, once nothing is wrong any more.",
        lambda now: now.wanted,
        lambda now: now.connection is State.READY,
        _WELL,
        _WELL,
    ),
    LeadsTo(
        "A client that closes is closed, whatever happens.",
        lambda now: now.connection in Closing,
        lambda now: now.connection is Closed.STOPPED,
        _EVERYTHING,
        _OWN,
    ),
    LeadsTo(
        "A client that closes is closed once all is confirmed, without waiting for a limit.",
        lambda now: now.connection in Closing,
        lambda now: now.connection is Closed.STOPPED,
        _WELL,
        _WELL,
    ),
    LeadsTo(
        "An attempt to connect ends if nothing answers.",
        lambda now: now.connection in Connecting,
        lambda now: now.connection not in Connecting,
        _OWN,
        _OWN,
    ),
    LeadsTo(
        "A publish ends for its caller, by its own clock if by nothing else, unless connections go on being lost.",
        lambda now: now.publish in {Publish.WAITING, Publish.SENT},
        lambda now: now.publish not in {Publish.WAITING, Publish.SENT},
        _UNBROKEN,
        _OWN,
    ),
    LeadsTo(
        "A check is answered or given up, whatever happens.",
        _is_asked,
        lambda now: not _is_asked(now),
        _EVERYTHING,
        _OWN,
    ),
    LeadsTo(
        "An outage ends or becomes persistent, whatever happens.",
        lambda now: now.outage is Outage.COUNTING,
        lambda now: now.outage is not Outage.COUNTING,
        _EVERYTHING,
        _OWN,
    ),
    LeadsTo(
        "Calling for new credentials ends, whatever happens.",
        lambda now: now.renewal is Renewal.CALLING,
        lambda now: now.renewal is not Renewal.CALLING,
        _EVERYTHING,
        _OWN,
    ),
    LeadsTo(
        "The function is called for new credentials before they expire.",
        lambda now: now.renewal is Renewal.VALID,
        lambda now: now.renewal is not Renewal.VALID,
        _WELL,
        _WELL,
    ),
    LeadsTo(
        "A new password that RabbitMQ accepts is taken note of.",
        lambda now: now.renewal is Renewal.SENDING,
        lambda now: now.renewal is not Renewal.SENDING,
        _WELL,
        _WELL,
    ),
    LeadsTo(
        "A disk that works again takes messages again.",
        lambda now: now.outbox in {Outbox.FULL, Outbox.FAILING, Outbox.OPENING},
        lambda now: now.outbox not in {Outbox.FULL, Outbox.FAILING, Outbox.OPENING},
        _WELL,
        _WELL,
    ),
    LeadsTo(
        "Stored messages are sent.",
        lambda now: now.outbox is Outbox.HOLDING,
        lambda now: now.outbox is not Outbox.HOLDING,
        _WELL,
        _WELL,
    ),
    LeadsTo(
        "An outbox that is closing is closed, or opened again, whatever the disk does.",
        lambda now: now.outbox is Outbox.FINISHING,
        lambda now: now.outbox is not Outbox.FINISHING,
        _EVERYTHING,
        _OWN,
    ),
)

PACED: Final = (
    Paced(
        "The client does not connect again and again without a delay.",
        (("connection", "open_connection"), ("connection", "call_for_address"), ("connection", "open_channel")),
    ),
    Paced("The client does not ask the disk again and again without a delay.", (("outbox", "open_files"),)),
    Paced(
        "The client does not renew credentials again and again without a delay.",
        (("renewal", "call_again"), ("renewal", "send_secret")),
    ),
)
