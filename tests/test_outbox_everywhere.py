"""The behaviours of an outbox in a folder, with one in PostgreSQL, for which the kit's database stands: the same."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from tests import test_outbox
from tests.support.memory import Broker, in_memory

broker = in_memory

#: What behaviours of a folder alone look at: its thread, and its files.
OF_A_FOLDER: Final = ("Disk.", "path.", "path /", "caplog")


@contextmanager
def database() -> Iterator[str]:
    """The URL of a database in place of a folder."""
    yield "postgresql://anywhere/app"


def _is_for_both(behaviour: Callable[..., Any]) -> bool:
    source = inspect.getsource(behaviour)
    return "folder()" in source and not any(word in source for word in OF_A_FOLDER)


BEHAVIOURS: Final = [
    each
    for name, each in vars(test_outbox).items()
    if name.startswith("test_") and list(inspect.signature(each).parameters) == ["broker"] and _is_for_both(each)
]


def test_most_behaviours_are_for_both() -> None:
    """Those of the model, the stock and the publisher."""
    assert len(BEHAVIOURS) > 20


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda each: each.__name__)
def test_a_database_does_what_a_folder_does(
    behaviour: Callable[[Broker], None], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is published, refused, stored, sent and set aside, in the same order."""
    monkeypatch.setattr(test_outbox, "folder", database)
    behaviour(broker)
