"""A command in a terminal of its own, under tmux: what its screen shows, and keys to press."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that a text may take to appear; a node takes about ten to stop and start while the machine is busy.
SHOW_LIMIT = 60.0
POLL_INTERVAL = 0.05
#: Seconds after which the terminal ends by itself, where the tests were killed: longer than any test may take.
LIFE_LIMIT = 300

#: Prints the command's exit status and stays; Ctrl-C is for the command, not for this shell.
_SCRIPT = "trap : INT; {command}; echo exit status $?; exec cat"


class Terminal:
    """`async with Terminal("watch") as terminal:` runs a command in a tmux server of its own, and ends both."""

    def __init__(self, *command: str, columns: int = 160, rows: int = 50) -> None:
        self._command = command
        self._size = ("-x", str(columns), "-y", str(rows))
        self._folder = tempfile.TemporaryDirectory(prefix="sprockets-amqp-tmux-")
        self._socket = Path(self._folder.name) / "socket"

    async def __aenter__(self) -> Self:
        script = _SCRIPT.format(command=shlex.join(self._command))
        self._tmux("-f", "/dev/null", "new-session", "-d", *self._size, "sh", "-c", script)
        self._tmux("run-shell", "-b", "-d", str(LIFE_LIMIT), "-C", "kill-server")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._tmux("kill-server")
        self._folder.cleanup()

    @property
    def screen(self) -> str:
        """Everything that the terminal shows and has shown, with lines that were too long joined."""
        return self._tmux("capture-pane", "-p", "-J", "-S", "-")

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names for them, such as ``C-c``."""
        self._tmux("send-keys", *keys)

    async def shows(self, text: str, times: int = 1) -> str:
        """Wait until the text stands on the screen so many times; returns the screen."""
        return await self.shows_that(lambda screen: screen.count(text) >= times, f"{text!r} {times} time(s)")

    async def shows_that(self, holds: Callable[[str], bool], what: str) -> str:
        """Wait until something holds for the screen; returns the screen."""
        screen = ""
        try:
            async with asyncio.timeout(SHOW_LIMIT):
                while not holds(screen := self.screen):
                    await asyncio.sleep(POLL_INTERVAL)
        except TimeoutError:
            msg = f"the screen does not show {what}:\n{screen}"
            raise AssertionError(msg) from None
        return screen

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-u", "-S", str(self._socket), *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout
