"""When the events of a stream came: one whose clock is ahead takes time no further than to its arrival."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from tests.engine_helpers import NOON

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.engine_helpers import Lab

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
