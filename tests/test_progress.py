"""`progress` through the whole engine, against one event after the other in plain Python."""

from __future__ import annotations

import math
import random
import tempfile
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress

from evalgauge.core.clock import Clock
from evalgauge.core.columns import Columns
from evalgauge.core.decode import CloudEventsShape
from evalgauge.core.document import parse_document
from evalgauge.core.instrument import Declared
from evalgauge.core.instruments import keyed_part, progress
from evalgauge.core.instruments.grouping import LocalSlots, Slots
from evalgauge.core.instruments.progress import Progress
from evalgauge.core.instruments.progress_line import lines as lines_of
from evalgauge.core.instruments.progress_part import Found, Projects
from evalgauge.core.instruments.segments import carried, greatest_before, running_sum, segments
from evalgauge.core.pack.check import check_pack
from evalgauge.core.pack.loader import LoadedPack, examined_pack
from evalgauge.core.pack.summary import summary
from tests.arrivals import AHEAD, arrivals, feed
from tests.engine_helpers import NOON, Lab, lines, pack_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evalgauge.core.instruments.progress_milestones import Reached
    from evalgauge.core.pack.model import Pack


def declared(**changed: Any) -> str:
    """A pack with one metric of progress, as it is written."""
    terms = {"keys": 4, "points": 5, "milestone_keys": 2, "ttl": 50, "limit": 100} | changed
    said = "\n".join(f"    {name}: {value}" for name, value in terms.items())
    return f"""\
pack: build
version: 1
title: Build
events:
  build.told:
    description: A part has come so far.
    fields:
      site: {{type: string}}
      house: {{type: string}}
      part: {{type: string}}
      floor: {{type: string}}
      who: {{type: string}}
      done: {{type: number, unit: percent}}
      parts: {{type: number}}
  build.planned:
    description: So many parts there will be.
    fields:
      site: {{type: string}}
      house: {{type: string}}
      parts: {{type: integer}}
  build.lit:
    description: The light went on.
    fields: {{house: {{type: string}}}}
metrics:
  build_progress_ratio:
    type: progress
    help: How far it is.
    on: build.told
    value: done
    key: [site, house]
    pairs: [floor, part]
    labels: {{house: {{field: house, limit: 2}}}}
    by: {{floor: floor, who: {{field: who, limit: 2, default: nobody}}}}
    expected: {{build.planned: parts, build.told: parts}}
    milestones: [0.25, 0.5, 0.75, 1]
{said}
  build_lights:
    type: counter
    help: Lights.
    on: build.lit
"""


def pack(**changed: Any) -> Pack:
    """A pack with one metric of progress."""
    return pack_of(declared(**changed))


TEXT = declared()


TTL, KEYS, POINTS, MILESTONE_KEYS = 50, 4, 5, 2
MILESTONES = {"25": Fraction(1, 4), "50": Fraction(1, 2), "75": Fraction(3, 4), "100": Fraction(1)}
BEGAN = NOON - 10_000


Time = float | Fraction


class Told(NamedTuple):
    """One event."""

    what: str
    site: str
    house: str | None
    part: str
    floor: str
    who: str | None
    done: float | None
    parts: float | None
    time: Time
    """Seconds after `BEGAN`."""

    def line(self, number: int) -> bytes:
        """It as it comes."""
        data: dict[str, Any] = {"house": self.house}
        if self.what != "lit":
            data |= {"site": self.site, "parts": self.parts}
        if self.what == "planned" and self.parts is not None:
            data["parts"] = math.floor(self.parts)
        if self.what == "told":
            data |= {"part": self.part, "floor": self.floor, "who": self.who, "done": self.done}
        time = datetime.fromtimestamp(BEGAN + float(self.time), UTC).isoformat()
        one = {"id": str(number), "source": "/s", "type": f"build.{self.what}", "time": time, "data": data}
        return lines(one)[0] + b"\n"


def text(*parts: str) -> str:
    """How a key is written, by which those equally old are told apart."""
    return "".join(f"{len(part)}:{part}" for part in parts[:-1]) + parts[-1]


class Labels:
    """Label values in order of their coming; those beyond the limit are one."""

    def __init__(self, limit: int) -> None:
        self.limit, self.known = limit, list[str]()

    def of(self, value: str) -> str:
        """What is shown for a value."""
        if value not in self.known and len(self.known) < self.limit:
            self.known.append(value)
        return value if value in self.known else "_other"


