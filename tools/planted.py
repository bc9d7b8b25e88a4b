"""How many seeds the simulation needs to find a defect: `python -m tools.planted [--most N]`.

Each defect is planted in a copy of the package, one at a time.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent

FIND: Final = """
import gc, logging, sys
from tools.simulate import simulate
logging.disable(logging.CRITICAL)
for seed in range(int(sys.argv[1])):
    problem = simulate(seed)
    if problem:
        print(f"{seed + 1}\\t{problem}")
        break
"""


class Defect(NamedTuple):
    """What is planted: in which file, in place of what."""

    label: str
    file: str
    right: str
    wrong: str


STATES: Final = "states/connection.py"
PUBLISHER: Final = "sprockets_amqp/delivery/publisher.py"
WAITING: Final = "sprockets_amqp/delivery/waiting.py"
FLIGHT: Final = "sprockets_amqp/delivery/flight.py"
PUBLISH: Final = "sprockets_amqp/delivery/publish.py"
CONFIRMS: Final = "sprockets_amqp/delivery/confirms.py"
LINK: Final = "sprockets_amqp/connection/link.py"
STOCK: Final = "sprockets_amqp/outbox/stock.py"
FOLDER: Final = "sprockets_amqp/outbox/sqlite/folder.py"

DEFECTS: Final = (
    Defect("ready sends nothing that waits", STATES, 'on_enter=(Action("tell_ready", "logs that it is ready"), _SEND_WAITING),', ""),
    Defect("closed keeps the connection", STATES, 'on_enter=(Action("drop_connection", "drops the connection and settles unconfirmed messages"),),', ""),
    Defect("a lost channel is kept", STATES, 'on_enter=(_DROP_CHANNEL,),', ""),
    Defect("stopped lets wait what waits", STATES, 'again.",\n                    on_enter=(_GIVE_UP_WAITING,),', 'again.",'),
    Defect("closing has no limit", STATES, 'timeout=Limit("closing_limit", "the time left for closing", "close_expired"),', ""),
    Defect("a channel may take forever", STATES, 'timeout=Limit("channel_limit", "the time that a channel may take", "connection_failed"),', ""),
    Defect("unblocked, whatever else blocks", STATES, '_S.READY, unless="blocking"', "_S.READY"),
    Defect("ready from the first moment, though blocked", STATES, '        Row("channel_opened", (Connecting.OPENING_CHANNEL,), _S.BLOCKED, conditions="blocking"),\n', ""),
    Defect("draining does not end with the channel", STATES, '        Row("channel_closed", _DRAINS, Closing.CLOSING_CONNECTION, before=_DROP_CHANNEL),\n', ""),
    Defect("a multiple confirm leaves out the last", CONFIRMS, "range(self._lowest, delivery_tag + 1)", "range(self._lowest, delivery_tag)"),
    Defect("tags drift on the second channel", CONFIRMS, "self._found = 1, 0, 0", "self._found = 1, 1, 0"),
    Defect("returns are looked for where they were on the last channel", CONFIRMS, "self._found = 1, 0, 0", "self._found = 1, 0, self._found"),
    Defect("a timer in line is not cancelled", WAITING, "            publish.timer.cancel()\n", ""),
    Defect("one more than max_unconfirmed", FLIGHT, "len(self.entries) < self.window", "len(self.entries) <= self.window"),
    Defect("a nack is taken for an ack", FLIGHT, "            if not acked:\n                self._end(publish, MessageNacked())", "            if acked is None:\n                self._end(publish, MessageNacked())"),
    Defect("a return is forgotten", FLIGHT, "                publish.returned = reply\n", "                pass\n"),
    Defect("what is sent again is turned around", PUBLISHER, "reversed(list(again))", "list(again)"),
    Defect("confirm_timeout is looked at once", FLIGHT, "                self._timer = self._loop.call_later(remaining, self.expire)\n                return", "                return"),
    Defect("refused, although it was sent before", PUBLISH, "        if not self.sent_at:\n            return ExchangeRefused", "        if True:\n            return ExchangeRefused"),
    Defect("given up, although it was sent before", PUBLISH, "        if self.sent_at:\n            return OutcomeUnknown", "        if False:\n            return OutcomeUnknown"),
    Defect("the order of two lines: sent before it leaves the line", PUBLISHER, "                self.line.leave(publish)\n                self._send(publish)", "                self._send(publish)\n                self.line.leave(publish)"),
    Defect("another body is sent", "sprockets_amqp/delivery/message.py", "        body = body if type(body) is bytes", "        body = b'' if type(body) is bytes"),
    Defect("everything is given up", PUBLISHER, "        link.publish(message.method, properties, body)\n", "        self.give_up(publish, 'no')\n        return\n"),
    Defect("nothing is drained", "sprockets_amqp/connection/lifecycle.py", "        self._publisher.call_when_drained(lambda: self.schedule(self.state, 0, self.drained))", "        self.schedule(self.state, 0, self.drained)"),
    Defect("confirm_timeout is a hundred times as long", FLIGHT, "self._loop.call_later(self._settings.confirm_timeout, self.expire)", "self._loop.call_later(100 * self._settings.confirm_timeout, self.expire)"),
    Defect("timeout is a hundred times as long", WAITING, "        publish.timer = self._loop.call_later(timeout, ", "        publish.timer = self._loop.call_later(100 * timeout, "),
    Defect("a stopped flow outlives its channel", LINK, "        self._blocking.pop(FLOW, None)\n        return", "        return"),
    Defect("an alarm outlives its connection", LINK, "        self._blocking.clear()\n", ""),
    Defect("a torn confirm is lost", "sprockets_amqp/wire/reading.py", "            self._rest = data[start:]\n", '            self._rest = b""\n'),
    Defect("stored is told before it is on the disk", STOCK, "        self._writer.submit()\n        return \"\"\n", "        self._writer.submit()\n        self._publisher.tell(publish, result=STORED)\n        return \"\"\n"),
    Defect("what is stored and lost is deleted", STOCK, "            self._lose(entry, error, was_sent=bool(copy.sent_at))\n", "            self._finish(entry)\n"),
    Defect("what waits is not stored before what came later", "states/outbox.py", 'on_enter=(Action("store_waiting", "stores waiting messages"),),', ""),
    Defect("what is published passes what is stored", "states/outbox.py", 'makes={"goes out": "is stored"', 'makes={"goes out": "goes out"'),
    Defect("what is stored is numbered backwards", "sprockets_amqp/outbox/store.py", "found.append((number + shift", "found.append((shift - number"),
    Defect("what is refused is deleted", STOCK, "changes[key[0]].set_asides[key[1]] = words\n", "changes[key[0]].deletes.add(key[1])\n"),
    # What only a process that starts anew can notice.
    Defect("a process numbers what it stores from 1 again", FOLDER, "self._files[OWN], self._base = file, file.last_number", "self._files[OWN], self._base = file, 0"),
    Defect("what another client left is thrown away", FOLDER, "        if totals.messages or totals.set_aside:\n", "        if totals.set_aside:\n"),
    Defect("what is read is not told from what is in memory", STOCK, "if key in ledger.rows or not self._gate", "if not self._gate"),
    Defect("what cannot be written is forgotten", STOCK, "            self._publisher.flight.replace(copy, caller)\n", ""),
    Defect("what a nack deferred is forgotten", "states/ledger.py", 'Row("due", (Place.DEFERRED,), Place.ON_DISK)', 'Row("due", (Place.DEFERRED,), Place.GONE)'),
    Defect("what is published passes what was left", "states/outbox.py", 'makes={"goes out": "waits"', 'makes={"goes out": "goes out"'),
    Defect("what was scheduled is not called off", "sprockets_amqp/model.py", "            handle.cancel()\n", "            pass\n"),
)  # fmt: skip


def planted(defect: Defect, most: int) -> str:
    """Plant a defect; returns how many seeds found it, and as what, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        for part in ("sprockets_amqp", "states", "tools"):
            shutil.copytree(ROOT / part, Path(folder, part), symlinks=True)
        path = Path(folder, defect.file)
        text = path.read_text()
        if text.count(defect.right) != 1:
            raise ValueError(f"{defect.label}: {defect.file} has {text.count(defect.right)} of what it is planted in")
        path.write_text(text.replace(defect.right, defect.wrong))
        # Without site-packages' own finder, the copy is what is imported: its folder comes first.
        return subprocess.run(
            [sys.executable, "-c", FIND, str(most)], cwd=folder, capture_output=True, text=True, check=False
        ).stdout.strip()


def main() -> int:
    """Plant each; returns the exit status: 1 where one is not found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--most", type=int, default=3000, help="seeds for each defect; default: 3000")
    most = parser.parse_args().most
    missed = 0
    print("| defect | found after seeds | as |\n| --- | --- | --- |")
    for defect in DEFECTS:
        seeds, _, problem = planted(defect, most).partition("\t")
        missed += not seeds
        print(f"| {defect.label} | {seeds or f'not in {most}'} | {problem[:90]} |", flush=True)
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
