"""pika by hand without any property on the message: the least that pika can be made to do."""

from __future__ import annotations

from benchmarks.peers.pika_by_hand import PikaByHand


class PikaBare(PikaByHand):
    """No message id, so nothing tells two of its messages apart."""

    def _properties(self) -> None:
        return None


def make() -> PikaBare:
    """Return the publisher."""
    return PikaBare()
