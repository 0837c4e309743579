"""`window` through the whole engine, against one event after the other."""

from __future__ import annotations

import itertools
import math
import random
import tempfile
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.collect import Chunk
from evalgauge.core.config import Config
from evalgauge.core.errors import ConfigError
from evalgauge.core.instruments import keyed_part
from evalgauge.core.instruments.sketch import ALPHA, bucket_of, quantiles
from evalgauge.core.keyed import check_keys
from evalgauge.core.pack.metric_model import WindowSpec
from tests.arrivals import AHEAD, arrivals, feed
from tests.engine_helpers import INPUT, KINDS, NOON, Lab, lines, pack_of
from tests.test_pack_check import found as problems_of
from tests.test_partitions import Log, Replica

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evalgauge.core.families import Family

LANE = """\
pack: lane
version: 1
title: Lane
events:
  lane.run:
    description: Somebody ran.
    fields:
      team: {type: string, required: true}
      who: {type: string}
      ms: {type: number, unit: ms}
      level: {type: number, unit: "1"}
  lane.rest:
    description: Somebody rested.
    fields:
      team: {type: string, required: true}
metrics:
  lane_slide_seconds:
    type: window
    help: Runs of half a minute.
    on: lane.run
    value: ms
    distinct: who
    size: 30
    every: 10
    lateness: 15
    quantiles: [0, 0.5, 0.9, 1]
    labels: {team: {field: team, limit: 2}}
    keys: 4
  lane_tumble:
    type: window
    help: Anything at all.
    on: [lane.run, lane.rest]
    size: 20
  lane_last:
    type: window
    help: Levels of the last six runs.
    on: lane.run
    value: level
    distinct: who
    events: 6
    every_events: 2
    ttl: 120
    quantiles: [0.25]
    labels: {team: {field: team, limit: 2}}
  lane_block:
    type: window
    help: Levels of three runs.
    on: lane.run
    value: level
    events: 3
    show: [sum]
"""
PACK = pack_of(LANE)
SIZE, EVERY, LATENESS, KEYS, TTL = 30, 10, 15, 4, 120
BEGAN = int(NOON) - 200
assert BEGAN % 60 == 0


class Told(NamedTuple):
    """One event."""

    rest: bool
    team: str
    who: str | None
    ms: float | None
    level: float | None
    time: int
    """Seconds after `BEGAN`, which is a whole minute."""

    def line(self, number: int) -> bytes:
        """It as it comes."""
        data: dict[str, object] = {"team": self.team}
        if not self.rest:
            more = {"who": self.who, "ms": self.ms, "level": self.level}
            data |= {key: value for key, value in more.items() if value is not None}
        time = datetime.fromtimestamp(BEGAN + self.time, UTC).isoformat()
        type_ = "lane.rest" if self.rest else "lane.run"
        event = {"id": str(number), "source": "/s", "type": type_, "time": time, "data": data}
        return lines(event)[0] + b"\n"


Rows = dict[str, list[Told]]
"""Team → its events in a window."""


