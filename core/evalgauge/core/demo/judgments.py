"""Judgments by rule, language model and both: their shares, durations and failures, and the faults of their records."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from evalgauge.core.demo.script import JUDGE, RELEASE, STANDSTILL, drift
from evalgauge.core.demo.timeline import SLICE, dice, spread, told
from evalgauge.core.demo.week import busyness

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from evalgauge.core.demo.timeline import Told

VERDICTS = ("accept", "reject", "escalate")
REFUSED_SHARE = 0.004
"""Share of events that break the schema."""
INVALID_SHARE = 0.004
"""Share of events whose record breaks a quality rule."""
FAILING = 0.0025
"""Share of judgments that fail where nothing is wrong."""
_SOURCE = "/demo/judgments"


class Tenant(NamedTuple):
    """How many judgments a minute somebody asks for, and of which workflows."""

    day: float
    night: float
    """Jobs that run by themselves; enough that no minute goes by without ten."""
    workflows: dict[str, float]


class Method(NamedTuple):
    """How one way of judging behaves."""

    median_ms: float
    spread: float
    confidence: float
    models: tuple[str, ...]


TENANTS = {
    "acme": Tenant(54, 14, {"claims": 12, "moderation": 5, "support-quality": 3}),
    "birch": Tenant(38, 13, {"grading": 6, "moderation": 4}),
    "cobalt": Tenant(26, 12, {"claims": 5, "support-quality": 5}),
}
METHODS = {
    "rule": Method(40, 0.5, 0.97, ("",)),
    "llm": Method(900, 0.45, 0.82, ("judge-large", "judge-small", "judge-small")),
    "hybrid": Method(1200, 0.4, 0.88, ("judge-small",)),
}
WORKFLOWS = {"claims": (1, 7, 2), "moderation": (6, 3, 1), "grading": (1, 6, 3), "support-quality": (3, 5, 2)}
"""How often a workflow takes each of `METHODS`."""
_CHOICES = {name: tuple(accumulate(weights)) for name, weights in WORKFLOWS.items()}
_FLOWS = {
    name: ([*one.workflows], tuple(accumulate(one.workflows.values()))) for name, one in TENANTS.items()
}


class Judgments:
    """A judgment engine; `rate` says how many times as much it does as it would."""

    def __init__(self, seed: int, rate: float = 1.0) -> None:
        self._seed, self._rate = seed, rate

    def during(self, number: int) -> Iterator[Told]:
        """The judgments of one slice."""
        start = number * SLICE
        for name, tenant in TENANTS.items():
            if name == "cobalt" and STANDSTILL.on(start):
                continue
            roll = dice("judgments", name, self._seed, self._rate, number)
            mean = tenant.night + (tenant.day - tenant.night) * busyness(start)
            for place, at in enumerate(spread(roll, mean * self._rate, start)):
                one = told(
                    at,
                    f"j-{self._seed}-{name}-{number}-{place}",
                    _SOURCE,
                    "judgment.executed",
                    self._data(roll, at, name, left_out=name == "birch" and (29 * number + place) % 14 == 0),
                )
                if roll.random() < 0.2:
                    assert isinstance(one[1], dict)  # noqa: S101 - for the type checker
                    one[1]["traceparent"] = (
                        f"00-{roll.getrandbits(128) or 1:032x}-{roll.getrandbits(64) or 1:016x}-01"
                    )
                yield _spoilt(roll, one) if roll.random() < REFUSED_SHARE else one

    @staticmethod
    def _data(roll: random.Random, at: float, tenant: str, *, left_out: bool) -> dict[str, Any]:
        names, weights = _FLOWS[tenant]
        flow = roll.choices(names, cum_weights=weights)[0]
        name = roll.choices([*METHODS], cum_weights=_CHOICES[flow])[0]
        method = METHODS[name]
        took = roll.lognormvariate(0, method.spread) * method.median_ms
        status = _fate(roll)
        if name != "rule" and tenant == "acme" and flow == "claims" and JUDGE.on(at):
            took *= 6
            if roll.random() < 0.85:
                # Longer than a judgment may take: whoever gave up had to notice first.
                status, took = "timeout", 30_050 + 100 * roll.random()
        data: dict[str, Any] = {
            "tenant_id": tenant,
            "workflow_id": flow,
            "method_used": name,
            "status": status,
            "input_data": {"document": f"made up, number {roll.randrange(10_000)}"},
            "final_result": roll.choice(VERDICTS) if status == "success" else "none",
            "execution_time_ms": round(took if status == "timeout" else min(took, 29_000), 1),
            "evaluator_version": "2026.4",
        }
        drifted = drift(at) if tenant == "birch" and flow == "grading" else 0.0
        if status == "success":
            sure = roll.gauss(method.confidence - 0.15 * drifted, 0.06)
            data["confidence_score"] = round(min(1.0, max(0.05, sure)), 3)
            if flow == "grading":
                data["score_name"] = "helpfulness"
                data["score"] = round(min(1.0, max(0.0, roll.gauss(0.75 - 0.3 * drifted, 0.1))), 3)
        if model := roll.choice(method.models):
            data["model"] = model
        if left_out and RELEASE.on(at):
            del data["final_result"]
        elif roll.random() < INVALID_SHARE:
            _blemished(roll, data)
        return data


def _fate(roll: random.Random) -> str:
    """How a judgment ends where nothing is wrong."""
    fate = roll.random()
    return "error" if fate < FAILING * 0.7 else "timeout" if fate < FAILING else "success"


def _blemished(roll: random.Random, data: dict[str, Any]) -> None:
    """Break a quality rule: the event counts, and its record is invalid."""
    match roll.randrange(4):
        case 0:
            data.pop("final_result")
        case 1:
            data["input_data"] = {}
        case 2:
            data["confidence_score"] = round(1 + roll.random(), 3)
        case _:
            data["execution_time_ms"] = 30_050


def _spoilt(roll: random.Random, one: Told) -> Told:
    """Break the schema: the event is refused, and kept as a dead letter."""
    at, event = one
    assert isinstance(event, dict)  # noqa: S101 - for the type checker
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
            return at, b'{"specversion": "1.0", "id": "cut-off", "type": "judgment.exe'
    return at, event
