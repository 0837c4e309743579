"""File to committed metrics, beside a plain prometheus-client loop and beside decoding alone."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from benchmarks import workload
from benchmarks.measure import Row, interleaved, ratio, replayed
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

_PIECE = 2000


def run(*, quick: bool) -> list[Row]:
    """One worker, two workers, and de-duplication for the record."""
    count = 300_000 if quick else 2_000_000
    rounds = 2 if quick else 4
    with tempfile.TemporaryDirectory() as folder:
        file = workload.write_events(Path(folder) / "events.ndjson", count)
        few = file.read_bytes()[: workload.LINE * min(count, 200_000)]
        values = interleaved(
            {
                "loop": lambda: _loop(few),
                "decode": lambda: _decode(few),
                "one": lambda: replayed([file], workload.PACK).rate,
                "two": lambda: replayed([file], workload.PACK, workers=2).rate,
                "unique": lambda: replayed([file], workload.PACK, deduplicate=True).rate,
            },
            rounds,
        )
    middle = {name: statistics.median(found) for name, found in values.items()}
    loop, decode = (
        f"{middle['loop']:,.0f}/s prometheus-client loop",
        f"{middle['decode']:,.0f}/s msgspec decoding alone",
    )
    return [
        Row("file → metrics, one worker", middle["one"], "events/s", loop, ratio(values, "one", "loop"), 10),
        Row("file → metrics, two workers", middle["two"], "events/s", loop, ratio(values, "two", "loop"), 18),
        Row(
            "file → metrics, one worker",
            middle["one"],
            "events/s",
            decode,
            ratio(values, "one", "decode"),
            0.35,
        ),
        Row(
            "the same with de-duplication",
            middle["unique"],
            "events/s",
            loop,
            ratio(values, "unique", "loop"),
        ),
    ]


def _loop(data: bytes) -> float:
    """Events a second of what most people write first."""
    registry = CollectorRegistry()
    labels = ["tenant", "workflow", "method"]
    counter = Counter("bench_judgments", "Judgments made.", [*labels, "status"], registry=registry)
    bounds = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
    duration = Histogram("bench_duration_seconds", "Time.", labels, registry=registry, buckets=bounds)
    tenths = [tenth / 10 for tenth in range(1, 11)]
    confidence = Histogram("bench_confidence_ratio", "Confidence.", labels, registry=registry, buckets=tenths)
    started = time.perf_counter()
    count = 0
    for line in data.splitlines():
        event = json.loads(line)["data"]
        names = (event["tenant_id"], event["workflow_id"], event["method_used"])
        counter.labels(*names, event["status"]).inc()
        duration.labels(*names).observe(event["execution_time_ms"] / 1000)
        confidence.labels(*names).observe(event["confidence_score"])
        count += 1
    seconds = time.perf_counter() - started
    assert generate_latest(registry)
    return count / seconds


_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class _Data(msgspec.Struct, gc=False):
    tenant_id: Annotated[str, msgspec.Meta(max_length=128)]
    workflow_id: Annotated[str, msgspec.Meta(max_length=128)]
    method_used: Literal["rule", "llm", "hybrid"]
    status: Literal["success", "error", "timeout"]
    confidence_score: float | None = None
    execution_time_ms: float | None = None


class _Event(msgspec.Struct, gc=False):
    id: _Text
    source: _Text
    type: Literal["bench.judged"]
    data: _Data
    time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    traceparent: str | None = None


def _decode(data: bytes) -> float:
    """Events a second of strict decoding into structs, and nothing else."""
    decoder = msgspec.json.Decoder(_Event)
    size = workload.LINE * _PIECE
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    started = time.perf_counter()
    count = sum(len(decoder.decode_lines(piece)) for piece in pieces)
    return count / (time.perf_counter() - started)