class Seen:
    """What one partition's events come to, one event after the other."""

    def __init__(self, stream: Sequence[Told], bound: int, came: Sequence[float] = ()) -> None:
        """`came` are the arrivals, else noon; an event of no team is nobody's, and only time passes."""
        self.late = {"lane_slide_seconds": 0, "lane_tumble": 0, "lane_last": 0, "lane_block": 0}
        self.unobserved = dict.fromkeys(self.late, 0)
        self.evicted = 0
        self.clock = -math.inf
        self._slide: list[tuple[float, str, Told]] = []
        """(time before it came, team, event)."""
        self._tumble: list[tuple[float, Told]] = []
        self._last: Rows = {}
        self._block: list[Told] = []
        self._teams: dict[str, list[str]] = {"slide": [], "last": []}
        self._who: dict[tuple[float, bool, str, str], int] = {}
        """(step, came after its window closed, team, who) → number of the event that said so first."""
        self._number, self._closed = 0, -math.inf
        for one, arrival in zip(stream, itertools.chain(came, itertools.repeat(NOON)), strict=False):
            ahead = BEGAN + one.time > arrival + AHEAD
            after = self.clock if ahead else max(self.clock, min(one.time, int(arrival) - BEGAN))
            if one.team:
                self._take_tumble(one, ahead=ahead)
            if one.team and not one.rest:
                self._take_slide(one, after, ahead=ahead, bound=bound)
                self._take_counted(one, ahead=ahead)
            self.clock = after
        self._pass(self.clock)

    def _team(self, one: Told, metric: str) -> str:
        known = self._teams[metric]
        if one.team not in known and len(known) < 2:
            known.append(one.team)
        return one.team if one.team in known else "_other"

    def _take_tumble(self, one: Told, *, ahead: bool) -> None:
        if ahead or one.time // 20 * 20 + 20 <= self.clock:
            self.late["lane_tumble"] += 1
        else:
            self._tumble.append((self.clock, one))

    def _take_slide(self, one: Told, after: float, *, ahead: bool, bound: int) -> None:
        if one.who is None or one.ms is None or one.ms < 0:
            self.unobserved["lane_slide_seconds"] += 1
            return
        team = self._team(one, "slide")
        if ahead:
            self.late["lane_slide_seconds"] += 1
            return
        step = one.time // EVERY
        if step * EVERY + SIZE + LATENESS <= self.clock:
            self.late["lane_slide_seconds"] += 1
        else:
            self._pass(self.clock)
            self._slide.append((self.clock, team, one))
            self._who.setdefault((step, step < self._closed, team, one.who), self._number)
        self._number += 1
        if self._number % bound == 0:
            self._pass(after)
            for key in sorted(self._who, key=lambda key: (key[0], self._who[key]))[:-KEYS]:
                del self._who[key]
                self.evicted += 1

    def _pass(self, clock: float) -> None:
        closed = math.floor((clock - LATENESS) / EVERY) if clock > -math.inf else clock
        if closed > self._closed:
            self._closed, kept = closed, dict[tuple[float, bool, str, str], int]()
            for (step, _, team, who), number in self._who.items():
                if step >= closed - SIZE // EVERY:
                    key = (step, False, team, who)
                    kept[key] = min(number, kept.get(key, number))
            self._who = kept

    def _take_counted(self, one: Told, *, ahead: bool) -> None:
        for metric in ("lane_last", "lane_block"):
            if one.level is None or (metric == "lane_last" and one.who is None):
                self.unobserved[metric] += 1
                continue
            team = self._team(one, "last") if metric == "lane_last" else ""
            if ahead:
                self.late[metric] += 1
            elif metric == "lane_last":
                self._last.setdefault(team, []).append(one)
            else:
                self._block.append(one)

    def slide(self) -> tuple[float, Rows, dict[str, set[str]]]:
        """End, events and different people of the newest closed window."""
        end = self._closed * EVERY
        rows: Rows = {}
        for before, team, one in self._slide:
            if end - SIZE <= one.time < end and before < end + LATENESS:
                rows.setdefault(team, []).append(one)
        who: dict[str, set[str]] = {}
        for step, after, team, name in self._who:
            if end - SIZE <= step * EVERY < end and not after:
                who.setdefault(team, set()).add(name)
        return end, rows, who

    def tumble(self) -> tuple[float, int]:
        """End and events of the newest closed window."""
        end = self.clock // 20 * 20 if self.clock > -math.inf else self.clock
        return end, sum(end - 20 <= one.time < end for _, one in self._tumble)

    def last(self) -> Rows:
        """The newest six of each team, as of every second one, where they are not too long ago."""
        ends = {team: len(events) // 2 * 2 for team, events in self._last.items()}
        rows = {team: self._last[team][end - 6 : end] for team, end in ends.items() if end >= 6}
        return {team: some for team, some in rows.items() if max(one.time for one in some) + TTL > self.clock}

    def block(self) -> list[Told]:
        """The newest full three."""
        end = len(self._block) // 3 * 3
        some = self._block[max(0, end - 3) : end]
        return some if max((one.time for one in some), default=0) + 7 * 86_400 > self.clock else []


Values = dict[tuple[str, ...], float]


def expected(seen: Sequence[Seen]) -> tuple[Values, Values]:
    """What is shown of all partitions: (family, labels…) → value; quantiles, which are not exact, apart."""
    exact: Values = {}
    about: Values = {}
    slides = [one.slide() for one in seen]
    end = max(end for end, _, _ in slides)
    rows: Rows = {}
    people: dict[str, set[str]] = {}
    for _, some, who in (one for one in slides if one[0] == end):
        for team, events in some.items():
            rows.setdefault(team, []).extend(events)
            people.setdefault(team, set()).update(who.get(team, ()))
    if end > -math.inf:
        exact["lane_slide_end_timestamp_seconds",] = BEGAN + end
    _tell(exact, about, "lane_slide", "_seconds", rows, (0, 0.5, 0.9, 1))
    exact |= {("lane_slide_distinct", team): len(people[team]) for team in rows}
    tumbles = [one.tumble() for one in seen]
    end = max(end for end, _ in tumbles)
    count = sum(count for at, count in tumbles if at == end)
    if end > -math.inf:
        exact["lane_tumble_end_timestamp_seconds",] = BEGAN + end
    if count:
        exact["lane_tumble_count",] = count
    rows = {}
    for one in seen:
        for team, events in one.last().items():
            rows.setdefault(team, []).extend(events)
    _tell(exact, about, "lane_last", "", rows, (0.25,))
    for team, events in rows.items():
        exact["lane_last_distinct", team] = len({one.who for one in events})
        exact["lane_last_end_timestamp_seconds", team] = BEGAN + max(one.time for one in events)
    if block := [one for part in seen for one in part.block()]:
        exact["lane_block_sum",] = float(sum(Fraction(one.level or 0) for one in block))
        exact["lane_block_end_timestamp_seconds",] = BEGAN + max(one.time for one in block)
    exact["lane_slide_evicted",] = sum(one.evicted for one in seen)
    exact["lane_last_evicted",] = 0
    return exact, about


def _tell(exact: Values, about: Values, stem: str, base: str, rows: Rows, shares: Sequence[float]) -> None:
    for team, events in rows.items():
        found = [one.ms if base else one.level for one in events]
        values = sorted(value for value in found if value is not None)
        unit = Fraction(1, 1000) if base else Fraction(1)
        total = sum(map(Fraction, values)) * unit
        exact[f"{stem}_count", team] = len(values)
        exact[f"{stem}_sum{base}", team] = float(total)
        exact[f"{stem}_mean{base}", team] = float(total / len(values))
        exact[f"{stem}_min{base}", team] = values[0] / unit.denominator
        exact[f"{stem}_max{base}", team] = values[-1] / unit.denominator
        for share in shares:
            rank = max(1, math.ceil(Fraction(str(share)) * len(values)))
            about[f"{stem}{base}", team, str(share)] = values[rank - 1] / unit.denominator


def told(families: Sequence[Family]) -> Values:
    """What is shown."""
    return {
        (one.name, *labels): value
        for one in families
        if one.name.startswith("lane_")
        for labels, value in zip(one.series, one.values.tolist(), strict=False)
    }


def check(families: Sequence[Family], seen: Sequence[Seen]) -> None:
    """Everything is shown as it is expected, and nothing else."""
    exact, about = expected(seen)
    found = told(families)
    for key, value in about.items():
        assert found.pop(key) == pytest.approx(value, rel=ALPHA * 1.000001, abs=1e-15), key
    counters = {("lane_slide_evicted",), ("lane_last_evicted",)}
    assert {key: value for key, value in found.items() if key not in counters or value} == {
        key: value for key, value in exact.items() if key not in counters or value
    }


NUMBERS = st.sampled_from([0.0, -0.0, 0.1, 0.25, 1, 7, 33.3, 1e3, -4, -0.3, 5e6, 1e-7, 1e300, -1e-300, None])
EVENTS = st.builds(
    Told,
    st.sampled_from([False] * 5 + [True]),
    st.sampled_from("aabc"),
    st.sampled_from(["v", "w", "x", "y", "z", None]),
    NUMBERS,
    NUMBERS,
    st.integers(0, 40).map(lambda fives: 5 * fives)
    | st.integers(0, 100)
    | st.integers(38, 102).map(lambda fives: 5 * fives)
    | st.sampled_from([-86_400, -86_400 * 365, 86_400 * 365]),
)
ORDERED = st.lists(EVENTS, max_size=60).map(
    lambda events: sorted(events, key=lambda one: one.time if one.time >= 0 else 50)
)


@settings(max_examples=50, deadline=None)
@given(st.lists(EVENTS, max_size=60) | ORDERED, st.data())
def test_windows_hold_what_the_events_say_wherever_the_stream_is_cut(
    stream: list[Told], data: st.DataObject
) -> None:
    """In any order, with wrong clocks, values that are absent, too many values, and restarts."""
    bound = data.draw(st.integers(1, 8))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    restarts = data.draw(st.sets(st.integers(0, 5)))
    follow(stream, bound, cuts, restarts, data.draw(arrivals(len(stream))))


@pytest.mark.parametrize("seed", range(16))
def test_a_long_stream_is_followed_through_many_windows(seed: int) -> None:
    """Most of it in order, some late, some too late, some with a clock that is ahead, and each when it happened."""
    dice = random.Random(seed)  # noqa: S311 - the same stream at every run
    values = [0.0, 0.1, 0.25, 1.0, 7.0, 33.3, 1e3, -4.0, 5e6, 1e-7, None]
    jitter = [0, 0, 0, -2, -9, -14, -25, -33, -60, 7, 40, 299, 300, 301, 86_400 * 365, -86_400 * 365]
    stream = [
        Told(
            dice.random() < 0.1,
            dice.choice("aab" if seed % 2 else "aabc"),
            dice.choice(["v", "w", "x", "y", "z", None]),
            dice.choice(values),
            dice.choice(values),
            number // 2 + dice.choice(jitter),
        )
        for number in range(400)
    ]
    cuts = sorted(dice.sample(range(400), 12))
    came = [BEGAN + number // 20 * 10.0 for number in range(400)]
    follow(stream, dice.choice([1, 5, 60, 1000]), cuts, {*dice.sample(range(12), 6)}, came)


def follow(
    stream: Sequence[Told], bound: int, cuts: Sequence[int], restarts: set[int], came: Sequence[float] = ()
) -> None:
    """Feed a stream in pieces, and look at all that is shown after each, and after restarts."""
    came = came or [NOON] * len(stream)
    body = [one.line(number) for number, one in enumerate(stream)]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        patch.setattr(keyed_part, "BOUND_EVERY", bound)
        bench = Lab(Path(name), packs=[PACK])
        for number, (first, last) in enumerate(zip([0, *cuts], [*cuts, len(stream)], strict=True)):
            feed(bench, body[first:last], came[first:last])
            bench.engine.commit()
            seen = Seen(stream[:last], bound, came[:last])
            check(bench.families(), [seen])
            if number in restarts:
                bench.store.close()
                bench = Lab(Path(name), packs=[PACK])
                check(bench.families(), [seen])
        for metric, late in seen.late.items():
            assert bench.value("evalgauge_events_late", metric) == late, metric
            assert bench.value("evalgauge_values_unobserved", metric) == seen.unobserved[metric], metric
        bench.store.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), EVENTS), max_size=80), st.data())
