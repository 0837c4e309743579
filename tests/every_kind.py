"""Every kind of metric that remembers, side by side over one stream, and what oracles in plain Python say of it.

The oracles are those that the tests of each kind have, which share no code with what they test. Each is given the whole
stream of a partition: what belongs to other kinds only tells it how far time has come.
"""

from __future__ import annotations

import bisect
import itertools
import json
import math
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from prometheus_client.parser import text_string_to_metric_families

from evalgauge.core.instruments.sketch import ALPHA
from tests import test_active as active
from tests import test_consistency as consistency
from tests import test_deviation as deviation
from tests import test_elapsed as elapsed
from tests import test_emission as emission
from tests import test_pattern as pattern
from tests import test_progress as progress
from tests import test_window as window
from tests.engine_helpers import NOON

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Sequence

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

BEGAN = int(NOON) - 200
AHEAD = 10 * 365 * 86_400
"""Seconds after `BEGAN` at which only a clock that is wrong can be."""
ZONE = "Europe/Berlin"
MANY = 1 << 30
_EVERY = 1 << 16
_FORM = {"sequence": ["way.red", "way.red", "way.blue"], "among": 5}
_EPOCH = 40
"""Seconds after which there are houses that nobody has seen, so that milestones are reached all the time."""
_BUILD_OFFSET = BEGAN - int(progress.BEGAN)

_NOTES = f"""\
pack: note
version: 1
title: Notes
events:
  note.taken:
    description: A note was taken.
    fields:
      kind: {{type: string, required: true, enum: [x, y]}}
metrics:
  note_taken:
    type: counter
    help: Notes.
    on: note.taken
    labels: {{kind: kind}}
  note_activity:
    type: counter
    help: Notes by weekday and hour.
    on: note.taken
    labels:
      weekday: {{calendar: weekday, zone: {ZONE}}}
      hour: {{calendar: hour, zone: {ZONE}}}
"""
_REACHED = """\
  build.reached:
    description: A milestone was reached.
    internal: true
    fields:
      site: {type: string}
      house: {type: string}
      milestone: {type: string}
metrics:
  build_reached:
    type: counter
    help: Milestones.
    on: build.reached
    limit: 100000
    labels:
      site: site
      house: {field: house, limit: 100000}
      milestone: milestone
"""

GROWS = (
    "desk_answer_seconds",
    "desk_answer_limits",
    "desk_answer_expired",
    "desk_answer_unmatched",
    "desk_answer_evicted",
    "hall_present_evicted",
    "lane_odd",
    "path_matches_total",
    "path_matches_evicted",
    "way_found",
    "way_twice_total",
    "way_blue_total",
    "way_often_total",
    "build_reached",
    "build_progress_evicted",
    "build_progress_milestones_evicted",
    "tree_consistency",
    "track_slide_evicted",
    "note_",
    "evalgauge_events_late",
    "evalgauge_events_emitted",
    "evalgauge_values_unobserved",
)
"""How the names of counters and histograms of the packs begin: none of them may ever fall."""
_OWN = (
    "evalgauge_events_late_total",
    "evalgauge_values_unobserved_total",
    "evalgauge_events_emitted_total",
)
_SHOWN = ("desk_answer_", "hall_", "lane_", "path_", "way_", "build_", "tree_", "track_", "note_", *_OWN)
_NOT_TOLD = ("way_twice_last_", "way_blue_last_", "way_often_last_")
"""Times that the oracle of internal events does not say; that of patterns says them of `path_matches`."""
_METRICS = ("desk_answer_seconds", "hall_present", "lane_odd", "path_matches", "build_progress_ratio")
"""Those whose late events and unobserved values are compared, with `tree_` and `track_`."""


class Event(NamedTuple):
    """One event of one kind."""

    kind: str
    told: Any
    """As the oracle of its kind takes it."""
    at: int
    """Seconds after `BEGAN`."""
    key: str
    """What its record is keyed by."""

    def json(self, number: int) -> dict[str, Any]:
        """It as it is written; its subject is its key."""
        written: dict[str, Any]
        if self.kind == "note":
            when = datetime.fromtimestamp(BEGAN + self.at, UTC).isoformat()
            data = {"kind": self.told}
            written = {"id": str(number), "source": "/s", "type": "note.taken", "time": when, "data": data}
        elif self.kind == "tree":
            written = json.loads(consistency.line(number, self.told))
        elif self.kind == "way":
            written = json.loads(emission.line(self.told, number))
        else:
            written = json.loads(self.told.line(number))
        for old, new in (("path", "way"), ("track", "lane")):
            if self.kind == old:
                written["type"] = written["type"].replace(new, old)
        return {**written, "subject": self.key}


