"""What is measured: the cases of each workload, and what one measurement of one yields."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from benchmarks.messages import Given

Workload = Literal["pipelined", "one at a time", "handler"]

#: What can be asked of a round.
Measure = Literal["cpu", "rate", "p50", "p99", "empty_cpu", "adds", "added"]

_SAID: dict[Given, str] = {"properties": "", "headers": ", with headers", "none": ", without properties"}

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class Case:
    """One workload with its sizes; every peer is measured on the same cases.

    ``window`` is how many messages are in flight at once; in a handler, how many HTTP connections load it.
    """

    workload: Workload
    size: int
    window: int
    tls: bool
    messages: int
    #: What each message is given.
    given: Given = "properties"

    def __str__(self) -> str:
        return f"{self.workload}, {self.title}"

    @property
    def title(self) -> str:
        """The sizes alone, for people."""
        return f"{size_name(self.size)}, {self.window:,} in flight" + _SAID[self.given] + (", TLS" if self.tls else "")

    @property
    def warm_up(self) -> int:
        """Messages published before the measured ones: enough to fill every cache and window."""
        return max(self.messages // 10, min(self.window, self.messages))


@dataclass(frozen=True)
class Round:
    """One measurement, in seconds of processor time and of the clock, over ``messages`` messages."""

    messages: int
    wall: float
    user: float
    system: float
    #: Median and 99th percentile of a publish that nothing else was in flight with.
    p50: float | None = None
    p99: float | None = None
    #: In a handler: processor time of the same process for as many empty requests.
    empty: float | None = None

    @property
    def cpu(self) -> float:
        """Processor time for one message, in microseconds."""
        return (self.user + self.system) / self.messages * 1e6

    @property
    def rate(self) -> float:
        """Messages per second of the clock."""
        return self.messages / self.wall

    @property
    def empty_cpu(self) -> float | None:
        """Processor time for one empty request, in microseconds."""
        return None if self.empty is None else self.empty / self.messages * 1e6

    @property
    def adds(self) -> float | None:
        """Processor time that the publish adds to a request, in microseconds."""
        return None if self.empty_cpu is None else self.cpu - self.empty_cpu

    @property
    def added(self) -> float | None:
        """The same, in empty requests."""
        return None if self.adds is None or not self.empty_cpu else self.adds / self.empty_cpu

    def get(self, measure: Measure) -> float | None:
        """Return one of the above; None where the workload does not tell."""
        value: float | None = getattr(self, measure)
        return value


def percentiles(latencies: list[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile."""
    return statistics.median(latencies), statistics.quantiles(latencies, n=100)[98]


def size_name(size: int) -> str:
    """Write a size as a person would."""
    if size and size % MIB == 0:
        return f"{size // MIB} MiB"
    if size and size % KIB == 0:
        return f"{size // KIB} KiB"
    return f"{size} B"


#: The case that is named first wherever one number has to stand for all.
HEADLINE = Case("pipelined", KIB, 500, tls=False, messages=40_000)
LONE = Case("one at a time", KIB, 1, tls=False, messages=3_000)
HANDLER = Case("handler", KIB, 64, tls=False, messages=8_000)
HEADERS = replace(HEADLINE, given="headers")
DEFAULTS = replace(HEADLINE, given="none")

#: The headline stands in each part of a round: its messages per second vary most with what else the machine does.
FULL = (
    HEADLINE,
    HEADERS,
    DEFAULTS,
    Case("pipelined", 0, 500, tls=False, messages=30_000),
    Case("pipelined", 16 * KIB, 500, tls=False, messages=10_000),
    Case("pipelined", 128 * KIB, 100, tls=False, messages=2_000),
    Case("pipelined", MIB, 16, tls=False, messages=300),
    Case("pipelined", KIB, 10, tls=False, messages=10_000),
    Case("pipelined", KIB, 100, tls=False, messages=20_000),
    Case("pipelined", KIB, 5_000, tls=False, messages=30_000),
    HEADLINE,
    Case("pipelined", KIB, 500, tls=True, messages=30_000),
    Case("pipelined", 16 * KIB, 500, tls=True, messages=10_000),
    Case("pipelined", MIB, 16, tls=True, messages=300),
    LONE,
    Case("one at a time", KIB, 1, tls=True, messages=3_000),
    HANDLER,
    HEADLINE,
)
