"""Counters, gauges and histograms: what each shows of the events it sees."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine_helpers import NOON, Lab, event, lines, pack_of

if TYPE_CHECKING:
    from pathlib import Path

    from evalgauge.core.families import Family


def pack(metric: dict[str, Any], *, rules: int = 0) -> Any:
    """A pack with one metric over a few fields; `rules` of them judge quality."""
    text = {
        "pack": "p", "version": 1, "title": "P",
        "events": {
            "p.seen": {
                "description": "Seen.",
                "fields": {
                    "who": {"type": "string"}, "ms": {"type": "number", "unit": "ms"},
                    "min": {"type": "number", "unit": "min"}, "pct": {"type": "number", "unit": "percent"},
                    "plain": {"type": "number", "unit": "1"}, "cost": {"type": "number", "unit": "usd", "min": 0},
                },
                "quality": {f"r{n}": {"field": "plain", "max": n} for n in range(rules)},
            },
            "p.gone": {"description": "Gone.", "fields": {"who": {"type": "string"}}},
        },
        "metrics": {metric.pop("name"): {"help": "Help.", **metric}},
    }  # fmt: skip
    return pack_of(json.dumps(text))


def seen(number: int, **data: Any) -> dict[str, Any]:
    """An event of the pack."""
    return event(number, "p.seen", **data)


def family(bench: Lab) -> Family:
    """The pack's only family."""
    return bench.families()[0]


def histogram(value: str, name: str, buckets: list[float], **more: Any) -> Any:
    """A pack with one histogram."""
    return pack(
        {"name": name, "type": "histogram", "on": "p.seen", "value": value, "buckets": buckets, **more}
    )


@pytest.mark.parametrize(
    ("field", "name", "buckets", "values"),
    [
        ("ms", "p_seconds", [0.05, 0.1, 0.25, 0.3, 1], [50, 100, 250, 300, 1000]),
        ("min", "p_seconds", [6, 60, 90], [0.1, 1, 1.5]),
        ("pct", "p_ratio", [0.07, 0.29, 0.57, 1], [7, 29, 57, 100]),
        ("plain", "p_values", [-1, 0, 0.1], [-1, -0.0, 0.1]),
    ],
)
def test_a_value_on_a_bound_belongs_to_that_bucket(
    tmp_path: Path, field: str, name: str, buckets: list[float], values: list[float]
) -> None:
    """After conversion too: 50 ms are 0.05 s, and 7 % are 0.07, which `7 * 0.01` is not."""
    with Lab(tmp_path, [histogram(field, name, buckets)]) as bench:
        bench.put(*(seen(n, **{field: value}) for n, value in enumerate(values)))
        counts = family(bench).buckets
        assert counts is not None
        assert counts[0].tolist() == [1] * len(values) + [0]


def test_a_sum_is_converted_once(tmp_path: Path) -> None:
    """By division of the exact sum, not value by value."""
    values = [0.1, 0.2, 0.3, 1e15, -0.0, 7e-320]
    with Lab(tmp_path, [histogram("ms", "p_seconds", [1])]) as bench:
        bench.put(*(seen(n, ms=value) for n, value in enumerate(values)))
        exact = sum(map(Fraction, values), Fraction(0)) / 1000
        assert family(bench).values.tolist() == [exact.numerator / exact.denominator]


def test_values_that_cannot_be_observed_are_counted_as_such(tmp_path: Path) -> None:
    """Absent ones, and negative ones of a time; a number that may be negative is observed."""
    with Lab(tmp_path / "ms", [histogram("ms", "p_seconds", [1])]) as bench:
        bench.put(seen(1), seen(2, ms=None), seen(3, ms=-1), seen(4, ms=5), seen(5, ms=-0.0))
        assert (bench.value("evalgauge_values_unobserved", "p_seconds"), family(bench).values.tolist()) == (
            3,
            [0.005],
        )
        assert bench.value("evalgauge_events_accepted", "in", "p.seen") == 5
    with Lab(tmp_path / "plain", [histogram("plain", "p_values", [1])]) as bench:
        bench.put(seen(1), seen(2, plain=-3))
        assert (bench.value("evalgauge_values_unobserved", "p_values"), family(bench).values.tolist()) == (
            1,
            [-3.0],
        )


def test_a_value_too_great_for_the_base_unit_is_in_the_last_bucket(tmp_path: Path) -> None:
    """Its sum is infinite, and nobody is warned of anything."""
    with Lab(tmp_path, [histogram("min", "p_seconds", [1])]) as bench:
        bench.put(seen(1, min=1e308), seen(2, min=0))
        assert family(bench).values.tolist() == [float("inf")]
        assert bench.value("evalgauge_values_unobserved", "p_seconds") == 0