def test_partitions_of_one_process_are_shown_together_and_move(
    stream: list[tuple[int, Told]], data: st.DataObject
) -> None:
    """Each with its own time; windows that end last are one, whoever else has the partition."""
    log, parts = Log(), ["t/0", "t/1", "t/2"]
    one, other = Replica(log, "r1", pack=PACK), Replica(log, "r2", pack=PACK)
    for part in parts:
        one.adopt(part)
    streams: dict[str, list[Told]] = {part: [] for part in parts}
    moves = data.draw(st.sets(st.integers(0, 80), max_size=3))
    for number, (place, event) in enumerate(stream):
        part = parts[place]
        holder = one if part in one.has else other
        holder.engine.process(INPUT, Chunk(part, event.line(number), str, commit=1, arrival=NOON))
        streams[part].append(event)
        if number in moves:
            holder.release(part)
            (other if holder is one else one).adopt(part)
    for replica in (one, other):
        replica.engine.commit()
        seen = [Seen(streams[part], 1 << 16) for part in sorted(replica.has)]
        if seen:
            check(replica.engine.families(), seen)
        else:
            assert not any(told(replica.engine.families()).values())


def run(at: int, team: str = "a", ms: float = 1.0, who: str = "v") -> Told:
    """One run."""
    return Told(rest=False, team=team, who=who, ms=ms, level=ms, time=at)


