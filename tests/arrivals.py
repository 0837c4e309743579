"""When the events of a stream came, and how it was cut; a clock that is ahead takes time only to its arrival."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import strategies as st

from tests.engine_helpers import NOON, Lab

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from evalgauge.core.pack.model import Pack

AHEAD = 300
"""Seconds that an event may be ahead of its arrival."""
_SHIFTS = st.sampled_from([0, 0, -150, -60, 5, 90, 250, 400])


@st.composite
def arrivals(draw: st.DrawFn, events: int) -> list[float]:
    """Of each event, mostly noon for all; a clock that is set back gives later events earlier arrivals."""
    places = sorted(draw(st.lists(st.integers(0, events), max_size=2)))
    found: list[float] = []
    for first, last in itertools.pairwise((0, *places, events)):
        found += [NOON + draw(_SHIFTS)] * (last - first)
    return found


def feed(bench: Lab, told: Sequence[bytes], came: Sequence[float]) -> None:
    """Events in chunks of those that came together; one that is empty where there are none."""
    if not told:
        bench.feed(b"")
    for arrival, some in itertools.groupby(zip(came, told, strict=True), key=lambda one: one[0]):
        bench.feed(b"".join(line for _, line in some), arrival=arrival)


class Course(NamedTuple):
    """How a stream was read."""

    cuts: list[int]
    """Events before each commit but the last, ascending."""
    restarts: set[int]
    """Numbers of the commits after which the process began anew."""
    came: list[float]
    """When each event came."""


@st.composite
def courses(draw: st.DrawFn, events: int) -> Course:
    """Of a stream of so many events."""
    cuts = sorted(draw(st.lists(st.integers(0, events), max_size=5)))
    return Course(cuts, draw(st.sets(st.integers(0, 5))), draw(arrivals(events)))


def after(folder: Path, pack: Pack, told: Sequence[bytes], course: Course) -> Lab:
    """The lab that has read the whole stream in that way; its store is open."""
    bench = Lab(folder, packs=[pack])
    for number, (first, last) in enumerate(itertools.pairwise((0, *course.cuts, len(told)))):
        feed(bench, told[first:last], course.came[first:last])
        bench.engine.commit()
        if number in course.restarts:
            bench.store.close()
            bench = Lab(folder, packs=[pack])
    return bench