def test_an_exemplar_is_the_last_sound_trace_of_its_bucket(tmp_path: Path) -> None:
    """A trace that is no trace takes no other's place; the time is that of the event."""
    trace = "00-{}-{}-01"
    events = [
        seen(1, ms=50, traceparent=trace.format("1" * 32, "1" * 16), time="2023-11-14T22:13:21Z"),
        seen(2, ms=50, traceparent=trace.format("2" * 32, "2" * 16)),
        seen(3, ms=50, traceparent=trace.format("0" * 32, "2" * 16)),
        seen(4, ms=50, traceparent="no trace"),
        seen(5, ms=50, traceparent=""),
        seen(6, ms=5000, traceparent=trace.format("A" * 32, "3" * 16)),
        seen(
            7,
            ms=7000,
            traceparent=trace.format("b" * 32, "3" * 16) + "-future",
            time="2023-11-14T22:13:25.5Z",
        ),
    ]
    for number, parts in enumerate(([events], [events[:3], events[3:]], [[one] for one in events])):
        with Lab(tmp_path / str(number), [histogram("ms", "p_seconds", [1])]) as bench:
            for part in parts:
                bench.put(*part)
            found = family(bench).exemplars
            assert {key: (one.trace_id, one.value, one.time) for key, one in found.items()} == {
                (0, 0): ("2" * 32, 0.05, NOON), (0, 1): ("b" * 32, 7.0, NOON + 5.5),
            }  # fmt: skip
            assert {type(one.time) for one in found.values()} == {float}, "what a page can hold"
            shown = bench.shown()
        with Lab(tmp_path / str(number), [histogram("ms", "p_seconds", [1])]) as again:
            assert again.shown() == shown
            assert b'# {trace_id="' + b"b" * 32 in shown


def test_the_last_exemplar_of_what_a_limit_makes_one_series(tmp_path: Path) -> None:
    """Last in the stream, whichever of the label sets came first."""
    metric = {
        "name": "p_seen",
        "type": "counter",
        "on": "p.seen",
        "exemplars": True,
        "labels": {"who": {"field": "who", "limit": 1}},
    }
    events = [
        seen(n, who=who, traceparent=f"00-{n + 1:032x}-{1:016x}-01")
        for n, who in enumerate(["a", "x", "y", "x", "a", "z", "x"])
    ]
    with Lab(tmp_path, [pack(metric)]) as bench:
        bench.put(*events)
        assert {key: int(one.trace_id, 16) for key, one in family(bench).exemplars.items()} == {
            (0, 0): 5,
            (1, 0): 7,
        }


def test_a_gauge_shows_the_greatest_of_time_source_and_id(tmp_path: Path) -> None:
    """In whatever order events come, and through a restart; of the same event again the later place wins."""
    metric = {"name": "p_ratio", "type": "gauge", "on": "p.seen", "value": "pct", "across": "last"}
    times = ["2023-11-01T00:00:00Z", "2023-11-01T00:00:00.000001Z"]
    greatest = seen(9, pct=50, time=times[1], source="/b", id="z")
    rest = [
        seen(1, pct=1, time=times[0], source="/z"), seen(2, pct=2, time=times[1], source="/a", id="zz"),
        seen(3, pct=3, time=times[1], source="/b", id="y"), seen(4, time=times[1], source="/z"),
    ]  # fmt: skip
    for number, events in enumerate(
        ([greatest, *rest], [*rest, greatest], [rest[1], greatest, rest[0], rest[2]])
    ):
        with Lab(tmp_path / str(number), [pack(dict(metric))]) as bench:
            bench.put(*events[:2])
        with Lab(tmp_path / str(number), [pack(dict(metric))]) as bench:
            bench.put(*events[2:])
            assert bench.value("p_ratio") == 0.5
            bench.put(greatest | {"data": {"pct": 7}}, greatest | {"data": {"pct": 29}})
            assert bench.value("p_ratio") == 0.29


