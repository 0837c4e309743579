"""Counters by quality and by calendar through the whole engine, against one event after the other."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.arrivals import after, courses
from tests.engine_helpers import NOON, Lab, pack_of

if TYPE_CHECKING:
    from collections.abc import Callable

ZONE = "Asia/Kathmandu"
PACK = pack_of(f"""\
pack: desk
version: 1
title: Desk
events:
  desk.judged:
    description: Something was judged.
    fields:
      tenant: {{type: string, required: true}}
      seconds: {{type: number, unit: s}}
      score: {{type: number, unit: "1"}}
      note: {{type: any}}
      model: {{type: string}}
    quality:
      quick: {{field: seconds, min: 0, max: 30}}
      sure: {{field: score, min: -0.5}}
      noted: {{field: note, not_empty: true}}
      named: {{field: model, present: true}}
  desk.left:
    description: Somebody left.
    fields: {{tenant: {{type: string, required: true}}}}
metrics:
  desk_records:
    type: counter
    help: Records, valid and invalid.
    on: desk.judged
    labels: {{tenant: {{field: tenant, limit: 2}}, validity: {{quality: validity}}}}
  desk_violations:
    type: counter
    help: Rules that were broken.
    on: desk.judged
    labels: {{tenant: {{field: tenant, limit: 2}}, rule: {{quality: rule}}}}
  desk_activity:
    type: counter
    help: When there was something to do.
    on: [desk.judged, desk.left]
    labels:
      weekday: {{calendar: weekday, zone: {ZONE}}}
      hour: {{calendar: hour, zone: {ZONE}}}
""")
ABSENT = object()
RULES: dict[str, Callable[[dict[str, Any]], bool]] = {
    "quick": lambda data: "seconds" in data and not 0 <= data["seconds"] <= 30,
    "sure": lambda data: "score" in data and data["score"] < -0.5,
    "noted": lambda data: data.get("note") in (None, "", [], {}),
    "named": lambda data: data.get("model") is None,
}


def maybe(values: list[Any]) -> st.SearchStrategy[Any]:
    """One of these, or no such field."""
    return st.sampled_from([ABSENT, *values])


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """One that is taken, or one that is refused for its type; its clock may be anywhere."""
    kind = draw(st.sampled_from(["judged", "judged", "judged", "left", "judged wrongly"]))
    data: dict[str, Any] = {"tenant": draw(st.sampled_from("abcd"))}
    if kind != "left":
        data["seconds"] = draw(maybe([-1, -0.0, 0, 12.5, 30, 30.000000000000004, 1e300]))
        data["score"] = draw(maybe([-0.5, -0.5000000000000001, 0.7, 3]))
        data["note"] = draw(maybe(["", " ", "text", [], [0], {}, {"k": None}, 0, False]))
        data["model"] = draw(maybe(["", "m"]))
        if kind == "judged wrongly":
            data["seconds"] = "soon"
    seconds = draw(st.integers(-(10**6), 10**6) | st.sampled_from([-86_400, 86_400 * 365]))
    return {
        "id": str(draw(st.integers(0, 5))),
        "source": "/s",
        "type": f"desk.{kind.split()[0]}",
        "time": datetime.fromtimestamp(NOON + seconds, UTC).isoformat(),
        "data": {name: value for name, value in data.items() if value is not ABSENT},
    }


def expected(stream: list[dict[str, Any]]) -> list[dict[Any, int]]:
    """What each metric counts: all that is accepted, whenever it was and however often it was sent."""
    records: Counter[Any] = Counter()
    violations: Counter[Any] = Counter()
    activity: Counter[Any] = Counter()
    admitted: dict[str, list[str]] = {"records": [], "violations": []}

    def tenant_in(metric: str, tenant: str) -> str:
        names = admitted[metric]
        if tenant not in names and len(names) < 2:
            names.append(tenant)
        return tenant if tenant in names else "_other"

    for one in stream:
        data = one["data"]
        if data.get("seconds") == "soon":
            continue
        local = datetime.fromisoformat(one["time"]).astimezone(ZoneInfo(ZONE))
        activity[local.strftime("%a").lower(), f"{local.hour:02}"] += 1
        if one["type"] != "desk.judged":
            continue
        broken = [name for name, breaks in RULES.items() if breaks(data)]
        records[tenant_in("records", data["tenant"]), "invalid" if broken else "valid"] += 1
        for rule in broken:
            violations[tenant_in("violations", data["tenant"]), rule] += 1
    return [records, violations, activity]


def shown(bench: Lab, name: str) -> dict[tuple[str, ...], float]:
    """Series of a metric that are not 0."""
    family = next(one for one in bench.families() if one.name == name)
    pairs = zip(family.series, family.values.tolist(), strict=True)
    return {labels: value for labels, value in pairs if value}


@settings(max_examples=100, deadline=None)
@given(st.lists(events(), max_size=60), st.data())
def test_what_is_counted_is_what_the_events_say_wherever_the_stream_is_cut(
    stream: list[dict[str, Any]], data: st.DataObject
) -> None:
    """In any order, with repeats, wrong clocks, refused events between, more tenants than labels, and restarts."""
    course = data.draw(courses(len(stream)))
    told = [json.dumps(one).encode() + b"\n" for one in stream]
    with tempfile.TemporaryDirectory() as name:
        bench = after(Path(name), PACK, told, course)
        found = [shown(bench, metric) for metric in ("desk_records", "desk_violations", "desk_activity")]
        assert found == expected(stream)
        assert len(bench.letters()) == sum(one["data"].get("seconds") == "soon" for one in stream)
        bench.store.close()
