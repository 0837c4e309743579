"""The events that are measured with: reproducible, 299 bytes a line, 1,800 label sets."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
PACK = HERE / "pack.yaml"
GROWTH_PACK = HERE / "growth_pack.yaml"
MAPPING = HERE / "mapping.yaml"
LINE = 299
"""Bytes of one line, its newline included."""
METHODS = ("rule", "llm", "hybrid")
STATUSES = ("success", "error", "timeout")


def events(count: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Judgment events in the CloudEvents envelope."""
    draw = random.Random(seed)
    for number in range(count):
        stamp = (
            f"2026-11-21T{number // 3_600_000 % 24:02d}:{number // 60_000 % 60:02d}:{number // 1000 % 60:02d}"
        )
        yield {
            "specversion": "1.0",
            "id": f"{seed:04x}-{number:012d}",
            "source": "bench/judge-1",
            "type": "bench.judged",
            "time": f"{stamp}.{number % 1000:03d}Z",
            "data": {
                "tenant_id": f"tenant-{draw.randrange(20):02d}",
                "workflow_id": f"workflow-{draw.randrange(10)}",
                "method_used": draw.choice(METHODS),
                "status": draw.choice(STATUSES),
                "confidence_score": round(draw.random(), 4),
                "execution_time_ms": round(draw.expovariate(1 / 900), 2),
            },
        }


def line(event: dict[str, Any]) -> bytes:
    """One event as a line of 299 bytes; a field that no pack declares takes up the rest."""
    text = json.dumps(event, separators=(",", ":")).encode()
    rest = LINE - 1 - len(text) - len(',"note":""')
    return text[:-2] + b',"note":"' + b"x" * max(rest, 0) + b'"}}\n'


def write_events(path: Path, count: int, seed: int = 1) -> Path:
    """A file of `count` events."""
    with path.open("wb") as file:
        for event in events(count, seed):
            file.write(line(event))
    return path


def foreign(event: dict[str, Any]) -> dict[str, Any]:
    """The same event in the shape that `mapping.yaml` describes."""
    data = event["data"]
    return {
        "uid": event["id"],
        "origin": event["source"],
        "at": event["time"],
        "who": {"tenant": data["tenant_id"], "workflow": data["workflow_id"]},
        "how": data["method_used"][0].upper(),
        "end": {"success": "ok", "error": "err", "timeout": "late"}[data["status"]],
        "sure": data["confidence_score"],
        "took_s": data["execution_time_ms"] / 1000,
    }


def write_growth(path: Path, count: int, series: int, seed: int = 1) -> Path:
    """A file of `count` events, drawn uniformly from `series` label sets, the first of which name each set once."""
    draw = random.Random(seed)
    side = round(series**0.5)
    total = side * side
    with path.open("wb") as file:
        for number in range(total + count):
            which = number if number < total else draw.randrange(total)
            head = f'{{"specversion":"1.0","id":"{number:012d}","source":"bench","type":"growth.seen","data":'
            file.write(
                f'{head}{{"group":"group-{which // side:04d}","member":"member-{which % side:04d}"}}}}\n'.encode()
            )
    return path
