"""`active` through the whole engine, against one event after the other."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.instruments import keyed_part
from tests.arrivals import AHEAD, after, courses
from tests.engine_helpers import NOON, Lab, lines, pack_of

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT = """\
pack: hall
version: 1
title: Hall
events:
  hall.entered:
    description: Somebody came.
    fields:
      house: {type: string, required: true}
      who: {type: string, required: true}
      door: {type: string, required: true}
  hall.left:
    description: Somebody went.
    fields:
      house: {type: string, required: true}
      who: {type: string, required: true}
      door: {type: string, required: true}
  hall.lit:
    description: The light went on.
    fields: {house: {type: string}}
metrics:
  hall_present:
    type: active
    help: Who is there.
    on: [hall.entered, hall.left]
    closed: hall.left
    key: [house, who]
    labels: {door: {field: door, limit: 2}}
    ttl: 50
    keys: 3
  hall_lights:
    type: counter
    help: Lights.
    on: hall.lit
"""
PACK = pack_of(TEXT)
TTL, KEYS = 50, 3
BEGAN = NOON - 200


class Told(NamedTuple):
    """One event."""

    what: str
    house: str
    who: str
    door: str
    time: int
    """Seconds after `BEGAN`."""

    def line(self, number: int) -> bytes:
        """It as it comes."""
        data = {"house": self.house}
        if self.what != "lit":
            data |= {"who": self.who, "door": self.door}
        time = datetime.fromtimestamp(BEGAN + self.time, UTC).isoformat()
        return (
            lines(
                {"id": str(number), "source": "/s", "type": f"hall.{self.what}", "time": time, "data": data}
            )[0]
            + b"\n"
        )


def expected(  # noqa: C901 - one rule after the other
    stream: list[Told], every: int, came: Sequence[float] = ()
) -> tuple[Counter[str], int, int]:
    """Who is there by door, late events, keys evicted; doors in order of their coming, the third and later as one.

    `came` are the arrivals, noon where they are not given.
    """
    clock, late, evicted, seen = float("-inf"), 0, 0, 0
    kept: dict[tuple[str, str], list[tuple[int, str, str]]] = {}
    doors: list[str] = []

    def newest(key: tuple[str, str]) -> int:
        return max(time for time, _, _ in kept[key])

    def forget() -> None:
        for key in [key for key in kept if newest(key) + TTL <= clock]:
            del kept[key]

    for one, arrival in zip(stream, itertools.chain(came, itertools.repeat(NOON)), strict=False):
        before, ahead = clock, BEGAN + one.time > arrival + AHEAD
        clock = clock if ahead else max(clock, min(one.time, arrival - BEGAN))
        if one.what == "lit":
            continue
        if one.door not in doors and len(doors) < 2:
            doors.append(one.door)
        if ahead:
            late += 1
            continue
        seen += 1
        if one.time + TTL <= before:
            late += 1
        else:
            door = one.door if one.door in doors else "_other"
            kept.setdefault((one.house, one.who), []).append((one.time, one.what, door))
        if seen % every == 0 and len(kept) > KEYS:
            forget()
            for key in sorted(kept, key=lambda key: (newest(key), f"{len(key[0])}:{key[0]}{key[1]}"))[
                : max(0, len(kept) - KEYS)
            ]:
                del kept[key]
                evicted += 1
    forget()
    there: Counter[str] = Counter()
    for events in kept.values():
        last_in = max((time for time, what, _ in events if what == "entered"), default=float("-inf"))
        last_out = max((time for time, what, _ in events if what == "left"), default=float("-inf"))
        if last_in > last_out and last_in + TTL > clock:
            there[[door for time, _, door in events if time == max(last_in, last_out)][-1]] += 1
    return there, late, evicted


EVENTS = st.builds(
    Told,
    st.sampled_from(["entered", "left", "lit"]),
    st.sampled_from(["h", "hh"]),
    st.sampled_from("vw"),
    st.sampled_from("abc"),
    st.integers(0, 30).map(lambda fives: 5 * fives)
    | st.integers(38, 102).map(lambda fives: 5 * fives)
    | st.sampled_from([-86_400, 86_400 * 365]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=60), st.data())
def test_who_is_there_is_what_the_events_say_wherever_the_stream_is_cut(
    stream: list[Told], data: st.DataObject
) -> None:
    """In any order, with repeats, wrong clocks, closes that never come, too many keys, and restarts."""
    every = data.draw(st.integers(1, 8))
    course = data.draw(courses(len(stream)))
    told = [one.line(number) for number, one in enumerate(stream)]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        patch.setattr(keyed_part, "BOUND_EVERY", every)
        bench = after(Path(name), PACK, told, course)
        family = next(one for one in bench.families() if one.name == "hall_present")
        found = {
            labels[0]: count
            for labels, count in zip(family.series, family.values.tolist(), strict=True)
            if count
        }
        late = bench.value("evalgauge_events_late", "hall_present")
        assert (found, late, bench.value("hall_present_evicted")) == expected(stream, every, course.came)
        bench.store.close()


def test_where_nothing_comes_time_follows_the_clock(tmp_path: Path) -> None:
    """So that nobody is there for ever, and only where nothing waits to be read."""
    with Lab(tmp_path, packs=[PACK]) as bench:
        bench.feed(Told("entered", "h", "v", "a", 190).line(1))
        bench.engine.commit()
        assert bench.value("hall_present", "a") == 1
        for seconds, quiet, there in ((5, True, 1), (45, False, 1), (45, True, 1), (60, True, 0)):
            bench.clock.now = NOON + seconds
            bench.engine.pass_time(10, {"": quiet}.__getitem__)
            bench.engine.commit()
            assert bench.value("hall_present", "a") == there, (seconds, quiet)
        bench.feed(Told("entered", "h", "v", "a", 195).line(2))
        bench.engine.commit()
        assert bench.value("evalgauge_events_late", "hall_present") == 1
