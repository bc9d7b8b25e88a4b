"""A program that is killed and started anew, and what all of its lives tell."""

import asyncio
import collections
import sys

from tools.history import History


class Lives:
    """Runs a program that publishes, one life after the other.

    Attributes:
        history: what became of its publishes, and the kills.
        told: how often it has told of each outcome.
        life: which one it is.
    """

    def __init__(self, program: str, *arguments: str) -> None:
        self._program = ("-c", program, *arguments)
        self.history = History()
        self.told: collections.Counter[str] = collections.Counter()
        self.life = 0
        self._more = asyncio.Event()

    def note(self, words: list[str]) -> None:
        """Note a line."""
        raise NotImplementedError

    def count(self, what: str) -> None:
        """Count an outcome."""
        self.told[what] += 1
        self._more.set()

    async def run(self, rate: float) -> None:
        """Run a life to its end, or until this is cancelled: what it still told counts."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, *self._program, str(rate), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                self._note(line)
        finally:
            if process.returncode is None:
                process.kill()
            for line in (await process.stdout.read()).splitlines(keepends=True):
                self._note(line)
            await process.wait()
            self.history.killed()
            self.life += 1

    def _note(self, line: bytes) -> None:
        # A kill may cut off the last one.
        if line.endswith(b"\n"):
            self.note(line.decode().split())

    async def more(self, count: int, *outcomes: str) -> None:
        """Return when so many more have ended in one of these ways, or in any."""

        def so_far() -> int:
            return sum(self.told[each] for each in outcomes) if outcomes else self.told.total()

        wanted = so_far() + count
        async with asyncio.timeout(90):
            while so_far() < wanted:
                self._more.clear()
                await self._more.wait()
