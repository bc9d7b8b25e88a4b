"""What the actions of the machines do to the world, declared, and what their guards ask of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from .connection import Closed, State
from .outbox import Outbox
from .world import ASSUMES, PULLS, Changes, Condition, Files, Lane, Line, Publish, World, takes

#: Whether a lost message is sent again: the setting `republish_unconfirmed`.
REPUBLISHES: Final = {"republishes": True}
DOES_NOT: Final = {"republishes": False}
#: The outbox learns at once of what has yet to be sent.
_BACKLOG: Final = ("outbox", "backlog_began")


@dataclass(frozen=True)
class Effect:
    """What an action does to the world.

    Attributes:
        then: what changes; if several changes are possible, each is explored.
        needs: what must be so before; None: nothing.
        wrong: what it means if that is not so.
    """

    then: Callable[[World], Changes | tuple[Changes, ...]]
    needs: Condition | None = None
    wrong: str = ""


def _opens(part: str, nothing: object, value: object) -> Effect:
    return Effect(
        lambda _: {part: value}, lambda now: getattr(now, part) is nothing, f"{part} is opened before it was dropped"
    )


def _sets(**changes: object) -> Effect:
    return Effect(lambda _: changes)


def _ends(now: World) -> Changes:
    """Return what changes when a publish would end as not sent, or as lost: it is stored, if that can be."""
    return {"publish": Publish.NONE, **(stores(now) if takes(now) else {})}


def stores(now: World) -> Changes:
    """Return what changes when a message is stored, or one that is stored is to be sent again."""
    kept = "pends" if now.outbox is Outbox.OPENING or now.connection is Closed.STOPPED else "holds"
    return {kept: True, PULLS: _BACKLOG}


def ends_waiting(now: World) -> Changes:
    """Return what changes when a publish waits no longer."""
    return _ends(now) if now.publish is Publish.WAITING else {}


def waits_no_longer(now: World) -> Changes:
    """Return what changes when a caller waits no longer for a confirm: the message may be stored meanwhile."""
    if now.publish is not Publish.SENT:
        return {}
    return {"publish": Publish.KEPT if takes(now) else Publish.ANSWERED}


def _drops_channel(now: World) -> tuple[Changes, ...]:
    dropped = {"channel": Line.NONE, "drains": False}
    match now.publish:
        case Publish.SENT if now.outcome in {"goes out", "waits"}:
            again = {**dropped, "publish": Publish.WAITING}
            ended = {**dropped, **_ends(now)}
            # With an outbox it is sent again in any case.
            return (again,) if now.given else ({**again, ASSUMES: REPUBLISHES}, {**ended, ASSUMES: DOES_NOT})
        case Publish.SENT:
            return ({**dropped, **_ends(now)},)
        case Publish.KEPT:
            # It is on disk.
            return ({**dropped, "publish": Publish.NONE, "holds": True, PULLS: _BACKLOG},)
        case Publish.ANSWERED:
            return ({**dropped, "publish": Publish.NONE},)
    return (dropped,)


def _drops_connection(now: World) -> tuple[Changes, ...]:
    gone = {"link": Line.NONE, "blocks": False, "secret": False, "lane": Lane.NONE, "old": False}
    return tuple({**gone, **each} for each in _drops_channel(now))


def _leaves_lane(now: World) -> Changes:
    return {"lane": Lane.NONE, "old": now.old or (now.lane not in {Lane.NONE, Lane.MISSING} and now.link is Line.OPEN)}


#: What the disk has yet to close is opened after that.
_REOPENED: Final = dict.fromkeys((Files.CLOSING, Files.REOPENING), Files.REOPENING)
_NOTHING: Final = _sets()
_DROP_CONNECTION: Final = Effect(_drops_connection)
_SEND: Final = Effect(lambda now: {"publish": Publish.SENT} if now.publish is Publish.WAITING and now.sends else {})
_END: Final = Effect(ends_waiting)
_CALL: Final = _opens("called", False, True)
_STOP_CALL: Final = _sets(called=False)
_ANSWER: Final = _sets(asked=False)

#: What each action of each machine does; those with no effect only tell somebody something.
EFFECTS: Final[Mapping[str, Mapping[str, Effect]]] = {
    "connection": {
        "call_for_address": _CALL,
        "stop_call": _STOP_CALL,
        "open_connection": _opens("link", Line.NONE, Line.OPENING),
        "drop_attempt": _DROP_CONNECTION,
        "set_up": _opens("setup", False, True),
        "stop_setup": _sets(setup=False),
        "open_channel": _opens("channel", Line.NONE, Line.OPENING),
        "close_channel": Effect(
            lambda now: {"channel": Line.CLOSING if now.channel is Line.OPEN else now.channel},
            lambda now: now.publish in {Publish.NONE, Publish.WAITING},
            "the channel is closed under a publish",
        ),
        "drop_channel": Effect(_drops_channel),
        "drop_connection": _DROP_CONNECTION,
        "close_connection": Effect(
            lambda now: {"link": Line.CLOSING if now.link is Line.OPEN else now.link, "channel": Line.LOST},
            lambda now: now.publish is Publish.NONE,
            "the connection is closed under a publish",
        ),
        "send_waiting": _SEND,
        "give_up_waiting": _END,
        "drain": _sets(drains=True),
        "tell_ready": _NOTHING,
        "forget_reason": _NOTHING,
    },
    "outage": {
        "note_beginning": _NOTHING,
        "tell_persistent_failure": _NOTHING,
        "give_up_waiting": _END,
        "give_up_unconfirmed": Effect(waits_no_longer),
    },
    "renewal": {
        "call_again": _CALL,
        "stop_call": _STOP_CALL,
        "send_secret": _opens("secret", False, True),
        "tell_other_user": _NOTHING,
        "tell_failure": _NOTHING,
        "forget_answers": _NOTHING,
    },
    "outbox": {
        "open_files": Effect(lambda now: {"files": _REOPENED.get(now.files, Files.OPEN)}),
        "close_files": _sets(files=Files.CLOSING),
        "tell_found": _NOTHING,
        "send_waiting": _SEND,
        "store_waiting": Effect(
            lambda now: {"publish": Publish.NONE, "holds": True} if now.publish is Publish.WAITING else {}
        ),
        "refuse_waiting": Effect(lambda now: {"publish": Publish.NONE} if now.publish is Publish.WAITING else {}),
        "give_up_writing": _sets(holds=False, pends=False),
    },
    "check": {
        "open_channel": Effect(
            lambda _: ({"lane": Lane.OPENING}, {"lane": Lane.MISSING}),
            lambda now: now.lane is Lane.NONE,
            "a channel for checks is opened before the last one was dropped",
        ),
        "select_transactions": _sets(lane=Lane.SELECTING),
        "send_message": _sets(lane=Lane.CHECKING),
        "leave_channel": Effect(_leaves_lane),
        "forget_message": Effect(
            lambda _: {"asked": False},
            lambda now: not now.asked or now.channel is not Line.OPEN,
            "nobody was told how the check has ended",
        ),
        "tell_accepted": _ANSWER,
        "tell_refused": _ANSWER,
        "tell_unanswered": _ANSWER,
        "tell_unchecked": _ANSWER,
        "tell_unavailable": _ANSWER,
        "skip_check": _ANSWER,
    },
}

#: The guards that the world decides.
GUARDS: Final[Mapping[str, Condition]] = {
    "blocking": lambda now: now.blocks,
    "given": lambda now: now.given,
    "holds": lambda now: now.holds or now.pends,
    "ending": lambda now: not now.wanted and now.connection is not State.IDLE,
    "stores": takes,
    "expires": lambda now: now.expires,
    "leaves_channel": lambda now: now.old,
}
_PUBLISHING: Final = (
    *("connection", "outage", "outbox", "wanted", "link", "channel", "blocks"),
    *("given", "files", "holds", "pends", "publish"),
)
#: What a machine's events read and change, where that is not everything: whatever else is so, they do the same.
TOUCHES: Final[Mapping[str, tuple[str, ...]]] = {
    "": _PUBLISHING,
    "outage": _PUBLISHING,
    "outbox": _PUBLISHING,
    "renewal": ("renewal", "called", "secret", "expires", "link"),
    "check": ("check", "lane", "old", "asked", "link", "channel"),
}
#: The guards that nothing here decides: whenever they are asked they may hold or not, unless an event says which.
FREE: Final[Mapping[str, str]] = {
    "calls": "it depends on the setting `url`, and on the nodes that are left",
    "sets_up": "it depends on the setting `setup`",
    "retries_node": "it depends on the setting `connection_attempts`",
    "expired": "it depends on the time, and on why the channel was closed",
    "sendable": "it depends on the user that the function returns",
}
#: Those of them that hold only so often, one time after the other.
COUNTED: Final = ("retries_node",)