def test_what_is_over_by_the_time_of_the_event_itself_is_not_evicted() -> None:
    """Values go for their number only after time has taken its own."""
    stream = [run(at, who=who) for at, who in ((0, "v"), (1, "w"), (40, "x"), (41, "y"), (75, "z"))]
    assert Seen(stream, 5).evicted == 0
    follow(stream, 5, [5], set())


def test_where_nothing_comes_windows_close_by_the_clock_and_what_is_over_vanishes(tmp_path: Path) -> None:
    """No gauge stands still for ever."""
    with Lab(tmp_path, packs=[PACK]) as bench:
        bench.feed(b"".join(run(at).line(at) for at in (150, 151, 158)))
        bench.engine.commit()
        assert "lane_slide_count" not in {key[0] for key in told(bench.families())}
        for seconds, count in ((0, 3), (4, 3), (5, 0), (60, 0)):
            bench.clock.now = NOON + seconds
            bench.engine.pass_time(0, lambda _: True)
            bench.engine.commit()
            found = told(bench.families())
            end = BEGAN + (200 + seconds - LATENESS) // EVERY * EVERY
            assert found["lane_slide_end_timestamp_seconds",] == end
            assert found.get(("lane_slide_count", "a"), 0) == count, seconds


@pytest.mark.parametrize(
    ("lateness", "size", "every"), [("24h", "1h", "1m"), ("24h", "1m", "1m"), ("1h", "1d", "1d")]
)
def test_a_day_of_disorder_is_waited_for(tmp_path: Path, lateness: str, size: str, every: str) -> None:
    """Events that come in any order within the lateness are all there."""
    text = LANE.replace("size: 30", f"size: {size}").replace("every: 10", f"every: {every}")
    pack = pack_of(text.replace("lateness: 15", f"lateness: {lateness}").replace("keys: 4", "keys: 4000"))
    dice = np.random.default_rng(7)
    hours = 3600 * float(lateness.removesuffix("h"))
    times = np.sort(dice.integers(-200_000, 0, 4_000))
    came = times[np.argsort(times + dice.integers(0, int(hours) - 60, len(times)), kind="stable")]
    body = [run(int(at), ms=float(at % 97)).line(number) for number, at in enumerate(came)]
    seconds = {"1m": 60, "1h": 3600, "1d": 86_400}
    end = int((BEGAN + times.max() - hours) // seconds[every] * seconds[every])
    inside = times[(BEGAN + times >= end - seconds[size]) & (BEGAN + times < end)]
    with Lab(tmp_path, packs=[pack]) as bench:
        for first in range(0, len(body), 900):
            bench.feed(b"".join(body[first : first + 900]))
            bench.engine.commit()
        found = told(bench.families())
        assert bench.value("evalgauge_events_late", "lane_slide_seconds") == 0
        assert found["lane_slide_end_timestamp_seconds",] == end
        assert found.get(("lane_slide_count", "a"), 0) == len(inside)
        if len(inside):
            assert found["lane_slide_sum_seconds", "a"] == float(sum(int(at) % 97 for at in inside)) / 1000


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.floats(-1e17, 1e17) | st.floats(-1, 1) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=300
    ),
    st.lists(st.floats(0, 1), min_size=1, max_size=5),
)
def test_a_quantile_is_within_one_percent_of_the_value_at_that_share(
    values: list[float], shares: list[float]
) -> None:
    """Against sorted values, over all magnitudes and both signs."""
    array = np.array(values)
    array[np.abs(array) < 1e-17] = 0
    wanted = np.quantile(array, shares, method="inverted_cdf")
    rows = np.zeros(len(array), np.intp)
    found = quantiles(rows, bucket_of(array), np.ones(len(array), np.int64), shares)
    assert found.shape == (1, len(shares))
    assert (np.abs(found[0] - wanted) <= (ALPHA + 1e-9) * np.abs(wanted)).all()
    assert (np.diff(bucket_of(np.sort(array))) >= 0).all()


