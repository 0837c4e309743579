"""Internal events: what some metrics find and others count, against one look after the other."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.errors import DocumentError
from evalgauge.core.event import Reason
from evalgauge.core.pack.loader import load_pack
from tests.arrivals import AHEAD, after, courses
from tests.engine_helpers import NOON, Lab, event, lines, pack_of

if TYPE_CHECKING:
    from collections.abc import Sequence

BEGAN = NOON - 500
TTL = 60
FIELDS = {"who": {"type": "string", "required": True}, "team": {"type": "string"}, "cost": {"type": "number"}}
PACK: dict[str, Any] = {
    "pack": "way",
    "version": 1,
    "title": "Way",
    "events": {
        "way.red": {"description": "Red.", "tenant": "team", "fields": FIELDS},
        "way.blue": {"description": "Blue.", "tenant": "team", "fields": FIELDS},
        "way.found": {
            "description": "Something was found.",
            "internal": True,
            "fields": {
                "metric": {"type": "string", "enum": ["way_twice", "way_blue"]},
                "who": {"type": "string", "required": True},
                "side": {"type": "string"},
                "severity": {"type": "string", "enum": ["critical", "high", "warning", "medium", "info"]},
            },
        },
    },
    "metrics": {
        "way_found": {
            "type": "counter",
            "help": "Found.",
            "on": "way.found",
            "labels": {"metric": "metric", "who": "who", "gravity": "severity", "side": "side"},
        },
        "way_twice": {
            "type": "pattern",
            "help": "Two within 10 s.",
            "on": ["way.red", "way.blue"],
            "key": "who",
            "count": 2,
            "within": 10,
            "ttl": TTL,
            "severity": "high",
            "emit": {"event": "way.found", "set": {"side": "both"}},
        },
        "way_blue": {
            "type": "pattern",
            "help": "Blue ones.",
            "on": "way.blue",
            "key": "who",
            "ttl": TTL,
            "emit": {"event": "way.found", "set": {"side": "blue", "severity": "info"}},
        },
        "way_often": {
            "type": "pattern",
            "help": "Two findings within 30 s, by the metric of the second.",
            "on": "way.found",
            "key": "who",
            "count": 2,
            "within": 30,
            "ttl": TTL,
            "labels": {"metric": "metric"},
        },
    },
}


class Told(NamedTuple):
    """One event."""

    type: str
    who: str
    time: int
    """Seconds after `BEGAN`."""


def line(one: Told, number: int) -> bytes:
    """It as it comes."""
    time = datetime.fromtimestamp(BEGAN + one.time, UTC).isoformat()
    told = {"id": str(number), "source": "/s", "type": f"way.{one.type}", "time": time}
    return lines(told | {"data": {"who": one.who, "team": "t"}})[0] + b"\n"


class Twice:
    """Two events of a key within a time; a match uses them up."""

    def __init__(self, within: int) -> None:
        self.within = within
        self.kept: dict[str, tuple[int, list[int]]] = {}

    def tell(self, who: str, time: int, before: float) -> bool:
        """Whether this one completes it."""
        if time + TTL <= before:
            return False
        newest, times = self.kept.get(who, (time, []))
        if newest + TTL <= before:
            newest, times = time, []
        times = sorted([*times, time])[-2:]
        found = len(times) == 2 and times[1] - times[0] <= self.within
        self.kept[who] = max(newest, time), [] if found else times
        return found


def expected(stream: list[Told], came: Sequence[float] = ()) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """Findings by metric and key; findings that came often, by the metric of the second.

    `came` are the arrivals, noon where they are not given.
    """
    twice, often, clock = Twice(10), Twice(30), -math.inf
    found: Counter[tuple[str, str]] = Counter()
    many: Counter[str] = Counter()
    for one, arrival in zip(stream, itertools.chain(came, itertools.repeat(NOON)), strict=False):
        before, ahead = clock, BEGAN + one.time > arrival + AHEAD
        clock = before if ahead else max(before, min(one.time, arrival - BEGAN))
        if ahead or one.type not in ("red", "blue"):
            continue
        hits = ["way_twice"] if twice.tell(one.who, one.time, before) else []
        hits += ["way_blue"] if one.type == "blue" and one.time + TTL > before else []
        for metric in hits:
            found[metric, one.who] += 1
            many[metric] += often.tell(one.who, one.time, before)
    return found, +many


EVENTS = st.builds(
    Told,
    st.sampled_from(["red", "red", "blue"]),
    st.sampled_from("xyz"),
    st.integers(0, 30).map(lambda fives: 5 * fives)
    | st.integers(98, 130).map(lambda fives: 5 * fives)
    | st.sampled_from([-86_400, 795, 800, 805, 86_400 * 365]),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(EVENTS, max_size=40), st.data())
def test_what_is_found_is_counted_in_the_order_of_the_stream_wherever_it_is_cut(
    stream: list[Told], data: st.DataObject
) -> None:
    """Through restarts too; a pattern of what was found goes by the time of the events that it was found at."""
    course = data.draw(courses(len(stream)))
    told = [line(one, number) for number, one in enumerate(stream)]
    way = pack_of(json.dumps(PACK))
    with tempfile.TemporaryDirectory() as name:
        bench = after(Path(name), way, told, course)
        families = {one.name: one for one in bench.families()}
        found: Counter[tuple[str, str]] = Counter()
        severities = defaultdict(set)
        for (metric, who, severity, side), value in zip(
            families["way_found"].series, families["way_found"].values.tolist(), strict=True
        ):
            found[metric, who] += value
            severities[metric].add((severity, side))
        often = families["way_often"]
        many = Counter(
            {one[0]: value for one, value in zip(often.series, often.values.tolist(), strict=True)}
        )
        assert (+found, +many) == expected(stream, course.came)
        assert bench.value("evalgauge_events_emitted", "way.found") == found.total()
        assert (
            severities.items()
            <= {
                "way_twice": {("high", "both")},
                "way_blue": {("info", "blue")},
            }.items()
        )
        bench.store.close()


def test_nobody_outside_can_send_an_internal_event(tmp_path: Path) -> None:
    """It is of a type that is not known there."""
    with Lab(tmp_path, packs=[pack_of(json.dumps(PACK))]) as bench:
        verdict = bench.put(event(1, "way.found", who="x"))
        assert [one.reason for one in verdict.exceptions] == [Reason.UNKNOWN_TYPE]
        assert bench.value("way_found", "way_twice", "x", "high", "both") == 0


FAULTS = [
    (("events", "way.found", "internal"), False, "comes from outside"),
    (("events", "way.found", "fields", "who", "max_length"), 5, "`max_length` decides nothing"),
    (
        ("events", "way.found", "fields", "more"),
        {"type": "string"},
        "`more` of `way.found` is filled by nothing",
    ),
    (
        ("events", "way.found", "fields", "who", "type"),
        "number",
        "of type `number`, and filled with a string",
    ),
    (("events", "way.found", "fields", "who", "enum"), ["x"], "has an enum, and is filled with any text"),
    (("events", "way.found", "fields", "metric", "enum"), ["way_twice"], "is filled with `way_blue`"),
    (("metrics", "way_twice", "severity"), None, "`severity` of `way.found` is filled by nothing"),
    (("metrics", "way_twice", "emit"), "way.fund", "which is declared nowhere"),
    (("metrics", "way_twice", "emit", "set"), {"sid": "x"}, "`sid` is no field of `way.found`"),
    (("metrics", "way_often", "emit"), "way.found", "makes no further ones"),
    (("metrics", "way_found", "on"), ["way.found", "way.red"], "other events of `on` are not"),
]


@pytest.mark.parametrize(("path", "value", "message"), FAULTS, ids=[message for *_, message in FAULTS])
def test_faults_are_told(tmp_path: Path, path: tuple[str, ...], value: object, message: str) -> None:
    """Each with what is wrong."""
    wrong = json.loads(json.dumps(PACK))
    place = wrong
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file = tmp_path / "way.yaml"
    file.write_text(json.dumps(wrong))
    with pytest.raises(DocumentError, match=message):
        load_pack(file)


def test_an_internal_event_that_nobody_makes_is_a_fault(tmp_path: Path) -> None:
    """It would be declared for nothing."""
    wrong = json.loads(json.dumps(PACK))
    for name in ("way_twice", "way_blue"):
        del wrong["metrics"][name]["emit"]
    file = tmp_path / "way.yaml"
    file.write_text(json.dumps(wrong))
    with pytest.raises(DocumentError, match=r"no metric makes the internal event `way\.found`"):
        load_pack(file)
