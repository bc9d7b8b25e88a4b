"""Who owns a file of the outbox: a lock beside it says so, and the files are closed to others."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from .database import COMPANIONS, JOURNAL


class Locked(Exception):
    """A file belongs to another running client."""


def lock_path(path: Path) -> Path:
    """Return the path of the lock beside a file."""
    return path.with_name(f"{path.name}.lock")


def is_locked(path: Path) -> bool:
    """Return whether a client has a file open; nothing is left behind that could keep one from opening it."""
    try:
        lock = os.open(lock_path(path), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def take_lock(path: Path) -> int:
    """Lock a file for this process; return the lock's descriptor. Raises Locked if another process has it."""
    beside = lock_path(path)
    while True:
        lock = os.open(beside, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its previous owner may have deleted it in the meantime.
            if os.path.samestat(os.fstat(lock), beside.stat()):
                return lock
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(lock)
            raise Locked(path) from None
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def check_regular(path: Path) -> None:
    """Raise ValueError if a file is a link, a device or the like."""
    for each, status in parts(path):
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{each} is no regular file: move it elsewhere")


def check_own(path: Path) -> None:
    """Close the files to others, as far as they exist; raise ValueError if others may have written them."""
    check_regular(path)
    if os.path.lexists(f"{path}{JOURNAL}"):
        raise ValueError(f"there is a {path.name}{JOURNAL}, which no client has made: move it elsewhere")
    for each, status in parts(path):
        if status.st_uid != os.geteuid():
            raise ValueError(f"{each} belongs to user {status.st_uid}, not to {os.geteuid()}: move it elsewhere")
        if status.st_mode & stat.S_IWOTH:
            mode = stat.S_IMODE(status.st_mode)
            raise ValueError(f"all users may write to {each} (mode {mode:o}): check its content, then chmod 600 it")
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            # A backup was restored, or Kubernetes has opened the volume to a group (fsGroup), as whenever a pod starts.
            each.chmod(0o600)


def parts(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Iterate over a database, the files beside it and its lock, as far as they exist, without following links."""
    for each in (path, *(Path(f"{path}{companion}") for companion in COMPANIONS), lock_path(path)):
        with contextlib.suppress(FileNotFoundError):
            yield each, each.lstat()