def packs(*, wide: bool) -> dict[str, str]:
    """Packs by name; `wide`: without limits of labels, which each replica would come to by itself."""
    text = progress.declared(emit="build.reached", limit=100_000 if wide else 100, milestone_keys=MANY)
    text = text.replace("metrics:\n", _REACHED, 1)
    halls = active.TEXT
    if wide:
        text = text.replace("limit: 2}", "limit: 100000}").replace("limit: 2,", "limit: 100000,")
        halls = halls.replace("limit: 2}", "limit: 100}")
    return {
        "desk": elapsed.PACK,
        "hall": halls,
        "lane": deviation.TEXT,
        "path": pattern.declared(_FORM).replace("way", "path"),
        "way": json.dumps(emission.PACK),
        "build": text,
        "tree": consistency.TEXT,
        "track": window.LANE.replace("lane", "track"),
        "note": _NOTES,
    }


def stream(rng: random.Random, keys: Sequence[str], each: int, *, wide: bool) -> Iterator[Event]:
    """Events without end, `each` a second: disorder, repeats, ends that never come, and clocks that are wrong."""
    kinds = [*packs(wide=wide)]
    recent: list[Event] = []
    for number in itertools.count():
        if recent and rng.random() < 0.03:
            yield rng.choice(recent)
            continue
        now = number // each
        at = AHEAD if rng.random() < 0.005 else now + rng.choice([0, 0, 0, 0, 0, -4, -12, -30, 9, -1000])
        # More of those that only several together say something.
        kind = rng.choice([*kinds, "build", "build", "tree", "tree", "tree"])
        event = Event(*_drawn(rng, kind, rng.choice(keys), now, at, "ab" if wide else "abc"))
        recent = [*recent[-20:], event]
        yield event


def _drawn(
    rng: random.Random, kind: str, key: str, now: int, at: int, doors: str
) -> tuple[str, Any, int, str]:
    told: Any
    if kind == "desk":
        what = rng.choice(["asked", "asked", "answered", "closed", "opened"])
        told = elapsed.Told(what, key, rng.choice("ab"), at)
    elif kind == "hall":
        what = rng.choice(["entered", "entered", "left", "lit"])
        told = active.Told(what, rng.choice(["h", "hh"]), key, rng.choice(doors), at)
    elif kind == "lane":
        told = deviation.Told(key, rng.choice("ab"), rng.choice([None, 0.1, 0.25, 0.5, 1, 7, 1e3, -4]), at)
    elif kind == "path":
        told = pattern.Told(rng.choice(pattern.TYPES), key, rng.choice("ab"), at)
    elif kind == "way":
        told = emission.Told(rng.choice(["red", "red", "blue"]), key, at + BEGAN - int(emission.BEGAN))
    elif kind == "build":
        told = _built(rng, f"{key}-{now // _EPOCH}", at)
    elif kind == "tree":
        told = _compared(rng, key, at)
    elif kind == "track":
        values = [0.0, 0.1, 0.25, 1.0, 7.0, 33.3, 1e3, -4.0, 5e6, None]
        who = rng.choice([key, key, None])
        told = window.Told(
            rng.random() < 0.1, rng.choice("aabc"), who, rng.choice(values), rng.choice(values), at
        )
    else:
        told = rng.choice("xy")
        at -= rng.randrange(7) * 86_400 if rng.random() < 0.5 else 0
    return kind, told, at, key


def _built(rng: random.Random, house: str, at: int) -> progress.Told:
    named = {name: rng.choice(values) for name, values in progress.CHOICES.items()}
    if named["done"] is not None and rng.random() < 0.5:
        named["done"] = rng.uniform(0, 100)
    what = "told" if named["what"] == "told" or rng.random() < 0.3 else named["what"]
    named |= {"what": what, "house": None if rng.random() < 0.03 else house, "time": at + _BUILD_OFFSET}
    return progress.Told(**named)


def _compared(rng: random.Random, node: str, at: int) -> consistency.Compared | consistency.Done:
    if rng.random() < 0.25:
        return consistency.Done(node, at, rng.choice("ab"), rng.choice([None] * 5 + [0, 0.05, 0.3, -0.1]))
    value = rng.choice([1, 2, 3, 5, 9, 1 / 3, 1 / 9, 7, 2, 0, None])
    return consistency.Compared(node, at, rng.choice([*"pqr" * 4, "s", None]), rng.choice("pqr"), value)


def expected(part: Sequence[Event], *, wide: bool) -> Samples:
    """What the events of one partition, in their order, come to; counters without zeros."""
    found: Samples = {}
    arrival = time.time()
    for add in (_desk, _hall, _lane, _path, _way, _tree, _track):
        add(found, part, arrival)
    _build(found, part, arrival, wide=wide)
    _notes(found, part)
    return settled(found)


