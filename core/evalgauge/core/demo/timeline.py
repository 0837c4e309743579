"""Believable events as a pure function of seed and time: the same seed gives the same events, however time is cut.

A workload gives the events of one slice of time. Slices are drawn each by a generator of their own, so that any
stretch can be asked for in any order, and nothing is kept in between.
"""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

SLICE = 0.1
"""Seconds of one slice of a timeline."""
CYCLE = 60.0
"""Seconds after which the course of things repeats: quiet, a rush, an incident, quiet."""
INCIDENT = (0.45, 0.75)
"""The part of a cycle in which things go wrong."""


class Timed(NamedTuple):
    """One event as it is sent."""

    at: float
    """Seconds since the timeline's begin."""
    line: bytes
    """JSON, or what was meant to be JSON."""


class Workload(Protocol):
    """What one pack's application does."""

    def during(self, number: int) -> Iterator[tuple[float, dict[str, Any] | bytes]]:
        """What happens in slice `number`: times within it, in seconds since the begin, and events or raw lines."""


class Timeline:
    """The events of several workloads, in order of their times."""

    def __init__(self, *workloads: Workload) -> None:
        self._workloads = workloads

    def between(self, start: float, end: float) -> Iterator[Timed]:
        """Events with start <= time < end; both are seconds since the begin."""
        for number in range(math.floor(start / SLICE), math.ceil(end / SLICE)):
            found = [one for workload in self._workloads for one in workload.during(number)]
            for at, event in sorted(found, key=lambda one: one[0]):
                if start <= at < end:
                    yield Timed(at, event if isinstance(event, bytes) else json.dumps(event).encode())


def dice(*seed: object) -> random.Random:
    """A generator that depends on nothing but what it is given."""
    return random.Random(":".join(map(str, seed)))


def poisson(roll: random.Random, mean: float) -> int:
    """How many of something that happens `mean` times on average."""
    if mean > 30:
        return max(0, round(roll.gauss(mean, math.sqrt(mean))))
    count, product, floor = 0, roll.random(), math.exp(-mean)
    while product > floor:
        count += 1
        product *= roll.random()
    return count


def busyness(at: float) -> float:
    """How much goes on at a time, 1 on average: a slow swell, and a rush before the incident."""
    phase = at % CYCLE / CYCLE
    rush = 0.9 * math.exp(-(((phase - 0.4) / 0.06) ** 2))
    return 0.9 + 0.25 * math.sin(2 * math.pi * phase) + rush


def incident(at: float) -> bool:
    """Whether things go wrong at that time."""
    return INCIDENT[0] <= at % CYCLE / CYCLE < INCIDENT[1]
