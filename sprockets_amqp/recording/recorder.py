"""The recorder: it sees every trigger of a client's machines, and once a second the counters.

It decides nothing and counts nothing: the machines tell it what was pulled, and it reads the client's counters. What it
hands over is written elsewhere: see `ring`.
"""

import asyncio
import dataclasses
import functools
import re
import time
from collections.abc import Callable, Sequence
from typing import Final

from transitions import EventData

from sprockets_amqp.delivery.counters import Counters
from sprockets_amqp.drawing.declared import full_name
from sprockets_amqp.model import Model
from sprockets_amqp.text import shown
from sprockets_amqp.urls import hide_password
from sprockets_amqp.wire.replies import describe

from .trace import Line, Pull

#: Seconds between two lines with the counters.
INTERVAL: Final = 1.0

_URL: Final = re.compile(r"\w+://\S+")

#: Receives each line; None: for now nothing more is to come.
Put = Callable[[Line | None], object]


@dataclasses.dataclass
class _Begun:
    """A trigger that is being pulled."""

    event: EventData
    source: str
    then: list[Pull]


class Recorder:
    """Records from the start until the client is shut down, and what happens even after that.

    Args:
        put: receives each line; None, when nothing more is to come for now.
        counters: returns the client's counters.
        loop: the client's loop.
        interval: seconds between two lines with the counters; 0: there is one at the end.
    """

    def __init__(
        self,
        put: Put,
        counters: Callable[[], Counters],
        loop: asyncio.AbstractEventLoop,
        interval: float = INTERVAL,
    ) -> None:
        self._put = put
        self._counters = counters
        self._loop = loop
        self._interval = interval
        self._models: Sequence[Model] = ()
        self._timer: asyncio.TimerHandle | None = None
        #: Whether the client was shut down, and has not been started again.
        self._rests = False
        #: What is being pulled, the outermost first.
        self._begun: list[_Begun] = []

    def watch(self, *models: Model) -> None:
        """Record the triggers of these; the first leads the others."""
        self._models = models
        for model in models:
            model.watch(functools.partial(self._on_begin, model), functools.partial(self._on_end, model))

    def start(self) -> None:
        """Record the counters at intervals: publishes may fail before anything is pulled."""
        if self._timer is None and self._interval:
            self._timer = self._loop.call_later(self._interval, self._tick)

    def rest(self) -> None:
        """The client was shut down: record the counters for the last time, unless it has been started again."""
        if "at_rest" in self._models[0].declared.marks:
            self._rests = True
            self._cancel()
            self._tell_counters()
            self._put(None)

    def stop(self) -> None:
        """Record nothing more."""
        self._put = lambda _line: None
        self._cancel()

    def _on_begin(self, model: Model, event: EventData) -> None:
        if not self._begun or self._begun[-1].event is not event:
            self._begun.append(_Begun(event, full_name(model.state), []))

    def _on_end(self, model: Model, event: EventData) -> None:
        if self._begun and self._begun[-1].event is event:
            begun = self._begun.pop()
        else:
            # The state has no row for it.
            begun = _Begun(event, full_name(model.state), [])
        dest = full_name(model.state)
        pull = Pull(
            model.machine.name,
            event.event.name,
            begun.source,
            # An action that raises does so when the state is another already.
            dest if event.result or dest != begun.source else "",
            _reason(event),
            tuple(begun.then),
        )
        if self._begun:
            self._begun[-1].then.append(pull)
            return
        self._put(Line(time.time(), pull))
        if "at_rest" not in self._models[0].declared.marks:
            self._rests = False
            self.start()
        elif self._rests:
            self.rest()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._interval, self._tick)
        self._tell_counters()

    def _tell_counters(self) -> None:
        self._put(Line(time.time(), counters=dataclasses.asdict(self._counters())))

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _reason(event: EventData) -> str:
    reason, cause = event.kwargs.get("reason"), event.kwargs.get("cause")
    text = str(reason) if reason else describe(cause) if cause is not None else ""
    # An exception of the application's may quote a URL.
    return shown(_URL.sub(lambda url: hide_password(url[0]), text))
