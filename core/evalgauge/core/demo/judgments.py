"""Judgments by rule, language model and both: their shares, durations and failures, and the faults of their records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from evalgauge.core.demo.timeline import SLICE, busyness, dice, incident, poisson

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

TENANTS = {"acme": 5, "birch": 3, "cobalt": 1}
"""Tenant → weight."""
WORKFLOWS = {"claims": 5, "moderation": 4, "grading": 2, "support-quality": 2}
VERDICTS = ("accept", "reject", "escalate")
REFUSED_SHARE = 0.01
"""Share of events that break the schema."""
INVALID_SHARE = 0.03
"""Share of events whose record breaks a quality rule."""


class Method(NamedTuple):
    """How one way of judging behaves."""

    weight: float
    median_ms: float
    spread: float
    confidence: float
    error: float
    """Share of failures in quiet times."""
    slowdown: float
    """How much longer it takes during an incident."""


METHODS = {
    "rule": Method(5, 40, 0.5, 0.97, 0.002, 1.0),
    "llm": Method(4, 900, 0.55, 0.82, 0.01, 5.0),
    "hybrid": Method(2, 1200, 0.5, 0.88, 0.008, 3.5),
}


class Judgments:
    """A judgment engine that makes `rate` judgments a second on average."""

    def __init__(self, seed: int, rate: float) -> None:
        self._seed, self._rate = seed, rate

    def during(self, number: int) -> Iterator[tuple[float, dict[str, Any] | bytes]]:
        """The judgments of one slice."""
        roll = dice("judgments", self._seed, self._rate, number)
        for place in range(poisson(roll, self._rate * SLICE * busyness(number * SLICE))):
            at = (number + roll.random()) * SLICE
            event = self._event(roll, at, f"j-{self._seed}-{number}-{place}")
            yield at, _spoilt(roll, event) if roll.random() < REFUSED_SHARE else event

    def _event(self, roll: random.Random, at: float, identity: str) -> dict[str, Any]:
        name = roll.choices([*METHODS], [one.weight for one in METHODS.values()])[0]
        method = METHODS[name]
        bad = incident(at) and name != "rule"
        took = roll.lognormvariate(0, method.spread) * method.median_ms * (method.slowdown if bad else 1.0)
        fate = roll.random()
        error = 0.12 if bad else method.error
        status = "error" if fate < error else "timeout" if took > 15_000 or fate < error * 1.4 else "success"
        data: dict[str, Any] = {
            "tenant_id": roll.choices([*TENANTS], [*TENANTS.values()])[0],
            "workflow_id": roll.choices([*WORKFLOWS], [*WORKFLOWS.values()])[0],
            "method_used": name,
            "status": status,
            "input_data": {"document": f"made up, number {roll.randrange(10_000)}"},
            "final_result": roll.choice(VERDICTS) if status == "success" else "none",
            "execution_time_ms": round(min(took, 30_000), 1),
        }
        if status == "success":
            data["confidence_score"] = round(min(1.0, max(0.05, roll.gauss(method.confidence, 0.08))), 3)
        if name != "rule":
            data["model"] = "judge-large" if roll.random() < 0.3 else "judge-small"
        if roll.random() < INVALID_SHARE:
            _blemished(roll, data)
        event: dict[str, Any] = {"specversion": "1.0", "id": identity, "source": "/demo/judgments"}
        event |= {"type": "judgment.executed", "data": data}
        if roll.random() < 0.2:
            event["traceparent"] = f"00-{roll.getrandbits(128) or 1:032x}-{roll.getrandbits(64) or 1:016x}-01"
        return event


def _blemished(roll: random.Random, data: dict[str, Any]) -> None:
    """Break a quality rule: the event counts, and its record is invalid."""
    match roll.randrange(4):
        case 0:
            del data["final_result"]
        case 1:
            data["input_data"] = {}
        case 2:
            data["confidence_score"] = round(1 + roll.random(), 3)
        case _:
            data["execution_time_ms"] = 30_050


def _spoilt(roll: random.Random, event: dict[str, Any]) -> dict[str, Any] | bytes:
    """Break the schema: the event is refused, and kept as a dead letter."""
    match roll.randrange(5):
        case 0:
            event["data"]["method_used"] = "coin-toss"
        case 1:
            del event["data"]["tenant_id"]
        case 2:
            event["data"]["execution_time_ms"] = "fast"
        case 3:
            event["type"] = "judgment.imagined"
        case _:
            return b'{"specversion": "1.0", "id": "cut-off", "type": "judgment.exe'
    return event
