"""Secrets on their way: error trackers show tracebacks with their frames' local variables.

A function that is given a secret, and may raise, first binds its variable to a `Secret`.
"""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

T = TypeVar("T")
M = TypeVar("M", bound=Mapping[str, Any])


class Secret:
    """Holds a value that is not shown, whatever shows this.

    >>> url = Secret("amqp://guest:password@localhost")
    >>> url, f"{url}", [url]
    (Secret(***), 'Secret(***)', [Secret(***)])
    >>> reveal(url)
    'amqp://guest:password@localhost'
    """

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret(***)"

    def reveal(self) -> Any:
        """Return the value."""
        return self._value


def hidden(value: T) -> T:
    """Return the value as a `Secret`, typed as what it holds; one that is a secret already stays as it is."""
    return value if isinstance(value, Secret) else cast("T", Secret(value))


def all_hidden(values: M) -> M:
    """Return keyword arguments with each value as a `Secret`: a mistyped name may have any of them."""
    return cast("M", {name: hidden(value) for name, value in values.items()})


def reveal(value: Any) -> Any:
    """Return what a secret holds, or the value itself if it is none."""
    return value.reveal() if isinstance(value, Secret) else value


def all_revealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return keyword arguments as they were before `all_hidden`, to be passed on."""
    return {name: reveal(value) for name, value in values.items()}
