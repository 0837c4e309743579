"""Values and times at the ends of what they can be: no event may stop what keeps state by key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from evalgauge.core import reduce
from evalgauge.core.keys import KeyNumbers
from tests.engine_helpers import INPUT, Lab, event, lines, pack_of

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = {
    "who": {"type": "string"},
    "where": {"type": "string"},
    "ms": {"type": "number"},
    "left": {"type": "string"},
    "right": {"type": "string"},
}


def pack(**metrics: dict[str, Any]) -> Any:
    """A pack of two event types with these metrics."""
    found = {"description": "Found.", "internal": True, "fields": {"who": {"type": "string"}}}
    told = {"description": "Told.", "fields": FIELDS}
    counts = {"type": "counter", "help": "Found.", "on": "end.found", "labels": {"who": "who"}}
    emits = any("emit" in metric for metric in metrics.values())
    return pack_of(
        json.dumps(
            {
                "pack": "end",
                "version": 1,
                "title": "Ends",
                "events": {"end.a": told, "end.b": told} | ({"end.found": found} if emits else {}),
                "metrics": {name: {"help": "Help.", **metric} for name, metric in metrics.items()}
                | ({"end_found": counts} if emits else {}),
            }
        )
    )


@pytest.mark.parametrize("cut", [1, 10])
def test_values_that_cannot_be_squared_are_none(tmp_path: Path, cut: int) -> None:
    """Of either sign, one by one or together."""
    metric = {"type": "deviation", "on": "end.a", "key": "who", "value": "ms", "sigma": 3, "samples": 2}
    values = [1e308, -1e308, 1.0, -1e200, 2.0, 3.0, 90.0]
    with Lab(tmp_path, [pack(end_odd=metric)]) as bench:
        told = [event(number, "end.a", who="a", ms=value) for number, value in enumerate(values)]
        for first in range(0, len(told), cut):
            bench.put(*told[first : first + cut])
        assert bench.value("end_odd_judged") == 2
        assert bench.value("end_odd", "above") == 1
        assert bench.value("evalgauge_values_unobserved", "end_odd") == 3


def test_an_offset_that_takes_a_time_out_of_the_calendar_stops_nothing(tmp_path: Path) -> None:
    """It is the first moment that there is."""
    metric = {"type": "pattern", "on": "end.a", "key": "who", "emit": "end.found"}
    with Lab(tmp_path, [pack(end_each=metric)]) as bench:
        bench.put(event(1, "end.a", who="a", time="0001-01-01T00:00:00+14:00"))
        assert bench.value("end_found", "a") == 1


def test_what_a_reducer_remembers_of_incomplete_keys_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are no keys, and yet it must know that."""
    monkeypatch.setattr(reduce, "KEY_LIMIT", 100)
    metric = {"type": "active", "on": "end.a", "key": ["where", "who"], "ttl": 60}
    with Lab(tmp_path, [pack(end_there=metric)]) as bench:
        for first in range(0, 1000, 50):
            told = [event(number, "end.a", where=f"w{number}") for number in range(first, first + 50)]
            bench.feed(b"".join(line + b"\n" for line in lines(*told)))
        reducer = bench.engine._reducers[INPUT]
        numbers = [one for one in reducer._encoders.values() if isinstance(one, KeyNumbers)]
        assert max(one.remembered for one in numbers) <= 150


@pytest.mark.parametrize("cut", [1, 4])
def test_a_completion_makes_no_node_and_so_keeps_none(tmp_path: Path, cut: int) -> None:
    """What it comes to does not depend on whether the comparison came in with it or after it."""
    metric = {
        "type": "consistency", "comparison": "end.a", "left": "left", "right": "right", "value": "ms",
        "complete": "end.b", "key": "who", "buckets": [0.1], "ttl": 40,
    }  # fmt: skip
    told = [
        event(1, "end.b", who="n", time="2023-11-14T22:07:58.500Z"),
        event(2, "end.a", who="n", left="x", right="y", ms=3, time="2023-11-14T22:07:21Z"),
        event(3, "end.a", who="m", left="x", right="y", ms=3, time="2023-11-14T22:08:03.500Z"),
        event(4, "end.b", who="n", time="2023-11-14T22:08:03.500Z"),
    ]
    with Lab(tmp_path, [pack(end_ratio=metric)]) as bench:
        for first in range(0, len(told), cut):
            bench.feed(b"".join(line + b"\n" for line in lines(*told[first : first + cut])))
        bench.engine.commit()
        assert bench.value("end_incomplete", "missing") == 2
        assert bench.value("end_observed", "computed") == 0
