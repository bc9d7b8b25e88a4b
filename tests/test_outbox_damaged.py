"""Every single wrong bit in a file of the outbox, through the client: what is sent is what was stored."""

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tools.memory import Broker

NAMES: Final = [f"m{number}" for number in range(12)]
#: Every how many bits one is flipped; `make soak` flips each. It is prime, so that each bit of an octet has its turn.
STEP: Final = int(os.environ.get("OUTBOX_FLIP_STEP", "521"))
#: Where the header says which version of an outbox it is: one of a later version is not touched.
VERSION: Final = range(60, 64)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a client leaves that stored twelve messages."""
    folder = tmp_path_factory.mktemp("stored")
    broker = Broker().install()
    try:
        client = broker.client(outbox=folder, timeout=0)
        broker.clock.turn()
        for name in NAMES:
            client.publish("", "q", f"{name} has a body".encode(), {"message_id": name, "user_id": "guest"})
        broker.clock.turn()
        broker.shut_down()
    finally:
        broker.close()
    return (folder / "amqp.1.outbox").read_bytes()


def sent_from(folder: Path) -> tuple[Counter[str], bool]:
    """Start a client on a folder: how often each message was sent, and whether a new one is confirmed."""
    broker = Broker().install()
    try:
        client = broker.client(outbox=folder, timeout=60)
        for _ in range(10):
            broker.open()
            broker.every(lambda peer: peer.confirm_all())
            broker.clock.advance(1)
        new = client.publish("", "q", b"new has a body", {"message_id": "new"})
        for _ in range(3):
            broker.open()
            broker.every(lambda peer: peer.confirm_all())
            broker.clock.advance(1)
        for message in broker.published:
            assert message.body == f"{message.properties.message_id} has a body".encode()
        broker.shut_down()
        assert broker.clock.escaped == []
        return Counter(broker.messages), new.done() and new.exception() is None
    finally:
        broker.close()


@pytest.mark.timeout(7200)
def test_one_wrong_bit_costs_few_messages_and_stops_nothing(stored: bytes, tmp_path: Path) -> None:
    """None is sent that was not stored, the others are, once each, and new ones are confirmed."""
    lost: dict[int, int] = {}
    for bit in range(STEP // 2, len(stored) * 8, STEP):
        octet, folder = bit // 8, tmp_path / str(bit)
        folder.mkdir()
        damaged = bytearray(stored)
        damaged[octet] ^= 1 << bit % 8
        (folder / "amqp.1.outbox").write_bytes(damaged)
        sent, is_confirmed = sent_from(folder)
        assert is_confirmed and set(sent) <= {*NAMES, "new"} and set(sent.values()) == {1}, (bit, sent)
        if octet in VERSION and len(sent) == 1:
            assert (folder / "amqp.1.outbox").read_bytes() == damaged
        else:
            lost[bit] = len(NAMES) + 1 - len(sent)
        shutil.rmtree(folder)
    assert len(lost) > len(stored) * 8 // STEP - 40
    # The first page holds no message.
    assert [bit for bit, count in lost.items() if count and bit < 8 * 4096] == []
    # A page's directory is more delicate than the messages in it.
    assert sum(lost.values()) <= 0.3 * len(lost), lost
