"""`deviation` through the whole engine, against one event after the other."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.instruments import keyed_part, keyed_rows
from tests.arrivals import AHEAD, after, courses
from tests.engine_helpers import NOON, lines, pack_of

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT = """\
pack: lane
version: 1
title: Lane
events:
  lane.run:
    description: Somebody ran.
    fields:
      who: {type: string, required: true}
      team: {type: string, required: true}
      ms: {type: number, unit: ms}
metrics:
  lane_odd:
    type: deviation
    help: Odd runs.
    on: lane.run
    value: ms
    key: who
    labels: {team: team}
    sigma: 1.5
    samples: 2
    ttl: 50
    keys: 3
"""
PACK = pack_of(TEXT)
TTL, KEYS, SAMPLES, SIGMA = 50, 3, 2, 1.5
BEGAN = NOON - 200


class Told(NamedTuple):
    """One event."""

    who: str
    team: str
    ms: float | None
    time: int
    """Seconds after `BEGAN`."""

    def line(self, number: int) -> bytes:
        """It as it comes."""
        data = {"who": self.who, "team": self.team, "ms": self.ms}
        time = datetime.fromtimestamp(BEGAN + self.time, UTC).isoformat()
        return (
            lines({"id": str(number), "source": "/s", "type": "lane.run", "time": time, "data": data})[0]
            + b"\n"
        )


class Kept:
    """What is known of one key."""

    def __init__(self, time: int) -> None:
        self.count, self.mean, self.squares, self.newest = 0, 0.0, 0.0, time


def expected(
    stream: list[Told], every: int, came: Sequence[float] = ()
) -> tuple[Counter[tuple[str, str]], int, int]:
    """Events by (team, judgment), late events, keys evicted; `came` are the arrivals, noon where not given."""
    clock, seen, late, evicted = -math.inf, 0, 0, 0
    kept: dict[str, Kept] = {}
    found: Counter[tuple[str, str]] = Counter()
    for one, arrival in zip(stream, itertools.chain(came, itertools.repeat(NOON)), strict=False):
        before, ahead = clock, BEGAN + one.time > arrival + AHEAD
        clock = before if ahead else max(before, min(one.time, arrival - BEGAN))
        if one.ms is None:
            continue
        if ahead:
            late += 1
            continue
        seen += 1
        if one.time + TTL <= before:
            late += 1
        else:
            if one.who in kept and kept[one.who].newest + TTL <= before:
                del kept[one.who]
            key = kept.setdefault(one.who, Kept(one.time))
            key.newest = max(key.newest, one.time)
            apart = one.ms - key.mean
            if key.count >= SAMPLES:
                limit = SIGMA * math.sqrt(key.squares / (key.count - 1))
                found[one.team, "judged"] += 1
                found[one.team, "above"] += apart > limit
                found[one.team, "below"] += apart < -limit
            key.count += 1
            key.mean += apart / key.count
            key.squares += apart * (one.ms - key.mean)
        if seen % every == 0 and len(kept) > KEYS:
            kept = {who: key for who, key in kept.items() if key.newest + TTL > clock}
            for who in sorted(kept, key=lambda who: (kept[who].newest, who))[: max(0, len(kept) - KEYS)]:
                del kept[who]
                evicted += 1
    return +found, late, evicted


EVENTS = st.builds(
    Told,
    st.sampled_from("vwxyz"),
    st.sampled_from("ab"),
    st.none() | st.sampled_from([0.1, 0.25, 0.5, 1, 7, 1e3, -4]),
    st.integers(0, 12).map(lambda fives: 5 * fives)
    | st.integers(38, 102).map(lambda fives: 5 * fives)
    | st.sampled_from([-86_400, 86_400 * 365]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=80), st.data())
def test_what_lies_beyond_is_what_the_events_say_wherever_the_stream_is_cut(
    stream: list[Told], data: st.DataObject
) -> None:
    """With values that are absent, events that are late, too many keys, and restarts."""
    every, few = data.draw(st.integers(1, 8)), data.draw(st.sampled_from([1, 2, 16]))
    course = data.draw(courses(len(stream)))
    told = [one.line(number) for number, one in enumerate(stream)]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        patch.setattr(keyed_part, "BOUND_EVERY", every)
        patch.setattr(keyed_rows, "FEW", few)
        bench = after(Path(name), PACK, told, course)
        found: Counter[tuple[str, str]] = Counter()
        for team in "ab":
            found[team, "judged"] = int(bench.value("lane_odd_judged", team))
            for side in ("above", "below"):
                found[team, side] = int(bench.value("lane_odd", team, side))
        late = bench.value("evalgauge_events_late", "lane_odd")
        assert (+found, late, bench.value("lane_odd_evicted")) == expected(stream, every, course.came)
        assert bench.value("evalgauge_values_unobserved", "lane_odd") == sum(one.ms is None for one in stream)
        bench.store.close()
