"""Believable events as a pure function of seed and time: the same seed gives the same events, however time is cut.

A workload gives the events of one minute. Minutes are drawn each by a generator of their own, so that any stretch can
be asked for in any order. What takes longer than a minute is a course, whose events all follow from where it begins.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SLICE = 60
"""Seconds of one slice of a timeline, which begins at a whole minute of Unix time."""
_KEPT = 4
"""Slices that are kept: a demo at the clock's own speed asks for one of them hundreds of times."""

Told = tuple[float, dict[str, Any] | bytes]
"""Unix time, and an event without its `time`, or a raw line."""


class Timed(NamedTuple):
    """One event as it is sent."""

    at: float
    """Unix time, in whole milliseconds."""
    line: bytes
    """JSON, or what was meant to be JSON."""


class Workload(Protocol):
    """What one pack's application does."""

    def during(self, number: int) -> Iterable[Told]:
        """What happens in slice `number`, which is Unix time divided by `SLICE`, in any order."""


class Timeline:
    """The events of several workloads, in order of their times.

    The world's clock, by which the workloads live, is `ahead` seconds ahead of the events' own times.
    """

    def __init__(self, *workloads: Workload, ahead: int = 0) -> None:
        self._workloads, self._ahead = workloads, ahead
        self._slices: OrderedDict[int, list[Timed]] = OrderedDict()

    def between(self, start: float, end: float) -> Iterator[Timed]:
        """Events with start <= time < end, both Unix time."""
        number = int((start + self._ahead) // SLICE)
        while (first := number * SLICE - self._ahead) < end:
            found = self._slice(number)
            if start <= first and first + SLICE <= end:
                yield from found
            else:
                yield from (one for one in found if start <= one.at < end)
            number += 1

    def _slice(self, number: int) -> list[Timed]:
        found = self._slices.get(number)
        if found is None:
            told = [one for workload in self._workloads for one in workload.during(number)]
            timed = (_timed(one, self._ahead) for one in told)
            found = self._slices[number] = sorted(timed, key=lambda one: one.at)
            if len(self._slices) > _KEPT:
                self._slices.popitem(last=False)
        return found


class Courses:
    """Things that take longer than a slice: each has a number, begins within a unit of time, and is drawn once.

    What began before `since` is left out: nobody would know how it began.
    """

    def __init__(
        self, draw: Callable[[int], Iterable[list[Told]]], unit: int, longest: float, since: float
    ) -> None:
        """`draw` gives the courses, each in order of time, that begin in a `unit` (seconds); none is `longest` long."""
        self._draw, self._unit, self._longest, self._since = draw, unit, longest, since
        self._drawn: OrderedDict[int, dict[int, list[Told]]] = OrderedDict()
        self._kept = int(longest // unit) + 3

    def during(self, number: int) -> Iterator[Told]:
        """What those that are under way do in one slice."""
        first = int((number * SLICE - self._longest) // self._unit)
        for which in range(first, (number * SLICE) // self._unit + 1):
            yield from self._of(which).get(number, ())

    def _of(self, which: int) -> dict[int, list[Told]]:
        found = self._drawn.get(which)
        if found is None:
            found = self._drawn[which] = {}
            for course in self._draw(which):
                for told in course if course and course[0][0] >= self._since else ():
                    found.setdefault(int(told[0] // SLICE), []).append(told)
            if len(self._drawn) > self._kept:
                self._drawn.popitem(last=False)
        return found


def dice(*seed: object) -> random.Random:
    """A generator that depends on nothing but what it is given."""
    return random.Random(":".join(map(str, seed)))


def spread(roll: random.Random, mean: float, start: float, seconds: float = SLICE) -> Iterator[float]:
    """Times of something that happens `mean` times in so many seconds, one in each equal part of them."""
    count = int(mean) + (roll.random() < mean % 1)
    for place in range(count):
        yield start + (place + roll.random()) * seconds / count


def told(at: float, identity: str, source: str, type_: str, data: dict[str, Any]) -> Told:
    """One event as a workload tells it."""
    envelope = {"specversion": "1.0", "id": identity, "source": source, "type": type_}
    return at, envelope | {"data": data}


def _timed(one: Told, ahead: int) -> Timed:
    # Not rounded: a time must stay within its slice.
    millis = int(one[0] * 1000) - ahead * 1000
    if isinstance(one[1], bytes):
        return Timed(millis / 1000, one[1])
    seconds, millis_of_minute = divmod(millis, 60_000)
    time = f"{_minute(seconds)}{millis_of_minute // 1000:02}.{millis_of_minute % 1000:03}Z"
    return Timed(millis / 1000, _as_json({**one[1], "time": time}))


@lru_cache(64)
def _minute(number: int) -> str:
    return datetime.fromtimestamp(number * 60, UTC).strftime("%Y-%m-%dT%H:%M:")


_as_json = msgspec.json.Encoder().encode
