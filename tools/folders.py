"""What is in the folder of an outbox when nobody has it open: as a process finds it that starts."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from sprockets_amqp.outbox.sqlite.database import COMPANIONS
from sprockets_amqp.outbox.sqlite.file import SUFFIX, OutboxFile
from sprockets_amqp.outbox.sqlite.folder import files
from sprockets_amqp.outbox.store import unpack

Folder = tempfile.TemporaryDirectory[str]


def copied(folder: str) -> Folder:
    """Return what is in a folder now in another: the locks of a process that was killed are nobody's."""
    copy = Folder()
    shutil.copytree(folder, copy.name, dirs_exist_ok=True)
    return copy


def ids(folder: str, where: str = "true") -> set[str]:
    """Return the ids of the messages for which a condition holds, in every file."""
    found: set[str] = set()
    for path in files(Path(folder)):
        file = OutboxFile(path)
        try:
            found.update(str(unpack(row.message)[1].message_id) for row in file.rows(where))
        finally:
            file.close()
    return found


def count(folder: str) -> int:
    """Return how many files there are."""
    return len(files(Path(folder)))


def rename(folder: str) -> None:
    """Have every file be that of another client, which is gone."""
    for path in reversed(files(Path(folder))):
        name, number, _ = path.name.split(".")
        for companion in ("", *COMPANIONS):
            beside = Path(f"{path}{companion}")
            if beside.exists():
                beside.rename(path.with_name(f"{name}.{int(number) + 1}{SUFFIX}{companion}"))
