"""Pack `stream`: what is counted of a stream engine, and which events make a burst."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from evalgauge.core.pack.loader import load_pack
from tests.engine_helpers import NOON, Lab, event

if TYPE_CHECKING:
    from pathlib import Path


def processed(number: int, seconds: float, **data: Any) -> dict[str, Any]:
    """An event that the engine is done with, so long after an hour before noon."""
    whole = event(number, "stream.event.processed", time=iso(seconds))
    # Its own source is another than that of the envelope.
    return whole | {"data": {"event_type": "t", "status": "success"} | data}


def anomaly(number: int, seconds: float, severity: str, type_: str = "spike") -> dict[str, Any]:
    """An anomaly that the engine found."""
    return event(
        number, "stream.anomaly.detected", time=iso(seconds), anomaly_type=type_, severity=severity, score=3
    )


def iso(seconds: float) -> str:
    """A time."""
    return datetime.fromtimestamp(NOON - 3600 + seconds, UTC).isoformat()


def test_events_are_counted_by_type_and_status(tmp_path: Path) -> None:
    """A time below zero is no time, and breaks a rule; an event without one is not counted as unusable."""
    with Lab(tmp_path, packs=[load_pack("stream").pack]) as bench:
        bench.put(
            processed(0, 0, processing_time_ms=1),
            processed(1, 0, processing_time_ms=-1, status="error"),
            processed(2, 0, status="filtered", partition=3, source="s"),
        )
        for status in ("success", "error", "filtered"):
            assert bench.value("stream_events", "t", status) == 1
        assert bench.value("stream_processing_seconds", "t") == 0.001
        assert bench.value("stream_records", "valid") == 2
        assert bench.value("stream_quality_violations", "processing_time_not_negative") == 1
        assert not [key for key in bench.counted() if key[0] == "evalgauge_values_unobserved"]


def test_ten_failures_of_one_source_within_a_minute_are_a_burst(tmp_path: Path) -> None:
    """Nine are none, nor are ten of two sources; a burst uses up its events; the last one is told by its own time."""
    with Lab(tmp_path, packs=[load_pack("stream").pack]) as bench:
        bench.put(*(processed(n, n, status="error", source="ab"[n % 2]) for n in range(18)))
        bench.put(*(processed(100 + n, 200 + n, status="error", source="c") for n in range(9)))
        bench.put(processed(150, 208.5, status="success", source="c"), processed(151, 208.6, status="error"))
        assert bench.value("stream_error_bursts", "c", "high") == 0
        bench.put(processed(199, 260, status="error", source="c"))
        assert bench.value("stream_error_bursts", "c", "high") == 1
        assert bench.value("stream_error_bursts_last_match_timestamp_seconds", "c", "high") == NOON - 3340
        bench.put(processed(200, 261, status="error", source="c"))
        assert [bench.value("stream_error_bursts", source, "high") for source in "abc"] == [0, 0, 1]


def test_anomalies_are_counted_by_type_and_severity(tmp_path: Path) -> None:
    """Each high or critical one is a match with its time; five of a type within five minutes are a burst."""
    with Lab(tmp_path, packs=[load_pack("stream").pack]) as bench:
        severities = ("low", "medium", "high", "critical", "low")
        bench.put(*(anomaly(n, 75 * n, severity) for n, severity in enumerate(severities)))
        bench.put(anomaly(9, 301, "low", "drift"))
        assert [bench.value("stream_anomalies", "spike", severity) for severity in severities[:4]] == [
            2,
            1,
            1,
            1,
        ]
        assert (
            bench.value("stream_high_anomalies_last_match_timestamp_seconds", "spike", "high") == NOON - 3450
        )
        times = bench.value("stream_critical_anomalies_last_match_timestamp_seconds", "spike", "critical")
        assert times == NOON - 3375
        assert bench.value("stream_anomaly_bursts", "spike", "medium") == 1
        assert bench.value("stream_anomaly_bursts", "drift", "medium") == 0
