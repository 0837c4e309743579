"""`pattern` through the whole engine, against a look at all events of a key since its last match."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.instruments import keyed_part, keyed_rows
from tests.arrivals import AHEAD, after, courses
from tests.engine_helpers import NOON, Lab, lines, pack_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evalgauge.core.pack.model import Pack

TTL, KEYS = 60, 3
BEGAN = NOON - 200
TYPES = ("way.red", "way.green", "way.blue")
FORMS: list[dict[str, Any]] = [
    {},
    {"where": {"team": "a"}},
    {"count": 2, "within": 10},
    {"count": 3, "within": 20},
    {"count": 2, "among": 3},
    {"count": 2, "among": 4, "counted": ["way.red", "way.blue"]},
    {"sequence": ["way.red", "way.green"], "within": 15},
    {"sequence": ["way.red", "way.red", "way.blue"], "among": 5},
    {"sequence": ["way.red", "way.blue", "way.red"], "within": 30},
]


def declared(form: dict[str, Any]) -> str:
    """A pack with one pattern, as it is written."""
    fields = {"who": {"type": "string", "required": True}, "team": {"type": "string", "required": True}}
    return json.dumps(
        {
            "pack": "way",
            "version": 1,
            "title": "Way",
            "events": {type_: {"description": "Lit.", "fields": fields} for type_ in TYPES},
            "metrics": {
                "way_matches": {
                    "type": "pattern",
                    "help": "Matches.",
                    "on": list(TYPES),
                    "key": "who",
                    "labels": {"team": "team"},
                    "severity": "high",
                    "ttl": TTL,
                    "keys": KEYS,
                    **form,
                }
            },
        }
    )


def pack(form: dict[str, Any]) -> Pack:
    """A pack with one pattern."""
    return pack_of(declared(form))


class Told(NamedTuple):
    """One event."""

    type: str
    who: str
    team: str
    time: int
    """Seconds after `BEGAN`."""

    def line(self, number: int) -> bytes:
        """It as it comes."""
        time = datetime.fromtimestamp(BEGAN + self.time, UTC).isoformat()
        data = {"who": self.who, "team": self.team}
        return (
            lines({"id": str(number), "source": "/s", "type": self.type, "time": time, "data": data})[0]
            + b"\n"
        )


def complete(form: dict[str, Any], events: list[Told]) -> bool:
    """Whether the last of a key's events since its last match completes the pattern."""
    last = events[-1]
    if steps := form.get("sequence"):
        for places in itertools.combinations(range(len(events) - 1), len(steps) - 1):
            found = [events[place] for place in (*places, len(events) - 1)]
            if [one.type for one in found] == steps:
                if "within" in form and last.time - found[0].time <= form["within"]:
                    return True
                if "among" in form and len(events) - places[0] <= form["among"]:
                    return True
        return False
    if "within" in form:
        times = sorted(one.time for one in events)[-form["count"] :]
        return bool(len(times) == form["count"] and times[-1] - times[0] <= form["within"])
    if "among" in form:
        counted = form.get("counted", TYPES)
        recent = [one.type in counted for one in events[-form["among"] :]]
        return bool(recent[-1] and sum(recent) >= form["count"])
    return True


def expected(
    form: dict[str, Any], stream: list[Told], every: int, came: Sequence[float] = ()
) -> tuple[Counter[str], dict[str, int], int, int]:
    """Matches by team, when they were last, late events, keys evicted; `came` are the arrivals, else noon."""
    clock, seen, late, evicted = -math.inf, 0, 0, 0
    kept: dict[str, tuple[int, list[Told]]] = {}
    found: Counter[str] = Counter()
    last: dict[str, int] = {}
    for one, arrival in zip(stream, itertools.chain(came, itertools.repeat(NOON)), strict=False):
        before, ahead = clock, BEGAN + one.time > arrival + AHEAD
        clock = before if ahead else max(before, min(one.time, arrival - BEGAN))
        if one.type not in TYPES or one.team not in form.get("where", {"team": one.team}).values():
            continue
        if ahead:
            late += 1
            continue
        seen += 1
        if one.time + TTL <= before:
            late += 1
        else:
            newest, events = kept.get(one.who, (one.time, []))
            if newest + TTL <= before:
                newest, events = one.time, []
            events = [*events, one]
            if complete(form, events):
                found[one.team] += 1
                last[one.team] = max(one.time, last.get(one.team, one.time))
                events = []
            kept[one.who] = (max(newest, one.time), events)
        if seen % every == 0 and len(kept) > KEYS:
            kept = {who: held for who, held in kept.items() if held[0] + TTL > clock}
            for who in sorted(kept, key=lambda who: (kept[who][0], who))[: max(0, len(kept) - KEYS)]:
                del kept[who]
                evicted += 1
    return found, last, late, evicted


EVENTS = st.builds(
    Told,
    st.sampled_from(TYPES),
    st.sampled_from("vvvwxyz"),
    st.sampled_from("ab"),
    st.integers(0, 14).map(lambda fives: 5 * fives)
    | st.integers(38, 60).map(lambda fives: 5 * fives)
    | st.sampled_from([-86_400, 495, 500, 505, 86_400 * 365]),
)


@pytest.mark.parametrize("form", FORMS, ids=str)
@settings(max_examples=25, deadline=None)
@given(st.lists(EVENTS, max_size=30), st.data())
def test_matches_are_those_of_the_events_wherever_the_stream_is_cut(
    form: dict[str, Any], stream: list[Told], data: st.DataObject
) -> None:
    """In any order, with events that are late, too many keys, and restarts."""
    every, few = data.draw(st.integers(1, 12)), data.draw(st.sampled_from([1, 2, 16]))
    course = data.draw(courses(len(stream)))
    told = [one.line(number) for number, one in enumerate(stream)]
    way = pack(form)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        patch.setattr(keyed_part, "BOUND_EVERY", every)
        patch.setattr(keyed_rows, "FEW", few)
        bench = after(Path(name), way, told, course)
        found = Counter({team: int(bench.value("way_matches", team, "high")) for team in "ab"})
        family = next(
            one for one in bench.families() if one.name == "way_matches_last_match_timestamp_seconds"
        )
        last = {
            labels[0]: round(time - BEGAN) for labels, time in zip(family.series, family.values, strict=True)
        }
        late = bench.value("evalgauge_events_late", "way_matches")
        assert (+found, last, late, bench.value("way_matches_evicted")) == expected(
            form, stream, every, course.came
        )
        bench.store.close()


def test_a_pattern_has_a_severity_only_if_it_declares_one(tmp_path: Path) -> None:
    """The label comes and goes with it, and what was counted stays."""
    told = [Told("way.red", "v", "a", 5 * number).line(number) for number in range(3)]
    shown = []
    for number, severity in enumerate([None, "high", None]):
        bench = Lab(tmp_path, packs=[pack({"severity": severity})])
        bench.feed(told[number])
        bench.engine.commit()
        families = {one.name: one for one in bench.families()}
        for name in ("way_matches", "way_matches_last_match_timestamp_seconds"):
            family = families[name]
            shown.append((family.label_names, list(family.series), [float(value) for value in family.values]))
        bench.store.close()
    without, with_ = (("team",), [("a",)]), (("team", "severity"), [("a", "high")])
    assert shown == [
        (*labels, [value])
        for number, labels in enumerate([without, with_, without])
        for value in (number + 1.0, BEGAN + 5.0 * number)
    ]
