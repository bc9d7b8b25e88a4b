"""A simulation: `make simulate`, or `python -m tools.simulate [--seeds N] [--first N] [--seed N]`.

One seed gives one schedule of what an application, RabbitMQ, the network and time do to a client. What must hold is
computed from the frames that went each way and from the futures, never from the declaration or the client's own books:
see `tools.oracle`. A failure prints its seed; `make simulate SEED=...` replays it step by step, with the states.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import logging
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from pika import spec

from sprockets_amqp import Access, AMQPException, Client, ConnectionStateError, Topology
from sprockets_amqp.delivery import publish
from sprockets_amqp.outbox import model
from sprockets_amqp.outbox.memory import MemoryStore
from sprockets_amqp.outbox.store import Changes, unpack
from tools import folders, recorded
from tools.history import RETURNED
from tools.memory import Broker, Disk
from tools.oracle import Oracle, Violation, WatchedPeer

if TYPE_CHECKING:
    from sprockets_amqp.testing.clock import Clock

STORE_IN: Final = model.store_in
EXCHANGES: Final = ("", "", "events", "events", "other")
#: What a publish may say that AMQP or RabbitMQ would refuse.
NONSENSE: Final[tuple[dict[str, Any], ...]] = (
    {"priority": 300},
    {"headers": {"a": 1.5}},
    {"headers": {"a": "x" * 9000}},
)
#: Seconds within which a client that recovers is ready once nothing is wrong any more: the longest attempt and delay.
READY_LIMIT: Final = 200.0


class World:
    """A client, a broker and an application, each of which does whatever comes to its mind."""

    def __init__(self, seed: int, tell: Callable[[str], object] | None = None) -> None:
        self._random = random.Random(seed)
        # The order in which several nodes are tried is the client's own, and random.
        random.seed(seed)
        choose = self._random.choice
        self.broker = _Broker().install()
        self.clock: Clock = self.broker.clock
        self._tell = tell
        confirms = choose((True, True, True, True, False))
        self._folder = folders.Folder() if confirms and choose((True, False, False)) else None
        #: What stands in place of the folder's files: the client knows a store, and not which one.
        self._memory = _Memory() if choose((True, False, False)) else None
        self.oracle = Oracle(
            self.clock,
            confirms=confirms,
            republish=confirms and (self._folder is not None or choose((True, False))),
            stores=self._folder is not None,
            fail_on_return=choose((True, False)),
            window=choose((1, 3, 100)),
            max_waiting=6,
            confirm_timeout=20,
        )
        self.broker.oracle = self.oracle
        self.broker.unroutable.add("nowhere")
        self._shutdowns: list[asyncio.Task[None]] = []
        raising = choose((False, False, True))
        self._url = "amqp://" + ",".join(("one", "two", "three")[: choose((1, 3))])
        #: Whether what the application does while connecting goes wrong no more.
        self._mended = False
        self._settings: dict[str, Any] = {
            "url": choose((self._url, self._url, self._address)),
            "setup": choose((None, None, self._declare)),
            "enable_confirmations": confirms,
            "republish_unconfirmed": self.oracle.republish,
            "outbox_limit": choose((2**30, 20_000)),
            "fail_on_return": self.oracle.fail_on_return,
            "timeout": choose((0, 2, 30)),
            "confirm_timeout": self.oracle.confirm_timeout,
            "max_unconfirmed": self.oracle.window,
            "max_waiting": self.oracle.max_waiting,
            "reconnect_delay": 1,
            "max_reconnect_delay": 4,
            "on_return_callback": _raise if raising else _nothing,
            "on_ready_callback": _raise if raising else None,
            "on_unavailable_callback": _raise if raising else None,
            "on_persistent_failure_callback": _raise if raising else None,
        }
        self._start()
        actions = {**ACTIONS, **(OUTBOX_ACTIONS if self._folder is not None else {})}
        names = [name for name, weight in actions.items() for _ in range(weight)]
        #: What happens, in order.
        self.schedule = [choose(names) for _ in range(self._random.randint(4, 30))]
        self._mends = choose((True, True, False))
        #: Whether the client was ready at the end, with nothing left to send.
        self._sent_all = False

    def run(self) -> None:
        """Let all of it happen, and then end; raises Violation where something does not hold."""
        if self._random.random() < 0.7:
            self.settle()
        for number, name in enumerate(self.schedule):
            getattr(self, f"_{name}")()
            self._look(f"{number} {name}")
        self.oracle.step = "the end"
        if self._mends:
            self._mend()
        self._end()

    def _start(self) -> None:
        """Make the client of a process that starts, in which messages are numbered from 1."""
        publish._numbers = itertools.count(1)  # type: ignore[misc] # noqa: SLF001
        folder = self._folder.name if self._folder is not None else None
        outbox: Any = model
        outbox.store_in = (lambda _folder, _name: self._memory) if self._memory is not None else STORE_IN
        self.client = Client(io_loop=self.clock.io_loop, outbox=folder, **self._settings)
        self.oracle.watch(self.client)

    def close(self) -> None:
        """Leave nothing."""
        outbox: Any = model
        outbox.store_in = STORE_IN
        self.broker.close()
        if self._folder is not None:
            self._folder.cleanup()

    async def _address(self) -> Access:
        """Answer like somebody whose credentials expire, if at all."""
        await self._stumble()
        return Access(self._url, valid_for=self._random.choice((None, 15)))

    async def _declare(self, topology: Topology) -> None:
        """Declare something, if at all."""
        await topology.exchange_declare("events", "topic")
        await self._stumble()

    async def _stumble(self) -> None:
        what = "go on" if self._mended else self._random.choice(("go on", "go on", "go on", "wait", "raise", "hang"))
        if what == "wait":
            await asyncio.sleep(3)
        elif what == "hang":
            await asyncio.get_running_loop().create_future()
        elif what == "raise":
            raise AMQPException("it stumbles")

    def _look(self, step: str) -> None:
        self.oracle.step = step
        if not self.clock.loop._ready:  # noqa: SLF001
            self.oracle.see_idle(self._ups)
        self.oracle.look()
        if self._tell is not None:
            client = self.client
            counts = f"{client.unconfirmed} unconfirmed, {client.waiting} waiting"
            at = self.clock.now - 1000
            self._tell(f"{at:8.2f} {step:<24} {client.substate!s:<28} {counts}")

    def turn(self, most: int = 60) -> None:
        """Let the loop run until nothing is left that needs no time to pass."""
        while self.clock.loop._ready and most:  # noqa: SLF001
            most -= 1
            self.clock.turn(1)
        self.oracle.poll()

    def settle(self) -> None:
        """Take what wants to connect, and answer all that is asked."""
        for _ in range(16):
            self.turn()
            busy = False
            for peer in self.broker.peers:
                if not peer.lost and not peer.accepted:
                    busy = True
                    peer.accept()
                elif peer.outbox and not peer.lost:
                    busy = True
                    peer.deliver()
            if not busy and not self.clock.loop._ready:  # noqa: SLF001
                break

    @property
    def _ups(self) -> list[WatchedPeer]:
        return [peer for peer in self.broker.watched if peer.accepted and not peer.lost]

    # The application

    def _publish(self, exchange: str | None = None) -> None:
        choose = self._random.choice
        for _ in range(choose((1, 1, 2, 4))):
            self.oracle.publish(
                exchange if exchange is not None else choose(EXCHANGES),
                choose(("q", "q", "nowhere")),
                bytes(choose((0, 5, 5, 9000))),
                {},
                choose((None, None, 0, 1, 60)),
            )

    def _publish_nonsense(self) -> None:
        nonsense = self._random.choice(NONSENSE)
        # How large a frame may be, the connection says.
        valid = None if nonsense is NONSENSE[-1] else False
        self.oracle.publish("", "q", b"", nonsense, None, valid=valid)

    def _cancel(self) -> None:
        pending = self.oracle.pending
        if pending:
            self._random.choice(pending).future.cancel()

    def _connect(self) -> None:
        self._ask(self.client.connect)

    def _close(self) -> None:
        self._ask(self.client.close)

    def _ask(self, verb: Callable[[], object]) -> None:
        before = self.client.state
        try:
            verb()
        except ConnectionStateError:
            if self.client.state is not before:
                raise Violation("a verb that was refused changed the state") from None

    def _shutdown(self) -> None:
        timeout = self._random.choice((0, 1, 5))
        self._shutdowns.append(self.clock.loop.create_task(self.client.shutdown(timeout)))

    # RabbitMQ and the network

    def _answer_connecting(self) -> None:
        for peer in self.broker.peers:
            if not peer.accepted and not peer.lost:
                peer.accept() if self._random.random() < 0.7 else peer.refuse()

    def _settle(self) -> None:
        self.settle()

    def _deliver(self) -> None:
        for peer in self._ups:
            peer.deliver(self._random.randint(1, 4))

    def _deliver_torn(self) -> None:
        for peer in self._ups:
            peer.deliver_octets(self._random.choice((1, 3, 7, 8, 9, 20, 21, 22, 40)))

    def _confirm(self) -> None:
        for peer in self._ups:
            for channel, tags in peer.unconfirmed.items():
                if tags:
                    choose = self._random.choice
                    peer.confirm(
                        choose(tags), channel=channel, multiple=choose((True, False)), nack=choose((0, 0, 0, 1)) == 1
                    )

    def _confirm_all(self) -> None:
        for peer in self._ups:
            peer.confirm_all()

    def _confirm_oddly(self) -> None:
        for peer in self._ups:
            for channel, received in peer.received.items():
                choose = self._random.choice
                settled = [tag for tag in range(1, received + 1) if tag not in peer.unconfirmed[channel]]
                tag = choose([0, received + 1000, *settled])
                # A multiple one would be about others, too.
                word = choose((spec.Basic.Ack, spec.Basic.Nack))
                peer.say(channel, word(tag, choose((True, False)) if tag not in settled else False))

    def _alarm(self) -> None:
        for peer in self._ups:
            peer.stall(stalled=not peer.stalled)

    def _slow_down(self) -> None:
        for peer in self._ups:
            peer.slow_down(slow=not peer.slow)

    def _flow(self) -> None:
        active = self._random.choice((True, False))
        for peer in self._ups:
            for number in peer.received:
                peer.say(number, spec.Channel.Flow(active))

    def _close_channel(self) -> None:
        for peer in self._ups:
            for number in list(peer.received):
                peer.close_channel(number, 406, "PRECONDITION_FAILED")

    def _close_connection(self) -> None:
        for peer in self._ups:
            peer.close_connection(self._random.choice((320, 501)), "bye")

    def _lose_connection(self) -> None:
        for peer in self._ups:
            peer.lose()

    def _lose_exchange(self) -> None:
        self.broker.missing ^= {self._random.choice(("events", "other"))}

    def _silence(self) -> None:
        self.broker.unanswered ^= {"events", "other"}

    def _cost(self) -> None:
        self.broker.costly ^= {"other"}

    # The disk

    def _stall_disk(self) -> None:
        """Let what the disk is given wait, or have it done."""
        if Disk.waiting is None:
            Disk.waiting = []
        else:
            waiting, Disk.waiting = Disk.waiting, None
            for work in waiting:
                work()

    def _break_disk(self) -> None:
        """Let it take nothing any more, or all again."""
        Disk.broken = not Disk.broken

    def _crash(self) -> None:
        """See that a process that begins with what is on the disk now has everything that was stored."""
        if self._folder is not None:
            with folders.copied(self._folder.name) as copy:
                self.oracle.see_stored(self._ids(copy))

    def _kill(self) -> None:
        """Kill the process at once, and start it anew with what is on the disk."""
        for peer in self.broker.watched:
            peer.end_ledgers()
            peer.lost = True
        on_disk, left = set[str](), 0
        Disk.broken = False
        if Disk.waiting and self._random.choice((True, False)):
            # It was done, and nobody had heard of it.
            Disk.waiting[0]()
        if self._memory is not None:
            self._memory.give_up()
            on_disk, left = self._ids(""), len(self._memory.boxes)
        elif self._folder is not None:
            before, self._folder = self._folder, folders.copied(self._folder.name)
            if self._random.choice((True, False, False)):
                folders.rename(self._folder.name)
            on_disk, left = folders.ids(self._folder.name), folders.count(self._folder.name)
            self.broker.leave_disk()
            before.cleanup()
        self.oracle.see_stored(on_disk)
        self._shutdowns.clear()
        self.clock = self.broker.leave_loop()
        self.oracle.end_life(self.clock, on_disk, left)
        self._start()

    # Time

    def _turn(self) -> None:
        self.clock.turn(self._random.randint(1, 3))
        self.oracle.poll()

    def _pass(self) -> None:
        self._advance(self._random.choice((0.1, 1, 1, 3, 6, 25, 70)))

    def _advance(self, seconds: float) -> None:
        end = self.clock.now + seconds
        self.turn()
        while (timers := self.clock.timers()) and timers[0].when() <= end:
            self.clock.now = max(self.clock.now, timers[0].when())
            # What is due now is moved to what is ready in the next turn.
            self.clock.turn(1)
            self.turn()
        self.clock.now = end
        self.turn()

    # The end

    def _mend(self) -> None:
        """Let nothing be wrong any more: a client that recovers gets ready."""
        self._mended = True
        Disk.broken = False
        if Disk.waiting is not None:
            self._stall_disk()
        self.broker.missing.clear()
        self.broker.unanswered.clear()
        self.broker.costly.clear()
        until, rounds = self.clock.now + READY_LIMIT, 0
        # What was wrong may still be on its way.
        while rounds < 3 or (self.clock.now < until and not self._is_well()):
            rounds += 1
            for peer in self._ups:
                peer.slow_down(slow=False)
                if peer.stalled:
                    peer.stall(stalled=False)
                for number in peer.stopped:
                    peer.say(number, spec.Channel.Flow(active=True))
                peer.confirm_all()
            self.settle()
            self._advance(3)
        stopping = any(not task.done() for task in self._shutdowns)
        if self.client.ready and not stopping and not self._is_well():
            left = f"{self.client.counters.stored} stored, {self.client.waiting} waiting"
            raise Violation(f"nothing is wrong, and within {READY_LIMIT} s it did not send what it has: {left}")
        if self.client.recovers and not stopping and not self.client.ready:
            raise Violation(
                f"nothing is wrong, and within {READY_LIMIT} s it did not get ready: {self.client.condition}"
            )
        self.oracle.look()
        if self.client.ready and not stopping:
            self._see_a_message_through()
            self._sent_all = True

    def _is_well(self) -> bool:
        client = self.client
        return client.ready and client.unconfirmed == client.waiting == client.counters.stored == 0

    def _see_a_message_through(self) -> None:
        """Nothing is wrong: what is published now is confirmed, and arrives."""
        fresh = self.oracle.publish("", "q", b"fresh", {}, None)
        for _ in range(3):
            self.settle()
            for peer in self._ups:
                peer.confirm_all()
            self.turn()
        if not fresh.future.done() or fresh.future.exception() is not None:
            raise Violation(f"nothing is wrong, and a message is not confirmed: {fresh.future}")
        if fresh.message_id not in self.broker.messages:
            raise Violation("nothing is wrong, and a message did not arrive")

    def _end(self) -> None:
        last = self.clock.loop.create_task(self.client.shutdown(1))
        self._shutdowns.append(last)
        for _ in range(30):
            if all(task.done() for task in self._shutdowns):
                break
            self.settle() if self._mends else self.turn()
            self._advance(0.5)
        for task in self._shutdowns:
            if not task.done():
                raise Violation("shutdown() did not end within its limit")
            task.result()
        if Disk.waiting is not None:
            self._stall_disk()
        self.turn()
        left, aside = set[str](), set[str]()
        if self._folder is not None:
            self._see_disk(self._folder.name)
            left, aside = self._ids(self._folder.name), self._ids(self._folder.name, aside=True)
        # What no queue takes is delivered as far as RabbitMQ is concerned, unless the client is to take it for an error.
        taken = [str(each.properties.message_id) for each in self.broker.published]
        returned = aside | {name for what, name, outcome in self.oracle.history.events if outcome == RETURNED}
        self.oracle.finish([each for each in taken if each not in returned], left, aside)
        self.oracle.look()
        running = [*self.clock.timers(), *asyncio.all_tasks(self.clock.loop)]
        if running:
            raise Violation(f"left at the end: {running}")
        if self.clock.escaped:
            raise Violation(f"raised into the loop: {self.clock.escaped}")

    def _ids(self, folder: str, *, aside: bool | None = None) -> set[str]:
        """Return the ids of what the store has: all, or what was set aside or was not."""
        if self._memory is None:
            return folders.ids(folder, {None: "true", True: "set_aside IS NOT NULL", False: "set_aside IS NULL"}[aside])
        records = [record for box in self._memory.boxes.values() for record in box.values()]
        wanted = [each for each in records if aside is None or aside is (each.set_aside is not None)]
        return {str(unpack(each.message)[1].message_id) for each in wanted}

    def _see_disk(self, folder: str) -> None:
        """Nothing that was stored is lost, and nothing is left that was to be sent where all was."""
        self.oracle.see_stored(self._ids(folder))
        if self._sent_all:
            self.oracle.see_stored(self._ids(folder, aside=True))
            if left := self._ids(folder, aside=False):
                raise Violation(f"everything was sent, and the disk still has {left}")


#: What may happen, and how often in proportion.
ACTIONS: Final = {
    "publish": 12, "publish_nonsense": 1, "cancel": 3, "connect": 2, "close": 1, "shutdown": 1,
    "answer_connecting": 4, "settle": 10, "deliver": 4, "deliver_torn": 4, "confirm": 4, "confirm_all": 3,
    "confirm_oddly": 2, "alarm": 3, "slow_down": 2, "flow": 2, "close_channel": 2, "close_connection": 2,
    "lose_connection": 3, "lose_exchange": 2, "silence": 1, "cost": 1, "turn": 4, "pass": 6,
}  # fmt: skip
OUTBOX_ACTIONS: Final = {"stall_disk": 5, "break_disk": 3, "crash": 1, "kill": 6}


class _Memory(MemoryStore):
    """Takes nothing while the disk is broken."""

    async def write(self, box: int, changes: Changes) -> None:
        """Change a box."""
        await self.try_out()
        await super().write(box, changes)

    async def try_out(self) -> None:
        """Raise an error if the disk is broken."""
        if Disk.broken:
            raise OSError("the disk is broken")


class _Broker(Broker):
    """Has ends that are watched."""

    peer_class = WatchedPeer
    oracle: Oracle

    @property
    def watched(self) -> list[WatchedPeer]:
        return self.peers  # type: ignore[return-value]


def _raise(*_: object) -> None:
    raise RuntimeError("a callback of the user's")


def _nothing(*_: object) -> None:
    pass


def simulate(seed: int, tell: Callable[[str], object] | None = None) -> str:
    """Run one seed; returns what did not hold, or nothing: what was recorded of it must be what is declared."""
    with recorded.recording() as recordings:
        world = World(seed, tell)
        try:
            world.run()
        except Violation as violation:
            return f"{world.oracle.step}: {violation}"
        except Exception as error:
            return f"{world.oracle.step}: {error!r} was raised"
        finally:
            with contextlib.suppress(Exception):
                world.close()
        return "".join(recordings.problems()[:1])


def _some(seeds: range) -> list[tuple[int, str]]:
    logging.disable(logging.CRITICAL)
    gc.disable()
    found = [(seed, problem) for seed in seeds if (problem := simulate(seed))]
    gc.collect()
    return found


def _ranges(first: int, count: int, size: int = 200) -> Iterator[range]:
    for start in range(first, first + count, size):
        yield range(start, min(start + size, first + count))


def main() -> int:
    """Run seeds, or replay one; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, help="replay this one, step by step")
    parser.add_argument("--first", type=int, default=0, help="the first seed; default: 0")
    parser.add_argument("--seeds", type=int, default=5000, help="how many; default: 5000")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="default: one a processor")
    options = parser.parse_args()
    if options.seed is not None:
        logging.disable(logging.CRITICAL)
        problem = simulate(options.seed, print)
        print(problem or "all of it holds")
        return bool(problem)
    began, done, failed = time.monotonic(), 0, 0
    with multiprocessing.get_context("fork").Pool(options.processes) as pool:
        for seeds, found in zip(
            _ranges(options.first, options.seeds),
            pool.imap(_some, _ranges(options.first, options.seeds)),
            strict=True,
        ):
            done += len(seeds)
            failed += len(found)
            for seed, problem in found:
                print(f"seed {seed}: {problem}\n    make simulate SEED={seed}", flush=True)
            if failed > 20:
                break
    print(f"{done} seeds in {time.monotonic() - began:.0f} s: {done - failed} passed, {failed} failed", flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
