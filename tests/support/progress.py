"""What is running: a line in every twenty seconds in which no test has ended, for those who wait."""

import threading
import time
from typing import Final

import pytest

#: Seconds.
SILENCE: Final = 20.0


class Progress:
    """A plugin of the process that collects the results."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._running: dict[str, float] = {}
        self._done = 0
        self._last = time.monotonic()
        self._ended = threading.Event()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Take note of a test that begins."""
        self._running[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Take note of its end."""
        self._running.pop(nodeid, None)
        self._done += 1
        self._last = time.monotonic()

    def pytest_sessionstart(self) -> None:
        """Begin to tell."""
        threading.Thread(target=self._tell, daemon=True).start()

    def pytest_sessionfinish(self) -> None:
        """End it."""
        self._ended.set()

    def _tell(self) -> None:
        while not self._ended.wait(1):
            now = time.monotonic()
            if now - self._last >= SILENCE:
                self._last = now
                running = ", ".join(f"{name} ({now - begin:.0f} s)" for name, begin in [*self._running.items()][:4])
                terminal = self._config.pluginmanager.get_plugin("terminalreporter")
                if terminal is not None:
                    terminal.ensure_newline()
                    terminal.write_line(f"{self._done} tests have ended; running: {running or 'none yet'}")
