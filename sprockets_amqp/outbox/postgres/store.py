"""The store in PostgreSQL: the boxes that a client owns, and what is done to them."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import count
from typing import Any, Final

from sprockets_amqp.bounded_log import named
from sprockets_amqp.outbox.ledger import Key
from sprockets_amqp.outbox.store import GRACE, OWN, SPOILT, Changes, Record, Totals, checksum, pack
from sprockets_amqp.text import shown

from . import table
from .session import Session, Statement
from .table import BOX, COMMON

LOGGER = logging.getLogger("sprockets_amqp.outbox.postgres")

#: Seconds between two looks for what was stored in transactions of others, if nothing tells of it.
INTERVAL: Final = 1.0
#: The most boxes of others that a client owns at a time: PostgreSQL has room for some thousand locks.
MOST: Final = 200


class PostgresStore:
    """A `Store` in PostgreSQL."""

    medium = "PostgreSQL"

    def __init__(self, url: str, name: str) -> None:
        self._name = name
        self._log = named(LOGGER, name)
        self._session = Session(url, name)
        self._on_news: Callable[[], object] = bool
        self._on_loss: Callable[[], object] = bool
        self._timer: asyncio.TimerHandle | None = None
        self._grace: asyncio.TimerHandle | None = None
        #: The boxes that are locked, by the numbers that the client knows them by.
        self._boxes: dict[int, int] = {}
        self._ids = count(OWN + 1)
        #: When boxes of others may be taken over, in the loop's time.
        self._adopts_at = 0.0

    # The client's own

    def watch(self, on_news: Callable[[], object], on_loss: Callable[[], object]) -> None:
        """Call these: others may have stored messages, as PostgreSQL says, or a second is over; the session is lost."""
        self._on_news = self._session.on_news = on_news
        self._on_loss = self._session.on_loss = on_loss

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._look)
        if self._session.is_open:
            self._on_news()

    async def open(self) -> None:
        """Own a box, and take over those whose owners are gone."""
        now = asyncio.get_running_loop().time()
        if not self._session.is_open:
            await self._session.open(to_write=True)
            self._wait_for_owners(now, GRACE if self._boxes else GRACE - self._session.uptime)
            await self._lock_again()
        if OWN not in self._boxes:
            box = await self._draw()
            if await self._lock([box]):
                self._boxes[OWN] = box
        if self._timer is None:
            self._look()
        filled = {box for name, box in await self._session.run((table.BOXES, ())) if name == self._name}
        others = {number: box for number, box in self._boxes.items() if number != OWN and box != COMMON}
        await self._give_up([number for number, box in others.items() if box not in filled])
        if now >= self._adopts_at:
            await self._adopt(sorted(filled - {COMMON} - set(self._boxes.values()))[: MOST - len(others)])

    def _wait_for_owners(self, now: float, seconds: float) -> None:
        """Take over no boxes for so long, and then look again."""
        if self._grace is not None:
            self._grace.cancel()
        self._adopts_at = now + max(0.0, seconds)
        self._grace = asyncio.get_running_loop().call_at(self._adopts_at, self._on_loss) if seconds > 0 else None

    async def _lock_again(self) -> None:
        """Take the locks that have ended with the session before: what another has taken since is its own."""
        try:
            locked = await self._lock(list(self._boxes.values()))
        except BaseException:
            # It begins anew.
            self._session.end()
            raise
        self._boxes = {number: box for number, box in self._boxes.items() if box in locked}

    async def _give_up(self, numbers: list[int]) -> None:
        keys = [self._key(self._boxes.pop(number)) for number in numbers]
        if keys:
            await self._session.run((table.UNLOCK, (keys,)))

    async def _draw(self) -> int:
        """Return a number that no other box has, and show that rows can be stored."""
        rows = await self._session.run((table.DRAW, (self._name,)), (table.DRAWN, (self._name,)))
        # Somebody may have left rows there.
        return int(max(rows)[0])

    async def _adopt(self, boxes: list[int]) -> None:
        locked = sorted(await self._lock(boxes)) if boxes else []
        if locked:
            self._boxes.update((next(self._ids), box) for box in locked)
            messages, *_ = await self._count(locked)
            names = shown(", ".join(f"{self._name}.{box}" for box in locked))
            self._log.warning("boxes %s were left by clients that are gone: %d messages to send", names, messages)

    async def _lock(self, boxes: list[int]) -> set[int]:
        """Lock boxes; return those of them that nobody else has locked."""
        keys = {self._key(box): box for box in boxes}
        return {keys[key] for (key,) in await self._session.run((table.LOCK, (list(keys),)))}

    def _key(self, box: int, name: str | None = None) -> int:
        return table.lock_key(self._session.oid, name or self._name, box)

    async def write(self, box: int, changes: Changes) -> None:
        """Make all changes of one box, in one transaction."""
        if changes.puts and OWN not in self._boxes:
            raise ConnectionError(self._session.problem)
        if box in self._boxes and changes:
            place = self._name, self._boxes[box]
            statements = _statements(place, changes, self._session.encoding)
            await self._session.run(*statements, rows=_rows(place, changes))

    async def read(self, limit: int, size: int, without: Collection[Key]) -> list[tuple[Key, Record]]:
        """Return the first messages to be sent: those that others left, the client's own, and then the common ones."""
        if COMMON not in self._boxes.values() and await self._lock([COMMON]):
            self._boxes[next(self._ids)] = COMMON
        found: list[tuple[Key, Record]] = []
        for number, box in sorted(self._boxes.items(), key=_first_others):
            known = [key[1] for key in without if key[0] == number]
            parameters = self._name, box, known, limit - len(found), size
            records = [_record(row) for row in await self._session.run((table.READ, parameters))]
            found += [((number, record.number), record) for record in records if record.intact]
            if spoilt := [record.number for record in records if not record.intact]:
                await self.write(number, Changes(set_asides=dict.fromkeys(spoilt, SPOILT)))
                self._log.error("box %s.%d: %d messages are %s", self._name, box, len(spoilt), SPOILT)
            size -= sum(record.size for record in records)
            if len(found) >= limit or size <= 0:
                break
        return found

    async def totals(self) -> Totals:
        """Count what is in the boxes."""
        return Totals._make(await self._count(list(self._boxes.values())))

    async def _count(self, boxes: list[int], name: str | None = None) -> tuple[int, int, float | None, int]:
        name = name or self._name
        ((messages, size, aside),) = await self._session.run((table.COUNT, (name, boxes)))
        oldest = []
        for box in boxes if messages else ():
            for (message,) in await self._session.run((table.OLDEST, (name, box))):
                oldest.append(Record(0, message, 0).stored_at)
        return messages, size, min((each for each in oldest if each is not None), default=None), aside

    async def try_out(self) -> None:
        """Store a row that nobody sees."""
        await self._draw()

    async def share(self) -> None:
        """Give up the common box."""
        await self._give_up([number for number, box in self._boxes.items() if box == COMMON])

    async def close(self, left: Mapping[int, Changes]) -> None:
        """Delete what is left to be deleted, and end the session."""
        try:
            for box, changes in left.items():
                if changes.deletes and self._session.is_open:
                    await self.write(box, Changes(deletes=changes.deletes))
            if self._session.is_open:
                # PostgreSQL needs a moment to end a session, and the next client need not wait for it.
                await self._session.run((table.UNLOCK_ALL, ()))
        finally:
            self._rest()
            self._session.end()

    def abandon(self) -> None:
        """In a forked child, leave everything to the parent process."""
        self._rest()
        self._session.abandon()

    def _rest(self) -> None:
        self._boxes.clear()
        for timer in (self._timer, self._grace):
            if timer is not None:
                timer.cancel()
        self._timer = self._grace = None

    # For people

    async def names(self) -> list[str]:
        """Return the names of the boxes in which there is anything, whoever owns them."""
        await self._look_in()
        return [f"{name}.{box}" for name, box in await self._session.run((table.BOXES, ()))]

    async def look(self, name: str) -> tuple[Totals, list[int], bool]:
        """Count what is in a box; return what was set aside, and whether a client owns it."""
        whose, box = await self._place_of(name)
        totals = Totals._make(await self._count([box], whose))
        if not totals.messages and not totals.set_aside:
            raise FileNotFoundError(name)
        aside = [number for (number,) in await self._session.run((table.ASIDE, (whose, box)))]
        ((in_use,),) = await self._session.run((table.IS_LOCKED, (self._key(box, whose),)))
        return totals, aside, in_use

    async def find(self, name: str, numbers: Collection[int]) -> list[Record]:
        """Return messages in a box."""
        place = await self._place_of(name)
        rows = await self._session.run((table.FIND_MESSAGES, (*place, list(numbers))))
        found = {row[0]: _record(row) for row in rows}
        return [found[number] for number in numbers if number in found]

    async def retry(self, name: str, numbers: Collection[int]) -> set[int]:
        """Have messages sent that were set aside: a client that runs is told."""
        place = await self._place_of(name)
        return {number for number, _ in await self._session.run((table.RETRY, (*place, list(numbers))))}

    async def drop(self, name: str, numbers: Collection[int]) -> set[int]:
        """Delete messages."""
        place = await self._place_of(name)
        return {number for (number,) in await self._session.run((table.DROP, (*place, list(numbers))))}

    async def _look_in(self) -> None:
        if not self._session.is_open:
            await self._session.open(to_write=False)

    async def _place_of(self, name: str) -> tuple[str, int]:
        match = BOX.fullmatch(name)
        if match is None:
            raise FileNotFoundError(name)
        await self._look_in()
        return match[1], int(match[2])


def _first_others(box: tuple[int, int]) -> tuple[bool, bool, int]:
    return box[1] == COMMON, box[0] == OWN, box[0]


def _record(row: tuple[Any, ...]) -> Record:
    """Make a record of a row: its checksum does not depend on its number, which only the table knows."""
    number, message, summed, refusals, set_aside = row
    is_whole = summed == checksum(COMMON, message)
    return Record(number, message, checksum(number, message) if is_whole else -1, max(0, refusals), set_aside)


def _rows(place: tuple[str, int], changes: Changes) -> list[tuple[str, int, int, bytes, int, int]]:
    """Return the rows of what is to be stored."""
    now, rows = time.time(), []
    for number, (message, blamed) in changes.puts.items():
        octets = pack(now, message.method, message.properties, message.body)
        rows.append((*place, number, octets, checksum(COMMON, octets), blamed))
    return rows


def _statements(place: tuple[str, int], changes: Changes, encoding: str) -> Iterator[Statement]:
    """Yield what makes the other changes; characters that the database cannot store are escaped."""
    if changes.suspects:
        yield table.SUSPECT, (changes.suspects, *place)
    if changes.set_asides:
        words = [shown(each).encode(encoding, "backslashreplace").decode() for each in changes.set_asides.values()]
        yield table.SET_ASIDE, (list(changes.set_asides), words, *place)
    if changes.deletes:
        yield table.DELETE, (*place, list(changes.deletes))
