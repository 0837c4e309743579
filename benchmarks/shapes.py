"""Events that are not the plain case: mapped ones, and one bad line in a hundred."""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path

from benchmarks import workload
from benchmarks.measure import Row, interleaved, ratio, replayed

_POISON = (
    b'{"id":"x","source":"s","type":"bench.judged","data":',
    b'{"id":"x","source":"s","type":"bench.judged","data":{"tenant_id":"\xff\xfe"}}',
    b"[1,2,3]",
    b'{"id":"x","source":"s","type":"bench.judged","data":{"tenant_id":"t"}}',
    b'{"id":"x","source":"s","type":"bench.judged","data":{"tenant_id":5}}',
    b'{"id":"x","source":"s","type":"nobody.knows","data":{}}',
    b'{"id":"","source":"s","type":"bench.judged","data":{}}',
    b'{"id":"x","source":"s","type":"bench.judged","time":"yesterday","data":{}}',
    b'{"id":"x","source":"s","type":"bench.judged","data":{"a":' + b"[" * 60 + b"]" * 60 + b"}}",
    b'{"id":"x","source":"s","type":"bench.judged","data":{"tenant_id":"t","workflow_id":"w","method_used":"magic"}}',
)


def run(*, quick: bool) -> list[Row]:
    """Ratios to clean native events of the same run."""
    count = 200_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        native = workload.write_events(folder / "native.ndjson", count)
        mapped, poisoned = folder / "mapped.ndjson", folder / "poisoned.ndjson"
        with mapped.open("wb") as file:
            for event in workload.events(count):
                file.write(json.dumps(workload.foreign(event), separators=(",", ":")).encode() + b"\n")
        with poisoned.open("wb") as file:
            for number, event in enumerate(workload.events(count)):
                file.write(
                    _POISON[number // 100 % 10] + b"\n" if number % 100 == 50 else workload.line(event)
                )
        values = interleaved(
            {
                "native": lambda: replayed([native], workload.PACK).rate,
                "mapped": lambda: replayed([mapped], workload.PACK, mapping=workload.MAPPING).rate,
                "poisoned": lambda: replayed([poisoned], workload.PACK).rate * 100 / 99,
            },
            2 if quick else 4,
        )
    middle = {name: statistics.median(found) for name, found in values.items()}
    beside = f"{middle['native']:,.0f}/s native and clean"
    return [
        Row("mapped events", middle["mapped"], "events/s", beside, ratio(values, "mapped", "native"), 0.7),
        Row(
            "one bad line in a hundred, of ten kinds",
            middle["poisoned"],
            "events/s",
            beside,
            ratio(values, "poisoned", "native"),
            0.8,
        ),
    ]
