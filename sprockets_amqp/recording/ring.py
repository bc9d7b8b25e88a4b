"""The files of a recorder: a ring of bounded files, which a thread writes. Nobody waits for it.

What is handed over is handed to the system at once: of a process that is killed, it is on disk. The file that is being
written is locked (flock), so that the files of processes that are gone can be told from those of others.
"""

import atexit
import contextlib
import fcntl
import logging
import os
import queue
import threading
import time
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sprockets_amqp.bounded_log import named
from sprockets_amqp.text import shown

from .trace import NAME, Line, initial_states, written

LOGGER = logging.getLogger("sprockets_amqp.recorder")

#: Lines that may wait to be written: a disk that is further behind does not answer.
MOST_WAITING: Final = 10_000
#: Seconds that the end of the process waits for the last lines to be written.
EXIT_LIMIT: Final = 1.0


class Ring:
    """Files in a folder. The newest of this process are kept, and of processes that are gone as many together.

    Args:
        folder: the folder; it is made if it does not exist.
        name: the client's name.
        size: how many octets a file may have.
        files: how many files are kept.
    """

    def __init__(self, folder: str, name: str, size: int, files: int) -> None:
        #: Why nothing is written any more; empty: all is well.
        self.problem = ""
        self._folder = folder
        self._log = named(LOGGER, name)
        self._lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._files = _Files(Path(folder), name, size, files)
        self._thread: threading.Thread | None = None
        self._last: threading.Thread | None = None
        # Whatever becomes of the client, its thread ends.
        weakref.finalize(self, self._lines.put, None).atexit = False

    def put(self, line: Line | None) -> None:
        """Hand over a line; None: for now nothing more is to come, and the file may be closed."""
        if self.problem or (line is None and self._thread is None):
            return
        if self._lines.qsize() > MOST_WAITING:
            self.fail(f"the disk does not take what is recorded: {MOST_WAITING} lines wait")
            return
        self._lines.put(line)
        if line is None:
            self._last, self._thread = self._thread, None
        elif self._thread is None:
            self._thread = threading.Thread(
                name="recorder",
                target=_write,
                args=(self._last, self._lines, self._files, weakref.ref(self)),
                daemon=True,
            )
            _rings.add(self)
            try:
                self._thread.start()
            except RuntimeError as error:
                self._thread = None
                self.fail(f"{type(error).__name__}: {error}")

    def fail(self, problem: str) -> None:
        """Write nothing more, and log why."""
        if not self.problem:
            self.problem = problem
            # A disk that answers after all ends the thread.
            self._lines.put(None)
            self._log.error("recorder %s: recording has stopped: %s", self._folder, shown(problem))

    def finish(self, seconds: float) -> None:
        """Wait up to so many seconds for what was handed over to be written."""
        self.put(None)
        if self._last is not None:
            self._last.join(seconds)

    def abandon(self) -> None:
        """In a forked child, leave the files to the parent process."""
        self.problem = "it is the parent's"
        self._files.abandon()


def _write(
    before: threading.Thread | None,
    lines: "queue.SimpleQueue[Line | None]",
    files: "_Files",
    ring: "weakref.ref[Ring]",
) -> None:
    """Write lines until there is none to come. Runs in a thread."""
    if before is not None:
        before.join()
    try:
        while (line := lines.get()) is not None:
            files.write(line)
    except Exception as error:
        # Whatever it is: nothing but the recording suffers.
        if (its := ring()) is not None:
            its.fail(f"{type(error).__name__}: {error}")
    finally:
        with contextlib.suppress(OSError):
            files.close()


class _Files:
    """The files: the one that is being written, and those before it."""

    def __init__(self, folder: Path, name: str, size: int, files: int) -> None:
        self._folder = folder
        self._name = name
        self._size = size
        self._most = files
        #: The state of each machine after what was written.
        self._states = initial_states()
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        #: What the names of these files, and of no others, begin with; sorted by name, files are sorted by time.
        self._run = f"{name}-{stamp}-{os.getpid()}"
        self._part = 0
        self._path = folder
        self._descriptor = -1
        #: How many octets there is room for in the present file.
        self._left = 0

    def write(self, line: Line) -> None:
        """Write a line, into another file if there is no room for it. Raises OSError."""
        octets = written(line)
        if line.counters and self._descriptor >= 0 and not os.fstat(self._descriptor).st_nlink:
            # Somebody has removed it.
            self.close()
        if len(octets) > self._left or not self._is_open():
            self._begin(line.at)
        self._append(octets)
        if line.pull is not None:
            for pull in line.pull.flat():
                if pull.dest:
                    self._states[pull.machine] = pull.dest

    def close(self) -> None:
        """Close the file that is being written."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def abandon(self) -> None:
        """Close the copy of a file that is the parent's: its lock stays."""
        self.close()

    def _is_open(self) -> bool:
        """Return whether the present file is open, or could be opened again."""
        if self._descriptor < 0:
            with contextlib.suppress(FileNotFoundError):
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        return self._descriptor >= 0

    def _append(self, octets: bytes) -> None:
        while octets:
            done = os.write(self._descriptor, octets)
            self._left -= done
            octets = octets[done:]

    def _begin(self, at: float) -> None:
        before = self._descriptor
        self._folder.mkdir(exist_ok=True)
        self._part += 1
        self._path = self._folder / f"{self._run}-{self._part:06}.jsonl"
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        # Before the last one is closed: a process of which no file is locked is gone.
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        if before >= 0:
            os.close(before)
        self._left = self._size
        first = Line(at, states=self._states, client=self._name, process=os.getpid(), run=self._run, part=self._part)
        self._append(written(first))
        self._tidy()

    def _tidy(self) -> None:
        """Remove what is too much: of this process, and of all that are gone."""
        runs: dict[str, list[Path]] = {}
        for path in sorted(self._folder.iterdir()):
            if (found := NAME.fullmatch(path.name)) and found["client"] == self._name:
                runs.setdefault(found["run"], []).append(path)
        own = runs.pop(self._run, [])
        gone = [path for paths in runs.values() if not any(map(_is_locked, paths)) for path in paths]
        for path in (*own[: -self._most], *gone[: -self._most]):
            # Another process may remove it as well, or it belongs to another user.
            with contextlib.suppress(OSError):
                path.unlink()


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        # It is gone, or belongs to another user.
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


_rings: Final[weakref.WeakSet[Ring]] = weakref.WeakSet()


@atexit.register
def finish_all() -> None:
    """Wait up to a second for what all clients have handed over to be written."""
    end = time.monotonic() + EXIT_LIMIT
    for ring in list(_rings):
        ring.finish(max(0.0, end - time.monotonic()))
