"""Pack `ahp`: who is there, and which comparisons are odd."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from evalgauge.core.pack.loader import load_pack
from tests.engine_helpers import NOON, Lab, event

if TYPE_CHECKING:
    from pathlib import Path

    from evalgauge.core.pack.model import Pack


@pytest.fixture(scope="module")
def pack() -> Pack:
    """The pack."""
    return load_pack("ahp").pack


def told(number: int, seconds: float, type_: str, who: str = "v", **data: Any) -> dict[str, Any]:
    """An event so long after an hour before noon."""
    time = datetime.fromtimestamp(NOON - 3600 + seconds, UTC).isoformat()
    return event(number, f"ahp.{type_}", time=time, project_id="p", evaluator_id=who, **data)


def compared(number: int, seconds: float, who: str = "v", **data: Any) -> dict[str, Any]:
    """A comparison."""
    return told(number, seconds, "comparison.submitted", who, evaluation_id="e", node_id="n", **data)


def test_an_end_that_never_comes_does_not_count_for_ever(tmp_path: Path, pack: Pack) -> None:
    """A session is over after twelve hours, an evaluation after thirty days, an evaluator gone after five minutes."""
    start = 30 * 86_400.0

    def at(number: int, seconds: float, type_: str, **data: Any) -> dict[str, Any]:
        return told(number, seconds - start, type_, **data)

    with Lab(tmp_path, packs=[pack]) as bench:
        bench.put(
            at(0, 0, "session.started", session_id="s"),
            at(1, 0, "evaluation.started", evaluation_id="e"),
            at(2, 0, "evaluation.started", evaluation_id="f"),
            at(3, 1, "evaluation.completed", evaluation_id="f"),
        )
        names = ("ahp_evaluators_online", "ahp_sessions_open", "ahp_evaluations_active")
        assert [bench.value(name, "p") for name in names] == [1, 1, 1]
        bench.put(at(4, 301, "session.ended", who="w", session_id="another"))
        assert [bench.value(name, "p") for name in names] == [1, 1, 1]
        bench.put(at(5, 12 * 3600 + 1, "session.ended", who="w", session_id="another"))
        assert [bench.value(name, "p") for name in names] == [1, 0, 1]
        bench.put(at(6, start + 1, "session.ended", who="w", session_id="another"))
        assert [bench.value(name, "p") for name in names] == [1, 0, 0]
        assert bench.value("ahp_last_seen_timestamp_seconds", "p", "v") == NOON - 3600 - start + 1
        assert bench.value("ahp_last_seen_timestamp_seconds", "p", "w") == NOON - 3600 + 1
        assert bench.value("ahp_last_completion_timestamp_seconds", "p") == NOON - 3600 - start + 1


def test_more_than_ten_comparisons_within_a_minute_are_rapid(tmp_path: Path, pack: Pack) -> None:
    """Ten are not, nor are eleven in more than a minute, nor eleven of two evaluators."""
    with Lab(tmp_path, packs=[pack]) as bench:
        bench.put(*(compared(n, 6 * n, "slow") for n in range(10)), compared(10, 60.5, "slow"))
        bench.put(*(compared(100 + n, 100 + n, "ab"[n % 2]) for n in range(20)))
        bench.put(*(compared(200 + n, 200 + 6 * n, "quick") for n in range(11)))
        matches = [
            bench.value("ahp_anomalies", "p", who, "rapid_submission", "high")
            for who in ("slow", "a", "b", "quick")
        ]
        assert matches == [0, 0, 0, 1]
        assert bench.value("ahp_rapid_submissions", "p", "high") == 1
        last = bench.value(
            "ahp_anomalies_last_match_timestamp_seconds", "p", "quick", "rapid_submission", "high"
        )
        assert last == NOON - 3600 + 260


@pytest.mark.parametrize("value", [9, 9.0, 9.0009, 1 / 9, 0.11, 0.111, 0.1111, 0.111111])
def test_the_ends_of_the_scale_are_extreme_however_they_are_rounded(
    tmp_path: Path, pack: Pack, value: float
) -> None:
    """And what lies next to them, or beyond them, is not."""
    with Lab(tmp_path, packs=[pack]) as bench:
        others = (1, 8, 8.9, 1 / 8, 0.125, 0.1, 10, 12)
        bench.put(*(compared(n, n * 60, value=other) for n, other in enumerate(others)), compared(99, 999))
        assert bench.value("ahp_extreme_values", "p", "high") == 0
        bench.put(compared(100, 1000, value=value))
        assert bench.value("ahp_extreme_values", "p", "high") == 1
        assert bench.value("ahp_anomalies", "p", "v", "extreme_values", "high") == 1


def test_a_ninth_lies_on_the_scale_however_it_is_rounded(tmp_path: Path, pack: Pack) -> None:
    """What is found to be the least value of the scale is not beyond it."""
    with Lab(tmp_path, packs=[pack]) as bench:
        ninths = (1 / 9, 0.11, 0.111, 0.1111, 0.111111)
        bench.put(*(compared(n, n * 60, value=value) for n, value in enumerate(ninths)))
        assert bench.value("ahp_extreme_values", "p", "high") == len(ninths)
        assert bench.value("ahp_records", "p", "valid") == len(ninths)
        bench.put(compared(9, 900, value=0.109))
        assert bench.value("ahp_quality_violations", "p", "value_on_scale") == 1


def test_a_duration_is_odd_by_the_evaluators_own(tmp_path: Path, pack: Pack) -> None:
    """What one person always takes is odd for another; none is before there are thirty."""
    with Lab(tmp_path, packs=[pack]) as bench:
        steady = [900.0, 1000.0, 1100.0] * 10
        bench.put(*(compared(n, 20 * n, "a", duration_ms=took) for n, took in enumerate(steady[:29])))
        bench.put(compared(40, 600, "a", duration_ms=5000), compared(41, 610, "b", duration_ms=5000))
        assert bench.value("ahp_inconsistent_timings_judged", "p") == 0
    with Lab(tmp_path / "other", packs=[pack]) as bench:
        bench.put(*(compared(n, 20 * n, "a", duration_ms=took) for n, took in enumerate(steady)))
        bench.put(
            compared(40, 700, "a", duration_ms=1150),  # 1.8 standard deviations of 83 ms
            compared(41, 720, "a", duration_ms=1300),
            compared(42, 740, "a", duration_ms=600),
            compared(43, 760, "a", duration_ms=-1),
            compared(44, 780, "a"),
            compared(45, 790, "b", duration_ms=99_000),
        )
        sides = [bench.value("ahp_inconsistent_timings", "p", side) for side in ("above", "below")]
        assert sides == [1, 1]
        assert bench.value("ahp_inconsistent_timings_judged", "p") == 3
        assert bench.value("ahp_anomalies", "p", "a", "inconsistent_timing", "medium") == 2
        assert bench.value("evalgauge_values_unobserved", "ahp_inconsistent_timings") == 0


def test_progress_reaches_milestones_once_and_a_done_project_is_wholly_done(
    tmp_path: Path, pack: Pack
) -> None:
    """By evaluator and level; thirds add up to 1, which the deadline's alert compares with."""

    def moved(number: int, who: str, level: int, progress: float) -> dict[str, Any]:
        return told(
            number, number, "progress.updated", who, node_id=f"n{level}", level=level, progress=progress
        )

    with Lab(tmp_path, packs=[pack]) as bench:
        bench.put(*(moved(number, who, 1, 0) for number, who in enumerate("abc")))
        bench.put(moved(10, "a", 1, 100), moved(11, "b", 12, 50), moved(12, "b", 1, 140))
        assert bench.value("ahp_progress_ratio", "p") == pytest.approx(1.5 / 4, abs=1e-9)
        assert bench.value("ahp_progress_by_evaluator_ratio", "p", "b") == 0.25
        assert bench.value("ahp_progress_by_level_ratio", "p", "deeper") == 0.5
        assert bench.value("ahp_milestones", "p", "25") == 1
        bench.put(moved(20, "b", 1, 100 / 3), moved(21, "c", 1, 200 / 3))
        bench.put(
            *(
                moved(30 + n, who, level, 100)
                for n, (who, level) in enumerate([("b", 1), ("b", 12), ("c", 1)])
            )
        )
        assert (
            bench.value("ahp_progress_pairs_done", "p")
            == bench.value("ahp_progress_pairs_expected", "p")
            == 4
        )
        bench.put(moved(40, "c", 1, 0), moved(41, "c", 1, 100))
        reached = [bench.value("ahp_milestones", "p", name) for name in ("25", "50", "75", "90", "100")]
        assert reached == [1, 1, 1, 1, 1]