FAULTS = {
    "no size": ("    size: 30\n    every: 10\n    lateness: 15\n", "", "has neither", None),
    "both": ("    size: 30\n", "    size: 30\n    events: 5\n", "has both", None),
    "part": (
        "    every: 10\n",
        "    every: 20\n",
        "`size`, 30 s, is no whole number of steps of 20",
        "Write `every: 30`",
    ),
    "unlike": ("    every: 10\n", "    every: 7s\n", "no whole number of steps of 7", "Write `every: 6`"),
    "too many": (
        "    lateness: 15\n",
        "    lateness: 24h\n",
        "are 8643 steps, and at most 1500",
        "at least 57.62 s",
    ),
    "too short": ("    every: 10\n", "    every: 100ms\n", "`every` must be from 1 s", None),
    "events part": (
        "every_events: 2",
        "every_events: 4",
        "`events`, 6 events, is no whole number",
        "Write `every_events: 6`",
    ),
    "late events": (
        "    events: 3\n",
        "    events: 3\n    lateness: 3\n",
        "`lateness` goes with `size`",
        None,
    ),
    "every events": (
        "    size: 20\n",
        "    size: 20\n    every_events: 3\n",
        "`every_events` goes with `events`",
        None,
    ),
    "ttl": ("    size: 20\n", "    size: 20\n    ttl: 3\n", "`ttl` goes with `events`", None),
    "keys": ("    size: 20\n", "    size: 20\n    keys: 3\n", "`keys` goes with `distinct`", None),
    "no value": ("    size: 20\n", "    size: 20\n    show: [count, mean]\n", "`show` needs `value`", None),
    "no value at all": (
        "    size: 20\n",
        "    size: 20\n    quantiles: [0.5]\n",
        "`quantiles` needs `value`",
        None,
    ),
    "percent": ("[0, 0.5, 0.9, 1]", "[95]", "95 is no share from 0 to 1", "0.95"),
    "twice": ("[0, 0.5, 0.9, 1]", "[0.5, 0.5]", "`0.5` stands in `quantiles` twice", None),
    "text": ("    value: ms\n", "    value: who\n", "of type `string`, not a number", None),
    "distinct": (
        "    distinct: who\n    size",
        "    distinct: whoo\n    size",
        "is no field",
        "Did you mean `who`?",
    ),
    "distinct number": ("    distinct: who\n    size", "    distinct: ms\n    size", "not text", "string"),
    "name": ("  lane_slide_seconds:", "  lane_slide:", "must end in its base unit", "lane_slide_seconds"),
    "process": ("    on: [lane.run, lane.rest]\n", "    on: process\n", "sends no events", None),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_cannot_be_is_said_with_its_mend(case: str) -> None:
    """One change to a sound pack."""
    before, after, message, hint = FAULTS[case]
    assert before in LANE
    assert problems_of(LANE) == []
    problems = problems_of(LANE.replace(before, after, 1))
    matching = [one for one in problems if message in one]
    assert matching, problems
    assert hint is None or hint in matching[0], matching


def test_a_group_needs_keys_only_where_replicas_cannot_be_put_together() -> None:
    """Counts and sums add up; different values, quantiles and the last so many events do not."""
    needs = {name: spec.by_key for name, spec in PACK.metrics.items() if isinstance(spec, WindowSpec)}
    assert needs == {"lane_slide_seconds": True, "lane_tumble": False, "lane_last": True, "lane_block": True}
    config = Config(packs=["lane"], inputs={"k": object()})
    alone = PACK.model_copy(update={"metrics": {"lane_tumble": PACK.metrics["lane_tumble"]}})
    check_keys(config, [alone], KINDS)
    with pytest.raises(ConfigError, match=r"`lane_slide_seconds` of pack `lane` \(and 2 more\)"):
        check_keys(config, [PACK], KINDS)