class Pair:
    """One pair."""

    def __init__(self, value: Fraction, time: Time, labels: tuple[str, str, str]) -> None:
        self.value, self.newest, self.labels = value, time, labels


class House:
    """One key."""

    def __init__(self) -> None:
        self.newest: Time = -math.inf
        self.told_at: Time = -math.inf
        self.planned_at: Time = -math.inf
        self.label = ""
        self.planned = 0
        self.points: list[tuple[Time, Fraction]] = []
        self.since: Time = 0.0


class Oracle:
    """What a stream comes to, event after event."""

    def __init__(self, every: int, points: int = POINTS, arrival: float = NOON) -> None:
        """`arrival`: when those came that are taken next."""
        self.every, self.most, self.arrival = every, points, arrival
        self.clock: Time = -math.inf
        self.seen = self.late = self.unobserved = self.evicted = self.milestones_evicted = 0
        self.houses: dict[tuple[str, str], House] = {}
        self.pairs: dict[tuple[str, str, str, str], Pair] = {}
        self.reached: dict[tuple[str, str], dict[str, tuple[Time, str]]] = {}
        self.fired: list[tuple[str, str, int]] = []
        self.labels = {"house": Labels(2), "floor": Labels(1000), "who": Labels(2)}

    def forget(self, clock: Time) -> None:
        """What time has passed."""
        self.pairs = {name: pair for name, pair in self.pairs.items() if pair.newest + TTL > clock}
        self.houses = {name: house for name, house in self.houses.items() if house.newest + TTL > clock}

    def take(self, one: Told) -> None:
        """The next event."""
        # Milliseconds are no sums of halves: what lies on a limit must not depend on how a float is rounded.
        one = one._replace(time=Fraction(round(one.time * 1000), 1000))
        arrived = Fraction(self.arrival) - Fraction(BEGAN)
        before, ahead = self.clock, one.time > arrived + AHEAD
        self.clock = before if ahead else max(before, min(one.time, arrived))
        if one.what == "lit":
            return
        whole = one.parts is not None and one.parts >= 0 and (one.what == "planned" or one.parts % 1 == 0)
        planned = math.floor(one.parts) if whole and one.parts is not None else None
        if one.what == "told":
            if one.house is None or one.done is None or not 0 <= one.done <= 100:
                self.unobserved += 1
                return
            self.unobserved += one.parts is not None and planned is None
            label = self.labels["house"].of(one.house)
        elif one.house is None or planned is None:
            self.unobserved += 1
            return
        else:
            label = ""
        if ahead:
            self.late += 1
            return
        who = self.labels["who"].of(one.who or "nobody") if one.what == "told" else ""
        self.seen += 1
        if one.time + TTL <= before:
            self.late += 1
        else:
            self.forget(before)
            self.tell(one, planned, label, who)
        if self.seen % self.every == 0:
            self.bound()

    def tell(self, one: Told, planned: int | None, label: str, who: str) -> None:
        """An event that is in time."""
        assert one.house is not None
        name = (one.site, one.house)
        house = self.houses.setdefault(name, House())
        house.newest = max(house.newest, one.time)
        if one.what == "told":
            assert one.done is not None
            which = (*name, one.floor, one.part)
            pair = self.pairs.get(which)
            if pair is None or one.time >= pair.newest:
                value = Fraction(round(one.done * 10**7), 10**9)
                self.pairs[which] = Pair(value, one.time, (label, one.floor, who))
            if one.time >= house.told_at:
                house.told_at, house.label = one.time, label
        if planned is not None and one.time >= house.planned_at:
            house.planned_at, house.planned = one.time, planned
        mean = self.mean(name)
        if mean is None:
            return
        mean = Fraction(math.floor(mean * 10**9), 10**9)
        if mean == 1 and not (house.points and house.points[-1][1] == 1):
            house.since = house.newest
        if house.points and house.points[-1][0] == house.newest:
            house.points.pop()
        house.points = [*house.points, (house.newest, mean)][-self.most :]
        for milestone, ratio in MILESTONES.items():
            if mean >= ratio and milestone not in self.reached.get(name, {}):
                self.reached.setdefault(name, {})[milestone] = (house.newest, house.label)
                self.fired.append((text(*name), milestone, round((BEGAN + house.newest) * 1_000_000)))

    def of(self, name: tuple[str, str]) -> list[Pair]:
        """The pairs of a house."""
        return [pair for which, pair in self.pairs.items() if which[:2] == name]

    def mean(self, name: tuple[str, str]) -> Fraction | None:
        """How far it is; None without pairs."""
        mine = self.of(name)
        together = sum((pair.value for pair in mine), Fraction())
        return together / max(len(mine), self.houses[name].planned) if mine else None

    def bound(self) -> None:
        """Not too many."""
        if len(self.pairs) > KEYS or len(self.houses) > KEYS:
            self.forget(self.clock_after())
            oldest = sorted(self.pairs, key=lambda which: (self.pairs[which].newest, text(*which)))
            for which in oldest[: max(0, len(self.pairs) - KEYS)]:
                del self.pairs[which]
                self.evicted += 1
            by_age = sorted(self.houses, key=lambda name: (self.houses[name].newest, text(*name)))
            for name in by_age[: max(0, len(self.houses) - KEYS)]:
                del self.houses[name]
                gone = [which for which in self.pairs if which[:2] == name]
                for which in gone:
                    del self.pairs[which]
                self.evicted += 1 + len(gone)
        last = {name: max(time for time, _ in found.values()) for name, found in self.reached.items()}
        for name in sorted(last, key=lambda name: (last[name], text(*name)))[
            : max(0, len(last) - MILESTONE_KEYS)
        ]:
            del self.reached[name]
            self.milestones_evicted += 1

    def clock_after(self) -> Time:
        """How far time is now."""
        return self.clock

    def shown(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Rows by family."""
        self.forget(self.clock)
        found: dict[str, dict[tuple[str, ...], float]] = {
            f"build_progress{suffix}": {}
            for suffix in (
                "_ratio",
                "_by_floor_ratio",
                "_by_who_ratio",
                "_pairs",
                "_pairs_expected",
                "_pairs_done",
                "_estimated_completion_timestamp_seconds",
                "_ratio_per_second",
                "_r_squared",
                "_milestone_timestamp_seconds",
            )
        }
        shared: dict[str, list[tuple[str, str]]] = {}
        for name, house in self.houses.items():
            if self.of(name):
                shared.setdefault(house.label, []).append(name)
        for label, names in shared.items():
            mine = [pair for name in names for pair in self.of(name)]
            done = sum((pair.value for pair in mine), Fraction())
            expected = sum(max(len(self.of(name)), self.houses[name].planned) for name in names)
            row = {"_ratio": done / expected, "_pairs": len(mine), "_pairs_expected": expected}
            for suffix, value in (row | {"_pairs_done": done}).items():
                found[f"build_progress{suffix}"][label,] = float(value)
            if len(names) == 1:
                for suffix, number in estimate(self.houses[names[0]]).items():
                    found[f"build_progress{suffix}"][label,] = number
        self.show_parts(found)
        return found

    def show_parts(self, found: dict[str, dict[tuple[str, ...], float]]) -> None:
        """Rows by further labels, and of milestones."""
        for suffix, place in (("_by_floor_ratio", 1), ("_by_who_ratio", 2)):
            parts: dict[tuple[str, ...], list[Fraction]] = {}
            for pair in self.pairs.values():
                parts.setdefault((pair.labels[0], pair.labels[place]), []).append(pair.value)
            found[f"build_progress{suffix}"] = {
                labels: float(sum(values, Fraction()) / len(values)) for labels, values in parts.items()
            }
        when = found["build_progress_milestone_timestamp_seconds"]
        for milestones in self.reached.values():
            for milestone, (time, label) in milestones.items():
                when[label, milestone] = max(BEGAN + time, when.get((label, milestone), 0))


def estimate(house: House) -> dict[str, float]:
    """What the line through the points of a house says."""
    found: dict[str, float] = {}
    times, means = ([float(one) for one in column] for column in zip(*house.points, strict=True))
    if len(times) > 1:
        line = linregress(times, means)
        found["_ratio_per_second"] = float(line.slope)
        if len({*means}) > 1:
            found["_r_squared"] = float(line.rvalue**2)
            if line.slope > 0:
                arrives = BEGAN + (1 - line.intercept) / line.slope
                found["_estimated_completion_timestamp_seconds"] = float(arrives)
    if means[-1] == 1:
        found["_estimated_completion_timestamp_seconds"] = BEGAN + house.since
    return found


def rows(bench: Lab) -> dict[str, dict[tuple[str, ...], float]]:
    """Gauges as shown, to the last digit."""
    return {
        family.name: dict(zip(family.series, family.values.tolist(), strict=True))
        for family in bench.families()
        if family.kind == "gauge"
    }


def near(
    found: dict[str, dict[tuple[str, ...], float]], wanted: dict[str, dict[tuple[str, ...], float]]
) -> None:
    """Equal, fitted lines but for rounding: scipy adds in another order."""
    assert found.keys() == wanted.keys()
    for name, series in wanted.items():
        assert found[name].keys() == series.keys(), name
        for labels, value in series.items():
            fitted = name.endswith(("_ratio_per_second", "_r_squared"))
            if fitted:
                assert found[name][labels] == pytest.approx(value, rel=1e-9, abs=1e-12), (name, labels)
            elif "estimated" in name:
                # A slope of the least possible rise takes the line far: there the last digits of it decide.
                room = 1e-3 + 1e-9 * abs(value - BEGAN)
                assert found[name][labels] == pytest.approx(value, rel=0, abs=room), (name, labels)
            else:
                assert found[name][labels] == value, (name, labels)


CHOICES: dict[str, list[Any]] = {
    "what": ["told"] * 6 + ["planned", "lit"],
    "site": ["s", "s", "ss"],
    "house": ["h"] * 8 + ["s", "s", "k", None],
    "part": ["p", "q"],
    "floor": ["1", "2"],
    "who": ["a", "b", "c", None],
    "done": [0, 10, 25, 33.3, 50, 75, 99.99999999, 100, 100, 100, 101, -1, None],
    "parts": [None, None, None, None, 0, 1, 2, 3, 2.5, -1],
    "time": [0, 0, 0, 0, 0, 0, -1.5, -3, -20, -45, -55, -86_400, 86_400 * 365],
}
STEPS: list[float] = [0, 0, 0.001, 1, 1, 2.5, 2.5, 10, 10, 25, 49, 50, 60]


def timed(told: list[tuple[Told, float]]) -> list[Told]:
    """Events whose times go on by steps, with some that are behind, and some whose clock is wrong."""
    found, now = [], 0.0
    for one, step in told:
        now += step
        found.append(one._replace(time=round(now + one.time, 3)))
    return found


EVENTS = st.builds(Told, **{name: st.sampled_from(values) for name, values in CHOICES.items()})
SHORT = st.lists(st.tuples(EVENTS, st.sampled_from(STEPS)), max_size=30).map(timed)


def drawn(seed: int, count: int) -> list[Told]:
    """A long stream; how fast time goes on changes on the way."""
    dice = random.Random(seed)  # noqa: S311 - nothing secret
    found, steps = [], STEPS
    for number in range(count):
        if number % 50 == 0:
            steps = dice.choice([STEPS, STEPS[:9], STEPS[:7], [0.001]])
        one = Told(**{name: dice.choice(values) for name, values in CHOICES.items()})
        if one.done is not None and dice.random() < 0.3:
            one = one._replace(done=dice.uniform(0, 100))
        found.append((one, dice.choice(steps)))
    return timed(found)


LONG_STREAM = st.builds(drawn, st.integers(0, 1 << 32), st.sampled_from([150, 300]))


class Watched(Projects):
    """A part that notes the milestones it finds."""

    noted: ClassVar[list[Reached]] = []

    def take(self, *events: Any) -> Found:
        """Take events in."""
        found = super().take(*events)
        self.noted.extend(found.reached)
        return found


def run(
    folder: Path,
    stream: list[bytes],
    cuts: list[int],
    restarts: set[int],
    pack: Pack,
    came: Sequence[float] = (),
) -> tuple[Lab, Any]:
    """A lab that was given a stream in pieces, some of them twice: lost with a crash, and read again after it."""
    bench, fired = Lab(folder, packs=[pack]), []
    came = came or [NOON] * len(stream)
    for number, (first, last) in enumerate(zip([0, *cuts], [*cuts, len(stream)], strict=True)):
        if number in restarts:
            feed(bench, stream[first:last], came[first:last])
            bench.store.close()
            bench = Lab(folder, packs=[pack])
        Watched.noted.clear()
        feed(bench, stream[first:last], came[first:last])
        bench.engine.commit()
        fired += [(one.key, f"{100 * one.milestone:g}", one.time) for one in Watched.noted]
    return bench, fired


PACKS = {points: pack(points=points) for points in (2, 5, 19)}


@st.composite
def arrived(draw: st.DrawFn, stream: list[Told]) -> list[float]:
    """Long after all of them, or as they happened, so that some were ahead."""
    came = draw(arrivals(len(stream)))
    behind = draw(st.sampled_from([None, 0, 100, -200]))
    if behind is None:
        return came
    now, found = 0.0, []
    for one, arrival in zip(stream, came, strict=True):
        now = max(now, float(one.time) if one.time < 86_400 else 0.0)
        found.append(BEGAN + now // 25 * 25 + behind + arrival - NOON)
    return found


def compare(stream: list[Told], data: st.DataObject, everies: list[int]) -> None:
    """A stream in two ways of cutting it, against the oracle and each other."""
    every = data.draw(st.sampled_from(everies))
    points = data.draw(st.sampled_from([*PACKS]))
    cuts = [sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4))) for _ in range(2)]
    restarts = data.draw(st.sets(st.integers(0, 5)))
    told = [one.line(number) for number, one in enumerate(stream)]
    came = data.draw(arrived(stream))
    oracle = Oracle(every, points)
    for one, oracle.arrival in zip(stream, came, strict=True):
        oracle.take(one)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keyed_part, "BOUND_EVERY", every)
        patch.setattr(progress, "Projects", Watched)
        for some, again in zip(cuts, (restarts, set[int]()), strict=True):
            with tempfile.TemporaryDirectory() as name:
                bench, fired = run(Path(name), told, some, again, PACKS[points], came)
                assert fired == oracle.fired
                found.append(rows(bench))
                near(found[-1], oracle.shown())
                counts = (
                    bench.value("build_progress_evicted"),
                    bench.value("build_progress_milestones_evicted"),
                    bench.value("evalgauge_events_late", "build_progress_ratio"),
                    bench.value("evalgauge_values_unobserved", "build_progress_ratio"),
                )
                wanted = (oracle.evicted, oracle.milestones_evicted, oracle.late, oracle.unobserved)
                assert counts == tuple(map(float, wanted))
                bench.store.close()
    assert found[0] == found[1]


@settings(max_examples=40, deadline=None)
@given(SHORT, st.data())
def test_progress_is_what_the_events_say_wherever_the_stream_is_cut(
    stream: list[Told], data: st.DataObject
) -> None:
    """With repeats, wrong clocks, absent values, pairs that lapse, crashes, and too many pairs, keys and milestones."""
    compare(stream, data, [1, 3, 8, 1 << 16])


@settings(max_examples=40, deadline=None)
@given(LONG_STREAM, st.data())
def test_so_it_is_where_many_events_are_taken_in_together(stream: list[Told], data: st.DataObject) -> None:
    """Among which keys are forgotten and begun anew, or are evicted in between."""
    compare(stream, data, [20, 70, 1 << 16, 1 << 16])


def told(done: float, time: float, **changed: Any) -> Told:
    """An event of one pair."""
    one = Told("told", "s", "h", "p", "1", "a", done, None, time)
    return one._replace(**changed)


LONG = pack(points=100, ttl=3600, keys=1000)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 30)), min_size=2, max_size=300), st.data())
def test_the_line_is_drawn_through_the_last_hundred_points(
    steps: list[tuple[float, float]], data: st.DataObject
) -> None:
    """Of a key that has had many more than are written together, wherever the stream is cut."""
    now, stream = 0.0, []
    for done, step in steps:
        now = round(now + step, 3)
        stream.append(told(done, now))
    points: dict[float, float] = {
        float(one.time): math.floor(round((one.done or 0) * 1e7)) / 1e9 for one in stream
    }
    times, means = list(points)[-100:], list(points.values())[-100:]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    with tempfile.TemporaryDirectory() as name:
        bench, _ = run(Path(name), [one.line(n) for n, one in enumerate(stream)], cuts, {1}, LONG)
        rate = rows(bench)["build_progress_ratio_per_second"]
        fit = rows(bench)["build_progress_r_squared"]
        if len(times) < 2:
            assert (rate, fit) == ({}, {})
        else:
            line = linregress(times, means)
            assert rate["h",] == pytest.approx(float(line.slope), rel=1e-7, abs=1e-12)
            if fit:
                assert fit["h",] == pytest.approx(float(line.rvalue**2), rel=1e-6, abs=1e-9)
        bench.store.close()


def test_a_milestone_is_reached_once_though_progress_falls_and_the_key_lapses(tmp_path: Path) -> None:
    """It stays where its key, and all that is shown of it, is long gone."""
    when = ("build_progress_milestone_timestamp_seconds", "h", "50")
    with Lab(tmp_path, packs=[PACKS[5]]) as bench:
        for number, (done, time) in enumerate([(60, 10), (20, 20), (70, 30)]):
            bench.feed(told(done, time).line(number))
        bench.engine.commit()
        assert bench.value(*when) == BEGAN + 10
        bench.feed(Told("lit", "s", "z", "p", "1", None, None, None, 500).line(4))
        bench.engine.commit()
        assert rows(bench)["build_progress_ratio"] == {}
        assert bench.value(*when) == BEGAN + 10
    with Lab(tmp_path, packs=[PACKS[5]]) as bench:
        bench.feed(told(80, 510).line(5))
        bench.engine.commit()
        assert rows(bench)["build_progress_ratio"] == {("h",): 0.8}
        assert bench.value(*when) == BEGAN + 10
        assert bench.value(when[0], "h", "75") == BEGAN + 510


def test_what_is_complete_is_so_since_the_first_point_that_was(tmp_path: Path) -> None:
    """Also where it is told again, in another commit; and anew once it has fallen."""
    name = "build_progress_estimated_completion_timestamp_seconds"
    with Lab(tmp_path, packs=[PACKS[5]]) as bench:
        for number, (done, time, since) in enumerate(
            [(100, 10, 10), (100, 20, 10), (100, 30, 10), (50, 40, None), (100, 45, 45), (100, 45, 45)]
        ):
            bench.feed(told(done, time).line(number))
            bench.engine.commit()
            shown = rows(bench)[name]
            assert shown == ({} if since is None else {("h",): BEGAN + since}), number


def test_what_milestones_there_were_outlives_other_points_and_labels(tmp_path: Path) -> None:
    """A line through more points is another line; what was reached was reached."""
    with Lab(tmp_path, packs=[PACKS[5]]) as bench:
        bench.feed(told(60, 10).line(1))
        bench.engine.commit()
    with Lab(tmp_path, packs=[PACKS[19]]) as bench:
        assert bench.value("build_progress_milestone_timestamp_seconds", "h", "50") == BEGAN + 10
        bench.feed(told(100, 20).line(2))
        bench.engine.commit()
        assert bench.value("build_progress_milestone_timestamp_seconds", "h", "50") == BEGAN + 10
        assert bench.value("build_progress_milestone_timestamp_seconds", "h", "100") == BEGAN + 20


def test_several_milestones_of_one_event_come_in_their_order(tmp_path: Path) -> None:
    """With the place in the stream of the event that reached them, for those who want to know."""
    with pytest.MonkeyPatch.context() as patch, Lab(tmp_path, packs=[PACKS[5]]) as _:
        patch.setattr(progress, "Projects", Watched)
        bench, fired = run(
            tmp_path / "lab",
            [told(10, 1, house="k").line(1), told(80, 2).line(2), told(30, 3, house="k").line(3)],
            [],
            set(),
            PACKS[5],
        )
        assert [(key, milestone) for key, milestone, _ in fired] == [
            ("1:sh", "25"),
            ("1:sh", "50"),
            ("1:sh", "75"),
            ("1:sk", "25"),
        ]
        rows = [one.row for one in Watched.noted]
        assert rows == sorted(rows)
        assert len({*rows}) == 2
        bench.store.close()


def test_where_parts_hold_keys_of_one_series_they_are_shown_together() -> None:
    """Sums add up, the line of neither is shown; what only one of them has stays."""
    spec = PACKS[5].metrics["build_progress_ratio"]
    types = {type_: PACKS[5].events[type_] for type_ in spec.on}
    what = Declared("build", "build_progress_ratio", spec, types)
    instrument = Progress(what)
    shape = CloudEventsShape(dict(PACKS[5].events))
    parts = []
    for site, done in (("s", (0, 40)), ("t", (0, 100))):
        part = instrument.part(Clock())
        reducing = instrument.reducing(what)
        own = told(50, 3, site=site, house=site)
        body = b"".join(
            [*(told(value, n, site=site).line(n) for n, value in enumerate(done)), own.line(3), own.line(4)]
        )
        events = shape.events(body, 4) or []
        for reader, some, numbers in shape.group(events, np.arange(4), []):
            reducing.reduce(Columns(reader, some, numbers, {}, NOON))
        delta = reducing.take()
        assert delta is not None
        slots = Slots(LocalSlots(None), part.index(), [])
        slots.announce(delta.groups)
        instrument.merge(delta, slots, part)
        for table in part.tables:
            list(table.pages(0.0, 0.0))
            table.publish()
        parts.append(part)
    found = {
        family.name.removeprefix("build_progress"): dict(
            zip(family.series, family.values.tolist(), strict=True)
        )
        for family in instrument.families(0, parts)
        if family.kind == "gauge"
    }
    assert found["_ratio"] == {("h",): 0.7, ("s",): 0.5, ("t",): 0.5}
    assert found["_pairs"] == {("h",): 2, ("s",): 1, ("t",): 1}
    assert found["_ratio_per_second"] == {}
    assert found["_by_floor_ratio"]["h", "1"] == 0.7
    assert found["_milestone_timestamp_seconds"]["h", "25"] == BEGAN + 1
    alone = dict(zip(*_of(instrument, parts[:1], "_ratio_per_second"), strict=True))
    assert alone == {("h",): pytest.approx(0.4)}


def _of(
    instrument: Progress, parts: list[Projects], suffix: str
) -> tuple[list[tuple[str, ...]], list[float]]:
    family = next(one for one in instrument.families(0, parts) if one.name.endswith(suffix))
    return list(family.series), family.values.tolist()


@pytest.mark.parametrize("tenants", [1, 2])
def test_tenants_have_keys_of_their_own(tmp_path: Path, tenants: int) -> None:
    """One project of two tenants is two."""
    owned_types = {type_: one.model_copy(update={"tenant": "site"}) for type_, one in PACKS[5].events.items()}
    spec = PACKS[5].metrics["build_progress_ratio"].model_copy(update={"key": ["house"]})
    owned = PACKS[5].model_copy(update={"events": owned_types, "metrics": {"build_progress_ratio": spec}})
    with Lab(tmp_path, packs=[owned]) as bench:
        for number in range(tenants):
            bench.feed(told(50, number, site=f"t{number}").line(number))
        bench.engine.commit()
        assert bench.value("build_progress_pairs", "h") == tenants


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(-9, 9) | st.sampled_from([-(2**60), 2**60])), max_size=40
    ),
    st.lists(st.integers(-5, 5), min_size=4, max_size=4),
)
def test_runs_side_by_side_are_each_by_itself(told: list[tuple[int, int]], initial: list[int]) -> None:
    """The greatest before, the newest, running sums, and what came last."""
    told = sorted(told, key=lambda one: one[0])
    ids, values = (np.array([one[place] for one in told], np.int64) for place in (0, 1))
    runs, given_ = segments(ids), np.array([initial[one] for one, _ in told], np.int64)
    marked = np.flatnonzero(values > 0)
    found = [
        greatest_before(values, runs, given_).tolist(),
        running_sum(values % 100, runs, given_).tolist(),
        carried(values, marked, runs, given_).tolist(),
    ]
    wanted: list[list[int]] = [[], [], []]
    state = {one: [first, first, first] for one, first in enumerate(initial)}
    for one, value in told:
        best, total, last = state[one]
        total, last = total + value % 100, value if value > 0 else last
        wanted[0].append(best)
        wanted[1].append(total)
        wanted[2].append(last)
        state[one] = [max(best, value), total, last]
    assert found == wanted


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=30), st.integers(1, 10**16))
def test_lines_of_keys_do_not_depend_on_which_are_fitted_with_them(progress: list[int], step: int) -> None:
    """To the last digit, also over thousands of years."""
    times = np.arange(len(progress), dtype=np.int64) * step - 10**12
    wide = np.zeros((3, len(progress) + 50), np.int64)
    high = wide.copy()
    wide[1, : len(times)], high[1, : len(times)] = times, progress
    wide[2], high[2] = np.arange(wide.shape[1]) * 7, np.arange(wide.shape[1]) % 5
    together = lines_of(wide, high, np.array([0, len(times), wide.shape[1]]))
    alone = lines_of(times[np.newaxis], np.array([progress]), np.array([len(times)]))
    for one, other in zip(together, alone, strict=True):
        assert one[1:2].tobytes() == other.tobytes()
        assert np.isnan(one[0])
    line = linregress((times - times[0]) / 1e6, np.array(progress) / 1e9)
    assert alone.rate[0] == pytest.approx(line.slope, rel=1e-7, abs=1e-9 / (step / 1e6) * 1e-6)


FAULTS = {
    "value: missing": ("value: done", "value: gone", "value `gone` is no field of `build.told`"),
    "value: no progress": ("unit: percent", "unit: ms", "is no progress in `ms`"),
    "value: no unit": ("number, unit: percent", "number", "nothing says how `done` is measured"),
    "pair: no field": ("pairs: [floor, part]", "pairs: [floor, par]", "pair field `par` is no field"),
    "pair: no text": ("pairs: [floor, part]", "pairs: [floor, done]", "is of type `number`, not text"),
    "pair: a key": ("pairs: [floor, part]", "pairs: [floor, house]", "`house` stands in `key` already"),
    "key: of each type": (
        "key: [site, house]",
        "key: [site, part]",
        "key `part` is no field of `build.planned`",
    ),
    "expected: no type": ("{build.planned:", "{build.planed:", "no event type `build.planed`"),
    "expected: no field": (
        "{build.planned: parts",
        "{build.planned: part",
        "`part` is no field of `build.planned`",
    ),
    "expected: text": ("build.told: parts}", "build.told: part}", "not a number of pairs"),
    "milestones: order": ("[0.25, 0.5,", "[0.5, 0.25,", "milestone 0.25 does not come after 0.5"),
    "milestones: percent": ("0.75, 1]", "0.75, 100]", "milestone 100 lies beyond 1"),
    "by: no field": ("by: {floor: floor", "by: {floor: flor", "label `floor` names no field"),
    "by: a constant": (
        "by: {floor: floor",
        "by: {floor: {constant: x}",
        "further label `floor` needs a `field`",
    ),
    "by: a label": ("by: {floor: floor", "by: {house: house", "`house` is a label of it already"),
    "by: added": (
        "by: {floor: floor",
        "by: {milestone: floor",
        "label `milestone` is one that `progress` adds",
    ),
    "name: no ratio": ("build_progress_ratio", "build_progress", "must end in its base unit `_ratio`"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_declaration_is_named(fault: str) -> None:
    """Each fault alone, where it stands."""
    right, wrong, message = FAULTS[fault]
    assert TEXT.count(right) == 1
    document = parse_document(TEXT.replace(right, wrong), "pack.yaml")
    examined = examined_pack(document)
    assert examined.model is not None
    problems = [*examined.problems, *check_pack(document, examined.model, (), examined.broken)]
    assert any(message in str(problem) for problem in problems), "\n".join(map(str, problems))


def test_a_summary_counts_the_series_of_each_family() -> None:
    """By the labels that it has."""
    found = summary(LoadedPack(PACKS[5], parse_document(TEXT, "pack.yaml"), "pack.yaml"))["metrics"][0]
    most = {one["name"].removeprefix("build_progress"): one["at_most"] for one in found["series"]}
    assert most["_ratio"] == most["_pairs"] == 3  # two houses and `_other`
    assert most["_by_who_ratio"] == 9
    assert most["_by_floor_ratio"] == 101  # the metric's limit, and `_other` in both
    assert most["_milestone_timestamp_seconds"] == 12
    assert most["_evicted_total"] == 1