def test_the_newest_deadline_that_is_said_counts(tmp_path: Path, pack: Pack) -> None:
    """By event time; an evaluation without one changes nothing, nor does one that is none."""
    with Lab(tmp_path, packs=[pack]) as bench:
        bench.put(
            told(0, 10, "evaluation.started", evaluation_id="e", deadline=NOON + 7200),
            told(1, 5, "evaluation.started", evaluation_id="f", deadline=NOON + 9000),
            told(2, 20, "evaluation.started", evaluation_id="g"),
            told(3, 30, "evaluation.started", evaluation_id="h", deadline=0),
        )
        assert bench.value("ahp_deadline_timestamp_seconds", "p") == NOON + 7200


def test_consistency_is_given_or_computed(tmp_path: Path, pack: Pack) -> None:
    """Three items that agree: 0. Two nodes without their comparisons: what is given counts, else none is had."""
    with Lab(tmp_path, packs=[pack]) as bench:
        for number, (left, right, value) in enumerate([("x", "y", 2), ("y", "z", 2), ("x", "z", 4)]):
            bench.put(compared(number, number, left=left, right=right, value=value))
        nodes: list[tuple[str, dict[str, Any]]] = [("n", {}), ("m", {"consistency_ratio": 0.2}), ("o", {})]
        for number, (node, more) in enumerate(nodes, 10):
            bench.put(told(number, number, "node.completed", evaluation_id="e", node_id=node, **more))
        sources = [bench.value("ahp_consistency_observed", "p", name) for name in ("given", "computed")]
        assert sources == [1, 1]
        assert bench.value("ahp_consistency_incomplete", "p", "missing") == 1


def test_activity_is_told_by_weekday_and_hour(tmp_path: Path, pack: Pack) -> None:
    """Noon of the tests is a Tuesday, at 22:13 UTC."""
    with Lab(tmp_path, packs=[pack]) as bench:
        bench.put(compared(0, 0), compared(1, 3000), compared(2, -86_400))
        assert bench.value("ahp_activity", "p", "tue", "21") == 1
        assert bench.value("ahp_activity", "p", "tue", "22") == 1
        assert bench.value("ahp_activity", "p", "mon", "21") == 1