def test_a_clock_that_is_far_ahead_does_not_freeze_a_gauge(tmp_path: Path) -> None:
    """What it says is late, though nothing else goes by time; up to `clock_ahead` it sets, until others are as far."""
    metric = {"name": "p_ratio", "type": "gauge", "on": "p.seen", "value": "pct", "across": "last",
              "labels": {"who": "who"}, "where": {"min": {"present": False}}}  # fmt: skip
    with Lab(tmp_path, [pack(metric)]) as bench:
        for number, (second, value, shown) in enumerate(
            [(0, 1, 1), (301, 2, 1), (300, 3, 3), (86_400 * 365, 4, 3), (60, 5, 3)]
        ):
            time = datetime.fromtimestamp(NOON + second, UTC).isoformat()
            bench.put(seen(number, pct=value, time=time))
            assert bench.value("p_ratio", "") == shown / 100, number
        ahead = datetime.fromtimestamp(NOON + 3600, UTC).isoformat()
        bench.put(
            seen(10, pct=9, time=ahead, min=1),
            seen(11, pct=9, time=ahead, who="x"),
            seen(12, time=ahead),
            seen(13, time=ahead, min=1),
        )
        assert family(bench).series == [("",)]
        assert bench.value("evalgauge_events_late", "p_ratio") == 4
        assert bench.value("evalgauge_values_unobserved", "p_ratio") == 0
        bench.put(seen(14, pct=6, time=datetime.fromtimestamp(NOON + 301, UTC).isoformat()), arrival=NOON + 1)
        assert bench.value("p_ratio", "") == 0.06


def test_a_gauge_of_time_shows_when_the_newest_event_was(tmp_path: Path) -> None:
    """To the microsecond, whatever the order; an event whose clock is an hour ahead is late, and makes no series."""
    metric = {"name": "p_last_seen_timestamp_seconds", "type": "gauge", "on": ["p.seen", "p.gone"], "time": True,
              "across": "max", "labels": {"who": "who"}}  # fmt: skip
    plain = pack(metric)
    with Lab(tmp_path, [plain]) as bench:
        bench.put(
            seen(0, who="a", time="2023-11-14T22:00:00.250000Z"),
            seen(1, who="a", time="2023-11-14T21:00:00Z"),
            event(2, "p.gone", who="b", time="2023-11-14T22:13:20Z"),
            seen(3, who="b", time="2023-11-14T23:13:20Z"),
            seen(4, who="c", time="2024-11-14T22:13:20Z"),
        )
        shown = family(bench)
        assert (shown.unit, shown.series) == ("seconds", [("a",), ("b",)])
        assert shown.values.tolist() == [NOON - 800 + 0.25, NOON]
        assert bench.value("evalgauge_events_late", "p_last_seen_timestamp_seconds") == 2
        assert bench.value("evalgauge_values_unobserved", "p_last_seen_timestamp_seconds") == 0
    with Lab(tmp_path, [plain], place=10_000) as bench:
        assert family(bench).values.tolist() == [NOON - 800 + 0.25, NOON]
        bench.put(seen(5, who="a", time="2023-11-14T22:13:00Z"))
        assert family(bench).values.tolist() == [NOON - 20, NOON]


def test_equal_settings_of_what_a_limit_makes_one_series(tmp_path: Path) -> None:
    """The later place wins there too, however they are cut."""
    metric = {"name": "p_values", "type": "gauge", "on": "p.seen", "value": "plain", "across": "last",
              "labels": {"who": {"field": "who", "limit": 1}}}  # fmt: skip
    events = [seen(0, who=who, plain=n) for n, who in enumerate(["a", "x", "y", "x", "y", "x"])]
    for number, cut in enumerate((0, 2, 4)):
        with Lab(tmp_path / str(number), [pack(metric | {})]) as bench:
            for part in (events[:cut], events[cut:]):
                bench.put(*part)
            assert bench.value("p_values", "_other") == 5


def test_a_gauge_goes_up_and_down_by_event_types(tmp_path: Path) -> None:
    """Its net may be negative, and counts from where it was after a restart."""
    metric = {"name": "p_here", "type": "gauge", "on": ["p.seen", "p.gone"], "up": "p.seen", "down": "p.gone",
              "across": "sum", "labels": {"who": "who"}}  # fmt: skip
    for expected in ([1, -1], [2, -2]):
        with Lab(tmp_path, [pack(metric | {})]) as bench:
            bench.put(
                seen(1, who="a"), seen(2, who="a"), event(3, "p.gone", who="a"), event(4, "p.gone", who="b")
            )
            assert [bench.value("p_here", who) for who in "ab"] == expected
            assert family(bench).values.dtype.name == "int64"


