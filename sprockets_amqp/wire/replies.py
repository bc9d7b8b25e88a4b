"""Why a connection or channel ended: pika's exception, and RabbitMQ's words in it."""

import re
from typing import Final

from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker, ConnectionClosedByClient, StreamLostError

from sprockets_amqp.errors import AMQPException
from sprockets_amqp.text import shown

from .failed import AttemptFailed

#: Reply codes of a connection that RabbitMQ closes not because of a message: 200 is success, 320 an operator's request.
BLAMELESS: Final = frozenset({200, 320})
#: RabbitMQ's reply code for what the user may not do.
ACCESS_REFUSED: Final = 403
#: RabbitMQ's reply code when a user's max-channels is reached, which closes the connection (AMQP 0-9-1, NOT_ALLOWED).
NOT_ALLOWED: Final = 530
#: The code for a method that the peer does not implement, which closes the connection.
NOT_IMPLEMENTED: Final = 540
#: RabbitMQ's code and whole text for a body above max_message_size, if the operator lowered that. Other texts may quote
#: anything that a stranger has published.
PRECONDITION_FAILED: Final = 406
_SIZE_LIMIT: Final = re.compile(
    r"PRECONDITION_FAILED - message size \d+ is larger than (?:configured )?max size (\d{1,18})"
)


def connection_lost(reply_code: int, reply_text: str) -> Exception:
    """Return the error that says why a connection ended, from the arguments of `Client.on_connection_closed`."""
    if reply_code == 200:
        return ConnectionClosedByClient(reply_code, reply_text)
    if reply_code:
        return ConnectionClosedByBroker(reply_code, reply_text)
    # `reply` described it with its name.
    return StreamLostError(reply_text.removeprefix(f"{StreamLostError.__name__}: "))


def channel_lost(reply_code: int, reply_text: str) -> Exception:
    """Return the error that says why a channel ended, from the arguments of `Client.on_channel_closed`."""
    return ChannelClosedByBroker(reply_code, reply_text)


def reply(error: BaseException) -> tuple[int, str]:
    """Return the reply code (0 if RabbitMQ gave none) and text for why a connection or channel ended."""
    code = getattr(error, "reply_code", 0)
    return (code, shown(getattr(error, "reply_text", ""))) if code else (0, describe(error))


def describe(error: BaseException) -> str:
    """Say what went wrong in one line, without secrets."""
    code = getattr(error, "reply_code", 0)
    if code:
        return f"({code}) {shown(getattr(error, 'reply_text', ''))}"
    text = shown(" ".join(str(error).split()))
    if isinstance(error, AMQPException | AttemptFailed):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def told_limit(reply_code: int, reply_text: str, known: int) -> int:
    """Return the largest body that RabbitMQ accepts, if its refusal of a larger one says so; else what was known."""
    told = _SIZE_LIMIT.fullmatch(reply_text) if reply_code == PRECONDITION_FAILED else None
    return int(told[1]) if told else known
