"""pika by hand without any property on the message: the least that pika can be made to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.pika_by_hand import PikaByHand

if TYPE_CHECKING:
    from benchmarks.messages import Properties


class PikaBare(PikaByHand):
    """No message id, so nothing tells two of its messages apart."""

    def _encodable(self, properties: Properties | None) -> None:
        assert properties is None


def make() -> PikaBare:
    """Return the publisher."""
    return PikaBare()