def test_an_event_counts_once_for_each_rule_that_it_breaks(tmp_path: Path) -> None:
    """With more rules than anybody would write, series are still admitted in the order of the stream."""
    metric = {"name": "p_faults", "type": "counter", "on": "p.seen", "limit": 100,
              "labels": {"who": {"field": "who", "limit": 3}, "rule": {"quality": "rule"}}}  # fmt: skip
    events = [
        seen(1, who="a", plain=70.5),
        seen(2, who="b", plain=0.5),
        seen(3, who="c"),
        seen(4, who="d", plain=99),
    ]
    shown = []
    for number, parts in enumerate(([events], [[one] for one in events])):
        with Lab(tmp_path / str(number), [pack(metric | {}, rules=80)]) as bench:
            for part in parts:
                bench.put(*part)
            assert bench.value("p_faults", "a", "r70") == 1
            assert bench.value("p_faults", "b", "r0") == 1
            assert sum(family(bench).values.tolist()) == 71 + 1 + 80
            shown.append(bench.shown())
    assert shown[0] == shown[1]


def test_a_counter_of_a_field_is_its_exact_sum(tmp_path: Path) -> None:
    """Over many deltas, with values that floats would lose; an absent one is not a zero."""
    metric = {
        "name": "p_cost_usd",
        "type": "counter",
        "on": "p.seen",
        "value": "cost",
        "labels": {"who": "who"},
    }
    values = [0.1, 1e16, 0.3, 1e-300, None, 0.0, 4194304.0] * 50
    with Lab(tmp_path, [pack(metric)]) as bench:
        for start in range(0, len(values), 33):
            bench.put(*(seen(n, cost=value, who="a") for n, value in enumerate(values[start : start + 33])))
        exact = sum((Fraction(value) for value in values if value is not None), Fraction(0))
        assert bench.value("p_cost_usd", "a") == exact.numerator / exact.denominator
        assert bench.value("evalgauge_values_unobserved", "p_cost_usd") == 50


def test_a_delta_may_hold_more_events_than_a_word_of_a_sum_can_carry_at_once(tmp_path: Path) -> None:
    """The shortest events there can be, with the greatest values of the window."""
    with Lab(tmp_path, [histogram("plain", "p_values", [1])]) as bench:
        body = b'{"id":"1","source":"s","type":"p.seen","data":{"plain":4194303}}\n' * 100_000
        bench.feed(body)
        bench.engine.commit()
        assert family(bench).values.tolist() == [4194303 * 100_000]


def test_a_filter_and_a_quality_label_look_at_the_same_events(tmp_path: Path) -> None:
    """`validity` says of each event whether it keeps every rule."""
    metric = {"name": "p_records", "type": "counter", "on": "p.seen", "where": {"not": {"who": "skip"}},
              "labels": {"validity": {"quality": "validity"}}}  # fmt: skip
    with Lab(tmp_path, [pack(metric, rules=3)]) as bench:
        bench.put(*(seen(n, plain=n, who="skip" if n == 4 else None) for n in range(6)), lines(seen(9))[0])
        assert (bench.value("p_records", "valid"), bench.value("p_records", "invalid")) == (2, 4)


def test_a_gauge_that_is_no_longer_set_disappears_once_its_time_is_over(tmp_path: Path) -> None:
    """By event time, through a restart; a clock that is ahead sets nothing, and is counted as late, not as no value."""
    load = pack({"name": "p_load", "type": "gauge", "on": "p.seen", "value": "plain", "across": "last",
                 "labels": {"who": "who"}, "ttl": 60})  # fmt: skip

    def at(number: int, who: str, minute: str, value: float | None) -> dict[str, Any]:
        return seen(number, who=who, plain=value, time=f"2023-11-14T22:{minute}Z")

    def shown(bench: Lab) -> dict[tuple[str, ...], float]:
        return dict(zip(family(bench).series, family(bench).values.tolist(), strict=True))

    with Lab(tmp_path, [load]) as bench:
        bench.put(at(1, "a", "10:00", 1), at(2, "b", "10:20", 2), at(3, "b", "10:21", None))
        assert shown(bench) == {("a",): 1, ("b",): 2}
        bench.put(at(4, "c", "11:00", 3), at(5, "b", "59:00", 4), at(6, "d", "59:00", None))
        assert shown(bench) == {("b",): 2, ("c",): 3}
        assert bench.value("evalgauge_events_late", "p_load") == 2
        assert bench.value("evalgauge_values_unobserved", "p_load") == 1
    with Lab(tmp_path, [load], place=10_000) as bench:
        assert shown(bench) == {("b",): 2, ("c",): 3}
        bench.put(at(7, "a", "11:20", 5))
        assert shown(bench) == {("c",): 3, ("a",): 5}