def settled(samples: Samples) -> Samples:
    """Without zeros, which are not everywhere where nothing was counted; a window or progress of 0 is told."""
    return {
        key: value
        for key, value in samples.items()
        if value or (key[0].startswith(("build_progress", "track_")) and not key[0].endswith("_total"))
    }


def shown(text: str) -> Samples:
    """What a scrape says of all that `expected` tells."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            if not one.name.startswith(_SHOWN) or one.name.startswith(_NOT_TOLD):
                continue
            metric = one.labels.get("metric", "")
            if one.name in _OWN[:2] and not metric.startswith((*_METRICS, "tree_", "track_")):
                continue
            found[one.name, tuple(sorted(one.labels.items()))] = one.value
    return settled(found)


def together(several: Iterable[Samples], *, alone: Iterable[str] = ()) -> Samples:
    """Of several partitions or replicas; names that begin with `alone` belong to one of them each."""
    found: Samples = {}
    for samples in several:
        for key, value in samples.items():
            if key not in found:
                found[key] = value
            elif "_oldest_" in key[0]:
                found[key] = min(value, found[key])
            elif "_last_match_" in key[0]:
                found[key] = max(value, found[key])
            else:
                assert not key[0].startswith(tuple(alone)) or key[0].endswith("_total"), (
                    f"{key} is there twice"
                )
                found[key] += value
    return found


def wrong(found: Samples, wanted: Samples) -> list[str]:
    """What differs; fitted lines and sums of ratios are added up in another order, quantiles are near."""
    return [
        f"{name}{dict(labels)}: found {found.get((name, labels))}, expected {wanted.get((name, labels))}"
        for name, labels in sorted(found.keys() | wanted.keys())
        if not _equal(name, labels, found.get((name, labels)), wanted.get((name, labels)))
    ]


def _equal(name: str, labels: tuple[tuple[str, str], ...], one: float | None, other: float | None) -> bool:
    if one is None or other is None or one == other:
        return one == other
    if name.endswith(("_ratio_per_second", "_r_squared")):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    if "estimated" in name:
        # A slope of the least possible rise takes the line far: there the last digits of it decide.
        return abs(one - other) <= 1e-3 + 1e-9 * abs(other - progress.BEGAN)
    if name == "tree_consistency_ratio_sum":
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    if "quantile" in dict(labels):
        return math.isclose(one, other, rel_tol=ALPHA * 1.000001, abs_tol=1e-15)
    return False


def _put(found: Samples, name: str, value: float, **labels: str) -> None:
    found[name, tuple(sorted(labels.items()))] = value


def _late(found: Samples, metric: str, late: int, unobserved: int = 0) -> None:
    _put(found, _OWN[0], late, metric=metric)
    _put(found, _OWN[1], unobserved, metric=metric)


def _desk(found: Samples, part: Sequence[Event], arrival: float) -> None:
    oracle = elapsed.Oracle(arrival=arrival)
    for one in part:
        oracle.tell(one.told if one.kind == "desk" else elapsed.Told("opened", "", "", one.at))
    found |= oracle.samples()
    _late(found, "desk_answer_seconds", oracle.late)


def _hall(found: Samples, part: Sequence[Event], arrival: float) -> None:
    told = [one.told if one.kind == "hall" else active.Told("lit", "", "", "", one.at) for one in part]
    there, late, _ = active.expected(told, _EVERY, [arrival] * len(told))
    for door, count in there.items():
        _put(found, "hall_present", count, door=door)
    _put(found, "hall_lights_total", sum(one.kind == "hall" and one.told.what == "lit" for one in part))
    _late(found, "hall_present", late)


def _lane(found: Samples, part: Sequence[Event], arrival: float) -> None:
    told = [one.told if one.kind == "lane" else deviation.Told("", "", None, one.at) for one in part]
    judged, late, _ = deviation.expected(told, _EVERY, [arrival] * len(told))
    for (team, side), count in judged.items():
        if side == "judged":
            _put(found, "lane_odd_judged_total", count, team=team)
        else:
            _put(found, "lane_odd_total", count, team=team, side=side)
    own = [one for one in part if one.kind == "lane"]
    _late(found, "lane_odd", late, sum(one.told.ms is None for one in own))


def _path(found: Samples, part: Sequence[Event], arrival: float) -> None:
    told = [one.told if one.kind == "path" else pattern.Told("", "", "", one.at) for one in part]
    matches, last, late, _ = pattern.expected(_FORM, told, _EVERY, [arrival] * len(told))
    for team, count in matches.items():
        _put(found, "path_matches_total", count, team=team, severity="high")
        _put(
            found, "path_matches_last_match_timestamp_seconds", BEGAN + last[team], team=team, severity="high"
        )
    _late(found, "path_matches", late)


def _way(found: Samples, part: Sequence[Event], arrival: float) -> None:
    offset = BEGAN - int(emission.BEGAN)
    told = [one.told if one.kind == "way" else emission.Told("", "", one.at + offset) for one in part]
    hits, often = emission.expected(told, [arrival] * len(told))
    by_metric: Counter[str] = Counter()
    kinds = {"way_twice": ("high", "both"), "way_blue": ("info", "blue")}
    for (metric, who), count in hits.items():
        gravity, side = kinds[metric]
        by_metric[metric] += count
        _put(found, "way_found_total", count, metric=metric, who=who, gravity=gravity, side=side)
    for metric, count in by_metric.items():
        own = {"severity": "high"} if metric == "way_twice" else {}
        _put(found, f"{metric}_total", count, **own)
    for metric, count in often.items():
        _put(found, "way_often_total", count, metric=metric)
    _put(found, _OWN[2], hits.total(), type="way.found")


def _build(found: Samples, part: Sequence[Event], arrival: float, *, wide: bool) -> None:
    oracle = progress.Oracle(_EVERY, arrival=arrival)
    if wide:
        oracle.labels |= {"house": progress.Labels(MANY), "who": progress.Labels(MANY)}
    for one in part:
        lit = progress.Told("lit", "", "", "", "", None, None, None, one.at + _BUILD_OFFSET)
        oracle.take(one.told if one.kind == "build" else lit)
    for name, rows in oracle.shown().items():
        more = next((label for label in ("floor", "who", "milestone") if f"_{label}_" in name), "")
        for labels, value in rows.items():
            _put(found, name, value, **dict(zip(["house", more], labels, strict=False)))
    for (text, milestone, _), count in Counter(oracle.fired).items():
        size, _, rest = text.partition(":")
        site, house = rest[: int(size)], rest[int(size) :]
        _put(found, "build_reached_total", count, site=site, house=house, milestone=milestone)
    _put(found, _OWN[2], len(oracle.fired), type="build.reached")
    _put(found, "build_lights_total", sum(one.kind == "build" and one.told.what == "lit" for one in part))
    _late(found, "build_progress_ratio", oracle.late, oracle.unobserved)


def _tree(found: Samples, part: Sequence[Event], arrival: float) -> None:
    strange = [one for one in part if one.kind != "tree"]
    oracle = consistency.Oracle(_EVERY, 15)
    oracle.came = itertools.repeat(arrival)
    oracle.run(
        one.told if one.kind == "tree" else consistency.Compared("", one.at, None, "", None) for one in part
    )
    name, counts = "tree_consistency", oracle.counts
    _late(found, "tree_consistency_ratio", counts["late",], counts["unobserved",] - len(strange))
    for team in "ab":
        _put(found, f"{name}_repeated_total", counts[team, "repeated"], team=team)
        for source in ("given", "computed"):
            _put(found, f"{name}_observed_total", counts[team, source], team=team, source=source)
        for reason in ("missing", "large"):
            _put(found, f"{name}_incomplete_total", counts[team, reason], team=team, reason=reason)
        ratios = sorted(oracle.ratios[team])
        for bound in (*consistency.BOUNDS, math.inf):
            le = "+Inf" if bound == math.inf else str(bound)
            _put(found, f"{name}_ratio_bucket", bisect.bisect_right(ratios, bound), team=team, le=le)
        _put(found, f"{name}_ratio_count", len(ratios), team=team)
        _put(found, f"{name}_ratio_sum", math.fsum(ratios), team=team)


def _track(found: Samples, part: Sequence[Event], arrival: float) -> None:
    nobody = window.Told(rest=True, team="", who=None, ms=None, level=None, time=0)
    told = [one.told if one.kind == "track" else nobody._replace(time=one.at) for one in part]
    seen = window.Seen(told, _EVERY, [arrival] * len(told))
    exact, about = window.expected([seen])
    for (name, *labels), value in (exact | about).items():
        named = dict(zip(("team", "quantile"), labels, strict=False))
        evicted = "_total" if name.endswith("_evicted") else ""
        _put(found, name.replace("lane", "track") + evicted, value, **named)
    for metric, late in seen.late.items():
        _late(found, metric.replace("lane", "track"), late, seen.unobserved[metric])


def _notes(found: Samples, part: Sequence[Event]) -> None:
    kinds: Counter[str] = Counter()
    hours: defaultdict[tuple[str, str], int] = defaultdict(int)
    for one in part:
        if one.kind == "note":
            local = datetime.fromtimestamp(BEGAN + one.at, ZoneInfo(ZONE))
            kinds[one.told] += 1
            hours[local.strftime("%a").lower(), f"{local.hour:02}"] += 1
    for kind, count in kinds.items():
        _put(found, "note_taken_total", count, kind=kind)
    for (weekday, hour), count in hours.items():
        _put(found, "note_activity_total", count, weekday=weekday, hour=hour)
